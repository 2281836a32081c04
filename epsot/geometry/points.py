"""Two clouds of points and a ground cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from epsot import kernels
from epsot.arrays import Place, as_points, check_finite, common_place, to_numpy
from epsot.costs import NAMED_COSTS, Array, Cosine, Cost, Euclidean, HalfSquare
from epsot.devices import resident
from epsot.kernels import PointsKernel
from epsot.lazy import cached_property

LINE = 64  # points side by side in a reduction over all: lines of two or three numbers are 20 times as slow in NumPy
BLOCK = 64  # points that the kernels give a common centre, about


def ground_cost(p: Any, cost: str | Cost | None) -> Cost:
    """The cost that `p` and `cost` name: |x - y|^p / p, a name of scipy.spatial.distance, or a Cost."""
    if cost is None:
        scalar = np.ndim(p) == 0
        if scalar and p == 2:
            return HalfSquare()
        if scalar and p == 1:
            return Euclidean()
        raise ValueError(f"`p` must be 1 or 2, got {p!r}; for another cost pass a Cost to PointCloud(x, y, cost=...)")
    if isinstance(cost, Cost):
        return cost
    if isinstance(cost, str) and cost in NAMED_COSTS:
        return NAMED_COSTS[cost]()
    names = ", ".join(f'"{name}"' for name in NAMED_COSTS)
    raise ValueError(f"`cost` must be one of {names} or an instance of epsot.Cost, got {cost!r}")


def corner(extreme: Callable[..., Array], cloud: Array, xp: Any) -> Array:
    """extreme(cloud, axis=0), over lines of many points, then over the points of one.  (n, d) -> (d,)"""
    n, d = cloud.shape
    lines = n // LINE
    if lines > 0:
        folded = extreme(xp.reshape(cloud[: lines * LINE, :], (lines, LINE * d)), axis=0)
        cloud = xp.concat([xp.reshape(folded, (LINE, d)), cloud[lines * LINE :, :]], axis=0)
    return extreme(cloud, axis=0)


@resident
class PointCloud:
    """The cost between two clouds of points.

    Parameters
    ----------
    x : (n, d) array
        The points of the first measure, in float32 or float64 (integers and lists become float64).
    y : (m, d) array
        The points of the second measure, of the same library and device.
    p : {2, 1}
        The cost is ``|x - y|**p / p``: half the squared distance (default), or the distance.
    cost : str or Cost, optional
        Overrides `p`: "sqeuclidean", "euclidean", "cityblock" or "cosine" with their meaning in
        `scipy.spatial.distance`, or an `epsot.Cost` of your own.

    Raises
    ------
    ValueError
        If a cloud is empty, not (n, d) or not finite, if the dimensions differ, or if `p` or `cost` is unknown.
    TypeError
        If the points are not real, or come from different libraries or devices.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x, y = np.asarray([[0.0, 0.0], [1.0, 0.0]]), np.asarray([[0.0, 2.0], [1.0, 2.0]])
    >>> epsot.solve(epsot.PointCloud(x, y, cost="cityblock"), eps=0.01).value.round(6)
    np.float64(2.006931)
    """

    def __init__(self, x: Any, y: Any, *, p: float = 2, cost: str | Cost | None = None) -> None:
        self.cost = ground_cost(p, cost)
        self.place: Place = common_place(x=x, y=y)
        xp = self.place.xp
        x, y = (as_points(name, cloud, self.place, finite=False) for name, cloud in (("x", x), ("y", y)))
        if x.shape[1] != y.shape[1]:
            raise ValueError(
                f"`x` and `y` must have points of the same dimension, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
            )
        self.dtype = xp.result_type(x.dtype, y.dtype)
        same = x is y
        x = xp.astype(x, self.dtype)  # a copy: results outlive changes of the inputs
        self._set(x, x if same else xp.astype(y, self.dtype))
        if not np.all(np.isfinite(self._corners)):  # as they are where any coordinate is
            for name, cloud in (("x", self.x), ("y", self.y)):
                check_finite(name, cloud, "coordinates", self.place)
        if isinstance(self.cost, Cosine):
            self.cost.check("x", self.x)
            self.cost.check("y", self.y)
        if not self.cost.degree > 0:
            raise ValueError(f"`cost` must have a positive `degree`, got {self.cost.degree!r}")

    def _set(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        self.shape: tuple[int, int] = (x.shape[0], y.shape[0])

    def _derived(self, x: Array, y: Array) -> PointCloud:
        """The same cost between points that are checked already."""
        new = object.__new__(PointCloud)
        new.cost, new.place, new.dtype = self.cost, self.place, self.dtype
        new._set(x, y)
        return new

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

    @cached_property
    def _corners(self) -> np.ndarray:
        """The lowest coordinates of x and of y, and the highest, on the host.  (4, d) float64"""
        xp = self.place.xp
        corners = xp.stack([corner(extreme, z, xp) for extreme in (xp.min, xp.max) for z in (self.x, self.y)])
        return to_numpy(corners).astype(np.float64)

    @cached_property
    def _diameter(self) -> float:
        x_low, y_low, x_high, y_high = self._corners / 2  # halves do not overflow
        extent = np.maximum(x_high, y_high) - np.minimum(x_low, y_low)
        largest = float(extent.max())
        return 2 * largest * math.sqrt(float(((extent / largest) ** 2).sum())) if largest > 0 else 0.0

    def scale(self) -> float:
        """The temperature at which annealing starts: diameter^p, or a bound of any other cost."""
        if isinstance(self.cost, HalfSquare | Euclidean):
            diameter = self.diameter()
            return diameter * diameter if isinstance(self.cost, HalfSquare) else diameter
        xp = self.place.xp
        kernel = self.kernel()
        centre = kernel.T.cost_rows(slice(0, 1))  # (1, n): distances to y[0]; twice the largest bounds a metric
        other = kernel.cost_rows(slice(0, 1))  # (1, m): distances from x[0]
        return 2.0 * max(float(xp.max(centre)), float(xp.max(other)))

    def rounded(self) -> float:
        """The size of the largest terms of a cost that the kernels round to the dtype of the points.

        Squares are those of coordinates from a common centre, or in at most three dimensions from that of a block.
        """
        (n, m), d = self.shape, self.x.shape[1]
        match self.cost.family.kind:
            case "square":
                block = min(1.0, BLOCK / min(n, m)) ** (2 / d) if d <= 3 else 1.0
                radius = self.diameter() / 2
                return self.cost.factor * block * radius * radius  # inf where it overflows, as `**` would not be
            case "euclidean" | "cityblock":
                return self.cost.factor * math.sqrt(d) * self.diameter()
        return 0.0  # the portable kernels compute in float64

    def kernel(self, workers: int | None = None) -> PointsKernel:
        """The reductions over all pairs."""
        family, embed = self.cost.family, self.cost.embed
        kernel: PointsKernel = kernels.points(embed(self.x), embed(self.y), family, workers)
        return kernel

    def pull_back(self, gradient: Array) -> Array:
        """From the gradient in the points that the kernel saw to that in `x`.  (n, d) -> (n, d)"""
        return self.cost.pull_back(self.x, gradient)

    def take(self, rows: Array | None, columns: Array | None) -> PointCloud:
        """The geometry of some points, given by index arrays; None takes all."""
        take = self.place.xp.take
        return self._derived(
            self.x if rows is None else take(self.x, rows, axis=0),
            self.y if columns is None else take(self.y, columns, axis=0),
        )

    @property
    def T(self) -> PointCloud:
        return self._derived(self.y, self.x)

    def in_float64(self) -> PointCloud:
        """The same points in float64."""
        xp = self.place.xp
        x = xp.astype(self.x, xp.float64)
        new = self._derived(x, x if self.y is self.x else xp.astype(self.y, xp.float64))
        new.dtype = xp.float64
        return new

    def source(self) -> PointCloud:
        """The first cloud with itself, for the debiasing term."""
        return self._derived(self.x, self.x)

    def source_kernel(self, kernel: PointsKernel) -> PointsKernel:
        """The kernel of `source()`, sharing what `kernel` prepared."""
        return kernel.source()

    def rows_kernel(self, kernel: PointsKernel) -> PointsKernel:
        """The kernel of these points with the same `y` as `kernel`, sharing what that prepared."""
        return kernel.at(self.cost.embed(self.x))

    def check_feasible(self) -> None:
        """Every pair of points is allowed."""

    def check_self_feasible(self) -> None:
        """Within each cloud, too."""

    def at(self, points: Any) -> PointCloud:
        """The cost between other points, (r, d), and `y`."""
        xp = self.place.xp
        common_place(points=points, y=self.y)
        points = as_points("points", points, self.place)
        if points.shape[1] != self.y.shape[1]:
            raise ValueError(
                f"`points` must have {self.y.shape[1]} coordinates, as the cloud, got shape {tuple(points.shape)}"
            )
        if isinstance(self.cost, Cosine):
            self.cost.check("points", points)
        return self._derived(xp.astype(points, self.dtype, copy=False), self.y)

    def is_self(self) -> bool:
        """Whether the two clouds are one: then the divergence of equal weights is zero."""
        return self.x is self.y or (self.x.shape == self.y.shape and bool(self.place.xp.all(self.x == self.y)))
