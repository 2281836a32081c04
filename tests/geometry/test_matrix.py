"""CostMatrix: forbidden pairs, self costs, parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from tests import checks
from tests.checks import TIGHT, close, power_cost
from tests.conftest import Measures


def forbidding(n: int = 6, m: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cost with forbidden pairs that still has plans, and weights with a zero."""
    rng = np.random.default_rng(1)
    C = rng.random((n, m))
    C[0, 1] = C[2, 2] = C[n - 1, 0] = np.inf
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    a[1] = 0
    return C, 2 * a / a.sum(), 2 * b / b.sum()


@pytest.mark.parametrize("rho", [None, 0.8, (None, 0.7), (1e-3, 1e2)])
def test_forbidden_pairs(rho: Any) -> None:
    C, a, b = forbidding()
    result = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1, rho=rho, **TIGHT)
    P = result.plan.to_dense()
    assert not np.any(P[np.isinf(C)])
    close(P, checks.plan(result.f, result.g, C, a, b, 0.1), 1e-11)
    close(result.value, checks.primal(P, C, a, b, 0.1, rho), 1e-8)
    close(result.marginal_error, checks.marginal_error(P, result.f, result.g, a, b, rho), 1e-11)


def test_forbidden_pairs_are_the_limit_of_large_costs() -> None:
    C, a, b = forbidding()
    large = np.where(np.isinf(C), 1e3, C)
    exact, limit = (epsot.solve(epsot.CostMatrix(cost), a, b, eps=0.1, **TIGHT) for cost in (C, large))
    close(exact.value, limit.value, 1e-9)
    close(exact.plan.to_dense(), limit.plan.to_dense(), 1e-9)


def test_converged_forbidden_pairs_have_a_certificate() -> None:
    C, a, b = forbidding()
    result = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1, tol=1e-6, max_iter=10_000)
    assert float(result.dual) <= float(result.primal)
    assert not np.isnan(float(result.gap))


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize("rho", [None, 0.8, (None, 0.7)])
def test_points_and_their_matrix(awkward: Measures, rho: Any) -> None:
    x, y, a, b = awkward.balanced
    geometry = epsot.CostMatrix(power_cost(x, y), C_xx=power_cost(x, x), C_yy=power_cost(y, y))
    matrix = epsot.divergence(geometry, a, b, eps=0.2, rho=rho, **TIGHT)
    points = epsot.divergence(epsot.PointCloud(x, y), a, b, eps=0.2, rho=rho, **TIGHT)
    for name in ("value", "f", "g", "grad_a", "grad_b"):
        close(getattr(matrix, name), getattr(points, name), 1e-8)


def test_divergence_of_one_measure_is_zero(awkward: Measures) -> None:
    x, a = awkward.x, awkward.a
    C = power_cost(x, x)
    for tol in (None, 1e-3):
        result = epsot.divergence(epsot.CostMatrix(C, C_xx=C, C_yy=C), a, a, eps=0.2, tol=tol)
        assert float(result.value) == 0.0
        assert not np.any(result.f)


def test_negative_costs_shift_the_value(awkward: Measures) -> None:
    """C + c adds c times the mass."""
    x, y, a, b = awkward.balanced
    C = power_cost(x, y)
    plain, shifted = (epsot.solve(epsot.CostMatrix(cost), a, b, eps=0.2, **TIGHT) for cost in (C, C - 7))
    close(shifted.value, plain.value - 7 * a.sum(), 1e-10)
    close(shifted.plan.to_dense(), plain.plan.to_dense(), 1e-10)


def test_constant_cost() -> None:
    """Nothing to choose: the plan is the product."""
    a, b = np.asarray([0.2, 0.8]), np.asarray([0.1, 0.4, 0.5])
    result = epsot.solve(epsot.CostMatrix(np.full((2, 3), 4.0)), a, b, eps=1e-6)
    close(result.plan.to_dense(), np.outer(a, b), 1e-9)
    close(result.value, 4.0, 1e-9)


