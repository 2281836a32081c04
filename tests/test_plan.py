"""The plan as an operator against the dense plan of the definition."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator

import epsot
from epsot.results import sparse
from tests import checks
from tests.checks import close, power_cost
from tests.conftest import Measures, measures

EPS = 0.3


@pytest.fixture(params=[None, 0.8, (None, 0.7)], ids=str)
def solved(request: pytest.FixtureRequest, awkward: Measures) -> tuple[Any, np.ndarray, Measures]:
    """A result, its dense plan, and its problem."""
    problem = awkward.balanced if request.param is None else awkward
    x, y, a, b = problem
    result = epsot.solve(epsot.PointCloud(x, y), a, b, eps=EPS, rho=request.param, tol=1e-9)
    return result, checks.plan(result.f, result.g, power_cost(x, y), a, b, EPS), problem


@pytest.fixture
def matrix() -> tuple[Any, np.ndarray]:
    """The same for a cost matrix with forbidden pairs."""
    C = np.random.default_rng(0).random((7, 5))
    C[0, 3] = C[4, 1] = np.inf
    a, b = np.arange(7) / 21, np.asarray([1, 2, 0, 3, 4]) / 10
    result = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.2, tol=1e-9)
    return result, checks.plan(result.f, result.g, C, a, b, 0.2)


def test_dense(solved: Any) -> None:
    result, P, (_, _, a, b) = solved
    plan = result.plan
    assert plan.shape == P.shape
    close(plan.to_dense(), P, 1e-12)
    assert not np.any(plan.to_dense()[a == 0, :])
    assert not np.any(plan.to_dense()[:, b == 0])
    close(plan.T.to_dense(), P.T, 1e-12)
    assert plan.T.shape == P.T.shape
    assert plan.T.T.shape == P.shape


def test_products(solved: Any, rng: np.random.Generator) -> None:
    result, P, _ = solved
    n, m = P.shape
    for plan, dense in ((result.plan, P), (result.plan.T, P.T)):
        columns = dense.shape[1]
        for v in (rng.normal(size=columns), rng.normal(size=(columns, 4)), np.arange(columns), [1.0] * columns):
            close(plan @ v, dense @ np.asarray(v), 1e-11)
    for v in (rng.normal(size=n), rng.normal(size=(3, n)), [1.0] * n, np.arange(n)):
        close(v @ result.plan, np.asarray(v) @ P, 1e-11)
    assert (result.plan @ np.zeros(m)).shape == (n,)
    assert (result.plan.T @ np.zeros((n, 1))).shape == (m, 1)
    checks.adjoint(result.plan, rng)
    for wrong in (np.zeros(n + m), np.zeros((m, 2, 2)), np.zeros((2, m + 1))):
        with pytest.raises(ValueError, match="shape"):
            result.plan @ wrong


def test_sums(solved: Any) -> None:
    result, P, _ = solved
    plan = result.plan
    close(plan.sum(), P.sum(), 1e-12)
    for axis in (0, 1, -1, -2):
        close(plan.sum(axis=axis), P.sum(axis=axis), 1e-12)
    close(plan.T.sum(axis=0), P.sum(axis=1), 1e-12)
    with pytest.raises(ValueError, match="`axis`"):
        plan.sum(axis=2)


def test_barycentric_map(solved: Any, rng: np.random.Generator) -> None:
    result, P, (x, y, a, b) = solved
    plan, kept = result.plan, a > 0
    for values in (None, y, rng.normal(size=len(y)), rng.normal(size=(len(y), 3)) + 1e6):
        v = y if values is None else values
        expected = (P[kept] @ v) / P[kept].sum(axis=1).reshape(-1, *[1] * (v.ndim - 1))
        image = plan.barycentric_map(values)
        close(image[kept], expected, 1e-10)
        assert np.isfinite(image).all()
    kept = b > 0
    close(plan.T.barycentric_map()[kept], (P.T[kept] @ x) / P.T[kept].sum(axis=1)[:, None], 1e-10)


def test_barycentric_map_at_weight_zero_is_the_limit() -> None:
    problem = measures(8, 6, 2).balanced
    i = 4
    assert problem.a[i] == 0
    a = problem.a + 1e-10 * np.eye(8)[i] - 1e-10 * np.eye(8)[0]
    options = {"blur": 0.5, "tol": 1e-11, "max_iter": 10_000}
    limit = epsot.sinkhorn(*problem._replace(a=a), **options).plan.barycentric_map()
    close(epsot.sinkhorn(*problem, **options).plan.barycentric_map(), limit, 1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 5])
def test_points_of_weight_zero_take_no_digits(d: int, dtype: Any, rng: np.random.Generator) -> None:
    """However far away they are: the plan of the others is that without them."""
    x, y = rng.random((16, d)).astype(dtype), rng.random((32, d)).astype(dtype)
    a, b = np.append(np.full(16, 1 / 16), 0), np.append(0, np.full(32, 1 / 32))
    far = np.full((1, d), 1e9, dtype)
    padded = epsot.sinkhorn(np.vstack([x, far]), np.vstack([far, y]), a, b, blur=0.05).plan
    plan, v = epsot.sinkhorn(x, y, a[:-1], b[1:], blur=0.05).plan, rng.normal(size=(33, 2))
    dense = np.zeros((17, 33), dtype)
    dense[:-1, 1:] = plan.to_dense()
    np.testing.assert_array_equal(padded.to_dense(), dense)
    np.testing.assert_array_equal(padded.rows([16, 3, -2]), dense[[16, 3, -2]])
    np.testing.assert_array_equal((padded @ v)[:-1], plan @ v[1:])
    np.testing.assert_array_equal(padded.sum(axis=0)[1:], plan.sum(axis=0))
    np.testing.assert_array_equal(padded.argmax(axis=1)[:-1], plan.argmax(axis=1) + 1)
    assert np.isfinite(padded.barycentric_map()).all()


def test_barycentric_map_of_points_that_lose_their_mass() -> None:
    """Far beyond reach P is too small for float64; the mean under its rows is not."""
    x = np.asarray([[0.0, 0.0], [60.0, 0.0]])
    y = np.asarray([[0.0, 0.5], [0.2, 0.0]])
    image = epsot.sinkhorn(x, y, blur=0.3, reach=0.5, tol=1e-9).plan.barycentric_map()
    assert np.isfinite(image).all()
    # a mean of the targets
    assert (image >= y.min(axis=0) - 1e-9).all()
    assert (image <= y.max(axis=0) + 1e-9).all()


def test_rows(solved: Any) -> None:
    result, P, _ = solved
    n, plan = len(P), result.plan
    for i in (0, 3, n - 1, -1, -n, np.int64(2)):
        close(plan.rows(i), P[i], 1e-12)
        assert plan.rows(i).shape == P[0].shape
    for i in (slice(2, 5), slice(None), slice(None, None, 2), slice(-3, None), slice(4, 4), np.asarray([4, 0, -1, 4])):
        close(plan.rows(i), P[i], 1e-12)
    close(plan.rows([1, 2]), P[[1, 2]], 1e-12)
    for i in (n, -n - 1, [0, n]):
        with pytest.raises(IndexError):
            plan.rows(i)
    for i in (1.5, np.asarray([0.5]), np.zeros((2, 2), dtype=int)):
        with pytest.raises(TypeError):
            plan.rows(i)


def test_linear_operator(solved: Any, rng: np.random.Generator) -> None:
    result, P, _ = solved
    operator = result.plan.as_linear_operator()
    n, m = P.shape
    assert isinstance(operator, LinearOperator)
    assert operator.shape == (n, m)
    assert operator.dtype == P.dtype
    u, v, U, V = rng.normal(size=n), rng.normal(size=m), rng.normal(size=(n, 3)), rng.normal(size=(m, 2))
    close(operator @ v, P @ v, 1e-11)
    close(operator.T @ u, P.T @ u, 1e-11)
    close(operator.H @ U, P.T @ U, 1e-11)
    close(operator @ V, P @ V, 1e-11)


@pytest.mark.parametrize("mass", [0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("cap", [None, 1, 3])
def test_sparse(solved: Any, mass: float, cap: int | None) -> None:
    """The fewest entries of a row that carry the share, by brute force."""
    result, P, (_, _, a, _) = solved
    sparse = result.plan.to_sparse(mass=mass, max_per_row=cap)
    assert sparse.shape == P.shape
    assert sparse.format == "csr"
    assert sparse.has_canonical_format
    dense = sparse.toarray()
    for row, kept in zip(P, dense, strict=True):
        descending = np.sort(row)[::-1]
        carried = np.cumsum(descending)
        fewest = int(np.searchsorted(carried, mass * row.sum() * (1 - 1e-9))) + 1 if row.sum() > 0 else 0
        fewest = fewest if cap is None else min(fewest, cap)
        close(np.sort(kept)[::-1][:fewest], descending[:fewest], 1e-11)
        assert np.count_nonzero(kept) == fewest or mass == 1.0
    assert not np.any(dense[a == 0])
    transposed = result.plan.T.to_sparse(mass=mass).toarray()
    assert (transposed.sum(axis=1) >= mass * P.sum(axis=0) * (1 - 1e-9)).all()


def test_sparse_rows_of_very_different_mass() -> None:
    """A row is judged by its own mass, however small it is beside the others."""
    x, y = np.zeros((3, 1)), np.asarray([[0.1], [0.6], [0.9], [1.0]])
    plan = epsot.sinkhorn(x, y, [1.0, 1e-20, 1e-30], [1.0] * 4, blur=0.3, reach=1.0, tol=1e-9).plan
    counts = np.diff(plan.to_sparse(mass=0.8).indptr)
    assert counts[0] < 4
    assert (counts == counts[0]).all()


def test_sparse_keeps_the_first_of_equal_entries() -> None:
    plan = epsot.sinkhorn(np.zeros((2, 1)), np.ones((8, 1)), blur=0.5, tol=1e-9).plan
    assert plan.to_sparse(mass=0.5).indices.tolist() == [0, 1, 2, 3] * 2
    assert plan.to_sparse(mass=0.5, max_per_row=3).indices.tolist() == [0, 1, 2] * 2


def test_sparse_and_sample_refuse_nonsense(solved: Any) -> None:
    plan = solved[0].plan
    for options in ({"mass": 0.0}, {"mass": 1.1}, {"mass": np.nan}, {"max_per_row": 0}, {"max_per_row": 1.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            plan.to_sparse(**options)
    with pytest.raises(ValueError, match="mode"):
        plan.sample(3, mode="random")
    with pytest.raises(ValueError, match="size"):
        plan.sample(-1)


@pytest.mark.parametrize("mode", ["independent", "stratified"])
def test_sample_frequencies(solved: Any, mode: str) -> None:
    """Chi-square over the pairs that are expected at least five times; seeds are fixed."""
    result, P, (_, _, a, b) = solved
    size = 40_000
    i, j = result.plan.sample(size, rng=1, mode=mode)
    assert i.shape == j.shape == (size,)
    assert (a[i] > 0).all()
    assert (b[j] > 0).all()
    counts = np.zeros(P.shape)
    np.add.at(counts, (i, j), 1)
    expected = size * P / P.sum()
    common = expected >= 5
    statistic = np.sum((counts[common] - expected[common]) ** 2 / expected[common])
    freedom = np.count_nonzero(common)
    # stratified draws vary less; mean + 4.5 standard deviations of chi-square
    assert statistic < freedom + 4.5 * np.sqrt(2 * freedom)
    again = result.plan.sample(size, rng=np.random.default_rng(1), mode=mode)
    assert np.array_equal(i, again[0])
    assert np.array_equal(j, again[1])


def test_independent_draws_are_exchangeable(solved: Any) -> None:
    """Not sorted: a prefix is a sample too."""
    i, _ = solved[0].plan.sample(200, rng=0)
    assert np.any(np.diff(i) < 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_stratified_draws_every_point_once(n: int, dtype: Any) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2)).astype(dtype), rng.normal(size=(20, 2)).astype(dtype)
    plan = epsot.sinkhorn(x, y, blur=0.5).plan
    for seed in range(5):
        i, j = plan.sample(rng=seed, mode="stratified")
        assert np.array_equal(i, np.arange(n))
        assert j.shape == (n,)


def test_stratified_counts_are_rounded_expectations(solved: Any) -> None:
    result, P, _ = solved
    size = 137
    expected = size * P.sum(axis=1) / P.sum()
    counts = np.bincount(result.plan.sample(size, rng=0, mode="stratified")[0], minlength=len(P))
    assert (counts >= np.floor(expected - 1e-9)).all()
    assert (counts <= np.ceil(expected + 1e-9)).all()


def test_empty_sample(solved: Any) -> None:
    for mode in ("independent", "stratified"):
        i, j = solved[0].plan.sample(0, mode=mode)
        assert i.shape == j.shape == (0,)
        assert np.issubdtype(i.dtype, np.integer)


def test_cost_matrix(matrix: Any, rng: np.random.Generator) -> None:
    result, P = matrix
    plan = result.plan
    close(plan.to_dense(), P, 1e-12)
    assert plan.to_dense()[0, 3] == 0
    v = rng.normal(size=5)
    close(plan @ v, P @ v, 1e-12)
    close(plan.sum(axis=0), P.sum(axis=0), 1e-12)
    checks.adjoint(plan, rng)
    close(plan.to_sparse(mass=1.0).toarray(), P, 1e-12)
    close(plan.barycentric_map(v)[1:], (P @ v)[1:] / P.sum(axis=1)[1:], 1e-11)
    assert np.isfinite(plan.barycentric_map(v)).all()
    i, j = plan.sample(1000, rng=0)
    assert (P[i, j] > 0).all()
    with pytest.raises(TypeError, match="values"):
        plan.barycentric_map()


def test_a_forbidden_point_of_weight_zero() -> None:
    """A row with +inf only is allowed where its weight is zero; nothing else notices it."""
    C = np.asarray([[0.3, 0.7], [np.inf, np.inf], [0.2, 0.1]])
    result = epsot.solve(epsot.CostMatrix(C), [0.4, 0.0, 0.6], eps=0.2, tol=1e-10)
    alone = epsot.solve(epsot.CostMatrix(C[[0, 2]]), [0.4, 0.6], eps=0.2, tol=1e-10)
    close(result.value, alone.value)
    expected = alone.plan.to_dense()
    close(result.plan.to_dense(), np.asarray([expected[0], [0, 0], expected[1]]))
    v = np.asarray([1.0, 2.0])
    close(result.plan @ v, np.asarray([expected[0] @ v, 0, expected[1] @ v]))
    close(result.plan.T @ np.ones(3), expected.sum(axis=0))
    close(result.plan.sum(axis=1), [0.4, 0.0, 0.6], 1e-8)
    close(result.plan.sum(axis=0), [0.5, 0.5], 1e-8)


def test_nothing_of_size_n_m_is_made() -> None:
    """A dense plan of 4000 x 4000 float64 would take 128 MB."""
    n, blur = 4000, 2.0
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 3)).astype(np.float32), rng.normal(size=(n, 3)).astype(np.float32)
    assert epsot.sinkhorn(x[:50], y[:50], blur=0.5).primal > 0  # loads whatever is loaded once
    tracemalloc.start()
    result = epsot.sinkhorn(x, y, blur=blur, tol=0.1)
    for name in ("value", "f", "grad_x", "grad_y", "grad_a", "primal", "marginal_error", "displacement"):
        assert np.isfinite(getattr(result, name)).all()
    result.plan @ x[:, 0]
    result.plan.barycentric_map()
    result.plan.sum(axis=0)
    result.transport(x[:100])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n * 8 / 2


@pytest.mark.parametrize("portable", [False, True])
def test_rows_need_no_memory_for_coordinates(portable: bool) -> None:
    """All differences of all coordinates would take 100 times as much as the numbers of the plan."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 100)), rng.normal(size=(500, 100))
    cost = Unnamed() if portable else "sqeuclidean"
    plan = epsot.solve(epsot.PointCloud(x, y, cost=cost), eps=100.0, tol=None).plan
    assert plan.rows(0).shape == (500,)  # loads whatever is loaded once
    tracemalloc.start()
    dense = plan.to_dense()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * dense.nbytes


