"""From coarse to fine: the same solution as on all points at once, and what the user sees on the way."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import Status, kernels
from epsot.drivers import coarse_to_fine
from epsot.drivers.coarse_to_fine import OF_POINTS
from epsot.drivers.options import Options
from epsot.geometry import Multiscale, PointCloud, multiscale
from epsot.problems.instance import pose
from tests.checks import close
from tests.cuda import fake_cupy

N, M = 700, 500


def uniform(rng: np.random.Generator, size: int, d: int) -> np.ndarray:
    return rng.random((size, d))


def clusters(rng: np.random.Generator, size: int, d: int) -> np.ndarray:
    return rng.random((5, d))[rng.integers(5, size=size)] + 0.03 * rng.normal(size=(size, d))


def line(rng: np.random.Generator, size: int, d: int) -> np.ndarray:
    return np.sort(rng.random((size, 1)), axis=0) * np.arange(1, d + 1) / d


def duplicates(rng: np.random.Generator, size: int, d: int) -> np.ndarray:
    return rng.random((60, d))[rng.integers(60, size=size)]


def shells(rng: np.random.Generator, size: int, d: int) -> np.ndarray:
    directions = rng.normal(size=(size, d))
    return 0.5 * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def far(rng: np.random.Generator, size: int, d: int) -> np.ndarray:
    return rng.random((size, d)) + 20.0 * (size == M)


CLOUDS = [uniform, clusters, line, duplicates, shells, far]


def measures(make: Any, d: int = 3, dtype: Any = np.float64, decades: float = 1.0, mass: float = 1.0) -> tuple:
    """Two clouds with weights over some decades, one of them zero; the second of another mass."""
    rng = np.random.default_rng(7)
    x, y = make(rng, N, d).astype(dtype), make(rng, M, d).astype(dtype)
    a, b = (10.0 ** (-decades * rng.random(size)) for size in (N, M))
    a[3] = b[5] = 0.0
    return x, y, a / a.sum(), mass * b / b.sum()


def fewer_if_portable(data: tuple) -> tuple:
    """Half as many points, where every pair of them is in memory."""
    if not kernels.jit_is_off():
        return data
    x, y, a, b = (z[: len(z) // 2] for z in data)
    return x, y, a / a.sum(), b / b.sum()


def both(data: tuple, solve: Any = epsot.divergence, p: int = 2, **options: Any) -> tuple[Any, Any]:
    x, y, a, b = data
    return tuple(solve(kind(x, y, p=p), a, b, **options) for kind in (Multiscale, PointCloud))


def agree(ours: Any, theirs: Any, tolerance: float) -> None:
    """Everything that users take out, in units of the largest number of its kind."""
    assert ours.status is theirs.status
    for name in ("value", "f", "g", "grad_x", "grad_y", "grad_a", "grad_b", "displacement"):
        got, wanted = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * max(1e-3, np.abs(wanted).max()), err_msg=name)


@pytest.mark.parametrize("make", CLOUDS)
@pytest.mark.parametrize("blur", [0.3, 0.05])
def test_same_solution(make: Any, blur: float) -> None:
    """At a tight tolerance both are the solution."""
    ours, theirs = both(measures(make), eps=blur**2, tol=1e-9, max_iter=20_000)
    agree(ours, theirs, 1e-5)


@pytest.mark.parametrize("options", [{"rho": 0.5}, {"rho": (0.2, None)}, {"rho": (None, 0.3)}], ids=str)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_same_solution_unbalanced(options: dict, d: int) -> None:
    ours, theirs = both(measures(clusters, d, mass=1.7), eps=0.01, tol=1e-9, max_iter=20_000, **options)
    agree(ours, theirs, 1e-5)


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize("d", [1, 2, 3])
def test_same_solution_for_distances(d: int) -> None:
    ours, theirs = both(fewer_if_portable(measures(clusters, d)), eps=0.01, tol=1e-9, max_iter=20_000, p=1)
    agree(ours, theirs, 1e-5)


def test_weights_over_ten_decades() -> None:
    ours, theirs = both(measures(uniform, 2, decades=10.0), eps=0.05**2, tol=1e-9, max_iter=20_000)
    agree(ours, theirs, 1e-5)


@pytest.mark.usefixtures("any_path")
@pytest.mark.parametrize("cost", ["sqeuclidean", "cityblock", "cosine"])
def test_named_costs(cost: str) -> None:
    x, y, a, b = fewer_if_portable(measures(clusters))
    ours, theirs = (epsot.solve(kind(x, y, cost=cost), a, b, eps=0.02, tol=1e-9) for kind in (Multiscale, PointCloud))
    agree(ours, theirs, 1e-5)


def test_a_cost_of_the_users_own() -> None:
    class Quartic(epsot.Cost):
        degree = 4.0

        def value(self, x: Any, y: Any) -> Any:
            return np.sum((x - y) ** 2, axis=-1) ** 2

        def gradient(self, x: Any, y: Any) -> Any:
            return 4 * np.sum((x - y) ** 2, axis=-1)[..., None] * (x - y)

    x, y, a, b = measures(uniform, 2)
    clouds = (kind(x, y, cost=Quartic()) for kind in (Multiscale, PointCloud))
    ours, theirs = (epsot.solve(cloud, a, b, eps=0.01, tol=1e-9) for cloud in clouds)
    agree(ours, theirs, 1e-5)


@pytest.mark.parametrize("make", CLOUDS)
def test_float32_to_the_default_tolerance(make: Any) -> None:
    """What two results to a tolerance of 1e-3 may differ by: some of it, in the units of the clouds."""
    ours, theirs = both(measures(make, dtype=np.float32), eps=0.1**2)
    assert ours.success
    assert ours.displacement.dtype == ours.f.dtype == np.float32
    assert ours.marginal_error <= 1e-3
    assert abs(float(ours.value - theirs.value)) <= 2e-3 * max(0.1, float(theirs.value))
    assert np.abs(ours.displacement - theirs.displacement).max() <= 0.05 * max(0.1, np.abs(theirs.displacement).max())


def test_the_reported_error_is_that_of_the_plan() -> None:
    x, y, a, b = measures(clusters)
    result = epsot.solve(Multiscale(x, y), a, b, eps=0.05**2)
    P = result.plan.to_dense()
    violation = max(np.abs(P.sum(axis=1) - a).sum(), np.abs(P.sum(axis=0) - b).sum())
    close(result.marginal_error, violation, 1e-6)
    assert result.success


def test_everything_derived() -> None:
    """Plans, maps and certificates refer to all points."""
    ours, theirs = both(measures(clusters, 2), epsot.solve, eps=0.05**2, tol=1e-9, max_iter=20_000)
    z = np.random.default_rng(1).random((9, 2))
    close(ours.transport(z), theirs.transport(z), 1e-5)
    close(ours.potential(z), theirs.potential(z), 1e-5)
    close(ours.plan.barycentric_map(), theirs.plan.barycentric_map(), 1e-5)
    close(ours.plan.to_dense(), theirs.plan.to_dense(), 1e-5)
    assert 0 <= float(ours.gap) <= 1e-6


def test_a_warm_start_sees_all_points_at_once() -> None:
    x, y, a, b = measures(clusters, 2)
    first = epsot.divergence(Multiscale(x, y), a, b, eps=0.05**2, tol=1e-6)
    again = epsot.divergence(Multiscale(x, y), a, b, eps=0.05**2, tol=1e-6, init=first)
    assert again.nit <= 3
    assert again.success


def test_without_a_tolerance_it_is_the_tutorials_algorithm() -> None:
    ours, theirs = both(measures(uniform, 2), eps=0.05**2, tol=None)
    agree(ours, theirs, 1e-12)
    assert ours.nit == theirs.nit


def test_one_point_and_equal_points() -> None:
    point = np.full((4, 2), 0.3)
    result = epsot.divergence(Multiscale(point, point[:3] + 1.0), eps=0.01)
    close(result.value, 1.0, 1e-6)
    assert epsot.divergence(Multiscale(point, point), eps=0.01).value == 0
    result = epsot.solve(Multiscale(point[:1], point[:1]), eps=0.01)
    close(result.value, 0.0, 1e-12)
    assert result.success


def test_offsets_cost_no_digits() -> None:
    x, y, a, b = measures(clusters, 3, np.float32)
    exact = np.float32(512.0)
    x, y = np.round(x * 2**12) / 2**12, np.round(y * 2**12) / 2**12  # so that the shift is exact
    near = epsot.divergence(Multiscale(x, y), a, b, eps=0.05**2)
    moved = epsot.divergence(Multiscale(x + exact, y + exact), a, b, eps=0.05**2)
    close(moved.value, near.value, 1e-4)
    close(moved.displacement, near.displacement, 1e-3)


def stages_of(geometry: Multiscale, eps: float) -> list:
    instance = pose(geometry, None, None, eps=eps, rho=(None, None), rho_name="rho", workers=None)
    measures = (measure.weights for measure in (instance.problem.a, instance.problem.b))
    resolutions = geometry.resolutions(*measures, own=instance.problem.own)
    return list(coarse_to_fine.stages(instance, resolutions, Options(geometry.scale(), 0.5, 1e-3, 1000, None)))


def test_cells_follow_the_blur() -> None:
    """Temperatures fall, cells get finer, none is wider than its blur asks, and the last stage is the problem."""
    rng = np.random.default_rng(0)
    geometry = Multiscale(rng.random((4000, 2)), rng.random((5000, 2)))
    stages = stages_of(geometry, 0.05**2)
    assert stages[-1].instance.geometry is geometry
    assert stages[-1].levels[-1].eps == 0.05**2
    temperatures = [level.eps for stage in stages for level in stage.levels]
    assert temperatures == sorted(temperatures, reverse=True)
    sizes = [stage.instance.core.shape for stage in stages]
    assert sizes == sorted(set(sizes))
    assert len(stages) >= 5
    for stage in stages[:-1]:
        cells = stage.instance.core.shape[0]
        blur = math.sqrt(stage.levels[-1].eps)
        assert cells >= (1 / (2 * OF_POINTS.widest * blur)) ** 2 * 0.5  # the square is full
        assert cells <= OF_POINTS.nearly_all * 4000 * 1.2
        np.testing.assert_allclose(float(np.sum(stage.instance.problem.a.weights)), 1.0, rtol=1e-12)


def test_small_sides_keep_their_points() -> None:
    """With a handful of targets the cells of the many sources still serve."""
    rng = np.random.default_rng(0)
    stages = stages_of(Multiscale(rng.random((5000, 2)), rng.random((4, 2))), 0.05**2)
    assert len(stages) > 3


def test_callbacks_see_the_points_from_the_first_iteration_on() -> None:
    x, y, a, b = measures(clusters, 2)
    seen = []

    def callback(intermediate: Any) -> None:
        assert intermediate.f.shape == (N,)
        assert intermediate.g.shape == (M,)
        assert np.all(np.isfinite(intermediate.f))
        assert np.all(np.isfinite(intermediate.g))
        seen.append((intermediate.nit, intermediate.eps, intermediate.marginal_error))

    result = epsot.solve(Multiscale(x, y), a, b, eps=0.05**2, callback=callback)
    assert [nit for nit, _, _ in seen] == list(range(1, result.nit + 1))
    assert seen[-1][1] == result.eps
    assert seen[0][1] > result.eps
    assert {check.eps for check in result.history} == {result.eps}
    assert min(check.marginal_error for check in result.history) == pytest.approx(result.marginal_error)


@pytest.mark.parametrize("after", [1, 4, 15])
def test_stopping(after: int) -> None:
    """Wherever it is stopped, what is returned belongs to the points and to the target."""
    x, y, a, b = measures(clusters, 2)

    def callback(intermediate: Any) -> None:
        if intermediate.nit == after:
            raise StopIteration

    result = epsot.solve(Multiscale(x, y), a, b, eps=0.05**2, tol=1e-8, callback=callback)
    assert result.status is Status.STOPPED
    assert result.f.shape == (N,)
    assert result.eps == 0.05**2
    assert result.marginal_error < 2
    assert after <= result.nit <= after + 2  # one more step on the cells at hand, one on the points


@pytest.mark.parametrize("max_iter", [1, 2, 7, 12])
def test_iterations_are_counted_together(max_iter: int) -> None:
    x, y, a, b = measures(clusters, 2)
    with pytest.warns(epsot.ConvergenceWarning, match="MAX_ITER"):
        result = epsot.solve(Multiscale(x, y), a, b, eps=0.02**2, tol=1e-10, max_iter=max_iter)
    assert result.nit == max_iter
    assert result.status is Status.MAX_ITER
    assert np.isfinite(result.marginal_error)


def test_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    x, y, a, b = measures(clusters, 2)
    with caplog.at_level(logging.INFO, logger="epsot"):
        epsot.solve(Multiscale(x, y), a, b, eps=0.05**2)
    assert f"{N - 1} x {M - 1} points" in caplog.text
    assert caplog.text.count("points") >= 4


def test_labels() -> None:
    """Clusters of the user's own in ten dimensions, in two resolutions."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(9, 10))
    ones, others = rng.integers(9, size=N), rng.integers(9, size=M)
    x, y = centres[ones] + 0.1 * rng.normal(size=(N, 10)), centres[others] + 0.1 * rng.normal(size=(M, 10))
    labels = [np.stack([z // 3, z], axis=1) for z in (ones, others)]
    geometry = Multiscale(x, y, labels_x=labels[0], labels_y=labels[1])
    stages = stages_of(geometry, 0.3**2)
    assert (3, 3) in [stage.instance.core.shape for stage in stages]
    ours, theirs = (epsot.divergence(kind, eps=0.3**2, tol=1e-9) for kind in (geometry, PointCloud(x, y)))
    agree(ours, theirs, 1e-5)
    single = Multiscale(x, y, labels_x=ones, labels_y=others)
    agree(epsot.divergence(single, eps=0.3**2, tol=1e-9), theirs, 1e-5)


def test_bad_labels() -> None:
    x, y = np.zeros((3, 2)), np.ones((4, 2))
    with pytest.raises(ValueError, match="`labels_x` and `labels_y` go together"):
        Multiscale(x, y, labels_x=[0, 1, 2])
    with pytest.raises(ValueError, match=r"`labels_x` must have shape \(3,\)"):
        Multiscale(x, y, labels_x=[0, 1], labels_y=[0, 0, 1, 1])
    with pytest.raises(TypeError, match="`labels_y` must be integers"):
        Multiscale(x, y, labels_x=[0, 1, 2], labels_y=[0.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="equally many columns"):
        Multiscale(x, y, labels_x=[[0], [1], [2]], labels_y=np.zeros((4, 2), int))
    with pytest.raises(ValueError, match="4 dimensions have no grid"):
        Multiscale(np.zeros((3, 4)), np.ones((3, 4)))


def test_the_points_call_for_it_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 3)), rng.random((200, 3))
    few = epsot.sinkhorn(x, y, blur=0.1)
    assert type(few.instance.geometry) is PointCloud
    monkeypatch.setattr(multiscale, "MANY", 100)
    many = epsot.sinkhorn(x, y, blur=0.1)
    assert type(many.instance.geometry) is Multiscale
    assert abs(float(many.value - few.value)) <= 1e-3 * float(few.value)
    assert type(epsot.sinkhorn_divergence(x, y, blur=0.1).instance.geometry) is Multiscale
    assert type(epsot.sinkhorn(rng.random((300, 4)), rng.random((200, 4)), blur=0.1).instance.geometry) is PointCloud


def test_on_a_gpu_it_pays_later(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(multiscale, "MANY", 10)
    monkeypatch.setattr(multiscale, "MANY_ON_GPU", 100)
    with fake_cupy.installed():
        for size, kind in ((99, PointCloud), (101, Multiscale)):
            x, y = (fake_cupy.asarray(rng.random((size, 3))) for _ in range(2))
            assert type(epsot.sinkhorn(x, y, blur=0.1).instance.geometry) is kind


def test_self_terms_start_from_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shapes = []
    original = coarse_to_fine.run_stage

    def run_stage(update: Any, state: Any, stage: Any, *arguments: Any) -> Any:
        shapes.append(stage.instance.core.shape)
        return original(update, state, stage, *arguments)

    monkeypatch.setattr(coarse_to_fine, "run_stage", run_stage)
    x = rng.random((2000, 2))
    epsot.divergence(Multiscale(x, x[:1500] + 0.1), eps=0.1**2)
    assert shapes[-1] == (1500, 1500)
    assert shapes[-2][0] < 1500


def test_the_points_are_solved_without_the_cells_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse: list[weakref.ref[Any]] = []
    alive = []
    original = coarse_to_fine.run_stage

    def run_stage(update: Any, state: Any, stage: Any, *arguments: Any) -> Any:
        if stage.cells:
            coarse.append(weakref.ref(stage.instance))
        else:
            gc.collect()
            alive.append(sum(instance() is not None for instance in coarse))
        return original(update, state, stage, *arguments)

    monkeypatch.setattr(coarse_to_fine, "run_stage", run_stage)
    image = np.exp(-((np.indices((24, 24)) - [[[8]], [[14]]]) ** 2).sum(0) / 20)
    a, b = image / image.sum(), image.T / image.sum()
    assert epsot.sinkhorn(epsot.Grid((24, 24)), epsot.Grid((24, 24)), a, b, blur=1).success
    assert coarse
    assert alive == [0]


def test_inputs_are_not_modified() -> None:
    x, y, a, b = measures(uniform, 2)
    for array in (x, y, a, b):
        array.flags.writeable = False
    assert epsot.solve(Multiscale(x[:, ::-1], y[:, ::-1]), a, b, eps=0.1**2).success


def test_two_measures_on_one_support_have_cells_of_their_own(rng: np.random.Generator) -> None:
    """Whether the support is one array or two: cells carry the weights of their own side."""
    x = rng.random((3600, 2))
    a, b = (np.exp(3 * rng.normal(size=(2, 1)) * x[:, 0] + 3 * rng.normal(size=(2, 1)) * x[:, 1])).reshape(2, -1)
    a, b = a / a.sum(), b / b.sum()
    one, two = (epsot.sinkhorn_divergence(x, y, a, b, blur=0.02) for y in (x, x.copy()))
    assert one.nit == two.nit
    np.testing.assert_array_equal(one.xy.f, two.xy.f)
    cells = epsot.geometry.Multiscale(x, x).resolutions(a, b)
    weights = cells.at(4)[1:]
    close(*(z.sum() for z in weights))
    assert np.abs(weights[0] - weights[1]).sum() > 0.1
