"""What the CPU kernels leave out of a sum: never more than they say, on clouds where bounds are hard."""

from __future__ import annotations

import numpy as np
import pytest

from epsot.costs import Cityblock, Cost, Euclidean, HalfSquare
from epsot.kernels import cpu, reference
from epsot.kernels.cpu import reductions
from epsot.kernels.cpu.fused import NO_PARTS
from epsot.kernels.cpu.tree import GROUP, halves, plant

N, M = 1100, 900


def uniform(rng, size, d):
    return rng.random((size, d))


def clusters(rng, size, d):
    return rng.random((6, d))[rng.integers(6, size=size)] + 0.01 * rng.normal(size=(size, d))


def line(rng, size, d):
    return np.sort(rng.random((size, 1)), axis=0) * np.arange(1, d + 1) + 1e-4 * rng.normal(size=(size, d))


def duplicates(rng, size, d):
    return rng.random((40, d))[rng.integers(40, size=size)]


def shells(rng, size, d):
    directions = rng.normal(size=(size, d))
    return 0.5 * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def far(rng, size, d):
    return rng.random((size, d))  # `problem` puts 30 between them


CLOUDS = [uniform, clusters, line, duplicates, shells, far]


def problem(make, d: int, cost: Cost, eps: float, dtype=np.float64, *, n: int = N, m: int = M):
    """Both kernels, h of weights over ten decades near a plan, and the softmin of h."""
    rng = np.random.default_rng(5)
    x, y = make(rng, n, d).astype(dtype), (make(rng, m, d) + 30.0 * (make is far)).astype(dtype)
    theirs, ours = reference.Points(x, y, cost), cpu.Points(x, y, cost)
    log_a, log_b = (-23 * rng.random(size) - np.log(size) for size in (n, m))
    log_b[::17] = -np.inf
    f = theirs.softmin(log_b, eps)
    for _ in range(3):
        g = theirs.T.softmin(log_a + f / eps, eps)
        h = log_b + g / eps
        f = theirs.softmin(h, eps)
    return ours, theirs, h, f