class Unnamed(epsot.costs.Square):
    """A cost of the user's own."""

    kind = None


@pytest.fixture
def vanishing() -> Any:
    """A plan whose entries all underflow: 2 x 3 pairs that are not worth their mass."""
    x, y = np.asarray([[0.0], [1.0]]), np.asarray([[1e3], [1.1e3], [2e3]])
    plan = epsot.sinkhorn(x, y, blur=1.0, reach=1.0, tol=None).plan
    assert not plan.to_dense().any()
    return plan


def test_a_plan_without_mass(vanishing: Any) -> None:
    """Nothing to store, nothing to draw from."""
    for options in ({}, {"mass": 1}, {"max_per_row": 2}):
        stored = vanishing.to_sparse(**options)
        assert stored.shape == (2, 3)
        assert stored.nnz == 0
    for mode in ("independent", "stratified"):
        assert [len(z) for z in vanishing.sample(0, mode=mode)] == [0, 0]
        with pytest.raises(ValueError, match="nothing to draw from: the mass of the plan is 0"):
            vanishing.sample(mode=mode)


def test_numpy_takes_a_plan_for_an_array(solved: Any) -> None:
    result, P, _ = solved
    plan = result.plan
    close(np.asarray(plan), P, 1e-12)
    assert np.asarray(plan, dtype=np.float32).dtype == np.float32
    assert np.array(plan).base is None
    for axis in (None, 0, 1):
        close(np.sum(plan, axis=axis), P.sum(axis=axis), 1e-12)
    assert (len(plan), plan.ndim, np.shape(plan)) == (len(P), 2, P.shape)
    np.testing.assert_array_equal(np.argmax(plan, axis=1), P.argmax(axis=1))
    close(list(plan), P, 1e-12)


