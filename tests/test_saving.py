"""Saved results are what they were, to the bit; what is no file of ours is refused by its name."""

from __future__ import annotations

import json
import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import archives
from epsot.geometry import Geometry, Multiscale
from tests.fuzz_checks import readings
from tests.fuzz_problems import draw
from tests.test_fuzz import common

NUMBERS = ("value", "transport_cost", "dual", "primal", "gap", "f", "g", "grad_a", "grad_b")
IN_POINTS = ("grad_x", "grad_y", "displacement")
WORDS = ("status", "nit", "success", "message", "eps", "rho", "tol", "marginal_error")


def equal(one: Any, other: Any) -> None:
    """The same objects to the bit, whatever is nested in them."""
    if isinstance(other, np.ndarray | np.generic):
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(other, list | tuple):
        assert len(one) == len(other)
        for z, expected in zip(one, other, strict=True):
            equal(z, expected)
    else:
        assert one == other or (one != one and other != other)
        assert type(one) is type(other)


def same_result(again: Any, result: Any) -> None:
    """All that a single result says of itself."""
    assert type(again) is type(result)
    points = result.instance.geometry.points is not None
    for name in (*NUMBERS, *WORDS, "history", *(IN_POINTS if points else ())):
        equal(getattr(again, name), getattr(result, name))
    equal(again.instance.geometry.supports, result.instance.geometry.supports)
    equal(again.plan.to_dense(), result.plan.to_dense())
    equal(again.plan.T @ np.ones(result.plan.shape[0]), result.plan.T @ np.ones(result.plan.shape[0]))
    equal(repr(again), repr(result))
    if points:
        others = np.full((1, result.instance.geometry.points[0].shape[1]), 0.5)
        equal(again.transport(others), result.transport(others))
        equal(again.potential(others), result.potential(others))


def same_batch(again: Any, result: Any, *, points: bool = True) -> None:
    """All that a batch says of itself, and of its items."""
    assert type(again) is type(result)
    assert again.shape == result.shape
    for name in (*NUMBERS, *WORDS, "history", *(IN_POINTS if points else ())):
        equal(getattr(again, name), getattr(result, name))
    for k in range(result.status.size):
        same_result(again._item(k), result._item(k))


