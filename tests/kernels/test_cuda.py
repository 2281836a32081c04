"""The CUDA kernels, executed on the CPU by the emulator, against the reference in float64.

Kernels and driver run as they do on a device: through a module of the shape of CuPy whose launches go to kernels that
g++ compiled. What only a device can show is in `tests/cuda/test_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from epsot.costs import Cityblock, Cost, Euclidean, HalfSquare, Square
from epsot.kernels import reference
from tests.checks import close
from tests.cuda import bridge, emulation, fake_cupy
from tests.kernels.test_cpu import (
    ALL,
    CHECKS,
    LOG_ZERO,
    Case,
    check_no_points,
    check_nothing_to_sum,
    clouds,
    f4,
    f8,
    make_case,
    within,
)  # fmt: skip
from tests.kernels.test_cpu import LAYOUTS as ALL_LAYOUTS

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    with fake_cupy.installed() as module:
        yield module


def set_order(order: int) -> None:
    """The order in which lanes, warps and blocks of all kernels run."""
    for kernels in set(fake_cupy.COMPILED.values()):
        kernels.set_order(order)


@pytest.mark.parametrize(
    ("checks", "cost", "dtype", "d", "n", "m", "eps", "offset"),
    [
        # d <= 3: points in order, local origins, tiles left out, several blocks and parts
        (ALL, HalfSquare(), f4, 2, 600, 200, 1e-2, 0.0),
        (ALL, HalfSquare(), f4, 2, 200, 600, 1e-4, 1000.0),
        (ALL, Square(), f4, 2, 63, 7, 0.1, -1000.0),
        (ALL, HalfSquare(), f4, 2, 1, 1, 0.5, 1.0),
        ("softmin pair gradient", HalfSquare(), f4, 2, 257, 129, 1e3, 0.0),
        ("softmin gradient apply self", HalfSquare(), f4, 3, 513, 130, 1e-2, 1000.0),
        ("softmin gradient", Euclidean(), f4, 3, 200, 300, 1e-2, 1000.0),
        ("pair guess gradient", Cityblock(), f4, 1, 600, 65, 1e-3, 3.0),
        (ALL, Euclidean(), f8, 2, 300, 129, 1e-3, 1000.0),
        ("softmin pair gradient", HalfSquare(), f8, 1, 600, 63, 1e-4, 0.0),
        ("softmin apply gradient", HalfSquare(), f8, 3, 64, 300, 1e-3, 1000.0),
        ("softmin pair gradient", Cityblock(), f8, 3, 65, 300, 1e-3, 1000.0),
        # higher dimensions: products of tiles
        (ALL, HalfSquare(), f4, 17, 200, 65, 1e-2, 1000.0),
        (ALL, Euclidean(), f8, 5, 130, 63, 1e-3, 1000.0),
        ("softmin guess gradient", HalfSquare(), f4, 5, 300, 7, 1e-4, 0.0),
        ("softmin apply gradient", HalfSquare(), f4, 64, 65, 130, 1.0, 0.0),
        ("softmin gradient", HalfSquare(), f4, 100, 63, 65, 1.0, 1000.0),
        ("pair self gradient", HalfSquare(), f8, 100, 7, 65, 1e-2, 0.0),
        ("softmin gradient cost_apply", Cityblock(), f4, 5, 65, 200, 1e-2, 1000.0),
        ("gradient cost_apply", Euclidean(), f4, 17, 7, 63, 10.0, 0.0),
        ("apply", HalfSquare(), f8, 4, 2, 1, 0.5, 0.0),
    ],
)
def test_points(
    checks: str, cost: Cost, dtype: Any, d: int, n: int, m: int, eps: float, offset: float, rng: np.random.Generator
) -> None:
    x, y = clouds(n, m, d, dtype, rng, offset)
    case = make_case(bridge.points(x, y, cost), reference.Points(x, y, cost), dtype, eps, rng)
    assert case.ours.shape == (n, m)
    for name in checks.split():
        CHECKS[name](case)


@pytest.mark.parametrize(("d", "dtype", "cost"), [(2, f4, HalfSquare()), (17, f8, Euclidean())])
def test_nothing_to_sum(d: int, dtype: Any, cost: Cost, rng: np.random.Generator) -> None:
    """All weights are zero."""
    check_nothing_to_sum(bridge.points(*clouds(65, 7, d, dtype, rng), cost), d, rng)


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize(("d", "cost"), [(2, HalfSquare()), (17, Euclidean()), (None, None)])
def test_no_points(n: int, m: int, d: int | None, cost: Cost | None) -> None:
    ours: Any
    theirs: Any
    if cost is None:
        ours, theirs = bridge.matrix(np.zeros((n, m))), reference.Matrix(np.zeros((n, m)))
    else:
        x, y = np.zeros((n, d)), np.zeros((m, d))  # type: ignore[arg-type]
        ours, theirs = bridge.points(x, y, cost), reference.Points(x, y, cost)
    check_no_points(ours, theirs, d)


LAYOUTS = [layout for layout in ALL_LAYOUTS if layout.__name__ != "read_only"]  # CuPy has none


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "n", "m", "eps"), [(f4, 7, 2, 0.3), (f4, 65, 600, 1e-2), (f8, 300, 63, 1e-4)])
def test_matrix(layout: Any, dtype: Any, n: int, m: int, eps: float, rng: np.random.Generator) -> None:
    """Read where it lies, with forbidden pairs, and a row and a column of nothing else."""
    C = rng.normal(size=(n, m))
    C[rng.random(size=(n, m)) < 0.1] = np.inf
    C[n // 3, :] = C[:, m // 2] = np.inf
    C = layout(C.astype(dtype))
    before = C.copy()
    ours, theirs = bridge.matrix(C), reference.Matrix(before)
    log_b = np.log(10 ** (-10 * rng.random(m)))
    log_b[0] = LOG_ZERO
    k, h = rng.normal(size=n), log_b  # potentials of forbidden points would be infinite
    k[-1] = LOG_ZERO
    k -= 1 / eps  # the smallest logits of a cost near -4 or so, and of no plan in particular
    # One product and one sum, both as large as a logit, and the sums of the exponentials, all in float64.
    rounding = np.finfo(f8).eps * (50 + 8 / eps)
    case = Case(ours, theirs, k, h, eps, rounding, rng)
    for name in ("softmin", "guess", "transpose", "pair"):
        CHECKS[name](case)
    f = theirs.softmin(h, eps)
    case = case._replace(k=np.where(np.isinf(f), 0.0, f / eps))  # sums of one in every row
    for name in ("apply", "pair", "plan_rows"):
        CHECKS[name](case)
    v = rng.random(m) * (np.arange(m) % 3 > 0)  # of one sign, so that infinite costs do not cancel
    within(ours.cost_apply(v), theirs.cost_apply(v), 1e-15 * m * 10)
    np.testing.assert_array_equal(C, before)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_a_float32_matrix_is_its_numbers(layout: Any, rng: np.random.Generator) -> None:
    """To the bit what the same numbers in float64 give, where constants leave float32 three digits."""
    C = 1e4 * rng.random((130, 1)) + 1e4 * rng.random(270) + rng.random((130, 270))
    C[3, 5:] = np.inf
    C = layout(C.astype(f4))
    k, h, v, eps = rng.normal(size=130), rng.normal(size=270), rng.normal(size=(270, 5)), 1e-2
    found = []
    for kernel in (bridge.matrix(C), bridge.matrix(layout(C.astype(f8)))):
        f = kernel.softmin(h, eps)
        rows, columns = kernel.softmin_pair(k + f / eps, h, eps), kernel.T.softmin(k, eps)
        sums = kernel.apply(k + f / eps, h, eps, v), kernel.cost_apply(h)
        found.append([f, kernel.softmin(h, eps, f), *rows, columns, *sums])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_symmetric_matrix(layout: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=(600, 2))
    C = np.abs(x[:, None, :] - x[None, :, :]).sum(axis=-1)
    ours, theirs = bridge.matrix(layout(C)), reference.Matrix(C)
    h = np.log(rng.random(600) / 600)
    h[3] = LOG_ZERO
    for near_or_far in (h, h + 400, 0.5 * (h + theirs.softmin(h, 0.1) / 0.1)):
        # Logits of several hundred, in float64.
        close(ours.softmin_self(near_or_far, 0.1), theirs.softmin(near_or_far, 0.1), 1e-13)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_float32_is_accurate_at_a_small_blur(offset: float, rng: np.random.Generator) -> None:
    """A translation, with its exact potentials, at blur = 0.01 in the unit square: logits of up to 10^4.

    Differences x - y in float32, or one origin for all, lose 1e-3 eps and more; origins of blocks of 256 rows and of
    their images keep 3e-5 eps. The float32 points are the problem as posed.
    """
    n, eps, shift = 4096, 1e-4, np.array([0.3, -0.3])
    points = rng.random((n, 2)) - 0.5
    x = (points + offset).astype(np.float32)
    y = (rng.permutation(points) + shift + offset).astype(np.float32)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    h = (y64 - offset) @ shift / eps - np.log(n)
    some = np.arange(0, n, 16)
    wanted = reference.Points(x64[some], y64, HalfSquare()).softmin(h, eps)
    kernel = bridge.points(x, y, HalfSquare())
    ours = kernel.softmin(h, eps)
    within(ours[some], wanted, 5e-5 * eps)
    within(kernel.softmin(h, eps, ours + 0.1 * eps)[some], wanted, 5e-5 * eps)
    within(kernel.softmin_pair(ours / eps - np.log(n), h, eps)[0][some], wanted, 5e-5 * eps)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_an_offset_changes_nothing(offset: float, rng: np.random.Generator) -> None:
    """Points on a lattice that float32 holds exactly, wherever it lies."""
    x = (rng.integers(0, 16, (300, 3)) / 16).astype(np.float32)
    y = (rng.integers(0, 16, (200, 3)) / 16).astype(np.float32)
    h = rng.normal(size=200)
    near = bridge.points(x, y, HalfSquare()).softmin(h, 1e-3)
    moved = [(z.astype(np.float64) + offset).astype(np.float32) for z in (x, y)]
    if offset == 1e6:  # the spacing of float32 there
        x, y = (z * 4 for z in (x, y))
        moved = [(z.astype(np.float64) + offset).astype(np.float32) for z in (x, y)]
        near = bridge.points(x, y, HalfSquare()).softmin(h, 1e-3)
    within(bridge.points(moved[0], moved[1], HalfSquare()).softmin(h, 1e-3), near, 1e-9)


ORDERS = [
    ("near", f4, 3, HalfSquare()),
    ("near", f8, 2, Euclidean()),
    ("tiled", f4, 17, HalfSquare()),
    ("tiled", f8, 5, Euclidean()),
]


@pytest.mark.parametrize(("form", "dtype", "d", "cost"), ORDERS)
def test_the_order_of_lanes_changes_no_bit(form: str, dtype: Any, d: int, cost: Cost, rng: np.random.Generator) -> None:
    """Forward and backward: a missing barrier would show. Blocks are run in either order, too."""
    x, y = clouds(290, 333, d, dtype, rng)
    k, h, v = rng.normal(size=290), rng.normal(size=333), rng.normal(size=(333, 6))
    k[4] = h[7] = LOG_ZERO

    def results() -> list[np.ndarray]:
        kernel = bridge.points(x, y, cost)
        source = kernel.source()
        plain = kernel.softmin(h, 0.1)
        far = plain + 100 * (np.arange(290) % 3)
        return [
            *(plain, kernel.softmin(h, 0.1, far), *kernel.softmin_pair(k, h, 0.1)),
            *(source.softmin_self(k, 0.1), source.softmin_self(k + 400, 0.1), kernel.apply(k, h, 0.1, v)),
            *(kernel.cost_gradient(k, h, 0.1), kernel.cost_apply(v[:, 0])),
        ]

    same_in_both_orders(results)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_the_order_of_lanes_changes_no_bit_of_a_matrix(layout: Any, rng: np.random.Generator) -> None:
    C = layout(rng.random((290, 333)).astype(f4))
    k, h, v = rng.normal(size=290), rng.normal(size=333), rng.normal(size=(333, 6))

    def results() -> list[np.ndarray]:
        kernel = bridge.matrix(C)
        far = kernel.softmin(h, 0.1) + 100 * (np.arange(290) % 3)
        pair = kernel.softmin_pair(k, h, 0.1)
        return [kernel.softmin(h, 0.1, far), *pair, kernel.apply(k, h, 0.1, v), kernel.cost_apply(v[:, 0])]

    same_in_both_orders(results)


def same_in_both_orders(results: Any) -> Any:
    """The results with lanes in ascending order, which are those in descending order, to the bit."""
    forward = results()  # compiles; what is compiled can then be told the order
    set_order(1)
    try:
        backward = results()
    finally:
        set_order(0)
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one, other)
    return forward


def test_coincident_points_have_no_slope(rng: np.random.Generator) -> None:
    """Where each point meets only itself the gradient of the distance is zero, not a rounding error made a unit."""
    for d, dtype in ((3, f4), (17, f8)):
        x, _ = clouds(300, 1, d, dtype, rng, 1000.0)
        y = np.concatenate([x[::-1], x[:5]])
        kernel = bridge.points(x, y, Euclidean())
        # exp(-distance / eps) = 0 for every other pair, at least 1e-4 apart
        np.testing.assert_array_equal(kernel.cost_gradient(np.zeros(300), np.zeros(305), 1e-8), np.zeros((300, d)))


def test_weights_over_ten_decades(rng: np.random.Generator) -> None:
    for d, dtype, cost in ((2, f4, HalfSquare()), (17, f8, Euclidean())):
        x, y = clouds(200, 65, d, dtype, rng)
        case = make_case(bridge.points(x, y, cost), reference.Points(x, y, cost), dtype, 0.1, rng)
        case = case._replace(k=np.log(10 ** (-10 * rng.random(200))), h=np.log(10 ** (-10 * rng.random(65))))
        for name in ("softmin", "guess", "pair", "self", "apply", "gradient"):
            # A logarithm down to -23 is one more number to be rounded.
            CHECKS[name](case._replace(rounding=case.rounding + 23 * np.finfo(dtype).eps))
