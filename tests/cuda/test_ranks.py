"""Several ranks, with an emulated GPU each, share a solve: the bits of one GPU, what is sent, and how they end."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.communicator import ALONE, Nccl, Threads
from epsot.geometry import multiscale
from epsot.joining import serving
from epsot.kernels.cuda import modules, shapes
from tests.cuda import emulation, fake_cupy, fake_nccl
from tests.ranks import Counting, Sizes, block, check_same, checked, clouds, everything, raising

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

USUAL = ("schedule", "unbalanced", "matrix", "grids")
SMALL = Sizes((530, 300), (520, 600), 900, (12, 9))


@pytest.fixture(autouse=True)
def nccl(unproven: None, portable: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """No problem is so small that each rank does all of it."""
    monkeypatch.setattr(shapes, "BURST_PAIRS", 0)
    with fake_cupy.installed(), fake_nccl.installed() as module:
        fake_cupy.launches.clear()
        yield module


def on_device(array: Any) -> Any:
    return fake_cupy.asarray(np.asarray(array))


def on_host(value: Any) -> Any:
    """The numbers of an array, or of many; what is none, as it is."""
    if type(value) in (tuple, list):
        return type(value)(map(on_host, value))
    return value.data_ if isinstance(value, fake_cupy.ndarray) else value


def on_ranks(size: int, work: Any, kind: type[Threads] = Threads) -> list[Any]:
    """What work(comm) returns on each of so many ranks, whose arrays are on a device of its own, on the host."""

    def there(comm: Any) -> Any:
        with fake_cupy.Device(comm.rank):
            return on_host(work(comm))

    return kind.run(size, there)


def blocks_of(comm: Any, *arrays: Any) -> tuple[Any, ...]:
    return tuple(on_device(block(array, comm)) for array in arrays)


def of_all(solve: Any, comm: Any) -> dict[str, Any]:
    """All that a result knows; its arrays are on the device of the rank."""
    found = everything(solve(comm))
    arrays = [value for value in found.values() if isinstance(value, fake_cupy.ndarray)]
    assert arrays and {array.device.id for array in arrays} == {comm.rank}
    return {name: on_host(value) for name, value in found.items()}


@pytest.mark.parametrize("size", [3, *(pytest.param(size, marks=pytest.mark.every) for size in (1, 2, 4))])
@pytest.mark.parametrize(
    "case", [name if name in USUAL else pytest.param(name, marks=pytest.mark.every) for name in checked(SMALL)]
)
def test_the_bits_are_those_of_one_gpu(case: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three ranks each has a frame of the first rows, and one none of the others."""
    monkeypatch.setattr(multiscale, "MANY_ON_GPU", 500)
    solve = checked(SMALL, on_device)[case]
    check_same(of_all(solve, ALONE), on_ranks(size, lambda comm: of_all(solve, comm)))


def wide(comm: Any) -> Any:
    """Points of five dimensions, whose two sides are one sweep: bands of rows, of which some rank may have none."""
    return epsot.sinkhorn_divergence(*blocks_of(comm, *clouds(530, 300, 5)), blur=0.5, tol=None, scaling=0.2, comm=comm)


@pytest.mark.parametrize("size", [3])
def test_two_sided_sweeps_have_the_bits_of_one_gpu(size: int) -> None:

    def work(comm: Any) -> Any:
        result = wide(comm)
        return result.f, result.g, result.grad_x, result.value

    *alone, value = on_host(work(ALONE))
    found = on_ranks(size, work)
    for k, expected in enumerate(alone):
        assert np.array_equal(np.concatenate([each[k] for each in found]), expected)
    assert all(each[3] == value for each in found)
    assert {name.split("<")[0] for name, _, _ in fake_cupy.launches} >= {"pair", "finish"}


