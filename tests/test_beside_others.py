"""What a problem gets in a batch is what it gets alone, to the last bit on the CPU."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

import epsot
from epsot.kernels.cpu import batches as compiled


def same(found: Any, expected: Any) -> None:
    """The three parts of a divergence, or a solve."""
    for name in ("xy", "xx", "yy") if hasattr(expected, "xy") else ("",):
        part, other = (getattr(z, name) if name else z for z in (found, expected))
        assert (part.status, part.nit) == (other.status, other.nit)
        np.testing.assert_array_equal(part.source.potential, other.source.potential)
        np.testing.assert_array_equal(part.target.potential, other.target.potential)
        assert part.value64 == other.value64


def costs(rng: np.random.Generator, count: int, n: int, m: int) -> np.ndarray:
    z = rng.normal(size=(count, max(n, m), 2))
    found: np.ndarray = np.sum((z[:, :n, None] - z[:, None, :m]) ** 2, axis=-1)
    return found


@pytest.mark.parametrize("tol", [1e-3, None])
@pytest.mark.parametrize("shared", ["none", "C_xx", "C_yy"])
@pytest.mark.parametrize("listed", [False, True])
def test_matrices_have_self_costs_of_their_own(
    rng: np.random.Generator, tol: float | None, shared: str, listed: bool
) -> None:
    matrices: dict[str, Any] = {"C": costs(rng, 3, 4, 7), "C_xx": costs(rng, 3, 4, 4), "C_yy": costs(rng, 3, 7, 7)}
    a, b = rng.dirichlet(np.ones(4), 3), rng.dirichlet(np.ones(7), 3)
    alone = {name: [C[0 if name == shared else k] for k in range(3)] for name, C in matrices.items()}
    given = {name: C[0] if name == shared else list(C) if listed else C for name, C in matrices.items()}
    batch = epsot.divergence(epsot.CostMatrix(given.pop("C"), **given), a, b, eps=0.1, tol=tol)
    for k in range(3):
        one = {name: C[k] for name, C in alone.items()}
        same(batch[k], epsot.divergence(epsot.CostMatrix(one.pop("C"), **one), a[k], b[k], eps=0.1, tol=tol))


def weighted_clouds(rng: np.random.Generator, d: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Clouds of many sizes, and weights whose sums depend on the order; far points without any."""
    clouds = [rng.normal(size=(n, d)) for n in (30, 9, 170, 30)]
    weights = [rng.random(len(z)) for z in clouds]
    for z, w in zip(clouds, weights, strict=True):
        z[0] += 30.0
        w[0] = 0.0
    return clouds, [w / w.sum() for w in weights]


@pytest.mark.parametrize("tol", [1e-6, None])
@pytest.mark.parametrize("d", [2, 17])
def test_clouds_of_many_sizes(rng: np.random.Generator, d: int, tol: float | None) -> None:
    """Equal masses are made equal by the same sums, and annealing starts at the same temperature."""
    (x, a), (y, b) = weighted_clouds(rng, d), weighted_clouds(rng, d)
    batch = epsot.sinkhorn_divergence(x, y, a, b, blur=0.7, tol=tol)
    for k in range(4):
        same(batch[k], epsot.sinkhorn_divergence(x[k], y[k], a[k], b[k], blur=0.7, tol=tol))


