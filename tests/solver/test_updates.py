"""Each update: its fixed point is the solution, and its error is that of the pair it would return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.arrays import common_place
from epsot.problems.instance import pose
from epsot.problems.measure import Measure
from epsot.problems.problem import Problem
from epsot.solver.updates import Alternating, SelfTransport, Symmetric
from tests import checks
from tests.checks import close, power_cost
from tests.conftest import Measures, measures

EPS = 0.2
RHOS = [(None, None), (0.8, 0.8), (0.5, 2.0), (None, 0.7), (0.7, None)]


def problem_of(case: Measures, rho: Any) -> Problem:
    case = case.balanced if rho == (None, None) else case
    return pose(epsot.PointCloud(case.x, case.y), case.a, case.b, eps=EPS, rho=rho, rho_name="rho", workers=1).problem


@pytest.fixture
def case() -> Measures:
    return measures(9, 7, 2, zeros=False)


def dense_error(case: Measures, rho: Any, f: np.ndarray, g: np.ndarray) -> float:
    case = case.balanced if rho == (None, None) else case
    P = checks.plan(f, g, power_cost(case.x, case.y), case.a, case.b, EPS)
    return checks.marginal_error(P, f, g, case.a, case.b, rho)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("kind", [Alternating, Symmetric])
def test_fixed_point_and_error(case: Measures, kind: Any, rho: Any) -> None:
    problem = problem_of(case, rho)
    update = kind(problem)
    state = update.init(EPS, None, None)
    for _ in range(300):
        state = update.step(state, EPS)
    dual = update.finish(state, EPS)
    assert dense_error(case, rho, dual.f, dual.g) < 1e-8
    assert float(update.error(state, EPS)) < 1e-8


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_alternating_returns_what_it_measured(case: Measures, rho: Any, steps: int) -> None:
    update = Alternating(problem_of(case, rho))
    state = update.init(EPS, None, None)
    for _ in range(steps):
        state = update.step(state, EPS)
    dual = update.finish(state, EPS)
    measured = dense_error(case, rho, dual.f, dual.g)
    assert measured > 1e-6
    close(update.error(state, EPS), measured, 1e-10)
    close(dual.error, measured, 1e-10)
    weighted = case.balanced if rho == (None, None) else case
    P = checks.plan(dual.f, dual.g, power_cost(case.x, case.y), weighted.a, weighted.b, EPS)
    close(dual.mass, P.sum(), 1e-12)


@pytest.mark.parametrize("rho", [None, 0.8])
@pytest.mark.parametrize("steps", [1, 3])
def test_self_transport_returns_what_it_measured(case: Measures, rho: Any, steps: int) -> None:
    instance = pose(
        epsot.PointCloud(case.x, case.x), case.a, case.a, eps=EPS, rho=(rho, rho), rho_name="rho", workers=1
    )
    update = SelfTransport(instance.problem)
    state = update.init(EPS, None, None)
    for _ in range(steps):
        state = update.step(state, EPS)
    dual = update.finish(state, EPS)
    P = checks.plan(dual.f, dual.g, power_cost(case.x, case.x), case.a, case.a, EPS)
    close(P, P.T, 1e-14)
    close(dual.error, checks.marginal_error(P, dual.f, dual.g, case.a, case.a, rho), 1e-10)
    close(dual.mass, P.sum(), 1e-12)


@pytest.mark.parametrize("eps", [1e-4, 1e-2, 1.0])
def test_self_transport_halves_its_error(case: Measures, eps: float) -> None:
    """15 sweeps to 1e-4 at any temperature."""
    instance = pose(
        epsot.PointCloud(case.x, case.x), case.a, case.a, eps=eps, rho=(None, None), rho_name="rho", workers=1
    )
    update = SelfTransport(instance.problem)
    state = update.init(eps, None, None)
    for _ in range(15):
        state = update.step(state, eps)
    assert float(update.error(state, eps)) < 1e-3


@pytest.mark.parametrize("rho", RHOS)
def test_symmetric_swaps_with_the_measures(case: Measures, rho: Any) -> None:
    problem = problem_of(case, rho)
    forth, back = Symmetric(problem), Symmetric(problem.T)
    state, mirrored = forth.init(EPS, None, None), back.init(EPS, None, None)
    for _ in range(4):
        state, mirrored = forth.step(state, EPS), back.step(mirrored, EPS)
    close(state.f, mirrored.g, 1e-12)
    close(state.g, mirrored.f, 1e-12)


@pytest.mark.parametrize("rho", [(0.8, 0.8), (0.5, 2.0), (None, 0.7), (0.7, None)])
def test_dual_shift_is_the_best_one(case: Measures, rho: Any) -> None:
    """Of all (f + c, g - c): the sum of P does not change, so only the penalties count."""
    problem = problem_of(case, rho)
    rng = np.random.default_rng(0)
    f, g = rng.normal(size=9), rng.normal(size=7)
    C = power_cost(case.x, case.y)

    def dual(c: float) -> float:
        return checks.dual(f + c, g - c, C, case.a, case.b, EPS, rho)

    best = float(problem.dual_shift(f, g))
    for other in (best - 0.1, best + 0.1, best + 1e-3, best - 1e-3, 0.0):
        assert dual(other) <= dual(best) + 1e-12


@pytest.mark.parametrize("rho", [0.3, 1e3, np.inf])
def test_marginal_penalty(rho: float) -> None:
    """The share of the dual is the conjugate of the penalty: min_r <r, f> + rho KL(r | a), at the marginal."""
    a, f = np.asarray([0.3, 1.2, 2.0]), np.asarray([0.5, -0.2, 0.1])
    measure = Measure.of(a, 3.5, rho, common_place(a=a))
    r = measure.called_for(f)
    share = float(measure.value(f))
    close(share, r @ f + (0 if np.isinf(rho) else rho * checks.kl(r, a)), 1e-9)
    close(measure.undampen(measure.dampen(f, 0.4), 0.4), f, 1e-14)
    close(measure.divergence(r), 0 if np.isinf(rho) else rho * checks.kl(r, a), 1e-9)
