"""Sums of a plan in parts, and the softmin that follows from them."""

import numpy as np
import pytest

from epsot.kernels.cpu.parts import LARGEST, SHIFT, SMALLEST, STRETCH, softmin_of_sums

NONE = np.zeros(0)
NO_ORDER = np.zeros(0, np.int64)
SIZES = [1, 31, 33, STRETCH, 2 * STRETCH + 5]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("more", [False, True])
def test_softmin_of_sums(n: int, parts: int, ordered: bool, more: bool, rng: np.random.Generator) -> None:
    """Sums of sizes all over the window, with padding behind them that does not count."""
    sums = np.full((parts, n + 40), np.nan)
    sums[:, :n] = 2.0 ** rng.uniform(-59, 98, size=(parts, n))
    order = rng.permutation(n) if ordered else NO_ORDER
    rows = order if ordered else np.arange(n)
    rest, k = 2.0 ** rng.uniform(-59, 98, size=n), rng.normal(size=n)
    total = sums[:, :n].sum(axis=0) + (rest[rows] if more else 0)
    wanted, out = np.empty(n), np.empty(n)
    wanted[rows] = 0.05 * (k[rows] / 0.3 - np.log(total) + SHIFT * np.log(2.0))
    assert softmin_of_sums(sums, k, 0.3, 0.05, order, rest if more else NONE, 0, n, out) == 0
    np.testing.assert_allclose(out, wanted, atol=0.05 * 4e-14)  # of numbers up to 100


@pytest.mark.parametrize("digits", [1e-3, 1e-9, 1e-15])
def test_logarithms_near_one(digits: float, rng: np.random.Generator) -> None:
    """Of sums close to 1 the logarithm keeps its own digits, on both sides of 1 and of sqrt(1 / 2)."""
    sums = 1 + digits * rng.normal(size=(1, 500))
    sums[0, 100:] = np.sqrt(0.5) + digits * rng.normal(size=400)
    out = np.empty(500)
    softmin_of_sums(sums, np.full(500, -SHIFT * np.log(2.0)), 1.0, 1.0, NO_ORDER, NONE, 0, 500, out)
    np.testing.assert_allclose(out, -np.log(sums[0]), atol=8e-15)  # that of SHIFT log(2) - SHIFT log(2) + log


def test_sums_out_of_the_window() -> None:
    """They give nan, and are counted; those at its ends are in."""
    bad = [0.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, SMALLEST / 2, LARGEST * 2]
    sums = np.asarray([[*bad, SMALLEST, LARGEST, 1.0]])
    out = np.empty(sums.shape[1])
    assert softmin_of_sums(sums, np.zeros(len(out)), 1.0, 2.0, NO_ORDER, NONE, 0, len(out), out) == len(bad)
    wanted = 2 * (SHIFT * np.log(2.0) - np.log(sums[0, len(bad) :]))
    np.testing.assert_allclose(out, [np.nan] * len(bad) + list(wanted), rtol=1e-15)
