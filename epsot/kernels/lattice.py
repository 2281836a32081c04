"""Reductions between two regular lattices, for costs that are sums over the axes: one axis after the other.

A line of N nodes takes N^2 exponentials, so that a pass over N^d nodes takes d N^(d + 1) in place of N^(2 d). Vectors
are flat, in C order, and all is computed in float64, in blocks of bounded memory, in any array-API namespace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from epsot.arrays import Place
from epsot.costs import Array
from epsot.kernels import reference
from epsot.kernels.reference import bounded_exp, logsumexp
from epsot.lazy import cached_property

BLOCK_ELEMENTS = 2**20  # exponents that are held at once: 8 MiB
TIED = 2.0**-40  # of the lengths of an axis: nodes that coincide, and images that are equally near, up to rounding


class Axis(NamedTuple):
    """Nodes x + i dx, i < n, of the first side, and y + j dy, j < m, of the second, of one axis."""

    n: int
    m: int
    x: float  # in the units of the user, as all lengths
    y: float
    dx: float
    dy: float
    period: float | None  # None: there is none

    @property
    def T(self) -> Axis:
        """Seen from the other side."""
        return Axis(self.m, self.n, self.y, self.x, self.dy, self.dx, self.period)

    def differences(self, place: Place) -> Array:
        """x[i] - y[j], of the nearest image; between two equally near ones half a period.  -> (n, m) float64"""
        xp = place.xp
        i, j = (xp.arange(size, dtype=xp.float64, device=place.device) for size in (self.n, self.m))
        apart = (i * self.dx)[:, None] - (j * self.dy)[None, :] + (self.x - self.y)  # an offset costs no digits
        return apart if self.period is None else apart - self.period * xp.round(apart / self.period)

    def growth(self, place: Place) -> Array:
        """The differences, 0 where costs have no derivative: where nodes coincide, or two images are equally near."""
        apart = self.differences(place)
        size, most = place.xp.abs(apart), self.n * self.dx + self.m * self.dy
        tied = size <= TIED * most
        if self.period is not None:
            tied = tied | (self.period / 2 - size <= TIED * max(most, self.period))
        return place.xp.where(tied, place.xp.zeros_like(apart), apart)

    # What a backend that goes along the line has to know of it

    @property
    def tie(self) -> float:
        """What two lengths may differ by that are equal up to rounding."""
        return TIED * max(self.n * self.dx + self.m * self.dy, self.period or 0.0)

    @property
    def half(self) -> float:
        """The longest difference to a nearest image."""
        return math.inf if self.period is None else self.period / 2

    @property
    def places(self) -> tuple[int, int, int]:
        """Of the line that rows see the number of its first place, how many there are, and those of a period, or 0."""
        if self.period is None:
            return 0, self.m, 0
        offset = self.x - self.y
        first = math.floor((offset - self.half) / self.dy)
        last = math.ceil((offset + (self.n - 1) * self.dx + self.half) / self.dy)
        return first, last - first + 1, round(self.period / self.dy)

    def span(self, block: int) -> float:
        """The longest difference, with what the last blocks of such a size have too much; inf of no regular line."""
        reach = self.n * self.dx + self.m * self.dy + block * (self.dx + self.dy)
        if self.dx <= 0 or self.dy <= 0:
            return math.inf
        if self.period is None:
            return abs(self.x - self.y) + reach
        turn = round(self.period / self.dy)
        if turn < self.m or abs(turn * self.dy - self.period) > TIED * self.period:
            return math.inf
        return self.period + reach


# Beside sweeps that take little longer than a pass over vectors, directions take a quarter of the time and most of the
# memory. 256 x 256 pixels to 1e-3 need 76 steps with 4 of them, 75 with 10, 86 with 3; to 1e-2, and 512 x 512, as many.
WINDOW = 4


class Lattice(reference.Dense):
    """Two lattices with a cost that is a sum over the axes.

    Parameters
    ----------
    axes : tuple of Axis
    cost : {"squares", "lengths"}
        The sum over the axes of factor (x - y)^2, or of factor |x - y|; on a periodic axis of the nearest image.
    factor : float
    place : Place
        Where vectors are.
    dtype : dtype
        Of the user's arrays. Backends may compute in it what is near zero.
    """

    window: int | None = WINDOW

    def __init__(self, axes: tuple[Axis, ...], cost: str, factor: float, place: Place, dtype: Any) -> None:
        self.axes, self.kind, self.factor, self.place, self.dtype = axes, cost, factor, place, dtype
        self.rows, self.columns = tuple(axis.n for axis in axes), tuple(axis.m for axis in axes)
        self.shape = math.prod(self.rows), math.prod(self.columns)

    def between(self, axes: tuple[Axis, ...]) -> Lattice:
        """The kernel of other lattices."""
        kernel = type(self)(axes, self.kind, self.factor, self.place, self.dtype)
        kernel.workers = self.workers
        return kernel

    @cached_property
    def T(self) -> Lattice:
        return self.between(tuple(axis.T for axis in self.axes))

    def rows_of(self, other: Lattice) -> Lattice:
        """The kernel of the first nodes of another kernel with the second ones of this one."""
        pairs = zip(other.axes, self.axes, strict=True)
        return self.between(tuple(own._replace(n=z.n, x=z.x, dx=z.dx) for z, own in pairs))

    def costs(self, number: int) -> Array:
        """What one axis adds to the cost.  -> (n, m)"""
        xp, apart = self.place.xp, self.axes[number].differences(self.place)
        return self.factor * (apart * apart if self.kind == "squares" else xp.abs(apart))

    def slopes(self, number: int) -> Array:
        """Its derivative in the first node, 0 where there is none.  -> (n, m)"""
        apart, xp = self.axes[number].growth(self.place), self.place.xp
        return 2 * self.factor * apart if self.kind == "squares" else self.factor * xp.sign(apart)

    def cost_rows(self, rows: slice | Array) -> Array:
        xp = self.place.xp
        if isinstance(rows, slice):
            rows = xp.arange(self.shape[0], device=self.place.device)[rows]
        cost, rest = xp.zeros((rows.shape[0], 1), dtype=xp.float64, device=self.place.device), rows
        for number in reversed(range(len(self.axes))):
            rest, index = rest // self.rows[number], rest % self.rows[number]
            along = xp.take(self.costs(number), index, axis=0)  # (r, m of the axis)
            cost = xp.reshape(along[:, :, None] + cost[:, None, :], (rows.shape[0], -1))
        return cost

    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array:
        if not isinstance(rows, slice):
            return super().plan_rows(rows, k, h, eps)
        return super().plan_rows(self.place.xp.arange(self.shape[0], device=self.place.device)[rows], k, h, eps)

    # Sums over one axis after the other

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        return -eps * self.log_sums(h, eps)

    def log_sums(self, h: Array, eps: float) -> Array:
        """log sum_j exp(h[j] - C[i, j] / eps).  (m,) -> (n,)"""
        z = self.place.xp.reshape(h, self.columns)
        for number in range(len(self.axes)):
            z = self._along(z, number, eps)
        return self.place.xp.reshape(z, (-1,))

    def mean(self, h: Array, eps: float, number: int, values: Array) -> Array:
        """sum_j P[i, j] values / sum_j P[i, j] of P = exp(h[j] - C[i, j] / eps), 0 of no mass.  (m,) -> (n,)

        The values, (n, m) of an axis, belong to the pairs of nodes of that axis.
        """
        z = self.place.xp.reshape(h, self.columns)
        for other in range(len(self.axes)):
            if other != number:
                z = self._along(z, other, eps)
        return self.place.xp.reshape(self._along(z, number, eps, values), (-1,))

    def _along(self, z: Array, number: int, eps: float, values: Array | None = None) -> Array:
        """log sum_j exp(z[j] - cost[i, j] / eps) along one axis, or the mean of values so weighted."""
        xp, axis = self.place.xp, self.axes[number]
        lines = xp.moveaxis(z, number, -1)
        shape = tuple(lines.shape[:-1])
        lines, logits = xp.reshape(lines, (-1, axis.m)), -self.costs(number) / eps
        parts = []
        for some, rows in blocks(lines.shape[0], axis.n, axis.m):
            terms = lines[some, :][:, None, :] + logits[rows, :][None, :, :]
            parts.append((some, logsumexp(terms) if values is None else weighted_mean(terms, values[rows, :], xp)))
        return xp.moveaxis(xp.reshape(assembled(parts, xp, z, axis.n), (*shape, axis.n)), -1, number)

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        """Positive and negative parts each by their logarithms: their difference rounds as a sum of both would."""
        xp, columns = self.place.xp, []
        for q in range(v.shape[1]):
            total = xp.zeros_like(k)
            for sign in (1.0, -1.0):
                part = sign * v[:, q]
                if bool(xp.any(part > 0)):
                    safe = xp.where(part > 0, part, xp.ones_like(part))
                    logs = xp.where(part > 0, h + xp.log(safe), xp.full_like(h, -xp.inf))
                    total = total + sign * bounded_exp(k + self.log_sums(logs, eps), xp)
            columns.append(total)
        return xp.stack(columns, axis=1) if columns else xp.zeros((k.shape[0], 0), dtype=xp.float64)

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        """out[i] = sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_1 C.  (n,), (m,) -> (n, d)"""
        xp = self.place.xp
        sums = bounded_exp(k + self.log_sums(h, eps), xp)
        return xp.stack(
            [sums * self.mean(h, eps, number, self.slopes(number)) for number in range(len(self.axes))], axis=1
        )

    def transported(self, k: Array, h: Array, eps: float) -> Array:
        """sum_ij exp(k[i] + h[j] - C[i, j] / eps) C[i, j], 0-d"""
        xp = self.place.xp
        sums = bounded_exp(k + self.log_sums(h, eps), xp)
        return xp.sum(
            xp.stack([xp.sum(sums * self.mean(h, eps, number, self.costs(number))) for number in range(len(self.axes))])
        )

    def cost_apply(self, v: Array) -> Array:
        """For each axis the sums over all others, times its costs."""
        xp, d = self.place.xp, len(self.axes)
        z, total = xp.reshape(v, self.columns), xp.zeros(self.rows, dtype=xp.float64, device=self.place.device)
        for number, size in enumerate(self.rows):
            others = tuple(other for other in range(d) if other != number)
            sums = xp.sum(z, axis=others) if others else z
            along = xp.sum(self.costs(number) * sums[None, :], axis=1)
            total = total + xp.reshape(along, tuple(size if other == number else 1 for other in range(d)))
        return xp.reshape(total, (-1,))


def blocks(lines: int, n: int, m: int) -> Iterator[tuple[slice, slice]]:
    """Parts of some lines with parts of their n rows: all rows of several lines, or some rows of one."""
    width, height = max(1, BLOCK_ELEMENTS // max(1, n * m)), max(1, BLOCK_ELEMENTS // max(1, m))
    for line in range(0, lines, width):
        for row in range(0, n, height):
            yield slice(line, min(line + width, lines)), slice(row, min(row + height, n))


def assembled(parts: list[tuple[slice, Array]], xp: Any, like: Array, n: int) -> Array:
    """The blocks of some lines, put together: parts of the rows of the same lines lie side by side.  -> (lines, n)"""
    if not parts:
        return xp.zeros((0, n), dtype=like.dtype, device=like.device)
    found: dict[int, list[Array]] = {}
    for lines, part in parts:
        found.setdefault(lines.start, []).append(part)
    rows = [some[0] if len(some) == 1 else xp.concat(some, axis=1) for some in found.values()]
    return rows[0] if len(rows) == 1 else xp.concat(rows, axis=0)


def weighted_mean(logits: Array, values: Array, xp: Any) -> Array:
    """sum_j exp(logits[..., i, j]) values[i, j] / sum_j exp(logits[..., i, j]), 0 of no mass.  -> (..., n)"""
    top = xp.max(logits, axis=-1)
    empty = top == -xp.inf
    weights = xp.exp(logits - xp.where(empty, xp.zeros_like(top), top)[..., None])
    total = xp.sum(weights, axis=-1)
    return xp.sum(weights * values, axis=-1) / xp.where(empty, xp.ones_like(total), total)
