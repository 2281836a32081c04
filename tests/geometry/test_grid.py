"""Grids, beside clouds of the same points: everything that a result says is the same."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import kernels
from epsot.geometry import Separable
from epsot.kernels import tiled
from tests.checks import close

TOL: dict[str, Any] = {"tol": 1e-10}
SOURCE, TARGET = epsot.Grid((9, 7), spacing=(0.1, 0.15)), epsot.Grid((6, 8), spacing=0.12, origin=(0.1, 0.05))
LINE = epsot.Grid(30, spacing=0.05, origin=-0.3), epsot.Grid(21, spacing=0.07)
VOLUME = epsot.Grid((5, 4, 3), spacing=0.2), epsot.Grid((3, 4, 5), spacing=0.25, origin=0.1)
FOUR = epsot.Grid((3, 2, 3, 2), spacing=0.3), epsot.Grid((2, 3, 2, 3), spacing=0.4)
PAIRS = {"plane": (SOURCE, TARGET), "line": LINE, "volume": VOLUME, "four": FOUR}
REACHES = [None, 0.3, (None, 0.4)]


@pytest.fixture(autouse=True)
def portable_clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What grids are compared with takes the portable path: only the kernels of lattices are compiled."""

    def points(x: Any, y: Any, cost: Any, workers: int | None = None) -> tiled.Points:
        kernel = tiled.Points(x, y, cost)
        kernel.workers = workers
        return kernel

    monkeypatch.setattr(kernels, "points", points)
    monkeypatch.setattr(kernels, "point_batch", lambda *arguments: None)


