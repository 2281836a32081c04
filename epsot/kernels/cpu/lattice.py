"""Reductions between two lattices, one axis after the other, by compiled passes along lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from epsot.arrays import Place
from epsot.kernels.cpu import cones
from epsot.kernels.cpu.clouds import LOG2_E, writable
from epsot.kernels.cpu.cones import NOWHERE, TERMS, Walks, lengths
from epsot.kernels.cpu.exponents import EMPTY, LANES
from epsot.kernels.cpu.threads import run, usable_workers
from epsot.kernels.cpu.tilted import FIRST, NO_MOMENT, SECOND, Blocks, Room
from epsot.kernels.cpu.windows import squares
from epsot.kernels.lattice import TIED, Axis, Lattice
from epsot.kernels.reference import MAX_EXPONENT
from epsot.lazy import cached_property

Array = NDArray[Any]

SIZES = (1, 4, 8, 16, 32)  # of blocks
OVERHEAD = 13  # multiply-adds, which tilting a row and a column of a pair of blocks takes as long as
LIMIT = {np.float32: -31.0, np.float64: -60.0}  # log2 of the part of any sum that may be missing
# The largest cost in bits that the integer exponents leave room for, beside those of the potentials
SPAN = {np.float32: 2.0**27, np.float64: 2.0**47}
RANGE = {np.float32: 126.0, np.float64: 1022.0}
NUMBA = {np.float32: types.float32, np.float64: types.float64}
INTEGERS: dict[Any, Any] = {np.float32: np.int32, np.float64: np.int64}
NO_TABLES = {
    real: tuple(
        np.zeros(shape, kind) for shape, kind in zip((0, *[(1, 8)] * 4), (integer, *[real, integer] * 2), strict=True)
    )
    for real, integer in INTEGERS.items()
}
MOST_BLOCKS = 1 << 12  # of rows and columns: beyond, tables would take more memory than lines
ABREAST = 4  # columns of a product that go through a pass together
SERIAL_ROWS = 1 << 12  # of groups of lines: less work is not worth waking a thread


class LatticeKernel(Lattice):
    """`lattice.Lattice` for NumPy arrays.

    Parameters
    ----------
    workers : int, optional
        Threads: None and -1 are all usable cores.
    """

    workers: int

    def __init__(
        self, axes: tuple[Axis, ...], cost: str, factor: float, place: Place, dtype: Any, workers: int | None = None
    ) -> None:
        super().__init__(axes, cost, factor, place, dtype)
        self.workers = usable_workers(workers)
        self._windows: dict[int, tuple[int, float, NDArray[np.int32]]] = {}
        self._axes: dict[int, tuple[Any, Blocks | Walks]] = {}

    @cached_property
    def single(self) -> bool:
        return bool(np.dtype(self.dtype).itemsize <= 4)

    @cached_property
    def limit(self) -> float:
        """log2 of the part of any sum that may be left out."""
        return LIMIT[np.float32 if self.single else np.float64]

    @cached_property
    def spans(self) -> list[float]:
        """The longest difference along each axis, up to the ends of its blocks; inf where no line is regular."""
        return [span_of(axis) for axis in self.axes]

    def fits(self, eps: float) -> bool:
        """Whether there are lines that are regular, and costs that leave room in the exponents."""
        return 0 not in self.shape and self._steepest(eps) <= SPAN[np.float64]

    def _steepest(self, eps: float) -> float:
        """The largest cost along an axis in bits."""
        return LOG2_E * self.factor / eps * max(self.spans) ** (2 if self.kind == "squares" else 1)

    def real(self, eps: float) -> Any:
        """The type of the blocks: that of the arrays, unless costs need longer exponents; walks are in float64."""
        narrow = self.single and self.kind == "squares" and self._steepest(eps) <= SPAN[np.float32]
        return np.float32 if narrow else np.float64

    @cached_property
    def order(self) -> list[int]:
        """Axes one after the other: those first that leave less to do."""
        return sorted(range(len(self.axes)), key=lambda number: self.rows[number] / self.columns[number])

    def passes(
        self, h: Array, eps: float, scale: float, given: Array | None = None, moment: int = NO_MOMENT
    ) -> tuple[Array, Array]:
        """scale log2 sum_j exp(h[j] - C[i, j] / eps), and means of what is given, in the weights of these terms.

        given: (q, m). A moment adds the means of x - y, or of its square, for each axis in the order of `order`.
        -> (n,), (q and d of a moment, n)
        """
        real = self.real(eps)
        z = writable(h, np.float64)
        carried = np.empty((0, len(z)), real) if given is None else np.ascontiguousarray(given, real)
        sizes = list(self.columns)
        for number in self.order:
            inner = math.prod(sizes[number + 1 :])
            sizes[number] = self.rows[number]
            shape = math.prod(sizes)
            out, means = np.empty(shape), np.empty((len(carried) + (moment != NO_MOMENT), shape), real)
            unit = LOG2_E if number == self.order[0] else 1.0
            self._pass(
                number, inner, eps, z, carried, unit, scale if number == self.order[-1] else 1.0, moment, out, means
            )
            z, carried = out, means
        return z, carried

    def _pass(
        self, number: int, inner: int, eps: float, u: Array, given: Array, unit: float, scale: float, moment: int,
        out: Array, means: Array,
    ) -> None:  # fmt: skip
        """One axis of `passes`."""
        real: Any = given.dtype.type
        c, lanes = LOG2_E * self.factor / eps, LANES[NUMBA[real]]
        groups = -(-(len(u) // self.columns[number]) // lanes)
        axis = self._cut(number, inner, c, real)
        if isinstance(axis, Blocks):
            windows, known = self._guess(number, axis, groups)

        def piece(begin: int, end: int) -> object:
            if isinstance(axis, Walks):
                room = walking_room(axis, lanes, len(means))
                return lengths(u, given, axis, unit, scale, moment, room, lanes, begin, end, out, means)
            room_of_blocks = room_of(axis, lanes, len(given), len(means), real)
            return squares(
                u, given, axis, unit, scale, moment, windows, known, room_of_blocks, lanes, EMPTY[NUMBA[real]], begin,
                end, out, means,
            )  # fmt: skip

        workers = self.workers if groups * self.rows[number] >= SERIAL_ROWS else 1
        step = max(1, -(-groups // (4 * workers))) if workers > 1 else groups

        def task(k: int) -> Iterator[object]:
            yield piece(k * step, min(groups, (k + 1) * step))

        run(task, -(-groups // step), workers)
        if isinstance(axis, Blocks):
            self._windows[number] = axis.size, c, windows

    def _cut(self, number: int, inner: int, c: float, real: Any) -> Blocks | Walks:
        """An axis as the kernels take it, kept for one temperature."""
        key, found = (inner, c, real), self._axes.get(number)
        if found is None or found[0] != key:
            axis = self.axes[number]
            squares = self.kind == "squares"
            made = blocks_of(axis, inner, c, len(self.axes), real) if squares else walks_of(axis, inner, c)
            found = self._axes[number] = key, made
        return found[1]

    def _guess(self, number: int, blocks: Blocks, groups: int) -> tuple[NDArray[np.int32], bool]:
        """Windows to begin with: those of the last call, where the temperature has not risen much since."""
        shape = groups, 2, len(blocks.X)
        size, c, windows = self._windows.get(number, (0, 0.0, np.empty(shape, np.int32)))
        if size != blocks.size or windows.shape != shape or c > 2 * blocks.c:
            return np.empty(shape, np.int32), False
        return windows.copy(), True

    # What is asked

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        return self.passes(h, eps, -eps / LOG2_E)[0] if self.fits(eps) else super().softmin(h, eps)

    def log_sums(self, h: Array, eps: float) -> Array:
        return self.passes(h, eps, 1 / LOG2_E)[0] if self.fits(eps) else super().log_sums(h, eps)

    def apply(self, k: Array, h: Array, eps: float, v: Array) -> Array:
        """Averages of v, in the weights of the terms of a sum, times the sums."""
        (n, m), q = self.shape, v.shape[1]
        if 0 in (n, m, q) or not self.fits(eps):
            return np.asarray(super().apply(k, h, eps, v))
        out, size = np.empty((n, q)), np.abs(v).max(axis=0).astype(np.float64)
        size[size == 0] = 1.0
        for begin in range(0, q, ABREAST):
            part = slice(begin, begin + ABREAST)
            logs, means = self.passes(h, eps, 1 / LOG2_E, (v[:, part] / size[part]).T)
            mass = np.exp(np.minimum(k + logs, MAX_EXPONENT))
            for column in range(*part.indices(q)):
                np.multiply(mass * size[column], means[column - begin], out=out[:, column])
        return out

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        if not self.fits(eps):
            return np.asarray(super().cost_gradient(k, h, eps))
        logs, means = self.passes(h, eps, 1 / LOG2_E, moment=FIRST)
        mass, out = np.exp(np.minimum(k + logs, MAX_EXPONENT)), np.empty((len(logs), len(self.axes)))
        slope = (2 if self.kind == "squares" else 1) * self.factor
        for number, mean in zip(self.order, means, strict=True):
            np.multiply(mass * slope, mean, out=out[:, number])
        return out

    def transported(self, k: Array, h: Array, eps: float) -> Array:
        if not self.fits(eps):
            return np.asarray(super().transported(k, h, eps))
        logs, means = self.passes(h, eps, 1 / LOG2_E, moment=SECOND)
        mass, total = np.exp(np.minimum(k + logs, MAX_EXPONENT)), np.zeros(len(logs))
        for mean in means:
            total += mean
        return np.asarray(self.factor * np.sum(mass * total))


def span_of(axis: Axis) -> float:
    """The longest difference along an axis, with what the last blocks have too much; inf of no regular line."""
    reach = axis.n * axis.dx + axis.m * axis.dy + SIZES[-1] * (axis.dx + axis.dy)
    if axis.dx <= 0 or axis.dy <= 0:
        return math.inf
    if axis.period is None:
        return abs(axis.x - axis.y) + reach
    count = round(axis.period / axis.dy)
    if count < axis.m or abs(count * axis.dy - axis.period) > TIED * axis.period:
        return math.inf
    return axis.period + reach


def unrolled(axis: Axis) -> tuple[int, NDArray[np.int64]]:
    """What stands on the line that rows see: the number of the first place, and the columns, NOWHERE where is none."""
    if axis.period is None:
        return 0, np.arange(axis.m)
    offset, half = axis.x - axis.y, axis.period / 2
    first = math.floor((offset - half) / axis.dy)
    last = math.ceil((offset + (axis.n - 1) * axis.dx + half) / axis.dy)
    source = np.arange(first, last + 1) % round(axis.period / axis.dy)
    source[source >= axis.m] = NOWHERE
    return first, source


def blocks_of(axis: Axis, inner: int, c: float, d: int, real: Any) -> Blocks:
    """An axis cut into blocks of the size that takes least time, of those that the range of the numbers allows."""
    offset, half = axis.x - axis.y, math.inf if axis.period is None else axis.period / 2
    first, source = unrolled(axis)
    columns = len(source)
    bits = 3.0 - LIMIT[real] + math.log2(d * (columns + SIZES[-1]))
    window = min(columns, 2 * math.sqrt(bits / c) / axis.dy)
    most = RANGE[real] + LIMIT[real] - 8 - math.log2(d * (columns + SIZES[-1]))

    def fits(size: int) -> bool:
        reach = 0.5 * (size - 1) * (axis.dx + axis.dy)
        return size == 1 or (c * reach * reach <= most and size < 2 * max(axis.n, columns))

    size = min(filter(fits, SIZES), key=lambda B: (window / B + 2) * (B + OVERHEAD))
    steps = np.arange(max(8, size)) - (size - 1) / 2
    rows, others = steps * axis.dx, steps * axis.dy
    source = np.concatenate([source, np.full(-columns % size, NOWHERE)])
    X = offset + axis.dx * (np.arange(-(-axis.n // size)) * size + (size - 1) / 2)
    Y = axis.dy * (first + np.arange(len(source) // size) * size + (size - 1) / 2)
    tie = tie_of(axis)
    begin = np.searchsorted(Y + others[size - 1], X + rows[0] - half - tie, "left")
    end = np.searchsorted(Y + others[0], X + rows[size - 1] + half + tie, "right")
    begin = np.minimum(begin, len(Y) - 1)
    matrix = np.exp2(-c * (rows[None, :size] - others[:size, None]) ** 2).astype(real)
    around = math.ceil(math.sqrt(bits / c) / (size * axis.dy))
    known: tuple[Array, ...] = NO_TABLES[real]
    if axis.dx == axis.dy and len(X) + len(Y) <= MOST_BLOCKS:
        known = tables_of(X, Y, rows, others, size, c, half, tie, real)
    return Blocks(
        size, axis.n, axis.m, inner, source, X, Y, rows, others, begin, np.maximum(end, begin + 1), c, half, tie, bits,
        around, matrix, *known,
    )  # fmt: skip


def tables_of(
    X: Array, Y: Array, rows: Array, columns: Array, size: int, c: float, half: float, tie: float, real: Any
) -> tuple[Array, ...]:
    """Costs of pairs and tilts of pairs of blocks, by their distances, where rows and columns are equally far apart."""
    integer: Any = INTEGERS[real]
    step = rows[1] - rows[0]
    places = np.arange(1 - size * len(X), size * len(Y))  # of a column less that of a row
    apart = X[0] - Y[0] + rows[0] - columns[0] - step * places
    costs = np.rint(-c * apart**2).astype(integer)
    costs[(apart <= tie - half) | (apart > tie + half)] = EMPTY[NUMBA[real]]
    D = (X[0] - Y[0] + step * size * np.arange(1 - len(Y), len(X)))[:, None]
    return (costs, *split(2 * c * D * columns, real), *split(-c * D * D - 2 * c * D * rows, real))


def split(exponents: Array, real: Any) -> tuple[Array, Array]:
    """2^exponents as factors near 1 and integer exponents."""
    whole = np.rint(exponents)
    return np.exp2(exponents - whole).astype(real), whole.astype(INTEGERS[real])


def room_of(blocks: Blocks, lanes: int, given: int, means: int, real: Any) -> Room:
    size, width, nJ = blocks.size, len(blocks.rows), len(blocks.Y)
    rows, columns = len(blocks.X) * size, nJ * size
    integer = INTEGERS[real]
    return Room(
        np.empty((max(rows, blocks.m + 1), lanes)), np.empty((1, lanes)), np.empty((columns, lanes), real),
        np.empty((columns, lanes), integer), np.zeros((given, columns, lanes), real), np.empty((1, width), real),
        np.empty((1, width), integer), np.empty((nJ, width), real), np.empty((nJ, width), integer),
        np.empty((nJ, lanes), integer), np.empty((columns, lanes), real), np.empty((size, lanes), integer),
        np.empty((size, lanes), real), np.ones((size, lanes), real), np.empty(((1 + means) * size, lanes), real),
        np.empty((size, lanes), real), np.ones((size, size), real), np.empty((means, rows, lanes), real),
    )  # fmt: skip


def tie_of(axis: Axis) -> float:
    """Lengths that are rounding."""
    return TIED * max(axis.n * axis.dx + axis.m * axis.dy, axis.period or 0.0)


def walks_of(axis: Axis, inner: int, c: float) -> Walks:
    """The segments of an axis, and the sums that each of its rows is made of."""
    first, source = unrolled(axis)
    m, tie, half = len(source), tie_of(axis), math.inf if axis.period is None else axis.period / 2
    x = axis.x - axis.y - first * axis.dy + axis.dx * np.arange(axis.n)  # from the first place
    place = np.rint(x / axis.dy)
    own = np.abs(x - place * axis.dy) <= tie
    left = np.minimum(np.where(own, place - 1, np.floor(x / axis.dy)), m - 1)
    right = np.maximum(np.where(own, place + 1, np.floor(x / axis.dy) + 1), 0)
    furthest, last, segment = np.zeros(axis.n), np.full(axis.n, m - 1), m
    far = np.full(axis.n, NOWHERE)
    if axis.period is not None:
        furthest, last = np.floor((x - half + tie) / axis.dy) + 1, np.ceil((x + half - tie) / axis.dy) - 1
        opposite = np.rint((x - half) / axis.dy)
        far = np.where(np.abs(x - half - opposite * axis.dy) <= tie, opposite, NOWHERE)
        segment = max(1, int(min((left - furthest).min(), (last - right).min())) + 1)
    edge, next_edge = left // segment * segment, (right // segment + 1) * segment
    some, more = (left >= furthest) & (left >= 0), (last >= right) & (right < m)
    numbers = np.stack(
        [
            np.where(some & (furthest < edge), 3 * m + furthest, NOWHERE),
            np.where(some, m + left, NOWHERE),
            np.where(own & (place >= 0) & (place < m), place, NOWHERE),
            np.where(more, 2 * m + right, NOWHERE),
            np.where(more & (last >= next_edge), 4 * m + last, NOWHERE),
            far,
        ],
        axis=1,
    )
    places = np.stack([edge - 1, left, place, right, next_edge, far], axis=1)
    apart = np.where(numbers == NOWHERE, 0.0, np.abs(x[:, None] - places * axis.dy))
    factors, moves = split(-c * axis.dy * np.arange(segment + 1), np.float64)
    return Walks(
        axis.n, axis.m, inner, source, segment, 2 if axis.period is None else 4, axis.dy, factors, moves,
        numbers.astype(np.int64), *split(-c * apart, np.float64), apart,
    )  # fmt: skip


def walking_room(axis: Walks, lanes: int, means: int) -> cones.Room:
    sums = (axis.walks + 1) * len(axis.source)
    return cones.Room(
        np.empty((max(axis.n, axis.m + 1), lanes)), np.empty((1, lanes)), np.zeros((1 + means, sums, lanes)),
        np.zeros((sums, lanes), np.int64), np.empty((TERMS, lanes)), np.empty((1, lanes), np.int64),
        np.empty((1, lanes)), np.empty((means, axis.n, lanes)),
    )  # fmt: skip
