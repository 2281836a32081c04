"""A cloud at coarser resolutions: cells of a grid, or clusters of the user's own, each one point with the whole weight.

Every cell, of any size, is a range of one order of the points: a Morton curve, or the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from epsot.arrays import Place
from epsot.costs import Array

BITS = 20  # the finest cells are 2^-20 of the widest side: d BITS fit in an int64 for d <= 3

# Spreading the bits of a number d apart, in steps: (shift, mask) for (number | number << shift) & mask.
SPREADING = {
    1: (),
    2: ((16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F), (2, 0x3333333333333333),
        (1, 0x5555555555555555)),
    3: ((32, 0x001F00000000FFFF), (16, 0x001F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249)),
}  # fmt: skip


class Cells(Protocol):
    """A weighted cloud at resolutions 0, 1, ..., from coarse to fine."""

    def count(self, depth: int) -> int:
        """How many cells of this resolution hold points."""

    def at(self, depth: int) -> tuple[Array, Array]:
        """Their centroids, in the type of the points, and weights, positive.  -> (c, d), (c,)"""


class Sums:
    """Moments of consecutive points, from differences of running sums over the (n + 1) starts of all points."""

    def __init__(self, points: Array, weights: Array, order: Array, place: Place) -> None:
        xp = place.xp
        self.xp, self.size = xp, points.shape[0]
        moments = weights[:, None] * xp.concat([xp.ones_like(points[:, :1]), points], axis=1)
        moments = xp.take(moments, order, axis=0)
        self.running = xp.concat([xp.zeros_like(moments[:1, :]), xp.cumulative_sum(moments, axis=0)])  # (n + 1, d + 1)

    def of(self, starts: Array) -> tuple[Array, Array, Array]:
        """Centroids and weights of the cells that begin there, and which of them have a weight.

        What is lost in rounding beside the whole mass has none here.  (c,) -> (c', d), (c',), (c',)
        """
        xp = self.xp
        ends = xp.concat([starts[1:], xp.full_like(starts[:1], self.size)])
        moments = xp.take(self.running, ends, axis=0) - xp.take(self.running, starts, axis=0)
        kept = xp.nonzero(moments[:, 0] > 0)[0]
        moments = xp.take(moments, kept, axis=0)
        return moments[:, 1:] / moments[:, :1], moments[:, 0], kept


def beginnings(cell: Array, xp: Any) -> Array:
    """The first index of each run of equal numbers."""
    return xp.nonzero(xp.concat([xp.ones_like(cell[:1], dtype=xp.bool), cell[1:] != cell[:-1]]))[0]


class GridCells:
    """Cubes of side span / 2^depth, for points in at most three dimensions.

    Parameters
    ----------
    points : (n, d) array
    weights : (n,) float64 array, positive
    low, span : (d,) float64 array and float
        The lowest corner and the side of a cube around the points; clouds with the same share their cells.
    """

    def __init__(self, points: Array, weights: Array, low: Array, span: float, place: Place) -> None:
        xp, d = place.xp, points.shape[1]
        self.xp, self.low, self.span, self.dtype = xp, low, span, points.dtype
        unit = (xp.astype(points, xp.float64) - low[None, :]) / span  # (n, d) in [0, 1]
        number = xp.astype(unit * 2**BITS, xp.int64)
        number = xp.where(number < 2**BITS, number, xp.full_like(number, 2**BITS - 1))
        bits = number
        for shift, mask in SPREADING[d]:
            bits = (bits | (bits << shift)) & mask
        key = bits[:, 0]
        for k in range(1, d):
            key = key | (bits[:, k] << k)
        order = xp.argsort(key)
        self.key, self.number = xp.take(key, order), xp.take(number, order, axis=0)
        self.sums = Sums(unit, weights, order, place)
        self.found: dict[int, Array] = {}

    def starts(self, depth: int) -> Array:
        """Where the cells of a resolution begin; once for their number and for themselves."""
        if depth not in self.found:
            self.found[depth] = beginnings(self.key >> (self.number.shape[1] * (BITS - depth)), self.xp)
        return self.found[depth]

    def count(self, depth: int) -> int:
        return int(self.starts(depth).shape[0])

    def at(self, depth: int) -> tuple[Array, Array]:
        xp, starts = self.xp, self.starts(depth)
        centroids, weights, kept = self.sums.of(starts)
        numbers = xp.take(self.number, xp.take(starts, kept), axis=0) >> (BITS - depth)
        corner = xp.astype(numbers, xp.float64) / 2**depth
        centroids = xp.minimum(xp.maximum(centroids, corner), corner + 2.0**-depth)  # rounding leads nowhere else
        return xp.astype(self.low[None, :] + self.span * centroids, self.dtype), weights


class Clusters:
    """Clusters by labels, (n, levels) integers from coarse to fine, in any number of dimensions."""

    def __init__(self, points: Array, weights: Array, labels: Array, place: Place) -> None:
        xp = place.xp
        self.xp, self.place, self.dtype, self.labels = xp, place, points.dtype, labels
        wide = xp.astype(points, xp.float64)
        self.weights, self.centre = weights, xp.mean(wide, axis=0)
        self.moves = wide - self.centre

    def count(self, depth: int) -> int:
        return int(self.xp.unique_values(self.labels[:, depth]).shape[0])

    def at(self, depth: int) -> tuple[Array, Array]:
        moves, weights = self._cells(depth)
        return self.xp.astype(moves + self.centre, self.dtype), weights

    def width(self, depth: int) -> float:
        """The side of cubes that are as wide: of the same mean squared distance to their centres."""
        xp, (moves, weights) = self.xp, self._cells(depth)
        whole = xp.sum(self.weights * xp.sum(self.moves**2, axis=1))
        within = (whole - xp.sum(weights * xp.sum(moves**2, axis=1))) / xp.sum(self.weights)
        return math.sqrt(12 * max(0.0, float(within)) / self.moves.shape[1])

    def _cells(self, depth: int) -> tuple[Array, Array]:
        """Centroids from the common centre, and weights."""
        labels = self.labels[:, depth]
        xp, order = self.xp, self.xp.argsort(labels)
        starts = beginnings(xp.take(labels, order), xp)
        moves, weights, _ = Sums(self.moves, self.weights, order, self.place).of(starts)
        low, high = xp.min(self.moves, axis=0), xp.max(self.moves, axis=0)
        return xp.minimum(xp.maximum(moves, low[None, :]), high[None, :]), weights  # rounding leads nowhere else


def cell_sizes(span: float) -> Sequence[float]:
    """The sides of the cubes of `GridCells`, from coarse to fine."""
    return [span / 2**depth for depth in range(BITS + 1)]