def images(x: epsot.Grid, y: epsot.Grid, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Densities of mass 1, zero on whole slices and here and there."""
    rng = np.random.default_rng(seed)
    a, b = rng.random(x.shape) + 0.05, rng.random(y.shape) + 0.05
    a[:2], b[..., -1] = 0.0, 0.0
    a[rng.random(x.shape) < 0.1] = 0.0
    return a / a.sum(), b / b.sum()


def flat(image: np.ndarray) -> np.ndarray:
    return image.reshape(-1)


def clouds(x: epsot.Grid, y: epsot.Grid, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    return x.points, y.points, flat(a), flat(b)


def same(ours: Any, theirs: Any, tolerance: float = 1e-8) -> None:
    """Everything that two results say, of which one is over grids."""
    (shape_x, shape_y), d = ours.instance.geometry.supports, theirs.grad_x.shape[1]
    for name in ("value", "transport_cost", "dual", "primal"):
        close(getattr(ours, name), getattr(theirs, name), tolerance)
    for name, shape in (("f", shape_x), ("g", shape_y), ("grad_a", shape_x), ("grad_b", shape_y)):
        assert getattr(ours, name).shape == shape
        close(flat(getattr(ours, name)), getattr(theirs, name), 10 * tolerance)
    for name, shape in (("grad_x", shape_x), ("grad_y", shape_y), ("displacement", shape_x)):
        assert getattr(ours, name).shape == (*shape, d)
        close(getattr(ours, name).reshape(-1, d), getattr(theirs, name), 100 * tolerance)
    close(ours.plan.to_dense(), theirs.plan.to_dense(), tolerance)
    assert ours.status is theirs.status is epsot.Status.CONVERGED
    assert -1e-12 <= float(ours.gap) < 1e-6


def test_what_a_grid_is() -> None:
    grid = epsot.Grid((2, 3), spacing=(0.5, 2), origin=(1, -1), periodic=(False, True))
    close(grid.points, [[1, -1], [1, 1], [1, 3], [1.5, -1], [1.5, 1], [1.5, 3]], 0)
    assert (grid.size, grid.dimension, grid.periods) == (6, 2, (None, 6.0))
    assert (
        grid
        == pickle.loads(pickle.dumps(grid))
        == epsot.Grid(np.array([2, 3]), spacing=np.array([0.5, 2]), origin=[1.0, -1.0], periodic=[False, True])
    )
    assert epsot.Grid(4).shape == (4,)
    assert "spacing=(0.5, 2.0)" in repr(grid)


WRONG = [
    (((),), {}, ValueError, "`shape` must have at least one axis"),
    (((3, 0),), {}, ValueError, "`shape` must be at least 1"),
    (((3, 2.5),), {}, TypeError, "`shape` must be an integer"),
    (((2**20, 2**20),), {}, ValueError, "`shape` must hold at most"),
    ((3,), {"spacing": 0.0}, ValueError, "`spacing` must be positive"),
    (((3, 4),), {"spacing": (1, 2, 3)}, ValueError, "`spacing` must be one value or one for each of the 2 axes, got 3"),
    ((3,), {"origin": np.inf}, ValueError, "`origin` must be finite"),
    ((3,), {"periodic": 1}, TypeError, "`periodic` must be True or False"),
]


@pytest.mark.parametrize(("arguments", "options", "kind", "message"), WRONG, ids=lambda z: str(z)[:20])
def test_what_no_grid_is(arguments: Any, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        epsot.Grid(*arguments, **options)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("name", ["plane", "volume"])
def test_transport(name: str, reach: Any) -> None:
    a, b = images(*PAIRS[name])
    options: dict[str, Any] = {"blur": 0.1, "reach": reach, **TOL}
    same(epsot.sinkhorn(*PAIRS[name], a, b, **options), epsot.sinkhorn(*clouds(*PAIRS[name], a, b), **options))


@pytest.mark.parametrize("name", PAIRS)
def test_divergence(name: str) -> None:
    a, b = images(*PAIRS[name])
    options: dict[str, Any] = {"blur": 0.1, "reach": 0.5, **TOL}
    ours = epsot.sinkhorn_divergence(*PAIRS[name], 2 * a, b, **options)
    same(ours, epsot.sinkhorn_divergence(*clouds(*PAIRS[name], 2 * a, b), **options))


@pytest.mark.parametrize("cost", ["sqeuclidean", "cityblock", "euclidean"])
def test_other_costs(cost: str) -> None:
    """Sums over the axes, and any other through the points."""
    a, b = images(SOURCE, TARGET)
    target = epsot.Grid(TARGET.shape, spacing=0.12, origin=0.113)  # no node is one of the source up to rounding
    geometry = epsot.PointCloud(SOURCE, target, cost=cost)
    assert isinstance(geometry, Separable) == (cost != "euclidean")
    points = epsot.PointCloud(SOURCE.points, target.points, cost=cost)
    ours = epsot.divergence(geometry, a, b, eps=0.05, **TOL)
    same(ours, epsot.divergence(points, flat(a), flat(b), eps=0.05, **TOL))


def test_the_distance_and_a_cloud_go_through_the_points() -> None:
    a, b = images(SOURCE, TARGET)
    ours = epsot.sinkhorn_divergence(SOURCE, TARGET, a, b, blur=0.1, p=1, **TOL)
    same(ours, epsot.sinkhorn_divergence(*clouds(SOURCE, TARGET, a, b), blur=0.1, p=1, **TOL))
    mixed = epsot.sinkhorn_divergence(SOURCE.points, TARGET, flat(a), b, blur=0.1, **TOL)
    same(mixed, epsot.sinkhorn_divergence(*clouds(SOURCE, TARGET, a, b), blur=0.1, **TOL))
    assert mixed.f.shape == (63,)
    assert mixed.g.shape == (6, 8)
    turned = epsot.sinkhorn(TARGET, SOURCE.points.astype(np.float32), b, flat(a), blur=0.1)
    assert turned.f.shape == (6, 8)
    assert turned.f.dtype == np.float32


def test_no_annealing_to_a_tolerance() -> None:
    a, b = images(SOURCE, TARGET)
    ours = epsot.sinkhorn_divergence(SOURCE, TARGET, a, b, blur=0.1, tol=None, scaling=0.8)
    theirs = epsot.sinkhorn_divergence(*clouds(SOURCE, TARGET, a, b), blur=0.1, tol=None, scaling=0.8, diameter=1.3)
    assert ours.status is epsot.Status.SCHEDULE_ENDED
    close(ours.value, theirs.value, 1e-2)
    assert ours.marginal_error < 1.5 * theirs.marginal_error


def test_equal_measures() -> None:
    a, _ = images(SOURCE, TARGET)
    again = epsot.Grid((9, 7), spacing=(0.1, 0.15))
    result = epsot.sinkhorn_divergence(SOURCE, again, a, a.copy(), blur=0.1)
    assert result.value == 0
    assert result.xy is result.xx
    assert epsot.sinkhorn_divergence(SOURCE, again, blur=0.1).value == 0


def test_translations_of_an_image() -> None:
    """The divergence of a translate is half the squared length of the way, and the displacement is the way."""
    grid = epsot.Grid((40, 30), spacing=0.5)
    image = np.zeros(grid.shape)
    image[5:15, 4:12] = np.random.default_rng(1).random((10, 8))
    moved = np.roll(image, (12, 9), axis=(0, 1))
    result = epsot.sinkhorn_divergence(grid, grid, image / image.sum(), moved / moved.sum(), blur=0.5, tol=1e-7)
    close(result.value, (6.0**2 + 4.5**2) / 2, 1e-6)
    close(result.displacement[image > 0] - [6.0, 4.5], np.zeros((80, 2)), 1e-3)


# Float32, far away, and cold


def test_single_precision() -> None:
    a, b = images(SOURCE, TARGET)
    result = epsot.sinkhorn_divergence(SOURCE, TARGET, a.astype(np.float32), b.astype(np.float32), blur=0.1, tol=1e-5)
    wanted = epsot.sinkhorn_divergence(SOURCE, TARGET, a, b, blur=0.1, **TOL)
    for name in ("value", "f", "g", "grad_a", "displacement", "grad_y"):
        found = getattr(result, name)
        assert found.dtype == np.float32
        close(found, getattr(wanted, name), 2e-4)
    assert result.status is epsot.Status.CONVERGED


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_offset_and_no_size_takes_digits(dtype: Any) -> None:
    """Pixels a million wide and far: the square of a diameter, 1e8 temperatures, is nowhere rounded."""
    shape = (60, 4)
    grid = epsot.Grid(shape, spacing=1e6, origin=(1e12, -3e12))
    rng = np.random.default_rng(3)
    a, b = rng.random(shape).astype(dtype) + dtype(0.1), rng.random(shape).astype(dtype) + dtype(0.1)
    a[10:40] = 0
    a, b = a / a.sum(), b / b.sum()
    result = epsot.sinkhorn_divergence(grid, grid, a, b, blur=1e6)
    unit = epsot.sinkhorn_divergence(epsot.Grid(shape), epsot.Grid(shape), a, b, blur=1.0)
    assert result.status is unit.status is epsot.Status.CONVERGED
    close(result.value / 1e12, unit.value, 1e-5)
    close(result.displacement / 1e6, unit.displacement, 1e-3)


def test_grids_far_apart() -> None:
    """Bounds are differences: what every plan pays alike is taken out of both."""
    here, there = epsot.Grid((8, 6)), epsot.Grid((6, 8), origin=(3e4, 0))
    a, b = images(here, there)
    result = epsot.sinkhorn(here, there, a, b, blur=2.0, tol=1e-6)
    assert result.success
    assert -1e-9 <= float(result.gap) < 1e-3
    core, u, v = Separable.of(here, there).split()
    close(core.kernel().cost + u[:, None] + v[None, :], Separable.of(here, there).kernel().cost, 1e-12)


# Coarse to fine


def test_cells_and_points_are_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd shapes and unequal grids: the result is that of all temperatures on all points."""
    x, y = epsot.Grid((41, 23), spacing=(0.5, 0.7)), epsot.Grid((33, 50), spacing=0.45, origin=(3, -2))
    a, b = images(x, y)
    geometry = epsot.PointCloud(x, y)
    stages: list[tuple[int, ...]] = []
    ours = epsot.solve(geometry, a, b, eps=0.5, callback=lambda record: stages.append(record._stage.core.shape), **TOL)
    assert len(set(stages)) == 3
    assert stages == sorted(stages)
    monkeypatch.setattr(Separable, "resolutions", lambda *arguments, **options: None)
    theirs = epsot.solve(geometry, a, b, eps=0.5, **TOL)
    assert theirs.nit != ours.nit
    for name in ("value", "f", "g", "displacement", "grad_b", "dual", "primal"):
        close(getattr(ours, name), getattr(theirs, name), 1e-7)


def test_a_pyramid_keeps_the_mass() -> None:
    x, y = epsot.Grid((21, 64), spacing=(3.0, 1.0)), epsot.Grid(9, spacing=1.0)
    a, _ = images(x, x)
    pyramid = Separable.of(x, x).resolutions(flat(a), flat(a), own=True)
    shares = [pyramid.share(depth) for depth in range(len(pyramid.widths))]
    assert shares == sorted(shares)
    assert pyramid.widths == sorted(pyramid.widths, reverse=True)
    for depth, width in enumerate(pyramid.widths):
        geometry, weights, other = pyramid.at(depth)
        assert weights is other or (weights == other).all()
        close(weights.sum(), 1.0, 1e-14)
        assert all(step <= max(width, least) for step, least in zip(geometry.x.spacing, x.spacing, strict=True))
        mean = (weights[:, None] * geometry.x.points).sum(axis=0)
        exact = (flat(a)[:, None] * x.points).sum(axis=0)
        assert (np.abs(mean - exact) <= np.array(geometry.x.spacing) / 2).all()
    assert pyramid.at(0)[0].x.shape == (11, 8)
    assert Separable.of(y, y).resolutions(np.ones(9), np.ones(9)).widths == []


# Periodic axes


def images_of(x: np.ndarray, y: np.ndarray, periods: tuple[float | None, ...]) -> np.ndarray:
    """Differences to the nearest of many images.  (n, d), (m, d) -> (n, m, d)"""
    z = x[:, None] - y
    for k, period in enumerate(periods):
        if period is not None:
            turns = z[..., k, None] + period * np.arange(-4, 5)
            z[..., k] = np.take_along_axis(turns, np.abs(turns).argmin(axis=-1, keepdims=True), axis=-1)[..., 0]
    return z


@pytest.mark.parametrize("kind", ["squares", "cityblock", "distance"])
def test_periodic(kind: str) -> None:
    x = epsot.Grid((12, 5), spacing=(0.25, 0.3), periodic=(True, False))
    y = epsot.Grid((9, 7), spacing=(1 / 3, 0.2), origin=(7.1, 0), periodic=(True, False))
    a, b = images(x, y)
    options: dict[str, Any] = {"cost": "cityblock"} if kind == "cityblock" else {"p": 1 if kind == "distance" else 2}
    C, C_xx, C_yy = (
        {"squares": lambda z: 0.5 * (z**2).sum(-1), "cityblock": lambda z: np.abs(z).sum(-1)}.get(
            kind, lambda z: np.sqrt((z**2).sum(-1))
        )(images_of(one.points, other.points, x.periods))
        for one, other in ((x, y), (x, x), (y, y))
    )
    ours = epsot.divergence(epsot.PointCloud(x, y, **options), a, b, eps=0.1, **TOL)
    theirs = epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy), flat(a), flat(b), eps=0.1, **TOL)
    for name in ("value", "transport_cost", "dual", "primal", "f", "g"):
        close(flat(getattr(ours, name)), flat(getattr(theirs, name)), 1e-7)
    close(ours.plan.to_dense(), theirs.plan.to_dense(), 1e-8)
    points = np.random.default_rng(0).normal(size=(5, 2)) * 3
    moved = points + np.array([12 * 0.25, 0])
    close(ours.potential(points), ours.potential(moved), 1e-7)
    close(ours.transport(moved) - ours.transport(points), moved - points, 1e-7)


