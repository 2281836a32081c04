"""What hurts users of other libraries, symptom by symptom: each test is named after one."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import Status
from tests import checks


def clouds(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two clouds with weights that are not uniform, have a zero each, and sum to one."""
    rng = np.random.default_rng([seed, n, m, d])
    x, y = rng.normal(size=(n, d)), 0.8 * rng.normal(size=(m, d)) + 0.3
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    a[n // 3] = b[m // 2] = 0
    return x, y, a / a.sum(), b / b.sum()


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)


# Negative divergence at default settings


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 1.0])
@pytest.mark.parametrize("blur", [2.0, 0.3, 0.05])
@pytest.mark.parametrize("shift", [0.0, 1e-3])
def test_negative_divergence(p: int, reach: float | None, blur: float, shift: float) -> None:
    """Of two samples of one measure: not below -gap at the default settings; at a small tolerance not negative."""
    x, y, a, b = clouds(60, 50, 2)
    y = np.concatenate([x[:25] + shift, y[25:]])
    result = epsot.sinkhorn_divergence(x, y, a, b, blur=blur, p=p, reach=reach)
    assert result.success
    assert result.value >= -result.gap
    fine = epsot.sinkhorn_divergence(x, y, a, b, blur=blur, p=p, reach=reach, tol=1e-7, max_iter=20_000)
    assert fine.success
    assert fine.value > -1e-9
    np.testing.assert_allclose(result.value, fine.value, atol=float(result.gap) + 1e-9)


def test_negative_divergence_of_the_same_sample() -> None:
    """The same points in another order are the same measure."""
    x, _, a, _ = clouds(80, 2, 3)
    order = np.random.default_rng(1).permutation(80)
    for dtype, tol in ((np.float64, 1e-9), (np.float32, 1e-5)):
        result = epsot.sinkhorn_divergence(x.astype(dtype), x[order].astype(dtype), a, a[order], blur=0.3, tol=tol)
        assert result.success
        assert abs(result.value) < tol / 10


# Identical or single-point clouds crash


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("p", [1, 2])
def test_identical_clouds_crash(n: int, p: int) -> None:
    """Value 0, gradient 0, also for one point and for points that coincide."""
    for x in (np.random.default_rng(n).normal(size=(n, 3)), np.ones((n, 3))):
        result = epsot.sinkhorn_divergence(x, x, blur=0.1, p=p)
        assert result.success
        assert result.value == 0
        np.testing.assert_array_equal(result.grad_x, np.zeros((n, 3)))
        np.testing.assert_array_equal(result.displacement, np.zeros((n, 3)))


def test_single_point_clouds_crash() -> None:
    result = epsot.sinkhorn([[0.0]], [[3.0]], blur=0.1)
    np.testing.assert_allclose(result.value, 4.5)
    np.testing.assert_allclose(result.displacement, [[3.0]])


# Gradients wrong by a factor


def slope(value: Any, z: np.ndarray, direction: np.ndarray, step: float = 1e-5) -> float:
    """The derivative along a direction, by central differences of fourth order."""
    near, far = (value(z + k * step * direction) - value(z - k * step * direction) for k in (1, 2))
    return float((8 * near - far) / (12 * step))


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 0.7, (0.5, None)])
def test_gradients_wrong_by_a_factor(entry: Any, p: int, reach: Any) -> None:
    """Twice too large, (rho + eps/2) / (rho + eps), a missing eps log a: finite differences tell."""
    x, y, a, b = clouds(7, 6, 2)
    a, b = np.maximum(a, 0.03), np.maximum(b, 0.03)
    a, b = 1.3 * a / a.sum(), (1.3 if reach is None else 0.9) * b / b.sum()
    options: dict[str, Any] = {"blur": 0.6, "p": p, "reach": reach, "tol": 1e-13, "max_iter": 20_000}
    warnings.simplefilter("ignore", epsot.ConvergenceWarning)  # 1e-13 may be below what rounding allows
    rng = np.random.default_rng(2)
    result = entry(x, y, a, b, **options)
    move = rng.normal(size=x.shape)
    by_differences = slope(lambda z: entry(z, y, a, b, **options).value64, x, move)
    np.testing.assert_allclose(np.sum(result.grad_x * move), by_differences, rtol=1e-6, atol=1e-8)
    weigh = rng.normal(size=a.shape) * a
    if reach is None:
        weigh -= weigh.sum() * a / a.sum()  # the mass is fixed
    by_differences = slope(lambda z: entry(x, y, z, b, **options).value64, a, weigh)
    np.testing.assert_allclose(np.sum(result.grad_a * weigh), by_differences, rtol=1e-6, atol=1e-8)


