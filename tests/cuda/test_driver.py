"""The whole package on CuPy-shaped arrays: what comes in as one comes out as one, with NumPy's numbers.

The kernels run on the CPU; chunks, types, launches, devices and transfers are those of a GPU.
"""

from __future__ import annotations

import copy
import gc
import itertools
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import arrays, kernels
from epsot.costs import Euclidean, HalfSquare
from epsot.kernels import reference
from epsot.kernels.cuda import shapes
from tests.cuda import bridge, emulation, fake_cupy
from tests.cuda.instantiations import NAMES
from tests.own_costs import PseudoHuber
from tests.test_namespaces import C_XX, C_YY, EXACT, POINTS, A, B, C, X, Y, of_any, of_clouds

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))


@pytest.fixture(autouse=True)
def cupy(portable: None) -> Iterator[Any]:
    with fake_cupy.installed() as module:
        fake_cupy.launches.clear()
        fake_cupy.operations.clear()
        fake_cupy.transfers.clear()
        fake_cupy.sizes.clear()
        yield module
        launched = {name for name, _, _ in fake_cupy.launches}
        assert launched <= NAMES  # those that are compiled by NVRTC in its test


def on_device(array: Any, dtype: Any = None) -> Any:
    return fake_cupy.asarray(np.asarray(array), dtype)


