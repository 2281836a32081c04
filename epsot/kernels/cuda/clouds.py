"""Point clouds as the kernels want them. Made on the device when first needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.modules import launch
from epsot.kernels.cuda.shapes import BOX_THREADS, FRAME, GROUP, NEAR_TILE, PLAIN_THREADS
from epsot.lazy import Lean, cached_property

NEAR_DIMENSIONS = 3


def real_name(array: Array) -> str:
    """The C++ type of the numbers."""
    return "float" if array.dtype == np.float32 else "double"


def identity(cupy: Any, size: int) -> Array:
    return cupy.arange(size, dtype=np.int64)


class Middle(Lean):
    """The mean of the points of a problem, for those who need one."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y

    @cached_property
    def point(self) -> Array:
        """(d,), float64"""
        total = self.x.sum(axis=0, dtype=np.float64) + self.y.sum(axis=0, dtype=np.float64)
        return total / max(1, self.x.shape[0] + self.y.shape[0])


class Cloud(Lean):
    """One cloud, as rows and as columns of a cost.

    Attributes
    ----------
    points : (n, d) array, C-contiguous
    middle : of all clouds of a problem
    """

    def __init__(self, points: Array, middle: Middle) -> None:
        self.points, self.middle = points, middle
        self.near = points.shape[1] <= NEAR_DIMENSIONS

    @property
    def cupy(self) -> Any:
        import cupy

        return cupy

    @cached_property
    def order(self) -> Array:
        """The order of near points: along a Hilbert curve, so that the centres of blocks are local.  (n,)"""
        cupy, points = self.cupy, self.points
        n, d = points.shape
        if n <= FRAME:
            return identity(cupy, n)
        if d == 1:
            return cupy.argsort(points[:, 0]).astype(np.int64, copy=False)
        form = f"{real_name(points)}, {d}"
        box, keys = cupy.empty(d + 1, dtype=np.float64), cupy.empty(n, dtype=np.int64)
        launch(cupy, f"box<{form}>", (1,), BOX_THREADS, (points, np.int64(n), box))
        launch(cupy, f"hilbert<{form}>", (shapes.plain_blocks(n),), PLAIN_THREADS, (points, np.int64(n), box, keys))
        return cupy.argsort(keys).astype(np.int64, copy=False)

    @cached_property
    def sorted(self) -> Array:
        """The points in that order.  (n, d)"""
        return self.cupy.ascontiguousarray(self.points[self.order])

    @cached_property
    def frames(self) -> Array:
        """The middle and the half width of the box around every FRAME rows.  (frames, 2, d) float64"""
        cupy, points = self.cupy, self.sorted
        n, d = points.shape
        frames = -(-n // FRAME)
        out = cupy.empty((frames, 2, d), dtype=np.float64)
        blocks = -(-frames * 32 // PLAIN_THREADS)  # a warp each
        launch(cupy, f"frames<{real_name(points)}, {d}>", (blocks,), PLAIN_THREADS, (points, np.int64(n), out))
        return out

    @cached_property
    def boxes(self) -> Array:
        """The lowest and the highest coordinates of every tile, then of every GROUP tiles.  (boxes, 2, d) float64"""
        cupy, points = self.cupy, self.sorted
        found = []
        for size in (NEAR_TILE, NEAR_TILE * GROUP):
            count = -(-len(points) // size)
            part = points[cupy.minimum(cupy.arange(count * size), len(points) - 1)].reshape(count, size, -1)
            found.append(cupy.stack([part.min(axis=1), part.max(axis=1)], axis=1).astype(np.float64))
        return cupy.concatenate(found)

    @cached_property
    def points64(self) -> Array:
        """The coordinates one after the other, in float64: for sums so small that nothing is gained by less.  (d, n)"""
        return self.points.T.astype(np.float64, order="C")

    @cached_property
    def plain_order(self) -> Array:
        return identity(self.cupy, self.points.shape[0])

    @cached_property
    def centred(self) -> Array:
        """The points from the middle, rounded once.  (n, d)"""
        return self.cupy.ascontiguousarray((self.points - self.middle.point).astype(self.points.dtype))

    @cached_property
    def squares(self) -> Array:
        """|centred|^2, of the rounded coordinates, in float64.  (n,)"""
        cupy, points = self.cupy, self.centred
        out = cupy.empty(points.shape[0], dtype=np.float64)
        step = max(1, 2**22 // points.shape[1])  # 32 MiB of squares
        for begin in range(0, points.shape[0], step):
            out[begin : begin + step] = (points[begin : begin + step].astype(np.float64) ** 2).sum(axis=1)
        return out