# Unbalanced values wrong or near zero


@pytest.mark.parametrize("rho", [(0.3, 0.3), (0.3, 2.0)])
@pytest.mark.parametrize("masses", [(1.0, 1.0), (2.5, 0.4)])
def test_unbalanced_values_wrong(rho: tuple[float, float], masses: tuple[float, float]) -> None:
    """OT = eps mA mB + rho_a mA + rho_b mB - (eps + rho_a + rho_b) sum(P) at the optimum, and the primal agrees."""
    x, y, a, b = clouds(20, 15, 2)
    a, b = masses[0] * a, masses[1] * b
    eps, (rho_a, rho_b), (mass_a, mass_b) = 0.2, rho, masses
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=eps, rho=rho, tol=1e-11, max_iter=20_000)
    P = result.plan.to_dense()
    identity = eps * mass_a * mass_b + rho_a * mass_a + rho_b * mass_b - (eps + rho_a + rho_b) * P.sum()
    np.testing.assert_allclose(result.value, identity, rtol=1e-9)

    def kl(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(q > 0, q, 1)), 0) - p + q))

    primal = np.sum(P * squares(x, y)) / 2 + eps * kl(P, np.outer(a, b))
    primal += rho_a * kl(P.sum(axis=1), a) + rho_b * kl(P.sum(axis=0), b)
    np.testing.assert_allclose(result.value, primal, rtol=1e-9)


def test_unbalanced_values_of_two_points() -> None:
    """In closed form: with unit masses at distance c, log P = -c / (eps + 2 rho)."""
    cost, eps, rho = 2.0, 0.25, 0.7
    result = epsot.solve(epsot.CostMatrix([[cost]]), [1.0], [1.0], eps=eps, rho=rho, tol=1e-13)
    P = np.exp(-cost / (eps + 2 * rho))
    np.testing.assert_allclose(result.plan.sum(), P, rtol=1e-12)
    np.testing.assert_allclose(result.value, (eps + 2 * rho) * (1 - P), rtol=1e-12)


def test_unbalanced_with_a_long_reach_is_balanced() -> None:
    x, y, a, b = clouds(20, 15, 2)
    balanced = epsot.sinkhorn(x, y, a, b, blur=0.3, tol=1e-9)
    nearly = epsot.sinkhorn(x, y, a, b, blur=0.3, reach=1e3, tol=1e-9)
    np.testing.assert_allclose(nearly.value, balanced.value, rtol=1e-5)


# `converged` on a diverged run; float32 runs all iterations for a tolerance it cannot reach


def test_converged_is_honest() -> None:
    """The error that is reported is the error of the plan that is returned."""
    x, y, a, b = clouds(120, 100, 2)
    for options in ({}, {"reach": 0.5}, {"tol": 1e-7}, {"blur": 0.02}):
        result = epsot.sinkhorn(x, y, a, b, **{"blur": 0.1, "max_iter": 5000, **options})
        assert result.success
        error = checks.marginal_error(result.plan.to_dense(), result.f, result.g, a, b, result.rho)
        assert error <= 1.01 * options.get("tol", 1e-3) + 1e-12
        np.testing.assert_allclose(error, result.marginal_error, rtol=1e-4, atol=1e-12)


