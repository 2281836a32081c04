"""The courses of many problems against that of one, for random schedules, errors and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from epsot.kernels.bursts import Rest
from epsot.solver.loop import Course
from epsot.solver.many.courses import GO_ON, Courses
from epsot.solver.schedule import Level, annealing
from epsot.status import Status

VERDICTS = [None, None, None, Status.MAX_ITER, Status.STALLED, Status.STOPPED]


def schedules(rng: np.random.Generator, count: int, max_iter: int, tol: float | None) -> list[tuple[Level, ...]]:
    """With one descent or two, of any length."""
    return [
        annealing(
            float(rng.choice([0, 1, 50])), float(rng.uniform(0.01, 2)), degree=2.0, scaling=0.5, tol=tol,
            max_iter=max_iter, restart=float(rng.choice([0, 1, 50])),
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("tol", [1e-3, 0.0, None])
@pytest.mark.parametrize("max_iter", [1, 2, 3, 10, 60])
def test_every_rule_is_that_of_one_course(max_iter: int, tol: float | None) -> None:
    rng = np.random.default_rng(max_iter)
    given = schedules(rng, 40, max_iter, tol)
    alone, courses = [Course(levels, max_iter) for levels in given], Courses(given, max_iter)
    rests = [Rest(3, 0.9), Rest(16, 0.7), Rest(8, 1.0)]
    while courses.running.any():
        ids = np.flatnonzero(courses.running)
        assert ids.tolist() == [k for k, course in enumerate(alone) if course.running]
        np.testing.assert_array_equal(courses.eps[ids], [alone[k].level.eps for k in ids])
        np.testing.assert_array_equal(courses.left[ids], [alone[k].left for k in ids])
        np.testing.assert_array_equal(courses.give_up_above[ids], [alone[k].level.give_up_above for k in ids])
        assert courses.measures == (tol is not None)
        verdicts = []
        if tol is None:
            courses.skip(ids)
            for k in ids:
                alone[k].skip()
                verdicts.append(VERDICTS[rng.integers(4) if rng.random() < 0.1 else 0])
        else:
            errors = 10.0 ** rng.uniform(-4, 0.5, len(ids)) * rng.choice([1, 1, 1, 1, 1, 1, 0, math.nan], len(ids))
            courses.take(ids, errors)
            judged = courses.judge(ids)
            found = [courses.found(rest, ids) for rest in rests]
            for place, k in enumerate(ids):
                alone[k].take([float(errors[place])])
                verdict = alone[k].judge()
                assert judged[place] == (GO_ON if verdict is None else verdict)
                if math.isfinite(errors[place]):
                    assert [bool(mask[place]) for mask in found] == [rest.found(alone[k].errors) for rest in rests]
                verdicts.append(VERDICTS[rng.integers(len(VERDICTS))] if verdict is None else verdict)
        courses.go_on(ids, np.asarray([GO_ON if verdict is None else int(verdict) for verdict in verdicts]))
        for k, verdict in zip(ids, verdicts, strict=True):
            alone[k].go_on(verdict)
    assert not any(course.running for course in alone)
    assert courses.status.tolist() == [course.status for course in alone]
    assert courses.nit.tolist() == [course.nit for course in alone]
    assert courses.arrived.tolist() == [course.arrived for course in alone]
    np.testing.assert_equal(courses.history(), [tuple(course.history) for course in alone])


def test_no_courses() -> None:
    courses = Courses([], 10)
    assert not courses.running.any() and courses.eps.shape == (0,) and courses.history() == []
