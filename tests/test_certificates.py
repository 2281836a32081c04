"""Bounds hold for potentials of any quality, and close as the solve converges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.results import certificates
from tests import checks
from tests.checks import TIGHT, posed
from tests.conftest import Measures

RHOS = [None, 0.8, (0.5, 2.0), (None, 0.7), (0.7, None), 1e-3, 1e3]
ROUGH = [{"tol": None}, {"tol": None, "scaling": 0.1}, {"tol": 1e-9, "max_iter": 1}, {"tol": 1e-9, "max_iter": 3}]
pytestmark = pytest.mark.filterwarnings("ignore::epsot.ConvergenceWarning")
ROUNDING = 1e-9


def bracketed(rough: Any, exact: Any) -> None:
    """dual <= value <= primal, and what the gap promises."""
    value = float(exact.value)
    slack = ROUNDING * (1 + abs(value))
    assert float(rough.dual) <= value + slack
    assert value <= float(rough.primal) + slack
    assert abs(float(rough.value) - value) <= float(rough.gap) + slack
    assert float(rough.gap) >= -slack
    checks.close(rough.gap, float(rough.primal) - float(rough.dual))


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("options", ROUGH, ids=str)
@pytest.mark.parametrize("eps", [0.02, 0.5])
def test_value(awkward: Measures, rho: Any, options: dict[str, Any], eps: float) -> None:
    problem = posed(awkward, rho)
    geometry = epsot.PointCloud(problem.x, problem.y)
    exact = epsot.solve(geometry, problem.a, problem.b, eps=eps, rho=rho, tol=1e-9, max_iter=100_000)
    rough = epsot.solve(geometry, problem.a, problem.b, eps=eps, rho=rho, **options)
    bracketed(rough, exact)
    # a gap that is infinite would pass everything above
    assert float(rough.gap) < 1000 * (1 + abs(float(exact.value)))


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("options", ROUGH, ids=str)
def test_divergence(awkward: Measures, rho: Any, options: dict[str, Any]) -> None:
    problem = posed(awkward, rho)
    geometry = epsot.PointCloud(problem.x, problem.y)
    exact = epsot.divergence(geometry, problem.a, problem.b, eps=0.1, rho=rho, tol=1e-9, max_iter=100_000)
    bracketed(epsot.divergence(geometry, problem.a, problem.b, eps=0.1, rho=rho, **options), exact)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("options", ROUGH, ids=str)
def test_forbidden_pairs(rho: Any, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    C = rng.random((8, 6))
    C[rng.random(C.shape) < 0.25] = np.inf
    np.fill_diagonal(C, 0.5)
    C[0, :] = rng.random(6)
    C[:, 0] = rng.random(8)
    a, b = rng.random(8) + 0.1, rng.random(6) + 0.1
    a[3] = 0
    b = b * (a.sum() / b.sum() if rho is None else 1)
    exact = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1, rho=rho, tol=1e-9, max_iter=100_000)
    rough = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1, rho=rho, **options)
    value = float(exact.value)
    assert float(rough.dual) <= value + ROUNDING
    assert value <= float(rough.primal) + ROUNDING
    assert not np.isnan(float(rough.gap))


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6, 1e-9])
def test_the_gap_closes(awkward: Measures, rho: Any, tol: float) -> None:
    """It is of the order of the marginal error times the range of the cost, and of its logarithm."""
    problem = posed(awkward, rho)
    result = epsot.solve(
        epsot.PointCloud(problem.x, problem.y), problem.a, problem.b, eps=0.1, rho=rho, tol=tol, max_iter=100_000
    )
    assert float(result.gap) <= 100 * tol


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shift", [500.0, 1e4, 1e5])
def test_clouds_far_apart(shift: float, p: int) -> None:
    """The gap is that of the same clouds side by side, up to the rounding of the exponents."""
    rng = np.random.default_rng(1)
    x, y = rng.random((50, 3)), rng.random((40, 3))
    options: Any = {"blur": 0.05, "p": p, "max_iter": 5000}
    near = [solve(x, y, **options) for solve in (epsot.sinkhorn, epsot.sinkhorn_divergence)]
    far = [solve(x, y + shift, **options) for solve in (epsot.sinkhorn, epsot.sinkhorn_divergence)]
    for one, other in zip(near, far, strict=True):
        rounding = 2.0**-50 * float(other.value)
        assert -1e-9 * shift <= float(other.gap) <= 10 * float(one.gap) + rounding
        assert float(other.dual) <= float(other.primal)
        assert abs(float(other.value - other.dual)) <= float(other.gap) + rounding


@pytest.mark.parametrize("rho", [None, (None, 0.5), (0.5, None)])
@pytest.mark.parametrize("constant", [1e6, -1e6, 1e9])
def test_a_constant_of_the_cost(rho: Any, constant: float) -> None:
    """A plan of fixed mass pays it, whatever else it does: the bounds move, and the gap does not."""
    C = np.random.default_rng(0).random((30, 40))
    plain, moved = (epsot.solve(epsot.CostMatrix(z), eps=0.02, rho=rho, tol=1e-4) for z in (C, C + constant))
    assert plain.success
    assert moved.success
    exponents = 2.0**-48 * abs(constant) / 0.02  # what their rounding may hide
    assert -(2.0**-52) * abs(constant) <= float(moved.gap) <= 10 * float(plain.gap) + 1e-8 + exponents
    checks.close(float(moved.dual) - constant, plain.dual, 1e-3)


def test_nothing_is_proved_by_noise() -> None:
    """The exponents are of the order of 1e18: what is left of them is rounding, and no bound follows."""
    rng = np.random.default_rng(0)
    result = epsot.sinkhorn(rng.random((20, 64)), rng.random((20, 64)), blur=3e-9)
    assert result.status is epsot.Status.STALLED
    assert result.gap == np.inf
    assert result.dual == -np.inf


@pytest.mark.parametrize("rho", [1e6, 1e10, 1e12, (None, 1e12)])
def test_a_huge_strength_costs_no_digits(awkward: Measures, rho: Any) -> None:
    """rho KL rounds at rho times a rounding unless it is written with log1p; the limit is balanced transport."""
    problem = awkward.balanced
    geometry = epsot.PointCloud(problem.x, problem.y)
    result = epsot.solve(geometry, problem.a, problem.b, eps=0.1, rho=rho, tol=1e-8, max_iter=10_000)
    balanced = epsot.solve(geometry, problem.a, problem.b, eps=0.1, tol=1e-8, max_iter=10_000)
    checks.close(result.value, balanced.value, 1e-4)
    assert -1e-9 <= float(result.gap) <= 1e-3


@pytest.mark.parametrize("rho", [None, (0.1, None), (None, 0.1)])
def test_columns_without_mass(rho: Any) -> None:
    """After one iteration at a tiny temperature whole columns underflow to zero; the bounds are still numbers."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)) + 0.5
    result = epsot.solve(epsot.PointCloud(x, y), eps=1e-6, rho=rho, tol=1e-6, max_iter=1)
    assert not np.isnan(result.primal)
    assert float(result.dual) <= float(result.primal)


