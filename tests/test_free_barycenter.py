"""A cloud that moves between clouds: closed forms, finite differences, invariances, and what is said of the outcome."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import epsot
from tests.checks import close

BLUR = 0.3


def objective(points: np.ndarray, clouds: Any, weights: Any, t: Any, blur: float = BLUR) -> float:
    """sum_k t_k S(points, x_k)."""
    total = 0.0
    for x, a, share in zip(clouds, weights, t, strict=True):
        mass = 1.0 if a is None else a.sum()
        own = np.full(len(points), mass / len(points))
        total += share * float(epsot.sinkhorn_divergence(points, x, own, a, blur=blur, tol=1e-10).value)
    return total


def test_translates(rng: np.random.Generator) -> None:
    """The barycenter of translates is the translate to the mean, in one step from any of them."""
    shape = rng.normal(size=(40, 2))
    shifts = np.asarray([[0.0, 0.0], [4.0, 1.0], [-1.0, 3.0]])
    t = np.asarray([2.0, 1.0, 1.0])
    result = epsot.free_barycenter(shape + shifts[:, None, :], None, t, init=shape - 5.0, blur=BLUR, tol=1e-4)
    assert result.success
    assert result.nit == 2  # the second finds it at rest
    mean = (t / t.sum()) @ shifts
    close(result.points, shape + mean, 1e-4)
    spread = float((t / t.sum()) @ ((shifts - mean) ** 2).sum(axis=1)) / 2
    close(result.value, spread, 1e-4)
    assert result.movement <= 1e-4
    assert result.points.shape == result.displacement.shape == (40, 2)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_deviations_of_gaussians_are_averaged(share: float, any_path: None) -> None:
    """On a line quantiles are averaged: of quantiles of two Gaussians they are those of a third."""
    from scipy.special import ndtri

    z = ndtri((np.arange(150) + 0.5) / 150)[:, None]
    clouds = [z, 3.0 * z + 2.0]
    start = np.linspace(-1.0, 1.0, 60)[:, None]
    result = epsot.free_barycenter(clouds, t=[1 - share, share], init=start, blur=0.2)
    assert result.success
    few = ndtri((np.arange(60) + 0.5) / 60)
    slope = 1 + 2 * share
    close(result.points.mean(), 2.0 * share, 1e-2)
    close(result.points.std(), slope * few.std(), 0.03 * slope)
    close(np.sort(result.points[:, 0])[10:-10], (slope * few + 2.0 * share)[10:-10], 0.05)


def test_one_cloud_and_corners(rng: np.random.Generator) -> None:
    """A single cloud, or the one that has all of the share, is where the points go."""
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 4.0
    start = rng.normal(size=(30, 2)) + 2.0
    alone = epsot.free_barycenter([x], init=start, blur=BLUR)
    corner = epsot.free_barycenter([x, y], t=[1, 0], init=start, blur=BLUR)
    close(corner.points, alone.points, 1e-12)
    assert float(alone.value) < 2e-4
    close(alone.points.mean(axis=0), x.mean(axis=0), 1e-3)
    close(corner.grad_t[1], objective(corner.points, [y], [None], [1.0]), 1e-5)
    assert corner.t == (1.0, 0.0)


@pytest.fixture
def clouds(rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Three clouds of different sizes, weights of mass two with zeros, and a start."""
    x = [rng.normal(size=(25, 2)), rng.random((30, 2)) + 2.0, 0.5 * rng.normal(size=(15, 2)) - 1.0]
    a = [rng.random(len(z)) for z in x]
    for z in a:
        z[:2] = 0.0
    return x, [2 * z / z.sum() for z in a], rng.normal(size=(20, 2))


def test_gradient_vanishes(clouds: Any) -> None:
    """Finite differences of the objective, at rest and before."""
    x, a, start = clouds
    t = (0.5, 0.2, 0.3)
    result = epsot.free_barycenter(x, a, t, init=start, blur=BLUR, tol=1e-3)
    assert result.success
    close(result.value, objective(result.points, x, a, t), 1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        early = epsot.free_barycenter(x, a, t, init=start, blur=BLUR, tol=1e-5, max_iter=2)
    direction, step = np.random.default_rng(5).normal(size=start.shape), 1e-4
    for found, size in ((result, 1e-3), (early, None)):
        ahead, back = (objective(found.points + s * direction, x, a, t) for s in (step, -step))
        slope = -2.0 / len(start) * float(np.sum(found.displacement * direction))
        assert abs((ahead - back) / (2 * step) - slope) < 2e-4
        if size is not None:
            assert np.sqrt((found.displacement**2).sum(axis=1).mean()) <= size * BLUR
    assert early.nit == 2
    assert objective(early.points, x, a, t) > float(result.value)


def test_invariances(clouds: Any) -> None:
    """Order of clouds and of their points, mass, the sum of shares, where all lie, zeros left out."""
    x, a, start = clouds
    t = np.asarray([0.5, 0.2, 0.3])
    options: dict[str, Any] = {"blur": BLUR, "tol": 1e-3}
    result = epsot.free_barycenter(x, a, t, init=start, **options)
    rng, order = np.random.default_rng(6), [2, 0, 1]
    places = [rng.permutation(len(z)) for z in x]
    same = epsot.free_barycenter(
        [x[k][places[k]] + 50.0 for k in order], [3 * a[k][places[k]] for k in order], 9 * t[order], init=start + 50.0,
        **options,
    )  # fmt: skip
    close(same.points - 50.0, result.points, 2e-3)
    close(same.value, 3 * result.value, 1e-4)
    kept = epsot.free_barycenter([z[2:] for z in x], [z[2:] for z in a], t, init=start, **options)
    close(kept.points, result.points, 1e-9)
    assert [check.nit for check in result.history] == list(range(1, result.nit + 1))
    assert result.history[-1].marginal_error == result.movement
    assert len(result.parts) == 3
    assert result.marginal_error <= 1e-4
    assert "CONVERGED" in repr(result)
    assert "rest" not in result.message.split(";")[0] or result.success


def test_uniform_by_default(rng: np.random.Generator) -> None:
    x, start = rng.normal(size=(2, 12, 3)), rng.normal(size=(8, 3))
    result = epsot.free_barycenter(x, init=start, blur=0.5)
    given = epsot.free_barycenter(list(x), np.full((2, 12), 1 / 12), [1, 1], init=start, blur=0.5)
    close(given.points, result.points, 1e-12)


@pytest.mark.parametrize("library", ["strict", "torch", "jax"])
def test_library_of_the_user(clouds: Any, library: str) -> None:
    x, a, start = clouds
    xp = strict if library == "strict" else pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[library])
    given = [[xp.asarray(z.astype(np.float32)) for z in some] for some in (x, a, [start])]
    result = epsot.free_barycenter(*given[:2], init=given[2][0], blur=BLUR)
    expected = epsot.free_barycenter(x, a, init=start, blur=BLUR)
    for name in ("points", "value", "displacement", "grad_t"):
        found = getattr(result, name)
        assert type(found) is type(given[2][0]), name
        assert found.dtype == given[2][0].dtype, name
        numbers = np.from_dlpack(found) if library == "strict" else np.asarray(found)
        close(numbers, getattr(expected, name), 2e-3)


