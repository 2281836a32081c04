"""A problem with far more columns than rows is solved from the other side, and nobody can tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.drivers import choice as drivers
from epsot.geometry import Multiscale
from tests.checks import close

N, M = 5, 5000


def measures(rng: np.random.Generator, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Few points and many, with weights that are not uniform; one of each side is zero."""
    x, y = rng.random((N, d)), 0.8 * rng.random((M, d)) + 0.1
    a, b = rng.dirichlet(np.ones(N)), rng.dirichlet(np.ones(M))
    a[1], b[7] = 0.0, 0.0
    return x, y, a / a.sum(), b / b.sum()


def same(one: epsot.SinkhornResult, other: epsot.SinkhornResult) -> None:
    """Two results of one problem seen from its two sides, by the same steps, up to the rounding of one mass."""
    assert (one.status, one.nit) == (other.status, other.nit)
    close(one.history, other.history, 1e-10)
    for ours, theirs in (
        (one.f, other.g), (one.g, other.f), (one.grad_x, other.grad_y), (one.grad_y, other.grad_x),
        (one.grad_a, other.grad_b), (one.value, other.value), (one.plan @ np.ones(M), other.plan.T @ np.ones(M)),
    ):  # fmt: skip
        assert ours.shape == theirs.shape
        close(ours, theirs, 1e-10)
    close(one.marginal_error, other.marginal_error, 1e-10)
    assert one.instance.geometry.shape == one.plan.shape == (N, M)
    assert one.potential(one.instance.geometry.x[:2]).shape == (2,)


@pytest.mark.parametrize("reach", [None, 0.7, (0.5, 2.0), (None, 1.0)])
@pytest.mark.parametrize("kind", ["points", "coarse to fine"])
def test_both_sides_agree(kind: str, reach: Any, rng: np.random.Generator) -> None:
    x, y, a, b = measures(rng)
    make = epsot.PointCloud if kind == "points" else Multiscale
    rho = tuple(None if z is None else z * z for z in (reach if isinstance(reach, tuple) else (reach, reach)))
    one = epsot.solve(make(x, y), a, b, eps=0.01, rho=rho, tol=1e-8)
    other = epsot.solve(make(y, x), b, a, eps=0.01, rho=rho[::-1], tol=1e-8)
    assert one.success
    same(one, other)
    # The definition: both marginals are what the potentials call for.
    P = (one.plan.T @ np.eye(N)).T
    for sums, weights, z, strength in ((P.sum(axis=1), a, one.f, rho[0]), (P.sum(axis=0), b, one.g, rho[1])):
        called_for = weights if strength is None else weights * np.exp(-z / strength)
        assert np.abs(sums - called_for).sum() <= 2e-8


def test_a_cost_matrix(rng: np.random.Generator) -> None:
    _, _, a, b = measures(rng)
    C = rng.random((N, M))
    C[0, rng.random(M) < 0.2] = np.inf
    one, other = (epsot.solve(epsot.CostMatrix(z), *w, eps=0.05) for z, w in ((C, (a, b)), (C.T, (b, a))))
    assert one.success
    close(one.f, other.g, 1e-9)
    close(one.g, other.f, 1e-9)
    close((one.plan @ np.ones(M)).sum(), 1.0, 1e-3)


@pytest.mark.parametrize("kind", ["points", "coarse to fine"])
def test_a_callback_sees_the_problem_as_it_was_posed(kind: str, rng: np.random.Generator) -> None:
    x, y, a, b = measures(rng)
    make = epsot.PointCloud if kind == "points" else Multiscale
    kept: list[Any] = []
    result = epsot.solve(make(x, y), a, b, eps=0.01, tol=1e-6, callback=kept.append)
    assert [record.nit for record in kept] == list(range(1, result.nit + 1))
    for record in (kept[0], kept[len(kept) // 2], kept[-1]):
        assert (record.f.shape, record.g.shape) == ((N,), (M,))
    shift = kept[-1].f[0] - result.f[0]
    close(kept[-1].f - shift, result.f, 1e-5)
    close(kept[-1].g + shift, result.g, 1e-5)


def test_a_callback_ends_the_solve(rng: np.random.Generator) -> None:
    def stop(record: Any) -> None:
        if record.nit == 3:
            raise StopIteration

    x, y, a, b = measures(rng)
    one = epsot.sinkhorn(x, y, a, b, blur=0.1, callback=stop)
    other = epsot.sinkhorn(y, x, b, a, blur=0.1, callback=stop)
    assert one.status is epsot.Status.STOPPED
    same(one, other)


def test_warm_starts(rng: np.random.Generator) -> None:
    x, y, a, b = measures(rng)
    cold = epsot.sinkhorn(x, y, a, b, blur=0.1, tol=1e-8)
    warm = epsot.sinkhorn(x, y, a, b, blur=0.1, tol=1e-7, init=cold)
    assert warm.success
    assert warm.nit <= 2
    close(warm.f, cold.f, 1e-6)
    # From other points, of which there may be other numbers, and from an iteration on the posed side.
    other = epsot.sinkhorn(rng.random((7, 3)), y[:4500], blur=0.1)
    even = epsot.sinkhorn(y[:40], y[:50], blur=0.1)
    for init in (other, even, epsot.sinkhorn(x, y, a, b, blur=0.1, tol=None)):
        moved = epsot.sinkhorn(x, y, a, b, blur=0.1, tol=1e-8, init=init)
        assert moved.success
        close(moved.value, cold.value, 1e-7)
    divergence = epsot.sinkhorn_divergence(x, y[:4200], a, blur=0.2)
    close(epsot.sinkhorn(x, y[:4200], a, blur=0.2, init=divergence).value, divergence.xy.value, 1e-3)


def test_a_start_of_another_shape_is_refused_by_the_shape_that_was_posed(rng: np.random.Generator) -> None:
    C = rng.random((N, M))
    past = epsot.solve(epsot.CostMatrix(C[:, :-1]), eps=0.1)
    with pytest.raises(ValueError, match=rf"shape \({N}, {M}\), as the problem, got \({N}, {M - 1}\)"):
        epsot.solve(epsot.CostMatrix(C), eps=0.1, init=past)


def test_nearly_square_problems_are_solved_as_posed(rng: np.random.Generator) -> None:
    x, y, a, b = measures(rng)
    posed = epsot.sinkhorn(x, y, a, b, blur=0.2).instance
    assert drivers.wide(posed)
    assert not drivers.wide(posed.T)
    assert not drivers.wide(epsot.sinkhorn(y[:1100], y[:4300], blur=0.5).instance)
    assert not drivers.wide(epsot.sinkhorn(y[:10], y[:4000], blur=0.5).instance)
