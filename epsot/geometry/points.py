"""Two clouds of points and a ground cost."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from epsot import kernels
from epsot.arrays import (
    Place,
    as_points,
    check_finite,
    check_some,
    common_place,
    dtype_of_name,
    name_of_dtype,
    row_by_row,
)
from epsot.communicator import Communicator, Share
from epsot.costs import Array, Cost, Euclidean, HalfSquare, ground_cost
from epsot.devices import device_aware
from epsot.geometry.base import DOUBLE, SINGLE, Geometry
from epsot.geometry.boxes import Boxes
from epsot.geometry.grid import (
    Grid,
    Shape,
    are_many,
    common_periods,
    grid_of,
    grid_parts,
    home_of,
    points_of,
    without_grids,
)
from epsot.geometry.guests import as_guest, check_cost
from epsot.geometry.periodic import cost_of_parts, cost_parts, with_periods
from epsot.geometry.tangents import MOMENTS, EmbeddedTangents, SquareTangents, Tangents, pairwise_tangents
from epsot.kernels import PointsKernel
from epsot.lazy import cached_property

SINGLE_RANGE = 1e15  # coordinates whose squares float32 holds
FAR = 4.0  # times the radius of a cloud: from such a distance on its centre is worth knowing
PROBED = (3, 4)  # points of the two clouds on which a cost of the user's own is tried
BLOCK = 64  # points that the kernels give a common centre, about
HOMOGENEOUS = ("square", "euclidean", "cityblock")  # families of costs with C(s x, s y) = s^p C(x, y)


def clouds_of(parts: dict[str, Any], place: Place) -> tuple[Array, Array]:
    """The two clouds of a file: one array where the two were one, and otherwise two, also where they are equal."""
    (first, second), dtype = grids_of(parts), dtype_of_name(parts["dtype"], place)
    x = place.received(parts["x"]) if first is None else first.points_in(place, dtype)
    if parts["y"] is None and second == first:
        return x, x
    y = place.received(parts["y"]) if second is None else second.points_in(place, dtype)
    return x, place.xp.asarray(y, copy=True) if y is x else y


def grids_of(parts: dict[str, Any]) -> tuple[Grid | None, Grid | None]:
    """Those of which the clouds of a file are the nodes."""
    first, second = map(grid_of, parts["grids"])
    return first, second


@device_aware
class PointCloud(Geometry):
    """The cost between two clouds of points.

    Parameters
    ----------
    x : (n, d) array or Grid
        The points of the first measure, in float32 or float64 (integers and lists become float64, half precision
        float32). Leading axes, (..., n, d), or a list of clouds make many geometries, for `solve` and `divergence`.
    y : (m, d) array or Grid
        The points of the second measure, of the same library and device; leading axes likewise.
    p : {2, 1}
        The cost is ``|x - y|**p / p``: half the squared distance (default), or the distance.
    cost : str or Cost, optional
        Overrides `p`: "sqeuclidean", "euclidean", "cityblock" or "cosine" with their meaning in
        `scipy.spatial.distance`, or an `epsot.Cost` of your own.

    Raises
    ------
    ValueError
        If a cloud is empty, not (n, d) or not finite, if the dimensions differ, or if `p` or `cost` is unknown; if a
        `cost` of your own, tried on a few of the points, is not symmetric, or returns NaN or a wrong shape.
    TypeError
        If the points are not real, or come from different libraries or devices; if `cost` has a wrong signature.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x, y = np.asarray([[0.0, 0.0], [1.0, 0.0]]), np.asarray([[0.0, 2.0], [1.0, 2.0]])
    >>> epsot.solve(epsot.PointCloud(x, y, cost="cityblock"), eps=0.01).value.round(6)
    np.float64(2.006931)
    """

    stored_as = "points"
    lattices: ClassVar[Any] = None  # what makes the geometry of two grids: None for costs that are no sums over axes
    grids: tuple[Grid | None, Grid | None] = (None, None)  # that the points are of

    def __new__(cls, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Of points with leading axes, or lists of clouds, many geometries: a `PointClouds`; of grids a `Separable`."""
        if cls is PointCloud and (are_many(x) or are_many(y)):
            return cls.many(x, y, **options)
        if cls is PointCloud and isinstance(x, Grid) and isinstance(y, Grid):
            found = cls.lattices(x, y, **options)
            if found is not None:
                return found
        return object.__new__(cls)

    def __init__(self, x: Any, y: Any, *, p: float = 2, cost: str | Cost | None = None) -> None:
        given, same = ground_cost(p, cost), x is y
        self.grids = tuple(z if isinstance(z, Grid) else None for z in (x, y))  # type: ignore[assignment]
        self.place: Place = common_place(**without_grids(x=x, y=y))
        self.cost = as_guest(with_periods(given, common_periods(*self.grids)), self.place)
        xp = self.place.xp
        x, y = self._listed(x, y)
        if x.shape[1] != y.shape[1]:
            raise ValueError(
                f"`x` and `y` must have points of the same dimension, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
            )
        self.dtype = xp.result_type(x.dtype, y.dtype)
        x = row_by_row(x, self.dtype, xp)  # a copy: results outlive changes of the inputs
        self._set(x, x if same else row_by_row(y, self.dtype, xp))
        if 0 in self.shape:  # of a rank that has none, beside others
            return
        if not self._boxes.are_finite():
            for name, cloud in (("x", self.x), ("y", self.y)):
                check_finite(name, cloud, "coordinates", self.place)
        self.cost.check("x", self.x)
        self.cost.check("y", self.y)
        check_cost(self.cost, self._few)

    def written(self) -> dict[str, Any]:
        first, second = self.grids
        return {
            "x": None if first else self.x, "y": None if second or self.y is self.x else self.y,
            "grids": [grid_parts(first), grid_parts(second)], "dtype": name_of_dtype(self.dtype),
            "cost": cost_parts(self.cost),
        }  # fmt: skip

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> PointCloud:
        return cls(*clouds_of(parts, place), cost=cost_of_parts(parts["cost"]))._over(*grids_of(parts))

    def shares(self, comm: Communicator, a: Any, b: Any) -> tuple[Share, Share]:
        first, second = (
            comm.share(n) if grid is None else grid.share(comm, z)
            for grid, n, z in zip(self.grids, self.shape, (a, b), strict=True)
        )
        return first, second

    def joined(self, first: Share, second: Share) -> PointCloud:
        """The clouds of all ranks, of the blocks of one; grids are whole already."""
        x, y, comm = self.x, self.y, first.comm
        comm.check_equal(
            cost=type(self.cost).__name__, dtype="float32" if self.dtype == self.place.xp.float32 else "float64",
            dimension=x.shape[1], own=x is y, grids=self.grids,
        )  # fmt: skip
        if self.grids[0] is None:
            x = first.joined(self.x)
        if self.y is self.x:
            y = x
        elif self.grids[1] is None:
            y = second.joined(self.y)
        return self if x is self.x and y is self.y else self._derived(x, y)._over(*self.grids)

    def check_whole(self) -> None:
        for name, points in (("x", self.x), ("y", self.y)):
            check_some(name, points)

    def _listed(self, x: Any, y: Any) -> tuple[Array, Array]:
        """The points of both sides, checked but for their coordinates: those of a grid in the dtype of the others."""
        given = {"x": x} if y is x else {"x": x, "y": y}
        found = {
            name: as_points(name, z, self.place, finite=False, some=False) for name, z in without_grids(**given).items()
        }
        dtype = next((points.dtype for points in found.values()), self.place.xp.float64)
        found |= {name: z.points_in(self.place, dtype) for name, z in given.items() if isinstance(z, Grid)}
        return found["x"], found.get("y", found["x"])

    def _set(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        self.shape: tuple[int, int] = (x.shape[0], y.shape[0])

    def _few(self) -> tuple[Array, Array]:
        """Some of the points of both sides in float64, evenly spaced."""
        xp, found = self.place.xp, []
        for points, count in zip((self.x, self.y), PROBED, strict=True):
            n = points.shape[0]
            count = min(n, count)
            rows = xp.asarray([i * n // count for i in range(count)], dtype=xp.int64, device=self.place.device)
            found.append(xp.astype(xp.take(points, rows, axis=0), xp.float64))
        return found[0], found[1]

    def _derived(self, x: Array, y: Array) -> PointCloud:
        """The same cost between points that are checked already."""
        return self._checked(x, y, self.cost, self.place, self.dtype)

    @staticmethod
    def _checked(x: Array, y: Array, cost: Cost, place: Place, dtype: Any) -> PointCloud:
        """Of parts that are checked already."""
        new = object.__new__(PointCloud)
        new.cost, new.place, new.dtype = cost, place, dtype
        new._set(x, y)
        return new

    def _over(self, first: Grid | None, second: Grid | None) -> PointCloud:
        """The same points, of such grids."""
        self.grids = first, second
        return self

    @property
    def supports(self) -> tuple[Shape, Shape]:
        (first, second), (n, m) = self.grids, self.shape
        return (n,) if first is None else first.shape, (m,) if second is None else second.shape

    def suited(self, a: Any, b: Any) -> PointCloud:
        first, second = self.grids
        if first is None or second is None:
            return self
        place, dtype = home_of(a=a, b=b)
        x = first.points_in(place, dtype)
        new = self._derived(x, x if first == second else second.points_in(place, dtype))
        new.cost, new.place, new.dtype = as_guest(self.cost, place), place, dtype
        return new._over(first, second)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, d={self.x.shape[1]}, cost={self.cost!r}, dtype={self.dtype})"

    @property
    def degree(self) -> float:
        return self.cost.degree

    def length(self, eps: float) -> float:
        """The blur of a temperature, in the units of the points: eps = factor blur^degree."""
        return float((eps / self.cost.factor) ** (1 / self.degree))

    def diameter(self) -> float:
        """The diagonal of the joint bounding box, in the units of the points."""
        return self._diameter

    def _with_boxes(self, other: PointCloud, first: int = 0, second: int = 1) -> PointCloud:
        """The same clouds, which need not look for their corners where another one, of which these are sides, has."""
        if "_boxes" in vars(other):
            vars(self)["_boxes"] = other._boxes.sides(first, second)
        return self

    @cached_property
    def _boxes(self) -> Boxes:
        return Boxes.around(self.x, self.y, self.place.xp)

    @cached_property
    def _diameter(self) -> float:
        return 0.0 if 0 in self.shape else self._boxes.diameter()

    def scale(self) -> float:
        """The temperature at which annealing starts: diameter^p, or a bound of any other cost."""
        if 0 in self.shape:
            return 0.0
        span = self.cost.span(self.diameter())
        if span is not None:
            return span
        xp = self.place.xp
        kernel = self.kernel()
        centre = kernel.T.cost_rows(slice(0, 1))  # (1, n): distances to y[0]; twice the largest bounds a metric
        other = kernel.cost_rows(slice(0, 1))  # (1, m): distances from x[0]
        return 2.0 * max(float(xp.max(centre)), float(xp.max(other)))

    @property
    def precision(self) -> float:
        """Of the arithmetic of the kernels: half a unit in the last place of 1."""
        single = self.dtype == self.place.xp.float32 and self.cost.family.kind is not None
        return SINGLE if single else DOUBLE

    def rounded(self) -> float:
        """The size of the largest terms of a cost that the kernels round to the dtype of the points.

        Squares are those of coordinates from a common centre, or in at most three dimensions from that of a block.
        Points that are embedded are rounded there, where they have no centre.
        """
        (n, m), d, cost = self.shape, self.x.shape[1], self.cost
        if not (n and m):
            return 0.0
        span = self._derived(cost.embed(self.x), cost.embed(self.y)).diameter() if cost.magnitude else self.diameter()
        match cost.family.kind:
            case "square":
                block = min(1.0, BLOCK / min(n, m)) ** (2 / d) if d <= 3 else 1.0
                radius = span / 2
                # inf where it overflows, as `**` would not be
                return cost.factor * (block * radius * radius + cost.magnitude * span)
            case "euclidean" | "cityblock":
                return cost.factor * math.sqrt(d) * span
        return 0.0  # the portable kernels compute in float64

    def embeds(self) -> bool:
        return self.cost.family is not self.cost

    def kernel(self, workers: int | None = None) -> PointsKernel:
        """The reductions over all pairs."""
        family, embed = self.cost.family, self.cost.embed
        kernel: PointsKernel = kernels.points(embed(self.x), embed(self.y), family, workers)
        return kernel

    def cost_gradient(self, kernel: PointsKernel, k: Array, h: Array, eps: float) -> Array:
        """sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]): of embedded points, pulled back.  -> (n, d)"""
        return self.cost.pull_back(self.x, kernel.cost_gradient(k, h, eps))

    def tangents(self, kernel: PointsKernel, k: Array, h: Array, eps: float, guess: Array | None = None) -> Tangents:
        """What becomes of the sums of a plan as points move: by its moments for squares, else pair by pair."""
        xp, family = self.place.xp, self.cost.family
        x, y = (xp.astype(z, xp.float64) for z in (self.x, self.y))
        embedded = (x, y) if family is self.cost else (self.cost.embed(x), self.cost.embed(y))
        arguments = kernel, (k, h, eps), *embedded, self.place, guess
        inner: Tangents
        if family.kind == "square" and self.x.shape[1] <= MOMENTS and 0 not in kernel.shape:
            # second moments are large beside what is left of them: float32 has no digits for that
            exact = kernel if self.precision <= DOUBLE else kernels.points(*embedded, family, kernel.workers)
            inner = SquareTangents(family.factor, exact, *arguments)
        else:
            inner = pairwise_tangents(family, *arguments)
        return inner if family is self.cost else EmbeddedTangents(self.cost, x, y, inner, xp)

    def transported(self, kernel: PointsKernel, k: Array, h: Array, eps: float) -> Array:
        """<P, C>, 0-d. Of a homogeneous cost two sweeps for gradients give it: p C = <x, grad_1 C> + <y, grad_2 C>.

        By Euler; such costs see differences only, so that the points may be taken from a centre: what cancels is as
        large as the clouds are wide, wherever they lie.
        """
        if 0 in self.shape or self.cost.family.kind not in HOMOGENEOUS:
            return super().transported(kernel, k, h, eps)
        xp = self.place.xp
        x, y = (xp.astype(self.cost.embed(z), xp.float64) for z in (self.x, self.y))
        force_x, force_y = kernel.cost_gradient(k, h, eps), kernel.T.cost_gradient(h, k, eps)
        centre = xp.mean(x, axis=0)
        return (xp.sum((x - centre) * force_x) + xp.sum((y - centre) * force_y)) / self.cost.family.degree

    def take(self, rows: Array | None, columns: Array | None) -> PointCloud:
        """The geometry of some points, given by index arrays; None takes all."""
        take = self.place.xp.take
        return self._derived(
            self.x if rows is None else take(self.x, rows, axis=0),
            self.y if columns is None else take(self.y, columns, axis=0),
        )

    @property
    def T(self) -> PointCloud:
        return self._derived(self.y, self.x)._with_boxes(self, 1, 0)._over(*self.grids[::-1])

    def in_float64(self) -> PointCloud:
        """The same points in float64."""
        xp = self.place.xp
        x = xp.astype(self.x, xp.float64)
        new = self._derived(x, x if self.y is self.x else xp.astype(self.y, xp.float64))
        new._with_boxes(self)
        new.dtype = xp.float64
        return new._over(*self.grids)

    def in_float32(self) -> PointCloud:
        """The same points around the middle of all in float32, where a kernel has it and they are in its range."""
        xp, same = self.place.xp, self.cost.family is self.cost
        if self.dtype == xp.float32 or kernels.backend_of(self.x, self.cost.family) == "tiled":
            return self
        if not self._boxes.largest() < SINGLE_RANGE:
            return self
        middle = self._boxes.middle()
        if not same:
            middle = 0 * middle  # directions have an origin
        shift = xp.asarray(middle, dtype=xp.float64, device=self.place.device)
        x = xp.astype(self.x - shift, xp.float32)
        new = self._derived(x, x if self.y is self.x else xp.astype(self.y - shift, xp.float32))
        new.dtype = xp.float32
        return new

    def split(self) -> tuple[PointCloud, Array, Array] | None:
        """Clouds around a common centre and u, v with C[i, j] = C'[i, j] + u[i] + v[j]; None where that brings little.

        With the centres x0 and y0 and t = y0 - x0, half of |x - y|^2 is half of |(x - x0) - (y - y0)|^2, less
        <t, x - x0>, and <t, y - y0> and half of |t|^2.  (n,), (m,)
        """
        x_0, y_0, radius = self._boxes.centres()
        t = y_0 - x_0
        if self.cost.kind != "square" or not FAR * radius < float(np.abs(t).max()) < math.inf:
            return None
        xp, device = self.place.xp, self.place.device
        x, y = (
            xp.astype(z, xp.float64) - xp.asarray(z_0, dtype=xp.float64, device=device)[None, :]
            for z, z_0 in ((self.x, x_0), (self.y, y_0))
        )
        across, factor = xp.asarray(t, dtype=xp.float64, device=device)[None, :], self.cost.factor
        half = factor * float((t * t).sum()) / 4
        new = self._derived(xp.astype(x, self.dtype), xp.astype(y, self.dtype))
        return new, half - factor * xp.sum(across * x, axis=1), half + factor * xp.sum(across * y, axis=1)

    def source(self) -> PointCloud:
        """The first cloud with itself, for the debiasing term."""
        return self._derived(self.x, self.x)._with_boxes(self, 0, 0)._over(*self.grids[:1] * 2)

    def source_kernel(self, kernel: PointsKernel) -> PointsKernel:
        """The kernel of `source()`, sharing what `kernel` prepared."""
        return kernel.source()

    def rows_kernel(self, kernel: PointsKernel) -> PointsKernel:
        """The kernel of these points with the same `y` as `kernel`, sharing what that prepared."""
        return kernel.at(self.cost.embed(self.x))

    def across(self, kernel: PointsKernel, other: PointsKernel) -> PointsKernel:
        return kernel.rows_of(other)

    @property
    def points(self) -> tuple[Array, Array]:
        return self.x, self.y

    def same_sides(self, past: Geometry) -> tuple[bool, bool]:
        if past.points is None:
            return super().same_sides(past)
        x, y = past.points
        if x.shape[1] != self.x.shape[1]:
            raise ValueError("`init` must be a result between points with as many coordinates as these")
        return self._equal(x, self.x), self._equal(y, self.y)

    def blur(self, eps: float) -> float | None:
        return self.length(eps) if type(self.cost) in (HalfSquare, Euclidean) else None

    def taken(self, points: Any, *, some: bool = True) -> Array:
        """Other points of the user, (r, d), checked."""
        xp = self.place.xp
        if isinstance(points, Grid):
            raise TypeError("`points` must be an (r, d) array here, got a Grid; pass `grid.points`")
        self.place.admit("y", points=points)
        points = as_points("points", points, self.place, some=some)
        if points.shape[1] != self.y.shape[1]:
            raise ValueError(
                f"`points` must have {self.y.shape[1]} coordinates, as the cloud, got shape {tuple(points.shape)}"
            )
        self.cost.check("points", points)
        return xp.astype(points, self.dtype, copy=False)

    def at(self, points: Any) -> PointCloud:
        """The cost between other points, (r, d), or the nodes of a grid, and `y`."""
        return self._derived(self.place.xp.astype(points_of(points, self.place), self.dtype, copy=False), self.y)

    def is_self(self) -> bool:
        """Whether the two clouds are one: then the divergence of equal weights is zero."""
        return self.x is self.y or self._equal(self.x, self.y)

    def _equal(self, points: Array, others: Array) -> bool:
        return points.shape == others.shape and bool(self.place.xp.all(points == others))


def extent(x: Any, y: Any) -> float:
    """The diameter of two clouds: the diagonal of their joint bounding box, in the units of the points.

    Parameters
    ----------
    x : (n, d) array
        Points of the source.
    y : (m, d) array
        Points of the target.

    Returns
    -------
    float
        The length from which annealing starts, and beside which `blur` and `reach` are chosen.

    Raises
    ------
    ValueError, TypeError
        As `PointCloud`.

    Examples
    --------
    >>> import epsot
    >>> epsot.extent([[0.0, 0.0]], [[3.0, 1.0], [1.0, 4.0]])
    5.0
    """
    listed = without_grids(x=x, y=y)
    place = common_place(**listed)
    found = {name: as_points(name, z, place) for name, z in listed.items()}  # one cloud each, no batch
    return PointCloud(found.get("x", x), found.get("y", y)).diameter()