def test_moving_around_a_circle() -> None:
    """A field that has moved by a quarter turn has moved by that, not by three quarters back."""
    circle = epsot.Grid(64, spacing=1 / 64, periodic=True)
    field = np.exp(-0.5 * ((circle.points[:, 0] - 0.9 + 0.5) % 1 - 0.5) ** 2 / 0.03**2)
    field[field < 1e-6] = 0
    result = epsot.sinkhorn_divergence(circle, circle, field / field.sum(), np.roll(field, 16) / field.sum(), blur=0.03)
    close(result.displacement[field > 0.5] - 0.25, np.zeros((int((field > 0.5).sum()), 1)), 1e-3)
    close(result.value, 0.25**2 / 2, 1e-4)
    closed = epsot.Grid(63, spacing=1 / 63, periodic=True)  # an odd number of nodes through the pyramid
    assert epsot.sinkhorn(closed, circle, None, field / field.sum(), blur=0.05, tol=1e-6).success


# What follows from a result


def test_every_attribute() -> None:
    a, b = images(SOURCE, TARGET)
    for debiased in (False, True):
        result: Any = (epsot.sinkhorn_divergence if debiased else epsot.sinkhorn)(SOURCE, TARGET, a, b, blur=0.1)
        for name, _ in inspect.getmembers(type(result), lambda member: not inspect.isroutine(member)):
            if not name.startswith("_"):
                assert getattr(result, name) is not NotImplemented
        assert np.isfinite(result.f).all()
        assert (result.grad_x[a == 0] == 0).all()
        assert "CONVERGED" in repr(result)