@pytest.mark.parametrize("rho", [None, 0.8, (None, 0.7)])
def test_primal_is_the_cost_of_a_plan(awkward: Measures, rho: Any) -> None:
    """At convergence it is the definition."""
    problem, eps = posed(awkward, rho), 0.2
    x, y, a, b = problem
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=eps, rho=rho, **TIGHT)
    P = result.plan.to_dense()
    checks.close(result.primal, checks.primal(P, checks.power_cost(x, y), a, b, eps, rho), 1e-8)


@pytest.mark.parametrize("rho", RHOS)
def test_what_the_solver_knows_saves_sweeps(awkward: Measures, rho: Any) -> None:
    """The upper bound from the columns that the solve has measured is that of the sweeps which would measure them."""
    x, y, a, b = posed(awkward, rho)
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=0.05, rho=rho, tol=1e-2)
    pair = result.dual_pair
    swept = certificates.primal_value(result.instance.problem, pair.f, pair.g, result.eps)
    checks.close(result.primal64, swept, 1e-9)


def test_rounding_of_sums_counts_in_what_is_missing() -> None:
    """One point has one plan. Where exponents round at a percent, so does what is missing, and that has a cost."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1, 17)), rng.normal(size=(8, 17))
    only = float(0.5 * ((x - y) ** 2).sum(axis=1).mean())
    for exponent in np.linspace(13.0, 15.0, 41):
        result = epsot.sinkhorn(x, y, blur=float(np.sqrt(only * 10**-exponent)), tol=1e-3, max_iter=1)
        assert float(result.primal64) >= only * (1 - 1e-14), exponent


def test_what_was_found_of_huge_potentials_is_not_used(awkward: Measures) -> None:
    """A constant that the solve went through may have taken digits from all but the potentials themselves."""
    x, y, a, b = posed(awkward, None)
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=0.05, tol=1e-2)
    pair = result.dual_pair
    wrong = 2 * pair.mass, pair.g + 1.0
    plain = certificates.Certificate.of(result.instance, pair.f, pair.g)
    careful = certificates.Certificate.of(result.instance, pair.f, pair.g, *wrong, found_with=1e-9)
    assert (float(careful.dual), float(careful.primal)) == (float(plain.dual), float(plain.primal))
    trusting = certificates.Certificate.of(result.instance, pair.f, pair.g, *wrong, found_with=pair.logit_error)
    assert float(trusting.dual) != float(plain.dual)


def test_equal_measures_that_diverge() -> None:
    """Beyond the range of float32 nothing is found, but the difference of equal terms is zero all the same."""
    x = np.full((1, 17), 3e4, dtype=np.float32)
    result = epsot.sinkhorn_divergence(x, x, blur=1e-25)
    assert result.status in (epsot.Status.DIVERGED, epsot.Status.CONVERGED)
    assert result.value == 0


def test_a_start_far_away_rounds_what_it_leads_to() -> None:
    """Potentials of 1e8 are rounded to 1e-8, in which constants that are taken off at the end leave nothing exact."""
    rng = np.random.default_rng(3)
    C = 0.1 * rng.normal(size=30)[:, None] + 2e5 * rng.normal(size=7) + rng.random((30, 7))
    a, b = rng.random(30) + 0.1, rng.random(7) + 0.1
    masses = 500 * a / a.sum(), 500 * b / b.sum()
    cost = epsot.CostMatrix(C)
    best = epsot.solve(cost, *masses, eps=0.02, tol=1e-6, max_iter=5000)
    for _ in range(6):
        start = 1e8 * rng.normal(size=30), 1e8 * rng.normal(size=7)
        rough = epsot.solve(cost, *masses, eps=0.02, max_iter=20, init=start)
        assert rough.gap >= 0.0 and rough.primal >= best.dual and rough.dual <= best.primal
        alone = epsot.solve(
            epsot.CostMatrix(C[None]), *masses, eps=0.02, max_iter=20, init=tuple(z[None] for z in start)
        )
        assert alone.gap[0] == rough.gap
