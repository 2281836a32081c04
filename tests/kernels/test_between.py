"""The fused CPU arithmetic between two sweeps against its definition: one chunk, several, and shared by threads."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from epsot.kernels import vectors, vectors_of
from epsot.kernels.cpu import between
from epsot.kernels.cpu.chunks import CHUNK
from epsot.kernels.cpu.passes import mean
from epsot.kernels.vectors import WINDOW
from tests.checks import close
from tests.kernels.test_vectors import steps

SIZES = [1, 31, 64, 700, CHUNK, 3 * CHUNK + 5]
THEIRS = vectors.Vectors()


@pytest.fixture(params=["in one piece", "shared"])
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> between.Vectors:
    """The arithmetic in one call, and by stages on two threads."""
    if request.param == "shared":
        monkeypatch.setattr(between, "TASK", 1)
    return between.Vectors(2)


def case(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log_a with a zero weight, f and a next f: exponents from 1e-13 to beyond the range, of both signs, and a zero."""
    a, f = rng.random(n) + 0.01, rng.normal(size=n)
    next_f = f + rng.choice([-1, 1], n) * 10 ** rng.uniform(-14, 1, n)
    if n > 10:
        a[3], next_f[4] = 0, f[4]
        next_f[5:7] = f[5:7] + [-60, 60]
    with np.errstate(divide="ignore"):
        return np.log(a), f, next_f


def test_backend() -> None:
    """NumPy arrays are served by it, with as many workers as the kernels have."""
    found = vectors_of(np.zeros(3), 1)
    assert isinstance(found, between.Vectors)
    assert found.workers == 1


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rho", [np.inf, 0.7, 1e-3])
def test_sums(n: int, rho: float, ours: between.Vectors, rng: np.random.Generator) -> None:
    log_a, f, next_f = case(n, rng)
    for eps in (0.05, 3.0):
        arguments = (log_a, f, next_f, eps, rho)
        error, mass = ours.marginals(*arguments)
        wanted_error, wanted_mass = THEIRS.marginals(*arguments)
        np.testing.assert_allclose(error, wanted_error, rtol=1e-13)
        np.testing.assert_allclose(mass, wanted_mass, rtol=1e-12)  # of logarithms up to 700
        assert ours.violation(*arguments) == error
    log_mass = THEIRS.log_mass(log_a, f * 1e3, rho)
    close(ours.log_mass(log_a, f * 1e3, rho), log_mass, 1e-14)


@pytest.mark.parametrize("n", SIZES)
def test_density(n: int, ours: between.Vectors, rng: np.random.Generator) -> None:
    log_b, g, _ = case(n, rng)
    np.testing.assert_array_equal(ours.density(log_b, g, 0.05), THEIRS.density(log_b, g, 0.05))


@numba.njit(error_model="numpy")
def quotients(weights: Any, g: Any, result: Any, eps: float, out: Any) -> float:
    found: float = mean(weights, g, result, eps, 0, len(g), out)
    return found


@pytest.mark.parametrize("eps", [0.05, 1 / 3, 2 - 2.0**-52, 1 + 2.0**-52, 7e-5])
def test_quotients_are_those_of_a_division(eps: float, rng: np.random.Generator) -> None:
    """Made of products, they have its bits, also for divisors whose inverses are rounded most."""
    n = 1 << 16
    result, out = rng.normal(size=n) * 2.0 ** rng.integers(-60, 60, n), np.zeros(n)
    weights = rng.random(n)
    total = quotients(weights, np.zeros(n), result, eps, out)
    np.testing.assert_array_equal(out, result / eps)
    close(total, weights @ out, 1e-12)


@pytest.mark.parametrize("size", [1e-3, 1e-9, 1e-15, 1e-300])
def test_tiny_exponents_keep_their_digits(size: float, ours: between.Vectors, rng: np.random.Generator) -> None:
    """|p - m| = m |expm1(exponent)|, however close p and m are."""
    exponent = size * rng.normal(size=2000)
    a = rng.random(2000)
    next_f = -0.5 * exponent  # f = 0, eps = 1 / 2
    error = ours.violation(np.log(a), np.zeros(2000), next_f, 0.5, np.inf)
    np.testing.assert_allclose(error, a @ np.abs(np.expm1(exponent)) / max(a @ np.exp(exponent), a.sum()), rtol=1e-14)


@pytest.mark.parametrize("exponent", [-1e-3, -0.1, -0.34, -0.35, -1.0, -30.0, -690.0, -708.5, -1e4])
def test_exponentials(exponent: float, ours: between.Vectors) -> None:
    """A mass of 1 and one of exp(exponent), which is 0 below the normal numbers; and expm1."""
    size = np.exp(exponent) if exponent > -708 else 0.0
    log_a, zero = np.asarray([0.0, exponent]), np.zeros(2)
    next_f = np.asarray([0.0, 1e6])  # the second has no p at all
    np.testing.assert_allclose(ours.violation(log_a, zero, next_f, 1.0, np.inf), size / (1 + size), rtol=1e-15)
    np.testing.assert_allclose(ours.log_mass(log_a, zero, np.inf), np.log1p(size), atol=2.5e-16)  # of 1 + size
    alone = ours.violation(np.zeros(1), np.zeros(1), np.asarray([-exponent]), 1.0, np.inf)
    np.testing.assert_allclose(alone, -np.expm1(exponent), rtol=1e-15)


