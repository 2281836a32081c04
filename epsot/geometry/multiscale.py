"""Two clouds at many resolutions: what a coarse-to-fine solve runs through before it sees all points."""

from __future__ import annotations

import math
from typing import Any

from epsot.arrays import Place, to_numpy
from epsot.communicator import Share
from epsot.costs import Array, Cost
from epsot.devices import device_aware
from epsot.geometry.base import Geometry
from epsot.geometry.cells import Cells, Clusters, GridCells, cell_sizes
from epsot.geometry.periodic import cost_of_parts
from epsot.geometry.points import PointCloud, clouds_of, grids_of
from epsot.geometry.resolutions import Resolutions
from epsot.kernels import backend_of

GRID_DIMENSIONS = 3
# Points a side from which cells pay. On the CPU: 1.0 to 3 times as fast at 4000, in 2-D and 3-D, .7 to 2 at 1000. On a
# GPU, where a sweep over all pairs of 30 000 points takes less time than a few launches: 0.5 to 0.7 times as fast at
# 30 000, 1.4 to 1.6 times at 100 000.
MANY, MANY_ON_GPU = 3000, 60_000


def coarsened(geometry: Geometry) -> Geometry:
    """The same cost, from coarse to fine where that is faster."""
    return Multiscale.of(geometry) if isinstance(geometry, PointCloud) and pays(geometry) else geometry


def pays(geometry: PointCloud) -> bool:
    """Whether a solve from coarse to fine is faster: measured by `multiscale.py` and `gpu.py` in asv_benchmarks."""
    n, m = geometry.shape
    many = MANY_ON_GPU if backend_of(geometry.x, geometry.cost).startswith("cuda") else MANY
    return geometry.x.shape[1] <= GRID_DIMENSIONS and n * m >= many**2


@device_aware
class Multiscale(PointCloud):
    """The cost between two clouds of points, solved from coarse to fine.

    At high temperatures the details of the clouds do not matter: there, the solve runs on cells of about the size of
    the blur, each a point at the centroid of its own with the weight of all of them. Potentials are carried from one
    resolution to the next by one softmin, and the last temperatures are solved on the points themselves, to the same
    tolerance and with the same result as with a `PointCloud`. `sinkhorn` and `sinkhorn_divergence` choose this on
    their own where it pays.

    Parameters
    ----------
    x, y : (n, d) and (m, d) arrays
        The points, as in `PointCloud`.
    p, cost : optional
        The cost, as in `PointCloud`.
    labels_x, labels_y : (n,) and (m,) or (n, levels) and (m, levels) integer arrays, optional
        Clusters in place of the cells of a grid, of which there are none in more than three dimensions: equal numbers
        are one cluster. Several columns are several resolutions, from coarse to fine.

    Raises
    ------
    ValueError, TypeError
        As `PointCloud`, for labels of a wrong shape, and for more than three dimensions without labels.

    See Also
    --------
    PointCloud : All temperatures on all points.

    Notes
    -----
    Without a tolerance (``tol=None``), and from an earlier result (``init``), nothing is coarsened.

    References
    ----------
    .. [1] Merigot (2011), A multiscale approach to optimal transport, Computer Graphics Forum 30.
       https://doi.org/10.1111/j.1467-8659.2011.02032.x
    .. [2] Schmitzer (2019), Stabilized sparse scaling algorithms for entropy regularized transport problems, SIAM
       Journal on Scientific Computing 41. https://doi.org/10.1137/16M1106018

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> from epsot.geometry import Multiscale
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.random((3000, 2)), rng.random((2000, 2))
    >>> result = epsot.solve(Multiscale(x, y), eps=0.02**2)
    >>> result.success
    True
    """

    stored_as = "points at many scales"

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        p: float = 2,
        cost: str | Cost | None = None,
        labels_x: Any = None,
        labels_y: Any = None,
    ) -> None:
        super().__init__(x, y, p=p, cost=cost)
        if (labels_x is None) != (labels_y is None):
            raise ValueError("`labels_x` and `labels_y` go together; pass both or none")
        self.labels_x, self.labels_y = self._labels("labels_x", labels_x), self._labels("labels_y", labels_y)
        if labels_x is None and self.x.shape[1] > GRID_DIMENSIONS:
            raise ValueError(
                f"points in {self.x.shape[1]} dimensions have no grid of cells, which ends at {GRID_DIMENSIONS}; "
                "pass clusters of your own as `labels_x` and `labels_y`, or use PointCloud"
            )
        if labels_x is not None and self.labels_x.shape[1] != self.labels_y.shape[1]:
            raise ValueError(
                "`labels_x` and `labels_y` must have equally many columns, one for each resolution, got "
                f"{self.labels_x.shape[1]} and {self.labels_y.shape[1]}"
            )

    def _labels(self, name: str, labels: Any) -> Any:
        if labels is None:
            return None
        xp, size = self.place.xp, (self.x if name == "labels_x" else self.y).shape[0]
        self.place.admit("x", **{name: labels})
        labels = xp.asarray(self.place.taken(name, labels), device=self.place.device, copy=True)
        if not xp.isdtype(labels.dtype, "integral"):
            raise TypeError(f"`{name}` must be integers, equal for the points of one cluster, got {labels.dtype}")
        if labels.ndim not in (1, 2) or labels.shape[0] != size or 0 in labels.shape:
            raise ValueError(
                f"`{name}` must have shape ({size},) or ({size}, levels), a label for each point, got "
                f"{tuple(labels.shape)}"
            )
        return labels[:, None] if labels.ndim == 1 else labels

    def written(self) -> dict[str, Any]:
        return {**super().written(), "labels_x": self.labels_x, "labels_y": self.labels_y}

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> Multiscale:
        labels: dict[str, Any] = {
            name: None if (z := parts[name]) is None else place.received(z) for name in ("labels_x", "labels_y")
        }
        new = cls(*clouds_of(parts, place), cost=cost_of_parts(parts["cost"]), **labels)
        new.grids = grids_of(parts)
        return new

    @classmethod
    def of(cls, cloud: PointCloud, labels_x: Any = None, labels_y: Any = None) -> Multiscale:
        """The same points and cost, checked already, with such labels or the cells of a grid."""
        new = object.__new__(cls)
        new.cost, new.place, new.dtype = cloud.cost, cloud.place, cloud.dtype
        new._set(cloud.x, cloud.y)
        new._with_boxes(cloud)
        new.grids = cloud.grids
        new.labels_x, new.labels_y = labels_x, labels_y
        return new

    def joined(self, first: Share, second: Share) -> Multiscale:
        cloud = super().joined(first, second)
        labels = (self.labels_x, self.labels_y)
        first.comm.check_equal(labels_x=None if labels[0] is None else labels[0].shape[1])
        joined = (None if z is None else side.joined(z) for z, side in zip(labels, (first, second), strict=True))
        return self if cloud is self else Multiscale.of(cloud, *joined)

    def take(self, rows: Array | None, columns: Array | None) -> Multiscale:
        take = self.place.xp.take
        return Multiscale.of(
            super().take(rows, columns),
            self.labels_x if rows is None or self.labels_x is None else take(self.labels_x, rows, axis=0),
            self.labels_y if columns is None or self.labels_y is None else take(self.labels_y, columns, axis=0),
        )

    @property
    def T(self) -> Multiscale:
        return Multiscale.of(super().T, self.labels_y, self.labels_x)

    def suited(self, a: Any, b: Any) -> Multiscale:
        cloud = super().suited(a, b)
        if cloud is self:
            return self
        xp, device = cloud.place.xp, cloud.place.device
        labels = (None if z is None else xp.asarray(to_numpy(z), device=device) for z in (self.labels_x, self.labels_y))
        return Multiscale.of(cloud, *labels)

    def source(self) -> Multiscale:
        return Multiscale.of(super().source(), self.labels_x, self.labels_x)

    def resolutions(self, a: Array, b: Array, *, own: bool = False) -> CoarseClouds:
        return CoarseClouds(self, a, b, own=own)