def saved(result: Any, folder: Path) -> Any:
    path = folder / "result"  # no suffix: this very name
    result.save(path)
    assert [found.name for found in folder.iterdir()] == ["result"]
    return epsot.load(path)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def singles() -> dict[str, Any]:
    rng = rng_of(6)
    x, y = rng.random((9, 2)), rng.random((7, 2))
    a, b = np.asarray([1, 0, 2, 3, 1, 1, 4, 2, 2]) / 16, rng.random(7)
    C, C_xx, C_yy = rng.random((9, 7)), np.abs(x[:, :1] - x[:, 0]), np.abs(y[:, :1] - y[:, 0])
    forbidden = np.where(C < 0.2, np.inf, C)
    lonely = C.copy()
    lonely[2] = np.inf
    single = x.astype(np.float32), y.astype(np.float32)
    far = x + 1e3, y
    deep = rng.random((8, 5)), rng.random((8, 5))
    grid, wide = epsot.Grid((3, 4), spacing=0.25), epsot.Grid((5, 2), spacing=(0.2, 0.4), origin=(0.1, 0.0))
    ring = epsot.Grid((4, 5), spacing=0.2, periodic=(True, False))
    image, other = rng.random((3, 4)), rng.random((5, 2))
    image[1, :2] = 0
    image, other = image / image.sum(), other / other.sum()
    around = rng.dirichlet(np.ones(20), 2).reshape(2, 4, 5)
    labels = {"labels_x": np.arange(9) // 3, "labels_y": np.arange(7) // 2}
    return {
        "plain": lambda: epsot.sinkhorn(x, y, blur=0.3),
        "weights of zero": lambda: epsot.sinkhorn(x, y, a, blur=0.3),
        "unbalanced": lambda: epsot.sinkhorn(x, y, a, b, blur=0.3, reach=(1.0, 0.4)),
        "one side bound": lambda: epsot.sinkhorn(x, y, a, b, blur=0.3, reach=(1.0, None)),
        "schedule": lambda: epsot.sinkhorn(x, y, a, blur=0.3, tol=None),
        "float32": lambda: epsot.sinkhorn(*single, blur=0.3, p=1),
        "cosine": lambda: epsot.solve(epsot.PointCloud(x, y, cost="cosine"), eps=0.3),
        "distances": lambda: epsot.divergence(epsot.PointCloud(*(z[:, :3] for z in deep), cost="euclidean"), eps=0.3),
        "five dimensions": lambda: epsot.sinkhorn_divergence(*deep, blur=0.3),
        "one cloud twice": lambda: epsot.sinkhorn(deep[0], deep[0], rng.random(8), np.ones(8), blur=0.3, reach=1.0),
        "divergence": lambda: epsot.sinkhorn_divergence(x, y, a, blur=0.3, reach=2.0),
        "float32 divergence": lambda: epsot.sinkhorn_divergence(*single, a.astype(np.float32), blur=0.3),
        "of itself": lambda: epsot.sinkhorn_divergence(x, x.copy(), a, a, blur=0.3),
        "far away": lambda: epsot.sinkhorn_divergence(*far, blur=0.3),
        "its own part": lambda: epsot.sinkhorn_divergence(x, y, a, blur=0.3).xx,
        "its other part": lambda: epsot.sinkhorn_divergence(*deep, a[:8] / a[:8].sum(), blur=0.3).yy,
        "matrix": lambda: epsot.solve(epsot.CostMatrix(forbidden), a + 0.1, b, eps=0.3, rho=2.0),
        "transposed matrix": lambda: epsot.solve(epsot.CostMatrix(C.T), eps=0.3),
        "rows without a partner": lambda: epsot.solve(epsot.CostMatrix(lonely), a, b, eps=0.3, rho=2.0),
        "matrices within": lambda: epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy), a, eps=0.3),
        "clusters": lambda: epsot.divergence(Multiscale(x, y, **labels), a, eps=0.1),
        "cells": lambda: epsot.solve(Multiscale(x, y), a, eps=0.1),
        "grids": lambda: epsot.sinkhorn(grid, wide, image, other, blur=0.3),
        "float32 grids": lambda: epsot.sinkhorn_divergence(
            grid, grid, image.astype(np.float32), image.astype(np.float32)[::-1], blur=0.3, reach=(1.0, 0.5)
        ),
        "grids that close": lambda: epsot.sinkhorn_divergence(ring, ring, *around, blur=0.3),
        "distances on grids that close": lambda: epsot.sinkhorn_divergence(ring, ring, *around, blur=0.3, p=1),
        "distances on grids": lambda: epsot.sinkhorn_divergence(grid, wide, image, other, blur=0.3, p=1),
        "cityblock on grids": lambda: epsot.solve(epsot.PointCloud(grid, wide, cost="cityblock"), image, eps=0.3),
        "a cloud and a grid": lambda: epsot.sinkhorn_divergence(single[0], wide, None, other, blur=0.3),
        "a grid and a cloud": lambda: epsot.sinkhorn(ring, y, around[0], blur=0.3),
        "a grid with itself": lambda: epsot.sinkhorn_divergence(grid, grid, image, image, blur=0.3),
        "cells of grids": lambda: epsot.solve(Multiscale(grid, y), image, eps=0.1),
        "stopped": lambda: epsot.sinkhorn(x, y, blur=0.01, callback=stop),
    }


def stop(record: Any) -> None:
    if record.nit == 3:
        raise StopIteration


PROBLEMS = singles()


class Solved(dict[str, Any]):
    """Each is solved when it is first asked for."""

    def __missing__(self, name: str) -> Any:
        self[name] = result = {**PROBLEMS, **MANY}[name]()
        return result


