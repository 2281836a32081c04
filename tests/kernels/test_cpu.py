"""The fused CPU kernels against the reference in float64, for float32 points that of the same float32 points.

Compiling costs more than running: every combination of a cost, a type and a form of the kernels compiles its own. So
two kinds of kernels go through all methods, and the others through a choice of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pytest

from epsot.costs import Cityblock, Cost, Euclidean, HalfSquare, Square
from epsot.kernels import cpu, reference
from epsot.kernels.cpu import compiled, reductions
from tests.checks import close

LOG_ZERO = -np.inf


class Case(NamedTuple):
    """Two kernels, log-densities near those of a plan, and what rounding may do to a logit."""

    ours: Any
    theirs: Any
    k: np.ndarray
    h: np.ndarray
    eps: float
    rounding: float
    rng: np.random.Generator


class Definition(reference.Points):
    """The reference, which computes its costs once."""

    @cached_property
    def whole(self) -> np.ndarray:
        return super().cost_rows(slice(None))

    def cost_rows(self, rows: Any) -> np.ndarray:
        return self.whole[rows]

    @cached_property
    def T(self) -> Definition:  # type: ignore[override]
        transpose = Definition(self.y, self.x, self.cost_function)
        vars(transpose)["whole"] = self.whole.T
        return transpose


def make_case(ours: Any, theirs: Any, dtype: Any, eps: float, rng: np.random.Generator) -> Case:
    """Weights over a decade, some of them zero, and the potentials after one iteration.

    A logit h - C / eps is the sum of numbers as large as C / eps, each rounded a few times. Log-weights and the powers
    of two that keep sums in range are numbers of up to 40, and the sums of exponentials are rounded as they grow.
    """
    if isinstance(theirs, reference.Points):
        theirs = Definition(theirs.x, theirs.y, theirs.cost_function)
    n, m = theirs.shape
    log_a, log_b = np.log(10 ** -rng.random(n) / max(n, 1)), np.log(10 ** -rng.random(m) / max(m, 1))
    if n > 2:
        log_a[[n // 2, n - 1]] = LOG_ZERO
    if m > 2:
        log_b[[0, m // 3]] = LOG_ZERO
    h = log_b + theirs.T.softmin(log_a, eps) / eps
    k = log_a + theirs.softmin(h, eps) / eps
    finite = theirs.cost[np.isfinite(theirs.cost)]
    size = float(np.abs(finite).max()) / eps if finite.size else 0.0
    return Case(ours, theirs, k, h, eps, np.finfo(dtype).eps * (40 + 4 * size), rng)


def within(actual: Any, desired: Any, error: Any) -> None:
    """|actual - desired| <= error, entry by entry; infinities agree."""
    actual, desired, error = np.broadcast_arrays(actual, desired, error)
    assert actual.dtype == np.float64
    assert actual.shape == desired.shape
    infinite = np.isinf(desired)
    np.testing.assert_array_equal(actual[infinite], desired[infinite])
    actual, desired, error = actual[~infinite], desired[~infinite], error[~infinite]
    bad = ~(np.abs(actual - desired) <= error)
    assert not bad.any(), f"off by {np.abs(actual - desired)[bad]}, allowed {error[bad]}, of {desired[bad]}"


def check_softmin(case: Case) -> None:
    wanted = case.theirs.softmin(case.h, case.eps)
    within(case.ours.softmin(case.h, case.eps), wanted, case.eps * case.rounding)


def check_guess(case: Case) -> None:
    """Whatever the guess, the result is the softmin."""
    wanted = case.theirs.softmin(case.h, case.eps)
    for guess in guesses(case, wanted):
        within(case.ours.softmin(case.h, case.eps, guess), wanted, case.eps * case.rounding)


def guesses(case: Case, wanted: np.ndarray) -> list[np.ndarray]:
    """Of the softmin, which is wanted, from the best to hopeless ones."""
    good = np.where(np.isfinite(wanted), wanted, 0.0)
    near = good + case.eps * case.rng.normal(size=len(good))
    mixed = near.copy()
    mixed[::3] += 1e4 * case.eps
    mixed[1::5] = np.nan
    mixed[2::7] = np.inf
    bad = [good - 500 * case.eps, good + 500 * case.eps, np.full_like(good, np.inf), np.full_like(good, -np.inf)]
    return [good, near, mixed, *bad, np.full_like(good, np.nan)]


def check_pair(case: Case) -> None:
    """Near a plan, where the sums of the plan serve, and far from any, where every row is redone."""
    k, h, eps = case.k, case.h, case.eps
    wanted = case.theirs.softmin_pair(k, h, eps)
    for ours, theirs in zip(case.ours.softmin_pair(k, h, eps), wanted, strict=True):
        within(ours, theirs, eps * case.rounding)
    for shift in (400.0, -400.0):
        rows, columns = case.ours.softmin_pair(k + shift, h, eps)
        # The shift is as large as the numbers that it is added to, or larger.
        error = eps * (case.rounding + 1e-15 * abs(shift))
        within(rows, wanted[0], error)
        within(columns, wanted[1] - eps * shift, error)


def check_self(case: Case) -> None:
    ours, theirs = case.ours.source(), case.theirs.source()
    for k in (case.k, case.k + 400.0):
        wanted = theirs.softmin(k, case.eps)
        within(ours.softmin_self(k, case.eps), wanted, case.eps * (case.rounding + 1e-12))
    # At the fixed point of a self problem the sums of the plan serve; it is near half the softmin of the weights.
    k = 0.5 * (case.k + theirs.softmin(case.k, case.eps) / case.eps)
    within(ours.softmin_self(k, case.eps), theirs.softmin(k, case.eps), case.eps * case.rounding)


def check_apply(case: Case) -> None:
    """Values of one column, of three on very different scales, of one more than the points have coordinates."""
    k, h, eps = case.k, case.h, case.eps
    n, m = case.theirs.shape
    P = case.theirs.plan_rows(slice(None), k, h, eps)
    several = guesses(case, case.theirs.softmin(h, eps))
    for scales in (np.ones(1), np.array([1.0, 1e-60, 1e30]), np.ones(case_dimension(case) + 1)):
        v = case.rng.normal(size=(m, len(scales))) * scales
        wanted, error = P @ v, case.rounding * (P @ np.abs(v))
        for guess in (None, *several):
            within(case.ours.apply(k, h, eps, v, guess), wanted, error)
    assert case.ours.apply(k, h, eps, np.zeros((m, 0))).shape == (n, 0)
    v = case.rng.normal(size=(m, 2)) * [1, 0]
    np.testing.assert_array_equal(case.ours.apply(k, h, eps, v)[:, 1], 0)
    # <u, A v> = <A' u, v>
    u = case.rng.normal(size=n)
    one, other = u @ case.ours.apply(k, h, eps, v)[:, 0], v[:, 0] @ case.ours.T.apply(h, k, eps, u[:, None])[:, 0]
    assert abs(one - other) <= 2 * case.rounding * (np.abs(u) @ P @ np.abs(v[:, 0]))


def case_dimension(case: Case) -> int:
    return int(case.theirs.x.shape[1]) if isinstance(case.theirs, reference.Points) else 4


def check_gradient(case: Case) -> None:
    P = case.theirs.plan_rows(slice(None), case.k, case.h, case.eps)
    x, y = case.theirs.points64
    move = x[:, None, :] - y[None, :, :]
    slope = np.abs(case.theirs.cost_function.gradient(x[:, None, :], y[None, :, :]))
    error = case.rounding * np.einsum("ij,ijk->ik", P, slope)
    # Coordinates are rounded when they are moved to another origin, which turns the slope of a short distance.
    rounded = 4 * np.finfo(case.ours.x.dtype).eps * np.ptp(np.concatenate([x, y]), axis=0).max(initial=0.0)
    if isinstance(case.theirs.cost_function, HalfSquare):
        error += 2 * rounded * P.sum(axis=1, keepdims=True)
    elif isinstance(case.theirs.cost_function, Euclidean):
        length = np.sqrt((move**2).sum(axis=-1))
        error += rounded * (P / np.where(length > 0, length, np.inf)).sum(axis=1, keepdims=True)
    within(
        case.ours.cost_gradient(case.k, case.h, case.eps), case.theirs.cost_gradient(case.k, case.h, case.eps), error
    )


def check_cost_apply(case: Case) -> None:
    v = case.rng.normal(size=case.theirs.shape[1])
    v[::5] = 0
    # Up to rounding of the largest cost, for the squares are expanded.
    error = 20 * np.finfo(case.ours.x.dtype).eps * case.theirs.cost.max(initial=0.0) * np.abs(v).sum()
    within(case.ours.cost_apply(v), case.theirs.cost_apply(v), error)


def check_transpose(case: Case) -> None:
    ours, theirs = case.ours.T, case.theirs.T
    assert ours.shape == theirs.shape
    assert ours.T.shape == case.theirs.shape
    within(ours.softmin(case.k, case.eps), theirs.softmin(case.k, case.eps), case.eps * case.rounding)


def check_at(case: Case) -> None:
    """Other points against the same second cloud: far ones too, and none."""
    x = case.theirs.x
    points = np.concatenate([x[::-2], x[:1] + np.ptp(x, axis=0)]).astype(x.dtype)
    ours, theirs = case.ours.at(points), case.theirs.at(points)
    assert ours.shape == theirs.shape
    wanted = theirs.softmin(case.h, case.eps)
    # The points added may be farther than any of x: rounding grows like the cost.
    within(ours.softmin(case.h, case.eps), wanted, case.eps * 8 * case.rounding)
    assert case.ours.at(points[:0]).softmin(case.h, case.eps).shape == (0,)


def check_plan_rows(case: Case) -> None:
    n = case.theirs.shape[0]
    for rows in (slice(None), slice(1, 5), np.array([n - 1, 0])):
        # The same formula in float64.
        close(
            case.ours.plan_rows(rows, case.k, case.h, case.eps),
            case.theirs.plan_rows(rows, case.k, case.h, case.eps),
            1e-13,
        )
        close(case.ours.cost_rows(rows), case.theirs.cost_rows(rows), 1e-15)


CHECKS: dict[str, Callable[[Case], None]] = {
    "softmin": check_softmin,
    "guess": check_guess,
    "pair": check_pair,
    "self": check_self,
    "apply": check_apply,
    "gradient": check_gradient,
    "cost_apply": check_cost_apply,
    "transpose": check_transpose,
    "at": check_at,
    "plan_rows": check_plan_rows,
}
ALL = " ".join(CHECKS)


def clouds(
    n: int, m: int, d: int, dtype: Any, rng: np.random.Generator, offset: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of diameter about 1, which overlap, at some distance from the origin."""
    x = rng.normal(size=(n, d)) / np.sqrt(16 * d) + offset
    y = 0.7 * rng.normal(size=(m, d)) / np.sqrt(16 * d) + 0.3 / np.sqrt(d) + offset
    return x.astype(dtype), y.astype(dtype)


