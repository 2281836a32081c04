"""Many problems at once: each gets what it gets alone, whatever stands beside it.

The iterations are the same, but sums are rounded in another order. Where a solve is long and hard, the mixing of steps
lets that grow, and a single solver that is given the same points in another order ends elsewhere as well. The rule is
therefore: status, number of iterations and temperatures are equal and potentials agree to 1e-7 of the temperature, or
the single solver is at odds with itself in the same way, by a thirtieth of the difference at least.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from epsot import kernels
from epsot.arrays import to_numpy
from epsot.drivers.portable import Outcomes, solve
from epsot.solver.many import acceleration, loop
from epsot.status import Status
from tests.solver.batches import Batch, difference, one_shape, random_batch

ROUNDING = 1e-7
SHUFFLES = 8


@pytest.fixture(autouse=True)
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems that are solved alone have the arithmetic of the portable kernels."""
    monkeypatch.setattr(kernels, "backend_of", lambda *arguments: "tiled")


def agree(ours: Outcomes, k: int, batch: Batch, alone: int, **options: Any) -> bool:
    """Whether problem k of a batch ended as that alone; raises where it is the fault of the batch that it did not."""
    theirs, eps = batch.alone(alone, **options), float(batch.eps[alone])
    by = difference(ours, k, theirs, eps)
    one = ours.outcome(k)
    same = (one.status, one.nit) == (theirs.status, theirs.nit)
    same &= [check[:2] for check in one.history] == [check[:2] for check in theirs.history]
    if same and by <= ROUNDING:
        error = theirs.dual_pair.error
        assert (one.dual.error is None) == (error is None) == math.isnan(ours.error[k])
        np.testing.assert_allclose(ours.error[k], math.nan if error is None else float(error), rtol=1e-3, atol=1e-9)
        mass = theirs.dual_pair.mass
        np.testing.assert_allclose(ours.mass[k], math.nan if mass is None else float(mass), rtol=1e-6)
        return True
    spread, counts, rng = 0.0, {theirs.nit}, np.random.default_rng(0)
    for _ in range(SHUFFLES):
        order = [rng.permutation(w.shape[1]) for w in (batch.a, batch.b)]
        shuffled = batch.alone(alone, order, **options)
        spread = max(spread, float(np.abs(shuffled.source.potential - theirs.source.potential[order[0]]).max()) / eps)
        counts.add(shuffled.nit)
    assert not batch.own and spread > by / 30 and (same or len(counts) > 1), (one, theirs.message, by, spread, counts)
    return False


OPTIONS = [
    {"tol": 1e-2},
    {"tol": 1e-3, "scaling": 0.7},
    {"tol": 1e-5},
    {"tol": 1e-8},
    {"tol": 1e-3, "max_iter": 9},
    {"tol": 1e-6, "max_iter": 60},
    {"tol": 1e-4, "max_iter": 1},
    {"tol": None},
    {"tol": None, "max_iter": 4, "scaling": 0.8},
]


@pytest.mark.parametrize(
    "options", [pytest.param(z, marks=pytest.mark.every if z["tol"] == 1e-8 else ()) for z in OPTIONS], ids=str
)
def test_every_problem_ends_as_alone(options: dict[str, Any]) -> None:
    same = total = 0
    for seed in range(14):
        batch = random_batch(np.random.default_rng([seed, OPTIONS.index(options)]))
        ours = batch.solve(**options)
        assert ours.settled.all()
        total += len(batch.eps)
        same += sum(agree(ours, k, batch, k, **options) for k in range(len(batch.eps)))
    assert same > 0.9 * total > 20


def same(ours: Outcomes, theirs: Outcomes, rows: Any = slice(None), tolerance: float = 1e-9) -> None:
    """The same solves, to rounding: `rows` of theirs."""
    for name in ("status", "nit", "settled"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name)[rows])
    for name in ("f", "g", "extension", "error", "mass", "logit_error"):
        pair = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))[rows]
        np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance)
    mine, other = list(ours.history), np.asarray(theirs.history, dtype=object)[rows]
    assert [len(history) for history in mine] == [len(history) for history in other]


