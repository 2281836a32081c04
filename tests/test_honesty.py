"""What a result says of itself holds whatever constants, scales and rounding did on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.result import SinkhornResult
from epsot.status import Status


def true_error(result: SinkhornResult, C: np.ndarray) -> float:
    """The marginal error of the potentials, in float64."""
    problem, pair = result.instance.problem, result.dual_pair
    P = np.exp((pair.f[:, None] + pair.g[None, :] - C) / result.eps) * problem.a[:, None] * problem.b
    return float(max(np.abs(P.sum(axis=1) - problem.a).sum(), np.abs(P.sum(axis=0) - problem.b).sum()))


def half_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(((x[:, None, :].astype(float) - y[None, :, :].astype(float)) ** 2).sum(axis=2) / 2)


@pytest.fixture
def clouds(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.random((50, 2)), rng.random((40, 2)) + 0.2


@pytest.mark.parametrize("shift", [1e4, 1e7, 1e8])
def test_a_start_from_far_away(clouds: Any, shift: float) -> None:
    """Its potentials are so large that those of the problem are lost beside them."""
    x, y = clouds
    far = epsot.sinkhorn(x, y + shift, blur=shift / 10)
    result, desired = epsot.sinkhorn(x, y, blur=0.05, init=far), epsot.sinkhorn(x, y, blur=0.05)
    assert result.success
    assert true_error(result, half_squares(x, y)) <= 1.01e-3
    np.testing.assert_allclose(result.value, desired.value, rtol=1e-4)


def test_an_objective_forgets_an_overshoot(clouds: Any) -> None:
    x, y = clouds
    objective = epsot.Objective(y, blur=0.05)
    value, gradient = objective(x.ravel())
    with pytest.warns(epsot.ConvergenceWarning, match="STALLED"):  # costs of 1e16 at a temperature of 0.0025
        objective((x + 1e8).ravel())
    again, gradient_again = objective(x.ravel())
    np.testing.assert_allclose(again, value, rtol=1e-6)
    np.testing.assert_allclose(gradient_again, gradient, atol=1e-6)


@pytest.mark.parametrize("large", [1e6, 1e12, 1e20])
def test_a_large_cost_forbids(rng: np.random.Generator, large: float) -> None:
    """The temperature falls from it through twenty decades, and the potentials come from there."""
    C = rng.random((40, 40))
    forbidden = rng.random((40, 40)) < 0.5
    np.fill_diagonal(forbidden, False)
    finite, infinite = np.where(forbidden, large, C), np.where(forbidden, np.inf, C)
    result = epsot.solve(epsot.CostMatrix(finite), eps=0.05)
    assert result.success
    assert true_error(result, finite) <= 1.01e-3
    np.testing.assert_allclose(result.value, epsot.solve(epsot.CostMatrix(infinite), eps=0.05).value, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_of_weight_zero_does_not_count(clouds: Any, dtype: Any) -> None:
    x, y = (cloud.astype(dtype) for cloud in clouds)
    padded, a = np.vstack([x, [[1e10, -1e10]]]).astype(dtype), np.append(np.full(50, 0.02), 0.0)
    result, desired = epsot.sinkhorn(padded, y, a, blur=0.05), epsot.sinkhorn(x, y, a[:-1], blur=0.05)
    assert result.nit == desired.nit
    np.testing.assert_array_equal(result.value, desired.value)


@pytest.mark.parametrize("diameter", [1e9, 1e17])
def test_a_start_at_any_temperature(clouds: Any, diameter: float) -> None:
    x, y = clouds
    result = epsot.sinkhorn(x, y, blur=0.05, diameter=diameter)
    assert result.success
    assert true_error(result, half_squares(x, y)) <= 1.01e-3


def test_a_fixed_point_of_rounding() -> None:
    """In float32 the step has a fixed point, with an error of zero, where the plan misses the weights by a seventh."""
    rng = np.random.default_rng(35)
    x, y = (rng.random((5, 4)).astype(np.float32) for _ in range(2))
    with pytest.warns(epsot.ConvergenceWarning, match=r"STALLED: .* marginal error 1\.4.e-01 .* float64"):
        result = epsot.sinkhorn(x, y, blur=3e-4)
    assert not result.success
    np.testing.assert_allclose(result.marginal_error, true_error(result, half_squares(x, y)), rtol=1e-6)
    assert epsot.sinkhorn(x.astype(float), y.astype(float), blur=3e-4).success


@pytest.mark.filterwarnings("ignore::epsot.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(60))
def test_single_precision_keeps_its_word(seed: int) -> None:
    """Converged is at most twice the tolerance, of which a sample is looked at, and no gap is negative."""
    rng = np.random.default_rng(seed)
    (n, m), d = rng.integers(2, 200, 2), rng.integers(1, 30)
    x, y = rng.random((n, d)).astype(np.float32), (rng.random((m, d)) + rng.random()).astype(np.float32)
    result = epsot.sinkhorn(x, y, blur=10 ** rng.uniform(-3, 0), max_iter=200)
    error = true_error(result, half_squares(x, y))
    assert error <= (2.1e-3 if result.success else 2.1 * max(result.marginal_error, 1e-3))
    assert result.primal64 - result.dual64 >= -1e-12 * abs(result.value64)


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_a_constant_in_a_matrix(rng: np.random.Generator, offset: float) -> None:
    """It takes the digits of float32 costs, and the cure is named: not more iterations."""
    C = (offset + rng.random((100, 120))).astype(np.float32)
    with pytest.warns(epsot.ConvergenceWarning, match="STALLED: .* use float64"):
        result = epsot.solve(epsot.CostMatrix(C), eps=0.01)
    assert result.nit < 100
    assert epsot.solve(epsot.CostMatrix(C.astype(float)), eps=0.01).success


def test_the_gap_beside_an_outlier(rng: np.random.Generator) -> None:
    x, y = rng.random((200, 1)).astype(np.float32), rng.random((200, 1)).astype(np.float32)
    y[0] = 1e4
    with pytest.warns(epsot.ConvergenceWarning):
        result = epsot.sinkhorn(x, y, blur=0.01, p=1)
    value = epsot.sinkhorn(x.astype(float), y.astype(float), blur=0.01, p=1, tol=1e-9, max_iter=9000).value
    assert result.dual64 - 1e-9 <= value <= result.primal64 + 1e-9


def test_a_schedule_stopped_early_has_a_plan(clouds: Any) -> None:
    def stop(intermediate: Any) -> None:
        if intermediate.nit == 3:
            raise StopIteration

    result = epsot.sinkhorn(*clouds, blur=0.05, tol=None, callback=stop)
    assert result.status is Status.STOPPED
    np.testing.assert_allclose(result.plan.sum(), 1)
    assert 0 < result.value < 1


def test_an_objective_without_a_tolerance_is_a_function(clouds: Any) -> None:
    x, y = clouds
    objective = epsot.Objective(y, blur=0.1, tol=None)
    first, again = objective(x.ravel()), objective(x.ravel())
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])


def test_an_objective_keeps_its_own_data(clouds: Any) -> None:
    x, y = clouds
    target, a = y.copy(), np.full(50, 0.02)
    objective = epsot.Objective(target, blur=0.1, a=a)
    value, _ = objective(x.ravel())
    target[:] = 7
    a[:] = 5
    np.testing.assert_allclose(objective(x.ravel())[0], value, rtol=1e-6)


def test_potentials_are_the_users_own(clouds: Any) -> None:
    result = epsot.sinkhorn(*clouds, blur=0.1)
    f = result.f
    f[:] = 0
    assert np.any(result.f != 0)


def test_words_and_numbers_of_a_divergence_agree(clouds: Any) -> None:
    """The error and the iterations beside a status are those of all parts, the message is that of the worst."""
    x, _ = clouds
    with pytest.warns(epsot.ConvergenceWarning, match="after 25 iterations"):
        result = epsot.sinkhorn_divergence(x, x + 1e-2 * x**2, blur=0.3, tol=1e-13, max_iter=25)
    assert f"{result.marginal_error:.3e}" in repr(result)
    assert f"nit: {result.xy.nit}, {result.xx.nit}, {result.yy.nit} (xy, xx, yy)" in repr(result)
    assert f"{result.marginal_error:.2e}" in result.message


@pytest.mark.parametrize("scale", [1e22, 1e24])
@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
def test_what_leaves_float32_is_said(clouds: Any, entry: Any, scale: float) -> None:
    """Numbers that float32 cannot hold are infinite, arrays and single ones, and not in silence."""
    x, y = (scale * cloud.astype(np.float32) for cloud in clouds)
    result = entry(x, y + 3 * scale, blur=scale / 10)
    assert result.success
    for name in ("value", "f", "g", "grad_a", "grad_b", "dual", "primal"):
        with pytest.warns(epsot.PrecisionWarning, match="float64"):
            assert np.all(np.isinf(getattr(result, name))), name
    with pytest.warns(epsot.PrecisionWarning, match="float64"):
        assert np.all(np.isinf(result.potential(x[:3])))
    with pytest.warns(epsot.PrecisionWarning, match="float64"):
        assert np.isinf(result.plan @ np.full(40, 1e45)).all()
    assert np.isfinite(result.grad_x).all()
    assert np.isfinite(result.displacement).all()


def test_what_is_infinite_in_float64_is_said_by_nobody() -> None:
    """The potential of a point without a partner: infinite is its number."""
    C = np.asarray([[0.0, 1.0], [np.inf, np.inf]], dtype=np.float32)
    result = epsot.solve(epsot.CostMatrix(C), [1, 0], eps=1)
    np.testing.assert_array_equal(result.f, [result.f[0], np.inf])
