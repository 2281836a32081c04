"""Every formula for a derivative against central differences, and the maps that are made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.costs import NAMED_COSTS
from epsot.geometry import base
from tests import checks
from tests.checks import TIGHT, close, has_slopes, posed, slopes, up_to_constant
from tests.conftest import Measures, measures
from tests.own_costs import PseudoHuber

pytestmark = pytest.mark.usefixtures("any_path")

RHOS = [None, 0.8, (0.5, 2.0), (None, 0.7), (0.7, None)]
EPS = 0.25
# the error of a value is quadratic in tol; a difference over 1e-5 of values that round at 1e-15 is good to 1e-9
EXACT: dict[str, Any] = {"eps": EPS, "tol": 1e-11, "max_iter": 100_000}
TOLERANCE = 2e-8


COSTS = ["sqeuclidean", "euclidean", "cityblock", "cosine", PseudoHuber()]


@pytest.fixture(params=[epsot.solve, epsot.divergence], ids=["value", "divergence"])
def call(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def small() -> Measures:
    """Small enough for finite differences in everything."""
    return measures(4, 5, 2)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("cost", [None, *COSTS], ids=str)
def test_points(small: Measures, call: Any, cost: Any, rho: Any) -> None:
    x, y, a, b = posed(small, rho)
    result = call(epsot.PointCloud(x, y, cost=cost), a, b, rho=rho, **EXACT)

    def value(x: np.ndarray, y: np.ndarray) -> Any:
        return call(epsot.PointCloud(x, y, cost=cost), a, b, rho=rho, **EXACT).value

    has_slopes(result.grad_x, lambda z: value(z, y), x, TOLERANCE)
    has_slopes(result.grad_y, lambda z: value(x, z), y, TOLERANCE)
    close(result.displacement[a > 0], -result.grad_x[a > 0] / a[a > 0, None])


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("d", [1, 3, 17])
def test_points_in_other_dimensions(call: Any, p: int, d: int) -> None:
    x, y, a, b = measures(4, 5, d, offset=20.0).balanced
    result = call(epsot.PointCloud(x, y, p=p), a, b, **EXACT)
    has_slopes(result.grad_x, lambda z: call(epsot.PointCloud(z, y, p=p), a, b, **EXACT).value, x, TOLERANCE)


def test_one_cloud_moved_as_both(small: Measures) -> None:
    """Where both measures are one, moving it moves both arguments: d OT(x, x) = grad_x + grad_y, and S stays zero."""
    x, a = small.x, small.a
    result = epsot.solve(epsot.PointCloud(x, x), a, a, **EXACT)
    both = slopes(lambda z: epsot.solve(epsot.PointCloud(z, z), a, a, **EXACT).value, x)
    close(result.grad_x + result.grad_y, both, TOLERANCE)
    divergence = epsot.divergence(epsot.PointCloud(x, x), a, a, **EXACT)
    assert not np.any(divergence.grad_x)
    assert not np.any(divergence.displacement)


@pytest.mark.parametrize("rho", [0.8, (0.5, 2.0), (None, 0.7), (0.7, None)])
def test_weights(small: Measures, call: Any, rho: Any) -> None:
    """Where a mass is free, weights move one by one and the gradient has no constant of its own."""
    x, y, a, b = small
    a, b = a + 0.1, b + 0.1  # central differences need room on both sides
    geometry = epsot.PointCloud(x, y)
    result = call(geometry, a, b, rho=rho, **EXACT)
    close(result.grad_a, slopes(lambda w: call(geometry, w, b, rho=rho, **EXACT).value, a), TOLERANCE)
    close(result.grad_b, slopes(lambda w: call(geometry, a, w, rho=rho, **EXACT).value, b), TOLERANCE)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("rho", [None, 0.8])
def test_a_weight_of_zero(small: Measures, call: Any, p: int, rho: float | None) -> None:
    """There the gradient is one-sided, the derivative of adding a little mass."""
    x, y, a, b = small.balanced
    geometry, i, step = epsot.PointCloud(x, y, p=p), len(a) // 2, 1e-8
    assert a[i] == 0
    result = call(geometry, a, b, rho=rho, **EXACT)
    more = a + step * np.eye(len(a))[i]
    if rho is None:
        more[0] -= step  # the mass is kept
    change = (float(call(geometry, more, b, rho=rho, **EXACT).value) - float(result.value)) / step
    expected = result.grad_a[i] - (result.grad_a[0] if rho is None else 0)
    close(change, expected, 1e-5)  # one-sided, so of first order in the step


def test_balanced_weights(small: Measures, call: Any) -> None:
    """Mass moves from the first point to another, so that the constant drops out."""
    x, y, a, b = small.balanced
    a, b = a + 0.1, b + 0.1 * len(a) / len(b)
    geometry = epsot.PointCloud(x, y)
    result = call(geometry, a, b, **EXACT)

    def exchange(weights: np.ndarray, t: np.ndarray) -> np.ndarray:
        return weights + np.concatenate([[-t.sum()], t])

    by_a = slopes(lambda t: call(geometry, exchange(a, t), b, **EXACT).value, np.zeros(len(a) - 1))
    by_b = slopes(lambda t: call(geometry, a, exchange(b, t), **EXACT).value, np.zeros(len(b) - 1))
    close(result.grad_a[1:] - result.grad_a[0], by_a, TOLERANCE)
    close(result.grad_b[1:] - result.grad_b[0], by_b, TOLERANCE)
    if call is epsot.solve:
        close(up_to_constant(result.grad_a), up_to_constant(result.f), 1e-12)


@pytest.mark.parametrize("rho", RHOS)
def test_cost_matrix(small: Measures, rho: Any) -> None:
    """dOT / dC = P; and the weights as for points."""
    _, _, a, b = posed(small, rho)
    C = np.random.default_rng(0).random((len(a), len(b)))
    C[0, 2] = np.inf
    result = epsot.solve(epsot.CostMatrix(C), a, b, rho=rho, **EXACT)
    by_C = slopes(lambda z: epsot.solve(epsot.CostMatrix(z), a, b, rho=rho, **EXACT).value, C)
    close(result.plan.to_dense(), by_C, TOLERANCE)
    if rho is not None:
        a, b = a + 0.1, b + 0.1
        result = epsot.solve(epsot.CostMatrix(C), a, b, rho=rho, **EXACT)
        by_a = slopes(lambda w: epsot.solve(epsot.CostMatrix(C), w, b, rho=rho, **EXACT).value, a)
        close(result.grad_a, by_a, TOLERANCE)
    for name in ("grad_x", "grad_y", "displacement"):
        with pytest.raises(TypeError, match="PointCloud"):
            getattr(result, name)


# Maps beyond the points


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("cost", [None, "euclidean", "cosine"])
def test_maps_extend_what_is_known_at_the_points(small: Measures, call: Any, cost: Any, rho: Any) -> None:
    x, y, a, b = posed(small, rho)
    result = call(epsot.PointCloud(x, y, cost=cost), a, b, rho=rho, **EXACT)
    close(result.potential(x), result.f, 1e-9)
    close(result.transport(x), x + result.displacement, 1e-9)


def test_displacement_of_a_vanishing_weight_is_that_of_none(small: Measures, call: Any) -> None:
    x, y, a, b = small.balanced
    i = len(a) // 2
    # the L1 error does not see so little a weight; its point has to be right all the same
    little = a.copy()
    little[i] = 1e-13
    little[0] -= 1e-13
    exact = call(epsot.PointCloud(x, y), a, b, **EXACT)
    close(call(epsot.PointCloud(x, y), little, b, **EXACT).displacement, exact.displacement, 1e-6)
    assert np.isfinite(exact.displacement).all()
    assert not np.any(exact.grad_x[i])


@pytest.mark.parametrize("p", [1, 2])
def test_the_balanced_map_is_the_gradient_of_the_potential(small: Measures, call: Any, p: int) -> None:
    """T(z) = z - grad f(z), far outside too."""
    x, y, a, b = small.balanced
    result = call(epsot.PointCloud(x, y, p=p), a, b, **EXACT)
    z = np.concatenate([x[:2] + 0.3, [[4.0, -3.0]]])
    gradient = np.stack([slopes(lambda point: result.potential(point[None, :])[0], point) for point in z])
    close(z - gradient, result.transport(z), 1e-8)


def test_map_of_squares_is_barycentric(awkward: Measures) -> None:
    result = epsot.sinkhorn(*awkward.balanced, blur=0.5, tol=1e-11, max_iter=10_000)
    close(awkward.x + result.displacement, result.plan.barycentric_map(), 1e-8)


def test_coincident_points(call: Any) -> None:
    """|x - y| has no gradient where the points coincide: zero stands for it, never NaN."""
    x = np.asarray([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    for p in (1, 2):
        result = call(epsot.PointCloud(x, x[:2], p=p), eps=0.1)
        assert np.isfinite(result.grad_x).all()
        assert np.isfinite(result.transport(x)).all()


def transported(part: Any, C: np.ndarray) -> float:
    """<P, C> of exactly these potentials, over dense float64 arrays."""
    f, g, C = (np.asarray(z, dtype=np.float64) for z in (part.source.potential, part.target.potential, C))
    a, b = part.instance.a, part.instance.T.a
    with np.errstate(invalid="ignore"):
        return float(np.nansum(checks.plan(f, g, C, a, b, part.eps) * C))


@pytest.mark.parametrize("rho", [None, (0.6, 1.5), (None, 0.4)])
@pytest.mark.parametrize("cost", [*NAMED_COSTS, "half", "own", "matrix"])
def test_transport_cost(awkward: Measures, cost: str, rho: Any) -> None:
    """The part of the value that is no entropy and no penalty, at any tolerance."""
    x, y, a, b = awkward.balanced
    named = cost if cost in NAMED_COSTS else {"own": PseudoHuber(), "half": None, "matrix": "cityblock"}[cost]
    clouds = [epsot.PointCloud(u, v, cost=named) for u, v in ((x, y), (x, x), (y, y))]
    C, C_xx, C_yy = (cloud.kernel().cost_rows(slice(None)) for cloud in clouds)
    geometry: Any = epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy) if cost == "matrix" else clouds[0]
    eps = 0.1 * float(C.mean())
    result = epsot.divergence(geometry, a, b, eps=eps, rho=rho, tol=1e-2)
    expected = [transported(part, dense) for part, dense in zip(result.parts, (C, C_xx, C_yy), strict=True)]
    for part, value in zip(result.parts, expected, strict=True):
        close(part.transport_cost, value, 1e-11)
    close(result.transport_cost, expected[0] - (expected[1] + expected[2]) / 2, 1e-11)
    # Directions that are nearly the same leave no certain digit beyond 1e-12.
    tight = epsot.solve(geometry, a, b, eps=eps, rho=rho, **TIGHT | {"tol": 1e-11 if cost == "cosine" else 1e-12})
    P = tight.plan.to_dense()
    close(tight.value, tight.transport_cost + checks.primal(P, 0 * C, a, b, eps, rho), 1e-9)


@pytest.mark.parametrize("d", [1, 3, 7])
@pytest.mark.parametrize("blur", [1.0, 1e10, 1e25])
def test_distances_at_any_temperature(d: int, blur: float, rng: np.random.Generator) -> None:
    """The gradient is a mean of unit vectors, in float32 too, whose numbers the squares of scaled lengths may leave."""
    x, y = rng.random((20, d)).astype(np.float32), rng.random((30, d)).astype(np.float32)
    single, double = (epsot.sinkhorn(x.astype(t), y.astype(t), blur=blur, p=1) for t in (np.float32, np.float64))
    np.testing.assert_allclose(single.grad_x, double.grad_x, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_transport_cost_of_near_clouds_anywhere(shift: float, dtype: Any, p: int, rng: np.random.Generator) -> None:
    """What is moved is short beside the clouds, and these are small beside where they lie."""
    scale = 1.0 if dtype == np.float64 else 1024.0  # float32 resolves sixteenths there
    x = (scale * rng.random((200, 2)) + shift).astype(dtype)
    y = (x + scale * rng.integers(0, 2, x.shape) / 256).astype(dtype)
    result = epsot.sinkhorn(x, y, blur=0.01 * scale, p=p)
    desired = transported(result, checks.power_cost(x, y, p))
    np.testing.assert_allclose(result.transport_cost, desired, rtol=1e-3 if dtype == np.float32 else 1e-9)
    assert desired < (0.02 * scale) ** p


def test_transport_cost_of_a_matrix(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """In blocks of rows; forbidden pairs and points of weight zero cost nothing."""
    monkeypatch.setattr(base, "BLOCK_ELEMENTS", 20)
    C, a, b = rng.random((13, 7)), rng.random(13), rng.random(7)
    C[rng.random(C.shape) < 0.3] = np.inf
    C[0], C[:, 0], a[2] = 1, 1, 0
    result = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1, rho=1, tol=1e-6)
    close(result.transport_cost, np.sum(np.where(np.isinf(C), 0, result.plan.to_dense() * np.where(np.isinf(C), 0, C))))
    C[3] = np.inf
    result = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.1, rho=1, tol=1e-6)
    close(result.transport_cost, np.sum(np.where(np.isinf(C), 0, result.plan.to_dense() * np.where(np.isinf(C), 0, C))))
