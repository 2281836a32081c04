"""On a real device, with CuPy: pytest -m gpu. What the emulated tests cannot show, and the whole path once more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import kernels
from epsot.arrays import common_place
from epsot.costs import Cityblock, Euclidean, HalfSquare
from epsot.kernels import reference
from epsot.kernels.cuda import shapes
from epsot.kernels.lattice import Axis, Lattice
from tests import closed_forms
from tests.test_namespaces import C_XX, C_YY, EXACT, POINTS, A, B, C, X, Y, of_any, of_clouds

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy() -> Any:
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        module.cuda.runtime.getDeviceProperties(0)
    except Exception as error:  # whatever the driver says
        pytest.skip(f"no CUDA device answers: {error}")
    return module


@pytest.fixture
def pool(cupy: Any) -> Iterator[Any]:
    """A memory pool of our own, whose largest size is that of the test."""
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        yield pool


def close(actual: Any, desired: Any, tolerance: float) -> None:
    np.testing.assert_allclose(actual.get(), np.asarray(desired), rtol=tolerance, atol=tolerance)


# Kernels


@pytest.mark.parametrize("cost", [HalfSquare(), Euclidean(), Cityblock()], ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("d", [1, 2, 3, 5, 17, 64, 100])
def test_parity_with_the_reference(cupy: Any, cost: Any, dtype: Any, tolerance: float, d: int) -> None:
    rng = np.random.default_rng(d)
    x, y = (rng.normal(size=(n, d)).astype(dtype) / math.sqrt(d) for n in (1000, 777))
    log_a, log_b = np.log(rng.random(1000) / 500), np.log(rng.random(777) / 400)
    log_a[3] = log_b[5] = -np.inf
    eps = 0.2
    theirs = reference.Points(x, y, cost)
    ours = kernels.points(cupy.asarray(x), cupy.asarray(y), cost)
    f = theirs.softmin(log_b, eps)
    k, h = log_a + f / eps, log_b
    K, H = cupy.asarray(k), cupy.asarray(h)
    close(ours.softmin(H, eps), f, tolerance)
    for guess in (f, f + 1e3, np.full_like(f, np.nan)):
        close(ours.softmin(H, eps, cupy.asarray(guess)), f, tolerance)
    for one, other in zip(ours.softmin_pair(K, H, eps), theirs.softmin_pair(k, h, eps), strict=True):
        close(one, other, tolerance)
    close(ours.source().softmin_self(K, eps), theirs.source().softmin(k, eps), tolerance)
    v = rng.normal(size=(777, d + 1))
    close(ours.apply(K, H, eps, cupy.asarray(v)), theirs.apply(k, h, eps, v), tolerance)
    close(ours.cost_gradient(K, H, eps), theirs.cost_gradient(k, h, eps), tolerance)
    close(ours.cost_apply(cupy.asarray(np.exp(h))), theirs.cost_apply(np.exp(h)), tolerance)


@pytest.mark.parametrize("kind", ["squares", "lengths"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-11)])
def test_passes_over_lattices(cupy: Any, unproven: None, kind: str, dtype: Any, tolerance: float) -> None:
    """Lines that fit into shared memory and a longer one, a circle, blocks of every size; the same bits again."""
    rng, here = np.random.default_rng(0), common_place(x=cupy.zeros(1))
    line, short = Axis(1500, 1400, 0.3, 0.0, 1.0, 1.1, None), Axis(5, 70, 0.0, 0.0, 1.0, 0.5, None)
    for axes in ((line, short), (short, Axis(40, 300, 0.2, 0.0, 7.5, 1.0, 300.0))):
        ours = kernels.separable(axes, kind, 0.5, here, np.dtype(dtype))
        theirs = Lattice(axes, kind, 0.5, common_place(x=np.zeros(1)), np.float64)
        for spread in (1.0, 100.0):
            h = spread * rng.normal(size=theirs.shape[1])
            h[rng.random(len(h)) < 0.3] = -np.inf
            for eps in (1e4, 30.0, 1.0, 0.05):
                found = ours.softmin(cupy.asarray(h), eps)
                close(found / eps, theirs.softmin(h, eps) / eps, tolerance)
                assert bool((ours.softmin(cupy.asarray(h), eps) == found).all())


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matrix(cupy: Any, layout: Any, dtype: Any) -> None:
    """Of either type in float64."""
    rng, tolerance = np.random.default_rng(0), 1e-10
    C = rng.random((600, 500)).astype(dtype)
    C[rng.random(C.shape) < 0.1] = np.inf
    C[7] = np.inf
    h, k = rng.normal(size=500), rng.normal(size=600)
    theirs, ours = reference.Matrix(C), kernels.matrix(cupy.asarray(C, order=layout))
    close(ours.softmin(cupy.asarray(h), 0.1), theirs.softmin(h, 0.1), tolerance)
    close(ours.T.softmin(cupy.asarray(k), 0.1), theirs.T.softmin(k, 0.1), tolerance)
    for one, other in zip(
        ours.softmin_pair(cupy.asarray(k), cupy.asarray(h), 0.1), theirs.softmin_pair(k, h, 0.1), strict=True
    ):
        close(one, other, tolerance)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_float32_is_accurate_at_a_small_blur(cupy: Any, offset: float) -> None:
    """As in the emulated test, with the exponential of the hardware."""
    rng = np.random.default_rng(20)
    n, eps, shift = 4096, 1e-4, np.array([0.3, -0.3])
    points = rng.random((n, 2)) - 0.5
    x = (points + offset).astype(np.float32)
    y = (rng.permutation(points) + shift + offset).astype(np.float32)
    y64 = y.astype(np.float64)
    h = (y64 - offset) @ shift / eps - np.log(n)
    some = np.arange(0, n, 16)
    wanted = reference.Points(x[some].astype(np.float64), y64, HalfSquare()).softmin(h, eps)
    ours = kernels.points(cupy.asarray(x), cupy.asarray(y), HalfSquare()).softmin(cupy.asarray(h), eps).get()
    np.testing.assert_allclose(ours[some], wanted, rtol=0, atol=1e-4 * eps)


def test_the_same_bits_every_time(cupy: Any) -> None:
    """Whichever block comes last."""
    rng = np.random.default_rng(0)
    x, y = (cupy.asarray(rng.random((20_000, 3)).astype(np.float32)) for _ in range(2))
    h = cupy.asarray(rng.normal(size=20_000))
    kernel = kernels.points(x, y, HalfSquare())
    first = [kernel.softmin(h, 0.01), *kernel.softmin_pair(h, h, 0.01), kernel.source().softmin_self(h, 0.01)]
    for _ in range(5):
        again = [kernel.softmin(h, 0.01), *kernel.softmin_pair(h, h, 0.01), kernel.source().softmin_self(h, 0.01)]
        for one, other in zip(first, again, strict=True):
            assert bool((one == other).all())


@pytest.mark.parametrize("m", [700, 20_000])
def test_vectors_as_on_the_cpu(cupy: Any, m: int) -> None:
    """One block, and several; twice with the same bits."""
    rng = np.random.default_rng(m)
    b = rng.random(m) / m
    B, log_B = cupy.asarray(b), cupy.asarray(np.log(b))
    ours, again = (kernels.vectors_of(B).directions(B, log_B, 0.5, np.inf, balanced=True) for _ in range(2))
    theirs = kernels.vectors_of(b).directions(b, np.log(b), 0.5, np.inf, balanced=True)
    path = [0.5**step * rng.normal(size=(2, m)) for step in range(15)]
    starts = []
    for g, updated in path:
        start, error, norm = ours.advance(cupy.asarray(g), cupy.asarray(updated), cupy.asarray(updated), 1.0)
        wanted = theirs.advance(g, updated, updated, 1.0)
        close(start, wanted.start, 1e-9)
        assert (error, norm) == pytest.approx((wanted.error, wanted.norm), rel=1e-12)
        starts.append(start)
    for start, (g, updated) in zip(starts, path, strict=True):
        repeated = again.advance(cupy.asarray(g), cupy.asarray(updated), cupy.asarray(updated), 1.0).start
        assert bool((repeated == start).all())
    vectors, plain, g = kernels.vectors_of(B), kernels.vectors_of(b), path[0][0]
    G = cupy.asarray(g)
    # Of the second, marginals are beyond the numbers of float64; their logarithms, up to 40 000, are rounded.
    for rho, tolerance in ((2.0, 1e-12), (1e-4, 1e-10)):
        wanted = plain.violation(np.log(b), g, g * 0.9, 0.1, rho)
        close(vectors.violation(log_B, G, G * 0.9, 0.1, rho), wanted, tolerance)
    close(vectors.log_mass(log_B, G, 0.1), plain.log_mass(np.log(b), g, 0.1), 1e-12)
    close(vectors.density(B, G, 0.1), plain.density(b, g, 0.1), 1e-15)


# Solves


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize(("p", "reach"), [(2, None), (1, 1.5), (2, (None, 0.8))])
def test_clouds_as_on_the_cpu(cupy: Any, entry: Any, p: int, reach: Any) -> None:
    options = {"blur": 0.6, "p": p, "reach": reach, **EXACT}
    ours, theirs = entry(X, Y, A, B, **options), entry(*map(cupy.asarray, (X, Y, A, B)), **options)
    desired = of_any(ours) | of_clouds(ours, POINTS)
    for name, value in (of_any(theirs) | of_clouds(theirs, cupy.asarray(POINTS))).items():
        assert isinstance(value, cupy.ndarray), name
        np.testing.assert_allclose(value.get(), desired[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_float32_as_on_the_cpu(cupy: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random((3000, 3)).astype(np.float32), (rng.random((2500, 3)) + 0.2).astype(np.float32)
    ours = epsot.sinkhorn_divergence(x, y, blur=0.1, tol=1e-6)
    theirs = epsot.sinkhorn_divergence(cupy.asarray(x), cupy.asarray(y), blur=0.1, tol=1e-6)
    close(theirs.value, ours.value, 1e-5)
    close(theirs.grad_x, ours.grad_x, 1e-5)


def test_matrices_as_on_the_cpu(cupy: Any) -> None:
    ours = epsot.divergence(epsot.CostMatrix(C, C_xx=C_XX, C_yy=C_YY), A, B, eps=0.2, **EXACT)
    geometry = epsot.CostMatrix(cupy.asarray(C), C_xx=cupy.asarray(C_XX), C_yy=cupy.asarray(C_YY))
    theirs = epsot.divergence(geometry, cupy.asarray(A), cupy.asarray(B), eps=0.2, **EXACT)
    for name, value in of_any(theirs).items():
        np.testing.assert_allclose(value.get(), of_any(ours)[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_exports_as_on_the_cpu(cupy: Any) -> None:
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT).plan
    theirs = epsot.sinkhorn(*map(cupy.asarray, (X, Y, A, B)), blur=0.6, **EXACT).plan
    for cap in (None, 2):
        expected, found = ours.to_sparse(0.9, cap), theirs.to_sparse(0.9, cap)
        np.testing.assert_array_equal(found.indices.get(), expected.indices)
        np.testing.assert_array_equal(found.indptr.get(), expected.indptr)
        close(found.data, expected.data, 1e-9)
    for mode in ("independent", "stratified"):
        for actual, desired in zip(theirs.sample(50, rng=7, mode=mode), ours.sample(50, rng=7, mode=mode), strict=True):
            np.testing.assert_array_equal(actual.get(), desired)
    v = np.arange(len(Y) * 2.0).reshape(-1, 2)
    close(theirs.as_linear_operator() @ cupy.asarray(v), ours @ v, 1e-9)
    close(theirs.as_linear_operator().T @ cupy.asarray(A), A @ ours, 1e-9)
    close(theirs.rows(slice(1, 3)), ours.rows(slice(1, 3)), 1e-9)


@pytest.mark.parametrize("reach", [None, (1.0, 0.5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9)])
@pytest.mark.parametrize(("n", "d"), [(40, 1), (1000, 3), (2500, 2), (700, 10)])
def test_bursts_are_steps_one_by_one(
    cupy: Any, unproven: None, n: int, d: int, dtype: Any, tolerance: float, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks at once, and in two places of the device: one that works on vectors, and several."""
    rng = np.random.default_rng(n)
    x, y = (cupy.asarray((rng.random((n + k, d)) + 0.2 * k).astype(dtype)) for k in (0, 1))
    options: dict[str, Any] = {"blur": 0.2, "reach": reach, "tol": 1e-5}
    assert epsot.sinkhorn(x, y, **options).instance.problem.bursts is not None
    found = epsot.sinkhorn_divergence(x, y, **options)
    again = epsot.sinkhorn_divergence(x, y, **options)
    assert bool((found.f == again.f).all())
    monkeypatch.setattr(shapes, "bursts", lambda *_: False)
    wanted = epsot.sinkhorn_divergence(x, y, **options)
    for part in ("xy", "xx", "yy"):
        ours, theirs = getattr(found, part), getattr(wanted, part)
        assert ours.status == theirs.status
        if dtype == np.float64:
            assert [check[:2] for check in ours.history] == [check[:2] for check in theirs.history]
        close(ours.f, theirs.f.get(), tolerance)
        close(ours.g, theirs.g.get(), tolerance)


