"""The permutation test: what it returns, and that its p-values are what they claim."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import stats

import epsot
from epsot import ConvergenceWarning
from epsot.drivers import pairs
from tests.checks import close

FINE: dict[str, Any] = {"tol": 1e-10, "max_iter": 5000}


@pytest.mark.parametrize("options", [{}, {"p": 1}, {"reach": 1.0}, {"diameter": 5.0}], ids=str)
def test_statistic(options: dict[str, Any], rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(12, 2)), rng.normal(0.5, 1, size=(7, 2))
    result = epsot.permutation_test(x, y, blur=0.5, n_resamples=49, rng=1, **FINE, **options)
    close(result.statistic, epsot.sinkhorn_divergence(x, y, blur=0.5, **FINE, **options).value, 1e-8)
    assert result.null_distribution.shape == (49,) and result.success
    assert result.pvalue == (1 + np.sum(result.null_distribution >= result.statistic)) / 50


def test_null_distribution_is_that_of_permuted_labels(rng: np.random.Generator) -> None:
    """The 3 ways to split four points of the line in two pairs, and their divergences."""
    x, y = np.asarray([[0.0], [1.0]]), np.asarray([[3.0], [7.0]])
    pooled = np.concatenate([x, y])
    known = [
        float(epsot.sinkhorn_divergence(pooled[[0, k]], np.delete(pooled, [0, k], axis=0), blur=0.5, **FINE).value)
        for k in (1, 2, 3)
    ]
    null = epsot.permutation_test(x, y, blur=0.5, n_resamples=60, rng=rng, **FINE).null_distribution
    nearest = np.abs(null[:, None] - np.asarray(known)).min(axis=1)
    assert np.all(nearest < 1e-8)
    assert all(np.any(np.abs(null - value) < 1e-8) for value in known)


def test_rng(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed gives the same numbers, whatever the size of the blocks and the number of workers."""
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(8, 2))
    draw = [epsot.permutation_test(x, y, blur=0.5, n_resamples=29, rng=seed) for seed in (3, 3, 4)]
    assert_array_equal(draw[0].null_distribution, draw[1].null_distribution)
    assert np.any(draw[0].null_distribution != draw[2].null_distribution)
    generated = epsot.permutation_test(x, y, blur=0.5, n_resamples=29, rng=np.random.default_rng(3))
    assert_array_equal(generated.null_distribution, draw[0].null_distribution)
    monkeypatch.setattr("epsot.permutation.BLOCK_NUMBERS", 100)
    assert pairs.BLOCK_NUMBERS > 100
    small = epsot.permutation_test(x, y, blur=0.5, n_resamples=29, rng=3, workers=1)
    close(small.null_distribution, draw[0].null_distribution, 1e-12)
    assert epsot.permutation_test(x, y, blur=0.5, n_resamples=3).null_distribution.shape == (3,)


def test_pvalues_are_uniform_under_the_null() -> None:
    """Kolmogorov-Smirnov of 200 tests with 99 permutations: the distance stays below the bound of a level of 1e-3.

    The p-values are multiples of 1 / 100, which alone is a distance of 1 / 100.
    """
    rng, found = np.random.default_rng(5), []
    for _ in range(200):
        n, m = rng.integers(4, 9, 2)
        x, y = rng.exponential(size=(n, 2)), rng.exponential(size=(m, 2))
        found.append(epsot.permutation_test(x, y, blur=0.5, n_resamples=99, rng=rng, tol=1e-2).pvalue)
    distance = stats.kstest(found, "uniform").statistic
    assert distance < stats.kstwo.ppf(1 - 1e-3, 200) + 0.01


def test_power(rng: np.random.Generator) -> None:
    """Different samples are told apart: the smallest p-value there is; the same sample twice is not."""
    x, y = rng.normal(size=(30, 2)), rng.normal(1.5, 1, size=(25, 2))
    result = epsot.permutation_test(x, y, blur=0.5, n_resamples=199, rng=0)
    assert result.pvalue == 1 / 200 and np.all(result.null_distribution < result.statistic)
    assert epsot.permutation_test(x, x, blur=0.5, n_resamples=49, rng=0).pvalue > 0.9


