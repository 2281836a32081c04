"""Multiscale with clusters of the user's own, in more than three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.geometry import Multiscale
from tests.checks import close

N, M, D = 60, 50, 5
EPS = 0.3


def problem() -> tuple[np.ndarray, ...]:
    """Three clusters in 5-D far from the origin, weights of which some are zero, labels."""
    rng = np.random.default_rng(0)
    labels_x, labels_y = rng.integers(0, 3, N), rng.integers(0, 3, M)
    centres = 3 + rng.normal(size=(3, D))
    x = centres[labels_x] + 0.1 * rng.normal(size=(N, D))
    y = centres[labels_y] + 0.1 * rng.normal(size=(M, D))
    a, b = rng.random(N), rng.random(M)
    a[labels_x == 1] = 0  # a whole cluster
    b[3] = 0
    return x, y, 2 * a / a.sum(), 2 * b / b.sum(), labels_x, labels_y


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
@pytest.mark.parametrize("rho", [None, 0.5, (None, 2.0)])
def test_the_result_is_that_of_all_points(cost: str, rho: Any) -> None:
    x, y, a, b, labels_x, labels_y = problem()
    eps = 0.01 if cost == "cosine" else EPS
    options: dict[str, Any] = {"eps": eps, "rho": rho, "tol": 1e-10}
    exact = epsot.divergence(epsot.PointCloud(x, y, cost=cost), a, b, **options)
    coarse = epsot.divergence(Multiscale(x, y, cost=cost, labels_x=labels_x, labels_y=labels_y), a, b, **options)
    assert coarse.success
    close(coarse.value, exact.value, 1e-8)
    close(coarse.displacement, exact.displacement, 1e-7)


@pytest.mark.parametrize(
    ("labels_x", "labels_y"),
    [
        (np.zeros(N, int), np.zeros(M, int)),  # one cluster
        (np.arange(N), np.arange(M)),  # one point each
        (np.zeros(N, int), np.arange(M)),
        (np.arange(N) % 7 - 100, (np.arange(M) % 2).astype(np.uint8)),  # any numbers, any integer type
        ((np.arange(N) % 5).tolist(), (np.arange(M) % 5).tolist()),
        (np.stack([np.arange(N) % 2, np.arange(N) % 20], 1), np.stack([np.zeros(M, int), np.arange(M) % 13], 1)),
    ],
)
def test_any_clusters_do(labels_x: Any, labels_y: Any) -> None:
    x, y, a, b, _, _ = problem()
    exact = epsot.solve(epsot.PointCloud(x, y), a, b, eps=EPS, tol=1e-10)
    coarse = epsot.solve(Multiscale(x, y, labels_x=labels_x, labels_y=labels_y), a, b, eps=EPS, tol=1e-10)
    assert coarse.success
    close(coarse.value, exact.value, 1e-9)


def test_observers_see_all_points() -> None:
    x, y, a, b, labels_x, labels_y = problem()
    geometry, seen = Multiscale(x, y, labels_x=labels_x, labels_y=labels_y), []
    epsot.solve(geometry, a, b, eps=EPS, callback=lambda record: seen.append((record.f, record.g)))
    for f, g in seen:
        assert f.shape == (N,) and np.all(np.isfinite(f))
        assert g.shape == (M,) and np.all(np.isfinite(g))


def test_labels_are_copied() -> None:
    """As the points are: what the user does to an array later changes nothing."""
    x, y, _, _, labels_x, labels_y = problem()
    geometry = Multiscale(x, y, labels_x=labels_x, labels_y=labels_y)
    labels_x[:] = 0
    assert np.ptp(geometry.labels_x) > 0


def test_repr_tells_the_class() -> None:
    x, y, _, _, labels_x, labels_y = problem()
    assert repr(Multiscale(x, y, labels_x=labels_x, labels_y=labels_y)).startswith("Multiscale(")


@pytest.mark.parametrize("share", [1e-12, 1e-14, 1e-15, 1e-16])
def test_a_cluster_of_hardly_any_weight_stays_among_the_points(share: float) -> None:
    """Its moments are differences of sums that are larger by 1 / share."""
    x, y, _, b, labels_x, labels_y = problem()
    for seed in range(20):
        a = np.random.default_rng(seed).random(N)
        a[labels_x == 1] *= share
        geometry = Multiscale(x, y, labels_x=labels_x, labels_y=labels_y)
        centroids = geometry.resolutions(a, b).at(0)[0].x
        assert np.all(centroids >= x.min(axis=0)) and np.all(centroids <= x.max(axis=0))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_cells_are_measured_in_the_units_of_the_cost(scale: float) -> None:
    """The cosine cost sees directions alone, and its blur is that of unit vectors."""
    x, y, a, b, labels_x, labels_y = problem()
    a, b = a + 1, b + 1
    labels = {"labels_x": labels_x, "labels_y": labels_y}
    unit = Multiscale(x / np.linalg.norm(x, axis=1)[:, None], y, cost="cosine", **labels)
    scaled = Multiscale(scale * x, scale * y, cost="cosine", **labels)
    close(scaled.resolutions(a, b).widths, unit.resolutions(a, b).widths, 1e-12)


def test_opposite_directions_in_one_cluster() -> None:
    """Their centroid has no direction."""
    rng = np.random.default_rng(0)
    y = 0.01 * rng.normal(size=(M, D))
    x = np.concatenate([np.eye(D), -np.eye(D)])
    labels_x, labels_y = np.arange(2 * D) % D, np.arange(M) % 5
    exact = epsot.solve(epsot.PointCloud(x, y, cost="cosine"), eps=0.5, tol=1e-10)
    coarse = epsot.solve(Multiscale(x, y, cost="cosine", labels_x=labels_x, labels_y=labels_y), eps=0.5, tol=1e-10)
    assert coarse.success
    close(coarse.value, exact.value, 1e-9)
