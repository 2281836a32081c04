"""Many problems in one call: every answer is that of the single call, whatever stands beside it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import epsot
from epsot import ConvergenceWarning, Status
from tests.batches import (
    ARRAYS,
    BOTH,
    ENDS,
    FINE,
    KINDS,
    NUMBERS,
    Given,
    called,
    check,
    ragged,
    same,
    shared,
    stacked,
    weights,
)
from tests.checks import close, slopes, up_to_constant

entries = pytest.mark.parametrize("entry", BOTH, ids=lambda entry: entry.__name__)
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {}, "distance": {"p": 1}, "schedule": {"tol": None}, "reach": {"reach": (1.5, 0.8)}, "fine": FINE,
}  # fmt: skip


@entries
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_attribute(
    make: Callable[..., Given], options: dict[str, Any], entry: Any, rng: np.random.Generator
) -> None:
    given = make(rng)
    options = {name: option for name, option in options.items() if name not in given.together}
    result = check(given, entry, **options)
    ended = Status.SCHEDULE_ENDED if "tol" in options and options["tol"] is None else Status.CONVERGED
    assert np.all(result.status == ended)
    assert_array_equal(result.success, result.status == Status.CONVERGED)


@entries
def test_float32(entry: Any, rng: np.random.Generator) -> None:
    """Both calls round alike where the same kernels do it; the sums behind gradients are taken in another order."""
    for given in (stacked(rng), ragged(rng)):
        single = Given({}, [one | {z: one[z].astype(np.float32) for z in "xy"} for one in given.alone], given.shape)
        points = {
            z: [cloud.astype(np.float32) for cloud in given.together[z]]
            if isinstance(given.together[z], list)
            else given.together[z].astype(np.float32)
            for z in "xy"
        }
        result = check(Given(given.together | points, single.alone, given.shape), entry, tolerance=2e-5)
        assert result.value.dtype == np.float32


@entries
def test_forms_of_arrays(entry: Any, rng: np.random.Generator) -> None:
    """Integers, read-only, strided and Fortran arrays, nested lists: the numbers count, and are not modified."""
    x, y = rng.integers(0, 9, (3, 7, 2)), rng.integers(3, 12, (3, 5, 2))
    expected = entry(x.astype(float), y.astype(float), blur=1.0)
    wide = np.repeat(x, 2, axis=0)
    locked = x.astype(float)
    locked.flags.writeable = False
    forms = [x, x.tolist(), np.asfortranarray(x.astype(float)), wide[::2], wide.astype(float)[::2], locked]
    for form in (*forms, x.astype(float).swapaxes(0, 1).copy().swapaxes(0, 1)):
        result = entry(form, y, blur=1.0)
        assert_array_equal(result.value, expected.value)
        assert_array_equal(result.grad_x, expected.grad_x)
    assert_array_equal(locked, x)


# Costs that are stored


def matrices(rng: np.random.Generator, count: int = 3, n: int = 8, m: int = 6) -> tuple[dict[str, Any], Any, Any]:
    """Costs of which some are forbidden, with self costs, and weights with which there is a plan."""
    C = rng.random((count, n, m))
    C[:, 2:, 0] = C[:, 1, 1:3] = np.inf
    own = [np.abs(np.subtract.outer(z, z)) for z in (rng.random(n), rng.random(m))]
    a, b = (np.stack([weights(rng, size, 1.5) for _ in range(count)]) for size in (n, m))
    a[:, :2], b[:, 0] = 0.4, 0.1
    a, b = (1.5 * w / w.sum(axis=1, keepdims=True) for w in (a, b))
    return {"C": C, "C_xx": own[0], "C_yy": own[1]}, a, b


WITHOUT_POINTS = ("grad_x", "grad_y", "displacement")


@pytest.mark.parametrize("listed", [False, True], ids=["stacked", "list"])
@pytest.mark.parametrize("options", [{}, {"tol": None}, {"rho": np.asarray([0.3, np.inf, 2.0])}], ids=str)
@pytest.mark.parametrize("entry", [epsot.solve, epsot.divergence], ids=lambda entry: entry.__name__)
def test_matrices(entry: Any, options: dict[str, Any], listed: bool, rng: np.random.Generator) -> None:
    parts, a, b = matrices(rng)
    if listed:
        parts["C"], a, b = list(parts["C"]), list(a), list(b)
    if listed and entry is epsot.divergence:  # each with self costs of its own
        parts["C_xx"] = [parts["C_xx"] * k for k in (1, 2, 3)]
        parts["C_yy"] = [parts["C_yy"] * k for k in (1, 2, 3)]
    result = entry(epsot.CostMatrix(**parts), a, b, eps=0.2, **options)
    assert result.shape == (3,)
    for k in range(3):
        own = {name: z[k] if isinstance(z, list) or z.ndim == 3 else z for name, z in parts.items()}
        one = {name: float(z[k]) if isinstance(z, np.ndarray) else z for name, z in options.items()}
        same(result, entry(epsot.CostMatrix(**own), a[k], b[k], eps=0.2, **one), k, but=WITHOUT_POINTS)
    for name in WITHOUT_POINTS:
        with pytest.raises(TypeError, match="CostMatrix has no points"):
            getattr(result, name)


def test_weights_over_one_matrix(rng: np.random.Generator) -> None:
    parts, a, b = matrices(rng)
    geometry = epsot.CostMatrix(parts["C"][0])
    result = epsot.solve(geometry, a, b[0], eps=0.2)
    for k in range(3):
        same(result, epsot.solve(geometry, a[k], b[0], eps=0.2), k, but=WITHOUT_POINTS)


def test_temperatures(rng: np.random.Generator, any_path: None) -> None:
    """`eps` and `rho` of the batch shape, and costs by name."""
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 1
    for cost in ("sqeuclidean", "cityblock", "cosine"):
        geometry, eps, rho = epsot.PointCloud(x, y, cost=cost), np.asarray([0.3, 1.0]), np.asarray([[2.0], [np.inf]])
        result = epsot.divergence(geometry, eps=eps, rho=rho)
        assert result.shape == (2, 2)
        for k in range(4):
            strength = [2.0, None][k // 2]
            same(result, epsot.divergence(geometry, eps=float(eps[k % 2]), rho=strength), k, 1e-9)


# Each problem is its own


@entries
def test_order_is_of_no_account(entry: Any, rng: np.random.Generator) -> None:
    given, order = ragged(rng), [2, 0, 3, 1]
    before = called(entry, given.together)
    after = called(entry, {name: [z[k] for k in order] for name, z in given.together.items()})
    for name in ARRAYS + NUMBERS + ENDS:
        for new, old in enumerate(order):
            assert_array_equal(getattr(after, name)[new], getattr(before, name)[old], err_msg=name)


def monsters(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Problems that are slow, far away, one point, of mass 1e-30, hardly possible in float64, or large.

    The sums of 2^k weights 2^-k are exact in any order: a unit in the last place of a mass is all it takes to tell the
    ends of two solves of 60 steps apart that have not converged.
    """
    x, y = rng.normal(size=(32, 2)), rng.normal(size=(16, 2)) + 0.4
    light = 1e-30 * np.ones(32) / 32, 1e-30 * np.ones(16) / 16
    return {
        "slow": {"x": x, "y": y, "blur": 2e-3},
        "far": {"x": 1e7 * x, "y": 1e7 * y, "blur": 1e5},
        "point": {"x": x[:1], "y": y[:1], "blur": 1e-9},
        "light": {"x": x, "y": y, "a": light[0], "b": light[1], "blur": 0.5},
        "hopeless": {"x": 1e9 + x, "y": y, "blur": 0.01},
        "large": {"x": rng.normal(size=(2048, 2)), "y": y, "blur": 1.0},
    }