def test_other_points() -> None:
    """Potentials and maps anywhere, and over other grids, which is faster."""
    a, b = images(SOURCE, TARGET)
    ours = epsot.sinkhorn_divergence(SOURCE, TARGET, a, b, blur=0.1, **TOL)
    theirs = epsot.sinkhorn_divergence(*clouds(SOURCE, TARGET, a, b), blur=0.1, **TOL)
    points = np.random.default_rng(2).random((11, 2))
    other = epsot.Grid((4, 3), spacing=0.2, origin=0.03)
    for mine, wanted in ((ours, theirs), (ours.xy, theirs.xy)):
        close(mine.potential(points), wanted.potential(points), 1e-8)
        close(mine.transport(points), wanted.transport(points), 1e-7)
        close(flat(mine.potential(other)), wanted.potential(other.points), 1e-8)
        assert mine.transport(other).shape == (4, 3, 2)
        close(mine.transport(other).reshape(-1, 2), wanted.transport(other.points), 1e-7)
    close(ours.transport(SOURCE) - SOURCE.points.reshape(9, 7, 2), ours.displacement, 1e-6)
    for wrong, message in ((points[:, :1], "2 coordinates, as the grid"), (epsot.Grid(3), "got a Grid of 1")):
        with pytest.raises(ValueError, match=message):
            ours.transport(wrong)


