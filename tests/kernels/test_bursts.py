"""Many steps in one launch against the same steps one by one: the same numbers, ends and decisions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.arrays import common_place
from epsot.costs import Cityblock, Euclidean, HalfSquare
from epsot.kernels import bursts, cuda, reference
from epsot.kernels.cuda import fused, modules, shapes
from epsot.kernels.cuda.bursts import ALTERNATE, AVERAGE, DESCEND, Fields
from epsot.kernels.cuda.modules import source
from epsot.kernels.cuda.vectors import Directions
from epsot.kernels.vectors import Vectors
from epsot.problems.measure import Measure
from epsot.status import Status
from tests.cuda import emulation, fake_cupy
from tests.kernels.test_cuda import same_in_both_orders

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

NEVER = bursts.Rest(100, 0.0)


@pytest.fixture(autouse=True)
def cupy(unproven: None) -> Iterator[Any]:
    with fake_cupy.installed() as module:
        fake_cupy.launches.clear()
        yield module


def on_device(array: Any, dtype: Any = None) -> Any:
    return fake_cupy.asarray(np.asarray(array), dtype)


def one_by_one(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> Any:
    """What comes out without bursts."""
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "bursts", lambda *_: False)
        fake_cupy.launches.clear()
        result = run()
        assert not any(name.startswith(("alternate", "average")) for name, _, _ in fake_cupy.launches)
        fake_cupy.launches.clear()
        return result


def assert_alike(actual: Any, desired: Any, tolerance: float) -> None:
    """Two solves: how they went, and what they found."""
    assert (actual.status, actual.nit) == (desired.status, desired.nit)
    assert [(check.nit, check.eps) for check in actual.history] == [(c.nit, c.eps) for c in desired.history]
    errors = [[check.marginal_error for check in result.history] for result in (actual, desired)]
    np.testing.assert_allclose(*errors, rtol=100 * tolerance, atol=tolerance)
    for name in ("f", "g", "marginal_error"):
        ours, theirs = (np.asarray(getattr(z, "data_", z)) for z in (getattr(actual, name), getattr(desired, name)))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=name)


COSTS = ["sqeuclidean", "euclidean", "cityblock"]


STRENGTHS: dict[str, Any] = {"balanced": None, "unbalanced": (0.5, 2.0), "one-sided": (None, 1.0)}
PROGRAMS = [*itertools.product(COSTS, (2, 3, 7)), ("sqeuclidean", 1), ("cityblock", 1)]


def with_strengths() -> Iterator[Any]:
    """Each program with one kind of strengths, each cost and each dimension with all; the other pairs are guards."""
    for k, (cost, d) in enumerate(PROGRAMS):
        for which, (name, rho) in enumerate(STRENGTHS.items()):
            marks = () if which == (k + k // 3) % 3 else pytest.mark.guard
            yield pytest.param(cost, d, rho, id=f"{cost}-{d}-{name}", marks=marks)


@pytest.mark.parametrize(("cost", "d", "rho"), list(with_strengths()))
def test_points(cost: str, d: int, rho: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rng.random((70, d)), rng.random((61, d)) * 0.8 + 0.3
    a, b = rng.random(70) + 0.1, rng.random(61) + 0.1
    a, b = a / a.sum(), b / b.sum()
    geometry = epsot.PointCloud(on_device(x), on_device(y), cost=cost)

    def run() -> Any:
        return epsot.divergence(geometry, on_device(a), on_device(b), eps=0.02, rho=rho, tol=1e-5)

    desired = one_by_one(monkeypatch, run)
    actual = run()
    assert {name.split("<")[0] for name, _, _ in fake_cupy.launches} >= {"alternate", "average"}
    for part in ("xy", "xx", "yy"):
        assert_alike(getattr(actual, part), getattr(desired, part), 1e-9)


def test_what_underflows(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marginals below exp(-745), because clouds are far apart beside the reach: errors are relative to them."""
    x, y = on_device(rng.random((70, 2))), on_device(rng.random((61, 2)) + 5)

    def run() -> Any:
        return epsot.divergence(epsot.PointCloud(x, y), eps=0.02, rho=1e-3, tol=1e-9)

    desired = one_by_one(monkeypatch, run)
    actual = run()
    assert desired.success
    assert float(np.min(desired.xy.f.data_)) / 1e-3 > 745
    for part in ("xy", "xx", "yy"):
        assert_alike(getattr(actual, part), getattr(desired, part), 1e-9)


