"""Two grids at coarser resolutions: pixels of twice the width, each with the weight of all that it covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epsot.costs import Array
from epsot.geometry.grid import Grid, Periods, Shape
from epsot.geometry.resolutions import Resolutions

if TYPE_CHECKING:
    from epsot.geometry.separable import Separable

FEWEST = 8  # nodes of the longest axis of the coarsest grids


def coarser(grid: Grid, doublings: Sequence[int], periods: Periods) -> Grid:
    """The centres of pixels that are 2^k times as wide along each axis.

    Of an odd number the last one lies half outside. An axis that closes has no outside: there all become a little
    narrower, and lie at most half a pixel of the finer grid off the centres.
    """
    sides = []
    for n, step, first, k, period in zip(grid.shape, grid.spacing, grid.origin, doublings, periods, strict=True):
        for _ in range(k):
            n, narrow = -(-n // 2), step
            step = 2 * narrow if period is None else period / n
            first += narrow / 2 + (2 * narrow - step) * (n - 1) / 2
        sides.append((n, step, first))
    shape, spacing, origin = zip(*sides, strict=True)
    return Grid(shape, spacing=spacing, origin=origin)


def halved(weights: Array, axis: int, xp: Any) -> Array:
    """The sums of neighbours along one axis."""
    n = weights.shape[axis]
    if n % 2:
        index = (slice(None),) * axis + (slice(0, 1),)
        weights = xp.concat([weights, xp.zeros_like(weights[index])], axis=axis)
    shape = tuple(weights.shape)
    return xp.sum(xp.reshape(weights, (*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :])), axis=axis + 1)


def interpolated(values: Array, coarse: Grid, fine: Grid, xp: Any) -> Array:
    """Numbers at the nodes of one grid at those of another within it, by cubics along each axis.  (n,) -> (m,)"""
    values = xp.reshape(values, coarse.shape)
    for axis, (n, line) in enumerate(zip(coarse.shape, fine.axes, strict=True)):
        where = (line - coarse.origin[axis]) / coarse.spacing[axis]
        first = np.clip(np.floor(where).astype(np.int64), 0, max(0, n - 2))
        s = np.clip(where - first, -0.5, 1.5)
        shares = -s * (s - 1) * (s - 2) / 6, (s * s - 1) * (s - 2) / 2, -s * (s + 1) * (s - 2) / 2, s * (s * s - 1) / 6
        total: Any = 0.0
        for offset, share in zip((-1, 0, 1, 2), shares, strict=True):
            index = xp.asarray(np.clip(first + offset, 0, n - 1), device=values.device)
            share = np.reshape(share, (-1,) + (1,) * (len(fine.shape) - 1 - axis))
            total = total + xp.take(values, index, axis=axis) * xp.asarray(share, device=values.device)
        values = total
    return xp.reshape(values, (-1,))


class Image:
    """Weights over a grid, and the sums over larger pixels as they are asked for."""

    def __init__(self, grid: Grid, weights: Array, xp: Any) -> None:
        self.grid, self.xp = grid, xp
        none = (0,) * grid.dimension
        self.found = {none: xp.reshape(weights, grid.shape)}

    def doublings(self, width: float) -> Shape:
        """How often pixels may be doubled along each axis without becoming wider."""
        room = [math.floor(math.log2(width / step * (1 + 1e-9))) for step in self.grid.spacing]
        longest = [math.ceil(math.log2(n)) for n in self.grid.shape]
        return tuple(max(0, min(k, most)) for k, most in zip(room, longest, strict=True))

    def sums(self, doublings: Shape) -> Array:
        """Each axis halved so often, by way of all that lies between."""
        if doublings not in self.found:
            most = max(doublings)
            sums = self.sums(tuple(k - (k == most) for k in doublings))
            for axis, k in enumerate(doublings):
                sums = halved(sums, axis, self.xp) if k == most else sums
            self.found[doublings] = sums
        return self.found[doublings]


class Pyramid(Resolutions):
    """The coarser grids of both sides: along each axis the widest pixels that are no wider than asked for."""

    regular = True

    def __init__(self, geometry: Separable, a: Array, b: Array, *, own: bool) -> None:
        self.geometry = geometry
        self.x = Image(geometry.x, a, geometry.place.xp)
        self.y = self.x if own else Image(geometry.y, b, geometry.place.xp)
        finest = min(*geometry.x.spacing, *geometry.y.spacing)
        spans = [
            n * step for grid in (geometry.x, geometry.y) for n, step in zip(grid.shape, grid.spacing, strict=True)
        ]
        count = max(0, math.floor(math.log2(max(spans) / FEWEST / finest)))
        self.widths = [finest * 2**k for k in range(count, 0, -1)]

    def length(self, eps: float) -> float:
        return self.geometry.length(eps)

    def _grid(self, side: Image, depth: int) -> Grid:
        return coarser(side.grid, side.doublings(self.widths[depth]), self.geometry.periods)

    def share(self, depth: int) -> float:
        n, m = (math.prod(self._grid(z, depth).shape) for z in (self.x, self.y))
        return math.sqrt(n / self.geometry.shape[0] * (m / self.geometry.shape[1]))

    def at(self, depth: int) -> tuple[Separable, Array, Array]:
        xp, found = self.geometry.place.xp, []
        for side in (self.x, self.y):
            sums = side.sums(side.doublings(self.widths[depth]))
            found.append((self._grid(side, depth), xp.reshape(sums, (-1,))))
        (x, a), (y, b) = found
        return self.geometry.between(x, y), a, b