SOLVED = Solved()


@pytest.mark.parametrize("name", PROBLEMS)
def test_single_results(name: str, tmp_path: Path) -> None:
    again = saved(SOLVED[name], tmp_path)
    same_result(again, SOLVED[name])
    for part in ("xx", "yy") if hasattr(again, "xx") else ():
        same_result(getattr(again, part), getattr(SOLVED[name], part))
    if name == "of itself":
        assert again.xy is again.xx is again.yy
    same_result(saved(again, tmp_path), SOLVED[name])  # what is loaded is a result


def batches() -> dict[str, Any]:
    rng = rng_of(7)
    x, y, weights = rng.random((3, 6, 2)), rng.random((5, 2)), rng.random((3, 6))
    weights[1, 2] = 0
    hard = weights.copy()
    hard[2] = [1e-250, *[1.0] * 5]  # beyond the range of what is solved at once
    clouds = [rng.random((n, 2)) for n in (4, 6, 5)]
    C = rng.random((2, 6, 5))
    C_xx, C_yy = np.abs(x[0, :, :1] - x[0, :, 0]), np.abs(y[:, :1] - y[:, 0])
    both = np.stack([y, y + 0.1])
    unit = weights / weights.sum(axis=1, keepdims=True)
    grid, image = epsot.Grid((2, 3), spacing=0.5), unit.reshape(3, 2, 3)
    return {
        "many stacked": lambda: epsot.sinkhorn(x, y, unit, blur=0.3),
        "many two axes": lambda: epsot.sinkhorn(x[:2, None], both[None], blur=[0.2, 0.3], p=1),
        "many ragged": lambda: epsot.sinkhorn_divergence(
            clouds, y, [rng.random(len(z)) for z in clouds], blur=0.3, reach=1.0
        ),
        "many one support": lambda: epsot.sinkhorn_divergence(x[0], x[0], unit, unit[1], blur=0.3),
        "many float32": lambda: epsot.sinkhorn(x.astype(np.float32), y.astype(np.float32), blur=0.3),
        "many schedule": lambda: epsot.sinkhorn(x, y, unit, blur=0.3, tol=None),
        "many unbalanced sides": lambda: epsot.sinkhorn(x, y, weights, blur=0.3, reach=(1.0, [0.5, np.inf, 2.0])),
        "many solved alone": lambda: epsot.sinkhorn_divergence(x, y, hard, blur=0.3, reach=1.0),
        "many watched": lambda: epsot.sinkhorn_divergence(x, y, unit, blur=0.3, callback=lambda record: None),
        "many cosine": lambda: epsot.solve(epsot.PointCloud(x, y, cost="cosine"), eps=0.3),
        "many empty": lambda: epsot.sinkhorn(x[:0], y, blur=0.3),
        "many images": lambda: epsot.sinkhorn_divergence(grid, grid, image, image[0], blur=0.3),
        "many float32 images": lambda: epsot.sinkhorn(
            grid, epsot.Grid((4, 2)), image[:, None].astype(np.float32), None, blur=[0.3, 0.5], tol=None
        ),
        "many images by points": lambda: epsot.sinkhorn_divergence(grid, grid, image, image[0], blur=0.3, p=1),
        "many clouds and a grid": lambda: epsot.sinkhorn(x, grid, None, image, blur=0.3),
        "many matrices": lambda: epsot.solve(epsot.CostMatrix(C), unit[:2], eps=0.3),
        "many listed matrices": lambda: epsot.solve(epsot.CostMatrix([C[0], C[1, :4]]), eps=0.3),
        "many matrices within": lambda: epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy), unit[:2], eps=0.3),
    }


MANY = batches()


@pytest.mark.parametrize("name", MANY)
def test_batch_results(name: str, tmp_path: Path) -> None:
    again = saved(SOLVED[name], tmp_path)
    same_batch(again, SOLVED[name], points="matrices" not in name)
    for part in ("xx", "yy") if hasattr(again, "xx") else ():
        same_batch(getattr(again, part), getattr(SOLVED[name], part), points="matrices" not in name)
    if hasattr(again, "same"):
        assert [z.xy is z.xx for z in again] == [z.xy is z.xx for z in SOLVED[name]]


