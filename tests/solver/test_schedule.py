"""The temperatures of the annealing."""

from __future__ import annotations

import itertools
import math

import pytest

from epsot.solver.schedule import annealing
from tests.checks import close


def scales(start: float, target: float, degree: float, scaling: float, max_iter: int = 10**6) -> list[float]:
    levels = annealing(start**degree, target**degree, degree=degree, scaling=scaling, tol=None, max_iter=max_iter)
    return [level.eps ** (1 / degree) for level in levels]


@pytest.mark.parametrize("degree", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("scaling", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("ratio", [1.5, 2.0, 37.0, 1e4])
def test_count_and_order(ratio: float, scaling: float, degree: float) -> None:
    sigmas = scales(ratio * 0.3, 0.3, degree, scaling)
    expected = math.ceil(math.log(ratio) / math.log(1 / scaling) - 1e-9) + 1
    assert len(sigmas) == expected
    close(sigmas[0], ratio * 0.3, 1e-12)
    close(sigmas[-1], 0.3, 1e-12)
    assert all(warm > cold for warm, cold in itertools.pairwise(sigmas))
    for warm, cold in itertools.pairwise(sigmas[:-1]):
        close(cold / warm, scaling, 1e-9)


@pytest.mark.parametrize("start", [0.0, 0.1, 0.3, 0.3 * (1 + 1e-12)])
def test_one_temperature_where_there_is_nothing_to_anneal(start: float) -> None:
    assert len(scales(start, 0.3, 2.0, 0.5)) == 1


@pytest.mark.parametrize("max_iter", [1, 2, 5, 100])
def test_a_short_budget_loses_the_hottest_levels(max_iter: int) -> None:
    whole = scales(1.0, 1e-3, 2.0, 0.5)
    assert scales(1.0, 1e-3, 2.0, 0.5, max_iter) == whole[-max_iter:]


@pytest.mark.parametrize("tol", [1e-3, 0.5, 0.0])
def test_the_tolerance_binds_at_the_target(tol: float) -> None:
    levels = annealing(1.0, 1e-4, degree=2.0, scaling=0.5, tol=tol, max_iter=50)
    assert levels[-1].tol == tol
    assert all(level.tol is None or level.tol >= tol for level in levels)
    assert all(level.steps >= 1 for level in levels)


def test_no_tolerance_is_one_step_a_temperature() -> None:
    for level in annealing(1.0, 1e-4, degree=2.0, scaling=0.5, tol=None, max_iter=50):
        assert level.steps == 1
        assert level.tol is None


@pytest.mark.parametrize(("start", "eps"), [(1e300, 1e-300), (1e-300, 1e-308), (1e308, 1e-3)])
def test_extreme_temperatures(start: float, eps: float) -> None:
    levels = annealing(start, eps, degree=2.0, scaling=0.5, tol=None, max_iter=10_000)
    assert levels[-1].eps == eps
    assert all(0 < level.eps < math.inf for level in levels)
    assert all(warm.eps >= cold.eps for warm, cold in itertools.pairwise(levels))