@pytest.mark.parametrize("level", [0.0, 30.0, -30.0])
@pytest.mark.parametrize("shares", [1, 2])
def test_errors_are_those_of_the_definition(
    level: float, shares: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any mass: a exp(-f / rho) is exp(-30 000) here, or exp(30 000)."""
    monkeypatch.setattr(shapes, "burst_shares", lambda *_: shares)
    n, m, eps, rho = 450, 380, 0.05, 1e-3
    x, y, a, b = rng.random((n, 2)), rng.random((m, 2)), rng.random(n) + 0.1, rng.random(m) + 0.1
    f, g = level + 0.1 * rng.normal(size=n), level + 0.1 * rng.normal(size=m)
    found = cuda.Points(on_device(x), on_device(y), HalfSquare()).bursts(marginal(a, rho), marginal(b, rho))
    assert found is not None
    directions = Directions(on_device(b), on_device(np.log(b)), b.sum(), rho, balanced=False)
    made = found.alternate(directions, on_device(f), on_device(g), bursts.Progress(1, 1, 0), 8, terms(eps=eps, steps=1))
    exact, side = reference.Points(x, y, HalfSquare()), on_host(a, rho)
    next_f = side.dampen(exact.softmin(np.log(b) + g / eps, eps), eps)
    next_g = side.dampen(exact.T.softmin(np.log(a) + next_f / eps, eps), eps)
    np.testing.assert_allclose(made.errors, [Vectors().violation(np.log(b), g, next_g, eps, rho)], rtol=1e-9)

    own = cuda.Points(on_device(x), on_device(x), HalfSquare()).bursts(marginal(a, rho), marginal(a, rho))
    assert own is not None
    averages = own.average(on_device(f), False, terms(eps=eps, steps=1))
    updated = side.dampen(reference.Points(x, x, HalfSquare()).softmin(np.log(a) + f / eps, eps), eps)
    np.testing.assert_allclose(averages.errors, [Vectors().violation(np.log(a), f, updated, eps, rho)], rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [False, True])
def test_matrices(dtype: Any, turned: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pairs that are forbidden, and of any strides."""
    C = rng.random((50, 80)).astype(dtype)
    C[0, 4:], C[3:20, 5] = np.inf, np.inf
    given = on_device(np.ascontiguousarray(C.T)).T if turned else on_device(C)

    def run() -> Any:
        return epsot.solve(epsot.CostMatrix(given), eps=0.05, tol=1e-5)

    desired = one_by_one(monkeypatch, run)
    assert desired.success
    assert_alike(run(), desired, 1e-7 if dtype == np.float32 else 1e-9)  # the potentials of a result are float32, too
    a, b = marginal(rng.random(50) + 0.1), marginal(rng.random(80) + 0.1)
    found = []
    for C in (given, given.astype(np.float64)):
        made = cuda.Matrix(C).bursts(a, b)
        assert made is not None
        directions = Directions(b.weights, b.log_weights, b.mass, np.inf, balanced=True)
        zeros = on_device(np.zeros(50)), on_device(np.zeros(80))
        steps = made.alternate(directions, *zeros, bursts.Progress(1, 1, 0), 8, terms())
        found.append(
            [steps.start.data_, np.array(steps.errors), *(z.data_ for z in made.descend(*zeros, True, [1, 0.5])[:2])]
        )
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.guard
@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_order_of_lanes_does_not_matter(
    shares: int, blocks: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; how the work is shared changes the order of sums, nothing else."""
    x, y = on_device(rng.random((300, 3)), np.float32), on_device(rng.random((290, 3)), np.float32)

    def run() -> Any:
        return epsot.sinkhorn_divergence(x, y, blur=0.1, reach=1.0, tol=1e-4)

    desired = one_by_one(monkeypatch, run)
    monkeypatch.setattr(shapes, "burst_blocks", lambda *_: blocks)
    monkeypatch.setattr(shapes, "burst_shares", lambda *_: min(shares, blocks))

    def results() -> list[np.ndarray]:
        found = run()
        assert_alike(found.xy, desired.xy, 1e-5)
        return [found.f.data_, found.g.data_]

    same_in_both_orders(results)


@pytest.mark.parametrize(
    ("what", "rho", "scaling"),
    [
        ("clouds", (0.5, 2.0), 0.5),
        ("matrix", None, 0.5),
        *(
            pytest.param(what, rho, 0.97, marks=pytest.mark.guard)
            for what in ("clouds", "matrix")
            for rho in (None, (0.5, 2.0))
        ),
        pytest.param("clouds", None, 0.5, marks=pytest.mark.guard),
        pytest.param("matrix", (0.5, 2.0), 0.5, marks=pytest.mark.guard),
    ],
)
def test_a_solve_without_a_tolerance_is_one_launch(
    what: str, rho: Any, scaling: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each of its three problems; more temperatures than a launch takes are two."""
    x, y = rng.random((50, 3)), rng.random((41, 3)) + 0.3
    a, b = rng.random(50) + 0.1, rng.random(41) + 0.1
    a, b = a / a.sum(), b / b.sum()
    cost = HalfSquare()
    geometry: Any = epsot.PointCloud(on_device(x), on_device(y))
    if what == "matrix":
        C, C_xx, C_yy = (on_device(cost.value(u[:, None], v[None])) for u, v in ((x, y), (x, x), (y, y)))
        geometry = epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy)

    def run() -> Any:
        return epsot.divergence(
            geometry, on_device(a), on_device(b), eps=0.02, rho=rho, tol=None, scaling=scaling, max_iter=1000
        )

    desired = one_by_one(monkeypatch, run)
    actual = run()
    started = [name.split("<")[0] for name, _, _ in fake_cupy.launches]
    assert started.count("descend") == sum(
        -(-part.nit // shapes.BURST_STEPS) for part in (actual.xy, actual.xx, actual.yy)
    )
    for part in ("xy", "xx", "yy"):
        ours, theirs = getattr(actual, part), getattr(desired, part)
        assert (ours.status, ours.nit, ours.history) == (theirs.status, theirs.nit, ())
        for name in ("f", "g", "marginal_error", "value"):
            np.testing.assert_allclose(
                *(np.asarray(getattr(getattr(z, name), "data_", getattr(z, name))) for z in (ours, theirs)),
                rtol=1e-10, atol=1e-10, err_msg=name,
            )  # fmt: skip
    np.testing.assert_allclose(actual.value.data_, desired.value.data_, rtol=1e-9, atol=1e-10)


def terms(**changes: Any) -> bursts.StopRule:
    usual = bursts.StopRule(eps=0.05, steps=5, tol=0.0, still=NEVER, slow=NEVER, give_up_above=0.0, errors=[])
    return usual._replace(**changes)


def marginal(weights: np.ndarray, rho: float = np.inf) -> Measure:
    return Measure(on_device(weights), on_device(np.log(weights)), float(weights.sum()), rho, on_host(weights).place)


def on_host(weights: np.ndarray, rho: float = np.inf) -> Measure:
    return Measure.of(weights, float(weights.sum()), rho, common_place(weights=weights))


@pytest.mark.parametrize("cost", [HalfSquare(), Euclidean()])
@pytest.mark.parametrize("off", [0.0, 1e4, np.nan])
def test_a_step_is_that_of_the_definition(cost: Any, off: float, rng: np.random.Generator) -> None:
    """From any earlier potential, also a hopeless one: it is a guess, and no more."""
    n, m, eps, rho = 45, 38, 0.05, 0.7
    x, y, a, b = rng.random((n, 2)), rng.random((m, 2)), rng.random(n) + 0.1, rng.random(m) + 0.1
    f, g = rng.normal(size=n), rng.normal(size=m)
    kernel = cuda.Points(on_device(x), on_device(y), cost)
    found = kernel.bursts(marginal(a, rho), marginal(b))
    assert found is not None
    directions = Directions(on_device(b), on_device(np.log(b)), b.sum(), np.inf, balanced=False)
    record = bursts.Progress(np.inf, np.inf, 0)
    made = found.alternate(directions, on_device(f) + off, on_device(g), record, 8, terms(steps=1))
    exact = reference.Points(x, y, cost)
    next_f = on_host(a, rho).dampen(exact.softmin(np.log(b) + g / eps, eps), eps)
    next_g = exact.T.softmin(np.log(a) + next_f / eps, eps)
    np.testing.assert_allclose(made.last.f.data_, next_f, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(made.last.updated.data_, next_g, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(made.last.g.data_, g)
    assert made.best is not None
    assert len(made.errors) == 1

    own = cuda.Points(on_device(x), on_device(x), cost).bursts(marginal(a, rho), marginal(a, rho))
    assert own is not None
    averages = own.average(on_device(f), False, terms(steps=1))
    softmin = reference.Points(x, x, cost).softmin(np.log(a) + f / eps, eps)
    updated = on_host(a, rho).dampen(softmin, eps)
    np.testing.assert_allclose(averages.updated.data_, updated, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(averages.mean.data_, (f + updated) / 2, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(averages.f.data_, f)
    np.testing.assert_allclose(own.average(on_device(f), True, terms(steps=1)).f.data_, updated, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("cost", [HalfSquare(), Euclidean(), Cityblock()])
def test_float32_far_from_the_origin(cost: Any, rng: np.random.Generator) -> None:
    """No digit of the coordinates is lost."""
    eps, b = 1e-3, np.full(40, 1 / 40)
    x, y = ((rng.random((40, 3)) + 1000).astype(np.float32) for _ in range(2))
    found = cuda.Points(on_device(x), on_device(y), cost).bursts(marginal(b), marginal(b))
    assert found is not None
    directions = Directions(on_device(b), on_device(np.log(b)), 1.0, np.inf, balanced=True)
    zero, record = on_device(np.zeros(40)), bursts.Progress(np.inf, np.inf, 0)
    made = found.alternate(directions, zero, zero, record, 8, terms(eps=eps, steps=1))
    exact = reference.Points(x.astype(np.float64), y.astype(np.float64), cost).softmin(np.log(b), eps)
    # Exponents around a poor guess, like 60, are rounded to float32; a distance over eps is, too.
    digits = 5e-6 if isinstance(cost, HalfSquare) else 1e-6 * 3 / eps
    np.testing.assert_allclose(made.last.f.data_, exact, rtol=0, atol=eps * digits)


def test_when_a_burst_ends(rng: np.random.Generator) -> None:
    """At the tolerance, where errors rest by either rule, after its steps, and where an error is no number."""
    n = 60
    x, a = rng.random((n, 2)), np.full(n, 1 / n)
    own = cuda.Points(on_device(x), on_device(x), HalfSquare()).bursts(marginal(a), marginal(a))
    assert own is not None
    zero = on_device(np.zeros(n))
    errors = own.average(zero, False, terms(steps=12)).errors
    assert len(errors) == 12
    assert np.all(np.diff(errors) < 0)
    assert own.average(zero, False, terms(steps=12, tol=errors[4])).errors == errors[:5]
    assert own.average(zero, False, terms(steps=12, still=bursts.Rest(2, 1e-9))).errors == errors[:3]
    before = [errors[0] / 2, errors[0] / 3]  # one more at least as large, and two of them have not gone below the first
    assert own.average(zero, False, terms(steps=12, still=bursts.Rest(2, 0.5), errors=before)).errors == errors[:1]
    broken = own.average(on_device(np.full(n, np.nan)), False, terms(steps=12)).errors
    assert len(broken) == 1
    assert not np.isfinite(broken[0])
    assert len(own.average(zero, False, terms(steps=1000)).errors) == shapes.BURST_STEPS


@pytest.mark.parametrize(("blur", "tol"), [(0.002, 1e-6), pytest.param(0.0005, 1e-4, marks=pytest.mark.guard)])
def test_hard_problems(blur: float, tol: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters, where mixing fails, columns are eased and plain steps take over: all of that is the solver's."""
    centres = rng.random((6, 2))
    x = on_device(np.repeat(centres, 10, axis=0) + 0.005 * rng.normal(size=(60, 2)))
    y = on_device(np.repeat(centres[::-1], 9, axis=0) + 0.005 * rng.normal(size=(54, 2)) + 0.02)

    def run() -> Any:
        with np.errstate(all="ignore"):
            return epsot.sinkhorn(x, y, blur=blur, tol=tol, max_iter=400)

    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr("epsot.status.warnings.warn", lambda *_, **__: None)
        desired = one_by_one(monkeypatch, run)
        actual = run()
    common = min(30, len(desired.history), len(actual.history))  # rounding decides what comes long after
    assert common == 30
    errors = [[check.marginal_error for check in result.history[:common]] for result in (actual, desired)]
    np.testing.assert_allclose(*errors, rtol=1e-6, atol=1e-12)
    assert actual.status == desired.status
    assert any(name.startswith("advance") for name, _, _ in fake_cupy.launches)  # steps of another kind


def test_a_diverged_solve_says_so(rng: np.random.Generator) -> None:
    """Squares of such distances are no float64."""
    x, y = on_device(rng.random((30, 2)) * 1e200), on_device(rng.random((30, 2)) * 1e200)
    with pytest.warns(epsot.ConvergenceWarning, match="DIVERGED"), np.errstate(all="ignore"):
        result = epsot.sinkhorn(x, y, blur=1.0, diameter=1.0)
    assert result.status is Status.DIVERGED


@pytest.mark.parametrize(("name", "fields"), [("Alternate", ALTERNATE), ("Average", AVERAGE), ("Descend", DESCEND)])
def test_what_the_kernels_are_told(name: str, fields: Fields) -> None:
    """The bytes are the struct, field by field."""
    found = re.search(rf"struct {name}Task {{(.*?)}};", source(), re.DOTALL)
    assert found is not None
    kinds = {"Index": np.int64, "double": np.float64, "int": np.int32}
    lines = re.findall(r"(\w+) ([\w, ]+);", found[1])
    desired = np.dtype([(field, kinds[kind]) for kind, names in lines for field in names.split(", ")], align=True)
    values = dict(zip(fields.names, range(1, 100), strict=False))
    (actual,) = fields(**values).view(desired)
    assert {field: actual[field] for field in desired.names} == values


def test_where_bursts_are_used(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Where a sum takes less than asking for it: few pairs, cheap ones, on a device that is good at float64."""
    fast, slow = (132, 2), (132, 64)  # multiprocessors, and how much slower they are in float64
    assert shapes.bursts(11_000, 11_000, 3, "float", *fast)
    assert not shapes.bursts(12_000, 12_000, 3, "float", *fast)
    assert not shapes.bursts(11_000, 11_000, 3, "float", 66, 2)
    assert not shapes.bursts(8192, 8192, 3, "float", *slow)
    assert shapes.bursts(1000, 1000, 3, "float", *slow)
    assert shapes.bursts(2000, 2000, 50, "float", *fast)
    assert not shapes.bursts(4000, 4000, 50, "float", *fast)
    assert not shapes.bursts(8192, 8192, 3, "double", *fast)
    assert shapes.bursts(5000, 5000, 0, "float", *fast)
    assert not shapes.bursts(6000, 6000, 0, "float", *fast)
    assert not shapes.bursts(1, 1_000_000, 3, "float", *fast)
    assert not shapes.bursts(0, 5, 3, "float", *fast)
    assert shapes.burst_blocks(10, 7, 132) == 5
    assert shapes.burst_blocks(1000, 900, 132) == 132
    assert [shapes.burst_shares(n, 132) for n in (1, 2048, 2049, 8192, 16_384)] == [1, 1, 3, 8, 8]
    x, a = on_device(rng.random((20, 2))), marginal(np.full(20, 0.05))
    monkeypatch.setattr(fused, "attribute", lambda _, device, name: name != fused.COOPERATIVE)
    assert cuda.Points(x, x, HalfSquare()).bursts(a, a) is None


def test_bursts_are_asked_for(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """No device has run them yet: they are used where EPSOT_UNPROVEN is 1, and nowhere else."""
    x, a = on_device(rng.random((20, 2))), marginal(np.full(20, 0.05))
    for value, wanted in ((None, False), ("", False), ("0", False), ("1", True)):
        monkeypatch.delenv("EPSOT_UNPROVEN", raising=False)
        if value is not None:
            monkeypatch.setenv("EPSOT_UNPROVEN", value)
        modules.unproven.cache_clear()
        assert (cuda.Points(x, x, HalfSquare()).bursts(a, a) is not None) == wanted


@pytest.mark.parametrize(
    ("refused", "tol"),
    [
        ("", 1e-5),
        ("descend", None),
        *(pytest.param(name, 1e-5, marks=pytest.mark.guard) for name in ("alternate", "average", "descend")),
        *(pytest.param(name, None, marks=pytest.mark.guard) for name in ("", "alternate", "average")),
    ],
)
def test_a_launch_that_is_refused(
    refused: str, tol: float | None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The solve goes on step by step, and so does every later one on that device. The log says so once."""
    x, y = on_device(rng.random((50, 2))), on_device(rng.random((41, 2)) + 0.3)
    monkeypatch.setattr(modules, "refusals", set())
    monkeypatch.setattr(fused, "refusals", modules.refusals)

    def run() -> Any:
        return epsot.sinkhorn_divergence(x, y, blur=0.1, tol=tol)

    desired = one_by_one(monkeypatch, run)
    monkeypatch.setattr(fake_cupy, "refused", [refused])
    for actual in (run(), run()):
        for part in ("xy", "xx", "yy"):
            assert_alike(getattr(actual, part), getattr(desired, part), 1e-9)
    used = tol is None if refused == "descend" else tol is not None
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == (used or not refused)
    assert all("refuses a cooperative launch (CUDA_ERROR" in line for line in told)
    if told:
        assert modules.refusals == {0}
        fake_cupy.launches.clear()
        run()
        together = ("alternate", "average", "descend")
        assert not [name for name, _, _ in fake_cupy.launches if name.startswith(together)]


def test_many_points_are_not_copied(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Whether a problem is small enough is known before anything is made for a burst."""
    x, a = on_device(rng.random((20, 2)), np.float32), marginal(np.full(20, 0.05))
    kernel = cuda.Points(x, x, HalfSquare())
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "BURST_LONGEST", 10)
        assert kernel.bursts(a, a) is None
    assert "points64" not in vars(kernel.x_cloud)
    assert kernel.bursts(a, a) is not None
    assert "points64" in vars(kernel.x_cloud)


def test_the_launches_of_a_small_solve(rng: np.random.Generator) -> None:
    """One for each temperature and one for each self term, but for the columns that are looked at after 20 steps."""
    x, y = on_device(rng.random((150, 3)), np.float32), on_device(rng.random((140, 3)) + 0.2, np.float32)
    result = epsot.sinkhorn_divergence(x, y, blur=0.1)
    started = [name.split("<")[0] for name, _, _ in fake_cupy.launches]
    levels = len({check.eps for check in result.xy.history})
    assert result.xy.nit > levels
    assert started.count("alternate") == levels
    assert started.count("average") == 2
    assert "advance" not in started


def test_the_requests_of_a_small_solve(rng: np.random.Generator) -> None:
    """All that the host asks the device for: launches, operations on arrays, readings. It is most of the time.

    Two of the readings tell whether float32 can hold what is handed out.
    """
    x, y = on_device(rng.random((1000, 3)), np.float32), on_device(rng.random((1000, 3)) * 0.8 + 0.3, np.float32)
    fake_cupy.operations.clear()
    fake_cupy.transfers.clear()
    result = epsot.sinkhorn_divergence(x, y, blur=0.05)
    assert np.isfinite(result.value.data_)
    assert np.all(np.isfinite(result.grad_x.data_))
    found = len(fake_cupy.launches), fake_cupy.operations.total(), fake_cupy.transfers.total()
    assert all(count <= most for count, most in zip(found, (22, 110, 16), strict=True)), found


def test_a_callback_sees_every_iteration(rng: np.random.Generator) -> None:
    x, y = on_device(rng.random((30, 2))), on_device(rng.random((20, 2)))
    seen: list[int] = []
    result = epsot.sinkhorn(x, y, blur=0.1, callback=lambda record: seen.append(record.nit))
    assert seen == list(range(1, result.nit + 1))
    assert not any(name.startswith("alternate") for name, _, _ in fake_cupy.launches)