def test_what_is_asked_of_images_has_no_history(tmp_path: Path) -> None:
    """Of many pixels, passes leave out what a bound allows: the same whatever was asked before, and when loaded."""
    grid = epsot.Grid((200, 150))
    u, v = np.meshgrid(*grid.axes, indexing="ij")
    a, b = ((u - 30) ** 2 + (v - 40) ** 2 < 400).astype(float), np.exp(-((u - 90) ** 2 + (v - 60) ** 2) / 200)
    result = epsot.sinkhorn(grid, grid, a / a.sum(), b / b.sum(), blur=1.0, tol=0.1)
    size = len(pickle.dumps(result))
    again = saved(result, tmp_path)
    names = ["gap", "f", "g", "grad_x", "marginal_error", "transport_cost"]
    found = {name: getattr(result, name) for name in names}
    for name in reversed(names):
        equal(getattr(again, name), found[name])
    assert len(pickle.dumps(result)) == size


def test_tables_and_tests(tmp_path: Path) -> None:
    clouds = [rng_of(8).random((n, 2)).astype(np.float32) for n in (4, 6, 5)]
    result = epsot.pairwise(clouds, blur=0.3)
    again = saved(result, tmp_path)
    assert type(again) is type(result)
    for table in (again, saved(again, tmp_path)):
        for name in ("value", "marginal_error", "status", "success"):
            equal(getattr(table, name), getattr(result, name))
    test = epsot.permutation_test(clouds[0], clouds[1], blur=0.3, n_resamples=9, rng=0)
    again = saved(test, tmp_path)
    for name in ("statistic", "pvalue", "null_distribution", "success"):
        equal(getattr(again, name), getattr(test, name))


BARYCENTER = "value", "dual", "primal", "gap", "weights", "f", "g", "grad_a", "grad_t", "t", "tol", "eps", "debias"


def barycenters() -> dict[str, Any]:
    rng = rng_of(13)
    grid, points = epsot.Grid((3, 4), spacing=0.3), rng.random((12, 2))
    a = 2 * rng.dirichlet(np.ones(12), 3)
    images = a.reshape(3, 3, 4)
    return {
        "image": lambda: epsot.barycenter(grid, images, blur=0.3),
        "float32": lambda: epsot.barycenter(grid, images.astype(np.float32), [2, 1, 0], blur=0.3),
        "blurred": lambda: epsot.barycenter(points, a, [2, 1, 0], blur=0.3, debias=False),
        "schedule": lambda: epsot.barycenter(points, a, blur=0.3, tol=None, p=1),
        "alone": lambda: epsot.barycenter(grid, images, [0, 1, 0], blur=0.3),
        "stopped": lambda: epsot.barycenter(grid, images, blur=0.1, callback=stop),
    }


@pytest.mark.parametrize("name", barycenters())
def test_barycenters(name: str, tmp_path: Path) -> None:
    result = barycenters()[name]()
    fresh = barycenters()[name]()  # of which nothing was asked before it was saved
    again = saved(fresh, tmp_path)
    for loaded in (again, saved(again, tmp_path)):
        assert type(loaded) is epsot.BarycenterResult
        for attribute in (*BARYCENTER, *WORDS[:4], "history", "marginal_error"):
            equal(getattr(loaded, attribute), getattr(result, attribute))
        for part, expected in zip(loaded.parts, result.parts, strict=True):
            same_result(part, expected)
        equal(repr(loaded), repr(result))
    pickled = pickle.loads(pickle.dumps(again))
    equal(pickled.gap, result.gap)
    size = len(pickle.dumps(fresh))
    _ = fresh.gap, fresh.f, fresh.grad_t, fresh.parts[0].plan @ np.ones(12)
    assert len(pickle.dumps(fresh)) == size  # what was asked for is left out