@entries
@pytest.mark.parametrize("name", monsters(np.random.default_rng(0)))
@pytest.mark.filterwarnings("ignore::epsot.ConvergenceWarning")
def test_monsters(entry: Any, name: str, rng: np.random.Generator) -> None:
    """One beside them changes nothing of the others, nor they of it."""
    monster, given = monsters(rng)[name], ragged(rng)
    alone = [one | {"blur": 0.4} for one in given.alone]
    n, m = len(monster["x"]), len(monster["y"])
    alone[1] = {"a": np.full(n, 1 / n), "b": np.full(m, 1 / m)} | monster
    together = {z: [one[z] for one in alone] for z in "xyab"} | {"blur": np.asarray([one["blur"] for one in alone])}
    result = check(Given(together, alone, (4,)), entry, 1e-8, max_iter=60)  # exponents of 1e6 have ten digits
    before = called(entry, given.together, max_iter=60)
    for k in (0, 2, 3):
        assert result.nit[k] == before.nit[k]
        for attribute in ARRAYS + NUMBERS:
            close(getattr(result, attribute)[k], getattr(before, attribute)[k], 1e-13)


def test_one_warning_names_those_that_missed(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(20, 30, 2)), rng.normal(size=(20, 25, 2)) + 1
    blur = np.where(np.arange(20) % 3 == 1, 0.01, 3.0)
    with pytest.warns(ConvergenceWarning) as caught:
        result = epsot.sinkhorn(x, y, blur=blur, max_iter=12)
    assert len(caught) == 1 and caught[0].filename == __file__
    message = str(caught[0].message)
    assert "7 of 20 problems have missed `tol`: 1, 4, 7, 10, 13, 16, 19; the worst, " in message
    missed = np.flatnonzero(result.status == Status.MAX_ITER)
    worst = missed[np.argmax(result.marginal_error[missed])]
    assert f"the worst, {worst}, is MAX_ITER" in message and f"{result.marginal_error[worst]:.2e}" in message
    assert Status.MAX_ITER.cure in message
    assert result.message == "13 of 20 CONVERGED, 7 of 20 MAX_ITER"
    with pytest.warns(ConvergenceWarning, match=r"of 20 problems .*: \(0, 1\), \(1, 0\), \(1, 3\)"):
        epsot.sinkhorn(x.reshape(5, 4, 30, 2), y.reshape(5, 4, 25, 2), blur=blur.reshape(5, 4), max_iter=12)