def same(actual: dict[str, Any], desired: dict[str, Any], dtype: Any = np.float64, tolerance: float = 1e-10) -> None:
    """Library, type, shape and numbers."""
    for name, value in actual.items():
        assert isinstance(value, fake_cupy.ndarray), name
        assert value.dtype == dtype, name
        assert value.shape == np.shape(desired[name]), name
        np.testing.assert_allclose(value.data_, desired[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_cupy_is_served_by_the_cuda_kernels() -> None:
    x, y = on_device(X), on_device(Y)
    assert kernels.backend_of(x) == "cuda"
    result = epsot.sinkhorn(x, y, blur=0.5)
    assert type(result.instance.problem.kernel).__module__ == "epsot.kernels.cuda.points"
    solved = epsot.solve(epsot.CostMatrix(on_device(C)), eps=0.5)
    assert type(solved.instance.problem.kernel).__module__ == "epsot.kernels.cuda.matrix"


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize(("p", "reach"), [(2, None), (1, 1.5), (2, (None, 0.8))])
def test_clouds(entry: Any, p: int, reach: Any) -> None:
    options = {"blur": 0.6, "p": p, "reach": reach, **EXACT}
    ours, theirs = entry(X, Y, A, B, **options), entry(*map(on_device, (X, Y, A, B)), **options)
    assert theirs.success
    same(of_any(theirs) | of_clouds(theirs, on_device(POINTS)), of_any(ours) | of_clouds(ours, POINTS))


@pytest.mark.parametrize("entry", [epsot.solve, epsot.divergence])
def test_matrices(entry: Any) -> None:
    ours = entry(epsot.CostMatrix(C, C_xx=C_XX, C_yy=C_YY), A, B, eps=0.2, **EXACT)
    geometry = epsot.CostMatrix(on_device(C), C_xx=on_device(C_XX), C_yy=on_device(C_YY))
    same(of_any(entry(geometry, on_device(A), on_device(B), eps=0.2, **EXACT)), of_any(ours))


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_named_costs(cost: str) -> None:
    ours = epsot.divergence(epsot.PointCloud(X, Y, cost=cost), A, B, eps=0.2, **EXACT)
    geometry = epsot.PointCloud(on_device(X), on_device(Y), cost=cost)
    theirs = epsot.divergence(geometry, on_device(A), on_device(B), eps=0.2, **EXACT)
    same(of_any(theirs) | of_clouds(theirs, on_device(POINTS)), of_any(ours) | of_clouds(ours, POINTS))


@pytest.mark.parametrize("d", [1, 3, 5, 70])
def test_dimensions(d: int, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(30, d)) / np.sqrt(d), rng.normal(size=(20, d)) / np.sqrt(d) + 100
    ours = epsot.sinkhorn_divergence(x, y, blur=0.5, tol=1e-9)
    theirs = epsot.sinkhorn_divergence(on_device(x), on_device(y), blur=0.5, tol=1e-9)
    # Both stop at 1e-9, maybe not at the same point, and values are 100^2 d / 2.
    for name in ("value", "grad_x", "displacement"):
        desired = np.asarray(getattr(ours, name))
        np.testing.assert_allclose(getattr(theirs, name).data_, desired, rtol=1e-9, atol=1e-9 * np.abs(desired).max())


def test_float32() -> None:
    ours = epsot.sinkhorn_divergence(X, Y, A, B, blur=0.6, **EXACT)
    x, y = on_device(X, np.float32), on_device(Y, np.float32)
    theirs = epsot.sinkhorn_divergence(x, y, on_device(A), on_device(B), blur=0.6, tol=1e-6)
    desired = of_any(ours) | of_clouds(ours, POINTS)
    same(of_any(theirs) | of_clouds(theirs, on_device(POINTS)), desired, np.float32, 1e-4)


@pytest.mark.parametrize("copies", [1, 2])
def test_the_tutorial_s_schedule(copies: int) -> None:
    """tol=None: both sides, and symmetric ones, and every sweep counts. In four dimensions both come from one sweep."""
    options: dict[str, Any] = {"blur": 0.2, "tol": None, "scaling": 0.7}
    x, y = np.hstack([X] * copies), np.hstack([Y] * copies)
    fake_cupy.launches.clear()
    ours = epsot.sinkhorn_divergence(x, y, A, B, **options)
    theirs = epsot.sinkhorn_divergence(*map(on_device, (x, y, A, B)), **options)
    names = ("value", "f", "g", "grad_x", "displacement")
    same({name: getattr(theirs, name) for name in names}, {name: getattr(ours, name) for name in names})
    assert any(name.startswith("pair<") for name, _, _ in fake_cupy.launches) == (copies == 2)


@pytest.mark.parametrize("mode", ["independent", "stratified"])
def test_samples_are_numpy_s(mode: Any) -> None:
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT).plan.sample(50, rng=7, mode=mode)
    theirs = epsot.sinkhorn(*map(on_device, (X, Y, A, B)), blur=0.6, **EXACT).plan.sample(50, rng=7, mode=mode)
    for actual, desired in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(actual.data_, desired)


@pytest.mark.parametrize("cap", [None, 2])
def test_sparse_plans_are_scipy_s(cap: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.SimpleNamespace(csr_matrix=lambda parts, shape: (*parts, shape))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse", made)
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT).plan.to_sparse(0.9, cap)
    *arrays, shape = epsot.sinkhorn(*map(on_device, (X, Y, A, B)), blur=0.6, **EXACT).plan.to_sparse(0.9, cap)
    values, columns, starts = (array.data_ for array in arrays)
    assert shape == ours.shape
    np.testing.assert_allclose(values, ours.data, rtol=1e-9)
    np.testing.assert_array_equal(columns, ours.indices)
    np.testing.assert_array_equal(starts, ours.indptr)


def test_a_cost_in_array_api_code_runs_on_the_portable_path() -> None:
    ours = epsot.solve(epsot.PointCloud(X, Y, cost=PseudoHuber()), A, B, eps=0.1, **EXACT)
    geometry = epsot.PointCloud(on_device(X), on_device(Y), cost=PseudoHuber())
    theirs = epsot.solve(geometry, on_device(A), on_device(B), eps=0.1, **EXACT)
    same({"value": theirs.value, "grad_x": theirs.grad_x}, {"value": ours.value, "grad_x": ours.grad_x})
    assert not [name for name, _, _ in fake_cupy.launches if name.startswith(("reduce", "pair"))]


# Transfers


def test_no_method_waits_for_the_device(rng: np.random.Generator) -> None:
    """Neither a good guess nor a hopeless one, nor sums out of range, is known to the host."""
    x, y = on_device(rng.normal(size=(300, 2)), np.float32), on_device(rng.normal(size=(200, 2)), np.float32)
    k, h, v = on_device(rng.normal(size=300)), on_device(rng.normal(size=200)), on_device(rng.normal(size=(200, 9)))
    kernel = kernels.points(x, y, HalfSquare())
    fake_cupy.sizes.clear()
    far = kernel.softmin(h, 0.1) + 1e6
    kernel.softmin(h, 0.1, far)
    kernel.softmin_pair(k, h + 1e4, 0.1)
    kernel.source().softmin_self(k, 0.1)
    kernel.apply(k, h, 0.1, v)
    kernel.cost_gradient(k, h, 0.1)
    kernel.cost_apply(h)
    kernel.at(x[:7]).T.softmin(k[:7], 0.1)
    assert not fake_cupy.transfers
    assert not fake_cupy.sizes


def test_a_solve_moves_numbers_not_arrays(rng: np.random.Generator) -> None:
    """Errors, and the small system of the acceleration: never an array as long as the points."""
    x, y = on_device(rng.normal(size=(150, 2))), on_device(rng.normal(size=(140, 2)))
    fake_cupy.sizes.clear()
    result = epsot.sinkhorn_divergence(x, y, blur=0.3)
    of_any(result)
    of_clouds(result, x[:3])
    assert max(fake_cupy.sizes) < 80  # the numbers of a burst
    assert sum(fake_cupy.transfers.values()) <= 60


def test_a_result_can_be_copied(rng: np.random.Generator) -> None:
    """What its kernel prepared included; nothing in it is a module."""
    result = epsot.sinkhorn(on_device(X), on_device(Y), blur=0.5)
    copied = copy.deepcopy(result)
    np.testing.assert_array_equal(copied.grad_x.data_, result.grad_x.data_)
    solved = epsot.solve(epsot.CostMatrix(on_device(C)), eps=0.5)
    np.testing.assert_array_equal(copy.deepcopy(solved).plan.to_dense().data_, solved.plan.to_dense().data_)


def test_inputs_are_left_alone(rng: np.random.Generator) -> None:
    arrays = [on_device(z) for z in (X, Y, A, B, POINTS)]
    before = [z.data_.copy() for z in arrays]
    result = epsot.sinkhorn_divergence(*arrays[:4], blur=0.4)
    of_any(result)
    of_clouds(result, arrays[4])
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array.data_, kept)