@pytest.mark.parametrize("reach", [None, (1.0, 0.5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9)])
@pytest.mark.parametrize(("largest", "d"), [(64, 3), (256, 2), (40, 7)])
def test_items_with_a_block_each_are_their_sweeps(
    cupy: Any, unproven: None, largest: int, d: int, dtype: Any, tolerance: float, reach: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """More items than run at once, of all sizes, with weights of zero; to the bit the same again."""
    rng = np.random.default_rng(largest)
    sizes = rng.integers(8, largest + 1, (700, 2))
    x, y = ([cupy.asarray((rng.random((n, d)) + k / 5).astype(dtype)) for n in sizes[:, k]] for k in (0, 1))
    a, b = ([cupy.asarray(w / w.sum()) for w in (rng.integers(0, 4, n) + 1.0 * (np.arange(n) == 0) for n in side)]
            for side in sizes.T)  # fmt: skip
    options: dict[str, Any] = {"blur": 0.2, "reach": reach, "tol": 1e-5}
    found: Any = epsot.sinkhorn_divergence(x, y, a, b, **options)
    again = epsot.sinkhorn_divergence(x, y, a, b, **options)
    assert bool((found.value == again.value).all())
    monkeypatch.setattr(shapes, "ITEM_PAIRS", 0)
    wanted: Any = epsot.sinkhorn_divergence(x, y, a, b, **options)
    assert (found.xy.status == wanted.xy.status).all()
    assert (found.xy.nit == wanted.xy.nit).mean() > 0.99  # roundings may decide at a tolerance
    close(found.value, wanted.value.get(), tolerance)
    for k in (0, 350, 699):
        close(found[k].f, wanted[k].f.get(), tolerance)


def test_bursts_of_many_threads(cupy: Any, unproven: None) -> None:
    """Grids whose blocks wait for each other, of several streams at once: none starts before all of it can run."""
    rng = np.random.default_rng(0)
    clouds = [cupy.asarray(rng.random((1500, 3)).astype(np.float32)) for _ in range(9)]
    wanted = [epsot.sinkhorn_divergence(x, clouds[0], blur=0.1).value.get() for x in clouds[1:]]
    cupy.cuda.Device().synchronize()

    def solve(x: Any) -> Any:
        with cupy.cuda.Stream(non_blocking=True) as stream:
            value = epsot.sinkhorn_divergence(x, clouds[0], blur=0.1).value
            stream.synchronize()
            return value.get()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(solve, clouds[1:] * 3))
    np.testing.assert_array_equal(found, wanted * 3)


