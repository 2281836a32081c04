"""Reductions between two lattices, one axis after the other, by compiled passes along lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.arrays import Place
from epsot.kernels.cpu.clouds import LOG2_E, writable
from epsot.kernels.cpu.cones import Walks, lengths
from epsot.kernels.cpu.cuts import LIMIT, NUMBA, SIZES, SPAN, blocks_of, resized, room_of, walking_room, walks_of
from epsot.kernels.cpu.exponents import EMPTY, LANES
from epsot.kernels.cpu.threads import run, usable_workers
from epsot.kernels.cpu.tilted import FIRST, NO_MOMENT, SECOND, Blocks
from epsot.kernels.cpu.windows import squares
from epsot.kernels.lattice import Axis, Lattice
from epsot.kernels.reference import MAX_EXPONENT
from epsot.lazy import cached_property

Array = NDArray[Any]

ABREAST = 4  # columns of a product that go through a pass together
RISE = 2.0  # of the temperature, from which windows are better found anew
SERIAL_ROWS = 1 << 12  # of groups of lines: less work is not worth waking a thread
NO_WINDOWS = np.zeros((0, 2, 0), np.int32)


class LatticeKernel(Lattice):
    """`lattice.Lattice` for NumPy arrays.

    Parameters
    ----------
    workers : int, optional
        Threads: None and -1 are all usable cores.
    """

    workers: int
    carries: bool = False  # whether a call begins with the windows of the last one

    def __init__(
        self, axes: tuple[Axis, ...], cost: str, factor: float, place: Place, dtype: Any, workers: int | None = None
    ) -> None:
        super().__init__(axes, cost, factor, place, dtype)
        self.workers = usable_workers(workers)
        self._windows: dict[int, tuple[int, float, NDArray[np.int32]]] = {}
        self._axes: dict[int, tuple[Any, Blocks | Walks]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_windows": {}, "_axes": {}}

    @contextmanager
    def carrying(self) -> Iterator[None]:
        """Meanwhile each call begins with the windows of the last one.

        Afterwards all is forgotten: what is asked of a result, loaded or not, has the same bits in any order.
        """
        both, before = (self, self.T), self.carries
        try:
            for kernel in both:
                kernel.carries = True
            yield
        finally:
            for kernel in both:
                kernel.carries = before
                if not before:
                    kernel._windows.clear()

    @cached_property
    def T(self) -> LatticeKernel:
        return self.between(tuple(axis.T for axis in self.axes))  # type: ignore[return-value]

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
        return [axis.span(SIZES[-1]) for axis in self.axes]

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
        if isinstance(axis, Blocks) and self.carries:
            self._windows[number] = axis.size, c, windows

    def _cut(self, number: int, inner: int, c: float, real: Any) -> Blocks | Walks:
        """An axis as the kernels take it, kept for one temperature."""
        key, found = (inner, c, real), self._axes.get(number)
        if found is None or found[0] != key:
            axis, d = self.axes[number], len(self.axes)
            made = blocks_of(axis, inner, c, d, real) if self.kind == "squares" else walks_of(axis, inner, c)
            found = self._axes[number] = key, made
        return found[1]

    def _guess(self, number: int, blocks: Blocks, groups: int) -> tuple[NDArray[np.int32], bool]:
        """Windows to begin with: those of the last call, where the temperature has not risen much since."""
        none = 0, math.inf, NO_WINDOWS
        size, c, windows = self._windows.get(number, none) if self.carries else none
        if len(windows) != groups or c > RISE * blocks.c:
            return np.empty((groups, 2, len(blocks.X)), np.int32), False
        return resized(windows, size, blocks), True

    # What is asked

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        return self.passes(h, eps, -eps / LOG2_E)[0] if self.fits(eps) else super().softmin(h, eps)

    def log_sums(self, h: Array, eps: float) -> Array:
        return self.passes(h, eps, 1 / LOG2_E)[0] if self.fits(eps) else super().log_sums(h, eps)

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
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
