"""Many geometries in one: clouds or matrices with leading axes, or lists of them.

All clouds of a side lie one after the other in one array. An item is a geometry of its own, made when it is asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from epsot.arrays import Place, as_points, as_real, check_finite, common_place, is_ragged, to_numpy
from epsot.costs import NAMED_COSTS, Array, Cost, HalfSquare, check_cost, ground_cost
from epsot.devices import device_aware
from epsot.geometry.base import Geometry
from epsot.geometry.guests import as_guest
from epsot.geometry.matrix import CostMatrix
from epsot.geometry.points import PointCloud
from epsot.geometry.rows import Rows, Shape, name_of, reduced, shape_of


class Geometries(ABC):
    """A batch of geometries.

    Attributes
    ----------
    place : Place
    dtype : dtype
    shape : tuple
        Of the batch.
    sizes : two arrays
        The numbers of points of each item on either side, of the shape of the batch.
    ragged : (bool, bool)
        Whether what belongs to a side is handed out as a list.
    """

    place: Place
    dtype: Any
    shape: Shape
    sizes: tuple[np.ndarray, np.ndarray]
    ragged: tuple[bool, bool]

    def __len__(self) -> int:
        return math.prod(self.shape)

    @property
    @abstractmethod
    def lengths(self) -> tuple[int, int]:
        """How many points the items have on either side where all have as many, also where there are no items."""

    @property
    @abstractmethod
    def degree(self) -> float:
        """eps = factor length^degree."""

    @property
    @abstractmethod
    def T(self) -> Geometries:
        """Seen from the other side."""

    @abstractmethod
    def over(self, shape: Shape) -> Geometries:
        """Broadcast to another shape."""

    @abstractmethod
    def item(self, k: int) -> Geometry:
        """One of them, counted through all axes."""

    def stored(self, name: str) -> tuple[Array, np.ndarray] | None:
        """The costs of that name as one matrix, and the row where each item begins; None where there is none."""
        return None

    @property
    def clouds(self) -> tuple[Rows, Rows] | None:
        """The points of both sides; None where there are none."""
        return None

    @property
    def family(self) -> Cost | None:
        """The cost that the kernels compute between points; None where there are none."""
        return None

    def embedded(self) -> tuple[Array, Array] | None:
        """The points between which that is the cost, flat; None where there are none."""
        return None

    def matrices(self, name: str) -> Array:
        """The costs of that name, (B, n, m)."""
        raise TypeError(f"{type(self).__name__} have no stored costs")

    def pull_back(self, slopes: Array, side: int) -> Array:
        """Gradients in the points between which the kernels compute, as those in the points of the user; all flat."""
        return slopes

    def embeds(self) -> bool:
        """Whether the kernels compute between other points than the user's."""
        return False

    def forbidding(self) -> list[int]:
        """The items that forbid pairs, which may leave no plan."""
        return []

    def rounded(self) -> np.ndarray:
        """The size of the largest terms of a cost that are rounded, roughly, or more; of the shape of the batch."""
        return np.zeros(self.shape)

    def scale(self) -> np.ndarray:
        """The temperatures at which annealing starts."""
        return np.array([self.item(k).scale() for k in range(len(self))], float).reshape(self.shape)