def groups_used(kernel, h, eps, guess) -> float:
    """The share of the tiles that the sums ran over."""
    run, out = reductions.row_sums(kernel.form, kernel.kind, kernel.dim), np.empty((kernel.shape[0], 1))
    scale = np.log2(np.e) / eps
    common = (*kernel.operands, *kernel.weights(h, eps), kernel.capacity, kernel.spare, guess, scale, eps)
    _, used = run(*common, 1, 0, kernel.blocks, out, NO_PARTS)
    return used / (kernel.blocks * -(-kernel.shape[1] // GROUP))


@pytest.mark.parametrize("make", CLOUDS)
@pytest.mark.parametrize("limit", [-3.0, -9.0])
def test_left_out_is_bounded(make, limit):
    """With a coarse limit the sums are too small, by no more than twice that part, whatever the guess was."""
    eps = 2e-3
    ours, _, h, wanted = problem(make, 3, HalfSquare(), eps)
    ours.limit = limit
    rng = np.random.default_rng(0)
    for guess in (wanted, wanted + 3 * eps * rng.normal(size=N), wanted - 5 * eps, wanted + 5 * eps, None):
        missing = -np.expm1((wanted - ours.softmin(h, eps, guess)) / eps)  # of the sum
        assert missing.max() <= 2 * 2.0**limit
        assert missing.min() >= -1e-9
    assert groups_used(ours, h, eps, wanted) < 0.8


@pytest.mark.parametrize(
    ("cost", "d"),
    [
        (HalfSquare(), 1),
        (HalfSquare(), 2),
        (Euclidean(), 2),
        (Euclidean(), 3),
        pytest.param(Cityblock(), 1, marks=pytest.mark.every),
        pytest.param(Cityblock(), 3, marks=pytest.mark.every),
    ],
    ids=str,
)
def test_costs_and_dimensions(cost, d):
    eps = 1e-3 if cost.degree == 2 else 1e-2
    ours, _, h, wanted = problem(clusters, d, cost, eps)
    ours.limit = -6.0
    missing = -np.expm1((wanted - ours.softmin(h, eps, wanted)) / eps)
    assert -1e-9 <= missing.min() <= missing.max() <= 2 * 2.0**-6
    assert groups_used(ours, h, eps, wanted) < 0.8


@pytest.mark.parametrize(("cost", "d"), [(HalfSquare(), 2), (Euclidean(), 3)], ids=str)
def test_products_and_gradients(cost, d):
    eps = 1e-3 if cost.degree == 2 else 1e-2
    ours, theirs, h, wanted = problem(clusters, d, cost, eps)
    ours.limit = -6.0
    rng = np.random.default_rng(1)
    v = rng.random((M, 2))
    P = theirs.plan_rows(slice(None), wanted / eps, h, eps)  # rows sum to 1
    missing = P @ v - ours.apply(wanted / eps, h, eps, v)
    assert -1e-9 <= missing.min() <= missing.max() <= 2.0**-6
    slopes = ours.cost_gradient(wanted / eps, h, eps) - theirs.cost_gradient(wanted / eps, h, eps)
    longest = np.abs(theirs.cost_function.gradient(ours.x[:, None], ours.y[None])).max()
    assert np.abs(slopes).max() <= 2.0**-6 * longest


@pytest.mark.parametrize("make", CLOUDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_hides_what_is_left_out_by_default(make, dtype):
    """At the limit of the kernels the result is that of all pairs."""
    eps = 4e-3
    ours, theirs, h, wanted = problem(make, 3, HalfSquare(), eps, dtype)
    size = float(theirs.cost.max()) / eps
    # float32: coordinates from local origins are exact to 2^-24 of a block, logits to some ulps of its width.
    error = 2e-5 if dtype == np.float32 else 4e-16 * (40 + 4 * size)
    for guess in (wanted, wanted - 4 * eps, None):
        np.testing.assert_allclose(ours.softmin(h, eps, guess), wanted, rtol=0, atol=eps * error)


def test_boxes_hold_their_columns():
    rng = np.random.default_rng(2)
    for size in (1, 63, 64, 65, 1000, 4097):
        columns = rng.normal(size=(2, -(-size // GROUP) * GROUP))
        columns[:, size:] = columns[:, size - 1 : size]
        tree = plant(columns, size)
        assert tree.skip[0] == len(tree.first)
        for node in range(len(tree.first)):
            following = tree.skip[node]
            first = tree.first[node] * GROUP
            last = tree.first[following] * GROUP if following < len(tree.first) else size
            inside = columns[:, first:last]
            np.testing.assert_array_equal(tree.boxes[node, :2], inside.min(axis=1))
            np.testing.assert_array_equal(tree.boxes[node, 2:4], inside.max(axis=1))
            np.testing.assert_allclose(2.0 ** tree.boxes[node, 4], last - first)


def test_ranges_are_cut_at_whole_groups():
    for size in range(GROUP + 1, 1000, 37):
        middle = halves(0, size)
        assert middle % GROUP == 0
        assert 0 < middle < size


@pytest.mark.parametrize("seed", [152, 357, 454, 502, 821, 935, 1076, 1127, 1177, 2086])
def test_no_exponent_is_taken_for_a_small_one(seed):
    """Guesses of some rows that another column would justify: beside it, the weights of the others have no number.

    Where offsets fall with the distance, a bound holds of logits less half of a squared move. Taken for one of the
    logits themselves, it lets exponents pass that wrap around to plausible numbers: with these clouds it did.
    """
    rng = np.random.default_rng(seed)
    d, n, m, eps = 1 + seed % 3, int(rng.integers(3, 12)), int(rng.integers(2, 5)), 10 ** rng.uniform(-7, -3)
    x, y = rng.random((n, d)) + 1, rng.random((m, d)) * 0.2
    exact = reference.Points(x, y, HalfSquare())
    h = (exact.cost[rng.integers(n)] + rng.uniform(-0.1, 0.1, m)) / eps
    wanted, logits = exact.softmin(h, eps), h - exact.cost / eps
    guess = wanted.copy()
    for i in np.flatnonzero(rng.random(n) < 0.5):
        guess[i] = -eps * logits[i, rng.integers(m)]
    kernel = cpu.Points(x, y, HalfSquare())
    np.testing.assert_allclose(kernel.softmin(h, eps, guess), wanted, rtol=1e-11)
    rows, columns = kernel.softmin_pair(guess / eps, h, eps)
    np.testing.assert_allclose(rows, wanted, rtol=1e-11)
    np.testing.assert_allclose(columns, exact.T.softmin(guess / eps, eps), rtol=1e-11)
