"""What a result says of itself holds whatever constants, scales and rounding did on the way."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.results.result import SinkhornResult
from epsot.status import Status
from tests import checks


def true_error(result: SinkhornResult, C: np.ndarray) -> float:
    """The marginal error of the potentials, in float64."""
    problem, pair = result.instance.problem, result.dual_pair
    a, b = problem.a, problem.b
    rho = tuple(None if measure.balanced else measure.rho for measure in (a, b))
    P = checks.plan(pair.f, pair.g, C, a.weights, b.weights, result.eps)
    return checks.marginal_error(P, pair.f, pair.g, a.weights, b.weights, rho)


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


@pytest.mark.parametrize("seed", range(40))
def test_a_start_changes_no_answer(seed: int) -> None:
    """Of any size, beside the costs, the temperature or the reach; of all three parts."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((rng.integers(1, 30), 2)), rng.random((rng.integers(1, 30), 2)) + rng.choice([0, 3])
    size, options = 10.0 ** rng.uniform(-3, 9), {"blur": 10.0 ** rng.uniform(-1.5, 0), "tol": 1e-6}
    past = epsot.sinkhorn_divergence(size * x, size * (y + rng.normal()), blur=size * options["blur"])
    for reach in (None, 10.0 ** rng.uniform(-3, 2)):
        cold = epsot.sinkhorn_divergence(x, y, reach=reach, **options)
        warm = epsot.sinkhorn_divergence(x, y, reach=reach, init=past, **options)
        for one, other in zip(warm.parts, cold.parts, strict=True):
            assert one.nit <= 3 * other.nit + 10
            checks.close(one.value, other.value, 1e-5)
            assert true_error(one, half_squares(*_clouds(one))) <= 1.01e-6


def _clouds(result: SinkhornResult) -> tuple[np.ndarray, np.ndarray]:
    return result.instance.core.x, result.instance.core.y  # type: ignore[union-attr]


def test_a_shorter_reach_from_a_longer_one(clouds: Any) -> None:
    past = None
    for reach in (10.0, 1.0, 0.1, 0.01, 0.001):
        past = epsot.sinkhorn(*clouds, blur=0.1, reach=reach, init=past)
        assert past.success
        np.testing.assert_allclose(past.value, epsot.sinkhorn(*clouds, blur=0.1, reach=reach).value, rtol=1e-4)


@pytest.mark.parametrize("debias", [False, True])
def test_an_objective_follows_a_leap(clouds: Any, debias: bool) -> None:
    x, y = clouds
    objective, another = (epsot.Objective(y, blur=0.1, reach=0.1, debias=debias) for _ in range(2))
    objective(x.ravel())
    np.testing.assert_allclose(objective((x + 5).ravel())[0], another((x + 5).ravel())[0], rtol=1e-6)


def test_an_error_is_relative_to_the_mass_that_moves(clouds: Any) -> None:
    """Of clouds several reaches apart next to nothing is transported, and that little is right."""
    x, y = clouds
    result = epsot.sinkhorn(x, y + 6, blur=0.3, reach=1)
    exact = epsot.sinkhorn(x, y + 6, blur=0.3, reach=1, tol=1e-12, max_iter=9000)
    assert result.success
    assert result.plan.sum() < 1e-3
    assert true_error(result, half_squares(x, y + 6)) <= 1.01e-3
    np.testing.assert_allclose(result.plan.to_dense(), exact.plan.to_dense(), rtol=2e-2)
    np.testing.assert_allclose(result.grad_x, exact.grad_x, rtol=5e-3)


def test_mass_is_created_where_costs_are_negative(rng: np.random.Generator) -> None:
    C = rng.uniform(-10, 10, (8, 9))
    result = epsot.solve(epsot.CostMatrix(C), eps=0.02, rho=0.01)
    assert result.success
    assert true_error(result, C) <= 1.01e-3


@pytest.mark.parametrize("most", [1000, 7])
def test_two_outliers_hide_no_rounding(most: int) -> None:
    """Half of the mass of a side is in two points of 1500, a thousand diameters away; every row is measured."""
    rng = np.random.default_rng(0)
    x, y = rng.random((1500, 2)).astype(np.float32), rng.random((1500, 2)).astype(np.float32)
    a = np.full(1500, 0.5 / 1498)
    x[[3, 700]] += 1000
    a[[3, 700]] = 0.25
    with pytest.warns(epsot.ConvergenceWarning):
        result = epsot.sinkhorn(x, y, a, blur=0.01, max_iter=most)
    np.testing.assert_allclose(result.marginal_error, true_error(result, half_squares(x, y)), rtol=1e-2)


