"""Derivatives of sums of a plan by the fused kernels, against all pairs of the reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epsot.arrays import common_place
from epsot.costs import Cityblock, Cost, Euclidean, HalfSquare, Square
from epsot.geometry.tangents import FusedTangents, PairTangents
from epsot.kernels import cpu, reference

FEW = (
    (Euclidean(), 2, np.float64),
    (Square(), 8, np.float64),
)
MORE = [
    (Euclidean(), 1, np.float64),
    (Cityblock(), 2, np.float64),
    (Euclidean(), 2, np.float32),
    *((cost, d, dtype) for cost in (Euclidean(), Cityblock()) for d in (3, 17) for dtype in (np.float32, np.float64)),
    *((cost, d, np.float32) for cost in (HalfSquare(), Square()) for d in (2, 8)),
]
KERNELS = [*FEW, *(pytest.param(*case, marks=pytest.mark.every) for case in MORE)]


def agree(
    cost: Cost, d: int, dtype: Any, n: int, m: int, rng: np.random.Generator, error: float, offset: float = 100.0
) -> None:
    """`strain` and `change` along two directions, one of them large, of clouds with common points and a weight of 0."""
    x, y = ((rng.random((size, d)) + offset).astype(dtype) for size in (n, m))
    y[:3] = x[:3]
    k, h, eps = rng.normal(size=n) - 3, rng.normal(size=m), 0.1
    k[1] = h[-1] = -np.inf
    t, v, w = (rng.normal(size=shape) * np.asarray([1e-3, 10.0]) for shape in ((m, 2), (n, d, 2), (m, d, 2)))
    wide = [z.astype(np.float64) for z in (x, y)]
    arguments = (k, h, eps), *wide, common_place(x=x), None
    ours = FusedTangents(cost, cpu.Points(x, y, cost), *arguments)
    theirs = PairTangents(cost, reference.Points(*wide, cost), *arguments)
    calls: list[Any] = [lambda z: z.strain(w, t)]
    calls += [lambda z, pair=pair: z.change(t, *pair) for pair in ((v, w), (v, None), (None, w), (None, None))]
    for call in calls:
        for found, wanted in zip(call(ours), call(theirs), strict=True):
            assert found.shape == wanted.shape
            assert np.all(np.abs(found - wanted) <= error * np.abs(wanted).max(axis=0)), call


@pytest.mark.parametrize(("cost", "d", "dtype"), KERNELS, ids=str)
def test_every_form(cost: Cost, d: int, dtype: Any, rng: np.random.Generator) -> None:
    """Float32 points round logits to 1e-7 of the costs over eps, some tens, and slopes to as much of a coordinate."""
    agree(cost, d, dtype, 130, 90, rng, 1e-12 if dtype == np.float64 else 2e-4 if d > 3 else 1e-5)


@pytest.mark.every
def test_few_rows_against_many_columns(rng: np.random.Generator) -> None:
    """Which are summed in parts."""
    agree(Euclidean(), 2, np.float64, 20, 6000, rng, 1e-12)
    agree(HalfSquare(), 8, np.float64, 20, 9000, rng, 1e-12)


@pytest.mark.every
def test_float32_has_room_for_any_direction(rng: np.random.Generator) -> None:
    """Directions of 1e-60 and 1e60 are those of 1, times that."""
    x, y = (rng.random((70, 2)).astype(np.float32) for _ in range(2))
    kernel, k = cpu.Points(x, y, Euclidean()), np.zeros(70)
    t, v, w = rng.normal(size=(70, 1)), rng.normal(size=(70, 2, 1)), rng.normal(size=(70, 2, 1))
    plain = kernel.cost_tangents(k, k, 0.1, t, v, w, turning=True)
    for size in (2.0**-200, 2.0**200):
        scaled = kernel.cost_tangents(k, k, 0.1, size * t, size * v, size * w, turning=True)
        np.testing.assert_array_equal(scaled, size * plain)


def test_bits_do_not_depend_on_the_threads(rng: np.random.Generator) -> None:
    x, y, v = rng.random((700, 2)), rng.random((900, 2)), rng.normal(size=(700, 2, 1))
    k, h, t = np.zeros(700), np.zeros(900), rng.normal(size=(900, 1))
    one, two = (
        cpu.Points(x, y, Euclidean(), workers).cost_tangents(k, h, 0.1, t, v, None, turning=True) for workers in (1, 2)
    )
    np.testing.assert_array_equal(one, two)
