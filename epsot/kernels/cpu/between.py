"""What happens to vectors between two sweeps, fused: one pass over memory a stage, on the threads of the kernels.

Nothing here is BLAS: its bits depend on how many threads it has, and these on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.kernels import vectors
from epsot.kernels.cpu import chunks
from epsot.kernels.cpu.advance import LINES, ROWS, STAGES, STEP, SUMS, VALUES, advance, settle, totals_of
from epsot.kernels.cpu.chunks import CHUNK
from epsot.kernels.cpu.clouds import padded, writable
from epsot.kernels.cpu.threads import run, usable_workers
from epsot.kernels.vectors import MixedStep

Array = NDArray[Any]

TASK = 64  # chunks: less work is not worth waking a thread, more would make an interrupt wait


def chunk_count(n: int) -> int:
    return -(-n // CHUNK)


def working_memory() -> tuple[Array, Array, Array]:
    """What `advance` needs, of one thread."""
    return np.empty((LINES, CHUNK)), np.empty(ROWS, np.int64), np.empty((2, ROWS))


def over_chunks(kernel: Callable[[int, int], object], count: int, workers: int) -> bool:
    """kernel(begin, end) over all chunks. -> whether in one piece."""
    if count <= TASK:
        kernel(0, count)
        return True

    def task(number: int) -> Iterator[object]:
        yield kernel(number * TASK, min(count, (number + 1) * TASK))

    run(task, -(-count // TASK), workers)
    return False


class Directions(vectors.Directions):
    """`vectors.Directions` in at most five passes a step."""

    rows = ROWS

    def __init__(self, b: Array, log_b: Array, mass: float, rho: float, workers: int, *, balanced: bool) -> None:
        m, count = len(b), chunk_count(len(b))
        length = min(CHUNK, padded(m))
        self.b, self.log_b, self.mass, self.rho, self.balanced = writable(b), writable(log_b), mass, rho, balanced
        self.workers = workers
        self.moves, self.changes = (np.zeros((count, ROWS, length)) for _ in range(2))  # a chunk lies in one piece
        self.plain = self.b / mass
        self.pairs = np.zeros((count, 2, length)), np.zeros((count, 2, length))  # in turn
        self.partial = np.zeros((STAGES - 1, count, VALUES))
        self.totals, self.numbers = totals_of(self.partial), np.zeros(5)
        self.rescale(None)

    def keep(self, window: int) -> None:
        count, _, length = self.moves.shape
        self.window = window
        self.moves, self.changes = (np.zeros((count, window + 1, length)) for _ in range(2))

    def forget(self) -> None:
        super().forget()
        self.slot = 0  # where the next direction goes
        self.kept: list[int] = []  # 2^slot of those that count, the oldest first

    def advance(self, g: Array, updated: Array, result: Array, eps: float) -> MixedStep:
        eased, moved = self.scale is not None, self.past is not None
        g, updated, result = (writable(z, np.float64) for z in (g, updated, result))
        past, pair = self.pairs
        start = np.empty_like(g)
        arguments = (
            self.log_b, self.b, self.weights, self.scale if eased else self.b, g, updated, result, past,
            self.moves, self.changes, eps, 1 / eps + 1 / self.rho, self.rho, self.mass, self.balanced, eased, moved,
            sum(self.kept), self.kept[0] if self.count == self.window else 0, self.slot, self.size, self.expected,
            pair, start, self.partial, self.totals, self.numbers, len(g),
        )  # fmt: skip
        if self.partial.shape[1] <= TASK:
            advance(*arguments, SUMS, STAGES, 0, self.partial.shape[1], *working_memory())
        else:
            self.by_stages(arguments)
        error, size, expected, misled, gained = self.numbers.tolist()
        if not math.isfinite(error):
            return MixedStep(result, error, error)
        self.size, self.expected, self.past, self.pairs = size, expected, pair, (pair, past)
        if misled:
            self.kept = []
        if gained:
            self.kept = [*self.kept, 1 << self.slot][-self.window :]
            self.slot = (self.slot + 1) % (self.window + 1)
        self.count = len(self.kept)
        return MixedStep(start, error, size)

    def by_stages(self, arguments: tuple[Any, ...]) -> None:
        def piece(stage: int, begin: int, end: int) -> None:
            advance(*arguments, stage, stage + 1, begin, end, *working_memory())

        for stage in range(STAGES):
            over_chunks(partial(piece, stage), self.partial.shape[1], self.workers)
            if stage < STEP:
                settle(self.partial, self.totals, stage)


class Vectors(vectors.Vectors):
    """`vectors.Vectors` for NumPy arrays in float64."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = usable_workers(workers)

    def density(self, log_b: Array, g: Array, eps: float) -> Array:
        m = len(g)
        if m <= TASK * CHUNK:
            out: Array = super().density(log_b, g, eps)
            return out
        log_b, g, out = writable(log_b), writable(g, np.float64), np.empty(m)

        def piece(begin: int, end: int) -> None:
            chunks.density(log_b, g, eps, out, begin * CHUNK, min(m, end * CHUNK))

        over_chunks(piece, chunk_count(m), self.workers)
        return out

    def marginals(self, log_a: Array, f: Array, next_f: Array, eps: float, rho: float) -> tuple[Array, Array]:
        lines, out = np.empty((chunk_count(len(f)), 4)), np.empty(2)
        arguments = (writable(log_a), writable(f, np.float64), writable(next_f, np.float64), 1 / eps + 1 / rho, rho)
        if not over_chunks(partial(chunks.violation, *arguments, lines, out), len(lines), self.workers):
            chunks.settle_comparison(lines, out)
        return out[0], out[1]

    def log_mass(self, log_a: Array, f: Array, rho: float) -> Array:
        lines, out = np.empty((chunk_count(len(f)), 2)), np.empty(1)
        arguments = (writable(log_a), writable(f, np.float64), rho, lines, out)
        if not over_chunks(partial(chunks.log_mass, *arguments), len(lines), self.workers):
            chunks.settle_log_mass(lines, out)
        mass: Array = out[0]
        return mass

    def directions(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> Directions:
        return Directions(b, log_b, mass, rho, self.workers, balanced=balanced)
