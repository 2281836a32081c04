"""What a solve starts from, loaded or not: it changes the way, never the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.geometry import Multiscale

EXACT: dict[str, Any] = {"tol": 1e-9, "max_iter": 5000}


class Killed(Exception):
    """What ends a process, here."""


def clouds(n: int = 60, m: int = 50, d: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((n, d)), rng.random((m, d)) + 0.2


def killed(call: Callable[..., Any], after: int, path: Path) -> Any:
    """The last record of a solve that has saved one after every iteration, and was killed after some."""

    def callback(record: Any) -> None:
        record.save(path)
        if np.max(record.nit) == after:
            raise Killed

    with pytest.raises(Killed):
        call(callback=callback)
    return epsot.load(path)


def weights(n: int) -> np.ndarray:
    a = np.random.default_rng(2).random(n)
    a[3] = 0
    return a / a.sum()


GRIDS = epsot.Grid((10, 14)), epsot.Grid((12, 9), origin=1.5)


def images() -> tuple[np.ndarray, np.ndarray]:
    return weights(140).reshape(10, 14), np.random.default_rng(7).dirichlet(np.ones(108)).reshape(12, 9)


SOLVES: dict[str, Callable[..., Any]] = {
    "points": lambda **k: epsot.sinkhorn(*clouds(), weights(60), blur=0.02, **k),
    "float32": lambda **k: epsot.sinkhorn(*(z.astype(np.float32) for z in clouds()), blur=0.02, **k),
    "unbalanced": lambda **k: epsot.sinkhorn(*clouds(), blur=0.02, reach=0.5, **k),
    "divergence": lambda **k: epsot.sinkhorn_divergence(*clouds(), blur=0.02, **k),
    "matrix": lambda **k: epsot.solve(epsot.CostMatrix(np.random.default_rng(3).random((40, 30))), eps=0.01, **k),
    "cells": lambda **k: epsot.solve(Multiscale(*clouds(500, 400)), weights(500), eps=0.02**2, **k),
    "grids": lambda **k: epsot.sinkhorn(*GRIDS, *images(), blur=0.5, **k),
    "wide": lambda **k: epsot.sinkhorn(*clouds(8, 4500, 3), weights(8), blur=0.05, tol=1e-6, **k),
}


@pytest.mark.parametrize("name", SOLVES)
def test_a_killed_solve_goes_on(name: str, tmp_path: Path) -> None:
    """Half of the iterations are not made again."""
    cold = SOLVES[name]()
    record = killed(SOLVES[name], cold.nit // 2, tmp_path / "record.npz")
    assert record.nit == cold.nit // 2
    assert record.f.shape == cold.f.shape
    assert record.g.shape == cold.g.shape
    assert record.f.dtype == cold.f.dtype
    warm = SOLVES[name](init=record)
    assert warm.success
    assert warm.nit <= 0.7 * cold.nit
    np.testing.assert_allclose(warm.value, cold.value, rtol=2e-3)


def test_records_are_what_was_seen(tmp_path: Path) -> None:
    """To the bit, of the points also where the solve is on cells; saved again they are the same."""
    for name in ("points", "float32", "cells", "grids"):
        seen: list[Any] = []

        def callback(record: Any, seen: list[Any] = seen) -> None:
            if record.nit == 4:
                seen.append((record.nit, record.eps, record.marginal_error, record.f, record.g))
                record.save(tmp_path / "record")
                raise Killed

        with pytest.raises(Killed):
            SOLVES[name](callback=callback)
        epsot.load(tmp_path / "record").save(tmp_path / "again")
        for path in ("record", "again"):
            record = epsot.load(tmp_path / path)
            nit, eps, error, f, g = seen[0]
            assert (record.nit, record.eps, record.marginal_error) == (nit, eps, error)
            np.testing.assert_array_equal(record.f, f, strict=True)
            np.testing.assert_array_equal(record.g, g, strict=True)
            assert repr(record) == f"Record(nit=4, eps={eps:.4g})"


def test_a_killed_batch_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    ragged = [rng.random((n, 2)) for n in (20, 30, 25)]
    for x in (rng.random((3, 30, 2)), ragged):

        def call(x: Any = x, **options: Any) -> Any:
            return epsot.sinkhorn_divergence(x, clouds()[1], blur=0.03, **options)

        cold = call()
        record = killed(call, int(cold.nit.max()) // 2, tmp_path / "record")
        assert record.shape == (3,)
        shapes = [z.shape for z in record.f], [z.shape for z in cold.f]
        assert shapes[0] == shapes[1]
        warm = call(init=record)
        assert warm.success.all()
        assert warm.nit.sum() <= 0.7 * cold.nit.sum()
        np.testing.assert_allclose(warm.value, cold.value, rtol=2e-3)


@pytest.mark.parametrize("name", ["points", "divergence", "unbalanced", "matrix", "grids"])
def test_loaded_results_are_starts(name: str, tmp_path: Path) -> None:
    cold = SOLVES[name](**EXACT)
    cold.save(tmp_path / "result")
    again = SOLVES[name](init=epsot.load(tmp_path / "result"), **EXACT)
    alike = SOLVES[name](init=cold, **EXACT)
    assert again.nit == alike.nit <= 2
    np.testing.assert_array_equal(again.f, alike.f)


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
def test_results_of_numpy_start_problems_of_any_library(library: str, tmp_path: Path) -> None:
    xp = pytest.importorskip(library)
    x, y = clouds(12, 10)
    theirs = xp.asarray(x), xp.asarray(y)
    exact = {**EXACT, "tol": 1e-6}
    for call in (epsot.sinkhorn, epsot.sinkhorn_divergence):
        cold = call(*theirs, blur=0.1, **exact)
        cold.save(tmp_path / "result")
        loaded = epsot.load(tmp_path / "result")
        for init in (loaded, (loaded.f, loaded.g), (cold.f, cold.g)) if call is epsot.sinkhorn else (loaded,):
            again = call(*theirs, blur=0.1, init=init, **exact)
            assert again.nit <= 2
            assert type(again.f) is type(cold.f)
        moved = call(xp.asarray(x + 0.01), theirs[1], blur=0.1, init=loaded, **exact)
        assert moved.success
    batch = xp.asarray(np.stack([x, x + 0.1]))
    cold = epsot.sinkhorn(batch, theirs[1], blur=0.1, **exact)
    cold.save(tmp_path / "result")
    assert epsot.sinkhorn(batch, theirs[1], blur=0.1, init=epsot.load(tmp_path / "result"), **exact).nit.max() <= 2
    ours = epsot.sinkhorn(x, y, blur=0.1, init=(cold.f[0, ...], cold.g[0, ...]), **exact)
    assert ours.success


@pytest.mark.parametrize("name", SOLVES)
def test_pairs_are_starts(name: str) -> None:
    """Of the answer, shifted by a constant, of another temperature, or of nothing at all: the end is the same."""
    cold = SOLVES[name]()
    if name == "divergence":
        cold = cold.xy
    f, g = cold.f, cold.g
    rng = np.random.default_rng(5)
    pairs = {
        "itself": (f, g),
        "shifted": [f + 3.0, g - 3.0],
        "lists": (f.tolist(), g.tolist()),
        "zeros": (0 * f, 0 * g),
        "noise": (f * rng.random(f.shape), g * rng.random(g.shape)),
        "huge": (1e200 * np.ones(f.shape), g),
    }
    for what, pair in pairs.items():
        before = [np.array(z) for z in pair]
        warm = SOLVES[name](init=pair)
        assert warm.success, what
        np.testing.assert_allclose(warm.value, SOLVES[name]().value, rtol=5e-3)
        assert all(np.array_equal(np.array(z), old) for z, old in zip(pair, before, strict=True))
        if what in ("itself", "lists") or (what == "shifted" and name != "unbalanced"):
            assert warm.nit <= 5


def test_pairs_of_batches() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.random((3, 20, 2)), rng.random((25, 2))
    cold = epsot.sinkhorn(x, y, blur=0.1, **EXACT)
    for init in ((cold.f, cold.g), (list(cold.f), list(cold.g)), (cold.f[0], cold.g[0]), cold[0]):
        warm = epsot.sinkhorn(x, y, blur=0.1, init=init, **EXACT)
        assert warm.success.all()
        assert warm.nit[0] <= 2
        np.testing.assert_allclose(warm.value, cold.value, rtol=1e-7)
    assert epsot.sinkhorn(x, y, blur=0.1, init=(cold.f, cold.g), **EXACT).nit.max() <= 2
    assert epsot.sinkhorn_divergence(x, y, blur=0.1, init=(cold.f, cold.g), **EXACT).success.all()


def test_records_of_a_running_solve_are_starts() -> None:
    """Nothing need be written: the last record is enough."""
    seen: list[Any] = []

    def callback(record: Any) -> None:
        seen.append(record)
        if record.nit == 8:
            raise Killed

    with pytest.raises(Killed):
        SOLVES["points"](callback=callback)
    assert SOLVES["points"](init=seen[-1]).success


def test_a_killed_batch_of_images_goes_on(tmp_path: Path) -> None:
    """Its items are solved one after the other: those to come are at the beginning, and begin there."""
    a, b = images()
    many, seen = np.stack([a, a[::-1], a[:, ::-1]]), []

    def call(**options: Any) -> Any:
        return epsot.sinkhorn(*GRIDS, many, b, blur=0.5, **options)

    def callback(record: Any) -> None:
        seen.append((record.nit.copy(), record.progress, record.f, record.record()))
        if record.nit[1] == 5:
            record.save(tmp_path / "record")
            assert repr(record).startswith("BatchSoFar(shape=(3,)")
            raise Killed

    cold = call()
    with pytest.raises(Killed):
        call(callback=callback)
    record = epsot.load(tmp_path / "record")
    nits, shares, potentials, records = zip(*seen, strict=True)
    assert nits[-1].tolist() == record.nit.tolist() == [cold.nit[0], 5, 0]
    assert 0 <= shares[0] < 1 / 3 < shares[-1] < 2 / 3
    assert min(np.diff(shares)) >= 0
    assert record.f.shape == records[-1].f.shape == cold.f.shape == (3, 10, 14)
    np.testing.assert_array_equal(record.f, potentials[-1])
    assert not record.f[2].any()
    assert np.isinf(record.eps[2])
    assert np.isnan(record.marginal_error[2])
    warm = call(init=record)
    assert warm.success.all()
    assert warm.nit[0] <= 3
    assert warm.nit.sum() < cold.nit.sum()
    np.testing.assert_allclose(warm.value, cold.value, rtol=2e-3)
    for init in ((cold.f, cold.g), (cold.f[0], cold.g[0]), cold):
        assert call(init=init).success.all()


def test_images_have_their_shape() -> None:
    f, g = np.zeros((10, 14)), np.zeros((12, 9))
    wrong = epsot.sinkhorn(GRIDS[0], epsot.Grid((9, 12)), blur=3.0, callback=(seen := []).append)
    for pair, message in (
        ((f.ravel(), g), r"`init[0]` must have shape (10, 14), that of its grid, got (140,)"),
        ((f, g.T), r"`init[1]` must have shape (12, 9), that of its grid, got (9, 12)"),
        (seen[-1].record(), r"`init[1]` must have shape (12, 9), that of its grid, got (9, 12)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            epsot.sinkhorn(*GRIDS, *images(), blur=3.0, init=pair)
    assert epsot.sinkhorn(*GRIDS, *images(), blur=3.0, init=wrong).success  # another grid: its potential extends
    many = np.stack([images()[0]] * 2)
    with pytest.raises(ValueError, match=re.escape("`init[0]` must have the shape of its grid, (10, 14)")):
        epsot.sinkhorn(*GRIDS, many, images()[1], blur=3.0, init=(np.zeros((2, 140)), g))
    epsot.sinkhorn(GRIDS[0], epsot.Grid((9, 12)), many, None, blur=3.0, callback=seen.append)
    with pytest.raises(ValueError, match=re.escape("`init` must be a record over grids of the shapes of these")):
        epsot.sinkhorn(*GRIDS, many, images()[1], blur=3.0, init=seen[-1])


N, M = 6, 5
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "one": ((np.zeros(N),), TypeError, "`init` must be an earlier result, a pair of potentials"),
    "three": ((1, 2, 3), TypeError, "`init`.*record of a callback, got tuple"),
    "short": ((np.zeros(N - 1), np.zeros(M)), ValueError, r"`init\[0\]` must have shape \(6,\).*got \(5,\)"),
    "turned": ((np.zeros(M), np.zeros(N)), ValueError, r"`init\[0\]` must have shape \(6,\)"),
    "column": ((np.zeros(N), np.zeros((M, 1))), ValueError, r"`init\[1\]` must have shape \(5,\).*got \(5, 1\)"),
    "nan": ((np.zeros(N), np.full(M, np.nan)), ValueError, r"`init\[1\]` must be finite"),
    "text": (("abcdef", np.zeros(M)), TypeError, r"`init\[0\]`"),
    "complex": ((np.zeros(N) * 1j, np.zeros(M)), TypeError, r"`init\[0\]` must be real"),
}


@pytest.mark.parametrize("name", BAD)
def test_pairs_are_checked(name: str) -> None:
    init, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        epsot.sinkhorn(*clouds(N, M), blur=0.3, init=init)


def test_batches_check_their_potentials() -> None:
    x, y = np.stack([clouds(N, M)[0]] * 3), clouds(N, M)[1]
    zeros = np.zeros((3, N)), np.zeros((3, M))
    for init, message in (
        ((zeros[0][:2], zeros[1]), r"`init[0]` must have potentials for a batch of shape (3,), got those of (2,)"),
        (([np.zeros(N), np.zeros(4), np.zeros(N)], zeros[1]), r"`init[0][1]` must have shape (6,)"),
        ((zeros[0], zeros[1] * np.nan), r"`init[1]` must be finite"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            epsot.sinkhorn(x, y, blur=0.3, init=init)


def test_what_has_no_weight_may_be_anything() -> None:
    x, y = clouds(N, M)
    a = np.asarray([0.5, 0.0, 0.25, 0.25, 0.0, 0.0])
    f = np.asarray([0.0, np.nan, 0.0, 0.0, np.inf, -np.inf])
    assert epsot.sinkhorn(x, y, a, blur=0.3, init=(f, np.zeros(M))).success