def test_a_half_step_is_a_meeting_and_a_gathering() -> None:
    """Of points, and of a matrix: the meeting is the host's, and the gathering NCCL's."""
    x, y, _, _ = clouds(530, 300)
    matrix = np.abs(x[:, :1] - y[:, 0])

    def work(comm: Counting) -> list[dict[str, int]]:
        geometries = epsot.PointCloud(on_device(x), on_device(y)), epsot.CostMatrix(on_device(matrix))
        ranks = serving(comm, geometries[0].place)
        found = []
        for geometry in geometries:
            kernel = geometry.kernel(ranks.workers(1))
            for one, h in ((kernel, np.zeros(300)), (kernel.T, np.zeros(530))):
                comm.calls.clear()
                before = fake_nccl.calls[comm.rank]
                one.softmin(on_device(h), 0.1)
                found.append({**comm.calls, "NCCL": fake_nccl.calls[comm.rank] - before})
        return found

    for calls in on_ranks(2, work, Counting):
        assert calls == [{"meet": 1, "NCCL": 1}] * 4


@pytest.mark.parametrize("bursts", [True, False])
def test_little_work_is_done_by_all_and_sent_by_none(bursts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solve of few pairs sends what it is made of, and is that of one GPU from then on, in bursts where that has."""
    monkeypatch.setattr(shapes, "BURST_PAIRS", 2**20)
    if not bursts:
        monkeypatch.setattr(shapes, "bursts", lambda *_: False)
    arrays = clouds(70, 60)

    def work(comm: Threads) -> Any:
        result = epsot.sinkhorn(*blocks_of(comm, *arrays), blur=0.3, comm=comm)
        return result.f, result.grad_x, fake_nccl.calls[comm.rank]

    alone = epsot.sinkhorn(*map(on_device, arrays), blur=0.3)
    found = on_ranks(2, work)
    assert np.array_equal(np.concatenate([part[0] for part in found]), alone.f.data_)
    assert np.array_equal(np.concatenate([part[1] for part in found]), alone.grad_x.data_)
    assert [part[2] for part in found] == [4, 4]
    assert any(name.startswith("alternate<") for name, _, _ in fake_cupy.launches) == bursts


def test_a_rank_may_have_no_points_of_any_kind() -> None:
    x, y, a, b = clouds(530, 300)
    alone = epsot.sinkhorn(*map(on_device, (x, y, a, b)), blur=0.3)

    def work(comm: Threads) -> Any:
        mine = slice(None) if comm.rank == 1 else slice(0, 0)
        result = epsot.sinkhorn(*(on_device(z[mine]) for z in (x, y, a, b)), blur=0.3, comm=comm)
        moved = result.transport(on_device(x[mine][:5]))
        return result.f, result.displacement, result.plan.to_dense(), moved

    (f, moves, plan, moved), other, _ = on_ranks(3, work)
    assert f.shape == (0,) and moves.shape == (0, 3) and plan.shape == (0, 300) and moved.shape == (0, 3)
    assert np.array_equal(other[0], alone.f.data_)
    assert np.array_equal(other[3], alone.transport(on_device(x[:5])).data_)


def test_the_plan_has_the_rows_of_a_rank_and_asks_nobody() -> None:
    x, y, a, b = clouds(530, 300)
    plan = epsot.sinkhorn(*map(on_device, (x, y, a, b)), blur=0.3).plan
    v = np.random.default_rng(1).random(300)

    def work(comm: Threads) -> Any:
        mine = epsot.sinkhorn(*blocks_of(comm, x, y, a, b), blur=0.3, comm=comm).plan
        if comm.rank == 1:  # by itself
            mine.sum()
        return mine @ on_device(v), mine.T @ on_device(np.ones(mine.shape[0])), mine.barycentric_map()

    found = on_ranks(3, work)
    assert np.allclose(np.concatenate([part[0] for part in found]), (plan @ on_device(v)).data_, rtol=1e-12)
    assert np.allclose(sum(part[1] for part in found), plan.sum(axis=0).data_, rtol=1e-12)
    assert np.allclose(np.concatenate([part[2] for part in found]), plan.barycentric_map().data_, rtol=1e-9)


def test_other_points_and_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of a rank are moved with those of all; vectors of second derivatives are whole."""

    class Operator(types.SimpleNamespace):
        def __matmul__(self, v: Any) -> Any:
            return self.matvec(v)

    module = types.SimpleNamespace(LinearOperator=Operator)
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse.linalg", module)
    x, y, _, _ = clouds(280, 300)
    others, along = np.random.default_rng(2).random((70, 3)), np.random.default_rng(3).random(840)

    def work(comm: Any) -> Any:
        result = epsot.sinkhorn(*blocks_of(comm, x, y), blur=0.4, comm=comm)
        mine = on_device(block(others, comm))
        return result.transport(mine), result.potential(mine), result.hessian("x") @ on_device(along)

    moved, potential, product = on_host(work(ALONE))
    found = on_ranks(2, work)
    assert np.array_equal(np.concatenate([part[0] for part in found]), moved)
    assert np.array_equal(np.concatenate([part[1] for part in found]), potential)
    assert all(np.array_equal(part[2], product) for part in found)


@pytest.mark.parametrize("wrt", ["x", "a"])
def test_an_optimiser_runs_on_all_ranks_alike(wrt: str) -> None:
    x, y, _, b = clouds(280, 300)
    z = x.ravel() if wrt == "x" else np.log(clouds(280, 300)[2] + 1e-3)

    def loss(comm: Any) -> Any:
        x_r, y_r, b_r = blocks_of(comm, x, y, b)
        given = {} if wrt == "x" else {"x": x_r}
        return epsot.Objective(y_r, b_r, blur=0.4, wrt=wrt, comm=comm, **given)(z)

    value, gradient = loss(ALONE)
    for found in on_ranks(2, loss):
        assert found[0] == value and np.array_equal(found[1], gradient)


def test_pairs_are_shared_out() -> None:
    rng = np.random.default_rng(5)
    measures = [rng.random((20 + 3 * k, 2)) for k in range(4)]
    alone = epsot.pairwise([on_device(z) for z in measures], blur=0.3)

    def work(comm: Threads) -> Any:
        result = epsot.pairwise([on_device(z) for z in measures], blur=0.3, comm=comm)
        return result.value, result.status

    for value, status in on_ranks(2, work):  # items are padded to the longest of a rank, and sums rounded otherwise
        np.testing.assert_allclose(value, alone.value.data_, rtol=1e-10, atol=1e-12)
        assert np.array_equal(status, alone.status)


def test_a_file_of_all_and_starts(tmp_path: Any) -> None:
    x, y, a, b = clouds(530, 300)
    path, alone = tmp_path / "whole.npz", epsot.sinkhorn(*map(on_device, (x, y, a, b)), blur=0.3)

    def work(comm: Threads) -> Any:
        parts = blocks_of(comm, x, y, a, b)
        result = epsot.sinkhorn(*parts, blur=0.3, comm=comm)
        result.save(path)
        starts = (result, (result.f, result.g))
        return [epsot.sinkhorn(*parts, blur=0.3, comm=comm, init=init).nit for init in starts]

    counts = on_ranks(2, work)
    weighty = a > 0  # elsewhere f is another softmin, of the CPU
    assert np.array_equal(epsot.load(path).f[weighty], alone.f.data_[weighty])
    wanted = [epsot.sinkhorn(*map(on_device, (x, y, a, b)), blur=0.3, init=z).nit for z in (alone, (alone.f, alone.g))]
    assert counts == [wanted] * 2


def test_a_result_that_is_copied_keeps_its_block_and_no_ranks() -> None:
    x, y, _, _ = clouds(530, 300)

    def work(comm: Threads) -> Any:
        result = epsot.sinkhorn(*blocks_of(comm, x, y), blur=0.3, comm=comm)
        copied = copy.deepcopy(result)
        return isinstance(result.comm, Nccl), copied.comm is ALONE, result.f, copied.f

    for ranks, alone, f, copied in on_ranks(2, work):
        assert ranks and alone and np.array_equal(f, copied)


# Failure


def failing(comm: Threads, changes: dict[str, Any]) -> Any:
    """A solve that is asked for otherwise on rank 1; the error on each."""
    x, y, _, _ = clouds(530, 300)
    options: dict[str, Any] = {"blur": 0.3, **(changes if comm.rank == 1 else {})}
    points = options.pop("x", block(x, comm))
    try:
        return epsot.sinkhorn(on_device(points), on_device(block(y, comm)), comm=comm, **options)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"x": np.full((3, 3), np.nan)}, ValueError, ["`x`", "finite"]),
        ({"x": np.zeros((3, 2))}, ValueError, ["same dimension"]),
        ({"blur": 0.2}, ValueError, ["`blur`", "0.3", "0.2", "rank"]),
        ({"callback": raising(KeyError("mine"))}, KeyError, ["mine"]),
    ],
    ids=["nan", "dimension", "blur", "callback"],
)
def test_all_ranks_end_with_the_error_of_one(changes: dict[str, Any], error: type, words: list[str]) -> None:
    found = on_ranks(3, lambda comm: failing(comm, changes))
    assert {each[0] for each in found} == {error}
    assert len({each[1] for each in found}) == 1
    assert all(word in found[0][1] for word in words)


