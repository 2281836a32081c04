"""One step at one temperature. The loop knows no more of an update than `Iteration` says.

`finish` of an `Update` returns a `Dual`: the potentials of the result and what is known about them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from epsot.costs import Array
from epsot.kernels.bursts import Rest, StopRule
from epsot.problems.problem import Problem
from epsot.solver.schedule import Level
from epsot.status import Status

PATIENCE = 8  # steps that bring nothing until rounding is taken for the reason
PLATEAU = Rest(PATIENCE, 1.0)  # where no step raises the error in exact arithmetic
HALVING = Rest(3, 0.9)  # where every step about halves it

Pair = tuple[Array, Array]
Found = TypeVar("Found")  # what an iteration returns in the end
Past = Sequence[tuple[float, Array]]  # temperatures and potentials


@dataclass(frozen=True)
class Dual:
    """Potentials, and what the update knows about their plan for free."""

    f: Array  # (n,)
    g: Array  # (m,)
    error: Array | None = None  # the marginal error of exactly this pair, 0-d
    mass: Array | None = None  # sum(P), 0-d
    f_map: Pair | None = None  # (next_f(z), z) for the z, near g, that extends f to other points; None: (f, g)
    g_map: Pair | None = None  # (next_g(z), z), likewise near f; None: (g, f)
    # of the exponents in which all but f and g were found, by the rounding of potentials; None: twice that of f and g
    logit_error: float | None = 0.0

    @property
    def T(self) -> Dual:
        """Seen from the other side."""
        return replace(self, f=self.g, g=self.f, f_map=self.g_map, g_map=self.f_map)

    def shifted(self, c: Array) -> Dual:
        """The pair (f + c, g - c)."""
        f_map = None if self.f_map is None else (self.f_map[0] + c, self.f_map[1] - c)
        g_map = None if self.g_map is None else (self.g_map[0] - c, self.g_map[1] + c)
        return replace(self, f=self.f + c, g=self.g - c, f_map=f_map, g_map=g_map)


class Iteration(ABC, Generic[Found]):
    """What the loop calls: `step`, `error`, `verdict`, `finish`.

    One that can make several steps at once offers them by `run` and `run_schedule`, which the loop calls in place of
    `step`.
    """

    @abstractmethod
    def step(self, state: Any, eps: float) -> Any:
        """One iteration: both sides are updated."""

    @abstractmethod
    def error(self, state: Any, eps: float) -> Any:
        """The marginal error, a number or 0-d, of what `finish` would return."""

    def verdict(self, state: Any, errors: Sequence[float], level: Level) -> Status | None:
        """What the errors at a level show: STALLED, only rounding is left; MAX_ITER, another descent may serve better.

        None: to go on.
        """
        return None

    @abstractmethod
    def finish(self, state: Any, eps: float) -> Found:
        """What to return."""

    def run(self, state: Any, level: Level, most: int, errors: Sequence[float]) -> tuple[Any, list[float]]:
        """One iteration or more at a level with a tolerance, and the error after each; `errors`: those before there.

        More than one, if `most` allows it, only where nothing but the last error says that it is time to stop.
        """
        state = self.step(state, level.eps)
        return state, [float(self.error(state, level.eps))]

    def run_schedule(self, state: Any, temperatures: Sequence[float]) -> Any:
        """One iteration at each temperature, without a look at errors."""
        for eps in temperatures:
            state = self.step(state, eps)
        return state

    def arrive(self, state: Any, eps: float) -> Any:
        """The state at the target after a solve was ended at another temperature, by one iteration."""
        return self.step(state, eps)


class Update(Iteration[Dual]):
    """An iteration for two potentials; `pair` is for observers."""

    @abstractmethod
    def init(self, eps: float, f: Array | None, g: Array | None, past: Past = ()) -> Any:
        """The state to start from, given earlier potentials or none; `past`: g at the ends of higher temperatures."""

    @abstractmethod
    def pair(self, state: Any) -> tuple[Array, Array]:
        """The current potentials."""


def at_rest(rest: Rest, errors: Sequence[float], problem: Problem, f: Array, g: Array, eps: float) -> Status | None:
    """STALLED where errors rest at what rounding leaves of the plan."""
    return Status.STALLED if rest.found(errors) and errors[-1] <= problem.rounding(f, g, eps) else None


@dataclass(frozen=True)
class AlternatingState:
    """f is optimal for g: the rows of their plan are exact. updated is optimal for f: it measures the columns."""

    f: Array
    g: Array
    updated: Array
    start: Array  # the g of the next step


@dataclass(frozen=True)
class Alternating(Update):
    """f <- next_f(g), g <- next_g(f): two softmins a step, the fastest plain iteration near the solution.

    What is measured is what is returned: the pair (f, g), not (f, updated), whose error nobody has seen. An unbalanced
    problem then moves along the best constant shift, so that a step is a function of g alone.
    """

    problem: Problem

    def init(self, eps: float, f: Array | None, g: Array | None, past: Past = ()) -> AlternatingState:
        zero_f, zero_g = self.problem.zeros()
        f, g = zero_f if f is None else f, zero_g if g is None else g
        return AlternatingState(f, g, g, g)

    def step(self, state: AlternatingState, eps: float) -> AlternatingState:
        problem, g = self.problem, state.start
        f = problem.next_f(g, eps, state.f)
        updated = problem.next_g(f, eps, g)
        start = updated if problem.balanced else updated - problem.dual_shift(f, updated)
        return AlternatingState(f, g, updated, start)

    def pair(self, state: AlternatingState) -> tuple[Array, Array]:
        return state.f, state.g

    def error(self, state: AlternatingState, eps: float) -> Array:
        return self.problem.b.violation(state.g, state.updated, eps)

    def verdict(self, state: AlternatingState, errors: Sequence[float], level: Level) -> Status | None:
        """In exact arithmetic no step raises the error. It may rest on a plateau, though, far above the rounding."""
        return at_rest(PLATEAU, errors, self.problem, state.f, state.g, level.eps)

    def finish(self, state: AlternatingState, eps: float) -> Dual:
        problem, xp = self.problem, self.problem.place.xp
        mass = xp.sum(problem.a.called_for(state.f))
        return Dual(state.f, state.g, self.error(state, eps), mass, g_map=(state.updated, state.f))


@dataclass(frozen=True)
class SymmetricState:
    """The averaged pair, and the step before: the pair it came from and the plain update of that."""

    f: Array
    g: Array
    past: tuple[Array, Array]
    updated: tuple[Array, Array]
    cold: bool = False  # nothing is known yet: the first step starts from the plain update of the pair


@dataclass(frozen=True)
class Symmetric(Update):
    """Both sides from the old pair, averaged with it, in one sweep; at the end one plain update (Feydy 2020, alg. 3.5).

    Slower than alternating updates near the solution, but symmetric in the two measures.
    """

    problem: Problem

    def init(self, eps: float, f: Array | None, g: Array | None, past: Past = ()) -> SymmetricState:
        if f is None or g is None:
            pair = self.problem.zeros()
            return SymmetricState(*pair, pair, pair, cold=True)
        return SymmetricState(f, g, (f, g), (f, g))

    def step(self, state: SymmetricState, eps: float) -> SymmetricState:
        past = state.f, state.g
        if state.cold:
            past = self.problem.next_pair(*past, eps)
        f, g = self.problem.next_pair(*past, eps)
        return SymmetricState((past[0] + f) / 2, (past[1] + g) / 2, past, (f, g))

    def arrive(self, state: SymmetricState, eps: float) -> SymmetricState:
        """By a step of alternating updates: means of potentials of another temperature have a plan of any mass."""
        f = self.problem.next_f(state.g, eps)
        pair = f, self.problem.next_g(f, eps)
        return SymmetricState(*pair, pair, pair)

    def run_schedule(self, state: SymmetricState, temperatures: Sequence[float]) -> SymmetricState:
        made = self.problem.in_bursts(lambda bursts: bursts.descend(state.f, state.g, state.cold, temperatures))
        if made is None:
            state = super().run_schedule(state, temperatures)
            return state
        return SymmetricState(*made)

    def pair(self, state: SymmetricState) -> tuple[Array, Array]:
        return state.f, state.g

    def error(self, state: SymmetricState, eps: float) -> Array:
        """That of the pair before the step: the best known without another sweep."""
        xp = self.problem.place.xp
        return xp.maximum(
            self.problem.a.violation(state.past[0], state.updated[0], eps),
            self.problem.b.violation(state.past[1], state.updated[1], eps),
        )

    def verdict(self, state: SymmetricState, errors: Sequence[float], level: Level) -> Status | None:
        """As for alternating updates."""
        return at_rest(PLATEAU, errors, self.problem, state.f, state.g, level.eps)

    def finish(self, state: SymmetricState, eps: float) -> Dual:
        f, g = self.problem.next_pair(state.f, state.g, eps)
        return Dual(f, g, f_map=(f, state.g), g_map=(g, state.f))


@dataclass(frozen=True)
class SelfState:
    """A potential, the plain update of it, and the mean of both, from which the next step starts."""

    f: Array
    updated: Array
    mean: Array
    cold: bool = False  # nothing is known yet: the first step starts from the plain update of `mean`


@dataclass(frozen=True)
class SelfTransport(Update):
    """f <- (f + next_f(f)) / 2 for a measure and itself: 10 to 15 sweeps to 1e-6 at any temperature.

    The kernel is positive, so the error at least halves. The measured f is returned; `extrapolate` returns a last plain
    update in its place, as the tutorial's algorithm does.
    """

    problem: Problem
    extrapolate: bool = False

    def init(self, eps: float, f: Array | None, g: Array | None, past: Past = ()) -> SelfState:
        cold = f is None
        f = self.problem.place.xp.zeros_like(self.problem.a.weights) if f is None else f
        return SelfState(f, f, f, cold)

    def step(self, state: SelfState, eps: float) -> SelfState:
        f = self.problem.next_self(state.mean, eps) if state.cold else state.mean
        updated = self.problem.next_self(f, eps, f)
        return SelfState(f, updated, (f + updated) / 2)

    def run(self, state: SelfState, level: Level, most: int, errors: Sequence[float]) -> tuple[SelfState, list[float]]:
        if most == 1 or level.tol is None:
            return super().run(state, level, most, errors)
        terms = StopRule(level.eps, most, level.tol, HALVING, HALVING, level.give_up_above, errors)
        made = self.problem.in_bursts(lambda bursts: bursts.average(state.mean, state.cold, terms))
        if made is None:
            return super().run(state, level, most, errors)
        return SelfState(*made[:3]), made.errors

    def run_schedule(self, state: SelfState, temperatures: Sequence[float]) -> SelfState:
        made = self.problem.in_bursts(lambda bursts: bursts.descend_self(state.mean, state.cold, temperatures))
        if made is None:
            state = super().run_schedule(state, temperatures)
            return state
        return SelfState(*made[:3])

    def pair(self, state: SelfState) -> tuple[Array, Array]:
        return state.f, state.f

    def error(self, state: SelfState, eps: float) -> Array:
        return self.problem.a.violation(state.f, state.updated, eps)

    def verdict(self, state: SelfState, errors: Sequence[float], level: Level) -> Status | None:
        """In exact arithmetic every step about halves the error."""
        return at_rest(HALVING, errors, self.problem, state.f, state.f, level.eps)

    def finish(self, state: SelfState, eps: float) -> Dual:
        if self.extrapolate:
            f = self.problem.next_self(state.mean, eps)
            return Dual(f, f, f_map=(f, state.mean), g_map=(f, state.mean))
        extension = (state.updated, state.f)
        return Dual(state.f, state.f, *self.problem.a.marginals(state.f, state.updated, eps), extension, extension)
