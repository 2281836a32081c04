"""Identities that hold for every problem, on problems drawn by hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epsot
from tests.checks import close, power_cost

pytestmark = pytest.mark.usefixtures("any_path")

few = settings(max_examples=15, deadline=None, derandomize=True)
EXACT = {"tol": 1e-10, "max_iter": 50_000}


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Two weighted clouds, a blur that is not small beside them, and maybe a reach."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, m, d = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 17]))
    x, y = rng.normal(size=(n, d)) / np.sqrt(d), rng.normal(size=(m, d)) / np.sqrt(d) + draw(st.floats(0, 1))
    a, b = rng.random(n) ** 2 + 0.01, rng.random(m) ** 2 + 0.01
    if n > 1 and draw(st.booleans()):
        a[0] = 0
    p, blur = draw(st.sampled_from([1, 2])), draw(st.sampled_from([0.3, 1.0, 10.0]))
    reach = draw(st.sampled_from([None, 0.7, (0.5, 1.5), (None, 0.8)]))
    mass = 1.7 if reach is None else 0.6
    return {
        "x": x,
        "y": y,
        "a": 1.7 * a / a.sum(),
        "b": mass * b / b.sum(),
        "blur": blur,
        "p": p,
        "reach": reach,
    }


def value(problem: dict[str, Any], **changes: Any) -> float:
    options = {**problem, **EXACT, **changes}
    return float(epsot.sinkhorn_divergence(options.pop("x"), options.pop("y"), **options).value)


@few
@given(problems())
def test_symmetry(problem: dict[str, Any]) -> None:
    reach = problem["reach"]
    swapped = {
        **problem,
        "x": problem["y"],
        "y": problem["x"],
        "a": problem["b"],
        "b": problem["a"],
        "reach": reach[::-1] if isinstance(reach, tuple) else reach,
    }
    close(value(swapped), value(problem), 1e-8)
    close(value(swapped, tol=None), value(problem, tol=None), 1e-10)


@few
@given(problems())
def test_positive(problem: dict[str, Any]) -> None:
    for tol in (None, 1e-2, 1e-10):
        result = epsot.sinkhorn_divergence(**{**problem, "tol": tol, "max_iter": 50_000})
        # the theorem speaks of one penalty for both sides
        if not isinstance(problem["reach"], tuple):
            assert float(result.value) >= -float(result.gap) - 1e-9
            assert float(result.primal) >= -1e-9


@few
@given(problems())
def test_zero_for_equal_measures(problem: dict[str, Any]) -> None:
    reach = problem["reach"][1] if isinstance(problem["reach"], tuple) else problem["reach"]
    same = {**problem, "y": problem["x"].copy(), "b": problem["a"].copy(), "reach": reach}
    for tol in (None, 1e-3, 1e-10):
        result = epsot.sinkhorn_divergence(**{**same, "tol": tol})
        assert float(result.value) == 0.0
        assert not np.any(result.grad_x)
        assert not np.any(result.displacement)


@few
@given(problems(), st.sampled_from([1e-6, 0.3, 50.0, 1e5]))
def test_units_of_length(problem: dict[str, Any], s: float) -> None:
    """Points, blur and reach times s: the value times s^p."""
    reach = problem["reach"]
    scaled = {
        **problem,
        "x": s * problem["x"],
        "y": s * problem["y"],
        "blur": s * problem["blur"],
        "reach": tuple(r if r is None else s * r for r in reach)
        if isinstance(reach, tuple)
        else (reach if reach is None else s * reach),
    }
    for tol in (None, 1e-10):
        close(value(scaled, tol=tol) / s ** problem["p"], value(problem, tol=tol), 1e-7)


@pytest.mark.parametrize("s", [1e-100, 1e100])
def test_units_do_not_change_the_path(s: float) -> None:
    """Nothing in the iteration has units, the acceleration included."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)) + 0.5
    plain, scaled = epsot.sinkhorn(x, y, blur=0.1), epsot.sinkhorn(s * x, s * y, blur=0.1 * s)
    assert abs(scaled.nit - plain.nit) <= 3
    close(scaled.value / s**2, plain.value, 1e-4)


@few
@given(problems(), st.sampled_from([-3.0, 1e3, 1e5]))
def test_translation(problem: dict[str, Any], t: float) -> None:
    """An offset of 1e5 rounds the points at 1e-11."""
    moved = {**problem, "x": problem["x"] + t, "y": problem["y"] + t}
    close(value(moved), value(problem), 1e-8)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("d", [2, 3, 17])
