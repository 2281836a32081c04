"""Many problems in one call: what a backend that solves them is given, and what it gives back.

All items of a batch lie one after the other in flat arrays. `first` and `sizes` say where an item has its points,
weights and potentials; items may share points, or weights. Each is solved on its own, with the schedule, the tolerance
and the decisions of a single call.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from epsot.costs import Array

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

UNSETTLED = -1  # the status of an item that the solver of a single problem has to look at


class Layout(NamedTuple):
    """Where the items of one side lie."""

    points: Integers  # (B,) the first point of each
    weights: Integers  # (B,) the first weight
    values: Integers  # (B,) the first number of a potential
    sizes: Integers  # (B,)

    @property
    def total(self) -> int:
        """The length of a potential of all items."""
        return int(self.values[-1] + self.sizes[-1]) if len(self.sizes) else 0

    def of(self, k: int) -> slice:
        """Where the potential of an item is."""
        first = int(self.values[k])
        return slice(first, first + int(self.sizes[k]))


class Asked(NamedTuple):
    """What is asked of all items."""

    degree: float  # of the cost
    scaling: float
    tol: float | None
    max_iter: int
    fixed: bool  # whether annealing starts where it is said to; at the scale of what has weight, if not
    slopes: bool = False  # whether slopes may be asked for: where they cost little the solves leave them


class Warm(NamedTuple):
    """Potentials to start from, which lie as those of the result do."""

    known: NDArray[np.bool_]  # (B,) which items have any
    f: Array
    g: Array
    eps: Floats  # (B,) of which temperature they are


class Rules(NamedTuple):
    """What the solver decides by: the constants of its modules."""

    patience: int
    still_steps: int
    still_factor: float
    slow_steps: int
    slow_factor: float
    halving_steps: int
    halving_factor: float
    long: int
    tied: float
    least: float
    quick: float
    thorough: float
    level_steps: int
    ulps: float
    precision: float  # of the sums: half a unit in the last place of 1
    unresolved: float  # error of exponents from which sums of exponentials prove nothing


class Solved(NamedTuple):
    """Where the items have ended; potentials are flat. What an unsettled item has left is nothing."""

    f: Array
    g: Array
    f_more: Array  # of one measure next_f(f); of a schedule run once the f that the last update came from
    g_more: Array  # next_g(f), or that g
    status: Integers
    nit: Integers
    error: Floats
    logit_error: Floats  # of the exponents in which all but f and g were found, by the rounding of potentials
    mass: Floats  # of the plan
    value: Floats
    start: Floats  # where annealing has started
    first: Integers  # (B,) where an item has the first of the next two
    errors: Floats  # of each iteration to a tolerance
    temperatures: Floats
    f_slope: Array | None = None  # -displacement of every point of both sides, where the solves have left them
    g_slope: Array | None = None


class WholeSolve(Protocol):
    """What makes whole solves, of many problems or of one."""

    rows: Layout
    columns: Layout

    def solve(
        self, asked: Asked, start: Floats, rules: Rules, warm: Warm | None = None, *, own: bool = False
    ) -> Solved:
        """All items but those with a start of inf; `own`: each first measure with itself."""