@pytest.mark.parametrize("blur", [0.003, 0.01, 0.3])
def test_cosine_rounds_unit_vectors(rng: np.random.Generator, blur: float) -> None:
    """However near the raw points are to each other, and to zero."""
    x, y = (1e-4 * (1 + 0.3 * rng.normal(size=(30, 5))).astype(np.float32) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = epsot.solve(epsot.PointCloud(x, y, cost="cosine"), eps=blur**2 / 100)
    u, v = (z.astype(float) / np.linalg.norm(z.astype(float), axis=1, keepdims=True) for z in (x, y))
    error = true_error(result, half_squares(u, v))
    assert error <= (2e-3 if result.success else 2.1 * result.marginal_error)


@pytest.mark.parametrize("cost", [1e9, 3e10, 1e11, 1e12, 4e12 + 0.37])
def test_one_pair_at_any_cost(cost: float) -> None:
    """Potentials of float64 may not resolve it; then the error says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = epsot.solve(epsot.CostMatrix([[cost]]), eps=0.005)
    f, g = (np.longdouble(z[0]) for z in (result.dual_pair.f, result.dual_pair.g))
    p = np.exp(((f + g) - np.longdouble(cost)) / np.longdouble(0.005))
    error = float(abs(p - 1) / max(p, 1))
    assert error <= (2e-3 if result.success else 1.01 * result.marginal_error)


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


@pytest.mark.usefixtures("step_by_step")
def test_a_fixed_point_of_rounding() -> None:
    """In float32 the step has a fixed point, with an error of zero, where the plan misses an eighth of its mass."""
    rng = np.random.default_rng(35)
    x, y = (rng.random((5, 4)).astype(np.float32) for _ in range(2))
    with pytest.warns(epsot.ConvergenceWarning, match=r"STALLED: .* marginal error 1\.3.e-01 .* float64"):
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


@pytest.mark.parametrize(("low", "high", "eps"), [(1e3, 1.001e3, 0.01), (1e4, 1.0001e4, 0.01), (20, 90, 1e-3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_float32_matrix_ends_where_its_float64_twin_does(
    rng: np.random.Generator, low: float, high: float, eps: float, order: Any
) -> None:
    """To the bit: what costs have in common takes no digits from what they differ in."""
    C = rng.uniform(low, high, (20, 30)).astype(np.float32)
    C[3] += 1e5  # one row far from all
    C[5, 7] = 1e15  # never
    single, double = (
        epsot.solve(epsot.CostMatrix(np.asarray(z, order=order)), eps=eps, tol=1e-6, max_iter=5000)
        for z in (C, C.astype(float))
    )
    assert single.success
    assert single.f.dtype == np.float32
    assert true_error(single, C.astype(float)) <= 1.01e-6
    np.testing.assert_array_equal(single.dual_pair.f, double.dual_pair.f)
    np.testing.assert_array_equal(single.plan.to_dense(), double.plan.to_dense().astype(np.float32))


@pytest.mark.usefixtures("step_by_step")
@pytest.mark.every  # of distances on a line
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_float64_is_advised_where_it_is_computed_with(rng: np.random.Generator, dtype: Any) -> None:
    """Costs whose digits float64 lacks as well, whatever the type of the entries."""
    C = (1e16 * (1 + rng.random((6, 7)))).astype(dtype)
    with pytest.warns(epsot.ConvergenceWarning, match="STALLED") as said:
        epsot.solve(epsot.CostMatrix(C), eps=0.01)
    assert "float64" not in str(said[0].message)


@pytest.mark.parametrize(("blur", "p"), [(0.05, 2), (0.003, 1)])
def test_a_plan_of_float32_shows_the_error_that_was_measured(blur: float, p: int, rng: np.random.Generator) -> None:
    """Exponents of thousands in float32 would show a plan whose marginals are a hundred times as far off."""
    x, y = rng.random((90, 17)).astype(np.float32), (0.8 * rng.random((80, 17)) + 0.3).astype(np.float32)
    result = epsot.sinkhorn(x, y, blur=blur, p=p, tol=1e-6, max_iter=3000)
    sums = result.plan.sum(axis=1).astype(float), result.plan.sum(axis=0).astype(float)
    shown = max(float(np.abs(z - 1 / len(z)).sum()) for z in sums)
    assert result.success
    assert shown <= result.marginal_error + 2.0**-23
    C = checks.power_cost(x, y, p)
    P = checks.plan(
        result.source.potential, result.target.potential, C, np.full(90, 1 / 90), np.full(80, 1 / 80), result.eps
    )
    step = (x[:, None].astype(float) - y) * (1 if p == 2 else 1 / C[:, :, None])
    assert np.abs(result.grad_x - (P[:, :, None] * step).sum(axis=1)).sum() <= 4e-6 * np.abs(step).max()
    checks.close(result.transport_cost, (P * C).sum(), 2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1, 2])
def test_temperatures_far_above_all_costs(p: int, dtype: Any, rng: np.random.Generator) -> None:
    """The plan is a b^T, and the value the mean cost, less about its square over 1e8.

    Any potentials make such a plan, nearly, and in float32 all exponents are zero.
    """
    x, y, a = rng.random((30, 2)).astype(dtype), rng.random((25, 2)).astype(dtype) + dtype(0.3), rng.random(30)
    a[3] = 0
    a, b, others, blur = a / a.sum(), np.full(25, 1 / 25), y[:9] + dtype(0.1), 1e8 ** (1 / p)
    C, c = checks.power_cost(x, y, p), np.full(9, 1 / 9)
    mean = a @ C @ b
    result = epsot.sinkhorn(x, y, a, blur=blur, p=p)
    assert result.success and result.f.dtype == dtype
    checks.close(result.value, mean, 1e-6)
    checks.close(result.f, C @ b - mean / 2, 1e-6)
    checks.close(result.g, a @ C - mean / 2, 1e-6)
    checks.close(result.potential(x[:5]), result.f[:5], 1e-6)
    xx, yy, zz = ((w @ checks.power_cost(z, z, p) @ w) / 2 for z, w in ((x, a), (y, b), (others, c)))
    expected = [mean - xx - yy, a @ checks.power_cost(x, others, p) @ c - xx - zz]
    found = epsot.sinkhorn_divergence(x, y, a, blur=blur, p=p)
    checks.close(found.value, expected[0], 1e-6)
    assert expected[0] - 1e-4 < found.dual < expected[0] + 1e-6
    checks.close(found.grad_b - found.grad_b.mean(), (z := a @ C - checks.power_cost(y, y, p) @ b) - z.mean(), 1e-6)
    batch = epsot.sinkhorn_divergence(x, [y, others], a, blur=blur, p=p)
    checks.close(batch.value, expected, 1e-6)
    checks.close(batch.g[0], found.g, 1e-6)
    checks.close(epsot.pairwise([x], [y, others], [a], blur=blur, p=p).value[0], expected, 1e-6)
    mixed = epsot.sinkhorn_divergence(x, y, a, blur=np.array([0.3, blur]), p=p)  # one of two is
    checks.close(mixed.value, [epsot.sinkhorn_divergence(x, y, a, blur=0.3, p=p).value, expected[0]], 1e-6)
    checks.close(mixed.g[1], found.g, 1e-6)


@pytest.mark.parametrize("mass", [1.0, 1.5])
def test_penalties_far_below_the_temperature(mass: float, rng: np.random.Generator) -> None:
    """To first order in C / eps f = rho / (rho + eps) (C b / m_b - eps log m_b), and so is g of a exp(f / eps)."""
    x, y, a, b = rng.random((30, 2)), rng.random((25, 2)) + 0.3, np.full(30, 1 / 30), np.full(25, mass / 25)
    C, eps, rho = checks.power_cost(x, y), 1e6, 1e-3
    result = epsot.sinkhorn(x, y, a, b, blur=1e3, reach=rho**0.5)
    batch = epsot.sinkhorn(x, y, a, b, blur=[1e3, 1e4], reach=rho**0.5)
    f = rho / (rho + eps) * (C @ b / mass - eps * np.log(mass))
    for found in (result, batch[0]):
        assert found.success
        checks.close(found.f / abs(f).max(), f / abs(f).max(), 1e-6)
        g = rho / (rho + eps) * ((w := a * np.exp(f / eps)) @ C / w.sum() - eps * np.log(w.sum()))
        checks.close(found.g / abs(g).max(), g / abs(g).max(), 1e-5)


def test_grids_at_temperatures_far_above_all_costs(rng: np.random.Generator) -> None:
    grid, (a, b) = epsot.Grid((4, 5)), rng.random((2, 4, 5)).astype(np.float32)
    a, b = a / a.sum(), b / b.sum()
    u, v = ((z.ravel() / z.sum(dtype=float)) @ grid.points for z in (a, b))
    checks.close(epsot.sinkhorn_divergence(grid, grid, a, b, blur=1e4).value, ((u - v) ** 2).sum() / 2, 1e-6)