def test_translation_by_a_thousand_diameters_in_single_precision(p: int, d: int) -> None:
    rng = np.random.default_rng(d)
    # a lattice of 2^-10, so that moving by 1000 is exact in float32
    x, y = (np.round(rng.random((n, d)) * 1024) / 1024 for n in (60, 50))
    values = []
    for offset in (0.0, 1000.0):
        points = ((array + offset).astype(np.float32) for array in (x, y))
        values.append(float(epsot.sinkhorn(*points, blur=0.05, p=p, tol=1e-3, max_iter=5000).value))
    close(values[1], values[0], 1e-4)


@few
@given(problems(), st.randoms(use_true_random=False))
def test_order_of_the_points(problem: dict[str, Any], random: Any) -> None:
    order = list(range(len(problem["a"])))
    random.shuffle(order)
    shuffled = {**problem, "x": problem["x"][order], "a": problem["a"][order]}
    for tol in (None, 1e-10):
        close(value(shuffled, tol=tol), value(problem, tol=tol), 1e-9)
    result, other = (epsot.sinkhorn(**{**q, **EXACT}) for q in (problem, shuffled))
    close(other.f, result.f[order], 1e-6)
    close(other.plan.to_dense(), result.plan.to_dense()[order], 1e-8)


@few
@given(problems(), st.sampled_from([0.5, 0.01, 1e-12, 0.0]))
def test_a_point_split_in_two(problem: dict[str, Any], share: float) -> None:
    """A point written twice with shares of its weight, or with no weight at all, is one point."""
    x, a = problem["x"], problem["a"]
    split = np.concatenate([a, [share * a[-1]]])
    split[-2] -= split[-1]
    for tol in (None, 1e-10):
        doubled = {**problem, "x": np.concatenate([x, x[-1:]]), "a": split}
        close(value(doubled, tol=tol), value(problem, tol=tol), 1e-8)


@few
@given(problems(), st.sampled_from([1e-8, 0.2, 30.0]))
def test_mass(problem: dict[str, Any], s: float) -> None:
    """Balanced, <P, C> + eps KL(P | a b) of s times the plan: s (OT + eps m - eps m^2) - s log(s) eps m - ... + ..."""
    balanced = {**problem, "reach": None}
    balanced["b"] = problem["b"] * (problem["a"].sum() / problem["b"].sum())
    m, eps = balanced["a"].sum(), problem["blur"] ** problem["p"]
    scaled = {**balanced, "a": s * balanced["a"], "b": s * balanced["b"]}
    plain, other = (epsot.sinkhorn(**{**q, **EXACT}) for q in (balanced, scaled))
    # KL(s P | s^2 a b) = s <P, log(P / a b)> - s m log s - s m + s^2 m^2
    entropic = float(plain.value) + eps * (m - m**2)
    close(other.value, s * entropic + eps * (-s * m * np.log(s) - s * m + (s * m) ** 2), 1e-8)
    close(other.plan.to_dense() / s, plain.plan.to_dense(), 1e-8)
    close(value(scaled) / s, value(balanced), 1e-7)


@few
@given(problems())
def test_weights_over_ten_decades(problem: dict[str, Any]) -> None:
    """Tiny weights change the value by their share and leave everything finite."""
    a = problem["a"] * 10.0 ** -np.linspace(0, 10, len(problem["a"]))
    a = a + (a.sum() == 0)
    wide = {**problem, "a": a * (problem["a"].sum() / a.sum())}
    result = epsot.sinkhorn(**{**wide, **EXACT})
    assert result.success
    P = result.plan.to_dense()
    if problem["reach"] is None:
        close(P.sum(axis=1), wide["a"], 1e-8)
    for name in ("value", "f", "g", "grad_x", "displacement", "gap"):
        assert np.isfinite(getattr(result, name)).all(), name
    image = result.plan.barycentric_map()
    assert np.isfinite(image).all()


@few
@given(problems())
def test_hot_plans_are_products(problem: dict[str, Any]) -> None:
    """Beyond every length the balanced plan is a b / m and the value <a b, C> / m + eps (m^2 - m - m log m)."""
    a, x, y = problem["a"], problem["x"], problem["y"]
    b = problem["b"] * (a.sum() / problem["b"].sum())
    m, eps = a.sum(), 1e6
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=eps)
    close(result.plan.to_dense(), np.outer(a, b) / m, 1e-4)
    expected = float(np.sum(np.outer(a, b) * power_cost(x, y))) / m + eps * (m**2 - m - m * np.log(m))
    close(result.value / eps, expected / eps, 1e-8)
