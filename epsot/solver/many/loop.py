"""The loop of many problems, each on its own schedule: what `epsot.solver.loop` is for one.

An iteration is one of every problem that is not done, or as many of each as a backend makes at once. Those that are
done leave the sweeps when they have become many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from epsot.costs import Array
from epsot.problems.many import Chosen, Problems
from epsot.solver.loop import ENDS
from epsot.solver.many.courses import GO_ON, Courses
from epsot.solver.many.updates import Update
from epsot.solver.updates import Pair
from epsot.status import Status

CROWDED = 0.75  # part of the problems in a sweep that are to be running: to leave others out costs copies of the rest

Observer = Callable[[np.ndarray, np.ndarray, "Snapshot"], object]


class Ended(NamedTuple):
    """Problems that are done, and what the update keeps of them."""

    ids: np.ndarray
    kept: tuple[Array, ...]
    pair: Pair
    errors: np.ndarray


class Crowd(NamedTuple):
    """Problems that go through the sweeps together; their numbers in the whole batch are `ids`."""

    ids: np.ndarray
    problems: Problems
    state: Any

    def take(self, rows: np.ndarray) -> Crowd:
        """Some of them, by a mask or by indices."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(rows) == len(self.ids):
            return self
        chosen = Chosen.of(rows, self.problems.place)
        return Crowd(self.ids[rows], self.problems.take(chosen), chosen.of_record(self.state))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What an observer may ask after an iteration, of the whole batch; each is computed when it is asked for."""

    update: Update
    whole: Problems
    crowd: Crowd
    ended: tuple[Ended, ...]
    eps: np.ndarray  # (B,)

    @property
    def errors(self) -> np.ndarray:
        """The marginal errors, those of the results where problems are done.  (B,)"""
        out = np.full(self.whole.count, np.nan)
        out[self.crowd.ids] = self.update.errors(self.crowd.problems, self.crowd.state, self.eps[self.crowd.ids])
        for piece in self.ended:
            out[piece.ids] = piece.errors
        return out

    @property
    def pair(self) -> Pair:
        """The potentials, zero where there is no weight.  (B, n), (B, m)"""
        done = np.concatenate([piece.ids for piece in self.ended] or [np.zeros(0, int)])
        rows = ~np.isin(self.crowd.ids, done)
        pairs = [piece.pair for piece in self.ended]
        if rows.any():
            chosen = Chosen.of(np.flatnonzero(rows), self.whole.place)
            pairs.append(chosen.of_record(self.update.pair(self.crowd.state)))
        f, g = in_order(np.concatenate([done, self.crowd.ids[rows]]), pairs, self.whole)
        return f, g


def in_order(ids: np.ndarray, parts: list[tuple[Array, ...]], whole: Problems) -> tuple[Array, ...]:
    """Arrays of parts of a batch, put together in the order of the numbers of their problems."""
    xp = whole.place.xp
    order = whole.a.on_device(np.argsort(ids, kind="stable"))
    return tuple(xp.take(xp.concat(arrays, axis=0), order, axis=0) for arrays in zip(*parts, strict=True))


def anneal(
    update: Update, problems: Problems, state: Any, courses: Courses, observe: Observer | None = None
) -> tuple[tuple[Array, ...], np.ndarray]:
    """Run `update` for every problem down its schedule. -> what it keeps of each, and their errors, in their order.

    `observe` is called after every iteration and may raise StopIteration, which stops all that run.
    """
    crowd, ended = Crowd(np.arange(problems.count), problems, state), []
    courses.running &= ~problems.empty
    if problems.empty.all() or problems.empty.any():  # all of none, too
        ended.append(retired(update, crowd.take(problems.empty), courses))
    while courses.running.any():
        if courses.running[crowd.ids].mean() < CROWDED:
            crowd = crowd.take(courses.running[crowd.ids])
        running = courses.running[crowd.ids]
        with np.errstate(all="ignore"):  # what one problem makes of infinities is no concern of the others
            crowd, verdicts = advanced(update, crowd, courses, running, watched=observe is not None)
        if observe is not None:
            try:
                snapshot = Snapshot(update, problems, crowd, tuple(ended), courses.eps)
                observe(courses.nit.copy(), courses.eps, snapshot)
            except StopIteration:
                verdicts = np.full_like(verdicts, int(Status.STOPPED))
        courses.go_on(crowd.ids[running], verdicts)
        done = running & ~courses.running[crowd.ids]
        if done.any():
            with np.errstate(all="ignore"):
                ended.extend(retire(update, crowd, courses, done))
    kept = in_order(np.concatenate([piece.ids for piece in ended]), [piece.kept for piece in ended], problems)
    return kept, errors_of(ended, problems.count)


def errors_of(ended: list[Ended], count: int) -> np.ndarray:
    """Those of all problems, in their order."""
    errors = np.empty(count)
    for piece in ended:
        errors[piece.ids] = piece.errors
    return errors


def advanced(
    update: Update, crowd: Crowd, courses: Courses, running: np.ndarray, *, watched: bool
) -> tuple[Crowd, np.ndarray]:
    """After one iteration, and what it says of the levels of those that run.

    Where nobody watches it is as many, for each, as the update makes at once.
    """
    ids = crowd.ids[running]
    if not courses.measures:
        courses.skip(ids)
        state = update.step(crowd.problems, crowd.state, courses.eps[crowd.ids])
        return crowd._replace(state=state), np.full(len(ids), GO_ON)
    run = update.one if watched else update.run
    state, measured = run(crowd.problems, crowd.state, courses.levels(crowd.ids))
    courses.take_all(crowd.ids, measured)
    verdicts = courses.judge(ids)
    found = update.verdict(crowd.problems, state, courses, crowd.ids)[running]
    return crowd._replace(state=state), np.where(verdicts == GO_ON, found, verdicts)


def retire(update: Update, crowd: Crowd, courses: Courses, done: np.ndarray) -> list[Ended]:
    """What is kept of problems that are done; those that were ended elsewhere make a step at their target."""
    ends = np.isin(courses.status[crowd.ids], [int(end) for end in ENDS])
    late = done & ends & ~courses.arrived[crowd.ids]
    pieces = []
    if late.any():
        part = crowd.take(late)
        state = update.arrive(part.problems, part.state, courses.target[part.ids])
        courses.nit[part.ids] += 1
        pieces.append(retired(update, part._replace(state=state), courses))
    if (done & ~late).any():
        pieces.append(retired(update, crowd.take(done & ~late), courses))
    return pieces


def retired(update: Update, crowd: Crowd, courses: Courses) -> Ended:
    kept, errors = update.kept(crowd.problems, crowd.state, courses.target[crowd.ids])
    return Ended(crowd.ids, kept, update.pair(crowd.state), errors)
