"""What is legal: odd layouts, dtypes and sizes are accepted, mean what they say, and are never modified."""

from __future__ import annotations

import signal
import warnings
from typing import Any

import numpy as np
import pytest

import epsot

rng = np.random.default_rng(1)
X, Y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 0.5
A, B = np.asarray([1, 2, 3, 4, 0, 2, 4]) / 16, np.asarray([5, 1, 2, 0, 2]) / 10
BLUR = 0.7
EXACT: dict[str, Any] = {"blur": BLUR, "tol": 1e-11, "max_iter": 5000}

ENTRIES = [epsot.sinkhorn, epsot.sinkhorn_divergence]


def outputs(result: Any, points: Any = X) -> dict[str, np.ndarray]:
    """Everything a user takes out of a solve of clouds."""
    plan = result.plan
    return {
        "value": result.value,
        "f": result.f,
        "g": result.g,
        "grad_x": result.grad_x,
        "grad_y": result.grad_y,
        "grad_a": result.grad_a,
        "grad_b": result.grad_b,
        "displacement": result.displacement,
        "marginals": plan.sum(axis=1),
        "dense": plan.to_dense(),
        "map": plan.barycentric_map(),
        "transport": result.transport(points),
        "potential": result.potential(points),
    }


def assert_same(actual: Any, desired: Any, tolerance: float = 0.0) -> None:
    actual, desired = outputs(actual), outputs(desired)
    for name, value in desired.items():
        np.testing.assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array: np.ndarray) -> np.ndarray:
    """Every second row and column of a larger array of NaN."""
    wide = np.full([3 * size for size in array.shape], np.nan)
    view = wide[tuple(slice(1, None, 3) for _ in array.shape)]
    view[...] = array
    return view


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers at an odd address."""
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)[1:]
    view = raw.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


class Tagged(np.ndarray):
    """A subclass that refuses arithmetic, as arrays with units may."""

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("arithmetic in the subclass")


class Framed:
    """What a data frame has: an array inside and `__array__`, no arithmetic."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype=dtype)


