"""Point clouds as the kernels want them: in a compact order, in lines of coordinates. Made when first needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.compiled import compiled
from epsot.kernels.cpu.sweeps import GROUP
from epsot.kernels.cpu.tree import NO_TREE, Tree, halves, plant
from epsot.lazy import Lean, cached_property

Array = NDArray[Any]

LOG2_E = math.log2(math.e)
NEAR_DIMENSIONS = 3
NO_ORDER = np.empty(0, np.int64)  # as they are
SORTED_FROM = 256  # points; sorting a smaller cloud costs more than it saves


def writable(array: Any, dtype: Any = None) -> Array:
    """C-contiguous and writable, copied only if it is not: each other kind would compile the kernels again."""
    result: Array = np.ascontiguousarray(array, dtype)
    return result if result.flags.writeable else result.copy()


def padded(length: int) -> int:
    return -(-length // GROUP) * GROUP


def compact_order(points: Array) -> NDArray[np.int64]:
    """A permutation that makes every 64 consecutive points compact: halve along the widest axis, again and again."""
    order = np.arange(len(points))
    if len(points) >= SORTED_FROM:
        sort_compactly(points.astype(np.float64, order="C"), order)
    return order


def _sort_compactly(points, order):  # type: ignore[no-untyped-def]
    """Points and their numbers, in place."""
    d = points.shape[1]
    low, high = np.empty(d), np.empty(d)
    begins, ends, depth = np.empty(128, np.int64), np.empty(128, np.int64), 1
    begins[0], ends[0] = 0, len(points)
    while depth:
        depth -= 1
        begin, end = begins[depth], ends[depth]
        if end - begin <= GROUP:
            continue
        for k in range(d):
            low[k] = high[k] = points[begin, k]
        for i in range(begin + 1, end):
            for k in range(d):
                low[k], high[k] = min(low[k], points[i, k]), max(high[k], points[i, k])
        axis = np.argmax(high - low)
        middle = halves(begin, end)
        first, last = begin, end - 1
        while first < last:  # Hoare's selection: what is below the middle is not larger than what is above
            one, two, three = points[first, axis], points[(first + last) // 2, axis], points[last, axis]
            pivot = max(min(one, two), min(max(one, two), three))
            i, j = first, last
            while i <= j:
                while points[i, axis] < pivot:
                    i += 1
                while points[j, axis] > pivot:
                    j -= 1
                if i <= j:
                    order[i], order[j] = order[j], order[i]
                    for k in range(d):
                        points[i, k], points[j, k] = points[j, k], points[i, k]
                    i += 1
                    j -= 1
            if middle <= j:
                last = j
            elif middle >= i:
                first = i
            else:
                break
        begins[depth], ends[depth] = begin, middle
        begins[depth + 1], ends[depth + 1] = middle, end
        depth += 2


sort_compactly = compiled(_sort_compactly)


class Cloud(Lean):
    """One cloud, as rows and as columns of a cost.

    Attributes
    ----------
    points : (n, d) array, C-contiguous
    centre : (d,) float64 array, the origin for d > 3, common to the clouds of a problem
    near : whether d <= 3
    """

    def __init__(self, points: Array, centre: Array | None) -> None:
        self.points = points
        self.near = points.shape[1] <= NEAR_DIMENSIONS
        self.centre = np.zeros(1) if centre is None else writable(centre)  # memory-mapped files are not

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The order of the rows and of the columns.

        float32 is accurate only around the centres of compact blocks, and only of these can pairs be left out: at n =
        10 000 in 3-D and blur 0.01, a sweep in float64 is 6 times as fast as in random order.
        """
        return compact_order(self.points) if self.near else NO_ORDER

    @cached_property
    def lines(self) -> Array:
        """Coordinates in lines: (d, m) float64 if near, else (m / 64, d * 64), padded to a multiple of 64."""
        n, d = self.points.shape
        if self.near:
            lines = np.empty((d, padded(n)))
            lines[:, :n] = self.points[self.order].T
            lines[:, n:] = lines[:, n - 1 : n]  # within the box of the last group
            return lines
        tiles = np.zeros((padded(n) // GROUP, d, GROUP), self.points.dtype)
        for begin in range(0, n, GROUP * GROUP):  # so much at a time stays in the cache
            move = self.points[begin : begin + GROUP * GROUP] - self.centre
            first, whole = begin // GROUP, len(move) // GROUP
            tiles[first : first + whole] = move[: whole * GROUP].reshape(whole, GROUP, d).transpose(0, 2, 1)
            if len(move) > whole * GROUP:
                tiles[first + whole, :, : len(move) - whole * GROUP] = move[whole * GROUP :].T
        return tiles.reshape(len(tiles), d * GROUP)

    @cached_property
    def as_they_are(self) -> Array:
        """Coordinates in lines, in the order and the precision of the points, padded to a multiple of 64.  (d, m)"""
        n, d = self.points.shape
        lines = np.empty((d, padded(n)), self.points.dtype)
        lines[:, :n] = self.points.T
        lines[:, n:] = lines[:, n - 1 : n]
        return lines

    @cached_property
    def tree(self) -> Tree:
        """The boxes around the columns; of no use, and empty, if not near."""
        return plant(self.lines, len(self.points)) if self.near else NO_TREE

    @cached_property
    def squares(self) -> Array:
        """|y - centre|^2.  (m,)"""
        squares = np.empty(len(self.points))
        for begin in range(0, len(squares), 1024):
            move = self.points[begin : begin + 1024] - self.centre
            squares[begin : begin + 1024] = np.einsum("ij,ij->i", move, move)
        return squares


def _log_weights(h, factor, order, squares, half_scale, begin, end, weights):  # type: ignore[no-untyped-def]
    """factor h - half_scale squares in the order of the columns, for some of them.  -> the maximum"""
    top = -np.inf
    for j in range(begin, end):
        weights[j] = factor * (h[order[j]] if len(order) > 0 else h[j])
        if half_scale != 0.0:
            weights[j] -= half_scale * squares[j]
        top = max(top, weights[j])
    return top


log_weights = compiled(_log_weights)


def lines_by_group(v: Array, order: NDArray[np.int64], dtype: Any) -> Array:
    """v (m, q) as (m / 64, q * 64), a line of 64 for each column, padded by zeros."""
    m, q = v.shape
    lines = np.zeros((padded(m), q), dtype)
    lines[:m] = v[order] if len(order) else v
    return np.ascontiguousarray(lines.reshape(-1, GROUP, q).transpose(0, 2, 1)).reshape(-1, q * GROUP)


def values_by_group(v: Array, order: NDArray[np.int64], dtype: Any) -> tuple[Array, Array]:
    """v (m, q) as (m / 64, q' * 64), q' = q rounded up to even, divided by a power of two for each column.

    The powers of two are returned: float32 has no room for values like 1e-40, which float64 problems may hold.
    """
    m, q = v.shape
    largest = np.abs(v).max(axis=0).astype(np.float64)
    size = np.exp2(np.frexp(largest)[1].astype(np.float64))
    values = np.zeros((padded(m) // GROUP, q + q % 2, GROUP), dtype)
    for c in range(q):
        line = np.zeros(padded(m))
        line[:m] = (v[:, c] / size[c])[order] if len(order) else v[:, c] / size[c]
        values[:, c] = line.reshape(-1, GROUP)
    return values.reshape(len(values), -1), size
