"""The fused vector kernels against their definition: the same decisions, and the same numbers up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from epsot.kernels import vectors
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda import vectors as cuda
from epsot.kernels.vectors import WINDOW
from tests.checks import close
from tests.cuda import emulation, fake_cupy
from tests.kernels.test_cuda import same_in_both_orders

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

SIZES = [1, 31, 700, 1500]


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    with fake_cupy.installed() as module:
        yield module


@pytest.fixture(params=[1, 3], ids=["one block", "three blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(shapes, "vector_blocks", lambda n: request.param)
    return int(request.param)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rho", [np.inf, 0.7])
def test_sums(n: int, rho: float, blocks: int, rng: np.random.Generator) -> None:
    a, f = rng.random(n) + 0.01, rng.normal(size=n)
    next_f = f + 0.1 * rng.normal(size=n)
    next_f[0] -= 60  # an exponent that would overflow
    ours, theirs = cuda.Vectors(), vectors.Vectors()
    log_a, F, next_F = map(fake_cupy.asarray, (np.log(a), f, next_f))
    error, mass = same_in_both_orders(lambda: [z.data_ for z in ours.marginals(log_a, F, next_F, 0.05, rho)])
    close((error, mass), theirs.marginals(np.log(a), f, next_f, 0.05, rho), 1e-12)
    (mass,) = same_in_both_orders(lambda: [ours.log_mass(log_a, F * 1e3, rho).data_])
    close(mass, theirs.log_mass(np.log(a), f * 1e3, rho), 1e-13)
    np.testing.assert_array_equal(ours.density(log_a, F, 0.05).data_, theirs.density(np.log(a), f, 0.05))


@pytest.mark.parametrize("rho", [np.inf, 0.7, 1e-3])
@pytest.mark.parametrize("level", [0.0, 2.0, -2.0, 1e4, -1e4])
def test_the_violation_is_relative_at_any_mass(rho: float, level: float, blocks: int, rng: np.random.Generator) -> None:
    """Its terms may be far below, or above, the numbers of float64; against the definition, over the largest term."""
    n = 700  # some for each block
    a, f = rng.random(n) + 0.01, level + rng.normal(size=n)
    a[3] = 0
    next_f = f + 0.02 * rng.normal(size=n)
    next_f[1] += 300
    with np.errstate(divide="ignore"):
        log_a = np.log(a)
    log_m = log_a - f / rho
    log_p = log_m + (f - next_f) * (1 / 0.05 + 1 / rho)
    top = max(log_m.max(), log_p.max())
    m, p = np.exp(log_m - top), np.exp(log_p - top)
    on_device = map(fake_cupy.asarray, (log_a, f, next_f))
    ours = [z.data_ for z in cuda.Vectors().marginals(*on_device, 0.05, rho)]
    theirs = vectors.Vectors().marginals(log_a, f, next_f, 0.05, rho)
    for error, mass in (theirs, ours):
        close(error, np.abs(p - m).sum() / max(p.sum(), m.sum()), 1e-11)
        if top < 600:
            np.testing.assert_allclose(mass, p.sum() * np.exp(top), rtol=1e-11)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-11)
    # A step measures the same of the other side.
    directions = cuda.Vectors().directions(*map(fake_cupy.asarray, (a, log_a)), a.sum(), rho, balanced=False)
    found = directions.advance(*map(fake_cupy.asarray, (f, next_f, next_f)), 0.05)
    assert found.error == pytest.approx(float(ours[0]), rel=1e-13)


@pytest.mark.parametrize("xp", [np, fake_cupy], ids=["definition", "cuda"])
def test_no_mass_is_no_violation(xp: Any) -> None:
    some, none, away = (xp.asarray(np.full(3, value)) for value in (0.0, -np.inf, np.inf))
    ours = vectors.Vectors() if xp is np else cuda.Vectors()
    for log_a, f, next_f in ((none, some, some + 1), (some, away, away)):
        error, mass = (float(z) for z in ours.marginals(log_a, f, next_f, 0.1, 1.0))
        assert error == mass == 0


def test_what_is_not_finite_is_seen(blocks: int) -> None:
    """Anywhere, and as the definition sees it."""
    log_a = fake_cupy.asarray(np.zeros(700))
    for bad in (np.nan, np.inf, -np.inf):
        f = np.zeros(700)
        f[600] = bad
        error = cuda.Vectors().violation(log_a, fake_cupy.asarray(f), fake_cupy.asarray(np.zeros(700)), 0.1, np.inf)
        desired = vectors.Vectors().violation(np.zeros(700), f, np.zeros(700), 0.1, np.inf)
        np.testing.assert_allclose(error.data_, desired, rtol=1e-13)


def steps(m: int, count: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Triples (g, updated, result) of ever smaller steps, the first done twice, and then of another map."""
    slopes, size = rng.random(m), 1.0
    g = rng.normal(size=m)
    for step in range(count):
        if step == count - 5:
            slopes, size, g = rng.random(m), 1.0, rng.normal(size=m)
        updated = g - slopes * g
        yield g, updated, updated - 0.01 * size
        if step > 0:
            size *= 0.5
            g = size * rng.normal(size=m)


@pytest.mark.parametrize("m", SIZES[1:])  # of one number, balanced, only rounding is left
@pytest.mark.parametrize(("balanced", "eased", "eps"), [(True, False, 1.0), (False, True, 1.0), (True, True, 1e-3)])
def test_directions(m: int, balanced: bool, eased: bool, eps: float, blocks: int, rng: np.random.Generator) -> None:
    """The same steps into both: more than are kept, a sudden change, a step that is no news, and leaps."""
    b = rng.random(m) + 0.01
    b *= 1.7 / b.sum()
    rho = np.inf if balanced else 0.7
    scale = np.where(rng.random(m) < 0.5, 0.2, 1.0) if eased else None
    theirs = vectors.Directions(b, np.log(b), 1.7, rho, balanced=balanced)
    theirs.rescale(scale)
    path = list(steps(m, 2 * WINDOW, rng))
    wanted, known = [], []
    for g, updated, result in path:
        wanted.append(theirs.advance(g, updated, result, eps))
        known.append((min(theirs.count, WINDOW), theirs.expected))

    def run() -> list[Any]:
        ours = cuda.Vectors().directions(*map(fake_cupy.asarray, (b, np.log(b))), 1.7, rho, balanced=balanced)
        ours.rescale(None if scale is None else fake_cupy.asarray(scale))
        found: list[Any] = []
        for step in path:
            start, error, norm = ours.advance(*map(fake_cupy.asarray, step), eps)
            found.append((start.data_, error, norm, ours.count, ours.expected))
        return [list(parts) for parts in zip(*found, strict=True)]

    starts, errors, norms, counts, expected = same_in_both_orders(run)
    assert counts == [count for count, _ in known]
    if m > 100:
        assert max(counts) == WINDOW
        assert counts[:3] == [0, 0, 1]  # a step done twice is no news
        assert counts[-5] <= 1  # the directions mislead
    close(errors, [advance.error for advance in wanted], 1e-12)
    close(norms, [advance.norm for advance in wanted], 1e-12)
    # What is left after the directions is a difference of squares.
    np.testing.assert_allclose(expected, [value for _, value in known], rtol=1e-7, atol=1e-7 * norms[0])
    for start, advance in zip(starts, wanted, strict=True):
        np.testing.assert_allclose(start, advance.start, rtol=1e-9, atol=1e-9 * np.abs(advance.start).max())
