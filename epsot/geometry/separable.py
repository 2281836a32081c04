"""The cost between two grids where it is a sum over the axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epsot import kernels
from epsot.arrays import Place, as_points, common_place, dtype_of_name, name_of_dtype
from epsot.communicator import Communicator, Share
from epsot.costs import Array, Cityblock, Cost, HalfSquare, Square, cost_of_name, ground_cost, name_of_cost
from epsot.devices import device_aware
from epsot.geometry.base import DOUBLE, SINGLE, Geometry
from epsot.geometry.grid import Grid, Periods, Shape, common_periods, grid_of, grid_parts, home_of
from epsot.geometry.periodic import periods_of_parts, with_periods
from epsot.geometry.points import FAR, PointCloud
from epsot.geometry.pyramid import Pyramid
from epsot.geometry.tangents import MOMENTS, LineTangents, PairTangents, SquareTangents, Tangents
from epsot.kernels import PointsKernel
from epsot.kernels.lattice import Axis, Lattice
from epsot.lazy import cached_property

KINDS = {HalfSquare: "squares", Square: "squares", Cityblock: "lengths"}
HALF = {"squares": 0.5, "lengths": 1.0}  # of the family, of which a cost is a multiple


def is_separable(cost: Cost) -> bool:
    """Whether a cost is a sum over the coordinates for which lattices have kernels."""
    return type(cost) in KINDS


@device_aware
class Separable(Geometry):
    """The cost between the nodes of two grids, a sum over the axes: what `PointCloud` is for two grids.

    It is made without arrays: those of the weights say where to compute, and in which dtype, see `suited`.
    """

    stored_as = "grids"

    def __init__(self, x: Grid, y: Grid, periods: Periods, cost: Cost, place: Place, dtype: Any) -> None:
        self.x, self.y, self.periods, self.cost, self.place, self.dtype = x, y, periods, cost, place, dtype
        self.shape = x.size, y.size

    @classmethod
    def of(cls, x: Grid, y: Grid, *, p: float = 2, cost: str | Cost | None = None) -> Separable | None:
        """Checked, where the cost is separable; else None."""
        ground = ground_cost(p, cost)
        if not is_separable(ground):
            return None
        place = common_place()
        return cls(x, y, common_periods(x, y), ground, place, place.xp.float64)

    def written(self) -> dict[str, Any]:
        return {
            "x": grid_parts(self.x), "y": grid_parts(self.y), "periods": list(self.periods),
            "cost": name_of_cost(self.cost), "dtype": name_of_dtype(self.dtype),
        }  # fmt: skip

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> Separable:
        x, y, cost = grid_of(parts["x"]), grid_of(parts["y"]), cost_of_name(parts["cost"])
        periods = periods_of_parts(parts["periods"])
        if x is None or y is None or not x.dimension == y.dimension == len(periods) or not is_separable(cost):
            raise ValueError("grids that do not fit one another")
        return cls(x, y, periods, cost, place, dtype_of_name(parts["dtype"], place))

    def between(self, x: Grid, y: Grid) -> Separable:
        """The same cost between other grids: axes close where they did, whatever the grids say."""
        return Separable(x, y, self.periods, self.cost, self.place, self.dtype)

    def shares(self, comm: Communicator, a: Any, b: Any) -> tuple[Share, Share]:
        return self.x.share(comm, a), self.y.share(comm, b)

    def joined(self, first: Share, second: Share) -> Separable:
        """Itself: every rank has the grids, and blocks are those of the weights."""
        first.comm.check_equal(x=self.x, y=self.y, cost=type(self.cost).__name__, periods=self.periods)
        return self

    def part(self, rows: slice) -> Separable:
        return self.between(self.x.rows(rows), self.y)

    def suited(self, a: Any, b: Any) -> Separable:
        place, dtype = home_of(a=a, b=b)
        return Separable(self.x, self.y, self.periods, self.cost, place, dtype)

    def __repr__(self) -> str:
        return f"Separable({self.x}, {self.y}, cost={self.cost!r})"

    @property
    def supports(self) -> tuple[Shape, Shape]:
        return self.x.shape, self.y.shape

    @property
    def T(self) -> Separable:
        return self.between(self.y, self.x)

    def source(self) -> Separable:
        return self.between(self.x, self.x)

    def is_self(self) -> bool:
        return self.x == self.y

    @property
    def degree(self) -> float:
        return self.cost.degree

    @property
    def precision(self) -> float:
        single = self.dtype == self.place.xp.float32 and kernels.separable_is_fused(self.place)
        return SINGLE if single else DOUBLE

    def in_float64(self) -> Separable:
        return Separable(self.x, self.y, self.periods, self.cost, self.place, self.place.xp.float64)

    # Lengths

    @property
    def extents(self) -> np.ndarray:
        """How far apart nodes of either side may be along each axis: half a period, at most.  (d,)"""
        low = np.minimum(self.x.origin, self.y.origin)
        high = np.maximum(*(np.array([line[-1] for line in grid.axes]) for grid in (self.x, self.y)))
        half = [math.inf if period is None else period / 2 for period in self.periods]
        return np.asarray(np.minimum(high - low, half))

    def diameter(self) -> float:
        """The diagonal of the joint bounding box, in which a periodic axis has half its period."""
        return float(np.linalg.norm(self.extents))

    def length(self, eps: float) -> float:
        """The blur of a temperature: eps = factor blur^degree."""
        return float((eps / self.cost.factor) ** (1 / self.degree))

    def blur(self, eps: float) -> float | None:
        return self.length(eps) if type(self.cost) is HalfSquare else None

    def scale(self) -> float:
        """The temperature at which annealing starts: diameter^2, or the largest cost."""
        return float(self.extents.sum()) if self.cost.degree == 1 else self.diameter() ** 2

    # Reductions

    def kernel(self, workers: int | None = None) -> Lattice:
        kind, (x, y) = KINDS[type(self.cost)], (self.x, self.y)
        axes = map(Axis, x.shape, y.shape, x.origin, y.origin, x.spacing, y.spacing, self.periods)
        found: Lattice = kernels.separable(
            tuple(axes), kind, HALF[kind] * self.cost.factor, self.place, self.dtype, workers
        )
        return found

    def across(self, kernel: Lattice, other: Lattice) -> Lattice:
        return kernel.rows_of(other)

    def cost_gradient(self, kernel: Lattice, k: Array, h: Array, eps: float) -> Array:
        return kernel.cost_gradient(k, h, eps)

    def tangents(self, kernel: Any, k: Array, h: Array, eps: float, guess: Array | None = None) -> Tangents:
        """By moments of the plan for squares where no axis closes, which are products of it; else pair by pair."""
        xp, (x, y) = self.place.xp, (grid.points_in(self.place, self.place.xp.float64) for grid in (self.x, self.y))
        cost, plan = with_periods(self.cost, self.periods), (k, h, eps)
        if cost is not self.cost:
            return PairTangents(cost, kernel, plan, x, y, self.place, guess)
        if cost.kind == "square" and self.x.dimension <= MOMENTS:
            exact: Any = kernel if self.dtype == xp.float64 else self.in_float64().kernel(kernel.workers)
            return SquareTangents(cost.factor, exact, kernel, plan, x, y, self.place, guess)
        return LineTangents(cost, kernel, plan, x, y, self.place, guess)

    def transported(self, kernel: Lattice, k: Array, h: Array, eps: float) -> Array:
        return kernel.transported(k, h, eps)

    def resolutions(self, a: Array, b: Array, *, own: bool = False) -> Pyramid | None:
        return Pyramid(self, a, b, own=own)

    def split(self) -> tuple[Separable, Array, Array] | None:
        """As of a `PointCloud`: grids around a common centre and u, v with C[i, j] = C'[i, j] + u[i] + v[j]."""
        ends = [(np.array(grid.origin), np.array([line[-1] for line in grid.axes])) for grid in (self.x, self.y)]
        (x_0, x_radius), (y_0, y_radius) = (((low + high) / 2, (high - low) / 2) for low, high in ends)
        t, radius = y_0 - x_0, 2 * float(max(x_radius.max(), y_radius.max()))
        closed = any(period is not None for period in self.periods)
        if closed or self.cost.degree == 1 or not FAR * radius < float(np.abs(t).max()) < math.inf:
            return None
        xp, factor = self.place.xp, self.cost.factor
        x, y = (
            Grid(grid.shape, spacing=grid.spacing, origin=-width)
            for grid, width in ((self.x, x_radius), (self.y, y_radius))
        )
        u, v = (
            xp.asarray(sign * factor * (grid.points @ t) + factor * float(t @ t) / 4, device=self.place.device)
            for grid, sign in ((x, -1.0), (y, 1.0))
        )
        return self.between(x, y), u, v

    # Points

    @cached_property
    def points(self) -> tuple[Array, Array]:
        x = self.x.points_in(self.place, self.dtype)
        return x, x if self.x == self.y else self.y.points_in(self.place, self.dtype)

    @property
    def nodes(self) -> tuple[Grid, Grid]:
        return self.x, self.y

    def same_sides(self, past: Geometry) -> tuple[bool, bool]:
        if past.nodes is None:
            return super().same_sides(past)
        if isinstance(past, Separable):
            fits, same = past.x.dimension == self.x.dimension, (past.x == self.x, past.y == self.y)
        else:
            fits, same = past.nodes[0].shape[1] == self.x.dimension, (False, False)
        if not fits:
            raise ValueError("`init` must be a result between points with as many coordinates as these")
        return same

    def taken(self, points: Any, *, some: bool = True) -> Any:
        """Other points of the user, (r, d), or the nodes of another grid, checked."""
        d = self.y.dimension
        if isinstance(points, Grid):
            if points.dimension != d:
                raise ValueError(f"`points` must have {d} coordinates, as the grid, got a Grid of {points.dimension}")
            return points
        self.place.admit("the weights", points=points)
        points = as_points("points", points, self.place, some=some)
        if points.shape[1] != d:
            raise ValueError(f"`points` must have {d} coordinates, as the grid, got shape {tuple(points.shape)}")
        return self.place.xp.astype(points, self.place.xp.float64)

    def scattered(self, rows: Array | None, columns: Array | None) -> Geometry:
        """Some of the nodes are a cloud."""
        take = self.place.xp.take
        x, y = (grid.points_in(self.place, self.place.xp.float64) for grid in (self.x, self.y))
        x, y = x if rows is None else take(x, rows, axis=0), y if columns is None else take(y, columns, axis=0)
        return Scattered.of_lattice(x, y, self)

    def at(self, points: Any) -> Geometry:
        """The cost between the nodes of another grid, or other points, and those of the second side."""
        return self.between(points, self.y) if isinstance(points, Grid) else Scattered.from_points(points, self)


class Scattered(PointCloud):
    """The cost between points that lie anywhere and a grid, in float64: a lattice rounds no square of a diameter."""

    @classmethod
    def from_points(cls, points: Array, lattice: Separable) -> Scattered:
        """The cost from the points, (r, d), to the second side."""
        xp = lattice.place.xp
        return cls.of_lattice(xp.astype(points, xp.float64), lattice.y.points_in(lattice.place, xp.float64), lattice)

    @classmethod
    def of_lattice(cls, x: Array, y: Array, lattice: Separable) -> Scattered:
        """The cost of a lattice between points in float64.  (n, d), (m, d)"""
        new = object.__new__(cls)
        new.place, new.dtype = lattice.place, lattice.place.xp.float64
        new.cost = with_periods(lattice.cost, lattice.periods)
        new._set(x, y)
        return new

    def rows_kernel(self, kernel: Any) -> PointsKernel:
        """No kernel of a lattice has prepared anything for it."""
        return self.kernel(kernel.workers)


PointCloud.lattices = Separable.of