def test_what_fails_before_it_is_sent_is_sent_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank without the memory for what the others send: they learn it in the meeting before."""
    allocate, wanted = fake_cupy.empty, []

    def empty(shape: Any, dtype: Any = float, **options: Any) -> Any:
        if fake_cupy.Device().id == 1 and isinstance(shape, tuple) and shape[0] == 3:  # room for three ranks
            wanted.append(shape)
            if len(wanted) > 6:
                raise MemoryError("out of memory")
        return allocate(shape, dtype, **options)

    monkeypatch.setattr(fake_cupy.MODULES["cupy"], "empty", empty)
    found = on_ranks(3, lambda comm: failing(comm, {}))
    assert found == [(MemoryError, "out of memory")] * 3
    counts = {fake_nccl.calls[rank] for rank in range(3)}
    assert len(counts) == 1 and 0 < counts.pop() < 7


@pytest.mark.parametrize("whole", [False, True])
def test_a_rank_that_has_lost_its_device_goes_to_no_meeting(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be alone there. `python -m mpi4py` ends the others by its error, as `Threads.run` does."""

    class Lost(RuntimeError):
        """What CUDA says from then on."""

    def synchronize(device: fake_cupy.Device) -> None:
        if device.id == 1:
            raise Lost

    def call(record: Any) -> None:
        if fake_cupy.Device().id == 1 and record.nit == 3:
            raise KeyError("the first sign")

    def work(comm: Any) -> None:
        ranks, points = (comm.whole() if whole else comm), clouds(530, 300)[:2]
        parts = [on_device(z if whole else block(z, comm)) for z in points]
        epsot.sinkhorn(*parts, blur=0.3, comm=ranks, callback=call)

    monkeypatch.setattr(fake_cupy.Device, "synchronize", synchronize)
    with pytest.raises(Lost):
        on_ranks(3, work)


