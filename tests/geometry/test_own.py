"""A geometry of the user's own through every public function, beside the same cost as a matrix."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import epsot
from tests.checks import close
from tests.geometry.lattice import Lattice

EPS = 0.02
TIGHT: dict[str, Any] = {"eps": EPS, "tol": 1e-10}
SCALARS = [
    "value",
    "transport_cost",
    "dual",
    "primal",
    "marginal_error",
    "nit",
    "status",
    "success",
    "message",
    "eps",
    "rho",
]
VECTORS = ["f", "g", "grad_a", "grad_b"]
OF_POINTS = ["grad_x", "grad_y", "displacement"]
RHOS = [None, 0.5, (None, 0.3)]


@pytest.fixture
def lattice() -> Lattice:
    return Lattice((np.linspace(0, 1, 8), np.linspace(0, 0.7, 6)), (np.linspace(0.1, 1.2, 5), np.linspace(0, 1, 7)))


@pytest.fixture
def weights(lattice: Lattice, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images with black pixels."""
    a, b = (rng.random(size) + 0.1 for size in lattice.shape)
    a[[0, 7, 20, 47]], b[[3, 4, 34]] = 0.0, 0.0
    return a / a.sum(), b / b.sum()


def matrix_of(lattice: Lattice) -> epsot.CostMatrix:
    every = slice(None)
    return epsot.CostMatrix(
        lattice.kernel().cost_rows(every),
        C_xx=lattice.source().kernel().cost_rows(every),
        C_yy=lattice.T.source().kernel().cost_rows(every),
    )


def same(ours: Any, theirs: Any) -> None:
    """Everything that a result says, up to the tolerance of both."""
    for name in ("value", "transport_cost", "dual", "primal"):
        close(getattr(ours, name), getattr(theirs, name), 1e-8)
    constant = np.median(ours.f - theirs.f) if ours.rho is None else 0.0
    close(ours.f - constant, theirs.f, 1e-8)
    close(ours.g + constant, theirs.g, 1e-8)
    for name, other in (("grad_a", "f"), ("grad_b", "g")):
        mine, wanted = getattr(ours, name), getattr(theirs, name)
        balanced = (ours.rho if not isinstance(ours.rho, tuple) else ours.rho[0 if other == "f" else 1]) is None
        close(mine - (np.median(mine - wanted) if balanced else 0.0), wanted, 1e-7)
    close(ours.plan.to_dense(), theirs.plan.to_dense(), 1e-8)
    assert ours.status is theirs.status is epsot.Status.CONVERGED
    assert 0 <= float(ours.gap) + 1e-12 < 1e-6


@pytest.mark.parametrize("rho", RHOS)
def test_transport(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray], rho: Any) -> None:
    same(epsot.solve(lattice, *weights, rho=rho, **TIGHT), epsot.solve(matrix_of(lattice), *weights, rho=rho, **TIGHT))


@pytest.mark.parametrize("rho", RHOS)
def test_divergence(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray], rho: Any) -> None:
    same(
        epsot.divergence(lattice, *weights, rho=rho, **TIGHT),
        epsot.divergence(matrix_of(lattice), *weights, rho=rho, **TIGHT),
    )


def test_a_schedule_alone(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray]) -> None:
    """Without a tolerance both run the same updates, as far as weights of zero are concerned too."""
    scaling = 0.8  # of lengths, whose squares the matrix does not know
    ours = epsot.divergence(lattice, *weights, eps=EPS, tol=None, scaling=scaling)
    theirs = epsot.divergence(matrix_of(lattice), *weights, eps=EPS, tol=None, scaling=scaling**2)
    close(ours.value, theirs.value, 1e-2)
    assert ours.marginal_error < 1.5 * theirs.marginal_error + 1e-12


def test_equal_measures(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray]) -> None:
    a, _ = weights
    result = epsot.divergence(lattice.source(), a, a, eps=EPS)
    assert result.value == 0
    assert result.xy is result.xx


@pytest.mark.parametrize("debiased", [False, True])
def test_every_attribute(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray], debiased: bool) -> None:
    """Either a number, or an error that says what such a cost has not."""
    result: Any = (epsot.divergence if debiased else epsot.solve)(lattice, *weights, eps=EPS, rho=0.4)
    n, m = lattice.shape
    for name, _ in inspect.getmembers(type(result), lambda member: not inspect.isroutine(member)):
        if name.startswith("_"):
            continue
        if name in OF_POINTS:
            with pytest.raises(TypeError, match="Lattice has no points"):
                getattr(result, name)
        else:
            getattr(result, name)
    for name, size in (("f", n), ("g", m), ("grad_a", n), ("grad_b", m)):
        values = getattr(result, name)
        assert values.shape == (size,)
        assert np.isfinite(values).all()
    for call in (result.potential, result.transport):
        with pytest.raises(TypeError, match="Lattice has no points"):
            call(np.zeros((3, 2)))
    assert "CONVERGED" in repr(result)
    for name in SCALARS:
        assert getattr(result, name) is not None


def test_plan(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray]) -> None:
    plan = epsot.solve(lattice, *weights, **TIGHT).plan
    P, (n, m) = plan.to_dense(), lattice.shape
    v = np.arange(3 * m, dtype=float).reshape(m, 3)
    close(plan @ v, P @ v, 1e-12)
    close(plan.T @ v[:1].repeat(n, axis=0), P.T @ v[:1].repeat(n, axis=0), 1e-12)
    close(plan.sum(axis=1), weights[0], 1e-9)
    close(plan.sum(axis=0), weights[1], 1e-9)
    close(plan.rows(3), P[3], 1e-15)
    close(plan.to_sparse(1.0).toarray(), P, 1e-12)
    assert plan.argmax(axis=1).shape == (n,)
    close(plan.barycentric_map(v)[weights[0] > 0], (P @ v)[weights[0] > 0] / weights[0][weights[0] > 0][:, None], 1e-6)
    assert len(plan.sample(10, rng=0)[0]) == 10
    with pytest.raises(TypeError, match="no points"):
        plan.barycentric_map()


def test_callback_and_start(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray]) -> None:
    seen: list[Any] = []
    first = epsot.solve(lattice, *weights, callback=lambda record: seen.append((record.nit, record.f.copy())), **TIGHT)
    assert [nit for nit, _ in seen] == list(range(1, first.nit + 1))
    again = epsot.solve(lattice, *weights, init=first, **TIGHT)
    assert again.nit <= 2
    close(again.value, first.value, 1e-10)
    with pytest.raises(ValueError, match="`init` must have shape"):
        epsot.solve(lattice.T, *weights[::-1], init=first, **TIGHT)


def test_potentials_at_black_pixels(lattice: Lattice, weights: tuple[np.ndarray, np.ndarray]) -> None:
    """They are the softmin of the others: what the matrix, which leaves such rows out, extends them by."""
    for tol in (1e-2, 1e-10):
        result = epsot.solve(lattice, *weights, eps=EPS, tol=tol)
        kernel, (a, b) = lattice.kernel(), weights
        with np.errstate(divide="ignore"):
            f = kernel.softmin(np.log(b) + result.g / EPS, EPS)
            g = kernel.T.softmin(np.log(a) + result.f / EPS, EPS)
        close(result.f[a == 0], f[a == 0], 1e-12)
        close(result.g[b == 0], g[b == 0], 1e-12)