def test_gaussians(cupy: Any) -> None:
    """A closed form, over lattices whose sums are integrals."""
    mean_a, cov_a = np.array([0.2, -0.1]), np.array([[0.3, 0.1], [0.1, 0.2]])
    mean_b, cov_b = np.array([-0.3, 0.4]), np.array([[0.2, -0.05], [-0.05, 0.4]])
    x, a = closed_forms.gaussian_grid(mean_a, cov_a, 0.1)
    y, b = closed_forms.gaussian_grid(mean_b, cov_b, 0.1)
    eps = 0.25
    result = epsot.sinkhorn(*map(cupy.asarray, (x, y, a, b)), blur=math.sqrt(eps), tol=1e-9)
    assert float(result.value) == pytest.approx(
        closed_forms.gaussian_value(mean_a, cov_a, mean_b, cov_b, eps), abs=1e-6
    )


def test_gradients_by_differences(cupy: Any) -> None:
    """A central difference of the value in one coordinate of one point."""
    step = 1e-4
    result = epsot.sinkhorn_divergence(*map(cupy.asarray, (X, Y, A, B)), blur=0.6, **EXACT)
    for i, k in ((0, 0), (5, 1)):
        values = []
        for sign in (1, -1):
            moved = X.copy()
            moved[i, k] += sign * step
            values.append(
                float(epsot.sinkhorn_divergence(*map(cupy.asarray, (moved, Y, A, B)), blur=0.6, **EXACT).value)
            )
        assert float(result.grad_x[i, k]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_bad_inputs(cupy: Any) -> None:
    x, y = cupy.asarray(X), cupy.asarray(Y)
    hole = x.copy()
    hole[0, 0] = cupy.nan
    table: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ((hole, y), {}, ValueError, "`x` must have finite coordinates"),
        ((x, cupy.asarray(POINTS[:, :1])), {}, ValueError, "points of the same dimension"),
        ((x, Y), {}, TypeError, "all arrays must come from one library"),
        ((x, y, cupy.asarray(-A)), {}, ValueError, "`a` must not be negative"),
        ((x, y, cupy.asarray(A), cupy.asarray(3 * B)), {}, ValueError, "equal mass"),
        ((x.astype(np.complex64), y), {}, TypeError, "`x` must be real"),
        ((x, y), {"blur": -1.0}, ValueError, "`blur` must be positive"),
    ]
    for arguments, options, kind, message in table:
        with pytest.raises(kind, match=message):
            epsot.sinkhorn(*arguments, **{"blur": 0.5, **options})