def test_no_mass_is_no_violation(ours: between.Vectors) -> None:
    none, away, n = np.full(3000, -np.inf), np.full(3000, np.inf), 3000
    assert ours.violation(none, np.zeros(n), np.ones(n), 0.1, 1.0) == 0
    assert ours.violation(np.zeros(n), away, away, 0.1, 1.0) == 0
    assert ours.log_mass(none, np.zeros(n), 1.0) == -np.inf
    assert ours.log_mass(np.zeros(0), np.zeros(0), 1.0) == -np.inf


@pytest.mark.parametrize("rho", [np.inf, 0.7])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_not_finite_is_seen(where: int, bad: float, rho: float, ours: between.Vectors) -> None:
    """In the weights or in either potential, anywhere, and as the definition sees it."""
    for place in (0, 600, 2999):
        arrays = [np.zeros(3000) for _ in range(3)]
        arrays[where][place] = bad
        with np.errstate(all="ignore"):
            wanted = THEIRS.marginals(*arrays, 0.1, rho)
            mass = THEIRS.log_mass(arrays[0], arrays[1], rho)
        np.testing.assert_allclose(ours.marginals(*arrays, 0.1, rho), wanted, rtol=1e-13)
        np.testing.assert_allclose(ours.log_mass(arrays[0], arrays[1], rho), mass, rtol=1e-13)


@pytest.mark.parametrize("m", SIZES[1:])  # of one number, balanced, only rounding is left
@pytest.mark.parametrize(
    ("balanced", "eased", "eps"), [(True, False, 1.0), (False, False, 1.0), (False, True, 1.0), (True, True, 1e-3)]
)
def test_directions(
    m: int, balanced: bool, eased: bool, eps: float, ours: between.Vectors, rng: np.random.Generator
) -> None:
    """The same steps into both: more than are kept, a sudden change, a step that is no news, and leaps."""
    b = rng.random(m) + 0.01
    b *= 1.7 / b.sum()
    rho = np.inf if balanced else 0.7
    scale = np.where(rng.random(m) < 0.5, 0.2, 1.0) if eased else None
    side: Any = (b, np.log(b), 1.7, rho)
    wanted, found = THEIRS.directions(*side, balanced=balanced), ours.directions(*side, balanced=balanced)
    wanted.rescale(scale)
    found.rescale(scale)
    counts = []
    for step in steps(m, 2 * WINDOW, rng):
        one, other = wanted.advance(*step, eps), found.advance(*step, eps)
        counts.append(found.count)
        assert found.count == min(wanted.count, WINDOW)
        close((other.error, other.norm), (one.error, one.norm), 1e-13)
        # What is left after the directions is a difference of squares.
        np.testing.assert_allclose(found.expected, wanted.expected, rtol=1e-7, atol=1e-7 * one.norm)
        np.testing.assert_allclose(other.start, one.start, rtol=1e-9, atol=1e-9 * np.abs(one.start).max())
    if m > 100:
        assert max(counts) == WINDOW
        assert counts[:3] == [0, 0, 1]  # a step done twice is no news
        assert counts[-5] <= 1  # the directions mislead


def test_directions_are_left_alone_by_what_is_not_finite(ours: between.Vectors, rng: np.random.Generator) -> None:
    """A step whose error is not a number is handed back, and is as if it had not been."""
    m = 2000
    b = np.full(m, 1 / m)
    found, other = (ours.directions(b, np.log(b), 1.0, np.inf, balanced=True) for _ in range(2))
    for number, (g, updated, result) in enumerate(steps(m, 2 * WINDOW, rng)):
        if number == 7:
            broken = np.where(np.arange(m) == 1999, np.nan, updated)
            advance = found.advance(g, broken, broken, 1.0)
            assert advance.start is broken
            assert np.isnan(advance.error)
        np.testing.assert_array_equal(
            found.advance(g, updated, result, 1.0).start, other.advance(g, updated, result, 1.0).start
        )


def test_inputs_are_not_modified_and_may_be_read_only(ours: between.Vectors, rng: np.random.Generator) -> None:
    m = 3000
    b, g, updated, result = (rng.random(m) for _ in range(4))
    before = [z.copy() for z in (b, g, updated, result)]
    for z in (b, g, updated, result):
        z.flags.writeable = False
    directions = ours.directions(b, np.log(b), float(b.sum()), 1.0, balanced=False)
    for _ in range(3):
        directions.advance(g, updated, result, 0.1)
    ours.marginals(b, g, updated, 0.1, 1.0)
    ours.density(b, g[::-1], 0.1)
    for one, other in zip(before, (b, g, updated, result), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bits_do_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Nor on how many chunks a task has: their sums are added in their order."""
    m = 9 * CHUNK + 17
    log_a, f, next_f = case(m, rng)
    b = rng.random(m) + 0.01
    path = [tuple(rng.normal(size=m) for _ in range(3)) for _ in range(WINDOW + 3)]

    def results(workers: int, task: int) -> list[Any]:
        monkeypatch.setattr(between, "TASK", task)
        arithmetic = between.Vectors(workers)
        directions = arithmetic.directions(b, np.log(b), float(b.sum()), 0.7, balanced=False)
        found = [*arithmetic.marginals(log_a, f, next_f, 0.05, 0.7), arithmetic.log_mass(log_a, f, 0.7)]
        return [
            *found,
            arithmetic.density(log_a, f, 0.05),
            *(z for step in path for z in directions.advance(*step, 0.1)),
        ]

    wanted = results(1, 64)
    for workers, task in ((1, 1), (2, 1), (3, 2), (8, 3)):
        for one, other in zip(results(workers, task), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