def test_a_callback_of_one_rank_sees_and_stops_all() -> None:
    x, y, _, _ = clouds(530, 300)
    seen: list[Any] = []

    def call(record: Any) -> None:
        seen.append(record.f)
        if record.nit == 4:
            raise StopIteration

    def work(comm: Threads) -> Any:
        callback = call if comm.rank == 1 else None
        result = epsot.sinkhorn(*blocks_of(comm, x, y), blur=0.3, comm=comm, callback=callback)
        return result.status, result.nit

    assert set(on_ranks(3, work)) == {(epsot.Status.STOPPED, 4)}
    assert len(seen) == 4 and all(f.device.id == 1 for f in seen)


def test_ranks_with_different_bits_end_with_an_error() -> None:
    def work(comm: Threads) -> str:
        with pytest.raises(RuntimeError) as caught:
            of_devices(comm).totals(on_device(np.arange(5.0) + 1e-15 * comm.rank))
        return str(caught.value)

    assert all("different bits" in text for text in on_ranks(2, work))


def test_ranks_that_ask_for_different_things_do_not_wait() -> None:
    """The sides of a cost: NCCL would wait for as many numbers from each."""
    x, y, _, _ = clouds(530, 300)

    def work(comm: Threads) -> str:
        kernel = epsot.PointCloud(on_device(x), on_device(y)).kernel(of_devices(comm).workers(1))
        with pytest.raises(RuntimeError) as caught:
            kernel.T.softmin(on_device(np.ones(530)), 0.1) if comm.rank else kernel.softmin(
                on_device(np.ones(300)), 0.1
            )
        return str(caught.value)

    assert all("different bits" in text for text in on_ranks(2, work))
    assert fake_nccl.calls.total() == 0