def test_free_barycenters(tmp_path: Path) -> None:
    rng = rng_of(14)
    clouds, init = [rng.random((n, 2)) for n in (7, 9)], rng.random((6, 2))
    for dtype in (np.float64, np.float32):
        given = [z.astype(dtype) for z in clouds]
        result = epsot.free_barycenter(given, t=[1, 2], init=init.astype(dtype), blur=0.3)
        for loaded in (again := saved(result, tmp_path), saved(again, tmp_path)):
            for name in ("points", "value", "displacement", "movement", "grad_t", "t", "tol", "eps", "nit", "history"):
                equal(getattr(loaded, name), getattr(result, name))
            equal((loaded.status, loaded.message, repr(loaded)), (result.status, result.message, repr(result)))
            for part, expected in zip(loaded.parts, result.parts, strict=True):
                same_result(part, expected)
    size = len(pickle.dumps(result))
    assert result.value == pickle.loads(pickle.dumps(result)).value
    assert len(pickle.dumps(result)) == size


def test_barycenters_of_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    result = barycenters()["image"]()
    for change in (
        lambda parts: parts["instance"].update(shares=[0.5, 0.5]),
        lambda parts: parts["instance"].update(shares=[0.0, 0.0, 0.0]),
        lambda parts: parts["found"].update(f=parts["found"]["log_a"]),
        lambda parts: parts["found"].update(log_blurred=parts["found"]["f"]),
        lambda parts: parts["further"].pop("scaling"),
        lambda parts: parts.update(status=40),
    ):
        result.save(path)
        rewritten(path, lambda head, z, change=change: change(head["parts"]))
        with pytest.raises(ValueError, match=r"result\.npz"):
            epsot.load(path)


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
def test_arrays_come_back_as_numpy(library: str, tmp_path: Path) -> None:
    xp = pytest.importorskip(library)
    rng = rng_of(9)
    x, y, a = rng.random((5, 2)), rng.random((4, 2)), np.asarray([0.1, 0.3, 0.0, 0.4, 0.2])
    theirs = [xp.asarray(z) for z in (x, y, a)]
    for call in (epsot.sinkhorn, epsot.sinkhorn_divergence):
        result, again = call(*theirs, blur=0.3), saved(call(*theirs, blur=0.3), tmp_path)
        assert type(again.f) is np.ndarray
        for name in ("value", "f", "g", "grad_x", "marginal_error"):
            expected = np.asarray(getattr(result, name)).astype(np.float64)
            bits = 0 if library != "array_api_strict" else 1e-12  # which computes by other kernels
            np.testing.assert_allclose(getattr(again, name), expected, rtol=bits, atol=bits)
    pair = xp.asarray(rng.random((2, 5, 2)))
    result = epsot.sinkhorn(pair, theirs[1], blur=0.3)
    np.testing.assert_allclose(saved(result, tmp_path).f, np.asarray(result.f), rtol=1e-12)


# Files


def held(result: Any) -> int:
    """The bytes of the arrays of a result: points or costs, weights, potentials and what extends them, each once."""
    found: dict[int, int] = {}
    for part in getattr(result, "parts", (result,)):
        instance, pair = part.instance, part.dual_pair
        costs = instance.geometry.points or (instance.geometry.C,)
        arrays = [*costs, instance.problem.a.weights, instance.problem.b.weights]
        arrays += [pair.f, pair.g, *(pair.f_map or ()), *(pair.g_map or ())]
        found |= {id(array): array.nbytes for array in arrays}
    return sum(found.values())