# Memory, transfers, streams, devices


def test_memory_is_linear(cupy: Any, pool: Any) -> None:
    """100 000 points a side, of which an (n, m) array would be 80 GB."""
    n = 100_000
    rng = np.random.default_rng(0)
    x, y = (cupy.asarray(rng.random((n, 3)).astype(np.float32)) for _ in range(2))
    result = epsot.sinkhorn(x, y, blur=0.2, tol=1e-2)
    result.value, result.grad_x, result.plan @ x
    assert pool.total_bytes() < 4000 * n


def test_kernels_do_not_wait_for_the_device(cupy: Any) -> None:
    """The host is done with many sweeps long before the device: events of the first are still pending."""
    n = 50_000
    rng = np.random.default_rng(0)
    x, y = (cupy.asarray(rng.random((n, 3)).astype(np.float32)) for _ in range(2))
    kernel, h = kernels.points(x, y, HalfSquare()), cupy.zeros(n)
    f = kernel.softmin(h, 0.01)  # compiles
    kernel.softmin(h, 0.01, f + 1e3)
    cupy.cuda.Device().synchronize()
    end = cupy.cuda.Event(disable_timing=True)
    for _ in range(20):
        kernel.softmin(h, 0.01, f + 1e3)  # every row is redone, and the host must not know
    end.record()
    assert not end.done
    end.synchronize()