def test_layout_and_dtype(awkward: Measures) -> None:
    x, y, a, b = awkward.balanced
    C = power_cost(x, y)
    plain = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.2)
    wide = np.zeros((C.shape[0], 2 * C.shape[1]))
    wide[:, ::2] = C
    for other in (np.asfortranarray(C), wide[:, ::2], C.T.copy().T):
        close(epsot.solve(epsot.CostMatrix(other), a, b, eps=0.2).value, plain.value, 1e-12)
    single = epsot.solve(epsot.CostMatrix(C.astype(np.float32)), a, b, eps=0.2)
    assert single.value.dtype == np.float32
    close(single.value, plain.value, 1e-4)
    assert epsot.CostMatrix([[1, 2], [3, 4]]).dtype == np.float64


def test_scale_is_the_range_of_the_finite_costs() -> None:
    assert epsot.CostMatrix([[1.0, np.inf], [3.0, -2.0]]).scale() == 5.0
    assert epsot.CostMatrix([[2.0]]).scale() == 0.0


def test_parts_and_transpose() -> None:
    rng = np.random.default_rng(0)
    C, C_xx, C_yy = rng.random((4, 3)), np.ones((4, 4)), 2 * np.ones((3, 3))
    geometry = epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy)
    part = geometry.take(np.asarray([2, 0]), np.asarray([1]))
    close(part.C, C[[2, 0]][:, [1]], 0)
    assert part.C_xx.shape == (2, 2)
    assert part.C_yy.shape == (1, 1)
    close(geometry.T.C, C.T, 0)
    close(geometry.T.C_xx, C_yy, 0)
    close(geometry.source().C, C_xx, 0)
    assert not geometry.is_self()
    assert epsot.CostMatrix(C_xx, C_xx=C_xx, C_yy=C_xx).is_self()


def test_a_self_cost_that_forbids_everything_of_a_point() -> None:
    """Refused like a row of C: there is no plan of that measure with itself."""
    C, C_xx = np.ones((2, 2)), np.asarray([[0.0, np.inf], [np.inf, np.inf]])
    with pytest.raises(ValueError, match="C_xx"):
        epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=np.zeros((2, 2))), eps=1)


def rounded(C: np.ndarray, dtype: Any) -> np.ndarray:
    """The matrix in a dtype, with errors of a few units in the last place that are not symmetric."""
    noise = np.random.default_rng(2).integers(-4, 5, C.shape)
    return (C.astype(dtype) * (1 + noise * np.finfo(dtype).eps)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_self_costs_symmetric_to_rounding(dtype: Any) -> None:
    """They are made exactly so, with +inf where it was; and equal measures still have the divergence zero."""
    rng = np.random.default_rng(1)
    x, y = rng.random((40, 17)).astype(dtype) + 1, rng.random((30, 17)).astype(dtype) + 1
    C_xx, C_yy = rounded(power_cost(x, x), dtype), rounded(power_cost(y, y), dtype)
    C_xx[1, 2] = C_xx[2, 1] = np.inf
    assert np.any(C_xx != C_xx.T)
    kept = C_xx.copy()
    geometry = epsot.CostMatrix(power_cost(x, y).astype(dtype), C_xx=C_xx, C_yy=C_yy)
    np.testing.assert_array_equal(C_xx, kept)
    np.testing.assert_array_equal(geometry.C_xx, geometry.C_xx.T)
    np.testing.assert_allclose(geometry.C_xx, C_xx, atol=1e-4 if dtype == np.float32 else 1e-13)
    exact = epsot.divergence(epsot.PointCloud(x, y), eps=0.5)
    close(epsot.divergence(geometry, eps=0.5).value, exact.value, 1e-2)
    assert epsot.divergence(epsot.CostMatrix(C_yy, C_xx=C_yy, C_yy=C_yy), eps=0.5).value == 0


@pytest.mark.parametrize("change", [1e-9, 1.0, np.inf])
def test_self_costs_that_are_not_symmetric(change: float) -> None:
    C_xx = np.ones((4, 4))
    C_xx[1, 2] += change
    with pytest.raises(ValueError, match=r"`C_xx` must be symmetric; take the mean"):
        epsot.CostMatrix(np.ones((4, 4)), C_xx=C_xx, C_yy=np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"`C_yy` must be symmetric; take the mean"):
        epsot.CostMatrix(np.ones((4, 4)), C_xx=np.ones((4, 4)), C_yy=C_xx.T)