def test_plan() -> None:
    a, b = images(SOURCE, TARGET)
    plan = epsot.sinkhorn(SOURCE, TARGET, a, b, blur=0.1, **TOL).plan
    P, (n, m) = plan.to_dense(), (63, 48)
    v = np.random.default_rng(0).normal(size=(m, 3))
    close(plan @ v, P @ v, 1e-12)
    close(np.ones((2, n)) @ plan, np.ones((2, n)) @ P, 1e-12)
    close(plan.T @ np.arange(63.0), P.T @ np.arange(63.0), 1e-11)
    close(plan.sum(axis=1), flat(a), 1e-9)
    close(plan.sum(axis=0), flat(b), 1e-9)
    close(plan.rows(np.array([20, 30])), P[[20, 30]], 1e-15)
    close(plan.to_sparse(1.0).toarray(), P, 1e-12)
    assert (plan.argmax(axis=1)[flat(a) > 0] == P[flat(a) > 0].argmax(axis=1)).all()
    weighted = (P @ TARGET.points)[flat(a) > 0] / flat(a)[flat(a) > 0, None]
    close(plan.barycentric_map()[flat(a) > 0], weighted, 1e-7)
    close(plan.as_linear_operator() @ v[:, 0], P @ v[:, 0], 1e-12)
    i, j = plan.sample(50, rng=0)
    assert (P[i, j] > 0).all()


