"""Many steps of all items of a batch in one launch, a block each, against the sweeps of the batch: the same decisions.

Sums are rounded in another order. Where a solve is long that may grow, as it does between two orders of the points;
problems of few iterations must agree to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import kernels
from epsot.costs import HalfSquare, ground_cost
from epsot.drivers.portable import Outcomes, solve
from epsot.kernels import bursts
from epsot.kernels.cuda import items, modules, shapes
from epsot.kernels.cuda.bursts import ALTERNATE
from epsot.kernels.cuda.items import ALTERNATE_ITEM, AVERAGE_ITEM
from epsot.kernels.item_bursts import Records, StopRules
from epsot.kernels.mixing import Weighed, no_memory
from epsot.problems.many import Problems
from epsot.solver.many import acceleration
from epsot.status import Status
from tests.cuda import emulation, fake_cupy
from tests.kernels.test_cuda import same_in_both_orders
from tests.solver.batches import Batch, one_shape, random_batch

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

FEW = 40  # iterations, in which roundings cannot grow far
EARLY = 25  # nor anything rest, where problems are hard
NEVER = bursts.Rest(100, 0.0)


@pytest.fixture(autouse=True)
def cupy(unproven: None) -> Iterator[Any]:
    with fake_cupy.installed() as module:
        fake_cupy.launches.clear()
        yield module


def launched(kind: str) -> int:
    return sum(name.startswith(kind) for name, _, _ in fake_cupy.launches)


def on_device(batch: Batch) -> Problems:
    """The problems of a batch with the kernel that the driver would choose."""
    problems: Any = batch.problems([batch.instance(k) for k in range(len(batch.eps))], fake_cupy.asarray)
    kernel = problems.kernel
    if batch.C is not None:
        return replace(problems, kernel=kernels.padded_matrices(kernel.C))
    return replace(problems, kernel=kernels.padded_points(kernel.x, kernel.y, ground_cost(batch.p, None)))


def solved(problems: Problems, batch: Batch, **options: Any) -> Outcomes:
    with np.errstate(all="ignore"):
        return solve(problems, batch.start, degree=batch.degree, **options)


def by_sweeps(batch: Batch, **options: Any) -> Outcomes:
    return solved(batch.problems([batch.instance(k) for k in range(len(batch.eps))]), batch, **options)


def assert_alike(ours: Outcomes, theirs: Outcomes, eps: np.ndarray, rows: np.ndarray) -> None:
    """The same decisions, and potentials to rounding, of some of the problems."""
    for name in ("status", "nit", "settled"):
        np.testing.assert_array_equal(getattr(ours, name)[rows], getattr(theirs, name)[rows], err_msg=name)
    for k in np.flatnonzero(rows).tolist():
        mine, other = ours.history[k], theirs.history[k]
        assert [check[:2] for check in mine] == [check[:2] for check in other]
        for name in ("f", "g", "extension"):
            pair = getattr(ours, name).data_[k], getattr(theirs, name)[k]
            np.testing.assert_allclose(*pair, rtol=1e-8, atol=1e-8 * eps[k], err_msg=name)
    for name in ("error", "mass"):
        np.testing.assert_allclose(getattr(ours, name)[rows], getattr(theirs, name)[rows], rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"tol": 1e-2},
        pytest.param({"tol": 1e-5}, marks=pytest.mark.guard),
        pytest.param({"tol": 1e-8, "max_iter": 200}, marks=pytest.mark.guard),
    ],
    ids=str,
)
def test_random_batches(options: dict[str, Any]) -> None:
    """Strengths on none, one or both sides, weights of zero, points and matrices, self-transports, all kinds of eps."""
    alike = total = 0
    for seed in range(12):
        batch = random_batch(np.random.default_rng([seed, len(options)]))
        ours, theirs = solved(on_device(batch), batch, **options), by_sweeps(batch, **options)
        few = np.maximum(theirs.nit, ours.nit) <= FEW
        assert_alike(ours, theirs, batch.eps, few)
        np.testing.assert_array_equal(ours.status, theirs.status)
        total, alike = total + len(few), alike + int(few.sum())
    assert alike > 0.9 * total > 30
    assert launched("alternate_items") > 0
    assert launched("average_items") > 0


def test_launches_are_few() -> None:
    """Items that converge with no more than one temperature: one launch for all of their steps."""
    batch = replace(one_shape(1, count=5, blur=0.5), start=np.zeros(5))
    found = solved(on_device(batch), batch, tol=1e-4)
    assert set(found.status) == {int(Status.CONVERGED)}
    assert found.nit.max() > 3
    assert found.nit.max() < acceleration.LONG
    assert len(fake_cupy.launches) == launched("alternate_items") == 1


@pytest.mark.guard
def test_branches_that_are_the_solver_s() -> None:
    """Temperatures far below the spacing: plain series, eased columns, a second descent, between the launches."""
    batch, seen = one_shape(3, count=12, n=9, m=9, d=1, blur=0.01), set()

    class Watched(acceleration.ConjugateResiduals):
        def run(self, problems: Any, state: Any, levels: Any) -> Any:
            state, measured = super().run(problems, state, levels)
            ledger = state.ledger
            seen.update(name for name in ("plain_steps", "eased", "levels") if getattr(ledger, name).any())
            seen.update(["coldest"] if np.isfinite(ledger.coldest_eps).any() else [])
            return state, measured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("epsot.drivers.portable.ConjugateResiduals", Watched)
        ours = solved(on_device(batch), batch, tol=1e-4, max_iter=400)
    assert seen == {"plain_steps", "eased", "levels", "coldest"}
    theirs, same = by_sweeps(batch, tol=1e-4, max_iter=400), 0
    for mine, other in zip(ours.history, theirs.history, strict=True):
        errors = [[check.marginal_error for check in history[:EARLY]] for history in (mine, other)]
        np.testing.assert_allclose(*errors, rtol=1e-5, atol=1e-10)
        same += [check[:2] for check in mine] == [check[:2] for check in other]
    assert same >= 8  # of 12: where errors rest, roundings decide which step is the best, and so what comes next
    np.testing.assert_array_equal(ours.status, theirs.status)
    assert launched("alternate_items") > 10


@pytest.mark.parametrize("bad", [np.nan, 1e200])
def test_an_item_that_diverges(bad: float) -> None:
    """It ends; the others do not notice."""
    batch = one_shape(2)
    theirs = by_sweeps(batch, tol=1e-6)
    problems = on_device(batch)
    x = batch.x.copy()
    x[2, 0] = bad
    kernel = kernels.padded_points(fake_cupy.asarray(x), fake_cupy.asarray(batch.y), HalfSquare())
    ours = solved(replace(problems, kernel=kernel), batch, tol=1e-6)
    assert ours.status[2] == int(Status.DIVERGED)
    assert not ours.settled[2]
    assert_alike(ours, theirs, batch.eps, np.arange(6) != 2)


def ragged(rng: np.random.Generator, move: Any, dtype: Any = np.float64) -> tuple[list[Any], ...]:
    """Clouds of 3 to 40 points, and weights of their own, some of them zero, also the last."""
    sizes = [(13, 9), (40, 3), (5, 31), (22, 22)]
    x, y = ([move(rng.random((pair[side], 3)).astype(dtype)) for pair in sizes] for side in (0, 1))
    a, b = ([rng.random(pair[side]) + 0.1 for pair in sizes] for side in (0, 1))
    a[0][-1] = a[2][1] = b[2][-1] = b[3][0] = 0
    return x, y, [move(w / w.sum()) for w in a], [move(w / w.sum()) for w in b]


@pytest.mark.parametrize("reach", [None, 0.7])
@pytest.mark.parametrize("p", [1, 2])
def test_clouds_of_any_sizes(p: int, reach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the front door, against the sweeps on the same arrays."""
    x, y, a, b = ragged(np.random.default_rng(p), fake_cupy.asarray)

    def run() -> Any:
        with fake_cupy.installed():
            return epsot.sinkhorn_divergence(x, y, a, b, blur=0.2, reach=reach, p=p, tol=1e-5)

    ours = run()
    assert launched("alternate_items") > 0
    assert launched("average_items") > 0
    fake_cupy.launches.clear()
    monkeypatch.setattr(shapes, "ITEM_PAIRS", 0)
    theirs = run()
    assert launched("alternate_items") + launched("average_items") == 0
    np.testing.assert_array_equal(ours.xy.nit, theirs.xy.nit)
    np.testing.assert_allclose(ours.value.data_, theirs.value.data_, rtol=1e-9, atol=1e-12)
    for k in range(4):
        np.testing.assert_allclose(ours[k].f.data_, theirs[k].f.data_, rtol=1e-9, atol=1e-10)


