"""Solves against closed forms and against the definition, written out densely."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import epsot
from tests import checks, closed_forms
from tests.checks import TIGHT, close, posed, power_cost
from tests.conftest import Measures

RHOS = [None, 0.8, (0.5, 2.0), (None, 0.7), (0.7, None), 1e-3, 1e3, (1e3, 1e-3)]


# Closed forms


@pytest.mark.parametrize("eps", [0.05, 0.4, 3.0])
def test_gaussians_on_the_line(eps: float) -> None:
    mean_a, cov_a, mean_b, cov_b = np.asarray([0.3]), np.asarray([[0.5]]), np.asarray([1.1]), np.asarray([[1.4]])
    x, a = closed_forms.gaussian_grid(mean_a, cov_a, 0.05)
    y, b = closed_forms.gaussian_grid(mean_b, cov_b, 0.06)
    result = epsot.sinkhorn_divergence(x, y, a, b, blur=math.sqrt(eps), tol=1e-9, max_iter=5000)
    # the lattice leaves out what is beyond a density of 1e-10
    close(result.xy.value, closed_forms.gaussian_value(mean_a, cov_a, mean_b, cov_b, eps), 1e-7)
    close(result.value, closed_forms.gaussian_divergence(mean_a, cov_a, mean_b, cov_b, eps), 1e-7)


def test_gaussians_in_the_plane() -> None:
    eps = 0.6
    mean_a, mean_b = np.asarray([0.0, 1.0]), np.asarray([0.7, 0.2])
    cov_a, cov_b = np.asarray([[1.0, 0.4], [0.4, 0.8]]), np.asarray([[0.6, -0.1], [-0.1, 1.2]])
    x, a = closed_forms.gaussian_grid(mean_a, cov_a, 0.4)
    y, b = closed_forms.gaussian_grid(mean_b, cov_b, 0.4)
    result = epsot.sinkhorn_divergence(x, y, a, b, blur=math.sqrt(eps), tol=1e-8)
    close(result.xy.value, closed_forms.gaussian_value(mean_a, cov_a, mean_b, cov_b, eps), 1e-6)
    close(result.value, closed_forms.gaussian_divergence(mean_a, cov_a, mean_b, cov_b, eps), 1e-6)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("tol", [None, 1e-9])
@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_balanced_diracs(p: int, tol: float | None, mass: float) -> None:
    """One plan is feasible: the value is m C + eps KL(m | m^2), whatever the accuracy."""
    x, y, blur = np.asarray([[1.0, 2.0, 3.0]]), np.asarray([[2.0, 0.0, 5.0]]), 0.3
    cost = 3.0**p / p
    result = epsot.sinkhorn(x, y, [mass], [mass], blur=blur, p=p, tol=tol)
    close(result.value, closed_forms.dirac_value(cost, mass, mass, blur**p))
    close(result.plan.to_dense(), [[mass]])
    divergence = epsot.sinkhorn_divergence(x, y, [mass], [mass], blur=blur, p=p, tol=tol)
    close(divergence.value, mass * cost)
    close(divergence.grad_x, mass * (x - y) / (3.0 if p == 1 else 1.0))


@pytest.mark.parametrize("rho", [0.7, (0.2, 3.0), (None, 0.7), (0.7, None), 1e-3, 1e3])
@pytest.mark.parametrize("p", [1, 2])
def test_unbalanced_diracs(p: int, rho: Any) -> None:
    x, y, eps, masses = np.asarray([[1.0, 2.0]]), np.asarray([[1.3, 1.6]]), 0.3, (2.0, 0.6)
    cost = 0.5**p / p
    # unequal masses make the potentials as large as rho, and these round at 1e-16 rho / eps
    result = epsot.solve(epsot.PointCloud(x, y, p=p), *([z] for z in masses), eps=eps, rho=rho, tol=1e-11)
    close(result.value, closed_forms.dirac_value(cost, *masses, eps, rho), 1e-8)
    close(result.plan.to_dense(), [[closed_forms.dirac_mass(cost, *masses, eps, rho)]], 1e-8)
    divergence = epsot.divergence(epsot.PointCloud(x, y, p=p), *([z] for z in masses), eps=eps, rho=rho, tol=1e-11)
    own = [
        closed_forms.dirac_value(0.0, mass, mass, eps, side)
        for mass, side in zip(masses, checks.pair(rho), strict=True)
    ]
    expected = closed_forms.dirac_value(cost, *masses, eps, rho) - sum(own) / 2 + eps / 2 * (masses[0] - masses[1]) ** 2
    close(divergence.value, expected, 1e-8)


@pytest.mark.parametrize("mass", [1.0, 0.4, 5.0])
@pytest.mark.parametrize("eps", [0.1, 1.0, 30.0])
def test_two_by_two(eps: float, mass: float) -> None:
    cost, weights = 0.9, [mass / 2, mass / 2]
    P, value = closed_forms.two_by_two(cost, eps, mass)
    result = epsot.solve(epsot.CostMatrix([[0, cost], [cost, 0]]), weights, weights, eps=eps, **TIGHT)
    close(result.plan.to_dense(), P)
    close(result.value, value)


@pytest.mark.parametrize("d", [1, 2, 3, 17])
def test_translation(d: int) -> None:
    """The divergence of a cloud and its translate by t is |t|^2 / 2 per unit of mass, and every point moves by t."""
    rng = np.random.default_rng(d)
    x, a, t = rng.normal(size=(20, d)) + 30, rng.random(20), rng.normal(size=d)
    a[3] = 0
    # points in many dimensions are far apart: a small blur makes the plan a matching, reached slowly
    blur = 0.7 * d**0.5
    result = epsot.sinkhorn_divergence(x, x + t, a, a, blur=blur, tol=1e-11, max_iter=50_000)
    close(result.value, a.sum() * (t @ t) / 2)
    close(result.displacement, np.broadcast_to(t, x.shape), 1e-8)
    close(result.grad_y, a[:, None] * t, 1e-8)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("blur", [1e-1, 1e-2])
def test_small_blur_on_the_line(p: int, blur: float) -> None:
    """OT_0 <= OT <= OT_0 + eps KL(P_0 | a b) with the sorted matching P_0, whose entropy is log n."""
    rng = np.random.default_rng(p)
    x, y = rng.normal(size=30), rng.normal(size=30) + 0.3
    exact = closed_forms.sorted_matching(x, y, p)
    result = epsot.sinkhorn(x[:, None], y[:, None], blur=blur, p=p, tol=0.02, max_iter=20_000)
    assert exact - 1e-12 <= float(result.primal)
    assert float(result.dual) <= exact + blur**p * math.log(30)


# The definition


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("p", [1, 2])
def test_value_is_the_primal(awkward: Measures, p: int, rho: Any) -> None:
    problem, eps = posed(awkward, rho), 0.15
    C = power_cost(problem.x, problem.y, p)
    result = epsot.solve(epsot.PointCloud(problem.x, problem.y, p=p), problem.a, problem.b, eps=eps, rho=rho, **TIGHT)
    assert result.success
    P = result.plan.to_dense()
    close(P, checks.plan(result.f, result.g, C, problem.a, problem.b, eps), 1e-11)
    close(result.value, checks.primal(P, C, problem.a, problem.b, eps, rho), 1e-8)
    close(result.value, checks.dual(result.f, result.g, C, problem.a, problem.b, eps, rho), 1e-9)


@pytest.mark.parametrize("rho", [0.8, (0.5, 2.0), 1e-3])
def test_unbalanced_identity(awkward: Measures, rho: Any) -> None:
    """OT = eps m_a m_b + rho_a m_a + rho_b m_b - (eps + rho_a + rho_b) sum P."""
    x, y, a, b = awkward
    eps, (rho_a, rho_b) = 0.15, checks.pair(rho)
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=eps, rho=rho, **TIGHT)
    expected = eps * a.sum() * b.sum() + rho_a * a.sum() + rho_b * b.sum()
    close(result.value, expected - (eps + rho_a + rho_b) * float(result.plan.sum()), 1e-9)


def test_gauge(awkward: Measures) -> None:
    problem = awkward.balanced
    for tol in (None, 1e-6):
        result = epsot.sinkhorn(*problem, blur=0.3, tol=tol)
        close(problem.a @ result.f, problem.b @ result.g, 1e-11)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("options", [{"tol": None}, {"tol": 1e-2}, {"tol": 1e-6, "max_iter": 3}])
@pytest.mark.filterwarnings("ignore::epsot.ConvergenceWarning")
def test_marginal_error_is_the_dense_one(awkward: Measures, rho: Any, options: dict[str, Any]) -> None:
    problem = posed(awkward, rho)
    result = epsot.solve(epsot.PointCloud(problem.x, problem.y), problem.a, problem.b, eps=0.1, rho=rho, **options)
    expected = checks.marginal_error(result.plan.to_dense(), result.f, result.g, problem.a, problem.b, rho)
    close(result.marginal_error, expected, 1e-9)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-9])
def test_success_is_a_small_error_on_both_sides(awkward: Measures, rho: Any, tol: float) -> None:
    problem = posed(awkward, rho)
    for result in [
        epsot.solve(
            epsot.PointCloud(problem.x, problem.y), problem.a, problem.b, eps=0.1, rho=rho, tol=tol, max_iter=20_000
        ),
        epsot.divergence(
            epsot.PointCloud(problem.x, problem.y), problem.a, problem.b, eps=0.1, rho=rho, tol=tol, max_iter=20_000
        ),
    ]:
        assert result.success
        assert result.status is epsot.Status.CONVERGED
        assert result.marginal_error <= tol
        for part in getattr(result, "parts", (result,)):
            left, right = (problem.a, problem.b)
            side = rho
            if part is getattr(result, "xx", None):
                right, side = left, checks.pair(rho)[0]
            elif part is getattr(result, "yy", None):
                left, side = right, checks.pair(rho)[1]
            # the dense sums round at 1e-15 of the mass for each of some ten points
            assert checks.marginal_error(part.plan.to_dense(), part.f, part.g, left, right, side) <= tol + 1e-13


@pytest.mark.parametrize("rho", [None, 0.8, (None, 0.7)])
def test_divergence_is_made_of_its_parts(awkward: Measures, rho: Any) -> None:
    problem, eps = posed(awkward, rho), 0.2
    x, y, a, b = problem
    result = epsot.divergence(epsot.PointCloud(x, y), a, b, eps=eps, rho=rho, **TIGHT)
    rho_a, rho_b = checks.pair(rho)
    parts = [
        (x, y, a, b, rho),
        (x, x, a, a, rho_a),
        (y, y, b, b, rho_b),
    ]
    xy, xx, yy = (epsot.solve(epsot.PointCloud(s, t), u, v, eps=eps, rho=r, **TIGHT) for s, t, u, v, r in parts)
    difference = a.sum() - b.sum()
    close(result.value, xy.value - (xx.value + yy.value) / 2 + eps / 2 * difference**2, 1e-9)
    if rho is not None:  # balanced potentials are compared up to their constants, elsewhere
        close(result.f, xy.f - (xx.f + xx.g) / 2, 1e-8)
        close(result.g, xy.g - (yy.f + yy.g) / 2, 1e-8)
    assert float(result.value) >= -float(result.gap)


# The tutorial's algorithm, transcribed: tol=None


def tutorial_schedule(diameter: float, blur: float, p: int, scaling: float) -> list[float]:
    scales = [diameter]
    while scales[-1] * scaling > blur * (1 + 1e-12):
        scales.append(scales[-1] * scaling)
    return [s**p for s in scales if s > blur] + [blur**p]


def tutorial(
    C: np.ndarray, a: np.ndarray, b: np.ndarray, schedule: list[float], rho: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Averaged updates of both sides from the old pair, one a temperature; a last one that is not averaged."""
    rho_a, rho_b = checks.pair(rho)

    def both(f: np.ndarray, g: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
        damp_a = 1.0 if rho_a is None else 1 / (1 + eps / rho_a)
        damp_b = 1.0 if rho_b is None else 1 / (1 + eps / rho_b)
        return (
            damp_a * checks.softmin(np.log(b) + g / eps, C, eps),
            damp_b * checks.softmin(np.log(a) + f / eps, C.T, eps),
        )

    f, g = both(np.zeros(len(a)), np.zeros(len(b)), schedule[0])
    for eps in schedule:
        new_f, new_g = both(f, g, eps)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    return both(f, g, schedule[-1])


def without_zeros(problem: Measures) -> Measures:
    x, y, a, b = problem
    return Measures(x[a > 0], y[b > 0], a[a > 0], b[b > 0])


@pytest.mark.parametrize("rho", [None, 0.8, (None, 0.7), (0.3, 2.0)])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("scaling", [0.5, 0.9])
def test_no_tolerance_is_the_tutorial(awkward: Measures, p: int, scaling: float, rho: Any) -> None:
    problem, blur = without_zeros(posed(awkward, rho)), 0.2
    x, y, a, b = problem
    box = np.concatenate([x, y])
    diameter = float(np.linalg.norm(box.max(axis=0) - box.min(axis=0)))
    schedule = tutorial_schedule(diameter, blur, p, scaling)
    reach = rho if rho is None else tuple(None if r is None else r ** (1 / p) for r in checks.pair(rho))
    options = {"blur": blur, "p": p, "reach": reach, "scaling": scaling, "tol": None}
    C = power_cost(x, y, p)
    f, g = tutorial(C, a, b, schedule, rho)
    result = epsot.sinkhorn(x, y, a, b, **options)
    assert result.nit == len(schedule)
    assert result.status is epsot.Status.SCHEDULE_ENDED
    assert not result.success
    shift = (b @ g - a @ f) / (a.sum() + b.sum()) if rho is None else 0.0
    close(result.f, f + shift, 1e-10)
    close(result.g, g - shift, 1e-10)
    close(result.value, checks.dual(f, g, C, a, b, blur**p, rho), 1e-10)
    # the debiased potentials
    rho_a, rho_b = checks.pair(rho)
    f_xx, _ = tutorial(power_cost(x, x, p), a, a, schedule, rho_a)
    g_yy, _ = tutorial(power_cost(y, y, p), b, b, schedule, rho_b)
    divergence = epsot.sinkhorn_divergence(x, y, a, b, **options)
    close(divergence.f, f + shift - f_xx, 1e-10)
    close(divergence.g, g - shift - g_yy, 1e-10)


# Other options


@pytest.mark.parametrize("start", [0.05, 1.0, 40.0])
def test_diameter_changes_the_path_not_the_answer(awkward: Measures, start: float) -> None:
    problem = awkward.balanced
    result = epsot.sinkhorn(*problem, blur=0.3, diameter=start, **TIGHT)
    close(result.value, epsot.sinkhorn(*problem, blur=0.3, **TIGHT).value, 1e-10)


def test_lengths_and_temperatures_are_one_problem(awkward: Measures) -> None:
    x, y, a, b = awkward
    for p in (1, 2):
        by_length = epsot.sinkhorn(x, y, a, b, blur=0.3, reach=(0.5, 0.9), p=p)
        by_temperature = epsot.solve(epsot.PointCloud(x, y, p=p), a, b, eps=0.3**p, rho=(0.5**p, 0.9**p))
        close(by_length.value, by_temperature.value, 1e-12)
        close(by_length.eps, 0.3**p, 1e-15)
        close(by_length.rho, (0.5**p, 0.9**p), 1e-15)


def test_named_cost_overrides_p(awkward: Measures) -> None:
    """|x - y|^2 at twice the temperature is twice the default."""
    problem = awkward.balanced
    geometry = epsot.PointCloud(problem.x, problem.y, cost="sqeuclidean")
    double = epsot.solve(geometry, problem.a, problem.b, eps=0.4, **TIGHT)
    close(double.value, 2 * float(epsot.sinkhorn(*problem, blur=math.sqrt(0.2), **TIGHT).value), 1e-10)


@pytest.mark.parametrize("call", [epsot.sinkhorn, epsot.sinkhorn_divergence])
def test_inputs_are_not_modified(awkward: Measures, call: Any) -> None:
    before = [array.copy() for array in awkward.balanced]
    arrays = [array.copy() for array in before]
    for array in arrays:
        array.flags.writeable = False
    result = call(*arrays, blur=0.3)
    assert np.isfinite(result.grad_x).all()
    for array, copy in zip(arrays, before, strict=True):
        assert np.array_equal(array, copy)


def test_lists_and_integers() -> None:
    from_lists = epsot.sinkhorn([[0, 1], [2, 3]], [[1, 1]], [1, 3], [4], blur=0.5)
    from_arrays = epsot.sinkhorn(
        np.asarray([[0.0, 1.0], [2.0, 3.0]]),
        np.asarray([[1.0, 1.0]]),
        np.asarray([1.0, 3.0]),
        np.asarray([4.0]),
        blur=0.5,
    )
    assert float(from_lists.value) == float(from_arrays.value)
    assert from_lists.value.dtype == np.float64


X, Y = np.zeros((3, 2)), np.ones((2, 2))


@pytest.mark.parametrize("name", ["blur", "reach", "diameter"])
@pytest.mark.parametrize("length", [1e200, 1e-200])
def test_a_length_whose_power_leaves_float64(name: str, length: float) -> None:
    """Squared, it is 0 or infinite."""
    options = {"blur": 1.0, name: length}
    if name == "diameter" and length < 1:
        assert epsot.sinkhorn(X, Y, **options).success  # no annealing, nothing to refuse
        return
    if name == "reach" and length > 1:
        assert epsot.sinkhorn(X, Y, **options).rho is None  # beyond all numbers is balanced
        return
    with pytest.raises(ValueError, match=f"`{name}`"):
        epsot.sinkhorn(X, Y, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_reach_is_balanced(dtype: Any) -> None:
    x, y = X.astype(dtype), Y.astype(dtype)
    assert epsot.sinkhorn(x, y, blur=1, reach=math.inf).rho is None


def test_costs_beyond_the_digits_of_float64_are_no_success() -> None:
    """C / eps of 1e24 has no digit after the point: whatever was measured says nothing of the plan."""
    x, y = np.asarray([[0.0], [1e6]]), np.asarray([[1.0], [2e6]])
    with pytest.warns(epsot.ConvergenceWarning, match="STALLED"):
        assert not epsot.sinkhorn(x, y, blur=1e-6).success
    assert epsot.sinkhorn(x, y, blur=1.0).success


@pytest.mark.parametrize("tol", [None, 1e-3])
def test_potentials_that_are_no_numbers_are_divergence(tol: float | None) -> None:
    """At a blur of 1e-100 the logits overflow."""
    rng = np.random.default_rng(0)
    x = rng.random((6, 2))
    with np.errstate(all="ignore"), pytest.warns(epsot.ConvergenceWarning):
        result = epsot.sinkhorn(x, x[:5] + 0.3, blur=1e-100, tol=tol)
    assert not result.success
    assert np.all(np.isfinite(result.f)) or result.status is epsot.Status.DIVERGED