LAYOUTS = {
    "read-only": read_only,
    "fortran": np.asfortranarray,
    "strided": strided,
    "negative-strides": lambda z: np.flip(np.flip(z).copy()),
    "big-endian": lambda z: z.astype(">f8"),
    "little-endian": lambda z: z.astype("<f8"),
    "misaligned": misaligned,
    "subclass": lambda z: z.view(Tagged),
    "recarray": lambda z: z.view(np.recarray),
    "framed": Framed,
    "memoryview": memoryview,
    "list": lambda z: z.tolist(),
    "tuple": lambda z: tuple(map(tuple, z.tolist())) if z.ndim == 2 else tuple(z.tolist()),
    "list-of-arrays": list,
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(entry: Any, layout: str) -> None:
    make = LAYOUTS[layout]
    assert_same(entry(*map(make, (X, Y, A, B)), blur=BLUR), entry(X, Y, A, B, blur=BLUR), 1e-13)


@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean"])
def test_points_by_columns_give_the_same_bits(cost: str) -> None:
    """Of embedded points, too, whose lengths are sums over coordinates."""
    x, y = rng.normal(size=(20, 17)), rng.normal(size=(25, 17))
    one, other = (
        epsot.divergence(epsot.PointCloud(make(x), make(y), cost=cost), eps=0.05)
        for make in (np.ascontiguousarray, np.asfortranarray)
    )
    for name in ("value", "f", "g", "grad_x", "grad_a"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_a_cloud_by_columns_that_a_batch_shares_gives_the_same_bits() -> None:
    x, y = rng.normal(size=(2, 20, 17)), rng.normal(size=(25, 17))
    one, other = (
        epsot.divergence(epsot.PointCloud(x, make(y), cost="cosine"), eps=0.05)
        for make in (np.ascontiguousarray, np.asfortranarray)
    )
    for name in ("value", "f", "g", "grad_x", "grad_a"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_a_matrix(layout: str) -> None:
    """The same for a cost matrix with forbidden pairs."""
    make, cost = LAYOUTS[layout], rng.random((7, 5))
    cost[0, 1] = np.inf
    forms = {"C_xx": np.abs(np.subtract.outer(A, A)), "C_yy": np.abs(np.subtract.outer(B, B))}
    plain = epsot.divergence(epsot.CostMatrix(cost, **forms), A, B, eps=0.3)
    other = epsot.CostMatrix(make(cost), **{name: make(matrix) for name, matrix in forms.items()})
    result = epsot.divergence(other, make(A), make(B), eps=0.3)
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-13)
    np.testing.assert_allclose(result.plan.to_dense(), plain.plan.to_dense(), rtol=1e-13)


INTEGERS = {
    "int8": np.int8,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint64": np.uint64,
    "big-endian": ">i4",
    "list": None,
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_are_promoted(kind: str) -> None:
    """Integer input fails, in GeomLoss and elsewhere: here it means the same numbers in float64."""
    x, y = np.asarray([[0, 3], [1, 2], [4, 4]]), np.asarray([[1, 1], [5, 0]])
    a, b = np.asarray([1, 0, 3]), np.asarray([2, 2])
    real = epsot.sinkhorn_divergence(*(array.astype(float) for array in (x, y, a, b)), blur=1)
    make: Any = (lambda z: z.tolist()) if kind == "list" else (lambda z: z.astype(INTEGERS[kind]))
    result = epsot.sinkhorn_divergence(*map(make, (x, y, a, b)), blur=1)
    assert result.value.dtype == result.f.dtype == result.grad_x.dtype == np.float64
    for name, value in outputs(real, [[1, 2]]).items():
        np.testing.assert_array_equal(outputs(result, [[1, 2]])[name], value, err_msg=name)


def test_booleans_are_weights_of_zero_and_one() -> None:
    """The labels of a two-sample test serve as weights."""
    mask = np.asarray([True, False, True, True, False, False, True])
    both = X.copy()
    result = epsot.sinkhorn_divergence(both, both, mask, ~mask, blur=BLUR, reach=2.0)
    counted = epsot.sinkhorn_divergence(both, both, mask.astype(float), (~mask).astype(float), blur=BLUR, reach=2.0)
    assert_same(result, counted)


def test_booleans_are_points() -> None:
    """Binary features are points of the cube."""
    x, y = X > 0, Y > 0.5
    assert_same(epsot.sinkhorn(x, y, blur=BLUR), epsot.sinkhorn(x.astype(float), y.astype(float), blur=BLUR))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("left", "right"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_mixed_precision_of_points_is_promoted(entry: Any, left: Any, right: Any) -> None:
    x, y = X.astype(left), Y.astype(right)
    result = entry(x, y, A, B, blur=BLUR)
    for name, value in outputs(result).items():
        assert value.dtype == np.float64, name
    assert_same(result, entry(x.astype(float), y.astype(float), A, B, blur=BLUR))


@pytest.mark.parametrize("entry", ENTRIES)
def test_weights_of_another_precision(entry: Any) -> None:
    """The dtype of the results is that of the points; weights in float32 are the float64 numbers they stand for."""
    a, b = A.astype(np.float32), B.astype(np.float32)
    result = entry(X, Y, a, b, blur=BLUR)
    assert all(value.dtype == np.float64 for value in outputs(result).values())
    assert_same(
        result,
        entry(X, Y, a.astype(float), b.astype(float) * (a.sum(dtype=float) / b.sum(dtype=float)), blur=BLUR),
        1e-12,
    )
    result = entry(X.astype(np.float32), Y.astype(np.float32), A, B, blur=BLUR)
    assert all(value.dtype == np.float32 for value in outputs(result).values())


@pytest.mark.parametrize("scale", [1.0, 2000.0])
def test_masses_may_differ_by_the_rounding_of_float32(scale: float) -> None:
    """A thousand weights that sum to 1 only in float32 are balanced: b takes the mass of a."""
    a = rng.random(1000).astype(np.float32)
    b = rng.random(900).astype(np.float32)
    a, b = np.float32(scale) * a / a.sum(), np.float32(scale) * b / b.sum()
    assert a.sum(dtype=float) != b.sum(dtype=float)
    result = epsot.sinkhorn(rng.random((1000, 1)), rng.random((900, 1)), a, b, blur=0.5)
    assert result.success
    np.testing.assert_allclose(result.plan.sum(), a.sum(dtype=float), rtol=1e-3)


def test_inputs_are_never_modified() -> None:
    """Read-only arrays would raise; writable ones must still hold what they held."""
    x, y, a, b = (array.copy() for array in (X, Y, A, B))
    for reach in (None, 1.0):
        result = epsot.sinkhorn_divergence(x, y, a, b, blur=BLUR, reach=reach)
        outputs(result, x)
        v = X.copy()
        result.plan @ b, result.plan.T @ v, result.plan.sample(20, rng=0), result.plan.to_sparse(), result.gap
        np.testing.assert_array_equal(v, X)
    for array, before in ((x, X), (y, Y), (a, A), (b, B)):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("entry", ENTRIES)
def test_results_outlive_changes_of_the_inputs(entry: Any) -> None:
    """A gradient step moves the points in place; what is derived from the solve afterwards still belongs to it."""
    x, y, a, b = (array.copy() for array in (X, Y, A, B))
    result = entry(x, y, a, b, blur=BLUR)
    for array in (x, y, a, b):
        array += 10
    assert_same(result, entry(X, Y, A, B, blur=BLUR))


@pytest.mark.parametrize("name", ["f", "g", "grad_x", "grad_a"])
def test_results_outlive_changes_of_what_they_gave(name: str) -> None:
    """Arrays that are handed out are the user's own, or refuse to be written."""
    result, fresh = epsot.sinkhorn(X, Y, blur=BLUR), epsot.sinkhorn(X, Y, blur=BLUR)
    array = getattr(result, name)
    if isinstance(array, np.ndarray) and array.flags.writeable:
        array[...] = 7.0
    np.testing.assert_array_equal(result.value, fresh.value)
    np.testing.assert_array_equal(result.plan.to_dense(), fresh.plan.to_dense())
    np.testing.assert_array_equal(result.displacement, fresh.displacement)


# Numbers of every kind


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16, np.asarray])
def test_scales_may_be_any_real_number(kind: Any) -> None:
    options = {"blur": 0.5, "reach": 2.0, "diameter": 4.0, "scaling": 0.5, "tol": 0.0625}
    plain = epsot.sinkhorn(X, Y, A, B, **options)
    assert_same(epsot.sinkhorn(X, Y, A, B, **{name: kind(value) for name, value in options.items()}), plain)
    cloud = epsot.PointCloud(X, Y)
    assert_same(
        epsot.solve(cloud, A, B, eps=kind(0.25), rho=(kind(4.0), None)),
        epsot.solve(cloud, A, B, eps=0.25, rho=(4.0, None)),
    )


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.int32])
def test_counts_may_be_any_integer(kind: Any) -> None:
    plain = epsot.sinkhorn(X, Y, blur=1, max_iter=100, workers=1)
    result = epsot.sinkhorn(X, Y, blur=kind(1), p=kind(2), max_iter=kind(100), workers=kind(1), reach=[None, None])
    assert_same(result, plain)
    np.testing.assert_array_equal(result.plan.rows(kind(2)), plain.plan.to_dense()[2])
    np.testing.assert_array_equal(result.plan.sum(axis=kind(1)), plain.plan.sum(axis=1))
    assert result.plan.sample(kind(4), rng=0)[0].shape == (4,)
    assert result.plan.to_sparse(max_per_row=kind(1)).nnz == len(X)