def test_entries_by_index(solved: Any) -> None:
    """As NumPy indexes the dense plan."""
    result, P, _ = solved
    rows = (0, -1, slice(None), slice(1, 5, 2), [2, 0, -3], [], range(2))
    columns = (1, -2, slice(None), slice(None, None, -1), [1, 0, 3], [], range(2))
    for i, j in itertools.product(rows, columns):
        try:
            desired = P[i, j]
        except IndexError:
            with pytest.raises(IndexError, match="equally long"):
                result.plan[i, j]
            continue
        actual = result.plan[i, j]
        assert (actual.dtype, actual.shape) == (np.float64, desired.shape)
        close(actual, desired, 1e-12)
    for i in rows:
        close(result.plan[i], P[i], 1e-12)


def test_entries_are_made_in_blocks(solved: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    result, P, _ = solved
    i, j = (rng.integers(0, size, 50) for size in P.shape)
    monkeypatch.setattr("epsot.results.sparse.BLOCK_ELEMENTS", 3 * P.shape[1])
    close(result.plan[i, j], P[i, j], 1e-12)


@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array"])
@pytest.mark.parametrize("columns", [1, 4, 50])
def test_products_with_sparse_arrays(solved: Any, kind: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the targets, carried to the sources, and back; in blocks of columns."""
    monkeypatch.setattr("epsot.results.sparse.BLOCK_ELEMENTS", 1)
    result, P, _ = solved
    make = getattr(scipy.sparse, kind)
    targets, sources = (make(np.eye(columns)[np.arange(size) % columns]) for size in P.shape[::-1])
    for actual, desired in (
        (result.plan @ targets, P @ targets.toarray()),
        (result.plan.T @ sources, P.T @ sources.toarray()),
        (sources.T @ result.plan, sources.toarray().T @ P),
        (result.plan.__rmatmul__(sources.T), sources.toarray().T @ P),
    ):
        assert type(actual) is np.ndarray
        close(actual, desired, 1e-12)
    with pytest.raises(ValueError, match="`v` must have shape"):
        result.plan @ make(np.ones((P.shape[1] + 1, 2)))


def test_rows_by_nothing_and_by_a_range(matrix: Any) -> None:
    result, P = matrix
    assert result.plan.rows([]).shape == (0, 5)
    assert result.plan.rows(np.zeros(0, dtype=int)).shape == (0, 5)
    close(result.plan.rows(range(1, 6, 2)), P[1:6:2], 1e-12)
    with pytest.raises(TypeError, match="`i`"):
        result.plan.rows(np.zeros(0))


@pytest.mark.parametrize("rho", [None, 0.5])
def test_best_partners(awkward: Measures, rho: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "BLOCK_ELEMENTS", 30)
    x, y, a, b = awkward.balanced
    result = epsot.sinkhorn(x, y, a, b, blur=0.3, reach=rho)
    P, rows, columns = result.plan.to_dense(), a > 0, b > 0
    np.testing.assert_array_equal(result.plan.argmax(axis=1)[rows], P.argmax(axis=1)[rows])
    np.testing.assert_array_equal(result.plan.argmax(axis=0)[columns], P.argmax(axis=0)[columns])
    np.testing.assert_array_equal(result.plan.argmax(), result.plan.argmax(axis=-1))
    np.testing.assert_array_equal(result.plan.T.argmax(), result.plan.argmax(axis=-2))
    assert np.all(columns[result.plan.argmax(axis=1)])
    for axis in (2, None, "rows"):
        with pytest.raises(ValueError, match="`axis` must be 0 or 1"):
            result.plan.argmax(axis=axis)


def test_best_partners_where_numbers_vanish() -> None:
    """Weights so small that all entries of a row are zero as numbers, and weight zero, which has its limit."""
    C, b = np.asarray([[2.0, 1.0, 3.0], [0.0, 1.0, np.inf], [1.0, 3.0, 0.0]]), np.asarray([0.3, 0.3, 0.4])
    result = epsot.solve(epsot.CostMatrix(C), [1e-323, 1, 0], b, eps=0.1, rho=1)
    assert not result.plan.to_dense()[2].any()
    assert result.plan.to_dense()[0].min() == 0
    np.testing.assert_array_equal(result.plan.argmax(axis=1), np.argmax(np.log(b) + (result.g - C) / 0.1, axis=1))
