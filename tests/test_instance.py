"""Problems as posed: weights checked, zeros set aside and brought back, strengths and numbers read."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import epsot
from epsot.arrays import as_number as real
from epsot.arrays import as_positive as positive
from epsot.arrays import common_place
from epsot.problems.instance import pose
from epsot.problems.support import Support
from epsot.problems.weights import balancing, checked_weights, penalties

NUMPY = common_place()
DEVICE = strict.Device("device1")
STRICT = common_place(x=strict.ones(1, device=DEVICE))


@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.sampled_from([0.0, 0.5, 2.0])))
def test_supports_there_and_back(weights: np.ndarray) -> None:
    """restrict keeps the points of positive weight in order; scatter puts both parts back where they were."""
    for place, array in ((NUMPY, weights), (STRICT, strict.asarray(weights, device=DEVICE))):
        side = Support.of(array, place)
        assert side.size == len(weights)
        kept = side.restrict(array)
        np.testing.assert_array_equal([float(w) for w in kept], weights[weights > 0])
        back = side.scatter(kept, 0.0)
        np.testing.assert_array_equal([float(w) for w in back], weights)
        assert getattr(back, "device", None) == getattr(array, "device", None)
        if (weights > 0).all():
            assert kept is array
            assert side.kept is side.dropped is None


def test_supports_of_rows() -> None:
    """Points, (n, d), as well as numbers; the values at weight zero may be given one by one."""
    side = Support.of(np.asarray([1.0, 0, 2, 0]), NUMPY)
    points = np.arange(8.0).reshape(4, 2)
    kept = side.restrict(points)
    np.testing.assert_array_equal(kept, points[[0, 2]])
    np.testing.assert_array_equal(side.scatter(kept, points[[1, 3]]), points)
    np.testing.assert_array_equal(side.scatter(kept, -1.0), [[0, 1], [-1, -1], [4, 5], [-1, -1]])
    np.testing.assert_array_equal(side.scatter(kept[:, 0], -math.inf), [0, -math.inf, 4, -math.inf])


def test_supports_without_partners() -> None:
    """Three kinds of points find back to their places; the mass that is set aside is known."""
    weights = np.asarray([1.0, 0, 2, 0, 5, 7])
    for place, array in ((NUMPY, weights), (STRICT, strict.asarray(weights, device=DEVICE))):
        side = Support.of(array, place)
        alone = place.xp.asarray([False, True, False, True], device=place.device)
        narrow, kept = side.without(alone, side.restrict(array), place)
        assert [float(w) for w in kept] == [1, 5]
        assert narrow.lost == 9
        assert [float(w) for w in narrow.restrict(array)] == [1, 5]
        assert [float(w) for w in narrow.scatter(kept, 0.0, narrow.alone_weights)] == weights.tolist()
        assert [float(w) for w in narrow.scatter(kept, -1.0, math.inf)] == [1, -1, math.inf, -1, 5, math.inf]
        whole, same = side.without(None, kept, place)
        assert whole is side
        assert same is kept
    alone = np.asarray([True, False])
    narrow, kept = Support(2).without(alone, np.asarray([3.0, 4.0]), NUMPY)
    np.testing.assert_array_equal(narrow.scatter(kept, 0.0, 8.0), [8, 4])


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), np.asarray(2.0), Fraction(2), np.float16(2)])
def test_numbers(value: Any) -> None:
    for number in (real("eps", value), positive("eps", value)):
        assert number == 2.0
        assert type(number) is float


@pytest.mark.parametrize(
    "value", [None, "2", b"2", True, np.True_, [2], (2,), {2}, 2j, np.ones(2), np.ones(1), np.ones((1, 1)), object()]
)
def test_no_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match="`eps` must be one number, got "):
        real("eps", value)


@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, -math.inf])
def test_no_positive_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="`eps` must be positive and finite, got "):
        positive("eps", value)


@pytest.mark.parametrize(
    ("rho", "pair"),
    [
        (None, (None, None)),
        (2, (2.0, 2.0)),
        ((1, 2), (1.0, 2.0)),
        ([None, 2], (None, 2.0)),
        (math.inf, (None, None)),
        ((math.inf, 1), (None, 1.0)),
        (np.float32(0.5), (0.5, 0.5)),
    ],
)
def test_strengths(rho: Any, pair: Any) -> None:
    assert penalties("rho", rho) == pair


@pytest.mark.parametrize("rho", [0, -1, math.nan, (1, 0), (1, -1), (1, 2, 3), (), (1,)])
def test_no_strengths(rho: Any) -> None:
    with pytest.raises(ValueError, match=r"`rho` must be .*got"):
        penalties("rho", rho)


def test_uniform_weights() -> None:
    for place in (NUMPY, STRICT):
        weights = checked_weights("a", None, (4,), place)
        assert weights.dtype == place.xp.float64
        np.testing.assert_array_equal([float(w) for w in weights], [0.25] * 4)
    assert weights.device == DEVICE


def test_weights_are_float64_and_not_normalised() -> None:
    for array in ([1, 0, 3], np.asarray([1, 0, 3], dtype=np.float32), np.asarray([1, 0, 3], dtype=np.uint8)):
        weights = checked_weights("a", array, (3,), NUMPY)
        assert weights.dtype == np.float64
        np.testing.assert_array_equal(weights, [1.0, 0, 3])


def test_masses_that_differ_by_rounding() -> None:
    """b is rescaled to the mass of a; a larger difference is an error that says what to do."""
    near = 1 + 1e-9
    assert near * balancing(1.0, near, 1e-8, "reach") == pytest.approx(1.0, abs=1e-15)
    with pytest.raises(ValueError, match=r"`a` and `b` must have equal mass in balanced transport, got .* set `reach`"):
        balancing(1.0, 1 + 1e-7, 1e-8, "reach")


@pytest.mark.parametrize("single", ["a", "b"])
def test_weights_in_float32_may_differ_more(single: str) -> None:
    """Either side in float32 brings its rounding."""
    cloud = epsot.PointCloud([[0.0], [1.0]], [[2.0], [3.0]])
    weights: dict[str, Any] = {"a": np.asarray([0.5, 0.5]), "b": np.asarray([0.5, 0.5])}
    weights[single] = (weights[single] * (1 + 1e-5)).astype(np.float32)
    posed = pose(cloud, **weights, eps=1.0, rho=(None, None), rho_name="rho", workers=None)
    assert posed.problem.b.mass == pytest.approx(posed.problem.a.mass, rel=1e-15)
    with pytest.raises(ValueError, match="equal mass"):
        weights[single] = weights[single].astype(np.float64)
        pose(cloud, **weights, eps=1.0, rho=(None, None), rho_name="rho", workers=None)


def posed(a: Any, b: Any, rho: Any = (None, None), **self_costs: Any) -> Any:
    cost = epsot.CostMatrix([[0.0, 1.0, 5.0], [2.0, 0.0, 1.0]], **self_costs)
    return pose(cost, a, b, eps=0.5, rho=rho, rho_name="rho", workers=1)


def test_points_of_weight_zero_are_set_aside() -> None:
    instance = posed([1, 1], [2, 0, 0])
    assert instance.geometry.shape == (2, 3)
    assert instance.core.shape == instance.problem.kernel.shape == (2, 1)
    np.testing.assert_array_equal(instance.problem.b.weights, [2.0])
    np.testing.assert_array_equal(instance.problem.b.log_weights, [math.log(2.0)])
    assert instance.side_a.kept is None
    np.testing.assert_array_equal(instance.side_b.kept, [0])
    assert posed([1, 1], [1, 0.5, 0.5]).core is not None


def test_forbidden_rows_of_weight_zero_are_legal() -> None:
    cost = epsot.CostMatrix([[0.0, math.inf], [math.inf, math.inf]])
    instance = pose(cost, [1, 0], [1, 0], eps=1.0, rho=(None, None), rho_name="rho", workers=None)
    assert instance.core.shape == (1, 1)
    with pytest.raises(ValueError, match="`C` must allow a pair in every row of positive weight, got 1"):
        pose(cost, [1, 1], [2, 0], eps=1.0, rho=(None, None), rho_name="rho", workers=None)


def test_transpose_and_source() -> None:
    """T swaps the sides with their strengths; source() is the first measure with itself, with its own strength."""
    own: dict[str, Any] = {"C_xx": np.ones((2, 2)) - np.eye(2), "C_yy": 3 * (np.ones((3, 3)) - np.eye(3))}
    instance = posed([1, 2], [1, 0, 1], rho=(0.5, None), **own)
    other = instance.T
    assert instance.rho == (0.5, None)
    assert other.rho == (None, 0.5)
    assert other.geometry.shape == (3, 2)
    np.testing.assert_array_equal(other.problem.a.weights, instance.problem.b.weights)
    assert (other.problem.a.rho, other.problem.b.rho) == (math.inf, 0.5)
    np.testing.assert_array_equal(other.problem.kernel.cost_rows(slice(None)), [[0, 2], [5, 1]])
    assert other.T.rho == instance.rho
    source, target = instance.source(), instance.T.source()
    assert (source.rho, target.rho) == (0.5, None)
    assert source.geometry.shape == (2, 2)
    assert target.geometry.shape == (3, 3)
    assert target.core.shape == (2, 2)
    np.testing.assert_array_equal(target.problem.kernel.cost_rows(slice(None)), [[0, 3], [3, 0]])
    np.testing.assert_array_equal(source.problem.b.weights, source.problem.a.weights)


def test_equal_strengths_are_one_number() -> None:
    assert posed([1, 1], [1, 1, 1], rho=(2.0, 2.0)).rho == 2.0
    assert posed([1, 2], [1, 1, 1]).rho is None
    assert posed([1, 1], [1, 1, 1], rho=(2.0, 1.0)).rho == (2.0, 1.0)


def test_is_self() -> None:
    """Only where points, weights and strengths of both sides are equal is the divergence zero at sight."""
    x = np.asarray([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])
    a = np.asarray([1.0, 2.0, 0.0])

    def ask(x: Any, y: Any, a: Any, b: Any, rho: Any = (None, None)) -> bool:
        cloud = epsot.PointCloud(x, y)
        return pose(cloud, a, b, eps=0.1, rho=rho, rho_name="rho", workers=None).is_self()

    assert ask(x, x, a, a)
    assert ask(x, x.copy(), a, a.copy())
    assert ask(x, x, a, a, (1.0, 1.0))
    assert not ask(x, x, a, a, (1.0, 2.0))
    assert not ask(x, x, a, a[[1, 0, 2]])
    assert not ask(x, x[[1, 0, 2]], a, a)
    assert not ask(x, x + 1e-12, a, a)
    assert not ask(x, np.concatenate([x, x]), a, np.concatenate([a, a]) / 2)