f4, f8 = np.float32, np.float64
EVERY = pytest.mark.every


@pytest.mark.parametrize(
    ("checks", "cost", "dtype", "d", "n", "m", "eps", "offset"),
    [
        # low dimension, float32: sorted clouds, local origins, columns left out
        (ALL, HalfSquare(), f4, 2, 1000, 200, 1e-2, 0.0),
        (ALL, HalfSquare(), f4, 2, 200, 1000, 1e-4, 1000.0),
        (ALL, HalfSquare(), f4, 2, 65, 64, 1e3, 0.0),
        (ALL, Square(), f4, 2, 63, 7, 0.1, -1000.0),
        (ALL, HalfSquare(), f4, 2, 1, 1, 0.5, 1.0),
        (ALL, HalfSquare(), f4, 2, 2, 1, 0.5, 0.0),
        pytest.param("softmin gradient", Euclidean(), f4, 3, 200, 1000, 1e-2, 1000.0, marks=EVERY),
        pytest.param("softmin gradient", Euclidean(), f4, 3, 7, 65, 1e3, 0.0, marks=EVERY),
        pytest.param("pair guess", Cityblock(), f4, 1, 1000, 65, 1e-3, 3.0, marks=EVERY),
        # low dimension, float64
        ("softmin gradient", HalfSquare(), f8, 1, 1000, 63, 1e-4, 0.0),
        ("softmin gradient", Square(), f8, 1, 65, 1000, 1e-2, 1000.0),
        ("apply", HalfSquare(), f8, 3, 64, 1000, 1e-3, 1000.0),
        ("self", Euclidean(), f8, 2, 1000, 65, 0.05, 0.0),
        ("self", Euclidean(), f8, 2, 63, 7, 1e-4, 1000.0),
        pytest.param("cost_apply gradient", Euclidean(), f8, 1, 65, 200, 0.3, 0.0, marks=EVERY),
        pytest.param("pair", Cityblock(), f8, 3, 65, 1000, 1e-3, 1000.0, marks=EVERY),
        # high dimension
        (ALL, Euclidean(), f8, 17, 65, 200, 1e-3, 1000.0),
        (ALL, Euclidean(), f8, 5, 200, 63, 1e3, 0.0),
        (ALL, Euclidean(), f8, 40, 2, 7, 0.2, 0.0),
        ("softmin guess self gradient", HalfSquare(), f4, 17, 200, 65, 1e-2, 1000.0),
        ("softmin guess self gradient cost_apply", Square(), f4, 40, 63, 200, 1.0, 0.0),
        ("softmin guess self gradient", HalfSquare(), f4, 5, 1000, 7, 1e-4, 0.0),
        ("pair", HalfSquare(), f8, 5, 64, 65, 1e-4, 1000.0),
        ("pair", Square(), f8, 40, 7, 200, 1e-2, 0.0),
        pytest.param("gradient cost_apply", Cityblock(), f4, 5, 65, 200, 1e-2, 1000.0, marks=EVERY),
        pytest.param("gradient cost_apply", Cityblock(), f4, 17, 7, 63, 10.0, 0.0, marks=EVERY),
    ],
)
def test_points(
    checks: str, cost: Cost, dtype: Any, d: int, n: int, m: int, eps: float, offset: float, rng: np.random.Generator
) -> None:
    x, y = clouds(n, m, d, dtype, rng, offset)
    case = make_case(cpu.Points(x, y, cost), reference.Points(x, y, cost), dtype, eps, rng)
    assert case.ours.shape == (n, m)
    for name in checks.split():
        CHECKS[name](case)


