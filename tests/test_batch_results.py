"""What a batch result holds, what a callback of many problems sees, and what an earlier result starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import epsot
from epsot import Status
from tests.batches import (
    ARRAYS,
    BOTH,
    ENDS,
    NUMBERS,
    Given,
    called,
    check,
    item_of,
    ragged,
    same,
    scaled,
    stacked,
    two_axes,
)
from tests.checks import close

entries = pytest.mark.parametrize("entry", BOTH, ids=lambda entry: entry.__name__)


# What stands in a result


@entries
def test_items(entry: Any, rng: np.random.Generator) -> None:
    given = stacked(rng)
    result = called(entry, given.together)
    assert len(result) == 4 and result.shape == (4,)
    alone = [called(entry, one) for one in given.alone]
    kind = epsot.SinkhornResult if entry is epsot.sinkhorn else epsot.DivergenceResult
    assert all(isinstance(item, kind) for item in result)
    for k, (item, one) in enumerate(zip(result, alone, strict=True)):
        assert item is result[k] and item is result[k - 4] and item is result[(k,)]
        assert repr(item) == repr(one)
        assert item.status is one.status and item.message == one.message and item.tol == one.tol
        close(item.plan.to_dense(), one.plan.to_dense(), 1e-12)
        close(result.plan[k].sum(axis=0), one.plan.sum(axis=0), 1e-12)
        assert len(result.history[k]) == len(one.history) == one.nit
        close([step.marginal_error for step in item.history], [step.marginal_error for step in one.history], 1e-11)
        close(item.potential(np.ones((3, 2))), one.potential(np.ones((3, 2))), 1e-12)
        close(result.transport(np.ones((3, 2)))[k], one.transport(np.ones((3, 2))), 1e-12)
    many = rng.normal(size=(4, 3, 2))
    assert result.potential(many).shape == (4, 3) and len(result.transport(list(many))) == 4
    close(result.potential(many)[2], alone[2].potential(many[2]), 1e-12)
    for index in (4, -5, (1, 1), slice(0, 2)):
        with pytest.raises(IndexError):
            result[index]


def test_items_of_two_axes(rng: np.random.Generator) -> None:
    given = two_axes(rng)
    result = called(epsot.sinkhorn_divergence, given.together)
    assert len(result) == 2 and result.plan.shape == result.history.shape == (2, 3)
    close(result[1, 2].value, called(epsot.sinkhorn_divergence, given.alone[5]).value, 1e-12)
    assert result[-1, -1] is result[1, 2]
    for wrong in (1, (0, 3), (0, 0, 0)):
        with pytest.raises(IndexError):
            result[wrong]
    with pytest.raises(TypeError, match=r"result\[i, j\]"):
        list(result)


def test_parts_of_a_divergence(rng: np.random.Generator) -> None:
    given = ragged(rng)
    result = called(epsot.sinkhorn_divergence, given.together)
    for k, one in enumerate(given.alone):
        alone = called(epsot.sinkhorn_divergence, one)
        for part in ("xy", "xx", "yy"):
            same(getattr(result, part), getattr(alone, part), k)


@pytest.mark.parametrize("name", ["value", "f", "dual"])
def test_numbers_beyond_the_range_warn_where_they_are_read(name: str, rng: np.random.Generator) -> None:
    x = (rng.random((2, 5, 2)) * 1e20).astype(np.float32)
    result = epsot.sinkhorn(x, x * np.float32(1.5), blur=1e20)
    with pytest.warns(epsot.PrecisionWarning) as caught:
        getattr(result, name)
    assert {warning.filename for warning in caught} == {__file__}


def test_equal_measures_give_zero(rng: np.random.Generator) -> None:
    """Exactly, also beside others."""
    given = stacked(rng, 3, 9, 9)
    y, b = given.together["y"].copy(), given.together["b"].copy()
    y[1], b[1] = given.together["x"][1], given.together["a"][1]
    result = epsot.sinkhorn_divergence(given.together["x"], y, given.together["a"], b, blur=0.3)
    assert result.value[1] == 0 and np.all(result.value[[0, 2]] > 0)
    assert np.all(result.grad_x[1] == 0) and np.all(result.f[1] == 0) and result[1].value == 0


def test_repr_and_options(rng: np.random.Generator) -> None:
    given = scaled(rng)
    result = called(epsot.sinkhorn, given.together)
    assert repr(result) == "BatchResult(shape=(3,), status: 3 of 3 CONVERGED)"
    close(result.eps, given.together["blur"] ** 2, 1e-15)
    assert result.rho is None
    close(called(epsot.sinkhorn, stacked(rng).together, reach=2.0).rho, 4.0, 1e-15)
    pair = called(epsot.sinkhorn, stacked(rng).together, reach=(2.0, None)).rho
    assert isinstance(pair, tuple) and np.all(pair[0] == 4) and np.all(np.isinf(pair[1]))
    assert repr(called(epsot.sinkhorn_divergence, two_axes(rng).together)).startswith("BatchDivergence(shape=(2, 3)")


@entries
def test_one_and_none(entry: Any, rng: np.random.Generator) -> None:
    check(stacked(rng, 1), entry)
    result = entry(np.zeros((0, 5, 2)), np.zeros((0, 4, 2), np.float64), blur=0.1)
    assert result.shape == (0,) and len(result) == 0 and list(result) == [] and result.message == "no items"
    shapes = {"f": (0, 5), "grad_b": (0, 4), "grad_x": (0, 5, 2), "grad_y": (0, 4, 2), "displacement": (0, 5, 2)}
    for name in ARRAYS + NUMBERS + ENDS:
        assert getattr(result, name).size == 0
    for name, shape in shapes.items():
        assert getattr(result, name).shape == shape
    assert result.plan == [] and result.history == []
    assert entry(np.zeros((0, 5, 2)), np.zeros((4, 2)), blur=0.1, callback=lambda _: None, tol=None).shape == (0,)
    pairs = entry(np.zeros((2, 0, 5, 2)), np.zeros((4, 2)), blur=np.zeros((0,)) + 1)
    assert pairs.value.shape == (2, 0) and pairs.grad_y.shape == (2, 0, 4, 2)


def test_no_matrices() -> None:
    result = epsot.divergence(
        epsot.CostMatrix(np.zeros((0, 5, 2)), C_xx=np.zeros((5, 5)), C_yy=np.zeros((2, 2))), eps=1
    )
    assert result.value.shape == (0,) and result.f.shape == (0, 5) and result.grad_b.shape == (0, 2)


# Callbacks and starts


@entries
@pytest.mark.parametrize("options", [{}, {"tol": None}, {"reach": 1.0}], ids=str)
@pytest.mark.parametrize("make", [stacked, ragged, two_axes], ids=lambda make: make.__name__)
def test_callback(make: Callable[..., Given], options: dict[str, Any], entry: Any, rng: np.random.Generator) -> None:
    """A record for each iteration, which has for every item what the single one has; then the same result."""
    given, seen, shape = make(rng), [], make(rng).shape

    def watch(record: Any) -> None:
        assert record.nit.shape == record.eps.shape == shape
        assert repr(record) == f"BatchIntermediate(shape={shape}, nit up to {record.nit.max()})"
        seen.append((record.nit.copy(), record.eps.copy(), np.array(record.marginal_error), record.f, record.g))

    result = check(given, entry, 1e-9, **options)
    watched = called(entry, given.together, callback=watch, **options)
    assert_array_equal(watched.nit, result.nit)
    assert_array_equal(watched.status, result.status)
    close(watched.value, result.value, 1e-9)
    for k, one in enumerate(given.alone):
        steps: list[Any] = []
        called(entry, one, callback=steps.append, **options)
        a, b = one["a"] > 0, one.get("b", np.ones(len(one["y"]))) > 0
        assert len(steps) <= len(seen)
        for step, (nit, eps, _, f, g) in zip(steps, seen, strict=False):
            assert item_of(nit, k, shape) == step.nit
            close(item_of(eps, k, shape), step.eps, 1e-12)
            assert item_of(f, k, shape).shape == a.shape and item_of(g, k, shape).shape == b.shape


@entries
def test_record_holds_the_potentials_of_its_step(entry: Any, rng: np.random.Generator) -> None:
    given, k = stacked(rng), 2
    seen: list[Any] = []
    alone: list[Any] = []
    called(entry, given.together, callback=lambda z: seen.append((z.f[k], z.g[k], z.marginal_error[k])))
    called(entry, given.alone[k], callback=lambda z: alone.append((z.f, z.g, z.marginal_error)))
    a, b = given.alone[k]["a"] > 0, given.alone[k]["b"] > 0
    for (f, g, error), (f_alone, g_alone, error_alone) in zip(seen, alone, strict=False):
        close(f[a], f_alone[a], 1e-9)
        close(g[b], g_alone[b], 1e-9)
        close(error, error_alone, 1e-9)
        assert np.all(f[~a] == 0) and np.all(g[~b] == 0)


@entries
@pytest.mark.parametrize("options", [{}, {"tol": None}], ids=str)
def test_stop(entry: Any, options: dict[str, Any], rng: np.random.Generator) -> None:
    """All that run are stopped, each where it would be alone; those that are done stay done."""
    given, stop_at = ragged(rng), 3 if options else 7

    def stop(record: Any) -> None:
        if np.max(record.nit) >= stop_at:
            raise StopIteration

    result = check(given.but(callback=stop), entry, 1e-9, **options)
    assert not result.success.all() and Status.STOPPED in result.status
    if not options:  # between single points there is not much to find
        assert set(result.status.tolist()) == {Status.CONVERGED, Status.STOPPED}


@entries
def test_start_from_a_batch(entry: Any, rng: np.random.Generator) -> None:
    given = ragged(rng)
    first, options = called(entry, given.together), {"tol": 1e-6, "max_iter": 5000}
    again = called(entry, given.together, init=first, **options)
    for k, one in enumerate(given.alone):
        same(again, called(entry, one, init=called(entry, one), **options), k, 1e-9)
    one = called(entry, given.together, init=first[0], **options)
    assert one.success.all()
    close(one.value, called(entry, given.together, **options).value, 1e-5)
    with pytest.raises(ValueError, match=r"`init` must be a result of as many problems, \(3,\).* \(4,\)"):
        called(entry, {name: z[:3] for name, z in given.together.items()}, init=first)
    with pytest.raises(TypeError, match=r"batch of shape \(4,\); pass one item, `init\[k\]`"):
        called(entry, given.alone[0], init=first)
    with pytest.raises(TypeError, match=r"`init` must be an earlier result, .* got list"):
        called(entry, given.together, init=[first[k] for k in range(4)])