def test_sizes(tmp_path: Path) -> None:
    rng = rng_of(10)
    x, y, a = rng.random((500, 2)), rng.random((400, 2)), rng.random(500)
    results = [
        epsot.sinkhorn(x, y, a / a.sum(), blur=0.2),
        epsot.sinkhorn(x.astype(np.float32), y.astype(np.float32), blur=0.2),
        epsot.sinkhorn_divergence(x, y, blur=0.2),
        epsot.solve(epsot.CostMatrix(rng.random((50, 40))), eps=0.2),
    ]
    for result in results:
        result.save(tmp_path / "result")
        size = (tmp_path / "result").stat().st_size
        assert size < 1.2 * held(result) + (3000 if result.plan.shape[0] < 100 else 0)  # the head, of small ones
        result.plan @ np.ones(result.plan.shape[1]), result.gap, result.value
        result.save(tmp_path / "used")
        assert (tmp_path / "used").stat().st_size == size
    many = epsot.sinkhorn(rng.random((40, 30, 2)), y[:30], rng.dirichlet(np.ones(30), 40), blur=0.2)
    many.save(tmp_path / "many")
    arrays = many.batch.geometry.x.values.nbytes + 30 * 16 + many.batch.a.values.nbytes + 4 * many.solved.f.nbytes
    arrays += many.solved.errors.nbytes * 2 + many.solved.f_slope.nbytes + many.solved.g_slope.nbytes
    assert (tmp_path / "many").stat().st_size < 1.2 * arrays + 4000


def test_files_are_plain(tmp_path: Path) -> None:
    """One .npz without pickles, which NumPy reads alone."""
    SOLVED["divergence"].save(tmp_path / "result.npz")
    with np.load(tmp_path / "result.npz", allow_pickle=False) as file:
        head = json.loads(file["epsot"].tobytes())
        assert head["version"] == archives.VERSION
        assert head["kind"] == "DivergenceResult"
        np.testing.assert_array_equal(file["xy.f"], SOLVED["divergence"].xy.dual_pair.f)
        assert all(file[name].dtype.kind in "biuf" for name in file.files)