def test_not_converging_is_said() -> None:
    """A warning that names the error and the cure, a status, and success that is False."""
    x, y, a, b = clouds(60, 50, 2)
    with pytest.warns(epsot.ConvergenceWarning, match=r"MAX_ITER.*marginal error \d\.\d+e.*raise `max_iter`"):
        result = epsot.sinkhorn(x, y, a, b, blur=0.01, max_iter=20)
    assert not result.success
    assert result.status is Status.MAX_ITER
    assert result.nit == 20
    assert result.marginal_error > 1e-3
    assert "MAX_ITER" in repr(result)


def test_the_warning_points_at_the_user() -> None:
    """Not at a line inside the package."""
    x, y, _, _ = clouds(30, 30, 2)
    for entry in (epsot.sinkhorn, epsot.sinkhorn_divergence):
        with pytest.warns(epsot.ConvergenceWarning) as caught:
            entry(x, y, blur=0.01, max_iter=3)
        assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(epsot.ConvergenceWarning) as caught:
        epsot.solve(epsot.PointCloud(x, y), eps=1e-4, max_iter=3)
        epsot.divergence(epsot.PointCloud(x, y), eps=1e-4, max_iter=3)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("seed", [3, 9, 10])
def test_a_plateau_is_not_the_end(seed: int) -> None:
    """The error of exact iterations may rest on one digit for hundreds of steps, while mass travels between clusters,
    and then fall to zero: that is not the precision of the data type. Plain steps end it within 3000 here.
    """
    x, y, a, b = clouds(60, 50, 2, seed)
    result = epsot.sinkhorn(x, y, a, b, blur=0.05, max_iter=20_000)
    assert result.success


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tolerance_out_of_reach_stalls(dtype: Any) -> None:
    """It says so well before `max_iter`, and what it returns is as good as the dtype allows.

    Iterations at a large blur could end in a fixed point of the arithmetic, whose measured error is zero.
    """
    x, y, a, b = clouds(100, 80, 3)
    with pytest.warns(epsot.ConvergenceWarning, match=r"STALLED.*raise `tol`"):
        result = epsot.sinkhorn(x.astype(dtype), y.astype(dtype), a, b, blur=0.1, tol=1e-18, max_iter=100_000)
    assert result.status is Status.STALLED
    assert result.nit < 2000
    assert result.marginal_error < (1e-4 if dtype is np.float32 else 1e-12)


def test_no_plan_at_all_is_no_success() -> None:
    """Forbidden pairs that leave no plan with these marginals: said, with the error that was reached."""
    inf = np.inf
    cost = np.asarray([[0, inf, inf], [0, inf, inf], [0, 0, 0.0]])
    with pytest.warns(epsot.ConvergenceWarning, match="marginal error 6.67e-01"):
        result = epsot.solve(epsot.CostMatrix(cost), eps=0.1)
    assert result.status is Status.MAX_ITER


# NaN for zero weights


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize("reach", [None, 0.7])
def test_nan_for_zero_weights(entry: Any, reach: float | None) -> None:
    """Everything is finite, and equal to the problem without these points."""
    x, y, a, b = clouds(20, 15, 2)
    a[:5] = 0
    a /= a.sum()
    options: dict[str, Any] = {"blur": 0.3, "reach": reach, "tol": 1e-10, "max_iter": 5000}
    result = entry(x, y, a, b, **options)
    core = entry(x[a > 0], y[b > 0], a[a > 0], b[b > 0], **options)
    np.testing.assert_allclose(result.value, core.value, rtol=1e-12)
    np.testing.assert_allclose(result.displacement[a > 0], core.displacement, atol=1e-9)
    for name in ("f", "g", "grad_x", "grad_y", "grad_a", "grad_b", "displacement", "gap"):
        assert np.isfinite(getattr(result, name)).all(), name
    assert np.isfinite(result.plan.barycentric_map()).all()
    assert np.isfinite(result.plan.T.barycentric_map()).all()


# A float32 value off by 6.6 % after a shift of 1000