def test_observers_and_starts() -> None:
    """What a callback sees has the shape of the grid, whatever it is solved on; a result of any grid is a start."""
    x, y = epsot.Grid((24, 20), spacing=0.1), epsot.Grid((20, 24), spacing=0.1)
    a, b = images(x, y)
    seen: list[Any] = []

    def look(record: Any) -> None:
        seen.append((record.nit, record.f.shape, record.g.shape, record.marginal_error))

    first = epsot.sinkhorn(x, y, a, b, blur=0.1, callback=look, **TOL)
    assert [nit for nit, *_ in seen] == list(range(1, first.nit + 1))
    assert {(f, g) for _, f, g, _ in seen} == {(x.shape, y.shape)}
    assert epsot.sinkhorn(x, y, a, b, blur=0.1, init=first, **TOL).nit <= 2
    half = (epsot.Grid((n // 2, m // 2), spacing=0.2, origin=0.05) for n, m in (x.shape, y.shape))
    sums = (a.reshape(12, 2, 10, 2).sum((1, 3)), b.reshape(10, 2, 12, 2).sum((1, 3)))
    coarse = epsot.sinkhorn(*half, *sums, blur=0.1)
    for init in (coarse, epsot.sinkhorn(*clouds(x, y, a, b), blur=0.1)):
        again = epsot.sinkhorn(x, y, a, b, blur=0.1, init=init, **TOL)
        assert again.nit < first.nit
        close(again.value, first.value, 1e-9)
    cloud = epsot.sinkhorn(*clouds(x, y, a, b), blur=0.1, init=first, **TOL)
    close(cloud.value, first.value, 1e-9)


def test_stopped() -> None:
    def stop(record: Any) -> None:
        raise StopIteration

    a, b = images(SOURCE, TARGET)
    result = epsot.sinkhorn(SOURCE, TARGET, a, b, blur=0.1, callback=stop)
    assert result.status is epsot.Status.STOPPED
    assert result.f.shape == SOURCE.shape


# What is refused

A, B = images(SOURCE, TARGET)
REFUSED = [
    (lambda: epsot.sinkhorn(SOURCE, TARGET, flat(A), B, blur=1), ValueError, r"`a` must have shape \(9, 7\), that of"),
    (lambda: epsot.sinkhorn(SOURCE, TARGET, A, B.T, blur=1), ValueError, r"`b` must have shape \(6, 8\)"),
    (lambda: epsot.sinkhorn(SOURCE, epsot.Grid(5), A, blur=1), ValueError, "points of the same dimension, got 2 and 1"),
    (lambda: epsot.sinkhorn(epsot.Grid(4, periodic=True), epsot.Grid(4), blur=1), ValueError, "equal periods"),
    (lambda: epsot.sinkhorn(epsot.Grid(4, periodic=True), epsot.Grid(5, periodic=True), blur=1), ValueError, "axis 0"),
    (lambda: epsot.sinkhorn([SOURCE, TARGET], TARGET, blur=1), TypeError, "a list of grids is no batch"),
    (lambda: epsot.sinkhorn(SOURCE, TARGET, -A, B, blur=1), ValueError, "`a` must not be negative"),
    (lambda: epsot.sinkhorn(SOURCE, TARGET, 2 * A, B, blur=1), ValueError, "equal mass"),
    (lambda: epsot.sinkhorn(SOURCE, TARGET, np.stack([A, A])[:, 1:], B, blur=1), ValueError, "shape of its grid"),
    (lambda: epsot.permutation_test(SOURCE, TARGET, blur=1), TypeError, "points that were drawn, got a Grid"),
    (lambda: epsot.PointCloud(epsot.Grid((3, 3), periodic=True), np.ones((4, 2)), cost="cosine"), ValueError, "`cost`"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


# Many images


def test_many_images_over_one_grid() -> None:
    a = np.stack([images(SOURCE, TARGET, seed)[0] for seed in range(3)])
    b = images(SOURCE, TARGET)[1]
    seen: list[Any] = []
    batch = epsot.sinkhorn_divergence(
        SOURCE, TARGET, a, b, blur=0.1, tol=1e-6, callback=lambda record: seen.append((record.nit, record.f.shape))
    )
    assert batch.f.shape == (3, 9, 7)
    assert batch.grad_y.shape == (3, 6, 8, 2)
    for k in range(3):
        alone = epsot.sinkhorn_divergence(SOURCE, TARGET, a[k], b, blur=0.1, tol=1e-6)
        for name in ("value", "f", "g", "grad_a", "grad_b", "displacement", "nit", "marginal_error"):
            close(getattr(batch, name)[k], getattr(alone, name), 1e-14)
        assert batch[k].plan.shape == (63, 48)
    assert seen[0][0].tolist() == [1, 0, 0]
    assert seen[-1][0].tolist() == batch.nit.tolist()
    assert {shape for _, shape in seen} == {(3, 9, 7)}
    again = epsot.sinkhorn_divergence(SOURCE, TARGET, a, b, blur=0.1, tol=1e-6, init=batch)
    assert (again.nit <= 2).all()
    listed = epsot.solve(epsot.PointCloud(SOURCE, TARGET), list(a), b, eps=[0.01, 0.02, 0.03])
    close(listed.value[0], batch.xy.value[0], 1e-4)
    through = epsot.sinkhorn(SOURCE, TARGET, a, b, blur=0.1, p=1)
    assert through.displacement.shape == (3, 9, 7, 2)


def test_a_stopped_batch() -> None:
    def stop(record: Any) -> None:
        if record.nit[1] == 2:
            raise StopIteration

    a = np.stack([images(SOURCE, TARGET, seed)[0] for seed in range(3)])
    batch = epsot.sinkhorn(SOURCE, TARGET, a, images(SOURCE, TARGET)[1], blur=0.1, callback=stop)
    assert batch.status.tolist() == [epsot.Status.CONVERGED, epsot.Status.STOPPED, epsot.Status.STOPPED]


def test_all_pairs() -> None:
    a = np.stack([images(SOURCE, TARGET, seed)[0] for seed in range(3)])
    b = np.stack([images(SOURCE, TARGET, seed)[1] for seed in range(2)])
    for p in (2, 1):
        ours = epsot.pairwise(SOURCE, TARGET, a, b, blur=0.1, p=p, tol=1e-6)
        flat_a, flat_b = a.reshape(3, -1), b.reshape(2, -1)
        theirs = epsot.pairwise(SOURCE.points, TARGET.points, flat_a, flat_b, blur=0.1, p=p, tol=1e-6)
        close(ours.value, theirs.value, 1e-6)
    within = epsot.pairwise(SOURCE, a=a, blur=0.1)
    assert (np.diag(within.value) == 0).all()
    close(within.value, within.value.T, 0)
    close(epsot.pairwise(SOURCE.points, TARGET, flat_a, b, blur=0.1).value, ours.value * 0 + within_of(a, b), 1e-2)


def within_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([[epsot.sinkhorn_divergence(SOURCE, TARGET, z, w, blur=0.1).value for w in b] for z in a])


@pytest.mark.parametrize("p", [2, 1])
def test_an_objective_of_weights(p: float) -> None:
    b = images(SOURCE, TARGET)[1]
    objective = epsot.Objective(TARGET, b, blur=0.1, wrt="a", x=SOURCE, tol=1e-10, p=p)
    z = np.random.default_rng(4).normal(size=63)
    value, gradient = objective(z)
    assert objective.variable(z).shape == SOURCE.shape
    for k in (0, 30):
        step = np.zeros(63)
        step[k] = 1e-4
        close((objective(z + step)[0] - objective(z - step)[0]) / 2e-4, gradient[k], 1e-7)
    close(value, epsot.sinkhorn_divergence(SOURCE, TARGET, objective.variable(z), b, blur=0.1, p=p).value, 1e-4)
    moved = epsot.Objective(TARGET, b, blur=0.1)
    assert moved(SOURCE.points.ravel())[1].shape == (126,)


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids are where their weights are."""
    strict = pytest.importorskip("array_api_strict")
    torch = pytest.importorskip("torch")
    a, b = images(SOURCE, TARGET)
    ours = epsot.sinkhorn_divergence(SOURCE, TARGET, a, b, blur=0.1, tol=1e-6)
    for xp, dtype in ((strict, strict.float64), (torch, torch.float32)):
        result = epsot.sinkhorn_divergence(
            SOURCE, TARGET, xp.asarray(a, dtype=dtype), xp.asarray(b, dtype=dtype), blur=0.1, tol=1e-6
        )
        for name in ("value", "f", "grad_b", "displacement", "gap"):
            found = getattr(result, name)
            assert type(found) is type(xp.asarray(0.0))
            assert found.dtype == dtype
            close(np.asarray(found), getattr(ours, name), 1e-4)
        assert type(result.plan @ xp.ones(48, dtype=dtype)) is type(xp.asarray(0.0))
        assert type(result.transport(xp.ones((2, 2), dtype=dtype))) is type(xp.asarray(0.0))
        distance = epsot.sinkhorn(SOURCE, TARGET, xp.asarray(a, dtype=dtype), None, blur=0.1, p=1, reach=1.0)
        assert distance.g.shape == TARGET.shape
        assert distance.g.dtype == dtype
