"""The loop with updates that are numbers: statuses, budgets, records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from epsot.solver.loop import anneal
from epsot.solver.schedule import Level
from epsot.solver.updates import Dual, Update
from epsot.status import Status


class Scripted(Update):
    """An update whose state counts the steps and whose errors are given."""

    def __init__(self, errors: Iterator[float]) -> None:
        self.errors = errors
        self.temperatures: list[float] = []

    def init(self, eps: float, f: Any, g: Any) -> int:
        return 0

    def step(self, state: int, eps: float) -> int:
        self.temperatures.append(eps)
        return state + 1

    def error(self, state: int, eps: float) -> Any:
        return next(self.errors)

    def verdict(self, state: int, errors: Sequence[float], level: Level) -> Status | None:
        return Status.STALLED if len(errors) > 3 and errors[-1] == errors[-4] else None

    def pair(self, state: int) -> Any:
        return state, state

    def finish(self, state: int, eps: float) -> Any:
        return Dual(state, eps)


def falling(factor: float = 0.5, start: float = 1.0) -> Iterator[float]:
    while True:
        yield start
        start *= factor


def constant(error: float) -> Iterator[float]:
    while True:
        yield error


def run(errors: Iterator[float], *levels: Level, max_iter: int = 1000, observe: Any = None) -> tuple[Any, Scripted]:
    update = Scripted(errors)
    return anneal(update, 0, levels, max_iter, observe), update


def test_converges() -> None:
    outcome, update = run(falling(), Level(4.0), Level(2.0), Level(1.0, 100, 0.1))
    assert outcome.status is Status.CONVERGED
    assert outcome.nit == 2 + 5  # 1, 1/2, 1/4, 1/8, 1/16
    assert update.temperatures == [4.0, 2.0] + 5 * [1.0]
    assert [check.nit for check in outcome.history] == [3, 4, 5, 6, 7]
    assert [check.marginal_error for check in outcome.history] == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert outcome.dual == Dual(7, 1.0)


def test_an_error_equal_to_the_tolerance_is_converged() -> None:
    assert run(constant(0.5), Level(1.0, 9, 0.5))[0].status is Status.CONVERGED
    assert run(constant(0.0), Level(1.0, 9, 0.0))[0].status is Status.CONVERGED


def test_without_a_tolerance_nothing_is_measured() -> None:
    outcome, _ = run(iter([]), Level(2.0), Level(1.0))
    assert outcome.status is Status.SCHEDULE_ENDED
    assert outcome.nit == 2
    assert outcome.history == ()


def test_max_iter() -> None:
    outcome, _ = run(falling(0.99), Level(2.0), Level(1.0, 1000, 1e-9), max_iter=12)
    assert outcome.status is Status.MAX_ITER
    assert outcome.nit == 12


def test_levels_with_a_tolerance_leave_the_last_iteration_to_the_target() -> None:
    outcome, update = run(falling(0.9), Level(4.0, 30, 1e-9), Level(2.0, 30, 1e-9), Level(1.0, 30, 1e-9), max_iter=20)
    assert outcome.nit == 20
    assert update.temperatures[-1] == 1.0
    assert outcome.status is Status.MAX_ITER


def test_a_stall_at_a_warm_level_is_not_the_end() -> None:
    errors = iter([0.5, 0.5, 0.5, 0.5, 0.4, 0.01])
    outcome, update = run(errors, Level(2.0, 30, 0.1), Level(1.0, 100, 0.1))
    assert outcome.status is Status.CONVERGED
    assert update.temperatures[-1] == 1.0


def test_stalls() -> None:
    outcome, _ = run(constant(0.5), Level(1.0, 1000, 0.1))
    assert outcome.status is Status.STALLED
    assert outcome.nit == 4


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_diverges(error: float) -> None:
    outcome, update = run(iter([1.0, error]), Level(1.0, 1000, 0.1))
    assert outcome.status is Status.DIVERGED
    assert outcome.nit == 2
    # at a warm level too, where one more step leads to the target
    outcome, update = run(iter([error]), Level(2.0, 10, 0.1), Level(1.0, 1000, 0.1))
    assert outcome.status is Status.DIVERGED
    assert update.temperatures[-1] == 1.0


def stop_at(nit: int) -> Any:
    def observe(seen: int, eps: float, state: Any) -> None:
        if seen == nit:
            raise StopIteration

    return observe


def test_observers_stop() -> None:
    outcome, update = run(falling(), Level(4.0), Level(2.0), Level(1.0, 100, 1e-9), observe=stop_at(1))
    assert outcome.status is Status.STOPPED
    assert update.temperatures == [4.0, 1.0]  # the result belongs to the target
    assert outcome.nit == 2
    outcome, update = run(falling(), Level(4.0), Level(1.0, 100, 0.1), observe=stop_at(6))
    assert outcome.status is Status.STOPPED  # it would have converged in this very step
    assert outcome.nit == 6


def test_observers_see_every_iteration() -> None:
    seen: list[tuple[int, float, int]] = []
    run(falling(), Level(4.0), Level(1.0, 100, 0.1), observe=lambda *record: seen.append(record))
    assert [record[0] for record in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[0] == (1, 4.0, 1)
