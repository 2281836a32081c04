"""Where many problems stand on their schedules: `Course` for all of them, as arrays on the host.

A level is a pointer, one for each problem. Every rule is that of `epsot.solver.loop.Course`, for each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from epsot.kernels.bursts import Rest
from epsot.kernels.item_bursts import Measured, StopRules
from epsot.solver.loop import ENDS, Check
from epsot.solver.schedule import Level
from epsot.status import Status

LONGEST = 17  # errors at a level of which any rule asks, the present one with them
GO_ON = -1  # no verdict


class Levels(NamedTuple):
    """The present levels of some problems, arrays (B,)."""

    eps: np.ndarray
    left: np.ndarray  # iterations; none of problems that are done
    tol: np.ndarray
    give_up_above: np.ndarray
    errors: np.ndarray  # (B, LONGEST)

    def rules(self, steps: np.ndarray, still: Rest, slow: Rest) -> StopRules:
        """Where so many steps end at the latest, and by which rules before."""
        return StopRules(self.eps, steps, self.tol, still, slow, self.give_up_above, self.errors)


class Courses:
    """`Course` of every problem, as arrays (B,); `schedules` hold at least one level each.

    Attributes
    ----------
    number, left, nit, status : integer arrays
        The present level, iterations left there, iterations so far, and a `Status` each.
    errors : (B, LONGEST) array
        The last ones at the present level, the latest at the end, NaN where there were fewer.
    running : boolean array
        Whether there is more to do.
    """

    def __init__(self, schedules: Sequence[Sequence[Level]], max_iter: int) -> None:
        self.max_iter, count = max_iter, len(schedules)
        self.last = np.asarray([len(schedule) - 1 for schedule in schedules], dtype=int)
        depth = 1 + int(self.last.max(initial=0))
        # A schedule that is shorter than the longest repeats its last level, where no pointer gets.
        table = np.asarray(
            [
                [(eps, steps, math.nan if tol is None else tol, above) for eps, steps, tol, above in schedule]
                + [(0.0, 0.0, 0.0, 0.0)] * (depth - len(schedule))
                for schedule in schedules
            ],
            dtype=float,
        ).reshape((count, depth, 4))
        self.table_eps, self.table_steps, self.table_tol, self.table_above = np.moveaxis(table, 2, 0)
        self.nit, self.number = np.zeros(count, int), np.zeros(count, int)
        self.left, self.status = np.zeros(count, int), np.full(count, int(Status.MAX_ITER))
        self.errors = np.full((count, LONGEST), math.nan)
        self.running = np.ones(count, bool)
        self.checks: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.target = self.table_eps[np.arange(count), self.last]
        self.first = self.table_eps[:, 0]
        self._enter(np.arange(count), self.number)

    def _here(self, table: np.ndarray) -> np.ndarray:
        """What a table says of the present levels.  (B, levels) -> (B,)"""
        return np.asarray(table[np.arange(len(table)), self.number])

    @property
    def eps(self) -> np.ndarray:
        """The present temperatures.  (B,)"""
        return self._here(self.table_eps)

    @property
    def tol(self) -> np.ndarray:
        """The tolerances of the present levels, NaN where there is none.  (B,)"""
        return self._here(self.table_tol)

    @property
    def give_up_above(self) -> np.ndarray:
        return self._here(self.table_above)

    @property
    def measures(self) -> bool:
        """Whether any level has a tolerance; then all have."""
        return not bool(np.isnan(self.table_tol[:, :1]).any())

    @property
    def arrived(self) -> np.ndarray:
        """Whether the present temperatures are those of the targets.  (B,)"""
        return np.asarray(self.eps == self.target)

    def levels(self, ids: np.ndarray) -> Levels:
        """Those of some problems."""
        left = np.where(self.running, self.left, 0)
        return Levels(self.eps[ids], left[ids], self.tol[ids], self.give_up_above[ids], self.errors[ids])

    def take_all(self, ids: np.ndarray, measured: Measured) -> None:
        """As many iterations more of some problems as were measured."""
        for k in range(int(measured.counts.max(initial=0))):
            here = measured.counts > k
            self.take(ids[here], measured.errors[here, k])

    def take(self, ids: np.ndarray, errors: np.ndarray) -> None:
        """One iteration more of some problems, whose errors were measured."""
        self.skip(ids)
        self.errors[ids] = np.concatenate([self.errors[ids, 1:], errors[:, None]], axis=1)
        self.checks.append((ids, self.nit[ids], self.eps[ids], errors))

    def skip(self, ids: np.ndarray) -> None:
        """One iteration more of some problems, at levels without a tolerance."""
        self.nit[ids] += 1
        self.left[ids] -= 1

    def judge(self, ids: np.ndarray) -> np.ndarray:
        """What the last errors say by themselves; GO_ON where nothing.  -> statuses of these problems"""
        error, tol = self.errors[ids, -1], self.tol[ids]
        verdict = np.where(error <= tol, int(Status.CONVERGED), GO_ON)
        return np.where(np.isnan(tol), GO_ON, np.where(np.isfinite(error), verdict, int(Status.DIVERGED)))

    def found(self, rest: Rest, ids: np.ndarray) -> np.ndarray:
        """Where the errors of some problems rest: `Rest.found`.  -> a mask of these problems"""
        errors = self.errors[ids]
        lowest, before = errors[:, -rest.steps :].min(axis=1, initial=math.inf), errors[:, -rest.steps - 1]
        return np.asarray(~np.isnan(before) & (lowest >= rest.factor * before))

    def go_on(self, ids: np.ndarray, verdicts: np.ndarray) -> None:
        """Stay at the levels, or leave them, after what was found of some problems; schedules may end."""
        leaves = (verdicts != GO_ON) | (self.left[ids] <= 0)
        ids, verdicts = ids[leaves], verdicts[leaves]
        self.status[ids] = np.where(verdicts == GO_ON, self.status[ids], verdicts)
        status = self.status[ids]
        settled = np.isin(status, (int(Status.CONVERGED), int(Status.STALLED)))
        ends = np.isin(status, [int(end) for end in ENDS]) | (self.arrived[ids] & settled)
        self.running[ids[ends]] = False
        on = ids[~ends]
        self._enter(on, self.number[on] + 1)

    def _enter(self, ids: np.ndarray, numbers: np.ndarray) -> None:
        """The first levels from these on that have iterations left; where there are none, schedules end.

        A level above the last keeps one iteration for it. Where no more is left, the next one with any is the last.
        """
        over = numbers > self.last[ids]
        self.running[ids[over]] = False
        ids, numbers = ids[~over], numbers[~over]
        last = self.last[ids]
        numbers = np.where(self.nit[ids] + 1 >= self.max_iter, last, numbers)
        self.number[ids] = numbers
        steps, tol = self.table_steps[ids, numbers], self.table_tol[ids, numbers]
        budget = self.max_iter - self.nit[ids] - (numbers < last)
        self.left[ids] = np.minimum(steps, budget)
        self.errors[ids] = math.nan
        self.status[ids] = np.where(np.isnan(tol), int(Status.SCHEDULE_ENDED), int(Status.MAX_ITER))
        self.running[ids] = self.left[ids] > 0

    def history(self) -> list[tuple[Check, ...]]:
        """Every measurement of every problem."""
        checks: list[list[Check]] = [[] for _ in self.nit]
        for columns in self.checks:
            for number, nit, eps, error in zip(*(column.tolist() for column in columns), strict=True):
                checks[number].append(Check(nit, eps, error))
        return [tuple(found) for found in checks]
