"""Several ranks, as threads of this process, share a solve: its bits, what goes in and out, and how they end."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.communicator import ALONE, Communicator, Threads, as_communicator
from tests.ranks import Counting, block, check_same, checked, clouds, everything, raising

SIZES = [2, 3, 4]


@cache
def of_one_process(case: str) -> dict[str, Any]:
    return everything(checked()[case](ALONE))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", list(checked()), ids=str)
def test_the_bits_are_those_of_one_process(case: str, size: int) -> None:
    check_same(of_one_process(case), Threads.run(size, lambda comm: everything(checked()[case](comm))))


def test_a_half_step_is_a_meeting_and_a_gathering() -> None:
    """Both are counted of the softmin of either side: of points, and of a matrix, whose columns are gathered alike."""
    x, y, _, _ = clouds(900, 1100)
    geometries = epsot.PointCloud(x, y), epsot.CostMatrix(np.abs(x[:, :1] - y[:, 0]))

    def work(comm: Counting) -> list[dict[str, int]]:
        found = []
        for geometry in geometries:
            kernel = geometry.kernel(comm.workers(1))
            for one, h in ((kernel, np.zeros(1100)), (kernel.T, np.zeros(900))):
                guess = one.softmin(h, 0.1)
                comm.calls.clear()
                one.softmin(h, 0.1, guess)
                found.append(dict(comm.calls))
        return found

    for calls in Counting.run(2, work):
        assert calls == [{"meet": 1, "gather": 1}] * 4


def test_a_rank_may_have_no_points_of_any_kind() -> None:
    x, y, a, b = clouds(900, 1100)
    alone = epsot.sinkhorn(x, y, a, b, blur=0.1)

    def work(comm: Threads) -> Any:
        mine = slice(None) if comm.rank == 1 else slice(0, 0)
        result = epsot.sinkhorn(x[mine], y[mine], a[mine], b[mine], blur=0.1, comm=comm)
        moved = result.transport(x[mine][:5])
        return result.f, result.displacement, result.plan.to_dense(), moved

    (f, moves, plan, moved), other, _ = Threads.run(3, work)
    assert f.shape == (0,) and moves.shape == (0, 3) and plan.shape == (0, 1100) and moved.shape == (0, 3)
    assert np.array_equal(other[0], alone.f) and np.array_equal(other[3], alone.transport(x[:5]))


def test_the_plan_has_the_rows_of_a_rank_and_asks_nobody() -> None:
    x, y, a, b = clouds(900, 1100)
    plan = epsot.sinkhorn(x, y, a, b, blur=0.1).plan
    v = np.random.default_rng(1).random(1100)

    def work(comm: Threads) -> Any:
        x_r, y_r, a_r, b_r = (block(z, comm) for z in (x, y, a, b))
        mine = epsot.sinkhorn(x_r, y_r, a_r, b_r, blur=0.1, comm=comm).plan
        if comm.rank == 1:  # by itself
            mine.sum()
        return mine @ v, mine.T @ np.ones(len(x_r)), mine.barycentric_map(), mine.shape

    found = Threads.run(3, work)
    assert np.allclose(np.concatenate([part[0] for part in found]), plan @ v, rtol=1e-12)
    assert np.allclose(sum(part[1] for part in found), plan.sum(axis=0), rtol=1e-12)
    assert np.allclose(np.concatenate([part[2] for part in found]), plan.barycentric_map(), rtol=1e-9)
    assert [part[3][1] for part in found] == [1100] * 3


def test_the_plan_of_a_rank_is_seen_as_that_of_one_process() -> None:
    """Where float32 would show the rounding of its exponents, the rows of a rank are summed in float64, too."""
    x, y = (z.astype(np.float32) for z in clouds(90, 100, 17)[:2])
    options: dict[str, Any] = {"blur": 0.05, "tol": 1e-6, "max_iter": 3000}
    sums = epsot.sinkhorn(x, y, **options).plan.sum(axis=1)
    found = Threads.run(
        2, lambda comm: epsot.sinkhorn(block(x, comm), block(y, comm), comm=comm, **options).plan.sum(1)
    )
    assert np.abs(np.concatenate(found).astype(float) - sums).sum() < 2.0**-23


def test_other_points_and_second_derivatives() -> None:
    """Points of a rank are moved with those of all; vectors of second derivatives are whole."""
    x, y, _, _ = clouds(500, 600)
    others, along = np.random.default_rng(2).random((70, 3)), np.random.default_rng(3).random(1500)
    alone = epsot.sinkhorn_divergence(x, y, blur=0.2)
    product = alone.hessian("x") @ along

    def work(comm: Threads) -> Any:
        result = epsot.sinkhorn_divergence(block(x, comm), block(y, comm), blur=0.2, comm=comm)
        mine = block(others, comm)
        return result.transport(mine), result.potential(mine), result.hessian("x") @ along

    found = Threads.run(2, work)
    assert np.array_equal(np.concatenate([part[0] for part in found]), alone.transport(others))
    assert np.array_equal(np.concatenate([part[1] for part in found]), alone.potential(others))
    assert all(np.array_equal(part[2], product) for part in found)


def failing(comm: Threads, cloud: Any, y: Any, rank: int, changes: dict[str, Any]) -> Any:
    """A solve that is asked for otherwise on one rank; the error on each."""
    options: dict[str, Any] = {"blur": 0.1, **(changes if comm.rank == rank else {})}
    points = options.pop("x", block(cloud, comm))
    try:
        return epsot.sinkhorn(points, block(y, comm), comm=comm, **options)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"x": np.full((3, 3), np.nan)}, ValueError, ["`x`", "finite"]),
        ({"x": np.zeros((3, 2))}, ValueError, ["same dimension"]),
        ({"blur": 0.2}, ValueError, ["`blur`", "0.1", "0.2", "rank"]),
        ({"tol": None}, ValueError, ["`tol`", "None"]),
        ({"a": np.ones(2)}, ValueError, ["`a`"]),
        ({"callback": raising(KeyError("mine"))}, KeyError, ["mine"]),
        ({"max_iter": 0}, ValueError, ["`max_iter`"]),
    ],
    ids=["nan", "dimension", "blur", "tol", "weights", "callback", "max_iter"],
)
@pytest.mark.parametrize("rank", [0, 2])
def test_all_ranks_end_with_the_error_of_one(changes: dict[str, Any], error: type, words: list[str], rank: int) -> None:
    x, y, _, _ = clouds(900, 1100)
    found = Threads.run(3, lambda comm: failing(comm, x, y, rank, changes))
    assert {each[0] for each in found} == {error}
    assert len({each[1] for each in found}) == 1
    assert all(word in found[0][1] for word in words)


def test_a_callback_of_one_rank_sees_and_stops_all() -> None:
    x, y, _, _ = clouds(900, 1100)
    seen: list[int] = []

    def call(record: Any) -> None:
        seen.append(record.nit)
        if record.nit == 4:
            raise StopIteration

    def work(comm: Threads) -> Any:
        callback = call if comm.rank == 1 else None
        return epsot.sinkhorn(block(x, comm), block(y, comm), blur=0.1, comm=comm, callback=callback)

    found = Threads.run(3, work)
    assert seen[:4] == [1, 2, 3, 4]
    assert {result.status for result in found} == {epsot.Status.STOPPED}
    assert len({result.nit for result in found}) == 1


def test_ranks_that_ask_for_different_things_do_not_wait() -> None:
    x, y, _, _ = clouds(900, 1100)

    def work(comm: Threads) -> str:
        def call(record: Any) -> None:
            if comm.rank == 0 and record.nit == 2:
                comm.agree(5)  # what no other asks for

        try:
            epsot.sinkhorn(block(x, comm), block(y, comm), blur=0.1, comm=comm, callback=call)
        except RuntimeError as error:
            return str(error)
        return ""

    assert all("gone apart" in text for text in Threads.run(2, work))


def test_ranks_with_different_bits_end_with_an_error() -> None:
    def work(comm: Threads) -> str:
        with pytest.raises(RuntimeError) as caught:
            comm.totals(np.arange(5.0) + 1e-15 * comm.rank)
        return str(caught.value)

    assert all("different bits" in text for text in Threads.run(2, work))


def test_one_file_is_written_and_any_number_of_ranks_goes_on_from_it(tmp_path: Any) -> None:
    x, y, a, b = clouds(900, 1100)
    path, alone = tmp_path / "whole.npz", epsot.sinkhorn(x, y, a, b, blur=0.1)

    def work(comm: Threads) -> Any:
        x_r, y_r, a_r, b_r = (block(z, comm) for z in (x, y, a, b))
        result = epsot.sinkhorn(x_r, y_r, a_r, b_r, blur=0.1, comm=comm)
        result.save(path)
        again = [
            epsot.sinkhorn(x_r, y_r, a_r, b_r, blur=0.1, comm=comm, init=init)
            for init in (result, epsot.load(path), (result.f, result.g))
        ]
        return [each.nit for each in again], [each.success for each in again]

    counts = Threads.run(3, work)
    loaded = epsot.load(path)
    assert np.array_equal(loaded.f, alone.f) and np.array_equal(loaded.grad_x, alone.grad_x)
    expected = [epsot.sinkhorn(x, y, a, b, blur=0.1, init=init).nit for init in (alone, loaded, (alone.f, alone.g))]
    assert counts == [(expected, [True] * 3)] * 3
    assert [file.name for file in tmp_path.iterdir()] == ["whole.npz"]

    def refused(comm: Threads) -> Any:
        result = epsot.sinkhorn(block(x, comm), block(y, comm), blur=0.1, comm=comm)
        with pytest.raises(FileNotFoundError):
            result.save(tmp_path / "nowhere" / "file.npz")
        return True

    assert Threads.run(2, refused) == [True, True]


def test_a_result_that_is_copied_keeps_its_block_and_no_ranks() -> None:
    x, y, _, _ = clouds(900, 1100)
    results = Threads.run(2, lambda comm: epsot.sinkhorn(block(x, comm), block(y, comm), blur=0.1, comm=comm))
    copied = pickle.loads(pickle.dumps(results[1]))
    assert copied.comm is ALONE
    assert np.array_equal(copied.f, results[1].f) and copied.grad_x.shape == (len(copied.f), 3)


@pytest.mark.parametrize("wrt", ["x", "a"])
def test_an_optimiser_runs_on_all_ranks_alike(wrt: str) -> None:
    x, y, _, b = clouds(500, 600)
    z = x.ravel() if wrt == "x" else np.log(clouds(500, 600)[2] + 1e-3)
    p = np.random.default_rng(4).random(len(z))

    def loss(comm: Communicator | Any) -> Any:
        given = {} if wrt == "x" else {"x": block(x, comm)}
        objective = epsot.Objective(block(y, comm), block(b, comm), blur=0.2, wrt=wrt, comm=comm, **given)
        return *objective(z), objective.hessp(z, p)

    value, gradient, product = loss(ALONE)
    for found in Threads.run(3, loss):
        assert found[0] == value and np.array_equal(found[1], gradient) and np.array_equal(found[2], product)


@pytest.mark.parametrize("debias", [True, False])
def test_pairs_are_shared_out(debias: bool) -> None:
    rng = np.random.default_rng(5)
    left, right = ([rng.random((20 + 3 * k, 2)) for k in range(count)] for count in (5, 3))
    for y in (None, right):
        alone = epsot.pairwise(left, y, blur=0.2, debias=debias)

        def work(comm: Counting, y: Any = y) -> Any:
            result = epsot.pairwise(left, y, blur=0.2, debias=debias, comm=comm)
            return result.value, result.status, result.marginal_error, comm.calls["gather"]

        for value, status, error, gathered in Counting.run(3, work):
            assert np.array_equal(value, alone.value) and np.array_equal(status, alone.status)
            assert np.array_equal(error, alone.marginal_error)
            assert gathered == 1

    def other(comm: Threads) -> str:
        with pytest.raises(ValueError) as caught:
            epsot.pairwise([z + comm.rank for z in left], blur=0.2, comm=comm)
        return str(caught.value)

    assert all("`measures`" in text for text in Threads.run(2, other))


def test_many_problems_are_nobodys_to_share() -> None:
    def work(comm: Threads) -> str:
        with pytest.raises(TypeError) as caught:
            epsot.sinkhorn(np.zeros((4, 5, 2)), np.ones((6, 2)), blur=0.1, comm=comm)
        return str(caught.value)

    assert all("pairwise" in text for text in Threads.run(2, work))


def test_what_is_no_communicator_is_refused() -> None:
    with pytest.raises(TypeError, match="`comm` must be a communicator of mpi4py"):
        epsot.sinkhorn(np.zeros((2, 1)), np.ones((2, 1)), blur=1.0, comm=4)
    assert as_communicator(None) is ALONE
