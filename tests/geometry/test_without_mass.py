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