@pytest.mark.parametrize(("d", "dtype", "cost"), [(2, f4, HalfSquare()), (17, f8, Euclidean())])
def test_weights_over_ten_decades(d: int, dtype: Any, cost: Cost, rng: np.random.Generator) -> None:
    x, y = clouds(200, 65, d, dtype, rng)
    case = make_case(cpu.Points(x, y, cost), reference.Points(x, y, cost), dtype, 0.1, rng)
    case = case._replace(k=np.log(10 ** (-10 * rng.random(200))), h=np.log(10 ** (-10 * rng.random(65))))
    for check in (check_softmin, check_guess, check_pair, check_self, check_apply, check_gradient):
        # A logarithm down to -23 is one more number to be rounded.
        check(case._replace(rounding=case.rounding + 23 * np.finfo(dtype).eps))


@pytest.mark.parametrize(("d", "dtype", "cost"), [(2, f4, HalfSquare()), (17, f8, Euclidean())])
def test_nothing_to_sum(d: int, dtype: Any, cost: Cost, rng: np.random.Generator) -> None:
    """All weights are zero."""
    check_nothing_to_sum(cpu.Points(*clouds(65, 7, d, dtype, rng), cost), d, rng)


def check_nothing_to_sum(kernel: Any, d: int, rng: np.random.Generator) -> None:
    """Of 65 points with 7 of weight zero."""
    k, h = rng.normal(size=65), np.full(7, LOG_ZERO)
    for out in (kernel.softmin(h, 0.1), kernel.softmin(h, 0.1, k), kernel.softmin_pair(k, h, 0.1)[0]):
        np.testing.assert_array_equal(out, np.full(65, np.inf))
    np.testing.assert_array_equal(kernel.source().softmin_self(np.full(65, LOG_ZERO), 0.1), np.full(65, np.inf))
    np.testing.assert_array_equal(kernel.apply(k, h, 0.1, np.ones((7, 3))), np.zeros((65, 3)))
    np.testing.assert_array_equal(kernel.cost_gradient(k, h, 0.1), np.zeros((65, d)))


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize(("d", "cost"), [(2, HalfSquare()), (17, Euclidean()), (None, None)])
def test_no_points(n: int, m: int, d: int | None, cost: Cost | None) -> None:
    if cost is None:
        ours, theirs = cpu.Matrix(np.zeros((n, m))), reference.Matrix(np.zeros((n, m)))
    else:
        dtype = f4 if d == 2 else f8  # the kernels that other tests compile
        x, y = np.zeros((n, d), dtype), np.zeros((m, d), dtype)
        ours, theirs = cpu.Points(x, y, cost), reference.Points(x, y, cost)
        assert ours.at(np.zeros((2, d), dtype)).softmin(np.zeros(m), 0.1).shape == (2,)
    check_no_points(ours, theirs, d)