def test_infinite_strength_is_balanced() -> None:
    balanced = epsot.sinkhorn(X, Y, A, B, blur=BLUR)
    for reach in (np.inf, (None, np.inf), [np.inf, np.inf]):
        result = epsot.sinkhorn(X, Y, A, B, blur=BLUR, reach=reach)
        assert result.rho is None
        assert_same(result, balanced)


def test_workers_do_not_change_a_bit() -> None:
    plain = epsot.sinkhorn_divergence(X, Y, A, B, blur=BLUR, workers=1)
    for workers in (None, -1, 2, 3):
        assert_same(epsot.sinkhorn_divergence(X, Y, A, B, blur=BLUR, workers=workers), plain)


# Degenerate problems


def test_zero_weights_are_exact() -> None:
    """Points of weight zero change nothing for the others, and have finite potentials and maps of their own."""
    result = epsot.sinkhorn_divergence(X, Y, A, B, **EXACT)
    kept_a, kept_b = A > 0, B > 0
    core = epsot.sinkhorn_divergence(X[kept_a], Y[kept_b], A[kept_a], B[kept_b], **EXACT)
    np.testing.assert_allclose(result.value, core.value, rtol=1e-12)
    for name, kept in (("f", kept_a), ("grad_x", kept_a), ("displacement", kept_a), ("grad_b", kept_b), ("g", kept_b)):
        np.testing.assert_allclose(getattr(result, name)[kept], getattr(core, name), rtol=1e-10, atol=1e-12)
    for name, value in outputs(result).items():
        assert np.isfinite(value).all(), name
    assert (result.grad_x[~kept_a] == 0).all()
    assert (result.plan.to_dense()[~kept_a] == 0).all()
    np.testing.assert_allclose(result.f, result.potential(X), atol=1e-12)
    np.testing.assert_allclose(X + result.displacement, result.transport(X), atol=1e-12)


