"""The portable backend against the reference, with blocks small enough to have many, and a ragged last one."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from epsot import kernels
from epsot.costs import Cityblock, Cosine, Euclidean, HalfSquare, Square
from epsot.kernels import reference, tiled
from tests.checks import close

COSTS = [HalfSquare(), Euclidean(), Square(), Cityblock(), Cosine()]
EPS = 0.3


@pytest.fixture(autouse=True, params=[1, 64, 2**20])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(tiled, "BLOCK_ELEMENTS", request.param)
    return int(request.param)


def same(ours: Any, theirs: Any, k: Any, h: Any, rng: np.random.Generator) -> None:
    """Every reduction of two kernels of shape (n, m)."""
    n, m = ours.shape
    assert ours.shape == theirs.shape
    v = rng.random((m, 3))  # of one sign, so that infinite costs do not cancel
    close(ours.softmin(h, EPS), theirs.softmin(h, EPS), 1e-14)
    close(ours.softmin(h, EPS, rng.normal(size=n)), theirs.softmin(h, EPS), 1e-14)
    close(ours.T.softmin(k, EPS), theirs.T.softmin(k, EPS), 1e-14)
    for mine, other in zip(ours.softmin_pair(k, h, EPS), theirs.softmin_pair(k, h, EPS), strict=True):
        close(mine, other, 1e-14)
    close(ours.apply(k, h, EPS, v), theirs.apply(k, h, EPS, v), 1e-13)
    close(ours.apply(k, h, EPS, v, rng.normal(size=n)), theirs.apply(k, h, EPS, v), 1e-13)
    close(ours.cost_apply(v[:, 0]), theirs.cost_apply(v[:, 0]), 1e-13)
    for rows in (slice(None), slice(1, 4), np.asarray([n - 1, 0])):
        close(ours.plan_rows(rows, k, h, EPS), theirs.plan_rows(rows, k, h, EPS), 1e-14)
        close(ours.cost_rows(rows), theirs.cost_rows(rows), 1e-14)


@pytest.mark.parametrize("cost", COSTS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (13, 7, 2), (6, 19, 17)])
def test_points(cost: Any, dtype: Any, n: int, m: int, d: int, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(n, d)).astype(dtype), (rng.normal(size=(m, d)) + 3).astype(dtype)
    k, h = rng.normal(size=n), rng.normal(size=m)
    if n > 1:
        k[n // 2] = h[0] = -np.inf
    ours, theirs = tiled.Points(x, y, cost), reference.Points(x, y, cost)
    same(ours, theirs, k, h, rng)
    close(ours.cost_gradient(k, h, EPS), theirs.cost_gradient(k, h, EPS), 1e-13)
    close(ours.source().softmin_self(k, EPS), theirs.source().softmin_self(k, EPS), 1e-14)


def test_matrix(rng: np.random.Generator) -> None:
    C = rng.random((9, 11))
    C[0, 3] = C[4, :] = np.inf
    same(tiled.Matrix(C), reference.Matrix(C), rng.normal(size=9), rng.normal(size=11), rng)


def test_no_rows(rng: np.random.Generator) -> None:
    """Points of weight zero may be none."""
    kernel = tiled.Points(np.zeros((0, 2)), rng.normal(size=(3, 2)), HalfSquare())
    assert kernel.softmin(np.zeros(3), EPS).shape == (0,)
    assert kernel.apply(np.zeros(0), np.zeros(3), EPS, np.zeros((3, 2))).shape == (0, 2)
    assert kernel.cost_gradient(np.zeros(0), np.zeros(3), EPS).shape == (0, 2)


def test_strict_namespace(rng: np.random.Generator) -> None:
    x, y, k, h = rng.normal(size=(6, 3)), rng.normal(size=(5, 3)), rng.normal(size=6), rng.normal(size=5)
    ours = tiled.Points(strict.asarray(x), strict.asarray(y), Euclidean())
    theirs = reference.Points(x, y, Euclidean())
    K, H = strict.asarray(k), strict.asarray(h)
    close(ours.softmin(H, EPS), theirs.softmin(h, EPS), 1e-14)
    close(ours.cost_gradient(K, H, EPS), theirs.cost_gradient(k, h, EPS), 1e-13)
    close(ours.cost_apply(H), theirs.cost_apply(h), 1e-13)


def test_memory_is_bounded(blocks: int, rng: np.random.Generator) -> None:
    """A block holds at most BLOCK_ELEMENTS numbers for each pair, or one row."""
    kernel = tiled.Points(rng.normal(size=(50, 2)), rng.normal(size=(40, 2)), HalfSquare())
    sizes = [rows.stop - rows.start for rows in kernel.blocks()]
    assert sum(sizes) == 50
    assert all(size == 1 or size * 40 * 2 <= blocks for size in sizes)


def test_workers_reach_the_arithmetic_between_sweeps() -> None:
    """On the path of a cost of one's own, too, from whichever side it is seen."""

    class Own(HalfSquare):
        kind = None

    x = np.zeros((3, 2))
    kernel = kernels.points(x, np.ones((4, 2)), Own(), 1)
    for one in (kernel, kernel.T, kernel.source(), kernel.at(x)):
        assert isinstance(one, tiled.Points)
        assert one.workers == 1
