"""What happens to vectors between two sweeps, fused: a launch each, or one for every stage where vectors are long."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.kernels import vectors
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.modules import launch
from epsot.kernels.cuda.shapes import PLAIN_THREADS, VECTOR_THREADS
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, LONGEST, WINDOW, MixedStep

ROWS = WINDOW + 1  # where the next direction goes no other lies, so that it can be given up
VALUES = 1 + 2 * ROWS  # of a stage of `advance`
SUMS, MARGINALS = 2, 3  # stages of `violation`, and values of each
ADVANCE = f"advance<{VECTOR_THREADS}, {ROWS}>"
LIMITS = tuple(map(np.float64, (BENT, DEPENDENT, LEAP, LONGEST)))


def staged(cupy: Any, name: str, n: int, stages: int, values: int, arguments: tuple[Any, ...]) -> None:
    """Launch a kernel that goes in stages, each of which leaves `values` numbers a block to the next."""
    blocks = shapes.vector_blocks(n)
    partial = cupy.empty(stages * blocks * values, dtype=np.float64)
    steps = [(0, stages)] if blocks == 1 else [(stage, stage + 1) for stage in range(stages)]
    for first, last in steps:
        launch(cupy, name, (blocks,), VECTOR_THREADS, (*arguments, partial, np.int32(first), np.int32(last)))


class Directions(vectors.Directions):
    """`vectors.Directions` whose numbers stay on the device until a step is done: the host reads them once."""

    rows = ROWS

    def __init__(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> None:
        super().__init__(b, log_b, mass, rho, balanced=balanced)
        self.side = (np.float64(rho), np.float64(mass), np.int32(balanced))

    def keep(self, window: int) -> None:
        """As many as ever: their number is that of the compiled code."""

    def forget(self) -> None:
        super().forget()
        self.slot = 0  # where the next direction goes
        self.kept: list[int] = []  # 2^slot of those that count, the oldest first

    def resume(self, count: int, slot: int, past: Array, size: float, expected: float) -> None:
        """Go on after steps that were made elsewhere, with what they have left in `moves` and `changes`."""
        self.kept = [1 << (slot - back) % ROWS for back in range(count, 0, -1)]
        self.count, self.slot, self.past, self.size, self.expected = count, slot, past, size, expected

    def advance(self, g: Array, updated: Array, result: Array, eps: float) -> MixedStep:
        import cupy

        m, moved, eased = g.shape[0], self.past is not None, self.scale is not None
        g, updated, result = (cupy.ascontiguousarray(z) for z in (g, updated, result))
        pair, start, numbers = (cupy.empty(size, dtype=np.float64) for size in (2 * m, m, 5))
        oldest = self.kept[0] if self.count == WINDOW else 0
        arguments = (
            self.b, self.log_b, self.weights, self.scale if eased else self.b, g, updated, result,
            self.past if moved else pair, self.moves, self.changes,
            np.int64(m), np.float64(eps), np.float64(1 / eps + 1 / self.rho), *self.side, np.int32(eased),
            np.int32(moved), np.int32(sum(self.kept)), np.int32(oldest), np.int32(self.slot),
            np.float64(self.size), np.float64(self.expected), *LIMITS, pair, start, numbers,
        )  # fmt: skip
        staged(cupy, ADVANCE, m, 5, VALUES, arguments)
        error, self.size, self.expected, misled, gained = numbers.get().tolist()
        if misled:
            self.kept = []
        if gained:
            self.kept = [*self.kept, 1 << self.slot][-WINDOW:]
            self.slot = (self.slot + 1) % ROWS
        self.count, self.past = len(self.kept), pair
        return MixedStep(start, error, self.size)


class Vectors(vectors.Vectors):
    """`vectors.Vectors` for CuPy arrays in float64."""

    def density(self, log_b: Array, g: Array, eps: float) -> Array:
        import cupy

        m = g.shape[0]
        out = cupy.empty(m, dtype=np.float64)
        arguments = (log_b, cupy.ascontiguousarray(g), np.int64(m), np.float64(eps), out)
        launch(cupy, f"density<{PLAIN_THREADS}>", (shapes.plain_blocks(m),), PLAIN_THREADS, arguments)
        return out

    def marginals(self, log_a: Array, f: Array, next_f: Array, eps: float, rho: float) -> tuple[Array, Array]:
        import cupy

        n, out = f.shape[0], cupy.empty(2, dtype=np.float64)
        f, next_f = cupy.ascontiguousarray(f), cupy.ascontiguousarray(next_f)
        numbers = (np.int64(n), np.float64(1 / eps + 1 / rho), np.float64(rho))
        staged(cupy, f"violation<{VECTOR_THREADS}>", n, SUMS + 1, MARGINALS, (log_a, f, next_f, *numbers, out))
        return out[0], out[1]

    def log_mass(self, log_a: Array, f: Array, rho: float) -> Array:
        import cupy

        n, out = f.shape[0], cupy.empty((), dtype=np.float64)
        arguments = (log_a, cupy.ascontiguousarray(f), np.int64(n), np.float64(rho), out)
        staged(cupy, f"log_mass<{VECTOR_THREADS}>", n, 3, 1, arguments)
        return out

    def directions(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> Directions:
        return Directions(b, log_b, mass, rho, balanced=balanced)