def test_matrices_of_a_strict_library(rng: np.random.Generator) -> None:
    C = costs(rng, 3, 4, 7)
    batch = epsot.solve(epsot.CostMatrix(array_api_strict.asarray(C)), eps=0.1)
    for k in range(3):
        one = epsot.solve(epsot.CostMatrix(C[k]), eps=0.1)
        np.testing.assert_allclose(np.asarray(batch.f[k, :]), one.f, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_the_gradient_of_float32_points_far_apart(p: int) -> None:
    """P is one pair: a step of float32 exponents is as large as 0.5 here."""
    x, y = np.float32([[0.3, 0.4]]), np.float32([[3e4, 4e4]])
    result = epsot.sinkhorn(x, y, blur=0.005 if p == 1 else 18.0, p=p, tol=1e-3)
    assert result.success
    slope = (x - y).astype(float) / (np.linalg.norm(x - y) if p == 1 else 1.0)
    np.testing.assert_allclose(result.grad_x, slope, rtol=1e-5)
    np.testing.assert_allclose(result.transport(x), x - slope, rtol=1e-5)


def test_the_value_of_a_schedule_run_once(rng: np.random.Generator) -> None:
    """The dual objective of its potentials, with the mass that the solve has found, also of float32 points."""
    x, y = (rng.normal(size=(n, 3)).astype(np.float32) * 40 for n in (12, 9))
    result = epsot.sinkhorn(x, y, blur=1.0, tol=None)
    f, g = result.source.potential, result.target.potential
    C = ((x[:, None].astype(float) - y[None]) ** 2).sum(axis=-1) / 2
    mass = np.exp(f[:, None] + g[None] - C).mean()
    np.testing.assert_allclose(result.value64, f.mean() + g.mean() - (mass - 1), atol=1e-5 * mass, rtol=0)
    np.testing.assert_allclose(result._mass, mass, rtol=2e-6)


@pytest.mark.parametrize("diameter", [None, 0.0])
def test_what_is_not_resolved_is_not_called_converged(diameter: float | None) -> None:
    """Two points without a plan between them: their bounds ask for digits that float64 does not have."""
    x = np.asarray([[0.0], [1e9]])
    with pytest.warns(epsot.ConvergenceWarning, match="STALLED"):
        result = epsot.sinkhorn_divergence(x, x + 0.25, blur=1.0, diameter=diameter)
    for part in (result.xy, result.xx, result.yy):
        assert not part.success or np.isfinite(part.gap64)


def test_mass_that_is_called_for_beyond_float32() -> None:
    """A point without weight, where an unbalanced plan is worth 1e39 times more than a pair of weights."""
    x, y = np.float32([[0.0, 0.0], [8.98, 0.0]]), np.float32([[0.0, 0.0], [9.48, 0.0]])
    a, b = np.asarray([1.0, 0.0]), np.asarray([0.5, 0.5])
    batch = epsot.sinkhorn([x, x], [y, y], [a, a], [b, b], blur=0.5, reach=(0.5, None))
    one = epsot.sinkhorn(x, y, a, b, blur=0.5, reach=(0.5, None))
    assert one.displacement[1, 0] > 2e38
    np.testing.assert_allclose(batch.displacement[1], one.displacement, rtol=1e-4)


def test_pairs_of_equal_measures(rng: np.random.Generator) -> None:
    """Their divergence is known as well as the solve with itself."""
    x = rng.normal(size=(20, 2))
    found = epsot.pairwise([x], [x], blur=0.05, p=1, tol=1e-6, max_iter=12)
    one = epsot.sinkhorn_divergence(x, x, blur=0.05, p=1, tol=1e-6, max_iter=12)
    assert found.value[0, 0] == one.value == 0
    assert (found.status[0, 0], found.marginal_error[0, 0]) == (one.status, one.marginal_error)
    assert one.success


def test_exponents_without_digits_in_a_strict_library(rng: np.random.Generator) -> None:
    """The closer look of a solve takes rows within the matrix only."""
    C = array_api_strict.asarray(rng.random((4, 7)) * 1e16)
    with pytest.warns(epsot.ConvergenceWarning, match="STALLED"):
        result = epsot.solve(epsot.CostMatrix(C), eps=1.0, tol=1e-3)
    assert result.status is epsot.Status.STALLED


@pytest.mark.parametrize("tol", [1e-3, None])
def test_any_number_of_iterations_may_be_allowed(rng: np.random.Generator, tol: float | None) -> None:
    """What is not taken costs no memory."""
    x, y = rng.normal(size=(3, 12, 2)), rng.normal(size=(3, 9, 2))
    few, many = (epsot.sinkhorn(x, y, blur=0.3, tol=tol, max_iter=most) for most in (1000, 10**20))
    same(many[1], few[1])
    same(epsot.sinkhorn(x[1], y[1], blur=0.3, tol=tol, max_iter=10**15), few[1])


def test_what_takes_more_steps_than_have_room_is_solved_alone(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rng.normal(size=(3, 12, 2)), rng.normal(size=(3, 9, 2))
    expected = epsot.sinkhorn(x, y, blur=0.05, tol=1e-6)
    monkeypatch.setattr(compiled, "LONGEST", 5)
    found = epsot.sinkhorn(x, y, blur=0.05, tol=1e-6)
    assert found.success.all() and (expected.nit > 5).all()
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-5)
    limited = epsot.sinkhorn(x, y, blur=0.05, tol=None, max_iter=5)
    np.testing.assert_array_equal(limited.nit, 5)