def test_ties_count(rng: np.random.Generator) -> None:
    """Of one point a side there are two divergences, which are one up to rounding: nothing can be said."""
    result = epsot.permutation_test(rng.normal(size=(1, 3)), rng.normal(size=(1, 3)), blur=0.5, n_resamples=19, rng=0)
    assert result.pvalue == 1
    assert np.ptp(result.null_distribution) <= 1e-9 * result.statistic
    one = epsot.permutation_test(np.zeros((1, 2)), rng.normal(size=(6, 2)), blur=0.5, n_resamples=19, rng=0)
    assert one.null_distribution.shape == (19,)


INTEGERS = np.asarray([[0.0], [0.0], [1.0], [3.0]]), np.asarray([[2.0], [3.0], [3.0]])
FEW = np.asarray([[0.3, 1.0], [0.9, 0.2], [1.7, 0.5]]), np.asarray([[2.0, 2.1], [1.1, 2.9], [3.1, 2.4]])


@pytest.mark.parametrize(("x", "y"), [INTEGERS, FEW, (FEW[0], FEW[0] + [0.1, 0.0])])
def test_ties_are_ties_at_any_tolerance(x: np.ndarray, y: np.ndarray) -> None:
    """All partitions of few points, or of integers: those that are one pair of measures, in either order, have one
    divergence, and the p-value is that of all partitions up to four deviations of a sample of them."""
    pooled, n = np.concatenate([x, y]), len(x)
    parts = [list(part) for part in itertools.combinations(range(len(pooled)), n)]
    pairs_of = [(pooled[part], np.delete(pooled, part, axis=0)) for part in parts]
    known = np.array([float(epsot.sinkhorn_divergence(*pair, blur=0.5, **FINE).value) for pair in pairs_of])
    different = len(np.unique(known.round(8)))
    exact = float(np.mean(known >= known[0] - 1e-7))
    result = epsot.permutation_test(x, y, blur=0.5, n_resamples=1999, rng=0)
    assert len(np.unique([*result.null_distribution, result.statistic])) == different < len(parts)
    assert abs(result.pvalue - exact) < 4 * np.sqrt(exact * (1 - exact) / 1999) + 1 / 2000


def test_missed(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(20, 2)), rng.normal(1, 1, size=(15, 2))
    with pytest.warns(ConvergenceWarning, match="10 of 10 divergences have missed `tol`") as caught:
        result = epsot.permutation_test(x, y, blur=0.01, n_resamples=9, rng=0, max_iter=2)
    assert caught[0].filename == __file__ and not result.success
    assert epsot.permutation_test(x, y, blur=0.3, n_resamples=9, rng=0, tol=None).success


X, Y = np.random.default_rng(0).normal(size=(2, 6, 2))
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X[None]}, ValueError, "`x` must be one sample"),
    ({"y": [Y, Y]}, ValueError, "`y` must be one sample"),
    ({"x": X[:, 0]}, ValueError, r"`x` must be an \(n, d\) array of points, .* pass `x\[:, None\]`"),
    ({"y": Y * np.nan}, ValueError, "`y` must have finite coordinates"),
    ({"y": np.ones((3, 3))}, ValueError, "same dimension"),
    ({"x": X[:0]}, ValueError, "`x` must hold at least one point"),
    ({"y": Y[:0]}, ValueError, "`y` must hold at least one point"),
    ({"n_resamples": 0}, ValueError, "`n_resamples` must be at least 1, got 0"),
    ({"n_resamples": 99.0}, TypeError, "`n_resamples` must be an integer, got 99.0"),
    ({"rng": "one"}, TypeError, "`rng` must be None, a seed >= 0, or a numpy.random.Generator, got 'one'"),
    ({"rng": -1}, ValueError, "`rng` must be None, a seed >= 0"),
    ({"blur": [0.1, 0.2]}, TypeError, "`blur` must be one number"),
    ({"diameter": 1e200}, ValueError, "`diameter` must be a finite length"),
    ({"workers": 0}, ValueError, "`workers`"),
]


@pytest.mark.parametrize(("changes", "error", "message"), ERRORS, ids=[message[:40] for *_, message in ERRORS])
def test_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": X, "y": Y, "blur": 0.3} | changes
    with pytest.raises(error, match=message):
        epsot.permutation_test(arguments.pop("x"), arguments.pop("y"), **arguments)
