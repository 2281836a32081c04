"""Measures without any mass, between grids: there is no pair, and nothing to sweep over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import epsot
from epsot import Grid


@pytest.mark.parametrize("cost", ["half", "cityblock"])
@pytest.mark.parametrize("empty", ["a", "b", "both", "a beside zeros"])
def test_measures_without_mass(empty: str, cost: str) -> None:
    """No node has a partner: the answer is that of clouds, which leave them out."""
    x, y = Grid((3, 4), origin=(0.5, -1.0)), Grid((5, 2), spacing=0.7)
    rng = np.random.default_rng(5)
    a, b = rng.random(x.shape), rng.random(y.shape)
    if empty != "b":
        a[:] = 0.0
    if empty in ("b", "both"):
        b[:] = 0.0
    if empty == "a beside zeros":
        b[1:3] = 0.0
    named = {"cost": "cityblock"} if cost == "cityblock" else {}
    options = {"eps": 0.3, "rho": (1.5, 2.0)}
    for solver in (epsot.solve, epsot.divergence):
        found = solver(epsot.PointCloud(x, y, **named), a, b, **options)
        wanted = solver(epsot.PointCloud(x.points, y.points, **named), a.ravel(), b.ravel(), **options)
        assert found.success and wanted.success
        for name in ("value", "dual", "primal", "f", "g", "grad_a", "grad_b", "grad_x", "displacement"):
            mine, other = (np.asarray(getattr(result, name)) for result in (found, wanted))
            assert_allclose(mine, other.reshape(mine.shape), rtol=1e-3, atol=1e-3, err_msg=name)
        assert found.marginal_error <= 1e-3 and found.gap <= 1e-2 * abs(found.value) + 1e-12
        points = rng.random((3, 2))
        assert_allclose(found.potential(points), wanted.potential(points), atol=1e-3)
        assert_allclose(found.transport(points), wanted.transport(points), atol=1e-3)
    plan = epsot.solve(epsot.PointCloud(x, y, **named), a, b, **options).plan
    assert not np.asarray(plan.to_dense()).any()


BLOCKS = [(of, along) for of in "xyab" for along in "xyab"]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("empty", ["a", "b", "ab"])
@pytest.mark.parametrize("grids", [False, True], ids=["clouds", "grids"])
def test_second_derivatives_without_mass(grids: bool, empty: str, p: int) -> None:
    """Nothing is carried: points change nothing, and weights by the share of the masses alone, eps m_a m_b."""
    x, y = (
        (Grid((2, 2)), Grid((3, 1), spacing=0.7)) if grids else np.split(np.random.default_rng(8).random((7, 2)), [4])
    )
    a, b = np.full(4, 0.25) * ("a" not in empty), np.full(3, 0.5) * ("b" not in empty)
    if grids:
        a, b = a.reshape(2, 2), b.reshape(3, 1)
    result = epsot.sinkhorn(x, y, a, b, blur=0.3, reach=1.0, p=p)
    for of, along in BLOCKS:
        if grids and {of, along} & set("xy"):
            continue
        hessian = result.hessian(of, along)
        wanted = 0.3**p if {of, along} == set("ab") else 0.0
        assert_allclose(hessian @ np.eye(hessian.shape[1]), np.full(hessian.shape, wanted), rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_second_derivatives_beside_a_measure_without_mass(p: int) -> None:
    """What is left of the divergence is half of the other measure's own term, and that has derivatives."""
    x, y, step = *np.split(np.random.default_rng(9).random((7, 2)), [4]), 1e-5
    a, b = np.zeros(4), np.asarray([0.2, 0.5, 0.4])
    options = {"blur": 0.3, "reach": 1.0, "p": p, "tol": 1e-11}
    result = epsot.sinkhorn_divergence(x, y, a, b, **options)
    v, beta = np.random.default_rng(10).normal(size=(3, 2)), np.asarray([0.3, -0.2, 0.1])
    for along, direction in (("y", v), ("b", beta)):
        ahead, behind = (
            epsot.sinkhorn_divergence(x, y + s * v, a, b, **options)
            if along == "y"
            else epsot.sinkhorn_divergence(x, y, a, b + s * beta, **options)
            for s in (step, -step)
        )
        for of in "yb":
            change = (getattr(ahead, f"grad_{of}") - getattr(behind, f"grad_{of}")) / (2 * step)
            assert np.abs(change).max() > 1e-2
            assert_allclose(result.hessian(of, along) @ direction.ravel(), change.ravel(), atol=1e-6)
        assert not np.any(result.hessian("x", along) @ direction.ravel())


def test_an_empty_image_in_a_batch() -> None:
    """It is what it is alone, and moves none of the others."""
    x = Grid((6, 5))
    rng = np.random.default_rng(6)
    a, b = rng.random((3, *x.shape)), rng.random(x.shape)
    a[1] = 0.0
    batch = epsot.sinkhorn_divergence(x, x, a, b, blur=0.5, reach=3.0)
    for k in range(3):
        alone = epsot.sinkhorn_divergence(x, x, a[k], b, blur=0.5, reach=3.0)
        assert batch.status[k] == alone.status and batch.status[k] == epsot.Status.CONVERGED
        assert_allclose(batch.value[k], alone.value, rtol=1e-9)
        assert_allclose(batch.f[k], alone.f, rtol=1e-9)
        assert_allclose(batch.grad_b[k], alone.grad_b, rtol=1e-9)


def test_results_without_mass_last(tmp_path: Path) -> None:
    """A file of one is read to the bit."""
    x = Grid((4, 3))
    result = epsot.sinkhorn(x, x, np.zeros(x.shape), np.ones(x.shape), blur=0.5, reach=3.0)
    result.save(tmp_path / "empty.npz")
    again = epsot.load(tmp_path / "empty.npz")
    assert again.value == result.value and (again.f == result.f).all() and (again.g == result.g).all()


def test_a_geometry_that_can_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epsot.geometry.Separable, "scattered", lambda self, rows, columns: None)
    with pytest.raises(ValueError, match="`a` must have positive mass where the geometry"):
        epsot.solve(epsot.PointCloud(Grid(4), Grid(3)), np.zeros(4), np.ones(3), eps=0.3, rho=1.0)


def test_a_potential_of_any_size_where_there_is_no_weight() -> None:
    """Little reach: a node without weight would call for more than numbers hold, and none of that is in the value."""
    x, y = Grid((4, 3)), Grid((3, 4), spacing=0.7, origin=(0.3, -0.2))
    a, b = np.zeros(x.shape), np.full(y.shape, 1 / 12)
    a[0] = 1e-4
    options = {"blur": 0.03, "reach": (7e-4, 18.0), "tol": 1e-6}
    found = epsot.sinkhorn(x, y, a, b, **options)
    alone = epsot.sinkhorn(x.points[:3], y.points, a[0], b.ravel(), **options)
    assert -found.f.min() / 7e-4**2 > 710  # whose exponential is beyond float64
    for name in ("value", "dual", "primal"):
        assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-6)
    assert_allclose(found.grad_a[0], alone.grad_a, rtol=1e-4)
    assert_allclose(found.hessian("b") @ b.ravel(), alone.hessian("b") @ b.ravel(), atol=1e-6)