# Derivatives and memory


@entries
@pytest.mark.parametrize("options", [{}, {"reach": 1.2}, {"p": 1}], ids=str)
def test_finite_differences(entry: Any, options: dict[str, Any], rng: np.random.Generator) -> None:
    """Of the sum of the values: each item contributes its own."""
    given = stacked(rng, 2, 4, 3)
    exact = {"tol": 1e-13, "max_iter": 5000, "blur": 0.7} | options
    args = given.together
    result = called(entry, args, **exact)

    def value_of(name: str) -> Callable[[np.ndarray], Any]:
        return lambda z: called(entry, args | {name: z}, **exact).value.sum()

    for name in "xy":
        close(getattr(result, f"grad_{name}"), slopes(value_of(name), args[name]), 1e-7)
    if "reach" in options:
        close(result.grad_a[:, [0, 1, 3]], slopes(value_of("a"), args["a"] + 1e-5)[:, [0, 1, 3]], 1e-3)
    else:
        tangent = np.asarray([1.0, -1.0, 0.0, 0.0])
        along = slopes(lambda t: called(entry, args | {"a": args["a"] + t * tangent}, **exact).value.sum(), np.zeros(1))
        close(along[0], (result.grad_a * tangent).sum(), 1e-6)


def test_gradients_in_a_shared_support_are_those_of_each_problem(rng: np.random.Generator) -> None:
    given = shared(rng)
    result = called(epsot.sinkhorn_divergence, given.together, **FINE)
    assert result.grad_x.shape == (4, 12, 2)

    def value(x: np.ndarray) -> Any:
        return called(epsot.sinkhorn_divergence, given.together | {"x": x}, **FINE).value[3]

    close(result.grad_x[3][:2], slopes(lambda z: value(np.concatenate([z, given.together["x"][2:]])),
                                       given.together["x"][:2]), 1e-5)  # fmt: skip
    close(up_to_constant(result.grad_a[1]), up_to_constant(result[1].grad_a), 1e-12)


def test_memory(rng: np.random.Generator) -> None:
    """500 problems of 128 x 128 points need no memory for the pairs of all, 66 MB, but for their points."""
    x, y = rng.normal(size=(500, 128, 2)), rng.normal(size=(500, 128, 2))
    epsot.sinkhorn_divergence(x[:2], y[:2], blur=0.5)
    tracemalloc.start()
    result = epsot.sinkhorn_divergence(x, y, blur=0.5)
    assert result.success.all() and result.grad_x.shape == (500, 128, 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 * 128 * 128 * 8 / 2.5


def test_workers(rng: np.random.Generator) -> None:
    """The bits do not depend on them."""
    given = stacked(rng, 40)
    one, two = (called(epsot.sinkhorn_divergence, given.together, workers=workers) for workers in (1, 2))
    for name in ARRAYS + NUMBERS:
        assert_array_equal(getattr(one, name), getattr(two, name))


def test_weights_that_balancing_makes_uniform_have_a_mass_of_one() -> None:
    """A single call and an item of a batch: seven times 1 / 7 is not quite 1."""
    a, b = np.full(3, 1 / 3), np.full(7, np.nextafter(1 / 7, 1))
    C = np.random.default_rng(4).random((3, 7))
    alone = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1)
    item = epsot.solve(epsot.CostMatrix(np.stack([C, C])), a, b, eps=0.1)[1]
    assert alone.value == item.value and (alone.g == item.g).all()
    assert alone.instance.problem.b.mass == item.instance.problem.b.mass


def test_gradients_of_a_schedule_run_once() -> None:
    """Potentials far from the optimal ones: of a row of a large mass, sums would show their rounding."""
    x, y = (np.random.default_rng(k).random((12, 3)).astype(np.float32) for k in range(2))
    weights = np.float32(10.0) ** -np.arange(12, dtype=np.float32)
    options = {"blur": 1e-3, "tol": None}
    alone = epsot.sinkhorn_divergence(x, y, weights / weights.sum(), **options)
    batch = epsot.sinkhorn_divergence(x[None], y[None], weights / weights.sum(), **options)
    for name in ("grad_x", "grad_y"):
        one, other = getattr(alone, name), getattr(batch, name)[0]
        np.testing.assert_allclose(other, one, atol=1e-4 * np.abs(one).max())
