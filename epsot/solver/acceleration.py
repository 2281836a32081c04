"""Conjugate residuals and extrapolation in the temperature, as a wrapper around a plain update.

Neither the loop nor the update knows of it. Neither can lose accuracy: every pair is measured before it is returned,
whatever vector it was computed from. They can lose time; the safeguards below bound how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from epsot.costs import Array
from epsot.kernels.bursts import Iterates, Progress, Rest, StopRule
from epsot.kernels.vectors import Directions, MixedStep
from epsot.solver.schedule import Level
from epsot.solver.updates import PATIENCE, Alternating, AlternatingState, Dual, Found, Iteration, Past, Update
from epsot.status import Status

STILL = Rest(PATIENCE, 0.9)  # where only rounding can be the reason
SLOW = Rest(16, 0.7)  # steps that should have lowered the error by three tenths, or there may be a better way
LONG = 20  # steps at one temperature until single points are suspected; again after three times as many
TIED = 0.02  # a column that keeps all but this part of its mass to one row converges at a rate of its own
LEAST = 0.1  # the residual of such a column is divided by its part that leaves, over TIED, or by this if that is less
LARGE = 1e8  # costs over a temperature, or a temperature over the costs, from which constants may hide potentials


@dataclass(frozen=True)
class AcceleratedState:
    """The last plain step, and what was learned at this temperature and before.

    The `directions` are memory that each step changes in place: from an earlier state one can go on plainly, not mixed.
    """

    plain: Any  # that of the plain update, with a `start`: from where the next step goes on
    directions: Directions
    eps: float
    steps: int = 0  # at this temperature
    error: float = math.inf  # marginal error of the pair of `plain`
    best: Any = None  # the step of the lowest error at this temperature
    lowest: tuple[float, float] = (math.inf, math.inf)  # that error, and the lowest norm of a residual
    without_progress: int = 0  # mixed steps that lowered neither
    plain_steps: int = 0  # steps of the plain series under way, 0: mixing
    plain_length: int = 2 * PATIENCE  # of the next plain series
    next_check: int = LONG  # step at which the columns are looked at
    levels: tuple[tuple[float, Array], ...] = ()  # (eps, g) at the end of the last two temperatures
    coldest: tuple[float, float, Any] | None = None  # eps, error and step of the best before a reheating


@dataclass(frozen=True)
class Mixing(Iteration[Found]):
    """Mixes the last plain steps so that the residual is smallest, as if the step were linear.

    Truncated generalised conjugate residuals for a nonlinear map (He, Tang, Zhao, Saad and Xi 2024, nlTGCR), a variant
    of Anderson's mixing whose directions are kept orthogonal.

    There is no proof that this converges. Where PATIENCE mixed steps bring nothing, plain ones go on from the best
    point, in series that double in length: the worst case is near that of plain steps.
    """

    update: Iteration[Found]

    @staticmethod
    def measured(state: AcceleratedState, plain: Any, error: float) -> AcceleratedState:
        """After one more plain step, which may be the best yet."""
        best, lowest, waited = state.best, state.lowest, state.without_progress
        if error < lowest[0]:
            best, lowest, waited = plain, (error, lowest[1]), -1
        steps = state.steps + 1
        return replace(state, plain=plain, steps=steps, error=error, best=best, lowest=lowest, without_progress=waited)

    def mixed(self, state: AcceleratedState, advance: MixedStep) -> AcceleratedState:
        """Go on from the mix of the last steps, or where they brought nothing, from the best with plain ones."""
        lowest = state.lowest
        waited = 0 if advance.norm < lowest[1] else state.without_progress + 1
        if waited >= PATIENCE:
            return self.restart_plain(state)
        start = replace(state.plain, start=advance.start)
        return replace(state, plain=start, without_progress=waited, lowest=(lowest[0], min(advance.norm, lowest[1])))

    def after_plain(self, state: AcceleratedState, plain: Any, error: float) -> AcceleratedState:
        """After one more step of a plain series."""
        state = self.measured(state, plain, error)
        return replace(state, without_progress=0, plain_steps=(state.plain_steps + 1) % (state.plain_length // 2 + 1))

    def restart_plain(self, state: AcceleratedState) -> AcceleratedState:
        """Go on from the best point, with a series of plain steps."""
        state.directions.rescale(None)
        plain = state.plain if state.best is None else state.best
        lowest = (state.lowest[0], math.inf)
        return replace(
            state, plain=plain, lowest=lowest, without_progress=0, plain_steps=1, plain_length=2 * state.plain_length
        )

    def error(self, state: AcceleratedState, eps: float) -> Any:
        return state.error


@dataclass(frozen=True)
class ConjugateResiduals(Mixing[Dual], Update):
    """Mixes alternating steps. Their derivative is symmetric in the weights of the columns.

    Near the solution the short memory therefore serves as a full one: every step does as much as one of MINRES for the
    Newton equation, with nothing to restart. Plain steps never raise the error. At a lower temperature the potential is
    first extrapolated linearly in eps from the two before.
    """

    update: Alternating

    def init(self, eps: float, f: Array | None, g: Array | None, past: Past = ()) -> AcceleratedState:
        plain = self.update.init(eps, f, g)
        return AcceleratedState(plain, self.update.problem.directions(), eps, levels=tuple(past))

    def step(self, state: AcceleratedState, eps: float) -> AcceleratedState:
        if eps != state.eps:
            state = self.new_level(state, eps)
        plain = self.update.step(state.plain, eps)
        if state.plain_steps:
            return self.after_plain(state, plain, float(self.update.error(plain, eps)))
        if state.steps + 1 == state.next_check:
            state = self.check_columns(state, plain)
        # Whatever its error will turn out to be, the step is mixed with the last ones: that is one reading for both.
        advance = state.directions.advance(plain.g, plain.updated, plain.start, eps)
        state = self.measured(state, plain, advance.error)
        return self.mixed(state, advance) if math.isfinite(advance.error) else state

    def run(
        self, state: AcceleratedState, level: Level, most: int, errors: Sequence[float]
    ) -> tuple[AcceleratedState, list[float]]:
        """Several mixed steps at once where the backend has them, up to one that is not of that kind."""
        bursts = self.update.problem.bursts if most > 1 else None
        if bursts is None or level.tol is None:
            return super().run(state, level, most, errors)
        if level.eps != state.eps:
            state = self.new_level(state, level.eps)
        usual = 0 if state.plain_steps else min(most, state.next_check - state.steps - 1)
        if usual < 1:
            return super().run(state, level, most, errors)
        terms = StopRule(level.eps, usual, level.tol, STILL, SLOW, level.give_up_above, errors)
        record = Progress(*state.lowest, state.without_progress)
        plain = state.plain
        made = self.update.problem.in_bursts(
            lambda bursts: bursts.alternate(state.directions, plain.f, plain.start, record, PATIENCE, terms)
        )
        if made is None:
            return super().run(state, level, most, errors)
        return self.absorb(state, made), made.errors

    def absorb(self, state: AcceleratedState, made: Iterates) -> AcceleratedState:
        """After steps that the backend has made."""
        error, norm, waited = made.record
        plain = AlternatingState(*made.last)
        state = replace(
            state, plain=plain, steps=state.steps + len(made.errors), error=made.errors[-1],
            best=state.best if made.best is None else AlternatingState(*made.best), lowest=(error, norm),
            without_progress=waited,
        )  # fmt: skip
        if made.retreats:
            return self.restart_plain(state)
        return replace(state, plain=replace(plain, start=made.start)) if math.isfinite(state.error) else state

    def centred(self, plain: AlternatingState, past: float, eps: float) -> AlternatingState:
        """Near zero again, where costs or temperatures may have left a constant that hides what matters at eps.

        Balanced, any constant may be added to g. The median is near all but the few that costs of no account moved far.
        """
        problem = self.update.problem
        if not problem.balanced or not (problem.scale > LARGE * eps or past > LARGE * problem.scale > 0):
            return plain
        middle = problem.b.median(plain.start)
        return replace(plain, f=plain.f + middle, start=plain.start - middle)

    def check_columns(self, state: AcceleratedState, plain: AlternatingState) -> AcceleratedState:
        """Ease the columns that nearly belong to one row: their own equation is slow, and each is a mode of its own.

        Near a matching there are as many such modes as points, with rates that go to 1 exponentially as eps goes to 0.
        """
        problem, xp = self.update.problem, self.update.problem.place.xp
        state = replace(state, next_check=3 * state.next_check)
        scale = problem.T.leaving(plain.g, plain.f, plain.updated, state.eps) / TIED
        if bool(xp.any(scale < 1)):
            scale = xp.where(scale < 1, scale, xp.ones_like(scale))
            state.directions.rescale(xp.where(scale > LEAST, scale, LEAST * xp.ones_like(scale)))
            state = replace(state, lowest=(state.lowest[0], math.inf))
        return state

    def pair(self, state: AcceleratedState) -> tuple[Array, Array]:
        return self.update.pair(state.plain)

    def verdict(self, state: AcceleratedState, errors: Sequence[float], level: Level) -> Status | None:
        """STALLED where steps that are the best of their kind bring little, and only rounding can be the reason.

        MAX_ITER where plain steps have taken over, or might as well.
        """
        problem, plain = self.update.problem, state.plain
        if STILL.found(errors) and errors[-1] <= problem.rounding(plain.f, plain.g, level.eps):
            return Status.STALLED
        stuck = state.plain_steps > 0 or SLOW.found(errors)
        return Status.MAX_ITER if stuck and errors[-1] > level.give_up_above else None

    def finish(self, state: AcceleratedState, eps: float) -> Dual:
        """The best pair that was measured at this temperature."""
        best = state.plain if state.best is None else state.best
        if state.coldest is not None and state.coldest[0] == eps and state.coldest[1] < state.lowest[0]:
            best = state.coldest[2]
        return self.update.finish(best, eps)

    def new_level(self, state: AcceleratedState, eps: float) -> AcceleratedState:
        """The state at a new temperature: directions cleared, the potential extrapolated if it is a lower one."""
        state.directions.rescale(None)
        plain, coldest = self.centred(state.plain, state.eps, eps), state.coldest
        if eps > state.eps:
            if state.best is not None:
                coldest = (state.eps, state.lowest[0], state.best)
            return AcceleratedState(plain, state.directions, eps, coldest=coldest)
        levels = (*state.levels, (state.eps, plain.start))[-2:]
        if len(levels) == 2:
            (eps_0, g_0), (eps_1, g_1) = levels
            plain = replace(plain, start=g_1 + (g_1 - g_0) * ((eps - eps_1) / (eps_1 - eps_0)))
        return AcceleratedState(plain, state.directions, eps, levels=levels, coldest=coldest)