class CoarseClouds(Resolutions):
    """The coarser clouds of a geometry; widths are the sides of their cells, in the units of the embedded points."""

    def __init__(self, geometry: Multiscale, a: Array, b: Array, *, own: bool) -> None:
        xp, place, embed = geometry.place.xp, geometry.place, geometry.cost.embed
        x = embed(geometry.x)  # the blur is a length between embedded points
        y = x if own else embed(geometry.y)
        self.geometry = geometry
        self.x_cells: Cells
        self.y_cells: Cells
        if geometry.labels_x is None:
            low = xp.astype(xp.minimum(xp.min(x, axis=0), xp.min(y, axis=0)), xp.float64)
            high = xp.astype(xp.maximum(xp.max(x, axis=0), xp.max(y, axis=0)), xp.float64)
            span = float(xp.max(high - low))
            self.widths = cell_sizes(span) if span > 0 else ()
            if not self.widths:
                return
            self.x_cells = GridCells(x, a, low, span, place)
            self.y_cells = self.x_cells if own else GridCells(y, b, low, span, place)
        else:
            x_clusters = Clusters(x, a, geometry.labels_x, place)
            y_clusters = x_clusters if own else Clusters(y, b, geometry.labels_y, place)
            depths = range(geometry.labels_x.shape[1])
            self.widths = [max(x_clusters.width(depth), y_clusters.width(depth)) for depth in depths]
            self.x_cells, self.y_cells = x_clusters, y_clusters

    def length(self, eps: float) -> float:
        return self.geometry.length(eps)

    def share(self, depth: int) -> float:
        n, m = self.geometry.shape
        return math.sqrt(self.x_cells.count(depth) / n * (self.y_cells.count(depth) / m))

    def at(self, depth: int) -> tuple[PointCloud, Array, Array]:
        x, a = self.x_cells.at(depth)
        y, b = (x, a) if self.y_cells is self.x_cells else self.y_cells.at(depth)
        return PointCloud._derived(self.geometry, x, y), a, b
