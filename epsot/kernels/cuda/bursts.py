"""Many steps in one launch: `epsot.kernels.bursts` for problems so small that launches would take longer than sums."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from epsot.costs import Array
from epsot.kernels.bursts import Averages, Descent, Iterate, Iterates, Marginal, Progress, StopRule
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.modules import launch_together
from epsot.kernels.cuda.shapes import BURST_THREADS
from epsot.kernels.cuda.vectors import MARGINALS, ROWS, SUMS, VALUES, Directions
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, LONGEST
from epsot.lazy import cached_property

LOG2_E = math.log2(math.e)
MATRIX = 3  # the kind of a stored cost, as in burst.cu
ALTERNATE_HEAD, AVERAGE_HEAD = 11, 3  # numbers before the errors
STAGES = 4  # of a step, at the end of which blocks leave VALUES numbers each
RETREATED = 2


class Fields:
    """A struct of burst.cu: numbers of 64 bits, then of float64, then of 32 bits.

    CuPy passes an array of one entry by value, and a struct of 34 numbers in 9 microseconds; one by one they take 22,
    and 50 as a structured array, whose fields it would describe anew at each launch.
    """

    def __init__(self, integers: str, numbers: str, small: str) -> None:
        kinds = (("q", integers.split()), ("d", numbers.split()), ("i", small.split()))
        self.names = [name for _, names in kinds for name in names]
        self.layout = struct.Struct("@" + "".join(kind * len(names) for kind, names in kinds) + "0q")
        self.dtype = np.dtype((np.void, self.layout.size))
        self.columns = np.dtype([(name, f"{kind}") for kind, names in kinds for name in names], align=True)

    def __call__(self, **values: float) -> np.ndarray:
        """The struct as one argument of a launch."""
        return np.frombuffer(self.layout.pack(*map(values.__getitem__, self.names)), self.dtype)


ALTERNATE_FIELDS = (
    "n m d down right",
    "scale eps rho_a rho_b mass size expected lowest_error lowest_norm "
    "bent dependent leap longest tol restless still_factor slow_factor",
    "balanced eased moved directions slot waited patience shares steps still slow known",
)
AVERAGE_FIELDS = ("n d down right", "scale eps rho tol still_factor", "fresh shares steps still known")
ALTERNATE, AVERAGE = Fields(*ALTERNATE_FIELDS), Fields(*AVERAGE_FIELDS)
DESCEND = Fields("n m d down right", "factor rho_a rho_b", "own fresh steps")


class Pairs(NamedTuple):
    """What the kernels read of a cost: two clouds in float64, or one matrix as it is, with its strides."""

    x: Array
    y: Array
    real: str  # the C++ type of the exponentials
    place: str  # and of the coordinates or entries
    kind: int
    factor: float
    n: int
    m: int
    d: int
    down: int = 0
    right: int = 0

    @property
    def name(self) -> str:
        """The form, as C++."""
        return pairs_name(self.real, self.kind, self.d, self.place)

    def scale(self, eps: float) -> float:
        return LOG2_E * self.factor / eps

    @property
    def sizes(self) -> dict[str, int]:
        """What every kernel is told."""
        return {"n": self.n, "m": self.m, "d": self.d, "down": self.down, "right": self.right}


def pairs_name(real: str, kind: int, d: int, place: str = "double") -> str:
    """The form of `d` coordinates, as C++: those of the plane and of space have kernels of their own."""
    return f"Pairs<{real}, {kind}, {d if d in (2, 3) else 0}, {place}>"


class Bursts:
    """Many steps for one problem on one device, and one stream at a time: all launches count with `arrived`."""

    def __init__(self, pairs: Pairs, blocks: int, a: Marginal, b: Marginal) -> None:
        self.pairs, self.blocks, self.a, self.b = pairs, blocks, a, b

    @property
    def cupy(self) -> Any:
        """The library. Not kept: modules cannot be pickled, nor copied."""
        import cupy

        return cupy

    @cached_property
    def arrived(self) -> Array:
        """Where blocks count each other: zero, or 2^31."""
        return self.cupy.zeros(1, dtype=np.uint32)

    def numbers(self, head: int, terms: StopRule) -> tuple[Array, int, int]:
        """Numbers with the last errors in place, how many of these, and the steps to make."""
        last = terms.errors[-max(terms.still.steps, terms.slow.steps) :]
        steps = min(terms.steps, shapes.BURST_STEPS)
        numbers = self.cupy.empty(head + len(last) + steps, dtype=np.float64)
        if len(last):
            numbers[head : head + len(last)] = self.cupy.asarray(np.array(last))
        return numbers, len(last), steps

    def alternate(
        self, directions: Directions, f: Array, start: Array, record: Progress, patience: int, terms: StopRule
    ) -> Iterates:
        cupy, pairs, balanced = self.cupy, self.pairs, directions.balanced
        n, m = pairs.n, pairs.m
        shares = shapes.burst_shares(m, self.blocks)
        numbers, known, steps = self.numbers(ALTERNATE_HEAD, terms)
        part = n + 3 * m
        work = cupy.empty(2 * part + 6 * m + n + STAGES * shares * VALUES, dtype=np.float64)
        moved, eased = directions.past is not None, directions.scale is not None
        told = ALTERNATE(
            **pairs.sizes, scale=pairs.scale(terms.eps), eps=terms.eps, rho_a=self.a.rho, rho_b=self.b.rho,
            mass=self.b.mass, size=directions.size, expected=directions.expected, lowest_error=record.error,
            lowest_norm=record.norm, bent=BENT, dependent=DEPENDENT, leap=LEAP, longest=LONGEST, tol=terms.tol,
            restless=terms.give_up_above, still_factor=terms.still.factor, slow_factor=terms.slow.factor,
            balanced=balanced, eased=eased, moved=moved, directions=directions.count, slot=directions.slot,
            waited=record.waited, patience=patience, shares=shares, steps=steps, still=terms.still.steps,
            slow=terms.slow.steps, known=known,
        )  # fmt: skip
        arguments = (
            pairs.x, pairs.y, self.a.log_weights, self.b.log_weights, self.b.weights,
            directions.weights, directions.scale if eased else self.b.weights,
            cupy.ascontiguousarray(f), cupy.ascontiguousarray(start), directions.past if moved else work,
            directions.moves, directions.changes, work, numbers, self.arrived, told,
        )  # fmt: skip
        launch_together(cupy, f"alternate<{pairs.name}, {ROWS}>", self.blocks, BURST_THREADS, arguments)
        made, verdict, size, expected, count, slot, error, norm, waited, last, best, *errors = numbers.get().tolist()
        made, begin = int(made), 2 * part + m + (int(made) - 1) % 2 * 2 * m
        directions.resume(int(count), int(slot), work[begin : begin + 2 * m], size, expected)

        def alternation(number: int) -> Iterate:
            z = work[number * part : (number + 1) * part]
            updated = z[n + m : n + 2 * m]
            return Iterate(z[:n], z[n : n + m], updated, updated if balanced else z[n + 2 * m :])

        return Iterates(
            alternation(int(last)), alternation(int(best)) if best >= 0 else None,
            work[2 * part : 2 * part + m], errors[known : known + made],
            Progress(error, norm, int(waited)), verdict == RETREATED,
        )  # fmt: skip

    def average(self, mean: Array, fresh: bool, terms: StopRule) -> Averages:
        cupy, pairs, n = self.cupy, self.pairs, self.pairs.n
        shares = shapes.burst_shares(n, self.blocks)
        numbers, known, steps = self.numbers(AVERAGE_HEAD, terms)
        work = cupy.empty(5 * n + SUMS * MARGINALS * shares, dtype=np.float64)
        told = AVERAGE(
            **pairs.sizes, scale=pairs.scale(terms.eps), eps=terms.eps, rho=self.a.rho, tol=terms.tol,
            still_factor=terms.still.factor, fresh=fresh, shares=shares, steps=steps,
            still=terms.still.steps, known=known,
        )  # fmt: skip
        arguments = (
            pairs.x, self.a.log_weights, cupy.ascontiguousarray(mean), work, numbers, self.arrived, told,
        )  # fmt: skip
        launch_together(cupy, f"average<{pairs.name}>", self.blocks, BURST_THREADS, arguments)
        made, last, _, *errors = numbers.get().tolist()
        means: Sequence[Array] = (work[:n], work[n : 2 * n])
        return Averages(means[int(last)], work[2 * n : 3 * n], means[1 - int(last)], errors[known : known + int(made)])

    def descend(self, f: Array, g: Array, fresh: bool, temperatures: Sequence[float]) -> Descent:
        n = self.pairs.n
        past, (updated, last) = self.steps(f, g, fresh, temperatures, own=False)
        return Descent(last[:n], last[n:], (past[:n], past[n:]), (updated[:n], updated[n:]))

    def descend_self(self, mean: Array, fresh: bool, temperatures: Sequence[float]) -> Averages:
        n = self.pairs.n
        past, (updated, last) = self.steps(mean, mean, fresh, temperatures, own=True)
        return Averages(past[:n], updated[:n], last[:n], [])

    def steps(
        self, f: Array, g: Array, fresh: bool, temperatures: Sequence[float], *, own: bool
    ) -> tuple[Array, tuple[Array, Array]]:
        """The pair before the last of these steps, and its update and mean, each (n + m,)."""
        cupy, pairs = self.cupy, self.pairs
        b, m = (self.a, pairs.n) if own else (self.b, pairs.m)
        part = pairs.n + m
        eps = cupy.asarray(np.array(temperatures))
        for begin in range(0, len(temperatures), shapes.BURST_STEPS):
            some = eps[begin : begin + shapes.BURST_STEPS]
            work = cupy.empty(5 * part, dtype=np.float64)
            told = DESCEND(
                **{**pairs.sizes, "m": m}, factor=pairs.factor, rho_a=self.a.rho, rho_b=b.rho, own=own,
                fresh=fresh and begin == 0, steps=some.shape[0],
            )  # fmt: skip
            arguments = (
                pairs.x, pairs.x if own else pairs.y, self.a.log_weights, b.log_weights,
                cupy.ascontiguousarray(f), cupy.ascontiguousarray(g), some, work, self.arrived, told,
            )  # fmt: skip
            launch_together(cupy, f"descend<{pairs.name}>", self.blocks, BURST_THREADS, arguments)
            pair = [work[:part], work[part : 2 * part]]
            past, last = pair if some.shape[0] % 2 else pair[::-1]
            f, g = last[: pairs.n], last[pairs.n :]
        return past, (work[4 * part :], last)