@device_aware
class PointClouds(Geometries):
    """Many pairs of clouds with one cost: what `PointCloud` is for points with leading axes, or lists of clouds.

    Unless they are `paired`, the clouds of `x` and of `y` stand for themselves, and `pairs` says which belong together.
    """

    def __init__(self, x: Any, y: Any, *, p: float = 2, cost: str | Cost | None = None, paired: bool = True) -> None:
        given, same = ground_cost(p, cost), x is y
        listed = {"x": x, "y": y}
        arrays = {
            f"{name}[{k}]" if is_ragged(z) else name: item
            for name, z in listed.items()
            for k, item in enumerate(z if is_ragged(z) else [z])
        }
        self.place = common_place(**arrays)
        self.cost = as_guest(given, self.place)
        xp = self.place.xp
        self.x = self._rows("x", x)
        self.y = self.x if same else self._rows("y", y)
        if self.x.values.shape[1] != self.y.values.shape[1]:
            d, other = self.x.values.shape[1], self.y.values.shape[1]
            raise ValueError(f"`x` and `y` must have points of the same dimension, got {d} and {other}")
        self.dtype = xp.result_type(self.x.values.dtype, self.y.values.dtype)
        self.x, self.y = (self._copied(rows) for rows in (self.x, self.y))
        if same:
            self.y = self.x
        if not self.cost.degree > 0:
            raise ValueError(f"`cost` must have a positive `degree`, got {self.cost.degree!r}")
        for name, rows in (("x", self.x), ("y", self.y)):
            self._check(name, rows)
        if paired:
            self._broadcast(shape_of(self.x, self.y))
        if type(self.cost) not in (HalfSquare, *NAMED_COSTS.values()) and self.x.first.size and self.y.first.size:
            few = (xp.astype(rows.item(0)[:4, :], xp.float64) for rows in (self.x, self.y))
            check_cost(self.cost, *few)

    def _broadcast(self, shape: Shape) -> None:
        self.x, self.y, self.shape = self.x.over(shape), self.y.over(shape), shape
        self.sizes = self.x.sizes, self.y.sizes
        self.ragged = self.x.ragged, self.y.ragged

    def _rows(self, name: str, points: Any) -> Rows:
        """The clouds of one argument, checked but for their coordinates."""
        if is_ragged(points):
            clouds = [as_points(f"{name}[{k}]", cloud, self.place, finite=False) for k, cloud in enumerate(points)]
            if not clouds:
                raise ValueError(f"`{name}` must hold at least one cloud, got an empty list")
            for k, cloud in enumerate(clouds):
                if cloud.shape[1] != clouds[0].shape[1]:
                    raise ValueError(
                        f"`{name}[{k}]` must have points of the dimension of `{name}[0]`, got {cloud.shape[1]} and "
                        f"{clouds[0].shape[1]} coordinates"
                    )
            dtype = self.place.xp.result_type(*(cloud.dtype for cloud in clouds))
            return Rows.listed([self.place.xp.astype(cloud, dtype) for cloud in clouds], self.place.xp)
        array = as_real(name, points, self.place)
        if array.ndim < 2:
            array = as_points(name, array, self.place)
        if 0 in array.shape[-2:]:
            raise ValueError(
                f"`{name}` must hold at least one point with one coordinate, got shape {tuple(array.shape)}"
            )
        return Rows.stacked(array, 2)

    def _copied(self, rows: Rows) -> Rows:
        values = self.place.xp.astype(rows.values, self.dtype)  # a copy: results outlive changes of the inputs
        return Rows(values, rows.first, rows.sizes, rows.ragged, rows.length)

    def _check(self, name: str, rows: Rows) -> None:
        """Raise where a coordinate is not finite, or the cost not defined, with the name of the item."""
        try:
            check_finite(name, rows.values, "coordinates", self.place)
            self.cost.check(name, rows.values)
        except ValueError:
            for k in range(rows.first.size):
                item = name_of(name, rows.shape, k)
                check_finite(item, rows.item(k), "coordinates", self.place)
                self.cost.check(item, rows.item(k))
            raise

    def over(self, shape: Shape) -> PointClouds:
        new = object.__new__(PointClouds)
        vars(new).update(vars(self))
        new._broadcast(shape)
        return new

    @property
    def lengths(self) -> tuple[int, int]:
        return self.x.length, self.y.length

    @property
    def degree(self) -> float:
        return self.cost.degree

    def item(self, k: int) -> PointCloud:
        x, y = self.x.item(k), self.y.item(k)
        if self.y is self.x:
            y = x
        new = object.__new__(PointCloud)
        new.cost, new.place, new.dtype = self.cost, self.place, self.dtype
        new._set(x, y)
        return new

    @property
    def T(self) -> PointClouds:
        new = object.__new__(PointClouds)
        vars(new).update(vars(self))
        new.x, new.y = self.y, self.x
        new._broadcast(self.shape)
        return new

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> PointClouds:
        """The first cloud of some items with the second of others."""
        new = object.__new__(PointClouds)
        vars(new).update(vars(self))
        new.x, new.y = self.x.at(rows), self.y.at(columns)
        new._broadcast(rows.shape)
        return new

    def diameters(self) -> np.ndarray:
        """The diagonals of the joint bounding boxes, of the shape of the batch."""
        x_low, y_low = (reduced(rows, np.minimum, self.place) / 2 for rows in (self.x, self.y))
        x_high, y_high = (reduced(rows, np.maximum, self.place) / 2 for rows in (self.x, self.y))
        with np.errstate(invalid="ignore"):
            extent = np.maximum(x_high, y_high) - np.minimum(x_low, y_low)
        largest = extent.max(axis=-1, initial=0.0, keepdims=True)
        ratio = extent / np.where(largest > 0, largest, 1.0)
        diameters: np.ndarray = 2 * largest[..., 0] * np.sqrt((ratio**2).sum(axis=-1))
        return diameters

    @property
    def clouds(self) -> tuple[Rows, Rows]:
        return self.x, self.y

    @property
    def family(self) -> Cost:
        return self.cost.family

    def embeds(self) -> bool:
        return self.cost.family is not self.cost

    def embedded(self) -> tuple[Array, Array]:
        """The points between which `cost.family` is the cost, flat; in float64, where they are others."""
        x, y = self.x.values, self.y.values
        if self.cost.family is self.cost:
            return x, y
        u, v = (self.cost.embed(self.place.xp.astype(z, self.place.xp.float64)) for z in (x, y))
        return u, u if y is x else v

    def pull_back(self, slopes: Array, side: int) -> Array:
        if self.cost.family is self.cost:
            return slopes
        rows, xp = (self.x, self.y)[side], self.place.xp
        sizes = rows.sizes.reshape(-1)
        index = np.repeat(rows.first.reshape(-1) - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
        points = xp.take(rows.values, xp.asarray(index, device=self.place.device), axis=0)
        return self.cost.pull_back(points, slopes)

    def rounded(self) -> np.ndarray:
        kind, spans = self.cost.family.kind, self.diameters()
        if kind is None:
            return np.zeros(self.shape)
        largest = spans * spans / 4 if kind == "square" else spans * math.sqrt(self.x.values.shape[1])
        return np.asarray(self.cost.family.factor * (largest + self.cost.magnitude * (1 + spans)))

    def scale(self) -> np.ndarray:
        if self.cost.span(1.0) is None:
            return super().scale()  # of each
        spans = [self.cost.span(float(z)) for z in self.diameters().flat]
        return np.array(spans, float).reshape(self.shape)

    def __repr__(self) -> str:
        return f"PointClouds(shape={self.shape}, d={self.x.values.shape[1]}, cost={self.cost!r}, dtype={self.dtype})"


@device_aware
class CostMatrices(Geometries):
    """Many cost matrices: what `CostMatrix` is for a matrix with leading axes, or a list of matrices."""

    degree = 1.0
    lengths = 0, 0

    def __init__(self, C: Any, *, C_xx: Any = None, C_yy: Any = None) -> None:
        parts = {"C": C, "C_xx": C_xx, "C_yy": C_yy}
        listed = {name: is_ragged(z) for name, z in parts.items()}
        self.place = common_place(
            **{f"{name}[{k}]" if listed[name] else name: item for name, z in parts.items() if z is not None
               for k, item in enumerate(z if listed[name] else [z])}
        )  # fmt: skip
        self._items: dict[str, tuple[Shape, Any]] = {}
        shapes: list[Shape] = []
        for name, matrices in parts.items():
            if matrices is None:
                continue
            if listed[name]:
                arrays = [as_real(f"{name}[{k}]", item, self.place) for k, item in enumerate(matrices)]
                for k, array in enumerate(arrays):
                    if array.ndim != 2:
                        raise ValueError(f"`{name}[{k}]` must be an (n, m) matrix, got shape {tuple(array.shape)}")
                shapes.append((len(arrays),))
                self._items[name] = (shapes[-1], arrays)
            else:
                array = as_real(name, matrices, self.place)
                if array.ndim < 2:
                    raise ValueError(f"`{name}` must be a matrix, or have leading axes, got shape {tuple(array.shape)}")
                shapes.append(tuple(array.shape[:-2]))
                flat = self.place.xp.reshape(array, (-1, *array.shape[-2:])) if array.ndim > 2 else array[None, :, :]
                self._items[name] = (shapes[-1], flat)
        self.C = None if listed["C"] else self._items["C"][1]  # (count, n, m)
        try:
            self._broadcast(np.broadcast_shapes(*shapes))
        except ValueError:
            listed_shapes = ", ".join(f"{shape} of `{name}`" for name, shape in zip(self._items, shapes, strict=True))
            raise ValueError(f"there must be as many matrices of each kind, or one, got {listed_shapes}") from None
        self._checked = [self._make(k) for k in range(len(self))]
        self.dtype = self._checked[0].dtype if self._checked else self._items["C"][1].dtype
        self.ragged = listed["C"], listed["C"]
        self.lengths = (0, 0) if self.C is None else (int(self.C.shape[1]), int(self.C.shape[2]))

    def _broadcast(self, shape: Shape) -> None:
        self.shape = shape
        self._numbers = {
            name: np.broadcast_to(np.arange(math.prod(own)).reshape(own), shape).reshape(-1)
            for name, (own, _) in self._items.items()
        }
        matrices, numbers = self._items["C"][1], self._numbers["C"]
        shapes = [tuple(matrices[int(k)].shape if isinstance(matrices, list) else matrices.shape[1:]) for k in numbers]
        sizes = np.array(shapes, np.int64).reshape(*shape, 2)
        self.sizes = sizes[..., 0], sizes[..., 1]

    def _make(self, k: int) -> CostMatrix:
        numbers = {name: int(of[k]) for name, of in self._numbers.items()}
        found = {
            name: matrices[numbers[name]] if isinstance(matrices, list) else matrices[numbers[name], :, :]
            for name, (_, matrices) in self._items.items()
        }
        try:
            return CostMatrix(found.pop("C"), **found)
        except ValueError as error:
            message = str(error)
            for name in self._items:
                message = message.replace(f"`{name}` must", f"`{name_of(name, self.shape, k)}` must")
            raise ValueError(message) from None

    def over(self, shape: Shape) -> CostMatrices:
        new = object.__new__(CostMatrices)
        vars(new).update(vars(self))
        new._broadcast(shape)
        numbers = np.broadcast_to(np.arange(len(self)).reshape(self.shape), shape).reshape(-1)
        new._checked = [self._checked[int(k)] for k in numbers]
        return new

    @property
    def T(self) -> CostMatrices:
        new = object.__new__(CostMatrices)
        vars(new).update(vars(self))
        (shape, matrices), transpose = self._items["C"], self.place.xp.matrix_transpose
        turned = [transpose(C) for C in matrices] if self.C is None else transpose(matrices)
        new.C, new.ragged, new.lengths = None if self.C is None else turned, self.ragged[::-1], self.lengths[::-1]
        new._items = {"C": (shape, turned), **{
            name: self._items[other] for name, other in (("C_xx", "C_yy"), ("C_yy", "C_xx")) if other in self._items
        }}  # fmt: skip
        new._broadcast(self.shape)
        new._checked = [matrix.T for matrix in self._checked]
        return new

    def stored(self, name: str) -> tuple[Array, np.ndarray] | None:
        _, matrices = self._items.get(name, ((), None))
        if matrices is None or isinstance(matrices, list):
            return None
        n = matrices.shape[1]
        return self.place.xp.reshape(matrices, (-1, matrices.shape[2])), self._numbers[name].astype(np.int64) * n

    def forbidding(self) -> list[int]:
        xp, matrices = self.place.xp, self._items["C"][1]
        if isinstance(matrices, list):
            forbid = np.array([bool(xp.any(xp.isinf(matrix))) for matrix in matrices], bool)
        else:
            forbid = to_numpy(xp.any(xp.isinf(matrices), axis=(1, 2)))
        return np.flatnonzero(forbid[self._numbers["C"]]).tolist()

    def matrices(self, name: str) -> Array:
        """Those of that name, in float64: (B, n, m), or (1, n, m) where all items share one."""
        xp, found, numbers = self.place.xp, self._items[name][1], self._numbers[name]
        if found.shape[0] > 1:
            found = xp.take(found, xp.asarray(numbers.astype(np.int64), device=self.place.device), axis=0)
        return xp.astype(found, xp.float64)

    def item(self, k: int) -> CostMatrix:
        return self._checked[k]

    def __repr__(self) -> str:
        return f"CostMatrices(shape={self.shape}, dtype={self.dtype})"


def as_many(geometry: Geometry | Geometries) -> Geometries:
    """The batch of one geometry, of the shape ()."""
    if isinstance(geometry, Geometries):
        return geometry
    if isinstance(geometry, CostMatrix):
        return CostMatrices(geometry.C, C_xx=geometry.C_xx, C_yy=geometry.C_yy)
    if isinstance(geometry, PointCloud):
        new = object.__new__(PointClouds)
        new.place, new.cost, new.dtype = geometry.place, geometry.cost, geometry.dtype
        new.x = Rows.stacked(geometry.x, 2)
        new.y = new.x if geometry.y is geometry.x else Rows.stacked(geometry.y, 2)
        new._broadcast(())
        return new
    raise TypeError(f"a {type(geometry).__name__} cannot be solved for many weights at once; solve it for each of them")


PointCloud.many, CostMatrix.many = PointClouds, CostMatrices
