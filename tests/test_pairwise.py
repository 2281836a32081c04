"""All pairs of many measures: each value is that of a single call, in a table as SciPy's clustering takes it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

import epsot
from epsot import ConvergenceWarning, Status
from epsot.drivers import pairs
from tests.batches import weights
from tests.checks import close

SIZES = (7, 12, 1, 9)


@pytest.fixture
def lists(rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Two lists of weighted clouds of mass 1.5, far from the origin."""
    x, y = ([rng.normal(k, 1, (n, 2)) + 5 for k, n in enumerate(sizes)] for sizes in (SIZES, (5, 8)))
    a, b = ([weights(rng, len(cloud), 1.5) for cloud in clouds] for clouds in (x, y))
    return x, y, a, b


OPTIONS: list[dict[str, Any]] = [{}, {"p": 1}, {"reach": 1.3}, {"diameter": 9.0}, {"tol": 1e-8, "max_iter": 5000}]


def single(debias: bool, *args: Any, **options: Any) -> Any:
    return (epsot.sinkhorn_divergence if debias else epsot.sinkhorn)(*args, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("debias", [True, False])
def test_between_two_lists(lists: Any, debias: bool, options: dict[str, Any]) -> None:
    x, y, a, b = lists
    result = epsot.pairwise(x, y, a, b, blur=0.4, debias=debias, **options)
    assert result.value.shape == result.status.shape == (4, 2) and result.success.all()
    for i, j in itertools.product(range(4), range(2)):
        one = single(debias, x[i], y[j], a[i], b[j], blur=0.4, **options)
        close(result.value[i, j], one.value, 1e-10)
        close(result.marginal_error[i, j], one.marginal_error, 1e-9)
        assert result.status[i, j] == one.status
    assert repr(result) == "PairwiseResult(shape=4 x 2, 8 converged)"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_within_one_list(lists: Any, options: dict[str, Any]) -> None:
    x, _, a, _ = lists
    result = epsot.pairwise(x, a=a, blur=0.4, **options)
    assert_array_equal(result.value, result.value.T)
    assert np.all(np.diag(result.value) == 0) and result.success.all()
    for i, j in itertools.combinations(range(4), 2):
        close(result.value[i, j], epsot.sinkhorn_divergence(x[i], x[j], a[i], a[j], blur=0.4, **options).value, 1e-10)
    biased = epsot.pairwise(x, a=a, blur=0.4, debias=False, **options)
    for k in range(4):  # the transport to itself, to the tolerance: it is solved as such
        own = epsot.sinkhorn_divergence(x[k], x[k], a[k], a[k], blur=0.4, **options).xy.value
        close(biased.value[k, k], own, 1e-10)
    values = epsot.pairwise(x, x, a, a, blur=0.4, **options).value
    close(values, result.value, 1e-3 if "tol" not in options else 1e-7)
    assert np.all(np.diag(values) == 0)


def test_schedule(lists: Any) -> None:
    """Run once, all pairs start at the diameter of all points."""
    x, y, a, b = lists
    points = np.concatenate([*x, *y])
    diameter = float(np.linalg.norm(np.ptp(points, axis=0)))
    result = epsot.pairwise(x, y, a, b, blur=0.4, tol=None)
    assert np.all(result.status == Status.SCHEDULE_ENDED) and not result.success.any()
    for i, j in itertools.product(range(4), range(2)):
        one = epsot.sinkhorn_divergence(x[i], y[j], a[i], b[j], blur=0.4, tol=None, diameter=diameter)
        close(result.value[i, j], one.value, 1e-10)


def test_stacks_and_one_support(rng: np.random.Generator) -> None:
    x, a = rng.normal(size=(9, 3)), np.stack([weights(rng, 9) for _ in range(4)])
    shared = epsot.pairwise(x, a=a, blur=0.5)
    repeated = epsot.pairwise(np.stack([x] * 4), a=a, blur=0.5)
    listed = epsot.pairwise([x] * 4, a=list(a), blur=0.5)
    assert shared.value.shape == (4, 4)
    assert_array_equal(shared.value, repeated.value)
    close(listed.value, shared.value, 1e-12)
    one = epsot.sinkhorn_divergence(x, x, a[1], a[3], blur=0.5).value
    close(shared.value[1, 3], one, 1e-10)
    between = epsot.pairwise(x, x[:5], a=a, b=np.ones(5) * 2.3 / 5, blur=0.5)
    assert between.value.shape == (4, 1)
    close(between.value[2, 0], epsot.sinkhorn_divergence(x, x[:5], a[2], np.ones(5) * 2.3 / 5, blur=0.5).value, 1e-10)
    assert epsot.pairwise(x, blur=0.5).value.tolist() == [[0.0]]


def test_masses_count_where_mass_has_a_price(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(3, 6, 2)), rng.normal(size=(2, 5, 2))
    a, b = (
        np.stack([weights(rng, 6, 1.0 + k) for k in range(3)]),
        np.stack([weights(rng, 5, 2.0 - k) for k in range(2)]),
    )
    result = epsot.pairwise(x, y, a, b, blur=0.5, reach=(1.0, None), tol=1e-6)
    for i, j in itertools.product(range(3), range(2)):
        one = epsot.sinkhorn_divergence(x[i], y[j], a[i], b[j], blur=0.5, reach=(1.0, None), tol=1e-6)
        close(result.value[i, j], one.value, 1e-10)


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks(symmetric: bool, lists: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks bound the memory and change no bit; an observer hears after each, and may end the work."""
    x, y, a, b = lists
    others: dict[str, Any] = {} if symmetric else {"y": y, "b": b}
    whole = epsot.pairwise(x, a=a, blur=0.4, **others)
    total = 6 if symmetric else 8
    for name, number in (("MOST", 2), ("BLOCK_NUMBERS", 20)):
        with monkeypatch.context() as patch:
            patch.setattr(pairs, name, number)
            seen: list[Any] = []
            result = epsot.pairwise(x, a=a, blur=0.4, callback=seen.append, **others)
            assert_array_equal(result.value, whole.value)
            assert_array_equal(result.marginal_error, whole.marginal_error)
            assert [block.total for block in seen] == [total] * len(seen) and len(seen) > 2
            done = [block.done for block in seen]
            assert done == sorted(set(done)) and done[-1] == total
            assert np.isnan(seen[0].value).any() and not np.isnan(seen[-1].value).any()

            def stop(block: Any) -> None:
                if block.done >= 2:
                    raise StopIteration

            ended = epsot.pairwise(x, a=a, blur=0.4, callback=stop, **others)
            known = ended.status != Status.STOPPED
            assert known.any() and not known.all()
            assert_array_equal(ended.value[known], whole.value[known])
            assert np.isnan(ended.value[~known]).all() and not ended.success[~known].any()


def test_as_distances(rng: np.random.Generator) -> None:
    """SciPy's clustering takes the table as it is, and finds three groups."""
    clouds = [rng.normal(3 * (k % 3), 0.5, (15 + k, 2)) for k in range(9)]
    value = epsot.pairwise(clouds, blur=0.3).value
    labels = fcluster(linkage(squareform(value), "average"), 3, "maxclust")
    assert len(set(labels)) == 3
    for k in range(3):
        assert len(set(labels[k::3])) == 1


def test_none_and_float32(rng: np.random.Generator) -> None:
    assert epsot.pairwise(np.zeros((0, 3, 2)), blur=1.0).value.shape == (0, 0)
    assert epsot.pairwise(rng.normal(size=(2, 3, 2)), np.zeros((0, 3, 2)), blur=1.0).value.shape == (2, 0)
    x = rng.normal(size=(3, 10, 2))
    single = epsot.pairwise(x.astype(np.float32), blur=0.5).value
    assert single.dtype == np.float32
    close(single, epsot.pairwise(x, blur=0.5).value, 1e-4)


def test_warning(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 20, 2))
    with pytest.warns(ConvergenceWarning, match="of 9 pairs have missed `tol`; the worst, .* is MAX_ITER") as caught:
        result = epsot.pairwise(x, blur=0.01, max_iter=4)
    assert len(caught) == 1 and caught[0].filename == __file__
    worst = np.unravel_index(np.argmax(np.where(result.success, -1, result.marginal_error)), (3, 3))
    assert f"({worst[0]}, {worst[1]})" in str(caught[0].message) and not result.success[worst]


X = np.random.default_rng(0).normal(size=(3, 6, 2))
A = np.ones((3, 6)) / 6
HEAVY, SPOILT = A * np.asarray([1, 1, 2])[:, None], X + np.where(np.arange(3) == 1, np.nan, 0)[:, None, None]
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": SPOILT}, ValueError, r"`x\[1\]` must have finite coordinates"),
    ({"y": list(SPOILT)}, ValueError, r"`y\[1\]` must have finite coordinates"),
    ({"x": X[None]}, ValueError, "`x` must be .K, n, d., a list of clouds, or one cloud, got 4 axes"),
    ({"y": np.zeros((2, 4, 3))}, ValueError, "`x` and `y` must have points of the same dimension, got 2 and 3"),
    ({"a": HEAVY}, ValueError, r"`a\[0\]` and `a\[2\]` must have equal mass .* 1 and 2"),
    ({"y": X, "b": HEAVY}, ValueError, r"`a\[0\]` and `b\[2\]` must have equal mass"),
    ({"a": A - 0.2}, ValueError, r"`a\[0\]` must not be negative"),
    ({"a": A * [[1], [0], [1]]}, ValueError, r"`a\[1\]` must have positive mass"),
    ({"a": A[:2]}, ValueError, "`a` must have as many vectors of weights as there are clouds, 3, got 2"),
    ({"a": [A[0, :5], *A[1:]]}, ValueError, r"`a\[0\]` must have shape \(6,\), one weight a point, got \(5,\)"),
    ({"a": 1.0}, ValueError, "`a` must have one weight a point"),
    ({"b": A}, ValueError, "`b` are weights of `y`, which is not given"),
    ({"blur": [1.0, 2.0]}, TypeError, "`blur` must be one number"),
    ({"reach": (1.0, 2.0)}, ValueError, "`reach` must be one number for pairs within `x`"),
    ({"diameter": -1.0}, ValueError, "`diameter` must be a finite length"),
    ({"diameter": 1e200}, ValueError, "`diameter` must be a finite length"),
    ({"callback": 3}, TypeError, "`callback` must be callable"),
    ({"workers": 0}, ValueError, "`workers` must be a positive integer"),
]


@pytest.mark.parametrize(("changes", "error", "message"), ERRORS, ids=[message[:40] for *_, message in ERRORS])
def test_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": X, "blur": 0.3} | changes
    with pytest.raises(error, match=message):
        epsot.pairwise(arguments.pop("x"), **arguments)