def of_devices(comm: Any) -> Any:
    """The ranks, a device each."""
    return Nccl.of(comm, fake_cupy.Device())


def test_devices_are_joined_once(nccl: Any) -> None:
    """For the ranks of a communicator, whatever they solve; anew where one goes to another device, until it is back."""
    made = []

    class Counted(fake_nccl.NcclCommunicator):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments[2])
            super().__init__(*arguments)

    nccl.NcclCommunicator = Counted

    def work(comm: Any) -> Any:
        place = epsot.PointCloud(*map(on_device, clouds(8, 9)[:2])).place
        one, again = of_devices(comm).nccl, serving(comm.whole(), place).comm.nccl
        with fake_cupy.Device(2 if comm.rank else 0):
            other = of_devices(comm).nccl
        return one is again, one is other, one is of_devices(comm).nccl

    assert on_ranks(2, work) == [(True, False, True)] * 2
    assert sorted(made) == [0, 0, 1, 1]


def test_two_ranks_on_one_gpu_are_named() -> None:
    def work(comm: Threads) -> str:
        with fake_cupy.Device(max(1, comm.rank)), pytest.raises(ValueError, match="one GPU") as caught:
            of_devices(comm)
        return str(caught.value)

    assert all(text.startswith("ranks 0 and 1 of `comm`") for text in on_ranks(3, work))


def test_a_missing_library_is_named(nccl: Any) -> None:
    nccl.available = False
    found = on_ranks(2, lambda comm: failing(comm, {}))
    assert {each[0] for each in found} == {RuntimeError}
    assert all("nvidia-nccl-cu13" in each[1] for each in found)


def test_what_no_device_has_run_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSOT_UNPROVEN", "0")
    modules.unproven.cache_clear()
    found = on_ranks(2, lambda comm: failing(comm, {}))
    assert {each[0] for each in found} == {RuntimeError}
    assert all("EPSOT_UNPROVEN=1" in each[1] for each in found)


def test_arrays_that_nothing_sends_are_refused() -> None:
    strict = pytest.importorskip("array_api_strict")
    x, y, _, _ = clouds(30, 20)

    def work(comm: Threads) -> str:
        with pytest.raises(TypeError) as caught:
            epsot.sinkhorn(strict.asarray(block(x, comm)), strict.asarray(block(y, comm)), blur=0.3, comm=comm)
        return str(caught.value)

    assert all("NumPy, or of CuPy" in text for text in on_ranks(2, work))


def test_arrays_of_two_libraries_are_named() -> None:
    x, y, _, _ = clouds(530, 300)

    def work(comm: Threads) -> str:
        given = on_device if comm.rank else np.asarray
        with pytest.raises(ValueError) as caught:
            epsot.sinkhorn(given(block(x, comm)), given(block(y, comm)), blur=0.3, comm=comm)
        return str(caught.value)

    assert all("`arrays` must be the same" in text and "cupy" in text for text in on_ranks(2, work))