def test_many_weights_on_one_support(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of all items are packed once."""
    x, y = (fake_cupy.asarray(rng.random((n, 2))) for n in (15, 12))
    a = rng.random((4, 15)) * (rng.random((4, 15)) > 0.3)
    a[:, 0] += 0.1
    a[1, 7:] = 0
    a = fake_cupy.asarray(a / a.sum(axis=1, keepdims=True))
    made = []
    packed = items.packed_cloud

    def watched(cupy: Any, cloud: Any, sizes: Any) -> Any:
        made.append(cloud.shape)
        return packed(cupy, cloud, sizes)

    monkeypatch.setattr("epsot.kernels.cuda.batches.packed_cloud", watched)
    ours = epsot.sinkhorn(x, y, a, blur=0.2, tol=1e-6)
    assert launched("alternate_items") > 0
    assert made[:2] == [(1, 15, 2), (1, 12, 2)]
    monkeypatch.setattr(shapes, "ITEM_PAIRS", 0)
    theirs = epsot.sinkhorn(x, y, a, blur=0.2, tol=1e-6)
    np.testing.assert_array_equal(ours.nit, theirs.nit)
    np.testing.assert_allclose(ours.f.data_, theirs.f.data_, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.guard)])
def test_the_order_of_lanes_does_not_matter(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit; nor do more items than an axis of a grid has room for."""
    batch = one_shape(5, n=37, m=45)
    batch = replace(batch, own=True, y=batch.x, b=batch.a) if own else batch

    def results() -> list[np.ndarray]:
        found = solved(on_device(batch), batch, tol=1e-5)
        return [found.f.data_, found.g.data_, found.nit]

    desired = same_in_both_orders(results)
    monkeypatch.setattr(items, "MOST_ITEMS", 4)
    fake_cupy.launches.clear()
    for one, other in zip(results(), desired, strict=True):
        np.testing.assert_array_equal(one, other)
    assert fake_cupy.launches[0][1] == (1, 4, 2)


def test_items_without_steps_stay_as_they_are(rng: np.random.Generator) -> None:
    """And the others end where they are told to: after their steps, at the tolerance, at rest."""
    batch = one_shape(4, count=5)
    problems = on_device(batch)
    found = problems.bursts
    assert found is not None
    f, g = (fake_cupy.asarray(np.where(w > 0, rng.normal(size=w.shape), 0)) for w in (batch.a, batch.b))
    last = (f, g, g + 1, g + 2)
    side = Weighed(problems.b.weights, problems.b.masses, fake_cupy.asarray(np.ones((5, 1), bool)), None, None)
    record = Records(np.full(5, np.inf), np.full(5, np.inf), np.zeros(5, int))
    nothing = np.full((5, 16), np.nan)

    def run(**changes: Any) -> Any:
        usual = StopRules(batch.eps, np.full(5, 9), np.zeros(5), NEVER, NEVER, np.zeros(5), nothing)
        return found.alternate(side, no_memory(g), last, last, record, 8, usual._replace(**changes))

    whole = run().measured
    assert whole.counts.tolist() == [9] * 5
    limit = np.asarray([0, 3, 0, 5, 1])
    made = run(steps=limit)
    assert made.measured.counts.tolist() == limit.tolist()
    for k in range(5):
        np.testing.assert_array_equal(made.measured.errors[k, : limit[k]], whole.errors[k, : limit[k]])
    for mine, given in zip((*made.last, *made.best), (*last, *last), strict=True):
        for k in (0, 2):
            np.testing.assert_array_equal(mine.data_[k], given.data_[k])
        for k in (1, 3, 4):
            assert not np.array_equal(mine.data_[k], given.data_[k])
    assert made.memory.known.data_.tolist() == [False, True, False, True, True]
    assert made.memory.count.data_.tolist() == [0, 2, 0, 4, 0]
    np.testing.assert_array_equal(made.record.error[[0, 2]], np.inf)
    tol = whole.errors[:, 4]
    first = [int(np.flatnonzero(errors <= t)[0]) + 1 for errors, t in zip(whole.errors, tol, strict=True)]
    assert run(tol=tol).measured.counts.tolist() == first
    past = nothing.copy()
    past[1, -2:] = whole.errors[1, :1] / [2, 3]  # one more at least as large: two have not gone below the first
    rest = run(still=bursts.Rest(2, 0.5), errors=past).measured.counts
    assert rest[1] == 1
    assert rest.max() > 1


def test_where_items_have_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones; and where code that no device has run is asked for."""
    batch = one_shape(1)
    assert on_device(batch).bursts is not None
    assert shapes.item_bursts(256, 256)
    assert not shapes.item_bursts(257, 256)
    monkeypatch.delenv("EPSOT_UNPROVEN")
    modules.unproven.cache_clear()
    assert on_device(batch).bursts is None
    matrix = replace(batch, C=HalfSquare().value(batch.x[:, :, None], batch.y[:, None]))
    assert on_device(matrix).bursts is None
    solved(on_device(batch), batch, tol=1e-3)
    assert launched("alternate_items") == 0


def test_who_watches_sees_every_iteration() -> None:
    batch, seen = one_shape(1, count=3), []
    found = solved(on_device(batch), batch, tol=1e-4, observe=lambda nit, eps, shot: seen.append(nit.copy()))
    assert len(seen) == found.nit.max()
    assert launched("alternate_items") == 0


@pytest.mark.parametrize(
    ("name", "fields", "places"), [("Alternate", ALTERNATE_ITEM, ["x", "y"]), ("Average", AVERAGE_ITEM, ["x"])]
)
def test_what_the_kernels_are_told(name: str, fields: Any, places: list[str]) -> None:
    """The places of an item, then the struct of a burst, whose bytes `test_bursts.py` compares."""
    code = modules.source()
    assert re.search(rf"struct {name}Item {{\s+Index {', '.join(places)};\s+{name}Task task;\s+}};", code)
    assert fields.names[: len(places)] == places
    assert fields.columns.itemsize == fields.layout.size
    if name == "Alternate":
        assert fields.names[2:] == ALTERNATE.names
        assert [fields.columns.fields[n][1] - 16 for n in ALTERNATE.names] == [
            ALTERNATE.columns.fields[n][1] for n in ALTERNATE.names
        ]
