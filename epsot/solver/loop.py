"""THE loop, the only one. It knows no debiasing, no levels of detail, no backend and no tolerance of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from epsot.solver.schedule import Level
from epsot.solver.updates import Dual, Update
from epsot.status import Status

logger = logging.getLogger("epsot")

PATIENCE = 20  # checks without a new lowest error: exact iterations lower it every time, so only rounding is left


class Check(NamedTuple):
    """One measurement of the marginal error."""

    nit: int
    eps: float
    marginal_error: float


@dataclass(frozen=True)
class Outcome:
    """How the loop ended."""

    dual: Dual
    status: Status
    nit: int  # iterations, annealing included
    history: tuple[Check, ...]  # every measurement, all of them at temperatures with a tolerance


class Stagnation:
    """Counts the checks since the marginal error was at its lowest."""

    def __init__(self) -> None:
        self.lowest, self.waited = math.inf, 0

    def seen(self, error: float) -> bool:
        """Take in one error; True once PATIENCE checks brought nothing."""
        self.waited = 0 if error < self.lowest else self.waited + 1
        self.lowest = min(self.lowest, error)
        return self.waited >= PATIENCE


def judge(error: float, tol: float, stagnation: Stagnation) -> Status | None:
    """What a measured error says: done, hopeless, or go on (None)."""
    if not math.isfinite(error):
        return Status.DIVERGED
    if error <= tol:
        return Status.CONVERGED
    return Status.STALLED if stagnation.seen(error) else None


def anneal(
    update: Update,
    state: Any,
    schedule: Sequence[Level],
    observe: Callable[[int, float, Any], None] | None = None,
) -> Outcome:
    """Run `update` down the schedule.

    Each level ends when its error is at most its tolerance, or after its steps. `observe` is called after every
    iteration and may raise StopIteration. Reading an error is the only synchronisation with the device.
    """
    nit, history, target = 0, [], schedule[-1].eps
    status = Status.SCHEDULE_ENDED
    for level in schedule:
        status, stagnation = Status.SCHEDULE_ENDED if level.tol is None else Status.MAX_ITER, Stagnation()
        for _ in range(level.steps):
            state = update.step(state, level.eps)
            nit += 1
            verdict = None
            if level.tol is not None:
                error = float(update.error(state, level.eps))
                history.append(Check(nit, level.eps, error))
                verdict = judge(error, level.tol, stagnation)
            if observe is not None:
                try:
                    observe(nit, level.eps, state)
                except StopIteration:
                    verdict = Status.STOPPED
            if verdict is not None:
                status = verdict
                break
        if logger.isEnabledFor(logging.INFO):
            reached = f", marginal error {history[-1].marginal_error:.1e}" if history else ""
            logger.info("eps %.3e: iteration %d%s", level.eps, nit, reached)
        if status in (Status.STOPPED, Status.DIVERGED):
            if level.eps != target:  # the potentials to return belong to the target temperature
                state = update.step(state, target)
                nit += 1
            break
    return Outcome(update.finish(state, target), status, nit, tuple(history))
