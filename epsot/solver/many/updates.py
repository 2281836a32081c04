"""Averaged updates of many problems: `Symmetric` and `SelfTransport` with a batch axis, and what the loop calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from epsot.arrays import to_numpy
from epsot.costs import Array
from epsot.kernels.item_bursts import Measured
from epsot.problems.many import Problems, merged
from epsot.solver.many.courses import GO_ON, Courses, Levels
from epsot.solver.updates import HALVING, Pair
from epsot.status import Status


class Duals(NamedTuple):
    """`Dual` of many problems, arrays (B, n) and (B, m); zero where there is no weight."""

    f: Array
    g: Array
    f_map: Pair | None = None
    g_map: Pair | None = None
    mass: Array | None = None  # (B,) sum P


class Update(ABC):
    """What the loop calls. A state is a tuple of arrays with a batch axis, of the host or of the device, or of tuples.

    Temperatures come as NumPy arrays (B,). What a step leaves for decisions is on the host when it returns.
    """

    @abstractmethod
    def init(self, problems: Problems, eps: np.ndarray, f: Array | None, g: Array | None, warm: np.ndarray) -> Any:
        """The state to start from, given earlier potentials or none; `warm`: the problems that these belong to."""

    @abstractmethod
    def step(self, problems: Problems, state: Any, eps: np.ndarray) -> Any:
        """One iteration of all problems."""

    @abstractmethod
    def errors(self, problems: Problems, state: Any, eps: np.ndarray) -> np.ndarray:
        """The marginal errors after a step.  -> (B,)"""

    def one(self, problems: Problems, state: Any, levels: Levels) -> tuple[Any, Measured]:
        """One iteration of the problems that have any left, at levels with tolerances, and their errors."""
        state = self.step(problems, state, levels.eps)
        return state, Measured(self.errors(problems, state, levels.eps)[:, None], np.minimum(levels.left, 1))

    def run(self, problems: Problems, state: Any, levels: Levels) -> tuple[Any, Measured]:
        """The same, or more than one where nothing but the last error says that it is time to stop."""
        return self.one(problems, state, levels)

    def verdict(self, problems: Problems, state: Any, courses: Courses, ids: np.ndarray) -> np.ndarray:
        """What the errors at their levels show of the problems, those of the courses with these numbers.  -> (B,)"""
        return np.full(len(ids), GO_ON)

    def arrive(self, problems: Problems, state: Any, eps: np.ndarray) -> Any:
        """The state at the targets after solves were ended at other temperatures."""
        return self.step(problems, state, eps)

    @abstractmethod
    def pair(self, state: Any) -> Pair:
        """The current potentials."""

    @abstractmethod
    def kept(self, problems: Problems, state: Any, eps: np.ndarray) -> tuple[tuple[Array, ...], np.ndarray]:
        """What is needed of a state at its targets for `finish`, and its errors, NaN where there are none."""

    @abstractmethod
    def finish(self, problems: Problems, kept: tuple[Array, ...], eps: Array) -> Duals:
        """The pairs to return."""


def begun(problems: Problems, f: Array | None, g: Array | None, warm: np.ndarray) -> Pair:
    """Potentials to start from: those given where they belong to a problem, zeros elsewhere."""
    zeros = problems.zeros()
    given = zeros[0] if f is None else problems.a.counted(f), zeros[1] if g is None else problems.b.counted(g)
    return merged(warm, given, zeros, problems.place)


class SymmetricState(NamedTuple):
    f: Array
    g: Array
    past: Pair
    updated: Pair
    cold: np.ndarray  # of which problems nothing is known yet


@dataclass(frozen=True)
class Symmetric(Update):
    """Both sides from the old pair, averaged with it; at the end one plain update. For schedules without tolerances."""

    def init(
        self, problems: Problems, eps: np.ndarray, f: Array | None, g: Array | None, warm: np.ndarray
    ) -> SymmetricState:
        warm = warm & (f is not None) & (g is not None)
        pair = begun(problems, f, g, warm)
        return SymmetricState(*pair, pair, pair, ~warm)

    def step(self, problems: Problems, state: SymmetricState, eps: np.ndarray) -> SymmetricState:
        cold, past = problems.a.on_device(eps), (state.f, state.g)
        if state.cold.any():
            past = merged(state.cold, problems.next_pair(*past, cold), past, problems.place)
        f, g = problems.next_pair(*past, cold)
        return SymmetricState((past[0] + f) / 2, (past[1] + g) / 2, past, (f, g), np.zeros_like(state.cold))

    def arrive(self, problems: Problems, state: SymmetricState, eps: np.ndarray) -> SymmetricState:
        """By a step of alternating updates: means of potentials of another temperature have a plan of any mass."""
        cold = problems.a.on_device(eps)
        f = problems.next_f(state.g, cold)
        pair = f, problems.next_g(f, cold)
        return SymmetricState(*pair, pair, pair, np.zeros_like(state.cold))

    def errors(self, problems: Problems, state: SymmetricState, eps: np.ndarray) -> np.ndarray:
        """Those of the pairs before the step: the best known without another sweep."""
        cold, xp = problems.a.on_device(eps), problems.place.xp
        first = problems.a.violation(state.past[0], state.updated[0], cold)
        return to_numpy(xp.maximum(first, problems.b.violation(state.past[1], state.updated[1], cold)))

    def pair(self, state: SymmetricState) -> Pair:
        return state.f, state.g

    def kept(self, problems: Problems, state: SymmetricState, eps: np.ndarray) -> tuple[tuple[Array, ...], np.ndarray]:
        return (state.f, state.g), np.full(problems.count, np.nan)

    def finish(self, problems: Problems, kept: tuple[Array, ...], eps: Array) -> Duals:
        f, g = problems.next_pair(kept[0], kept[1], eps)
        return Duals(f, g, f_map=(f, kept[1]), g_map=(g, kept[0]))


class SelfState(NamedTuple):
    f: Array
    updated: Array
    mean: Array
    cold: np.ndarray
    error: np.ndarray  # NaN where it is not asked for


@dataclass(frozen=True)
class SelfTransport(Update):
    """f <- (f + next_f(f)) / 2 for measures and themselves; `extrapolate` returns a last plain update."""

    extrapolate: bool = False

    def init(
        self, problems: Problems, eps: np.ndarray, f: Array | None, g: Array | None, warm: np.ndarray
    ) -> SelfState:
        warm = warm & (f is not None)
        start = begun(problems, f, f, warm)[0]
        return SelfState(start, start, start, ~warm, np.full(problems.count, np.nan))

    def step(self, problems: Problems, state: SelfState, eps: np.ndarray) -> SelfState:
        f, cold = state.mean, problems.a.on_device(eps)
        if state.cold.any():
            f = merged(state.cold, problems.next_f(f, cold), f, problems.place)
        updated = problems.next_f(f, cold)
        state = SelfState(f, updated, (f + updated) / 2, np.zeros_like(state.cold), state.error)
        return state if self.extrapolate else state._replace(error=self.errors(problems, state, eps))

    def run(self, problems: Problems, state: SelfState, levels: Levels) -> tuple[SelfState, Measured]:
        bursts = problems.bursts
        if bursts is None:
            return self.one(problems, state, levels)
        rules = levels.rules(levels.left, HALVING, HALVING)
        f, updated, mean, measured = bursts.average(state.f, state.updated, state.mean, state.cold, rules)
        made = measured.made
        error = np.where(made, measured.last, state.error)
        return SelfState(f, updated, mean, state.cold & ~made, error), measured

    def errors(self, problems: Problems, state: SelfState, eps: np.ndarray) -> np.ndarray:
        return to_numpy(problems.a.violation(state.f, state.updated, problems.a.on_device(eps)))

    def verdict(self, problems: Problems, state: SelfState, courses: Courses, ids: np.ndarray) -> np.ndarray:
        """In exact arithmetic every step about halves the error."""
        resting = courses.found(HALVING, ids)
        if resting.any():
            resting &= courses.errors[ids, -1] <= problems.rounding(state.f, state.f, courses.eps[ids])
        return np.where(resting, int(Status.STALLED), GO_ON)

    def pair(self, state: SelfState) -> Pair:
        return state.f, state.f

    def kept(self, problems: Problems, state: SelfState, eps: np.ndarray) -> tuple[tuple[Array, ...], np.ndarray]:
        return ((state.mean,) if self.extrapolate else (state.f, state.updated)), state.error

    def finish(self, problems: Problems, kept: tuple[Array, ...], eps: Array) -> Duals:
        if self.extrapolate:
            f = problems.next_f(kept[0], eps)
            return Duals(f, f, (f, kept[0]), (f, kept[0]))
        f, updated = kept
        return Duals(f, f, (updated, f), (updated, f), problems.a.marginals(f, updated, eps)[1])
