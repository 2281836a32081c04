"""Reductions between two lattices, one axis after the other, by compiled passes along lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from epsot.arrays import Place
from epsot.kernels.cpu.clouds import LOG2_E, writable
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
        if self.kind != "squares" or 0 in self.shape:
            return False
        return LOG2_E * self.factor / eps * max(self.spans) ** 2 <= SPAN[np.float64]

    def real(self, eps: float) -> Any:
        """The type of the blocks: that of the arrays, unless the costs need longer exponents."""
        narrow = self.single and LOG2_E * self.factor / eps * max(self.spans) ** 2 <= SPAN[np.float32]
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
            self._squares(
                number, inner, eps, z, carried, unit, scale if number == self.order[-1] else 1.0, moment, out, means
            )
            z, carried = out, means
        return z, carried

    def _squares(
        self, number: int, inner: int, eps: float, u: Array, given: Array, unit: float, scale: float, moment: int,
        out: Array, means: Array,
    ) -> None:  # fmt: skip
        """One axis of `passes`."""
        real: Any = given.dtype.type
        c = LOG2_E * self.factor / eps
        blocks = blocks_of(self.axes[number], inner, c, len(self.axes), real)
        lanes = LANES[NUMBA[real]]
        groups = -(-(len(u) // blocks.m) // lanes)
        windows, known = self._guess(number, blocks, groups)
        arguments = (unit, scale, moment, windows, known)

        def piece(begin: int, end: int) -> object:
            room = room_of(blocks, lanes, len(given), len(means), real)
            return squares(
                u, given, blocks, *arguments, room, groups, lanes, EMPTY[NUMBA[real]], begin, end, out, means
            )

        workers = self.workers if groups * blocks.n >= SERIAL_ROWS else 1
        step = max(1, -(-groups // (4 * workers))) if workers > 1 else groups

        def task(k: int) -> Iterator[object]:
            yield piece(k * step, min(groups, (k + 1) * step))

        run(task, -(-groups // step), workers)
        self._windows[number] = blocks.size, c, windows

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
        for number, mean in zip(self.order, means, strict=True):
            np.multiply(mass * (2 * self.factor), mean, out=out[:, number])
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


def blocks_of(axis: Axis, inner: int, c: float, d: int, real: Any) -> Blocks:
    """An axis cut into blocks of the size that takes least time, of those that the range of the numbers allows."""
    offset, half = axis.x - axis.y, math.inf if axis.period is None else axis.period / 2
    first, last, period = 0, axis.m - 1, axis.m
    if axis.period is not None:
        period = round(axis.period / axis.dy)
        first = math.floor((offset - half) / axis.dy)
        last = math.ceil((offset + (axis.n - 1) * axis.dx + half) / axis.dy)
    columns = last - first + 1
    source = np.arange(first, last + 1) % period if axis.period is not None else np.arange(axis.m)
    source[source >= axis.m] = -1
    bits = 3.0 - LIMIT[real] + math.log2(d * (columns + SIZES[-1]))
    window = min(columns, 2 * math.sqrt(bits / c) / axis.dy)
    most = RANGE[real] + LIMIT[real] - 8 - math.log2(d * (columns + SIZES[-1]))

    def fits(size: int) -> bool:
        reach = 0.5 * (size - 1) * (axis.dx + axis.dy)
        return size == 1 or (c * reach * reach <= most and size < 2 * max(axis.n, columns))

    size = min(filter(fits, SIZES), key=lambda B: (window / B + 2) * (B + OVERHEAD))
    steps = np.arange(max(8, size)) - (size - 1) / 2
    rows, others = steps * axis.dx, steps * axis.dy
    source = np.concatenate([source, np.full(-columns % size, -1)])
    X = offset + axis.dx * (np.arange(-(-axis.n // size)) * size + (size - 1) / 2)
    Y = axis.dy * (first + np.arange(len(source) // size) * size + (size - 1) / 2)
    tie = TIED * max(axis.n * axis.dx + axis.m * axis.dy, axis.period or 0.0)
    begin = np.searchsorted(Y + others[size - 1], X + rows[0] - half - tie, "left")
    end = np.searchsorted(Y + others[0], X + rows[size - 1] + half + tie, "right")
    begin = np.minimum(begin, len(Y) - 1)
    matrix = np.exp2(-c * (rows[None, :size] - others[:size, None]) ** 2).astype(real)
    around = math.ceil(math.sqrt(bits / c) / (size * axis.dy))
    return Blocks(
        size, axis.n, axis.m, inner, source, X, Y, rows, others, begin, np.maximum(end, begin + 1), c, half, tie, bits,
        around, matrix,
    )  # fmt: skip


def room_of(blocks: Blocks, lanes: int, given: int, means: int, real: Any) -> Room:
    size, width, nJ = blocks.size, len(blocks.rows), len(blocks.Y)
    rows, columns = len(blocks.X) * size, nJ * size
    integer: Any = np.int32 if real == np.float32 else np.int64
    return Room(
        np.empty((max(rows, blocks.m + 1), lanes)), np.empty((1, lanes)), np.empty((columns, lanes), real),
        np.empty((columns, lanes), integer), np.zeros((given, columns, lanes), real), np.empty((1, width), real),
        np.empty((1, width), integer), np.empty((nJ, width), real), np.empty((nJ, width), integer),
        np.empty((nJ, lanes), integer), np.empty((columns, lanes), real), np.empty((size, lanes), integer),
        np.empty((size, lanes), real), np.ones((size, lanes), real), np.empty(((1 + means) * size, lanes), real),
        np.empty((size, lanes), real), np.ones((size, size), real), np.empty((means, rows, lanes), real),
    )  # fmt: skip