def check_no_points(ours: Any, theirs: Any, d: int | None) -> None:
    """On either side, or both; without `d` of a matrix."""
    n, m = ours.shape
    k, h = np.zeros(n), np.zeros(m)
    np.testing.assert_array_equal(ours.softmin(h, 0.1), theirs.softmin(h, 0.1))
    np.testing.assert_array_equal(ours.softmin(h, 0.1, k), theirs.softmin(h, 0.1))
    np.testing.assert_array_equal(ours.T.softmin(k, 0.1), theirs.T.softmin(k, 0.1))
    for one, other in zip(ours.softmin_pair(k, h, 0.1), theirs.softmin_pair(k, h, 0.1), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(ours.apply(k, h, 0.1, np.ones((m, 3))), np.zeros((n, 3)))
    np.testing.assert_array_equal(ours.cost_apply(h), np.zeros(n))
    if d is not None:
        np.testing.assert_array_equal(ours.cost_gradient(k, h, 0.1), np.zeros((n, d)))
        assert ours.source().softmin_self(np.zeros(n), 0.1).shape == (n,)


def strided(array: np.ndarray) -> np.ndarray:
    """Every other entry of a larger array."""
    out = np.full([2 * length for length in array.shape], np.nan, array.dtype)
    out = out[(slice(None, None, 2),) * array.ndim]
    out[...] = array
    return out


def reversed_(array: np.ndarray) -> np.ndarray:
    back = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[back])[back]


