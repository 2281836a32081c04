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


def judge(update: Update, state: Any, errors: Sequence[float], level: Level) -> Status | None:
    """What the errors measured at one temperature say: done, hopeless, or go on (None)."""
    if not math.isfinite(errors[-1]):
        return Status.DIVERGED
    if level.tol is not None and errors[-1] <= level.tol:
        return Status.CONVERGED
    if update.stalled(state, errors, level.eps):
        return Status.STALLED
    return Status.MAX_ITER if errors[-1] > level.restless and update.stuck(state, errors) else None


def anneal(
    update: Update,
    state: Any,
    schedule: Sequence[Level],
    max_iter: int,
    observe: Callable[[int, float, Any], object] | None = None,
    nit: int = 0,
) -> Outcome:
    """Run `update` down the schedule, at most max_iter iterations in all, of which the last is at the target.

    `nit` iterations have been made before, on coarser measures.

    Each level ends when its error is at most its tolerance, or after its steps. The target is the temperature of the
    last level; a schedule may reach it before, to go on only where that did not suffice. `observe` is called after
    every iteration and may raise StopIteration. Reading an error is the only synchronisation with the device.
    """
    history, target = [], schedule[-1].eps
    status = Status.SCHEDULE_ENDED
    watched = observe is not None or logger.isEnabledFor(logging.INFO)
    if not watched and all(level.tol is None for level in schedule):  # nothing to decide
        temperatures = [level.eps for level in schedule for _ in range(level.steps)][: max_iter - nit]
        state, nit = update.descend(state, temperatures), nit + len(temperatures)
        return Outcome(update.finish(state, target), status, nit, ())
    for level in schedule:
        status = Status.SCHEDULE_ENDED if level.tol is None else Status.MAX_ITER
        errors: list[float] = []
        spare = max_iter - nit if level is schedule[-1] else max_iter - nit - 1
        last, verdict = nit + min(level.steps, spare), None
        while verdict is None and nit < last:
            if level.tol is None:
                state = update.step(state, level.eps)
                nit += 1
            else:
                most = last - nit if observe is None else 1
                state, found = update.run(state, level, most, errors)
                errors.extend(found)
                for error in found:
                    nit += 1
                    history.append(Check(nit, level.eps, error))
                    logger.debug("iteration %d: eps %.3e, marginal error %.2e", nit, level.eps, error)
                verdict = judge(update, state, errors, level)
            if observe is not None:
                try:
                    observe(nit, level.eps, state)
                except StopIteration:
                    verdict = Status.STOPPED
        status = status if verdict is None else verdict
        if logger.isEnabledFor(logging.INFO):
            reached = f", marginal error {history[-1].marginal_error:.1e}" if history else ""
            logger.info("eps %.3e: iteration %d%s", level.eps, nit, reached)
        if level.eps == target and status in (Status.CONVERGED, Status.STALLED):
            break
        if status in (Status.STOPPED, Status.DIVERGED):
            if level.eps != target:  # the potentials to return belong to the target temperature
                state = update.land(state, target)
                nit += 1
            break
    return Outcome(update.finish(state, target), status, nit, tuple(history))