# Launches


def test_columns_are_cut_into_parts_where_rows_are_few(rng: np.random.Generator, monkeypatch: Any) -> None:
    """A device with many multiprocessors gets the columns in parts, and the same result up to rounding."""
    from epsot.kernels.cuda import fused

    x, y, h = rng.normal(size=(600, 2)), rng.normal(size=(2000, 2)), rng.normal(size=2000)
    grids = []
    for count in (1, 132):
        monkeypatch.setattr(fused, "multiprocessors", lambda *_, count=count: count)
        kernel = bridge.points(x, y, Euclidean())
        fake_cupy.launches.clear()
        np.testing.assert_allclose(kernel.softmin(h, 0.1), reference.Points(x, y, Euclidean()).softmin(h, 0.1), 1e-12)
        grids.append(fake_cupy.launches[-1][1])
    assert grids == [(3, 4, 1), (3, 16, 1)]  # enough for one multiprocessor, and as many as there are tiles


def test_the_last_wave_of_blocks_is_full() -> None:
    """Parts of the columns for 132 multiprocessors: of few points one wave, of many as many whole ones as needed."""
    shape = shapes.near("float", 0, 3, 4)
    for n, parts, waves in (
        (1000, 8, 0.03),
        (10_000, 26, 0.98),
        (30_000, 53, 5.92),
        (100_000, 27, 10),
        (10**6, 4, 14.8),
    ):
        assert shapes.parts(shape, n, n, 1, 132) == parts
        assert -(-n // shape.rows) * parts / (132 * shape.resident) == pytest.approx(waves, abs=0.01)
    assert shapes.parts(shape, 10**6, 100, 1, 132) == 1
    assert shapes.parts(shape, 100, 10**6, 1, 1) == 64


def iterations(entry: Any, x: np.ndarray, y: np.ndarray, **options: Any) -> list[tuple[int, int, int]]:
    """Kernels of ours, operations of CuPy and readings in each iteration, those aside that began a temperature."""
    seen: list[tuple[float, int, int, int]] = []

    def count(record: Any) -> None:
        numbers = len(fake_cupy.launches), fake_cupy.operations.total(), fake_cupy.transfers.total()
        seen.append((record.eps, *numbers))

    points = on_device(x)
    entry(points, points if y is x else on_device(y), callback=count, **options)
    return [
        (after[1] - before[1], after[2] - before[2], after[3] - before[3])
        for before, after in itertools.pairwise(seen)
        if before[0] == after[0]
    ]


@pytest.mark.parametrize(
    ("entry", "options", "most"),
    [
        # Two log-densities, two sweeps and what is between them; the counters of the sweeps; the error and what goes
        # with it.
        (epsot.sinkhorn, {}, (5, 2, 1)),
        # Two log-masses, too; the scales of the potentials, and a shift.
        (epsot.sinkhorn, {"reach": (1.0, 2.0)}, (7, 9, 1)),
        # A log-density, a sweep, the error; the counters of the sweep, and a mean.
        (epsot.sinkhorn_divergence, {}, (3, 3, 1)),
    ],
    ids=["balanced", "unbalanced", "self-transport"],
)
def test_launches_and_readings_of_an_iteration(entry: Any, options: Any, most: Any, rng: np.random.Generator) -> None:
    """What small problems wait for: some microseconds each."""
    x, y = rng.normal(size=(150, 2)), rng.normal(size=(140, 2))
    found = iterations(entry, x, x if entry is epsot.sinkhorn_divergence else y, blur=0.3, tol=1e-4, **options)
    assert len(found) > 5
    assert max(found) == most
    assert all(count <= limit for each in found for count, limit in zip(each, most, strict=True))


def test_long_vectors_have_a_launch_for_each_stage(rng: np.random.Generator, monkeypatch: Any) -> None:
    """And the same result up to rounding."""
    x, y = rng.normal(size=(150, 2)), rng.normal(size=(140, 2))
    whole = epsot.sinkhorn(on_device(x), on_device(y), blur=0.3)
    monkeypatch.setattr(shapes, "vector_blocks", lambda n: 3)
    parts = epsot.sinkhorn(on_device(x), on_device(y), blur=0.3)
    np.testing.assert_allclose(parts.f.data_, whole.f.data_, rtol=1e-9, atol=1e-9)
    assert max(iterations(epsot.sinkhorn, x, y, blur=0.3, tol=1e-4)) == (9, 2, 1)


def test_many_columns_of_values(rng: np.random.Generator, monkeypatch: Any) -> None:
    """More than one launch may take."""
    from epsot.kernels.cuda import fused

    monkeypatch.setattr(fused, "MOST_CHUNKS", 2)
    x, y, k, h = rng.normal(size=(9, 2)), rng.normal(size=(7, 2)), rng.normal(size=9), rng.normal(size=7)
    v = rng.normal(size=(7, 21))
    ours, theirs = bridge.points(x, y, HalfSquare()), reference.Points(x, y, HalfSquare())
    np.testing.assert_allclose(ours.apply(k, h, 0.5, v), theirs.apply(k, h, 0.5, v), 1e-12, 1e-12)
    assert [grid[2] for name, grid, _ in fake_cupy.launches if "VALUES" in name] == [2, 2, 2]


def test_memory_is_linear(rng: np.random.Generator) -> None:
    """Less than 3 000 points a side in float64 would need for a 30th of an (n, m) array."""
    n = 3000
    x, y, h = rng.random((n, 3)), rng.random((n, 3)), np.full(n, -np.log(n))
    ours, theirs, h = on_device(x, np.float32), on_device(y, np.float32), on_device(h)
    fake_cupy.allocated["peak"] = start = fake_cupy.allocated["now"]
    kernel = kernels.points(ours, theirs, HalfSquare())
    f = kernel.softmin(h, 10.0)
    kernel.softmin_pair(f / 10 + h, h, 10.0)
    kernel.cost_gradient(f / 10, h, 10.0)
    assert fake_cupy.allocated["peak"] - start < 8 * n * n / 30


def test_memory_of_a_solve_is_linear(rng: np.random.Generator) -> None:
    """With all that is asked of it, and what the acceleration keeps: less than a 16th of an (n, m) array."""
    n = 2000
    x, y = (on_device(rng.random((n, 3)), np.float32) for _ in range(2))
    gc.collect()
    fake_cupy.allocated["peak"] = start = fake_cupy.allocated["now"]
    result = epsot.sinkhorn_divergence(x, y, blur=0.5)
    found = [result.value, result.grad_x, result.gap, result.plan @ x, result.transport(x[:100])]
    assert len(found) == 5
    assert fake_cupy.allocated["peak"] - start < 8 * n * n / 16


# Devices


def test_work_is_done_on_the_device_of_the_inputs(cupy: Any, rng: np.random.Generator) -> None:
    """Whichever is current."""
    with cupy.cuda.Device(1):
        x, y = on_device(rng.normal(size=(300, 2))), on_device(rng.normal(size=(6, 2)))
        h, k, v = on_device(rng.normal(size=6)), on_device(rng.normal(size=300)), on_device(rng.normal(size=(6, 2)))
    kernel = kernels.points(x, y, HalfSquare())
    results = [kernel.softmin(h, 0.1), *kernel.softmin_pair(k, h, 0.1), kernel.apply(k, h, 0.1, v)]
    results += [kernel.cost_gradient(k, h, 0.1), kernel.at(x).softmin(h, 0.1), kernel.cost_rows(slice(0, 2))]
    assert {result.device.id for result in results} == {1}
    assert {device for _, _, device in fake_cupy.launches} == {1}


def on(device: int, *arrays: Any) -> tuple[Any, ...]:
    with fake_cupy.Device(device):
        return tuple(map(on_device, arrays))


def all_on(device: int, found: dict[str, Any]) -> None:
    """All arrays are there, and nothing but them was: what was current is so still."""
    assert {name: array.device.id for name, array in found.items()} == dict.fromkeys(found, device)
    assert {at for _, _, at in fake_cupy.launches} == {device}
    assert fake_cupy.Device().id == 0


@pytest.mark.parametrize("tol", [None, 1e-4])
@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
def test_solves_on_a_device_that_is_not_current(entry: Any, tol: float | None) -> None:
    """From the checks of the inputs to what is computed later; zero weights included."""
    x, y, a, b, points = on(1, X, Y, A, B, POINTS)
    seen: list[Any] = []

    def follow(record: Any) -> None:
        with fake_cupy.Device(0):
            seen.extend([record.f, record.g])
            assert record.marginal_error >= 0

    result = entry(x, y, a, b, blur=0.6, reach=2.0, tol=tol, callback=follow)
    found = of_any(result) | of_clouds(result, points)
    again = entry(x, y, a, b, blur=0.5, reach=2.0, tol=tol, init=result)
    i, j = result.plan.sample(5, rng=0)
    all_on(1, found | {"again": again.f, "f": seen[0], "g": seen[1], "i": i, "j": j})
    assert result.marginal_error >= 0
    by_name = entry(blur=0.6, y=y, x=x, reach=2.0, tol=tol)
    all_on(1, {"by name": by_name.grad_x})


def test_geometries_on_a_device_that_is_not_current() -> None:
    x, y, cost, cost_xx, cost_yy, a, b = on(1, X, Y, C, C_XX, C_YY, A, B)
    matrix = epsot.CostMatrix(cost, C_xx=cost_xx, C_yy=cost_yy)
    all_on(1, of_any(epsot.divergence(matrix, a, b, eps=0.2)) | of_any(epsot.solve(matrix, a, b, eps=0.2)))
    cosine = epsot.PointCloud(x, y, cost="cosine")
    found = of_any(epsot.divergence(cosine, a, b, eps=0.2))
    all_on(1, found | {"grad_x": epsot.solve(cosine, a, b, eps=0.2).grad_x, "T": cosine.T.x})
    assert matrix.scale() > 0
    assert cosine.scale() > 0


def test_an_objective_on_a_device_that_is_not_current() -> None:
    x, y, b = on(1, X, Y, B)
    value, gradient = epsot.Objective(y, b, blur=0.6, reach=2.0)(X.ravel())
    desired = epsot.Objective(Y, B, blur=0.6, reach=2.0)(X.ravel())
    np.testing.assert_allclose(value, desired[0], rtol=1e-9)
    np.testing.assert_allclose(gradient, desired[1], rtol=1e-7, atol=1e-9)
    weights = epsot.Objective(y, b, blur=0.6, wrt="a", x=x)
    assert np.isfinite(weights(np.zeros(len(X)))[0])
    all_on(1, {"variable": weights.variable(np.zeros(len(X)))})


def test_arrays_of_two_devices_are_refused() -> None:
    (x,), (y,) = on(1, X), on(0, Y)
    with pytest.raises(TypeError, match="one device"):
        epsot.sinkhorn(x, y, blur=0.5)
    assert fake_cupy.Device().id == 0


def test_a_missing_compiler_is_named(cupy: Any, monkeypatch: Any) -> None:
    from epsot.kernels.cuda import modules

    class NoCompiler:
        def __init__(self, **_: Any) -> None:
            raise RuntimeError("CuPy failed to load libnvrtc.so.13: OSError")

    modules.function.cache_clear()
    monkeypatch.setattr(cupy, "RawModule", NoCompiler)
    with pytest.raises(RuntimeError, match=r"epsot\[cuda13x\].*epsot\[cuda12x\]"):
        epsot.sinkhorn(on_device(X), on_device(Y), blur=0.5)


# PyTorch


def tensors_are_on_a_device(monkeypatch: Any) -> Any:
    """Tensors of the CPU take the way of those of a GPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(kernels, "is_cuda_tensor", lambda array: isinstance(array, torch.Tensor))
    monkeypatch.setattr(arrays, "works_by_view", lambda library: False)
    return torch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_go_through_the_cuda_kernels(monkeypatch: Any, dtype: str) -> None:
    torch = tensors_are_on_a_device(monkeypatch)
    ours = epsot.sinkhorn_divergence(X, Y, A, B, blur=0.6, **EXACT)
    x, y = (torch.asarray(z, dtype=getattr(torch, dtype)) for z in (X, Y))
    single = dtype == "float32"
    options = {"tol": 1e-6} if single else EXACT
    theirs = epsot.sinkhorn_divergence(x, y, torch.asarray(A), torch.asarray(B), blur=0.6, **options)
    descended = epsot.sinkhorn_divergence(x, y, torch.asarray(A), torch.asarray(B), blur=0.6, tol=None)
    wanted = epsot.sinkhorn_divergence(X, Y, A, B, blur=0.6, tol=None)
    np.testing.assert_allclose(descended.f.numpy(), wanted.f, rtol=1e-5, atol=1e-5)
    points = torch.asarray(POINTS, dtype=x.dtype)
    desired, tolerance = of_any(ours) | of_clouds(ours, POINTS), 1e-4 if single else 1e-10
    for name, value in (of_any(theirs) | of_clouds(theirs, points)).items():
        assert isinstance(value, torch.Tensor), name
        assert value.dtype == x.dtype, name
        np.testing.assert_allclose(value.numpy(), desired[name], tolerance, tolerance, err_msg=name)
    assert fake_cupy.launches
    assert max(fake_cupy.sizes) < 80  # the numbers of a burst; no array was copied by CuPy


def test_tensors_are_not_copied(monkeypatch: Any) -> None:
    torch = tensors_are_on_a_device(monkeypatch)
    x = torch.asarray(X)
    kernel = kernels.points(x, x, HalfSquare())
    assert kernel.kernel.x.data_.ctypes.data == x.data_ptr()
    assert kernel.kernel.y is kernel.kernel.x
    C = torch.asarray(np.random.default_rng(0).random((4, 3)))
    matrix = kernels.matrix(C)
    assert matrix.kernel.C.data_.ctypes.data == C.data_ptr()
    np.testing.assert_allclose(matrix.cost_rows(torch.asarray([2, 0])).numpy(), C[[2, 0]].numpy())
    np.testing.assert_allclose(matrix.T.cost_apply(torch.ones(4, dtype=torch.float64)).numpy(), C.sum(dim=0).numpy())


def test_the_stream_of_torch_is_used(cupy: Any, monkeypatch: Any) -> None:
    torch = pytest.importorskip("torch")
    from epsot.kernels.cuda import exchange

    class OnDevice:
        device = torch.device("cuda", 1)

    class Current:
        cuda_stream = 1234

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Current())
    with exchange.stream_of(OnDevice()):
        assert cupy.cuda.Device().id == 1
        assert cupy.cuda.Stream.used[-1] == 1234


def test_tensors_on_the_cpu_stay_on_the_portable_path() -> None:
    torch = pytest.importorskip("torch")
    assert kernels.backend_of(torch.asarray(X)) == "tiled"


def test_the_fake_refuses_what_cupy_refuses() -> None:
    """A test of the tests: NumPy cannot read its arrays, and they do not mix with NumPy's or with other devices'."""
    array = on_device(X)
    with pytest.raises(TypeError):
        np.asarray(array)
    with pytest.raises(TypeError):
        array + X
    with fake_cupy.Device(1), pytest.raises(RuntimeError, match="device 1"):
        array + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="all arrays must come from one library"):
            epsot.sinkhorn(array, Y, blur=0.5)
