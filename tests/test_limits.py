"""Mass without a partner: an empty side, or pairs that are all forbidden. Results are limits, and nothing is NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.results.result import SinkhornResult
from tests.checks import TIGHT, close
from tests.conftest import Measures, measures

RHO, EPS = (0.4, 0.7), 0.2
SCALARS = ("value", "dual", "primal", "gap")


def costs(problem: Measures, **forbidden: Any) -> Any:
    """The half squares of two clouds as a matrix, with those within each side; +inf in some rows and columns."""
    x, y = problem.x, problem.y
    C, C_xx, C_yy = (((u[:, None] - v[None]) ** 2).sum(axis=2) / 2 for u, v in ((x, y), (x, x), (y, y)))
    for i in forbidden.get("rows", ()):
        C[i, :] = forbidden.get("cost", np.inf)
    for j in forbidden.get("columns", ()):
        C[:, j] = forbidden.get("cost", np.inf)
    return epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy)


@pytest.fixture
def problem() -> Measures:
    return measures(7, 5, 2)


def emptied(kind: str, problem: Measures, entry: str, **options: Any) -> Any:
    """A problem whose first side has no mass, by points or as a matrix, biased or debiased."""
    options = {"eps": EPS, "rho": RHO} | options
    geometry = epsot.PointCloud(problem.x, problem.y) if kind == "points" else costs(problem)
    return getattr(epsot, entry)(geometry, 0 * problem.a, problem.b, **options)


@pytest.mark.parametrize("tol", [None, 1e-3])
@pytest.mark.parametrize("rho", [RHO, (None, 0.7), 0.7])
@pytest.mark.parametrize("kind", ["points", "matrix"])
def test_an_empty_side(kind: str, rho: Any, tol: Any, problem: Measures) -> None:
    """All of b is destroyed: OT = rho_b m_b, whatever the cost of making mass."""
    result, b = emptied(kind, problem, "solve", rho=rho, tol=tol), problem.b
    assert result.success is (tol is not None)
    assert result.nit == 0
    assert result.marginal_error == 0
    close([result.value, result.dual, result.primal, result.gap], [0.7 * b.sum()] * 3 + [0], 1e-15)
    np.testing.assert_array_equal(result.f, -np.inf)
    np.testing.assert_array_equal(result.g, np.inf)  # at weight zero, too: nobody is there
    np.testing.assert_array_equal(result.grad_a, -np.inf)  # the first mass may carry much for little
    close(result.grad_b, 0.7, 1e-14)
    assert result.plan.sum() == 0
    np.testing.assert_array_equal(result.plan.to_dense(), np.zeros((7, 5)))
    np.testing.assert_array_equal(result.plan @ np.ones(5), np.zeros(7))
    np.testing.assert_array_equal(result.plan.T @ np.ones(7), np.zeros(5))
    np.testing.assert_array_equal(result.plan.sum(axis=0), np.zeros(5))
    if kind == "points":
        for name in ("grad_x", "grad_y", "displacement"):
            assert not np.any(getattr(result, name))
        np.testing.assert_array_equal(result.transport(problem.y), problem.y)
        np.testing.assert_array_equal(result.potential(problem.y), -np.inf)


@pytest.mark.parametrize("kind", ["points", "matrix"])
def test_an_empty_side_is_a_limit(kind: str, problem: Measures) -> None:
    """Of masses that go to zero: values converge, potentials leave every bound."""
    x, y, a, b = problem
    geometry = epsot.PointCloud(x, y) if kind == "points" else costs(problem)
    for entry in ("solve", "divergence"):
        limit = emptied(kind, problem, entry, **TIGHT)
        near, nearer = (getattr(epsot, entry)(geometry, t * a, b, eps=EPS, rho=RHO, **TIGHT) for t in (1e-60, 1e-120))
        close(nearer.value, limit.value, 1e-12)
        close(nearer.grad_b, limit.grad_b, 1e-9)
        weighty = b > 0
        assert np.all(nearer.f < near.f - 1)
        assert np.all(nearer.g[weighty] > near.g[weighty] + 1)
        np.testing.assert_array_equal(limit.f, -np.inf)
        np.testing.assert_array_equal(limit.g[weighty], np.inf)


def test_a_divergence_from_nothing(problem: Measures) -> None:
    """S(0, b) = rho_b m_b - OT(b, b) / 2 + eps m_b^2 / 2."""
    result, (_, y, _, b) = emptied("points", problem, "divergence", **TIGHT), problem
    own = epsot.solve(epsot.PointCloud(y, y), b, b, eps=EPS, rho=RHO[1], **TIGHT)
    close(result.value, RHO[1] * b.sum() - own.value / 2 + EPS / 2 * b.sum() ** 2, 1e-12)
    for name in (*SCALARS, "grad_x", "grad_y", "grad_b", "displacement"):
        assert np.isfinite(getattr(result, name)).all(), name
    np.testing.assert_array_equal(result.grad_a, -np.inf)
    mirrored = epsot.divergence(epsot.PointCloud(y, problem.x), b, 0 * problem.a, eps=EPS, rho=RHO[::-1], **TIGHT)
    close(mirrored.value, result.value, 1e-12)
    close(mirrored.grad_x, result.grad_y, 1e-12)


@pytest.mark.parametrize("entry", [epsot.solve, epsot.divergence])
def test_nothing_and_nothing(entry: Any, problem: Measures) -> None:
    for y in (problem.x, problem.y):
        cloud = epsot.PointCloud(problem.x, y)
        result = entry(cloud, np.zeros(7), np.zeros(len(y)), eps=EPS, rho=RHO)
        for name in (*SCALARS, "grad_x", "grad_y", "displacement"):
            assert not np.any(getattr(result, name)), name
        assert not np.any(result.plan.to_dense())
        assert not np.isnan([*result.f, *result.g, *result.grad_a, *result.grad_b]).any()


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_empty_mask(entry: Any, dtype: Any, rng: np.random.Generator) -> None:
    """By length, in either dtype; large clouds, which are solved from coarse to fine, too."""
    for n, m in ((10, 20), (3000, 3100)):
        x, y = rng.random((n, 2)).astype(dtype), rng.random((m, 2)).astype(dtype)
        result = entry(x, y, np.zeros(n), blur=0.1, reach=0.5)
        assert result.success
        assert result.value.dtype == dtype
        if entry is epsot.sinkhorn:
            close(result.value, 0.25, 1e-7 if dtype == np.float32 else 1e-14)


def test_no_mass_where_some_has_to_come_from() -> None:
    for rho in (None, (0.5, None)):
        with pytest.raises(ValueError, match=r"`a` must have positive mass.* set `rho`"):
            epsot.solve(epsot.CostMatrix(np.ones((2, 3))), [0, 0], eps=1, rho=rho)
    with pytest.raises(ValueError, match=r"`b` must have positive mass.* set `reach`"):
        epsot.sinkhorn([[0.0]], [[1.0]], None, [0], blur=1, reach=(None, 1))
    with pytest.raises(ValueError, match="`b` must have positive mass"):
        epsot.Objective([[0.0]], [0], blur=1)


LARGE = 2e3  # the cost of pairs that nobody takes, to a part of exp(-LARGE / (eps + rho))
PRECISE: dict[str, Any] = {"tol": 1e-10, "max_iter": 10_000}


@pytest.mark.parametrize("rho", [RHO, (0.4, None), (0.4, 30)])
@pytest.mark.parametrize("entry", ["solve", "divergence"])
def test_rows_without_a_partner(entry: str, rho: Any, problem: Measures) -> None:
    """They are destroyed, as where their costs are large; the others do as if they were not there."""
    a, b = problem.a, problem.b
    where = {"rows": (0, 2), "columns": () if rho[1] is None else (3,)}
    result, near = (
        getattr(epsot, entry)(costs(problem, **where, cost=cost), a, b, eps=EPS, rho=rho, **PRECISE)
        for cost in (np.inf, LARGE)
    )
    assert result.success
    close([result.value, result.dual, result.primal], [near.value] * 3, 1e-7)
    P, rows, columns = (
        result.plan.to_dense(),
        np.isin(np.arange(7), where["rows"]),
        np.isin(np.arange(5), where["columns"]),
    )
    close(P, near.plan.to_dense(), 1e-7)
    assert not P[rows].any()
    assert not P[:, columns].any()
    np.testing.assert_array_equal(result.f[rows], np.inf)
    np.testing.assert_array_equal(result.g[columns], np.inf)
    close(result.f[~rows], near.f[~rows], 1e-7)
    close(result.g[~columns], near.g[~columns], 1e-7)
    close(result.grad_a, near.grad_a, 1e-7)
    close(result.grad_b, near.grad_b, 1e-7)
    assert np.isnan(result.plan.barycentric_map(np.arange(5.0))[rows]).all()
    for part in (result,) if isinstance(result, SinkhornResult) else result.parts:
        assert np.isfinite([float(getattr(part, name)) for name in SCALARS]).all()


def test_nobody_has_a_partner(problem: Measures) -> None:
    """All pairs are too far apart: everything is destroyed."""
    C, (_, _, a, b) = costs(problem, rows=range(7)), problem
    result = epsot.solve(C, a, b, eps=EPS, rho=RHO)
    assert result.success
    mass_a, mass_b = a.sum(), b.sum()
    close([result.value, result.primal], [RHO[0] * mass_a + RHO[1] * mass_b + EPS * mass_a * mass_b] * 2, 1e-14)
    assert not np.any(result.plan.to_dense())
    assert result.transport_cost == 0
    assert np.isinf([*result.f, *result.g]).all()
    close(result.grad_a, RHO[0] + EPS * mass_b, 1e-14)
    near = epsot.divergence(costs(problem, rows=range(7), cost=LARGE), a, b, eps=EPS, rho=RHO, **PRECISE)
    close(epsot.divergence(C, a, b, eps=EPS, rho=RHO, **PRECISE).value, near.value, 1e-9)


def test_weight_zero_beside_mass_alone(problem: Measures) -> None:
    """A point of weight zero that may serve a column which no other serves: its potential falls without end."""
    a, b = np.asarray([1.0, 0.5, 0.0]), np.asarray([1.0, 2.0])
    C = epsot.CostMatrix([[0.0, np.inf], [1.0, np.inf], [2.0, 3.0]])
    limit = epsot.solve(C, a, b, eps=EPS, rho=RHO, **PRECISE)
    near, nearer = (epsot.solve(C, [1.0, 0.5, t], b, eps=EPS, rho=RHO, **PRECISE) for t in (1e-60, 1e-120))
    close(nearer.value, limit.value, 1e-9)
    close(nearer.f[:2], limit.f[:2], 1e-9)
    close(nearer.g[0], limit.g[0], 1e-9)
    assert nearer.f[2] < near.f[2] - 1
    assert limit.f[2] == -np.inf
    assert nearer.g[1] > near.g[1] + 1
    assert limit.g[1] == np.inf


def test_a_side_that_is_nobodys(problem: Measures) -> None:
    """Points without a partner on their own side: those of a divergence whose self costs forbid them."""
    a = problem.a
    C = costs(problem)
    own, large = C.C_xx.copy(), C.C_xx.copy()
    for matrix, cost in ((own, np.inf), (large, LARGE)):
        matrix[0, :] = matrix[:, 0] = cost
    result, near = (
        epsot.divergence(epsot.CostMatrix(C.C, C_xx=matrix, C_yy=C.C_yy), a, problem.b, eps=EPS, rho=RHO, **PRECISE)
        for matrix in (own, large)
    )
    close(result.value, near.value, 1e-7)
    close(result.grad_a, near.grad_a, 1e-7)
    assert result.f[0] == -np.inf
    with pytest.raises(ValueError, match="`C_xx` must allow a pair in every row of positive weight, got 1"):
        epsot.divergence(
            epsot.CostMatrix(C.C, C_xx=own, C_yy=C.C_yy), a / a.sum(), problem.b / problem.b.sum(), eps=EPS
        )


@pytest.mark.parametrize("entry", ["solve", "divergence"])
def test_starts_from_mass_alone_and_to_it(entry: str, problem: Measures) -> None:
    """Infinite potentials are no start, and an earlier result none of where there is nothing to do."""
    a, b = problem.a, problem.b
    geometries = [costs(problem), costs(problem, rows=(0, 2))]
    for start in geometries:
        for weights in (a, 0 * a):
            init = getattr(epsot, entry)(start, weights, b, eps=EPS, rho=RHO)
            for geometry in geometries:
                for mine in (a, 0 * a):
                    options: dict[str, Any] = {"eps": EPS, "rho": RHO} | PRECISE
                    warm = getattr(epsot, entry)(geometry, mine, b, init=init, **options)
                    cold = getattr(epsot, entry)(geometry, mine, b, **options)
                    close(warm.value, cold.value, 1e-9)
                    close(warm.f, cold.f, 1e-7)


def test_weight_zero_far_from_where_mass_can_come_from() -> None:
    """There the first mass is worth more than float64 can say; the gradient in a point without weight is zero."""
    x, y, a = np.asarray([[0.0], [60.0]]), np.asarray([[60.5], [61.0]]), np.asarray([1.0, 0.0])
    for cost in (None, type("Own", (epsot.costs.HalfSquare,), {"kind": None})()):
        result = epsot.solve(epsot.PointCloud(x, y, cost=cost), a, eps=0.09, rho=1)
        assert np.isfinite(result.f).all()
        assert not np.any(result.grad_x)
        assert np.isfinite(result.grad_y).all()
        assert result.grad_a[1] == -np.inf
        assert not abs(result.displacement[1, 0]) < 1e170