def read_only(array: np.ndarray) -> np.ndarray:
    out = array.copy()
    out.flags.writeable = False
    return out


LAYOUTS = [np.ascontiguousarray, np.asfortranarray, strided, reversed_, read_only]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize(("d", "dtype", "cost"), [(2, f4, HalfSquare()), (17, f8, Euclidean())])
def test_inputs_of_any_layout_are_left_alone(
    layout: Any, d: int, dtype: Any, cost: Cost, rng: np.random.Generator
) -> None:
    """The same result as from C-contiguous inputs, and nothing is written into any of them."""
    x, y = clouds(300, 70, d, dtype, rng)
    plain = x, y, rng.normal(size=300), rng.normal(size=70), rng.normal(size=(70, 3))
    laid = tuple(layout(array) for array in plain)

    def results(x: Any, y: Any, k: Any, h: Any, v: Any) -> list[np.ndarray]:
        kernel = cpu.Points(x, y, cost)
        return [
            kernel.softmin(h, 0.1),
            kernel.softmin(h, 0.1, k),
            *kernel.softmin_pair(k, h, 0.1),
            kernel.source().softmin_self(k, 0.1),
            kernel.apply(k, h, 0.1, v),
            kernel.cost_gradient(k, h, 0.1),
            kernel.at(x).softmin(h, 0.1),
            kernel.cost_apply(h),
        ]

    ours, wanted = results(*laid), results(*plain)
    for one, other in zip(ours[:-1], wanted[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
    close(ours[-1], wanted[-1], 1e-13)  # BLAS sums in another order when there are strides
    for one, other in zip(laid, plain, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [f4, f8])
@pytest.mark.parametrize(("n", "m", "eps"), [(7, 2, 0.3), (65, 200, 1e-2), (200, 63, 1e-4), (64, 600, 1e3)])
def test_matrix(layout: Any, dtype: Any, n: int, m: int, eps: float, rng: np.random.Generator) -> None:
    """Read where it lies, with forbidden pairs, and a row and a column of nothing else."""
    C = rng.normal(size=(n, m))
    C[rng.random(size=(n, m)) < 0.1] = np.inf
    C[n // 3, :] = C[:, m // 2] = np.inf
    C = layout(C.astype(dtype))
    before = C.copy()
    ours, theirs = cpu.Matrix(C), reference.Matrix(before)
    assert ours.C is C
    log_b = np.log(10 ** (-10 * rng.random(m)))
    log_b[0] = LOG_ZERO
    k, h = rng.normal(size=n), log_b  # potentials of forbidden points would be infinite
    k[-1] = LOG_ZERO
    k -= 1 / eps  # the smallest logits of a cost near -4 or so, and of no plan in particular
    # One product and one sum, both as large as a logit, and the sums of the exponentials.
    rounding = np.finfo(dtype).eps * (50 + 8 / eps)
    case = Case(ours, theirs, k, h, eps, rounding, rng)
    for check in (check_softmin, check_guess, check_transpose, check_pair):
        check(case)
    f = theirs.softmin(h, eps)
    case = case._replace(k=np.where(np.isinf(f), 0.0, f / eps))  # sums of one in every row
    check_apply(case)
    check_pair(case)
    check_plan_rows(case)
    v = rng.random(m) * (np.arange(m) % 3 > 0)  # of one sign, so that infinite costs do not cancel
    wanted = theirs.cost_apply(v)
    within(ours.cost_apply(v), wanted, 1e-15 * m * 10)
    np.testing.assert_array_equal(C, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_symmetric_matrix(layout: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=(130, 2))
    C = np.abs(x[:, None, :] - x[None, :, :]).sum(axis=-1)
    ours, theirs = cpu.Matrix(layout(C)), reference.Matrix(C)
    assert ours.source().shape == (130, 130)
    h = np.log(rng.random(130) / 130)
    h[3] = LOG_ZERO
    for near_or_far in (h, h + 400, 0.5 * (h + theirs.softmin(h, 0.1) / 0.1)):
        # Logits of several hundred, in float64.
        close(ours.softmin_self(near_or_far, 0.1), theirs.softmin(near_or_far, 0.1), 1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_are_redone_need_not_be_neighbours(layout: Any, rng: np.random.Generator) -> None:
    """Of a matrix that is read by four neighbours at a time, two rows at the distance of the first and the fourth."""
    C, h = rng.random((9, 40)), rng.normal(size=40)
    wanted = reference.Matrix(C).softmin(h, 0.1)
    guess = wanted.copy()
    guess[[4, 7]] = np.nan
    close(cpu.Matrix(layout(C)).softmin(h, 0.1, guess), wanted, 1e-13)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_float32_is_accurate_at_a_small_blur(offset: float, rng: np.random.Generator) -> None:
    """A translation, with its exact potentials, at blur = 0.01 in the unit square: logits of up to 10^4.

    Differences x - y in float32, or one origin for all, lose 1e-3 eps and more; origins for every block of rows and
    for its image keep 5e-5 eps, far from the origin too. The float32 points are the problem as posed.
    """
    n, eps, shift = 4096, 1e-4, np.array([0.3, -0.3])
    points = rng.random((n, 2)) - 0.5
    x = (points + offset).astype(np.float32)
    y = (rng.permutation(points) + shift + offset).astype(np.float32)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    h = (y64 - offset) @ shift / eps - np.log(n)
    parts = [reference.Points(x64[i : i + 256], y64, HalfSquare()).softmin(h, eps) for i in range(0, n, 256)]
    wanted = np.concatenate(parts)
    kernel = cpu.Points(x, y, HalfSquare())
    within(kernel.softmin(h, eps), wanted, 5e-5 * eps)
    within(kernel.softmin(h, eps, wanted + 0.1 * eps), wanted, 5e-5 * eps)
    within(kernel.softmin_pair(wanted / eps - np.log(n), h, eps)[0], wanted, 5e-5 * eps)


@pytest.mark.parametrize("kind", ["low dimension", "high dimension", "matrix"])
def test_bits_do_not_depend_on_the_threads(kind: str, rng: np.random.Generator) -> None:
    """At a size where threads are used: blocks and the order of the sums are fixed."""
    n = 3000
    d, dtype, cost = (2, f4, HalfSquare()) if kind == "low dimension" else (17, f8, Euclidean())
    x, y = clouds(n, n, d, dtype, rng)
    k, h, v = rng.normal(size=n), rng.normal(size=n), rng.normal(size=(n, 2))
    C = rng.random((n, n)) if kind == "matrix" else None

    def results(workers: int) -> list[np.ndarray]:
        kernel = cpu.Points(x, y, cost, workers) if C is None else cpu.Matrix(C, workers)
        source = kernel.source()
        out = [kernel.softmin(h, 0.1), *kernel.softmin_pair(k - np.log(n), h - np.log(n), 0.1)]
        out += [source.softmin_self(k - np.log(n), 0.1), kernel.apply(k, h, 0.1, v)]
        return [*out, kernel.softmin(h, 0.1, out[0] + 0.01 * k)]

    wanted = results(1)
    for workers in (2, 3):
        for one, other in zip(results(workers), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("d", "dtype"), [(3, f4), (17, f8)])
def test_coincident_points_have_no_slope(d: int, dtype: Any, rng: np.random.Generator) -> None:
    """Where each point meets only itself the gradient of the distance is zero, not a rounding error made a unit."""
    x, _ = clouds(300, 1, d, dtype, rng, 1000.0)
    y = np.concatenate([x[::-1], x[:5]])
    kernel = cpu.Points(x, y, Euclidean())
    # exp(-distance / eps) = 0 for every other pair, at least 1e-4 apart
    np.testing.assert_array_equal(kernel.cost_gradient(np.zeros(300), np.zeros(305), 1e-8), np.zeros((300, d)))
    case = make_case(kernel, reference.Points(x, y, Euclidean()), dtype, 0.1, rng)
    check_gradient(case)
    # All points are one.
    same = np.repeat(x[:1], 70, axis=0)
    kernel = cpu.Points(same, same[:7], Euclidean())
    np.testing.assert_array_equal(kernel.cost_gradient(np.zeros(70), np.zeros(7), 0.1), np.zeros((70, d)))


@pytest.mark.every
def test_nothing_can_be_cached(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Numba raises RuntimeError when it finds no folder that can be written: then a kernel is compiled for itself."""
    refused = []

    def uncached(function: Any) -> Any:
        refused.append(function)
        raise RuntimeError("cannot cache function: no locator available for file")

    monkeypatch.setattr(compiled, "Cache", uncached)
    monkeypatch.setattr(reductions, "row_sums", reductions.row_sums.__wrapped__)
    C, h = rng.random((5, 9)), rng.normal(size=9)
    wanted = reference.Matrix(C).softmin(h, 0.3)
    # One rounding error or two in float64.
    close(cpu.Matrix(C).softmin(h, 0.3, wanted), wanted, 1e-14)
    assert refused


def test_sums_far_beyond_a_plan_warn_of_nothing() -> None:
    """Weights at the ceiling of float64 overflow when they are added; their rows are redone."""
    x, h = np.zeros((65, 1)), np.full(65, -np.inf)
    h[[0, 64]] = 400.0
    np.testing.assert_allclose(cpu.Points(x, x, Cityblock()).softmin_self(h, 1.0), -400 - np.log(2), rtol=1e-12)
    k, one = np.full(2000, -np.inf), np.full(2000, -np.inf)
    k[[0, 64]], one[0] = 400.0, 400.0
    f, g = cpu.Matrix(np.zeros((2000, 2000))).softmin_pair(k, one, 1.0)
    np.testing.assert_allclose(f, -400, rtol=1e-12)
    np.testing.assert_allclose(g, -400 - np.log(2), rtol=1e-12)