def test_hard_problems_take_every_branch() -> None:
    """Temperatures far below the spacing of the points: plain series, eased columns, a second descent."""
    batch = one_shape(3, count=12, n=9, m=9, d=1, blur=0.01)
    options: dict[str, Any] = {"tol": 1e-4, "max_iter": 400}
    seen = set()

    class Watched(acceleration.ConjugateResiduals):
        def step(self, problems: Any, state: Any, eps: Any) -> Any:
            state = super().step(problems, state, eps)
            ledger = state.ledger
            seen.update(name for name in ("plain_steps", "eased", "levels") if getattr(ledger, name).any())
            seen.update(["coldest"] if np.isfinite(ledger.coldest_eps).any() else [])
            return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("epsot.drivers.portable.ConjugateResiduals", Watched)
        ours = batch.solve(**options)
    assert seen == {"plain_steps", "eased", "levels", "coldest"}
    for k in range(len(batch.eps)):
        agree(ours, k, batch, k, **options)


@pytest.mark.parametrize("options", [{"tol": 1e-6}, {"tol": None}], ids=str)
def test_the_order_of_the_problems_does_not_matter(options: dict[str, Any]) -> None:
    batch, order = one_shape(1), np.asarray([4, 0, 5, 2, 1, 3])
    same(batch.take(order).solve(**options), batch.solve(**options), order)


@pytest.mark.parametrize("tol", [1e-6, None], ids=str)
@pytest.mark.parametrize("monster", ["far", "cold", "nan", "forbidden", "heavy"])
def test_what_stands_beside_a_problem_does_not_matter(monster: str, tol: float | None) -> None:
    batch = one_shape(2)
    theirs = batch.solve(tol=tol)
    x, a, eps, rho = batch.x.copy(), batch.a.copy(), batch.eps.copy(), batch.rho.copy()
    problems = batch.problems([batch.instance(k) for k in range(6)])
    match monster:
        case "far":
            x[2] += 1e9
        case "cold":
            eps[2] = 1e-14
        case "nan":
            x[2, 0] = math.nan
        case "forbidden":
            x[2, 0] = math.inf
        case "heavy":
            a[2] *= 1e100
            rho[2] = 1e-3
    kernel = type(problems.kernel)(x, batch.y, problems.kernel.cost_function)  # type: ignore[attr-defined]
    sides = [
        type(side).of(weights, None, strength, side.place)
        for side, weights, strength in zip((problems.a, problems.b), (a, batch.b), rho.T, strict=True)
    ]
    ours = solve(replace(problems, kernel=kernel, a=sides[0], b=sides[1], eps=eps), batch.start, degree=2.0, tol=tol)
    rest = np.asarray([0, 1, 3, 4, 5])
    for name in ("status", "nit", "settled"):
        np.testing.assert_array_equal(getattr(ours, name)[rest], getattr(theirs, name)[rest])
    for name in ("f", "g", "extension"):
        np.testing.assert_allclose(getattr(ours, name)[rest], getattr(theirs, name)[rest], rtol=1e-9, atol=1e-9)
    if monster in ("nan", "forbidden"):
        assert not ours.settled[2]
        assert tol is None or ours.status[2] == Status.DIVERGED