def test_a_single_positive_weight() -> None:
    """All mass on one point: the plan is b itself, and OT is the mean cost plus the entropy, which is zero."""
    a = np.zeros(7)
    a[3] = 1.0
    result = epsot.sinkhorn(X, Y, a, B, blur=BLUR)
    np.testing.assert_allclose(result.value, B @ np.sum((X[3] - Y) ** 2, axis=1) / 2, rtol=1e-12)
    np.testing.assert_allclose(result.plan.rows(3), B, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("entry", ENTRIES)
def test_one_point_each(entry: Any, p: int) -> None:
    """n = m = 1: OT = S = C(x, y), and the gradient is that of the cost."""
    x, y = np.asarray([[1.0, 2.0]]), np.asarray([[4.0, 6.0]])
    result = entry(x, y, blur=0.1, p=p)
    assert result.success
    np.testing.assert_allclose(result.value, 5.0**p / p, rtol=1e-12)
    np.testing.assert_allclose(result.grad_x, (x - y) * 5.0 ** (p - 2), rtol=1e-12)
    np.testing.assert_allclose(result.plan.to_dense(), [[1.0]], rtol=1e-12)
    np.testing.assert_allclose(result.gap, 0.0, atol=1e-12)


def test_one_point_with_another_mass() -> None:
    """Mass 3: OT = 3 C + eps (3 log 3 - 3 + ...): with P = 3 against a b = 9, KL = 3 log(1/3) - 3 + 9."""
    x, y, eps = np.asarray([[0.0]]), np.asarray([[2.0]]), 0.25
    result = epsot.sinkhorn(x, y, [3], [3], blur=0.5)
    np.testing.assert_allclose(result.value, 3 * 2.0 + eps * (3 * np.log(1 / 3) + 6), rtol=1e-12)
    np.testing.assert_allclose(epsot.sinkhorn_divergence(x, y, [3], [3], blur=0.5).value, 6.0, rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 500), (500, 1)])
def test_one_against_many(shape: tuple[int, int]) -> None:
    """The plan is the product measure, and OT the mean cost."""
    x, y = rng.normal(size=(shape[0], 2)), rng.normal(size=(shape[1], 2))
    result = epsot.sinkhorn(x, y, blur=0.01)
    assert result.success
    mean = np.mean(np.sum((x[:, None] - y) ** 2, axis=-1)) / 2
    np.testing.assert_allclose(result.value, mean, rtol=1e-10)
    np.testing.assert_allclose(result.plan.to_dense(), np.full(shape, 1 / 500), rtol=1e-9)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 0.8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_clouds(p: int, reach: float | None, dtype: Any) -> None:
    """S(a, a) = 0 exactly, whether the clouds are one array or two equal ones."""
    x = X.astype(dtype)
    for y in (x, x.copy()):
        result = epsot.sinkhorn_divergence(x, y, A, A, blur=0.3, p=p, reach=reach)
        assert result.success
        assert result.value == 0
        assert not result.grad_x.any()
        assert not result.displacement.any()
        assert not result.f.any()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("at", [0.0, 1.0, 1e6])