@pytest.mark.filterwarnings("ignore:STALLED:epsot.ConvergenceWarning")  # at 4e-5 in 40 dimensions
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(
    ("library", "d"),
    [
        *(pytest.param("numpy", d, marks=() if d == 3 else pytest.mark.every) for d in (1, 3, 17, 40)),
        *(pytest.param("torch", d, marks=() if d == 3 else pytest.mark.every) for d in (1, 3)),
    ],
)
def test_float32_after_a_shift_of_1000(p: int, d: int, library: str) -> None:
    """1e-4 or better: coordinates are multiples of 1/1024, so that the shift itself is exact."""
    xp = pytest.importorskip(library)
    x, y, a, b = clouds(60, 50, d)
    x, y = np.round(x * 1024) / 1024, np.round(y * 1024) / 1024
    options: dict[str, Any] = {"blur": 0.3, "p": p, "tol": 1e-5}
    exact = epsot.sinkhorn_divergence(x, y, a, b, blur=0.3, p=p, tol=1e-9, max_iter=20_000)
    weights = xp.asarray(a), xp.asarray(b)
    for shift in (0, 1000):
        near, far = (xp.asarray((z + shift).astype(np.float32)) for z in (x, y))
        result = epsot.sinkhorn_divergence(near, far, *weights, **options)
        np.testing.assert_allclose(float(result.value), exact.value, rtol=1e-4)
        np.testing.assert_allclose(np.asarray(result.grad_x), exact.grad_x, atol=2e-4)