def test_a_file_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends in the middle leaves what was there, and nothing else."""
    path = tmp_path / "result.npz"
    SOLVED["plain"].save(str(path))
    link = tmp_path / "link"
    link.symlink_to(path)

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="no space"):
            SOLVED["cosine"].save(path)
    assert sorted(z.name for z in tmp_path.iterdir()) == ["link", "result.npz"]
    same_result(epsot.load(path), SOLVED["plain"])
    SOLVED["cosine"].save(link)
    assert link.is_symlink()
    same_result(epsot.load(path), SOLVED["cosine"])
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        epsot.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="folder"):
        SOLVED["plain"].save(tmp_path / "folder" / "result.npz")


class Trap:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign.npz"
    writers = {
        "text": lambda: path.write_text("x, y\n1, 2\n"),
        "nothing": lambda: path.write_bytes(b""),
        "pickle": lambda: path.write_bytes(pickle.dumps(Trap())),
        "npz": lambda: np.savez(path, x=np.ones(3)),
        "npy": lambda: path.write_bytes(np.ones(3).tobytes()),
        "objects": lambda: np.savez(path, epsot=np.array([Trap()], dtype=object)),
        "no json": lambda: np.savez(path, epsot=np.frombuffer(b"epsot", np.uint8)),
        "other json": lambda: np.savez(path, epsot=np.frombuffer(b'{"version": "x"}', np.uint8)),
        "list": lambda: np.savez(path, epsot=np.frombuffer(b"[1]", np.uint8)),
    }
    for write in writers.values():
        write()
        with pytest.raises(ValueError, match=r"foreign\.npz' .*(written by `save`|no numbers)"):
            epsot.load(path)


def test_damaged_files(tmp_path: Path) -> None:
    """Wherever the file is cut or changed: the answer is the name, or the result."""
    path, whole = tmp_path / "result.npz", tmp_path / "whole.npz"
    SOLVED["divergence"].save(whole)
    given, rng, refused = whole.read_bytes(), rng_of(11), 0
    for length in rng.integers(0, len(given), 40).tolist():
        path.write_bytes(given[:length])
        with pytest.raises(ValueError, match=r"result\.npz"):
            epsot.load(path)
    for place in rng.integers(0, len(given), 120).tolist():
        changed = bytearray(given)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            again = epsot.load(path)
        except ValueError as error:
            assert "result.npz" in str(error)
            refused += 1
        else:  # what nobody reads, as a date
            same_result(again, SOLVED["divergence"])
    assert refused > 60


def rewritten(path: Path, change: Any) -> None:
    """The same file with another head."""
    with np.load(path) as file:
        arrays = dict(file)
    head = json.loads(arrays.pop("epsot").tobytes())
    change(head, arrays)
    np.savez(path, epsot=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)


def at(head: dict[str, Any], *path: str) -> Any:
    for name in path:
        head = head[name]
    return head


def changed_singles() -> dict[str, Any]:
    instance = ("parts", "xy", "instance")
    return {
        "no cost": lambda head, z: at(head, *instance, "geometry").update(cost="cubic"),
        "no geometry": lambda head, z: at(head, *instance, "geometry").update(stored_as="os.system"),
        "no eps": lambda head, z: at(head, *instance).pop("eps"),
        "eps of text": lambda head, z: at(head, *instance).update(eps="1"),
        "no array": lambda head, z: z.pop("xy.f"),
        "short potential": lambda head, z: z.update({"xy.f": z["xy.f"][:-1]}),
        "short weights": lambda head, z: z.update({"xy.instance.a": z["xy.instance.a"][:-1]}),
        "negative weights": lambda head, z: z.update({"xy.instance.a": -z["xy.instance.a"]}),
        "points of text": lambda head, z: z.update({"xy.instance.geometry.x": np.array(["a"])}),
        "infinite points": lambda head, z: z.update({"xy.instance.geometry.x": z["xy.instance.geometry.x"] * np.inf}),
        "no status": lambda head, z: at(head, "parts", "xy").update(status=17),
        "of a grid": lambda head, z: at(head, *instance, "geometry").update(
            grids=[{"shape": [2, 2], "spacing": [1, 1], "origin": [0, 0], "periodic": [False, False]}, None]
        ),
        "no kind": lambda head, z: head.update(kind="Plan"),
    }


@pytest.mark.parametrize("name", changed_singles())
def test_files_of_other_contents(name: str, tmp_path: Path) -> None:
    """Well-formed, but not what is saved."""
    path = tmp_path / "result.npz"
    SOLVED["divergence"].save(path)
    rewritten(path, changed_singles()[name])
    with pytest.raises(ValueError, match=r"result\.npz"):
        epsot.load(path)


def test_grids_of_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    for change in (
        lambda geometry: geometry["x"].update(shape=[3, 5]),
        lambda geometry: geometry["x"].update(spacing=[0.25, -1.0]),
        lambda geometry: geometry.update(y=None),
        lambda geometry: geometry.update(periods=[None]),
        lambda geometry: geometry.update(periods=[None, -1.0]),
        lambda geometry: geometry.update(cost="cosine"),
        lambda geometry: geometry.update(dtype="int8"),
    ):
        SOLVED["grids"].save(path)
        rewritten(path, lambda head, z, change=change: change(at(head, "parts", "instance", "geometry")))
        with pytest.raises(ValueError, match=r"result\.npz"):
            epsot.load(path)


def test_batches_of_other_contents(tmp_path: Path) -> None:
    """Numbers that kernels would follow out of their arrays."""
    path = tmp_path / "result.npz"
    changes = [
        ("parts.batch.geometry.x.first", 1),
        ("parts.batch.a.first", -1),
        ("parts.batch.a.sizes", 1),
        ("parts.solved.f", None),
        ("parts.solved.nit", None),
        ("parts.batch.eps", None),
        ("parts.solved.nit", 10**6),
        ("parts.solved.first", -(10**6)),
        ("parts.solved.errors", None),
        ("parts.solved.temperatures", None),
        ("parts.solved.f_slope", None),
        ("parts.solved.g_slope", None),
    ]
    result = epsot.sinkhorn(*rng_of(3).random((2, 6, 2)), blur=[0.3, 0.4])
    assert result.solved.f_slope is not None and result.solved.g_slope is not None
    for name, step in changes:
        result.save(path)

        def change(head: Any, arrays: Any, name: str = name, step: int | None = step) -> None:
            reference = at(head, *name.split("."))
            array = arrays[reference["$array"]]
            arrays["changed"] = array[:-1] if step is None else array + step
            reference["$array"] = "changed"

        rewritten(path, change)
        with pytest.raises(ValueError, match=r"result\.npz"):
            epsot.load(path)


def test_later_formats(tmp_path: Path) -> None:
    path = tmp_path / "later.npz"
    SOLVED["plain"].save(path)
    rewritten(path, lambda head, arrays: head.update(version=archives.VERSION + 1, epsot="99.1"))
    with pytest.raises(ValueError, match=r"later\.npz' was written by epsot 99\.1 in format 2.*update"):
        epsot.load(path)


def test_a_number_that_claims_to_be_many(tmp_path: Path) -> None:
    """No memory is asked for what the file does not hold."""
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("epsot.npy", "w") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"large\.npz'.*more or fewer"):
        epsot.load(path)


# What cannot be saved


class Quartic(epsot.Cost):
    degree = 4

    def value(self, x: Any, y: Any) -> Any:
        return ((x - y) ** 4).sum(axis=-1)


class Nearer(epsot.PointCloud):
    """A subclass, which may hold more than its parent."""


class Table(epsot.CostMatrix):
    """One that says how it is stored."""

    stored_as = "a table of the tests"


def test_costs_and_geometries_of_ones_own(tmp_path: Path) -> None:
    rng = rng_of(12)
    x, y, path = rng.random((4, 2)), rng.random((3, 2)), tmp_path / "result.npz"
    for geometry in (epsot.PointCloud(x, y, cost=Quartic()), epsot.PointCloud(x[None], y, cost=Quartic())):
        with pytest.raises(TypeError, match=r"Quartic.*cannot be saved.*init=\(f, g\)"):
            epsot.solve(geometry, eps=0.3).save(path)
    with pytest.raises(TypeError, match="a Nearer cannot be saved"):
        epsot.solve(Nearer(x, y), eps=0.3).save(path)
    assert not list(tmp_path.iterdir())
    result = epsot.solve(Table(rng.random((4, 3))), eps=0.3)
    again = saved(result, tmp_path)
    assert type(again.instance.geometry) is Table
    same_result(again, result)
    Geometry.known.pop("a table of the tests")
    with pytest.raises(ValueError, match=r"result'.*'a table of the tests' is not known; import"):
        epsot.load(tmp_path / "result")
    with pytest.raises(TypeError, match="is stored as 'points' already"):
        type("Points", (epsot.PointCloud,), {"stored_as": "points"})


# Random problems


def differences(problem: Any, path: Path) -> list[str]:
    """What a loaded result says otherwise, of all that results say."""
    try:
        result = problem.solve(problem.start(), None)
    except (ValueError, TypeError):
        return []  # refused
    result.save(path)
    again = epsot.load(path)
    found = readings(problem, result), readings(problem, again)
    return [name for name in found[0] if outcome(found[0][name]) != outcome(found[1][name])]


def outcome(read: Any) -> Any:
    try:
        z = read()
    except (ValueError, TypeError) as error:
        return str(error)
    plain = not isinstance(z, str) and np.asarray(z).dtype != object
    return np.asarray(z).tobytes() if plain else str(z)


@pytest.mark.every
@pytest.mark.filterwarnings("ignore")
def test_random_problems(tmp_path: Path) -> None:
    """Those of the fuzzer whose kernels are few: forbidden pairs, weights of zero, far points, bad statuses."""
    drawn = [(index, draw(21, index)) for index in range(60)]
    for index, problem in drawn:
        if common(problem) and not isinstance(problem.cost, epsot.Cost):
            assert not differences(problem, tmp_path / "result"), index
