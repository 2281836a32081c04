"""Ground costs against SciPy's distances and central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import epsot
from epsot.costs import NAMED_COSTS, Cosine, Cost, Euclidean, HalfSquare
from epsot.geometry import Multiscale
from tests.checks import TIGHT, close, slopes
from tests.conftest import Measures

COSTS = [HalfSquare(), Euclidean(), *(cost() for cost in NAMED_COSTS.values())]


@pytest.mark.parametrize("name", NAMED_COSTS)
def test_values_are_those_of_scipy(awkward: Measures, name: str) -> None:
    x, y, _, _ = awkward
    cost = NAMED_COSTS[name]()
    close(cost.value(x[:, None, :], y[None, :, :]), cdist(x, y, name), 1e-12)


@pytest.mark.parametrize("name", NAMED_COSTS)
@pytest.mark.parametrize("rho", [None, (0.5, 2.0)])
def test_named_costs_are_their_matrices(awkward: Measures, name: str, rho: Any, any_path: None) -> None:
    problem = awkward.balanced
    x, y, a, b = problem
    C, C_xx, C_yy = cdist(x, y, name), cdist(x, x, name), cdist(y, y, name)
    C_xx, C_yy = (C_xx + C_xx.T) / 2, (C_yy + C_yy.T) / 2
    eps = 0.2 * float(C.mean()) + 0.01
    points = epsot.divergence(epsot.PointCloud(x, y, cost=name), a, b, eps=eps, rho=rho, **TIGHT)
    matrix = epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy), a, b, eps=eps, rho=rho, **TIGHT)
    close(points.value, matrix.value, 1e-8)
    close(points.xy.value, matrix.xy.value, 1e-9)
    close(points.f, matrix.f, 1e-7)
    close(points.plan.to_dense(), matrix.plan.to_dense(), 1e-8)


@pytest.mark.parametrize("cost", COSTS, ids=repr)
@pytest.mark.parametrize("d", [1, 2, 3, 17])
def test_gradient(cost: Cost, d: int, rng: np.random.Generator) -> None:
    for _ in range(3):
        x, y = rng.normal(size=d) + 1, rng.normal(size=d)
        numerical = slopes(lambda z, y=y: cost.value(z, y), x, 1e-6)
        close(cost.gradient(x, y), numerical, 1e-7)
        close(cost.value(x, y), cost.value(y, x), 1e-15)


@pytest.mark.parametrize("cost", COSTS, ids=repr)
def test_the_family_between_embedded_points_is_the_cost(cost: Cost, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    close(cost.family.value(cost.embed(x), cost.embed(y)), cost.value(x, y), 1e-14)
    gradient = cost.pull_back(x, cost.family.gradient(cost.embed(x), cost.embed(y)))
    close(gradient, cost.gradient(x, y), 1e-14)


@pytest.mark.parametrize("cost", COSTS, ids=repr)
def test_coincident_points(cost: Cost) -> None:
    x = np.asarray([1.0, -2.0])
    close(cost.value(x, x), 0.0, 1e-15)
    close(cost.gradient(x, x), [0.0, 0.0], 1e-15)


@pytest.mark.parametrize("size", [1e-160, 1e-20, 1e150])
def test_cosine_does_not_depend_on_lengths(size: float, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    close(Cosine().value(size * x, y), Cosine().value(x, y), 1e-14)
    close(size * Cosine().gradient(size * x, y), Cosine().gradient(x, y), 1e-14)


def test_cosine_needs_directions() -> None:
    x = np.asarray([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"`x`.*zero vector"):
        epsot.PointCloud(x, x[:1], cost="cosine")
    with pytest.raises(ValueError, match=r"`y`.*zero vector"):
        epsot.PointCloud(x[:1], x, cost="cosine")
    result = epsot.solve(epsot.PointCloud(x[:1], x[:1], cost="cosine"), eps=1)
    with pytest.raises(ValueError, match=r"`points`.*zero vector"):
        result.transport(x)


class Cubic(Cost):
    """|x - y|^3 / 3."""

    degree = 3.0

    def value(self, x: Any, y: Any) -> Any:
        return np.sum((x - y) ** 2, axis=-1) ** 1.5 / 3

    def gradient(self, x: Any, y: Any) -> Any:
        return np.sqrt(np.sum((x - y) ** 2, axis=-1))[..., None] * (x - y)


@pytest.mark.parametrize("rho", [None, (0.5, 2.0)])
def test_a_cost_of_the_user(awkward: Measures, rho: Any) -> None:
    problem = awkward.balanced
    x, y, a, b = problem
    C = cdist(x, y) ** 3 / 3
    points = epsot.solve(epsot.PointCloud(x, y, cost=Cubic()), a, b, eps=0.3, rho=rho, **TIGHT)
    matrix = epsot.solve(epsot.CostMatrix(C), a, b, eps=0.3, rho=rho, **TIGHT)
    close(points.value, matrix.value, 1e-10)
    close(points.potential(x), points.f, 1e-9)
    same = epsot.divergence(epsot.PointCloud(x, x, cost=Cubic()), a, a, eps=0.3)
    assert float(same.value) == 0.0


def test_degree_sets_the_pace(awkward: Measures) -> None:
    """The scale falls by `scaling`, the temperature by scaling^degree."""
    x, y, a, b = awkward.balanced
    temperatures: list[float] = []
    geometry = epsot.PointCloud(x, y, cost=Cubic())
    epsot.solve(geometry, a, b, eps=1e-3, tol=None, callback=lambda step: temperatures.append(step.eps))
    falls = np.divide(temperatures[1:-1], temperatures[:-2])
    close(falls, 0.5**3, 1e-12)


class Distance(Cost):
    """|x - y|, and nothing else."""

    def value(self, x: Any, y: Any) -> Any:
        return np.sqrt(np.sum((x - y) ** 2, axis=-1))


def test_a_cost_without_a_gradient(awkward: Measures, any_path: None) -> None:
    """Whatever does not differentiate in the points does without."""
    x, y, a, b = awkward.balanced
    own, named = (
        epsot.divergence(epsot.PointCloud(x, y, cost=cost), a, b, eps=0.2, **TIGHT)
        for cost in (Distance(), "euclidean")
    )
    for name in ("value", "f", "g", "grad_a", "gap"):
        close(getattr(own, name), getattr(named, name), 1e-8)
    close(own.potential(x[:3]), named.potential(x[:3]), 1e-8)
    close(own.plan.barycentric_map(), named.plan.barycentric_map(), 1e-7)
    for use in (lambda: own.grad_x, lambda: own.grad_y, lambda: own.displacement, lambda: own.transport(x)):
        with pytest.raises(TypeError, match=r"`cost` has no `gradient`.* define `gradient\(x, y\)` in Distance"):
            use()


def cost_of(value: Any, gradient: Any = None) -> Cost:
    """A cost of these functions."""
    members = {"value": value} if gradient is None else {"value": value, "gradient": gradient}
    cost: Cost = type("Own", (Cost,), members)()
    return cost


def square(x: Any, y: Any) -> Any:
    return np.sum((x - y) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("cost", "error", "got"),
    [
        (cost_of(lambda self, x, y: square(x, 2 * y)), ValueError, "symmetric.* differ by .* from Own"),
        (cost_of(lambda self, x, y: np.sum(y - x, axis=-1)), ValueError, "symmetric.* differ by"),
        (cost_of(lambda self, x, y: np.sum((x - y) ** 2)), ValueError, r"value.*got shape \(\)"),
        (cost_of(lambda self, x, y: np.sum((x - y) ** 2, axis=0)), ValueError, r"value.*\(3, 4\).*got shape \(4, 2\)"),
        (cost_of(lambda self, x, y: (x - y) ** 2), ValueError, r"value.*got shape \(3, 4, 2\)"),
        (cost_of(lambda self, x, y: square(x, y).tolist()), TypeError, "value.*got list"),
        (cost_of(lambda self, x, y: None), TypeError, "value.*got NoneType"),
        (cost_of(lambda self, x, y: square(x, y) > 1), TypeError, "value.*real numbers, got bool"),
        (cost_of(lambda self, x, y: square(x, y) + 0j), TypeError, "value.*real numbers, got complex"),
        (cost_of(lambda self, x, y: square(x, y) + np.nan), ValueError, "value.*got NaN"),
        (cost_of(lambda self, x: square(x, x)), TypeError, r"value\(x, y\).*signature: too many positional"),
        (cost_of(lambda self, x, y, p: square(x, y)), TypeError, r"value\(x, y\).*signature: missing.*'p'"),
        (cost_of(lambda self, x, y: x @ y), ValueError, r"value\(x, y\) failed for arrays of shapes \(3, 1, 2\) and"),
        (cost_of(lambda self, x, y: x.nothing), ValueError, r"value\(x, y\) failed.*nothing"),
    ],
)  # fmt: skip
def test_a_cost_that_is_none(cost: Cost, error: Any, got: str, rng: np.random.Generator) -> None:
    """It is refused when the cloud is made, by name, with what it returned."""
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
    with pytest.raises(error, match=f"`cost`.*{got}"):
        epsot.PointCloud(x, y, cost=cost)
    with pytest.raises(error, match="`cost`"):
        Multiscale(x, y, cost=cost)


def test_a_gradient_of_a_wrong_shape(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
    cost = cost_of(lambda self, x, y: square(x, y), lambda self, x, y: square(x, y))
    result = epsot.solve(epsot.PointCloud(x, y, cost=cost), eps=1)
    with pytest.raises(ValueError, match=r"`cost`: gradient\(x, y\) must return .* \(6, 5, 2\).*got shape \(6, 5\)"):
        _ = result.grad_x


def test_a_cost_is_tried_on_few_points(rng: np.random.Generator) -> None:
    seen: list[int] = []

    def value(self: Any, x: Any, y: Any) -> Any:
        seen.append(x.shape[0] * y.shape[1])
        return square(x, y)

    x = rng.normal(size=(500, 2)).astype(np.float32)
    epsot.PointCloud(x, x[:1], cost=cost_of(value))
    assert 0 < sum(seen) < 50