# eps and blur mean different things


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 0.8, (0.8, None)])
def test_one_meaning_of_eps_and_blur(p: int, reach: Any) -> None:
    """sinkhorn(blur, reach) is solve(eps=blur**p, rho=reach**p), and a CostMatrix of C = |x - y|^p / p the same."""
    x, y, a, b = clouds(15, 12, 2)
    blur = 0.6
    rho = tuple(r and r**p for r in reach) if isinstance(reach, tuple) else reach and reach**p
    exact: dict[str, Any] = {"tol": 1e-11, "max_iter": 10_000}

    def cost(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return squares(u, v) ** (p / 2) / p

    matrix = epsot.CostMatrix(cost(x, y), C_xx=cost(x, x), C_yy=cost(y, y))
    for by_length, by_temperature in ((epsot.sinkhorn, epsot.solve), (epsot.sinkhorn_divergence, epsot.divergence)):
        length = by_length(x, y, a, b, blur=blur, p=p, reach=reach, **exact)
        for geometry in (epsot.PointCloud(x, y, p=p), matrix):
            result = by_temperature(geometry, a, b, eps=blur**p, rho=rho, **exact)
            assert result.eps == length.eps == blur**p
            assert result.rho == length.rho == rho
            np.testing.assert_allclose(result.value, length.value, rtol=1e-9)
            np.testing.assert_allclose(result.f, length.f, atol=1e-8)
            np.testing.assert_allclose(result.grad_b, length.grad_b, atol=1e-8)


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_named_costs_are_scipy_s(name: str, any_path: None) -> None:
    """ "sqeuclidean" is |x - y|^2, with no half, whatever p is."""
    from scipy.spatial.distance import cdist

    x, y, a, b = clouds(15, 12, 3)
    for p in (1, 2):
        cloud = epsot.solve(epsot.PointCloud(x, y, p=p, cost=name), a, b, eps=0.3, tol=1e-10)
        matrix = epsot.solve(epsot.CostMatrix(cdist(x, y, name)), a, b, eps=0.3, tol=1e-10)
        np.testing.assert_allclose(cloud.value, matrix.value, rtol=1e-9)
        np.testing.assert_allclose(cloud.plan.to_dense(), matrix.plan.to_dense(), atol=1e-9)


def test_sqeuclidean_is_twice_the_default_cost() -> None:
    """The same plan at twice the temperature, twice the value."""
    x, y, a, b = clouds(15, 12, 2)
    half = epsot.sinkhorn(x, y, a, b, blur=0.5, tol=1e-11)
    whole = epsot.solve(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, eps=2 * 0.5**2, tol=1e-11)
    np.testing.assert_allclose(whole.value, 2 * half.value, rtol=1e-10)
    np.testing.assert_allclose(whole.plan.to_dense(), half.plan.to_dense(), atol=1e-10)


# plan.T fails for n != m; rows and columns are confused


def test_rows_are_the_source() -> None:
    x, y, a, b = clouds(9, 6, 2)
    result = epsot.sinkhorn(x, y, a, b, blur=0.3, tol=1e-10)
    plan, eps = result.plan, result.eps
    P = a[:, None] * b * np.exp((result.f[:, None] + result.g - squares(x, y) / 2) / eps)
    assert plan.shape == (9, 6)
    assert plan.T.shape == (6, 9)
    np.testing.assert_allclose(plan.to_dense(), P, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(plan.T.to_dense(), P.T, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(plan.T.T.to_dense(), P, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-9)
    np.testing.assert_allclose(plan.T.sum(axis=1), b, atol=1e-9)
    np.testing.assert_allclose(plan @ y, P @ y, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(plan.T @ x, P.T @ x, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(plan.rows(2), P[2], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(plan.T.rows(2), P[:, 2], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(plan.barycentric_map()[a > 0], (P @ y)[a > 0] / P.sum(axis=1)[a > 0, None], rtol=1e-9)
    np.testing.assert_allclose(plan.T.barycentric_map()[b > 0], (P.T @ x)[b > 0] / b[b > 0, None], rtol=1e-8)
    i, j = plan.sample(200, rng=0)
    assert i.max() < 9
    assert j.max() < 6
    operator = plan.as_linear_operator()
    np.testing.assert_allclose(operator @ y, plan @ y)
    np.testing.assert_allclose(operator.T @ x, plan.T @ x)


# Applying or exporting the plan needs terabytes


@pytest.mark.parametrize("mass", [0.5, 0.9, 1.0])
def test_exports_keep_the_largest_entries(mass: float) -> None:
    """In every row the fewest entries that carry the share of its mass, their values unchanged."""
    x, y, a, b = clouds(40, 30, 2)
    plan = epsot.sinkhorn(x, y, a, b, blur=0.3).plan
    P, sparse = plan.to_dense(), plan.to_sparse(mass=mass)
    assert sparse.shape == P.shape
    found = sparse.toarray()
    np.testing.assert_array_equal(found[found > 0], P[found > 0])
    for row, kept in zip(P, found, strict=True):
        assert kept.sum() >= mass * row.sum() * (1 - 1e-11)
        largest = np.cumsum(np.sort(row)[::-1])
        needed = np.count_nonzero(largest < mass * row.sum() * (1 - 1e-14)) + 1
        assert np.count_nonzero(kept) <= needed
        if 0 < np.count_nonzero(kept) < np.count_nonzero(row):
            assert kept[kept > 0].min() >= row[kept == 0].max()


def test_exports_are_capped() -> None:
    x, y, a, b = clouds(40, 30, 2)
    plan = epsot.sinkhorn(x, y, a, b, blur=1.0).plan
    sparse = plan.to_sparse(mass=1.0, max_per_row=3)
    assert np.diff(sparse.indptr).max() == 3
    P = plan.to_dense()
    np.testing.assert_allclose(np.sort(P, axis=1)[:, -3:].sum(axis=1), sparse.sum(axis=1), rtol=1e-14)
    assert sparse.has_sorted_indices


def test_the_plan_is_never_stored() -> None:
    """Products, maps, exports and samples of 24 million pairs (192 MB as numbers) take a fraction of that."""
    rng = np.random.default_rng(0)
    x, y = rng.random((6000, 2)), rng.random((4000, 2))
    result = epsot.sinkhorn(x, y, blur=0.05)
    plan = result.plan
    plan @ y, plan.sum(axis=0)  # compiled and warm
    tracemalloc.start()
    plan @ y, plan.T @ x, plan.sum(axis=0), plan.barycentric_map(), plan.sample(1000, rng=0), result.gap
    _, light = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    sparse = plan.to_sparse(mass=0.5, max_per_row=10)
    _, export = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sparse.nnz <= 60_000
    assert light < 130e6
    assert export < 190e6


# Twelve hours without a sign of life


def test_callback_after_every_iteration() -> None:
    x, y, a, b = clouds(60, 50, 2)
    seen: list[tuple[int, float, float]] = []
    result = epsot.sinkhorn(x, y, a, b, blur=0.1, callback=lambda i: seen.append((i.nit, i.eps, i.marginal_error)))
    assert [nit for nit, _, _ in seen] == list(range(1, result.nit + 1))
    assert seen[0][1] > seen[-1][1] == result.eps
    assert seen[-1][2] <= 1e-3 < seen[0][2]


def test_a_callback_stops_a_solve() -> None:
    """StopIteration: not a success, not a warning, and what was reached is returned and can be resumed."""
    x, y, a, b = clouds(60, 50, 2)

    def stop(intermediate: Any) -> None:
        if intermediate.nit == 12:
            raise StopIteration

    for entry in (epsot.sinkhorn, epsot.sinkhorn_divergence):
        result = entry(x, y, a, b, blur=0.1, tol=1e-6, callback=stop)
        assert result.status is Status.STOPPED
        assert not result.success
        assert np.isfinite(result.value)
        assert np.isfinite(result.grad_x).all()
        assert result.nit in (12, 13)  # one more where the potentials belonged to a higher temperature
        resumed = entry(x, y, a, b, blur=0.1, tol=1e-6, init=result, max_iter=5000)
        assert resumed.success


def test_a_progress_bar_is_one_line() -> None:
    """``with tqdm() as bar: sinkhorn(..., callback=lambda i: bar.update())``, tqdm or anything like it."""
    x, y, a, b = clouds(60, 50, 2)
    try:
        from tqdm import tqdm

        out = io.StringIO()
        with tqdm(file=out, mininterval=0) as bar:
            result = epsot.sinkhorn(x, y, a, b, blur=0.1, callback=lambda i: bar.update())
        assert bar.n == result.nit
        assert str(result.nit) in out.getvalue()
    except ImportError:

        class Bar:
            n = 0

            def update(self, n: int = 1) -> bool | None:
                self.n += n
                return False

        bar = Bar()
        assert epsot.sinkhorn(x, y, a, b, blur=0.1, callback=lambda i: bar.update()).nit == bar.n


def test_logging_once_a_temperature(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, with the temperature, the iterations and the error; silent by default."""
    x, y, a, b = clouds(60, 50, 2)
    temperatures: set[float] = set()
    with caplog.at_level(logging.INFO, logger="epsot"):
        result = epsot.sinkhorn(x, y, a, b, blur=0.1, callback=lambda i: temperatures.add(i.eps))
    lines = [record.getMessage() for record in caplog.records if record.name == "epsot"]  # without what is compiled
    assert len(lines) == len(temperatures)
    assert all(record.levelno == logging.INFO for record in caplog.records)
    assert "eps 1.000e-02" in lines[-1]
    assert f"iteration {result.nit}" in lines[-1]
    assert "marginal error" in lines[-1]
    caplog.clear()
    epsot.sinkhorn(x, y, a, b, blur=0.1)
    assert not caplog.records


def test_silent_by_default() -> None:
    """Nothing on stdout or stderr, not even the first time."""
    script = "import numpy as np, epsot; epsot.sinkhorn(np.ones((3, 1)), np.zeros((2, 1)), blur=0.5)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=120)
    assert done.stdout == done.stderr == b""


# Duplicates when sampling pairs


def test_duplicates_when_sampling() -> None:
    """Stratified: with uniform weights every source point exactly once. Independent: as chance has it."""
    x, y, _, _ = clouds(50, 40, 2)
    plan = epsot.sinkhorn(x, y, blur=0.3, tol=1e-12, max_iter=10_000).plan
    i, j = plan.sample(rng=0, mode="stratified")
    np.testing.assert_array_equal(i, np.arange(50))
    assert j.shape == (50,)
    i, _ = plan.sample(150, rng=1, mode="stratified")
    np.testing.assert_array_equal(np.bincount(i, minlength=50), np.full(50, 3))
    i, _ = plan.sample(rng=0)
    assert len(np.unique(i)) < 50


def test_stratified_samples_follow_the_weights() -> None:
    """Row i comes up floor or ceil of its share."""
    x, y, a, b = clouds(50, 40, 2)
    result = epsot.sinkhorn(x, y, a, b, blur=0.3)
    share = 333 * result.plan.sum(axis=1) / result.plan.sum()
    i, _ = result.plan.sample(333, rng=2, mode="stratified")
    count = np.bincount(i, minlength=50)
    assert (np.abs(count - share) < 1).all()
    assert count[a == 0].sum() == 0


@pytest.mark.parametrize("mode", ["independent", "stratified"])
def test_samples_have_the_right_frequencies(mode: Any) -> None:
    """Within five standard deviations in every cell; never a forbidden pair or a point of weight zero."""
    cost = np.random.default_rng(3).random((6, 5))
    cost[0, :3] = np.inf
    _, _, a, b = clouds(6, 5, 1)
    plan = epsot.solve(epsot.CostMatrix(cost), a, b, eps=0.2).plan
    size, P = 20_000, plan.to_dense() / plan.sum()
    i, j = plan.sample(size, rng=4, mode=mode)
    count = np.zeros((6, 5))
    np.add.at(count, (i, j), 1)
    assert (np.abs(count - size * P) <= 5 * np.sqrt(size * P) + 1e-9).all()


def test_sampling_is_reproducible() -> None:
    """rng= as in SciPy: a seed, a generator, or None; NumPy's global state is neither read nor moved."""
    x, y, a, b = clouds(50, 40, 2)
    plan = epsot.sinkhorn(x, y, a, b, blur=0.3).plan
    first, second = plan.sample(30, rng=5), plan.sample(30, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(first, second)
    generator = np.random.default_rng(5)
    np.testing.assert_array_equal(plan.sample(30, rng=generator), first)
    assert not np.array_equal(plan.sample(30, rng=generator), first)
    assert not np.array_equal(plan.sample(30), plan.sample(30))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    plan.sample(30)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# Integer or list inputs fail, inputs are modified


def test_integer_and_list_inputs() -> None:
    """In `test_inputs.py` at length; here the shortest call that users try first."""
    result = epsot.sinkhorn_divergence([[0, 0], [1, 2]], [[3, 4], [5, 6]], [1, 3], [2, 2], blur=1)
    assert result.value.dtype == np.float64
    assert result.value > 0
    assert epsot.solve(epsot.CostMatrix([[0, 1], [1, 0]]), [1, 1], [1, 1], eps=1).success


# GPU slower than CPU for small n: no hidden copies


def test_no_hidden_copies() -> None:
    """Potentials and gradients are computed once; `repr` computes nothing."""
    x, y, a, b = clouds(40, 30, 2)
    result = epsot.sinkhorn(x, y, a, b, blur=0.3)
    kernel = type(result.instance.problem.kernel)
    calls: list[str] = []

    def read(result: Any, name: str) -> None:
        value = getattr(result, name)
        if callable(value):
            value()

    with pytest.MonkeyPatch.context() as patch:
        for name in ("softmin", "softmin_pair", "softmin_self", "apply", "cost_apply", "cost_gradient", "plan_rows"):
            plain = getattr(kernel, name)

            def counted(*args: Any, _plain: Any = plain, _name: str = name, **options: Any) -> Any:
                calls.append(_name)
                return _plain(*args, **options)

            patch.setattr(kernel, name, counted)
        for name in ("__repr__", "success", "message", "eps", "status", "history"):
            read(result, name)
        assert calls == []
        read(result, "grad_x")
        work = len(calls)
        assert 1 <= work <= 3
        for name in ("grad_x", "displacement", "grad_x"):
            read(result, name)
        assert len(calls) == work
        names = ("value", "f", "marginal_error", "dual")
        for name in names:
            read(result, name)
        before = len(calls)
        for name in names:
            read(result, name)
        assert len(calls) == before
