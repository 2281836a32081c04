"""THE loop, the only one. It knows no debiasing, no levels of detail, no backend and no tolerance of its own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias

from epsot.solver.schedule import Level
from epsot.solver.updates import Dual, Found, Iteration
from epsot.status import Status

logger = logging.getLogger("epsot")

Observer = Callable[[int, float, Any], object]
SILENCE = 10.0  # seconds at one temperature after which the log says how it goes
ENDS = (Status.STOPPED, Status.DIVERGED)  # statuses that end a solve at any temperature


class Check(NamedTuple):
    """One measurement of the marginal error."""

    nit: int
    eps: float
    marginal_error: float


@dataclass(frozen=True)
class Ending(Generic[Found]):
    """How the loop ended."""

    dual: Found
    status: Status
    nit: int  # iterations, annealing included
    history: tuple[Check, ...]  # every measurement, all of them at temperatures with a tolerance


Outcome: TypeAlias = Ending[Dual]


class Course:
    """Where a problem stands on its schedule. All that decides is here, as plain numbers on the host.

    Each level ends when its error is at most its tolerance, or after its steps; the last iteration of all is kept for
    the last level. The target is the temperature of that; a schedule may reach it before, to go on only where that did
    not suffice.

    Attributes
    ----------
    number, level : int and Level
        The present one.
    left : int
        Iterations that it has left.
    errors : list of float
        Those measured at this level.
    nit : int
        Iterations so far.
    status : Status
        How the last level ended, or would if nothing more happened.
    running : bool
        Whether there is more to do.
    """

    number: int
    level: Level
    left: int
    errors: list[float]
    status: Status

    def __init__(self, schedule: Sequence[Level], max_iter: int, nit: int = 0) -> None:
        self.schedule, self.max_iter, self.nit = schedule, max_iter, nit
        self.target = schedule[-1].eps
        self.history: list[Check] = []
        self.running = True
        self.told = time.monotonic()  # when something was logged
        self._enter(0)

    @property
    def temperatures(self) -> list[float]:
        """Of the iterations to come, where nothing is to be decided; empty where there is a tolerance."""
        if any(level.tol is not None for level in self.schedule):
            return []
        return [level.eps for level in self.schedule for _ in range(level.steps)][: self.max_iter - self.nit]

    @property
    def arrived(self) -> bool:
        """Whether the present temperature is that of the target."""
        return self.level.eps == self.target

    def take(self, errors: Sequence[float]) -> None:
        """One iteration more for each error that was measured."""
        for error in errors:
            self.errors.append(error)
            self.nit += 1
            self.history.append(Check(self.nit, self.level.eps, error))
            logger.debug("iteration %d: eps %.3e, marginal error %.2e", self.nit, self.level.eps, error)
        self.left -= len(errors)

    def skip(self) -> None:
        """One iteration more, at a level without a tolerance."""
        self.nit, self.left = self.nit + 1, self.left - 1

    def judge(self) -> Status | None:
        """What the last error says by itself."""
        if self.level.tol is None:
            return None
        if not math.isfinite(self.errors[-1]):
            return Status.DIVERGED
        return Status.CONVERGED if self.errors[-1] <= self.level.tol else None

    def go_on(self, verdict: Status | None) -> None:
        """Stay at the level, or leave it, after what was found of it; the schedule may end."""
        if verdict is None and self.left > 0:
            if time.monotonic() - self.told > SILENCE:
                self._tell(", going on")
            return
        self.status = self.status if verdict is None else verdict
        self._tell()
        if self.status in ENDS or (self.arrived and self.status in (Status.CONVERGED, Status.STALLED)):
            self.running = False
        else:
            self._enter(self.number + 1)

    def _tell(self, more: str = "") -> None:
        """How far the present temperature has come, at INFO."""
        if logger.isEnabledFor(logging.INFO):
            reached = f", marginal error {self.history[-1].marginal_error:.1e}" if self.history else ""
            logger.info("eps %.3e: iteration %d%s%s", self.level.eps, self.nit, reached, more)
            self.told = time.monotonic()

    def _enter(self, number: int) -> None:
        """The first level from this one on that has iterations left; where there is none, the schedule ends."""
        for place in range(number, len(self.schedule)):
            self.number, self.level, self.errors = place, self.schedule[place], []
            self.status = Status.SCHEDULE_ENDED if self.level.tol is None else Status.MAX_ITER
            kept = 0 if place == len(self.schedule) - 1 else 1
            self.left = min(self.level.steps, self.max_iter - self.nit - kept)
            if self.left > 0:
                return
        self.running = False


def advance(update: Iteration[Found], state: Any, course: Course, most: int) -> tuple[Any, Status | None]:
    """One iteration, or as many as `most` where the update makes them at once, and what they say of the level."""
    if course.level.tol is None:
        course.skip()
        return update.step(state, course.level.eps), None
    state, errors = update.run(state, course.level, min(most, course.left), course.errors)
    course.take(errors)
    verdict = course.judge()
    return state, update.verdict(state, course.errors, course.level) if verdict is None else verdict


def observed(observe: Observer | None, course: Course, state: Any, verdict: Status | None) -> Status | None:
    """The verdict, or STOPPED where the observer says so."""
    try:
        if observe is not None:
            observe(course.nit, course.level.eps, state)
    except StopIteration:
        return Status.STOPPED
    return verdict


def anneal(
    update: Iteration[Found],
    state: Any,
    schedule: Sequence[Level],
    max_iter: int,
    observe: Observer | None = None,
    nit: int = 0,
) -> Ending[Found]:
    """Run `update` down the schedule, at most max_iter iterations in all, of which the last is at the target.

    `nit` iterations have been made before, on coarser measures. `observe` is called after every iteration and may raise
    StopIteration. Reading an error is the only synchronisation with the device.
    """
    course = Course(schedule, max_iter, nit)
    watched = observe is not None or logger.isEnabledFor(logging.INFO)
    if not watched and (temperatures := course.temperatures):
        state = update.run_schedule(state, temperatures)
        return Ending(update.finish(state, course.target), course.status, nit + len(temperatures), ())
    while course.running:
        state, verdict = advance(update, state, course, max_iter if observe is None else 1)
        course.go_on(observed(observe, course, state, verdict))
    if course.status in ENDS and not course.arrived:  # the potentials to return belong to the target temperature
        state = update.arrive(state, course.target)
        course.nit += 1
    return Ending(update.finish(state, course.target), course.status, course.nit, tuple(course.history))