def test_the_current_stream_is_used(cupy: Any) -> None:
    """A capture records what is launched on its stream, and nothing else is allowed meanwhile."""
    rng = np.random.default_rng(0)
    x, y = (cupy.asarray(rng.random((2000, 3)).astype(np.float32)) for _ in range(2))
    kernel, h = kernels.points(x, y, HalfSquare()), cupy.zeros(2000)
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):  # the graph owns what its kernels use
        f = kernel.softmin(h, 0.01)
        kernel.softmin(h, 0.01, f)
        stream.synchronize()
        stream.begin_capture()
        captured = kernel.softmin(h, 0.01, f)
        graph = stream.end_capture()
        h += 0.5  # a new right side
        graph.launch()
        stream.synchronize()
        close(captured, (f - 0.005).get(), 1e-5 * 0.01)  # float32: 1e-5 of eps


def test_the_device_of_the_inputs(cupy: Any) -> None:
    """Whichever is current, from the checks of the inputs to what is computed later."""
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one device only")
    with cupy.cuda.Device(1):
        x, y, points = map(cupy.asarray, (X, Y, POINTS))
    result = epsot.sinkhorn_divergence(x, y, blur=0.6)
    found = of_any(result) | of_clouds(result, points)
    assert {array.device.id for array in found.values()} == {1}
    assert cupy.cuda.Device().id == 0


def test_indices_of_64_bits(cupy: Any) -> None:
    """More than 2^31 coordinates: the last rows are those of a small problem."""
    n, d = 2**25 + 1000, 64
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < 4 * n * d * 4:
        pytest.skip(f"{free / 1e9:.0f} GB of memory are free, four copies of 9 GB are needed")
    rng = np.random.default_rng(0)
    last, y, h = rng.random((500, d)).astype(np.float32), rng.random((3, d)).astype(np.float32), rng.normal(size=3)
    x = cupy.zeros((n, d), dtype=np.float32)
    x[-500:] = cupy.asarray(last)
    f = kernels.points(x, cupy.asarray(y), HalfSquare()).softmin(cupy.asarray(h), 0.5)[-500:]
    close(f, reference.Points(last, y, HalfSquare()).softmin(h, 0.5), 1e-4)


def test_tensors(cupy: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no device")
    ours = epsot.sinkhorn_divergence(X, Y, A, B, blur=0.6, **EXACT)
    tensors = [torch.asarray(z, device="cuda") for z in (X, Y, A, B)]
    assert kernels.backend_of(tensors[0]) == "cuda by DLPack"
    theirs = epsot.sinkhorn_divergence(*tensors, blur=0.6, **EXACT)
    assert theirs.grad_x.device == tensors[0].device
    np.testing.assert_allclose(theirs.grad_x.cpu().numpy(), ours.grad_x, rtol=1e-10, atol=1e-10)