def test_all_points_equal(entry: Any, p: int, at: float) -> None:
    """A diameter of zero is a legal problem: value 0, gradient 0, the product plan."""
    x, y = np.full((4, 2), at), np.full((3, 2), at)
    a, b = np.asarray([1, 2, 3, 4]) / 10, np.asarray([1, 0, 1]) / 2
    result = entry(x, y, a, b, blur=0.3, p=p)
    assert result.success
    np.testing.assert_allclose(result.value, 0, atol=1e-15)
    np.testing.assert_allclose(result.grad_x, 0, atol=1e-15)
    np.testing.assert_allclose(result.plan.to_dense(), np.outer(a, b), rtol=1e-12)


def test_duplicate_points_are_one_point() -> None:
    """Splitting a weight over copies of its point changes neither the value nor the potentials."""
    x, a = np.concatenate([X, X[:3], X[1:2]]), np.concatenate([A, [0, 0, 0, 0]])
    a[7], a[0] = 0.4 * A[0], 0.6 * A[0]
    a[8], a[10], a[1] = A[1] / 4, A[1] / 4, A[1] / 2
    whole, split = epsot.sinkhorn_divergence(X, Y, A, B, **EXACT), epsot.sinkhorn_divergence(x, Y, a, B, **EXACT)
    np.testing.assert_allclose(split.value, whole.value, rtol=1e-10)
    np.testing.assert_allclose(split.f, whole.f[[*range(7), 0, 1, 2, 1]], atol=1e-9)
    np.testing.assert_allclose(split.displacement[[0, 7]], whole.displacement[[0, 0]], atol=1e-9)


def test_coincident_points_of_the_two_clouds() -> None:
    """p = 1 has no gradient where x = y: it counts as zero, not as NaN."""
    y = np.concatenate([X[:2], Y])
    for entry in ENTRIES:
        result = entry(X, y, blur=0.1, p=1)
        assert np.isfinite(result.grad_x).all()
        assert np.isfinite(result.value)


@pytest.mark.parametrize("factor", [1.5, 10, 1000])
def test_blur_above_the_diameter(factor: float) -> None:
    """OT tends to the mean cost, S to half the squared distance of the means."""
    blur = factor * np.sqrt(np.sum(np.ptp(np.concatenate([X, Y]), axis=0) ** 2))
    result = epsot.sinkhorn_divergence(X, Y, A, B, blur=blur, tol=1e-10)
    assert result.success
    assert result.nit < 20
    limit = np.sum((A @ X - B @ Y) ** 2) / 2
    np.testing.assert_allclose(result.value, limit, rtol=3 / factor**2 + 1e-6)
    mean = A @ (np.sum((X[:, None] - Y) ** 2, axis=-1) / 2) @ B
    np.testing.assert_allclose(result.xy.value, mean, rtol=3 / factor**2 + 1e-8)


@pytest.mark.parametrize(
    ("dtype", "offset", "tolerance"), [(float, 1e3, 1e-9), (float, 1e6, 1e-6), (np.float32, 1e3, 1e-4)]
)
def test_offset(dtype: Any, offset: float, tolerance: float) -> None:
    """Both clouds far from the origin: the same problem up to the rounding of the coordinates."""
    x, y = (np.round(array * 64) / 64 for array in (X, Y))  # offsets are exact in float32 too
    here = epsot.sinkhorn_divergence(x, y, A, B, **EXACT)
    there = epsot.sinkhorn_divergence(
        (x + offset).astype(dtype), (y + offset).astype(dtype), A, B, blur=BLUR, tol=1e-9 if dtype is float else 1e-4
    )
    np.testing.assert_allclose(there.value, here.value, rtol=tolerance)
    np.testing.assert_allclose(there.displacement, here.displacement, rtol=0, atol=1e-6 if dtype is float else 3e-3)


