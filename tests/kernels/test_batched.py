"""Every problem of a batch against the reference, in blocks of many problems, of one, and of a few of its rows."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from epsot.costs import Cityblock, Cosine, Euclidean, HalfSquare, Square
from epsot.kernels import batched, reference
from tests.checks import close

COSTS = [HalfSquare(), Euclidean(), Square(), Cityblock(), Cosine()]
B, N, M, D = 5, 7, 9, 3
EPS = np.asarray([0.3, 1.0, 0.05, 2.0, 0.7])


@pytest.fixture(autouse=True, params=[1, 40, 200, 2**24], ids=lambda size: f"block{size}")
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(batched, "CACHED_ELEMENTS", request.param)
    monkeypatch.setattr(batched, "BLOCK_ELEMENTS", request.param)
    return int(request.param)


@pytest.fixture(params=[0, 2**24], ids=["computed", "held"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(batched, "HELD", request.param)
    return bool(request.param)


def densities(rng: np.random.Generator, count: int = B) -> tuple[np.ndarray, np.ndarray]:
    """With weights of zero on either side, and in one problem nothing else on the second."""
    k, h = rng.normal(size=(count, N)), rng.normal(size=(count, M))
    k[:, 2] = h[:, 0] = -np.inf
    if count > 1:
        h[1] = -np.inf
    return k, h


def same(ours: Any, theirs: list[Any], k: np.ndarray, h: np.ndarray, v: np.ndarray) -> None:
    """Every reduction of a batch, and of each of its problems alone."""
    eps = EPS[: len(theirs)]
    softmin, (f, g) = ours.softmin(h, eps), ours.softmin_pair(k, h, eps)
    other, applied, costs = ours.T.softmin(k, eps), ours.apply(k, h, eps, v), ours.cost_apply(v[:, :, 0])
    assert softmin.shape == k.shape and other.shape == h.shape and applied.shape == (*k.shape, v.shape[2])
    for b, kernel in enumerate(theirs):
        close(softmin[b], kernel.softmin(h[b], eps[b]), 1e-14)
        close(other[b], kernel.T.softmin(k[b], eps[b]), 1e-14)
        close(f[b], softmin[b], 0)
        close(g[b], other[b], 0)
        close(applied[b], kernel.apply(k[b], h[b], eps[b], v[b]), 1e-13)
        close(costs[b], kernel.cost_apply(v[b, :, 0]), 1e-13)


@pytest.mark.parametrize("cost", COSTS, ids=repr)
def test_points(cost: Any, held: bool, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(B, N, D)), rng.normal(size=(B, M, D)) + 3
    k, h = densities(rng)
    v = rng.random((B, M, 2))
    ours, theirs = batched.Points(x, y, cost), [reference.Points(*pair, cost) for pair in zip(x, y, strict=True)]
    same(ours, theirs, k, h, v)
    assert (ours.held is not None) == held
    same(ours.source(), [kernel.source() for kernel in theirs], k, k[:, ::-1], rng.random((B, N, 2)))
    gradient, back = ours.cost_gradient(k, h, EPS), ours.T.cost_gradient(h, k, EPS)
    for b, kernel in enumerate(theirs):
        close(gradient[b], kernel.cost_gradient(k[b], h[b], EPS[b]), 1e-13)
        close(back[b], kernel.T.cost_gradient(h[b], k[b], EPS[b]), 1e-13)


@pytest.mark.parametrize("which", ["x", "y", "both"])
def test_a_cloud_of_all_problems(which: str, held: bool, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(B, N, D)), rng.normal(size=(B, M, D))
    x, y = x[:1] if which != "y" else x, y[:1] if which != "x" else y
    k, h = densities(rng)
    v = rng.random((B, M, 2))
    whole = [np.broadcast_to(z, (B, *z.shape[1:])) for z in (x, y)]
    ours = batched.Points(x, y, HalfSquare())
    theirs = [reference.Points(*pair, HalfSquare()) for pair in zip(*whole, strict=True)]
    same(ours, theirs, k, h, v)
    close(ours.cost_gradient(k, h, EPS), batched.Points(*whole, HalfSquare()).cost_gradient(k, h, EPS), 1e-14)


@pytest.mark.parametrize("shared", [False, True])
def test_matrices_with_forbidden_pairs(shared: bool, rng: np.random.Generator) -> None:
    C = rng.random((1 if shared else B, N, M))
    C[:, 0, 3] = C[-1, 4, :] = np.inf
    k, h = densities(rng)
    ours, theirs = batched.Matrix(C), [reference.Matrix(C[0 if shared else b]) for b in range(B)]
    same(ours, theirs, k, h, rng.random((B, M, 2)))
    assert np.all(np.isinf(ours.softmin(h, EPS)[-1, 4]))


def test_costs_of_a_shared_support_are_computed_once(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []

    class Counted(HalfSquare):
        def value(self, x: Any, y: Any) -> Any:
            out = super().value(x, y)
            pairs.append(out.size)
            return out

    kernel = batched.Points(rng.random((1, N, D)), rng.random((1, M, D)), Counted())
    for _ in range(3):
        kernel.T.softmin(kernel.softmin(rng.normal(size=(B, M)), EPS), EPS)
    assert sum(pairs) == N * M


@pytest.mark.parametrize("count", [0, 1, B])
def test_some_of_the_problems(count: int, held: bool, rng: np.random.Generator) -> None:
    x, y, C = rng.normal(size=(B, N, D)), rng.normal(size=(B, M, D)), rng.random((B, N, M))
    k, h = densities(rng)
    v = rng.random((B, M, 2))
    chosen = np.asarray([3, 0, 4, 1, 2][:count], dtype=int)
    parts = k[chosen], h[chosen], v[chosen]
    points, matrix = batched.Points(x, y, Euclidean()), batched.Matrix(C)
    shared = batched.Points(x[:1], y[:1], Euclidean())
    for kernel, of in [
        (points, lambda b: reference.Points(x[b], y[b], Euclidean())),
        (shared, lambda b: reference.Points(x[0], y[0], Euclidean())),
        (matrix, lambda b: reference.Matrix(C[b])),
    ]:
        kernel.softmin(h, EPS)  # what is held by then goes along
        same(kernel.take(chosen), [of(b) for b in chosen], *parts)
    assert points.take(chosen).cost_gradient(parts[0], parts[1], EPS[:count]).shape == (count, N, D)


def test_problems_do_not_see_each_other(rng: np.random.Generator) -> None:
    """Whatever stands beside it, a problem has the same result: also NaN, and exponents without bounds."""
    x, y = rng.normal(size=(B, N, D)), rng.normal(size=(B, M, D))
    k, h = densities(rng)
    kernel = batched.Points(x, y, HalfSquare())
    softmin, applied = kernel.softmin(h, EPS), kernel.apply(k, h, EPS, np.ones((B, M, 1)))
    x[2], h[2], k[2], eps = 1e8 * x[2] + 1e9, np.nan, 1e300, np.where(np.arange(B) == 2, 1e-12, EPS)
    other = batched.Points(x, y, HalfSquare())
    rest = np.arange(B) != 2
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(other.softmin(h, eps)[rest], softmin[rest], rtol=1e-14)
        np.testing.assert_allclose(other.apply(k, h, eps, np.ones((B, M, 1)))[rest], applied[rest], rtol=1e-14)


def test_single_precision_points_are_computed_in_double(rng: np.random.Generator) -> None:
    x, y = (rng.normal(size=(B, size, D)).astype(np.float32) for size in (N, M))
    h = rng.normal(size=(B, M))
    wide = batched.Points(x.astype(np.float64), y.astype(np.float64), HalfSquare()).softmin(h, EPS)
    close(batched.Points(x, y, HalfSquare()).softmin(h, EPS), wide, 0)
    C = rng.random((B, N, M)).astype(np.float32)
    close(batched.Matrix(C).softmin(h, EPS), batched.Matrix(C.astype(np.float64)).softmin(h, EPS), 0)


def test_a_cost_with_a_gradient_of_another_shape_is_refused(rng: np.random.Generator) -> None:
    class Flat(HalfSquare):
        def gradient(self, x: Any, y: Any) -> Any:
            return self.value(x, y)

    kernel = batched.Points(rng.random((B, N, D)), rng.random((B, M, D)), Flat())
    with pytest.raises(ValueError, match="gradient"):
        kernel.cost_gradient(*densities(rng), EPS)


def test_matrices_know_no_costs_within_a_side(rng: np.random.Generator) -> None:
    with pytest.raises(TypeError, match="Matrix"):
        batched.Matrix(rng.random((B, N, N))).source()


@pytest.mark.parametrize("library", ["strict", "torch"])
def test_other_libraries(library: str, rng: np.random.Generator) -> None:
    xp: Any = strict if library == "strict" else pytest.importorskip("torch")
    arrays = rng.normal(size=(B, N, D)), rng.normal(size=(B, M, D)), *densities(rng), rng.random((B, M, 2))
    x, y, k, h, v = map(xp.asarray, arrays)
    eps, chosen = xp.asarray(EPS), xp.asarray([1, 3])
    for make in (lambda x, y: batched.Points(x, y, Euclidean()), lambda x, y: batched.Matrix(x @ y.mT)):
        ours, theirs = make(x, y), make(*arrays[:2])
        close(ours.softmin(h, eps), theirs.softmin(arrays[3], EPS), 1e-13)
        close(ours.T.softmin(k, eps), theirs.T.softmin(arrays[2], EPS), 1e-13)
        close(ours.apply(k, h, eps, v), theirs.apply(*arrays[2:4], EPS, arrays[4]), 1e-13)
        close(ours.cost_apply(v[:, :, 0]), theirs.cost_apply(arrays[4][:, :, 0]), 1e-13)
        few = ours.take(chosen).softmin(xp.take(h, chosen, axis=0) if library == "strict" else h[chosen], eps[:2])
        close(few, theirs.take(np.asarray([1, 3])).softmin(arrays[3][[1, 3]], EPS[:2]), 1e-13)
    points = batched.Points(*arrays[:2], Euclidean())
    gradient = batched.Points(x, y, Euclidean()).cost_gradient(k, h, eps)
    close(gradient, points.cost_gradient(*arrays[2:4], EPS), 1e-13)
