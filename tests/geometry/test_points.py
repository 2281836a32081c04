"""PointCloud: shapes, scales, parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from tests.checks import close, power_cost
from tests.conftest import Measures, measures


def test_shape_dtype_and_repr(awkward: Measures) -> None:
    x, y, a, b = awkward
    geometry = epsot.PointCloud(x, y)
    assert geometry.shape == (len(a), len(b))
    assert geometry.T.shape == (len(b), len(a))
    assert geometry.dtype == np.float64
    assert epsot.PointCloud(x.astype(np.float32), y.astype(np.float32)).dtype == np.float32
    assert epsot.PointCloud(x.astype(np.float32), y).dtype == np.float64
    assert epsot.PointCloud([[1, 2]], [[3, 4]]).dtype == np.float64
    text = repr(geometry)
    assert f"{geometry.shape}" in text
    assert "array" not in text


@pytest.mark.parametrize("p", [1, 2])
def test_scale_is_the_diagonal_of_the_box(awkward: Measures, p: int) -> None:
    both = np.concatenate([awkward.x, awkward.y])
    diagonal = np.linalg.norm(both.max(axis=0) - both.min(axis=0))
    geometry = epsot.PointCloud(awkward.x, awkward.y, p=p)
    close(geometry.diameter(), diagonal, 1e-14)
    close(geometry.scale(), diagonal**p, 1e-14)
    assert geometry.scale() >= power_cost(awkward.x, awkward.y, p).max()


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_scale_is_at_least_a_good_share_of_the_largest_cost(awkward: Measures, cost: str) -> None:
    """Annealing starts where the plan is nearly the product."""
    geometry = epsot.PointCloud(awkward.x, awkward.y, cost=cost)
    assert geometry.scale() >= geometry.kernel().cost_rows(slice(None)).max() / 2


def test_kernel_agrees_with_the_definition(awkward: Measures) -> None:
    x, y, _, _ = awkward
    close(epsot.PointCloud(x, y).kernel().cost_rows(slice(None)), power_cost(x, y), 1e-12)
    close(epsot.PointCloud(x, y, p=1).T.kernel().cost_rows(slice(None)), power_cost(y, x, 1), 1e-12)
    close(epsot.PointCloud(x, y).source().kernel().cost_rows(slice(None)), power_cost(x, x), 1e-12)
    geometry = epsot.PointCloud(x, y)
    close(geometry.source_kernel(geometry.kernel()).cost_rows(slice(None)), power_cost(x, x), 1e-12)


def test_take(awkward: Measures) -> None:
    x, y, _, _ = awkward
    geometry = epsot.PointCloud(x, y)
    rows, columns = np.asarray([3, 0, 5]), np.asarray([1])
    part = geometry.take(rows, columns)
    assert part.shape == (3, 1)
    close(part.kernel().cost_rows(slice(None)), power_cost(x[rows], y[columns]), 1e-12)
    assert geometry.take(None, None).shape == geometry.shape


def test_is_self() -> None:
    x = measures(5, 5, 2).x
    assert epsot.PointCloud(x, x).is_self()
    assert epsot.PointCloud(x, x.copy()).is_self()
    assert not epsot.PointCloud(x, x[::-1]).is_self()
    assert not epsot.PointCloud(x, x[:4]).is_self()
    assert not epsot.PointCloud(x, x[:1]).is_self()


def test_other_points(awkward: Measures) -> None:
    x, y, _, _ = awkward
    d = x.shape[1]
    geometry = epsot.PointCloud(x, y)
    assert geometry.at(np.zeros((4, d))).shape == (4, len(y))
    assert epsot.PointCloud(x.astype(np.float32), y.astype(np.float32)).taken(x).dtype == np.float32
    for wrong in (np.zeros(d), np.zeros((2, d + 1)), np.full((2, d), np.nan)):
        with pytest.raises(ValueError, match="`points`"):
            geometry.taken(wrong)


@pytest.mark.parametrize("cost", ["manhattan", 3, epsot.Cost])
def test_unknown_cost(cost: object) -> None:
    with pytest.raises(ValueError, match="`cost`"):
        epsot.PointCloud([[0.0]], [[1.0]], cost=cost)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extent(dtype: Any) -> None:
    """The diagonal of the joint bounding box, a float."""
    x, y = np.asarray([[0.0, 0], [1, 1]], dtype=dtype), np.asarray([[3.0, -1], [2, 3]], dtype=dtype)
    assert epsot.extent(x, y) == 5.0
    assert type(epsot.extent(x, y)) is float
    assert epsot.extent(x, y) == epsot.PointCloud(x, y).diameter() == epsot.extent(y.tolist(), x.tolist())
    assert epsot.extent(x[:1], x[:1]) == 0
    with pytest.raises(ValueError, match="`y`"):
        epsot.extent(x, [1.0])