@pytest.mark.parametrize("unit", [1e-100, 1e-6, 1e6, 1e100])
@pytest.mark.parametrize("p", [1, 2])
def test_units(unit: float, p: int) -> None:
    """Points and scales in another unit: the value scales by unit^p, the gradients by unit^(p - 1)."""
    plain = epsot.sinkhorn(X, Y, A, B, blur=BLUR, p=p, reach=2.0)
    scaled = epsot.sinkhorn(unit * X, unit * Y, A, B, blur=unit * BLUR, p=p, reach=2.0 * unit)
    np.testing.assert_allclose(scaled.value / unit**p, plain.value, rtol=1e-9)
    np.testing.assert_allclose(scaled.displacement / unit ** (p - 1), plain.displacement, rtol=1e-7, atol=1e-9)
    assert scaled.nit == plain.nit


@pytest.mark.parametrize("mass", [1e-300, 1e-30, 1e-6, 1e6, 1e30])
def test_mass(mass: float) -> None:
    """Balanced, the plan scales with the mass, and so do the gradients."""
    plain, scaled = (epsot.sinkhorn(X, Y, m * A, m * B, **EXACT) for m in (1.0, mass))
    assert scaled.success
    np.testing.assert_allclose(scaled.plan.to_dense() / mass, plain.plan.to_dense(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled.displacement, plain.displacement, rtol=1e-9, atol=1e-10)


def test_weights_of_every_magnitude() -> None:
    """From denormal to large on one cloud: no NaN, no warning."""
    a = np.asarray([5e-324, 1e-300, 1e-30, 1e-8, 1.0, 1e3, 0.0])
    for reach in (None, 1.0):
        result = epsot.sinkhorn_divergence(X, Y, a, B * (a.sum() / B.sum()), blur=BLUR, reach=reach)
        for name, value in outputs(result).items():
            assert np.isfinite(value).all(), name


def test_a_diameter_far_too_large_is_only_slow() -> None:
    """The first temperature is forgotten: neither the value nor the potentials carry its rounding."""
    plain = epsot.sinkhorn(X, Y, A, B, **EXACT)
    for diameter in (1e3, 1e10, 1e30):
        hot = epsot.sinkhorn(X, Y, A, B, **EXACT, diameter=diameter)
        np.testing.assert_allclose(hot.value, plain.value, rtol=1e-8)
        np.testing.assert_allclose(hot.f, plain.f, atol=1e-7)


@pytest.fixture
def alarm() -> Any:
    """Interrupts a test that hangs."""

    def ring(*_: Any) -> None:
        raise TimeoutError("the solve hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm clock")
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_a_scaling_next_to_one_does_not_hang(tol: float | None, alarm: None) -> None:
    """The schedule is longer than `max_iter`, and loses its hottest levels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = epsot.sinkhorn(X, Y, blur=BLUR, scaling=float(np.nextafter(1.0, 0.0)), max_iter=30, tol=tol)
    assert result.nit <= 30


@pytest.mark.parametrize("geometry", ["points", "matrix"])
def test_constant_and_negative_costs(geometry: str) -> None:
    """A constant on the cost moves the value by itself and the plan not at all."""
    if geometry == "points":
        plain = epsot.solve(epsot.PointCloud(X, Y, cost="cosine"), A, B, eps=0.1, tol=1e-10)
        cost = np.asarray(plain.plan.kernel.cost_rows(slice(None)))
    else:
        cost = rng.random((7, 5))
        plain = epsot.solve(epsot.CostMatrix(cost), A, B, eps=0.1, tol=1e-10)
    moved = epsot.solve(epsot.CostMatrix(cost - 100), A, B, eps=0.1, tol=1e-10)
    np.testing.assert_allclose(moved.value + 100, plain.value, rtol=1e-9)
    np.testing.assert_allclose(moved.plan.to_dense(), plain.plan.to_dense(), atol=1e-9)
    flat = epsot.solve(epsot.CostMatrix(np.full((7, 5), -3.0)), A, B, eps=0.1)
    np.testing.assert_allclose(flat.value, -3.0, rtol=1e-12)
    np.testing.assert_allclose(flat.plan.to_dense(), np.outer(A, B), rtol=1e-12)


# Callbacks


def test_an_exception_in_a_callback_leaves_everything_usable() -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("from the callback")

    plain = epsot.sinkhorn(X, Y, blur=BLUR)
    for entry in ENTRIES:
        with pytest.raises(RuntimeError, match="from the callback"):
            entry(X, Y, blur=BLUR, callback=fail)
    assert_same(epsot.sinkhorn(X, Y, blur=BLUR), plain)


def test_a_callback_that_writes_into_the_potentials() -> None:
    """What it gets is its own, or refuses to be written: the solve is not led astray."""

    def scribble(intermediate: Any) -> None:
        for array in (intermediate.f, intermediate.g):
            if array.flags.writeable:
                array[:] = 1e3

    watched = epsot.sinkhorn(X, Y, blur=BLUR, callback=lambda record: (record.f, record.g))
    assert_same(epsot.sinkhorn(X, Y, blur=BLUR, callback=scribble), watched)


def test_a_callback_may_solve() -> None:
    inner: list[float] = []

    def nested(_: Any) -> None:
        inner.append(float(epsot.sinkhorn(Y, X, blur=BLUR).value))

    result = epsot.sinkhorn(X, Y, blur=BLUR, callback=nested)
    assert_same(result, epsot.sinkhorn(X, Y, blur=BLUR, callback=lambda _: None))
    assert len(inner) == result.nit
    assert len(set(inner)) == 1


def test_records_of_a_callback_may_be_kept() -> None:
    kept: list[Any] = []
    result = epsot.sinkhorn(X, Y, A, B, **EXACT, callback=kept.append)
    assert [record.nit for record in kept] == list(range(1, result.nit + 1))
    assert kept[-1].eps == result.eps
    assert sorted((record.eps for record in kept), reverse=True) == [record.eps for record in kept]
    np.testing.assert_allclose(np.ptp(kept[-1].f - result.f), 0, atol=1e-8)  # up to the gauge
    np.testing.assert_allclose(kept[-1].marginal_error, result.marginal_error, rtol=1e-6)
    assert kept[0].f.shape == (7,)
    assert kept[0].g.shape == (5,)


def test_stop_iteration_from_a_cost_is_an_error() -> None:
    """Only a callback stops a solve: anywhere else StopIteration is a mistake that must not pass for an end."""

    class Exhausted(epsot.Cost):
        def value(self, x: Any, y: Any) -> Any:
            raise StopIteration

        def gradient(self, x: Any, y: Any) -> Any:
            return x - y

    with pytest.raises((StopIteration, RuntimeError)):
        epsot.solve(epsot.PointCloud(X, Y, cost=Exhausted()), eps=0.1)


def test_a_cost_of_nan_is_not_a_success() -> None:
    class Broken(epsot.Cost):
        def value(self, x: Any, y: Any) -> Any:
            return np.sum(x - y, axis=-1) * np.nan

        def gradient(self, x: Any, y: Any) -> Any:
            return x - y

    with pytest.raises(ValueError, match=r"`cost`.*got NaN"):
        epsot.solve(epsot.PointCloud(X, Y, cost=Broken()), eps=0.1)


@pytest.mark.parametrize("d", [1, 3, 5])
def test_lengths_whose_squares_overflow_diverge(d: int) -> None:
    """With a diameter of the user's own nothing else stops them."""
    rng = np.random.default_rng(0)
    x, y = rng.random((6, d)) * 1e200, rng.random((5, d)) * 1e200
    with pytest.warns(epsot.ConvergenceWarning, match="DIVERGED"), np.errstate(all="ignore"):
        assert epsot.sinkhorn(x, y, blur=1.0, diameter=1.0).status is epsot.Status.DIVERGED
