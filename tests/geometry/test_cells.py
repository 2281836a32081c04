"""Cells hold the points that lie in them, with their weight and their mean, at every size."""

from __future__ import annotations

import numpy as np
import pytest

from epsot.arrays import common_place
from epsot.geometry.cells import BITS, Clusters, GridCells, cell_sizes


def brute(points, weights, low, width):
    """Weights and means of the cubes of side `width`, by their corners."""
    corners = np.floor((points - low) / width).astype(int)
    found = {}
    for corner, point, weight in zip(map(tuple, corners), points, weights, strict=True):
        whole, moment = found.get(corner, (0.0, 0.0))
        found[corner] = whole + weight, moment + weight * point
    return {corner: (whole, moment / whole) for corner, (whole, moment) in found.items()}


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("depth", [0, 1, 3, 6])
def test_grid(d, depth):
    rng = np.random.default_rng(d)
    points, weights = 5 + 3 * rng.random((400, d)), rng.random(400)
    points[:30] = points[30:60]  # coincident points
    low, span = points.min(axis=0) - 0.1, 3.3
    cells = GridCells(points, weights, low, span, common_place(points=points))
    centroids, whole = cells.at(depth)
    wanted = brute(points, weights, low, span / 2**depth)
    assert cells.count(depth) == len(centroids) == len(wanted)
    assert np.isclose(whole.sum(), weights.sum(), rtol=1e-13)
    for centroid, weight in zip(centroids, whole, strict=True):
        expected, mean = wanted[tuple(np.floor((centroid - low) / (span / 2**depth)).astype(int))]
        # differences of running sums: an ulp of the whole beside the weight of one cell, 1e-3 of it
        np.testing.assert_allclose(weight, expected, rtol=1e-9)
        np.testing.assert_allclose(centroid, mean, rtol=1e-9)


def test_the_finest_cells_are_the_points():
    rng = np.random.default_rng(0)
    points, weights = rng.random((50, 3)), rng.random(50)
    cells = GridCells(points, weights, np.zeros(3), 1.0, common_place(points=points))
    centroids, whole = cells.at(BITS)
    np.testing.assert_allclose(np.sort(centroids[:, 0]), np.sort(points[:, 0]), atol=2.0**-BITS)
    np.testing.assert_allclose(np.sort(whole), np.sort(weights), rtol=1e-12)
    assert len(cell_sizes(1.0)) == BITS + 1


def test_weights_over_twenty_decades_stay_positive_and_inside():
    """Differences of running sums lose what is small beside the whole: the cell goes, it does not turn negative."""
    rng = np.random.default_rng(1)
    points, weights = rng.random((3000, 2)), 10.0 ** (-20 * rng.random(3000))
    cells = GridCells(points, weights, np.zeros(2), 1.0, common_place(points=points))
    for depth in (2, 5, 8):
        centroids, whole = cells.at(depth)
        assert np.all(whole > 0)
        assert np.all((centroids >= 0) & (centroids <= 1))
        np.testing.assert_allclose(whole.sum(), weights.sum(), rtol=1e-10)


def test_clusters():
    rng = np.random.default_rng(2)
    points, weights = 100 + rng.normal(size=(300, 7)), rng.random(300)
    fine = rng.integers(12, size=300) * 5 - 20  # any integers, in any order
    labels = np.stack([fine // 20, fine], axis=1)
    clusters = Clusters(points, weights, labels, common_place(points=points))
    for depth in (0, 1):
        centroids, whole = clusters.at(depth)
        values = np.unique(labels[:, depth])
        assert clusters.count(depth) == len(values) == len(whole)
        square = 0.0
        for value, centroid, weight in zip(values, centroids, whole, strict=True):
            mine = labels[:, depth] == value
            np.testing.assert_allclose(weight, weights[mine].sum(), rtol=1e-12)
            np.testing.assert_allclose(centroid, np.average(points[mine], axis=0, weights=weights[mine]), rtol=1e-12)
            square += weights[mine] @ np.sum((points[mine] - centroid) ** 2, axis=1)
        np.testing.assert_allclose(clusters.width(depth), np.sqrt(12 / 7 * square / weights.sum()), rtol=1e-9)


def test_the_width_of_a_cube_is_its_side():
    points = np.random.default_rng(3).random((200_000, 3)) * 0.25
    labels = np.zeros((len(points), 1), int)
    clusters = Clusters(points, np.ones(len(points)), labels, common_place(points=points))
    assert abs(clusters.width(0) - 0.25) < 1e-3
