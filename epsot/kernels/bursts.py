"""Many steps at one temperature, asked for at once: the contract.

Between two sweeps the solver reads a number and decides. Where sweeps are short, on a GPU, that is what takes the time.
A backend may therefore make many steps of the usual kind on its own. It stops where the solver would decide something
else: at the tolerance, where errors rest, where mixing brings nothing. What follows is the solver's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from epsot.costs import Array


class Refused(RuntimeError):
    """The device did not start a burst. Nothing has changed: the same steps can be made one by one."""


class Rest(NamedTuple):
    """Errors that rest: none of the last `steps` is below `factor` times the one before them."""

    steps: int
    factor: float

    def found(self, errors: Sequence[float]) -> bool:
        return len(errors) > self.steps and min(errors[-self.steps :]) >= self.factor * errors[-self.steps - 1]


class StopRule(NamedTuple):
    """At which temperature steps are made, and after which of them the solver has to look."""

    eps: float
    steps: int  # the last
    tol: float  # one with such an error, or less
    still: Rest  # errors at rest
    slow: Rest  # and these, where they are above `give_up_above`
    give_up_above: float
    errors: Sequence[float]  # at this temperature so far


class Marginal(Protocol):
    """What is read of one side of a problem."""

    @property
    def log_weights(self) -> Array: ...
    @property
    def weights(self) -> Array: ...
    @property
    def mass(self) -> float: ...
    @property
    def rho(self) -> float: ...


class Iterate(NamedTuple):
    """A plain alternating step: f = next_f(g), updated = next_g(f), and result, that along the best constant shift."""

    f: Array
    g: Array
    updated: Array
    result: Array


class Progress(NamedTuple):
    """The lowest error and the lowest norm of a residual so far, and the steps since the last that lowered either."""

    error: float
    norm: float
    waited: int


class Iterates(NamedTuple):
    """Where accelerated alternating steps have led."""

    last: Iterate
    best: Iterate | None  # of these, if it has a lower error than those before
    start: Array  # the g from which to go on
    errors: list[float]  # of each
    record: Progress
    retreats: bool  # mixing has brought nothing for too long


class Averages(NamedTuple):
    """Where averaged steps of a self-transport have led: the last f, next_f(f), and the mean of both."""

    f: Array
    updated: Array
    mean: Array
    errors: list[float]  # of each


class Descent(NamedTuple):
    """Where averaged steps of both sides, one at each of some temperatures, have led; `past` is the pair before."""

    f: Array
    g: Array
    past: tuple[Array, Array]
    updated: tuple[Array, Array]


class Bursts(Protocol):
    """What makes many steps of one problem."""

    def alternate(
        self, directions: Any, f: Array, start: Array, record: Progress, patience: int, terms: StopRule
    ) -> Iterates:
        """Steps from `start`, f being the last f, mixed with the `directions`, which go along; to wait: `patience`."""

    def average(self, mean: Array, fresh: bool, terms: StopRule) -> Averages:
        """Steps of the first measure with itself from `mean`, or if it is no more than a guess, from its update."""

    def descend(self, f: Array, g: Array, fresh: bool, temperatures: Sequence[float]) -> Descent:
        """A step at each temperature, both sides from the old pair, without a look at errors; `fresh` as above."""

    def descend_self(self, mean: Array, fresh: bool, temperatures: Sequence[float]) -> Averages:
        """The same of the first measure with itself; no errors."""