def test_callback_and_warning(clouds: Any) -> None:
    x, a, start = clouds
    seen: list[Any] = []

    def stop(record: Any) -> None:
        seen.append((record.nit, record.movement, record.points.shape, repr(record)))
        if record.nit == 2:
            raise StopIteration

    result = epsot.free_barycenter(x, a, init=start, blur=BLUR, tol=1e-6, callback=stop)
    assert result.status is epsot.Status.STOPPED
    assert [nit for nit, *_ in seen] == [1, 2]
    assert result.movement == seen[-1][1]
    with pytest.warns(epsot.ConvergenceWarning, match="MAX_ITER.*did not bring the points to rest"):
        short = epsot.free_barycenter(x, a, init=start, blur=BLUR, tol=1e-9, max_iter=1)
    assert short.nit == 1
    assert not short.success


PAIR = np.arange(12.0).reshape(2, 3, 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": PAIR[0]}, ValueError, "`x` must be a"),
        ({"x": []}, ValueError, "`x` must"),
        ({"x": [PAIR[0], PAIR[0][:, :1]]}, ValueError, r"`x\[1\]` must have points of 2 coordinates"),
        ({"x": PAIR * np.nan}, ValueError, r"`x\[0\]` must have finite coordinates"),
        ({"x": [epsot.Grid((2, 2))]}, TypeError, "got a Grid"),
        ({"init": np.zeros(3)}, ValueError, "`init` must be an"),
        ({"init": np.full((2, 2), np.inf)}, ValueError, "`init` must have finite"),
        ({"a": np.ones((2, 4))}, ValueError, r"`a\[0\]` must have shape \(3,\)"),
        ({"a": np.ones((3, 3))}, ValueError, "`a` must hold one vector of weights a cloud"),
        ({"a": [np.ones(3), 2 * np.ones(3)]}, ValueError, r"`a\[1\]` must have the mass of `a\[0\]`"),
        ({"a": [np.ones(3), np.zeros(3)]}, ValueError, r"`a\[1\]` must have positive mass"),
        ({"a": np.ones(3)}, ValueError, "`a` must be a"),
        ({"t": [1, -1]}, ValueError, r"`t\[1\]`"),
        ({"p": 1}, ValueError, "`p` must be 2"),
        ({"blur": -1.0}, ValueError, "`blur` must be positive"),
        ({"tol": None}, ValueError, "`tol` must be positive"),
        ({"tol": 0}, ValueError, "`tol` must be positive"),
        ({"max_iter": 0}, ValueError, "`max_iter`"),
        ({"callback": 1}, TypeError, "`callback`"),
        ({"workers": 0}, ValueError, "`workers`"),
        ({"init": strict.asarray(PAIR[0])}, TypeError, "one library"),
    ],
)
def test_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"x": PAIR, "a": None, "t": None, "init": PAIR[0] + 1, "blur": 1.0, **changes}
    with pytest.raises(error, match=message):
        epsot.free_barycenter(arguments.pop("x"), arguments.pop("a"), arguments.pop("t"), **arguments)


def test_records_begin_another_solve(rng: np.random.Generator, tmp_path: Path) -> None:
    clouds, seen = [rng.normal(size=(30, 2)), rng.normal(size=(25, 2)) * [2.0, 0.5]], []

    def keep(record: Any) -> None:
        seen.append(record)
        if record.nit == 3:
            record.save(tmp_path / "record")
            raise StopIteration

    options: dict[str, Any] = {"blur": BLUR, "tol": 1e-2}
    init = rng.normal(size=(20, 2))
    whole = epsot.free_barycenter(clouds, init=init, **options)
    epsot.free_barycenter(clouds, init=init, callback=keep, **options)
    record = epsot.load(tmp_path / "record")
    assert (record.nit, record.movement, record.status) == (3, seen[-1].movement, epsot.Status.STOPPED)
    np.testing.assert_array_equal(record.points, seen[-1].points)
    rest = epsot.free_barycenter(clouds, init=record.points, **options)
    assert rest.success
    assert rest.nit <= whole.nit - 2
    close(rest.value, whole.value, 1e-3)
