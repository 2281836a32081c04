"""What the CUDA kernels leave out of a sum: never more than they say, on clouds where bounds are hard."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from epsot.costs import Cityblock, Cost, Euclidean, HalfSquare
from epsot.kernels import reference
from epsot.kernels.cuda import modules, shapes
from tests.cuda import bridge, emulation, fake_cupy
from tests.cuda.instantiations import groups
from tests.kernels import test_tree
from tests.kernels.test_cuda import same_in_both_orders
from tests.kernels.test_tree import CLOUDS, clusters, uniform

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

FROM = {"boxes": 0, "no boxes": 1 << 40}  # columns
problem = lru_cache(2)(test_tree.problem)  # of the cloud at hand, in either type; each has 8 MB


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    with fake_cupy.installed() as module:
        yield module


@pytest.fixture(params=FROM)
def boxes(request: Any, monkeypatch: Any) -> str:
    """With boxes and without, whatever the size."""
    monkeypatch.setattr(shapes, "BOXES_FROM", FROM[request.param])
    name: str = request.param
    return name


def ours_of(theirs: reference.Points, limit: float | None = None) -> Any:
    kernel = bridge.points(theirs.x, theirs.y, theirs.cost_function)
    if limit is not None:
        kernel.kernel.limit = limit
    return kernel


@pytest.mark.parametrize("make", CLOUDS, scope="module")  # cloud by cloud
@pytest.mark.parametrize("limit", [-3.0, pytest.param(-9.0, marks=pytest.mark.guard)])
def test_left_out_is_bounded(make: Any, limit: float, boxes: str) -> None:
    """With a coarse limit the sums are too small, by no more than twice that part, whatever the guess was."""
    eps = 4e-3
    _, theirs, h, wanted = problem(make, 3, HalfSquare(), eps)
    ours, rng = ours_of(theirs, limit), np.random.default_rng(0)
    largest = 0.0
    shifts = [0.0, 3 * rng.normal(size=len(wanted)), -5.0, -12.0, -20.0, 5.0]
    for guess in [*(wanted + shift * eps for shift in shifts), None]:
        missing = -np.expm1((wanted - ours.softmin(h, eps, guess)) / eps)  # of the sum
        assert missing.max() <= 2 * 2.0**limit
        assert missing.min() >= -1e-9
        largest = max(largest, missing.max())
    assert largest > 0  # something is left out


def test_the_budget_is_kept(boxes: str, monkeypatch: Any) -> None:
    """Of forty tiles, each at one place, that carry 2^-9 of a row each, the limit has room for sixteen."""
    monkeypatch.setattr(shapes, "parts", lambda *_: 1)
    place = np.repeat(np.arange(41.0), shapes.NEAR_TILE)
    carried = np.where(np.arange(41) == 0, 1 - 40 * 2.0**-9, 2.0**-9)
    h = np.log(carried.repeat(shapes.NEAR_TILE) / shapes.NEAR_TILE) + 0.5 * place**2
    theirs = reference.Points(np.zeros((1, 1)), place[:, None], HalfSquare())
    limit = np.log2(16.5) - 9
    found = ours_of(theirs, limit).softmin(h, 1.0, np.zeros(1))
    np.testing.assert_allclose(-np.expm1(-found), 16 * 2.0**-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.guard)])
@pytest.mark.parametrize(
    "cost", [HalfSquare(), Euclidean(), pytest.param(Cityblock(), marks=pytest.mark.guard)], ids=repr
)
@pytest.mark.parametrize("d", [pytest.param(1, marks=pytest.mark.guard), 2, 3])
def test_costs_and_dimensions(cost: Cost, d: int, dtype: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(shapes, "BOXES_FROM", 0)
    eps = 1e-3 if cost.degree == 2 else 1e-2
    _, theirs, h, wanted = problem(clusters, d, cost, eps, dtype)
    ours, part = ours_of(theirs, -6.0), 2.0**-6
    rounding = 1e-3 if dtype == np.float32 else 1e-9  # of logits of up to 1e3
    missing = -np.expm1((wanted - ours.softmin(h, eps, wanted)) / eps)
    assert -rounding <= missing.min() <= missing.max() <= 2 * part + rounding
    v = np.random.default_rng(1).random((len(h), 2))
    P = theirs.plan_rows(slice(None), wanted / eps, h, eps)  # rows sum to 1
    missing = P @ v - ours.apply(wanted / eps, h, eps, v)
    assert -rounding <= missing.min() <= missing.max() <= part + rounding
    slopes = ours.cost_gradient(wanted / eps, h, eps) - theirs.cost_gradient(wanted / eps, h, eps)
    longest = np.abs(theirs.cost_function.gradient(ours.x[:, None], ours.y[None])).max()
    assert np.abs(slopes).max() <= (part + rounding) * longest


@pytest.mark.parametrize("make", CLOUDS, scope="module")  # cloud by cloud
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.guard)])
def test_rounding_hides_what_is_left_out_by_default(make: Any, dtype: Any, boxes: str) -> None:
    """At the limit of the kernels the result is that of all pairs."""
    eps = 4e-3
    _, theirs, h, wanted = problem(make, 3, HalfSquare(), eps, dtype)
    ours, size = ours_of(theirs), float(theirs.cost.max()) / eps
    # float32: coordinates from local origins are exact to 2^-24 of a block, logits to some ulps of its width.
    error = 5e-5 if dtype == np.float32 else 4e-16 * (40 + 4 * size)
    for guess in (wanted - 4 * eps, None):
        np.testing.assert_allclose(ours.softmin(h, eps, guess), wanted, rtol=0, atol=eps * error)
    np.testing.assert_allclose(ours.softmin_pair(wanted / eps, h, eps)[0], wanted, rtol=0, atol=eps * error)


@pytest.mark.parametrize("size", [1, 128, 129, 8192, 8300])
def test_boxes_hold_their_columns(size: int, rng: np.random.Generator) -> None:
    """Of tiles of 128 columns in order, then of 64 of them; their largest weights; and the image of the rows."""
    kernel = bridge.points(uniform(rng, 3, 2), uniform(rng, size, 2), HalfSquare()).kernel
    operands = kernel.operands._replace(groups=-(-size // 8192), y_extra=kernel.y_cloud.boxes)
    boxes, h = kernel.y_cloud.boxes.data_, np.where(rng.random(size) < 0.5, -np.inf, rng.normal(size=size))
    h[size // 2] = 0.0
    prepared = kernel.prepare(fake_cupy.asarray(h), 1.0, operands).data_
    columns, weights = kernel.y[operands.y_order].data_, h[operands.y_order.data_]
    np.testing.assert_allclose(prepared[:size], weights / np.log(2), rtol=1e-15)
    place, tops = 0, prepared[size:-2]
    for length in (128, 8192):
        for begin in range(0, size, length):
            inside = slice(begin, begin + length)
            np.testing.assert_array_equal(boxes[place], [columns[inside].min(axis=0), columns[inside].max(axis=0)])
            np.testing.assert_allclose(tops[place], weights[inside].max() / np.log(2), rtol=1e-15)
            place += 1
    assert place == len(boxes) == len(tops)
    centres = kernel.x_cloud.frames.data_[:, 0]
    values = weights / np.log(2) - 0.5 * ((centres[:, None] - columns) ** 2).sum(axis=2)
    np.testing.assert_allclose(prepared[-2], values[0, int(prepared[-1])], rtol=1e-12)
    assert prepared[-2] >= values.max() - 4  # bits


def test_columns_are_prepared_once_a_call(boxes: str, rng: np.random.Generator) -> None:
    kernel = bridge.points(uniform(rng, 300, 2), uniform(rng, 200, 2), HalfSquare())
    fake_cupy.launches.clear()
    kernel.softmin(np.zeros(200), 0.1)
    names = [name.split("<")[0] for name, _, _ in fake_cupy.launches if name.startswith(("prep", "images", "reduce"))]
    assert names == ["prepare", "images"] * (boxes == "boxes") + ["reduce", "reduce"]


@pytest.mark.guard
def test_many_columns(rng: np.random.Generator) -> None:
    """Several groups of tiles, the last of them not full: more columns than go without boxes."""
    x, y = uniform(rng, 300, 2), uniform(rng, shapes.BOXES_FROM + 1000, 2)
    theirs, eps = reference.Points(x, y, HalfSquare()), 1e-3
    assert ours_of(theirs).kernel.operands.groups == 5
    h = -np.log(len(y)) + rng.normal(size=len(y))
    wanted = theirs.softmin(h, eps)
    for limit, error in ((-60.0, 1e-11), (-5.0, 2.0**-4)):
        for guess in (None, wanted):
            found = ours_of(theirs, limit).softmin(h, eps, guess)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=eps * error)


@pytest.mark.parametrize("cost", [HalfSquare(), Euclidean()], ids=repr)
def test_huge_logits_lose_no_row(cost: Cost, boxes: str, rng: np.random.Generator) -> None:
    """Where rounding is larger than any bound every row still has a sum, up to that rounding."""
    eps = 1e-24 if cost.degree == 2 else 1e-18  # the squares of scaled distances fit in float32
    for dtype in (np.float32, np.float64):
        x, y = (rng.normal(size=(size, 3)).astype(dtype) for size in (300, 260))
        theirs = reference.Points(x, y, cost)
        wanted = theirs.softmin(np.zeros(260), eps)
        for guess in (None, wanted, wanted + 1.0, np.zeros(300)):
            found = ours_of(theirs).softmin(np.zeros(260), eps, guess)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=40 * np.finfo(dtype).eps)


def test_the_order_of_lanes_changes_no_bit(boxes: str) -> None:
    eps = 1e-3
    _, theirs, h, wanted = problem(clusters, 3, HalfSquare(), eps, np.float32)
    k, v = wanted / eps, np.ones((len(h), 1))

    def results() -> list[np.ndarray]:
        ours = ours_of(theirs, -8.0)
        sums = [ours.softmin(h, eps), ours.softmin(h, eps, wanted), ours.softmin(h, eps, wanted - 5 * eps)]
        return [*sums, *ours.softmin_pair(k, h, eps), ours.apply(k, h, eps, v), ours.cost_gradient(k, h, eps)]

    same_in_both_orders(results)


COUNTED = {"const T bound = form.fill(tile);": 0, "if (!walk.keeps(bound)) continue;": 1}


@pytest.fixture
def counting(monkeypatch: Any) -> Iterator[emulation.Kernels]:
    """Kernels of half the squared distance in 2-D, float64, that count the tiles they fill, and those they sum."""
    code, names = modules.source(), groups()["double, square, d = 2"]
    for line, counter in COUNTED.items():
        assert line in code
        code = code.replace(line, f"{line} if (threadIdx.x == 0) ++emulator::counters[{counter}];")
    kernels = emulation.Kernels(code, names)
    fake_cupy.build_all(modules.source())  # kept: the others are as always
    for name in names:
        monkeypatch.setitem(fake_cupy.COMPILED, name, kernels)
    modules.function.cache_clear()
    yield kernels
    modules.function.cache_clear()


@pytest.mark.parametrize("make", [pytest.param(uniform, marks=pytest.mark.guard), clusters])
def test_tiles_are_left_out(make: Any, counting: emulation.Kernels, monkeypatch: Any) -> None:
    """All that carry more than the limit are summed, few others; those that boxes exclude are not even filled."""
    eps, limit = 1e-4, -31.0
    _, theirs, h, wanted = problem(make, 2, HalfSquare(), eps, n=2100, m=1700)  # more tiles to leave out
    filled, summed = {}, {}
    for name, size in FROM.items():
        monkeypatch.setattr(shapes, "BOXES_FROM", size)
        ours = ours_of(theirs, limit)
        ours.softmin(h, eps, wanted)
        counting.counted()
        ours.softmin(h, eps, wanted)
        filled[name], summed[name], _ = counting.counted()
    operands = ours.kernel.operands
    P = theirs.plan_rows(slice(None), wanted / eps, h, eps)[operands.x_order.data_][:, operands.y_order.data_]
    rows, tile = ours.kernel.form("SUMS").rows, shapes.NEAR_TILE
    P = np.pad(P, [(0, -size % step) for size, step in zip(P.shape, (rows, tile), strict=True)])
    carried = P.reshape(-1, rows, P.shape[1] // tile, tile).sum(axis=3).max(axis=1)  # (blocks, tiles)
    needed = int((carried > 2.0**limit).sum())
    print(make.__name__, filled, summed, needed, carried.size)
    assert needed <= summed["boxes"] <= filled["boxes"] < 0.75 * filled["no boxes"]
    assert filled["no boxes"] == carried.size
    assert needed <= summed["no boxes"] < 0.75 * carried.size