@pytest.mark.parametrize("crowded", [0.0, 0.5, 1.0])
def test_problems_that_are_done_leave(crowded: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever they do, the others do not notice."""
    batch = one_shape(4)
    theirs, sizes = batch.solve(tol=1e-6), []
    monkeypatch.setattr(loop, "CROWDED", crowded)
    ours = batch.solve(tol=1e-6, observe=lambda nit, eps, snapshot: sizes.append(snapshot.crowd.problems.count))
    same(ours, theirs)
    assert len(set(ours.nit)) > 3
    assert (min(sizes) == 6) == (crowded == 0)
    assert crowded < 1 or min(sizes) == 1


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("tol", [1e-4, None], ids=str)
def test_few_problems(tol: float | None, own: bool) -> None:
    batch = one_shape(5)
    batch = replace(batch, y=batch.x, b=batch.a, own=True) if own else batch
    whole = batch.solve(tol=tol)
    same(batch.take([2]).solve(tol=tol), whole, [2])
    zero = np.zeros(0, int)
    problems = batch.problems([batch.instance(k) for k in range(6)])
    none = solve(problems.take(loop.Chosen.of(zero, problems.place)), np.zeros(0), degree=2.0, tol=tol)
    same(none, whole, zero)
    assert none.f.shape == (0, 12) and none.history == []


@pytest.mark.parametrize("library", ["strict", "torch"])
@pytest.mark.parametrize("tol", [1e-5, None], ids=str)
def test_libraries(library: str, tol: float | None) -> None:
    """Unbalanced problems, matrices and self-transports among them, and hard ones."""
    convert = strict.asarray if library == "strict" else pytest.importorskip("torch").asarray
    for seed in range(6):
        batch = random_batch(np.random.default_rng([seed, 7]))
        ours, theirs = batch.solve(convert, tol=tol, max_iter=100), batch.solve(tol=tol, max_iter=100)
        assert type(ours.f) is type(convert(np.zeros(1)))
        same(ours, theirs, tolerance=1e-6)


def test_one_reading_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []

    def counted(array: Any) -> np.ndarray:
        readings.append(array)
        return to_numpy(array)

    monkeypatch.setattr(acceleration, "to_numpy", counted)
    ours = one_shape(6).solve(tol=1e-6)
    checks = sum(ours.nit.max() > limit for limit in (20, 60, 180))
    assert ours.nit.max() <= len(readings) <= ours.nit.max() + checks * len(set(ours.nit))


def test_an_observer_sees_all_problems() -> None:
    batch, seen = one_shape(7), []

    def observe(nit: np.ndarray, eps: np.ndarray, snapshot: loop.Snapshot) -> None:
        seen.append((nit, eps, snapshot.errors, *snapshot.pair))

    ours = batch.solve(tol=1e-5, observe=observe)
    assert len(seen) == ours.nit.max()
    for k in range(6):
        for step, check in enumerate(ours.history[k]):
            nit, eps, errors, _, _ = seen[step]
            assert (nit[k], eps[k], errors[k]) == check
        nit, _, errors, f, g = seen[-1]
        assert nit[k] == ours.nit[k] and errors[k] == ours.error[k]
        shift = np.asarray(ours.f)[k, 0] - f[k, 0]
        np.testing.assert_allclose((f[k] + shift)[batch.a[k] > 0], ours.f[k][batch.a[k] > 0], rtol=1e-12)
        np.testing.assert_allclose((g[k] - shift)[batch.b[k] > 0], ours.g[k][batch.b[k] > 0], rtol=1e-12)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("tol", [1e-5, None], ids=str)
@pytest.mark.parametrize("after", [2, 12])
def test_a_batch_that_is_stopped(after: int, tol: float | None, own: bool) -> None:
    """What runs is stopped, at the temperature of its target; what was done stays what it is."""
    batch = one_shape(8)
    batch = replace(batch, y=batch.x, b=batch.a, own=True) if own else batch

    def stop(*arguments: Any) -> None:
        count = arguments[0].max() if len(arguments) == 3 else arguments[0].nit
        if count == after:
            raise StopIteration

    ours = batch.solve(tol=tol, observe=stop)
    for k in range(6):
        theirs = batch.alone(k, tol=tol, callback=stop)
        assert (ours.nit[k], ours.status[k]) == (theirs.nit, theirs.status)
        assert difference(ours, k, theirs, batch.eps[k]) < ROUNDING
    assert Status.STOPPED in ours.status or after == 12


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("tol", [1e-5, None], ids=str)
def test_earlier_potentials(tol: float | None, own: bool) -> None:
    """In some of the problems, at a temperature of their own."""
    batch = one_shape(9)
    batch = replace(batch, y=batch.x, b=batch.a, own=True) if own else batch
    hot = replace(batch, eps=8 * batch.eps)
    earlier, warm = [hot.alone(k, tol=1e-7) for k in range(6)], np.asarray([True, False, True, True, False, False])
    f, g = np.stack([np.asarray(r.source.potential) for r in earlier]), np.stack([r.target.potential for r in earlier])
    if not own:  # as an earlier result begins
        shift = (batch.b * g).sum(axis=1) / batch.b.sum(axis=1)
        f, g = f + shift[:, None], g - shift[:, None]
    start = np.where(warm, np.minimum(batch.start, hot.eps), batch.start)
    ours = batch.solve(start=start, restart=batch.start, f=f, g=g, warm=warm, tol=tol)
    for k in range(6):
        theirs = batch.alone(k, init=earlier[k] if warm[k] else None, tol=tol)
        assert (ours.nit[k], ours.status[k]) == (theirs.nit, theirs.status)
        assert difference(ours, k, theirs, batch.eps[k]) < ROUNDING


@pytest.mark.parametrize("tol", [1e-6, None], ids=str)
def test_potentials_and_maps(tol: float | None) -> None:
    """The gauge <a, f> = <b, g>; maps are those of a single solve, and extend to points of weight zero."""
    batch = one_shape(10)
    ours = batch.solve(tol=tol)
    np.testing.assert_allclose((batch.a * ours.f).sum(axis=1), (batch.b * ours.g).sum(axis=1), rtol=1e-9)
    for k in range(6):
        dual, mine = batch.alone(k, tol=tol).dual_pair, ours.outcome(k).dual
        rows, columns = batch.a[k] > 0, batch.b[k] > 0
        assert dual.g_map is not None and mine.g_map is not None
        np.testing.assert_allclose(mine.g_map[0][columns], dual.g_map[0], atol=1e-9)
        np.testing.assert_allclose(mine.g_map[1][rows], dual.g_map[1], atol=1e-9)
        assert (mine.f_map is None) == (dual.f_map is None)
        C = np.sum((batch.x[k][:, None] - batch.y[k][None]) ** 2, axis=-1) / 2
        with np.errstate(divide="ignore"):
            logits = np.log(batch.a[k]) + (mine.g_map[1] - C.T) / batch.eps[k]
        np.testing.assert_allclose(ours.extension[k], -batch.eps[k] * np.logaddexp.reduce(logits, axis=1), atol=1e-9)
    assert (ours.logit_error > 0).all() and (ours.logit_error < 1e-10).all()


@pytest.mark.parametrize("tol", [1e-6, None], ids=str)
def test_what_is_left_to_a_single_solve(tol: float | None) -> None:
    """Where rounding may hide more than was found, where nothing more can be found, and where there is no mass."""
    batch = one_shape(11)
    eps = np.where(np.arange(6) == 1, 1e-15, batch.eps)
    a = batch.a.copy()
    problems = batch.problems([batch.instance(k) for k in range(6)])
    a[3] = 0
    sides = problems.a.of(a, None, 1.0, problems.place), problems.b.of(batch.b, None, 1.0, problems.place)
    ours = solve(replace(problems, a=sides[0], b=sides[1], eps=eps), batch.start, degree=2.0, tol=tol, max_iter=50)
    assert ours.settled.tolist() == [True, False, True, False, True, True]
    assert (ours.nit[3], len(ours.history[3])) == (0, 0)
    assert not batch.solve(tol=1e-15).settled.any()


def test_starts_far_above_the_costs() -> None:
    """Constants of such temperatures, which would take digits from what counts, do not stay."""
    batch = one_shape(12)
    batch = replace(batch, start=np.asarray([1e12, 1e15, 1.0, 1e13, 0.0, 1e18]))
    ours = batch.solve(tol=1e-7)
    assert all(agree(ours, k, batch, k, tol=1e-7) for k in range(6))
    cold = batch.solve(tol=1e-7, start=1.0)
    np.testing.assert_allclose(ours.f, cold.f, atol=1e-5)
