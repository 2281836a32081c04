"""Second derivatives: against central differences of the gradients, and dense ones of the optimality conditions."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import epsot
from epsot.costs import Cityblock, Cosine, Cost, Euclidean, Square
from epsot.results import curvature
from tests.checks import TIGHT, close
from tests.own_costs import PseudoHuber

NAMES = "xyab"
BLOCKS = [(of, along) for of in NAMES for along in NAMES]
EPS = 0.2


Parts = dict[str, np.ndarray]


def parts(rng: np.random.Generator, rho: Any, n: int = 7, m: int = 6, d: int = 2) -> Parts:
    """Clouds and weights; of unequal masses where these need not be equal."""
    a, b = rng.random(n) + 0.2, rng.random(m) + 0.2
    mass = 1.0 if rho is None else 1.3
    x, y = rng.random((n, d)), rng.random((m, d)) + 0.4
    return {"x": x, "y": y, "a": 2 * a / a.sum(), "b": 2 * mass * b / b.sum()}


def solved(z: Parts, debias: bool, rho: Any, cost: Any, eps: float = EPS, **options: Any) -> Any:
    geometry = epsot.PointCloud(z["x"], z["y"], **(cost if isinstance(cost, dict) else {"cost": cost}))
    solve = epsot.divergence if debias else epsot.solve
    return solve(geometry, z["a"], z["b"], eps=eps, rho=rho, **{**TIGHT, **options})


def direction(z: Parts, name: str, rho: Any, rng: np.random.Generator) -> np.ndarray:
    """Any; of balanced weights one that keeps the mass, and of weights of zero one that they may go."""
    v = np.where((z[name] == 0) & (name in "ab"), 1.0, rng.normal(size=z[name].shape))
    return v - z[name] * v.sum() / z[name].sum() if rho is None and name in "ab" else v


def centred(gradient: np.ndarray, z: Parts, name: str, rho: Any) -> np.ndarray:
    """Balanced derivatives in weights are known up to a constant."""
    if rho is not None or name in "xy":
        return gradient
    return gradient - np.sum(z[name] * gradient) / z[name].sum()


def differences(z: Parts, name: str, v: np.ndarray, step: float, solve: Any) -> Any:
    """Of all gradients along v: central ones, or to one side where weights of zero grow, each of second order."""
    at = {k: solve({**z, name: z[name] + k * step * v}) for k in ((0, 1, 2) if 0 in z[name] else (-1, 1))}

    def slope(of: str) -> np.ndarray:
        g = {k: getattr(result, f"grad_{of}") for k, result in at.items()}
        return (g[1] - g[-1]) / (2 * step) if -1 in g else (4 * g[1] - 3 * g[0] - g[2]) / (2 * step)

    return slope


def check(z: Parts, debias: bool, rho: Any, cost: Any, rng: np.random.Generator, step: float, error: float) -> None:
    """All blocks."""
    result = solved(z, debias, rho, cost)
    for along in NAMES:
        v = direction(z, along, rho, rng)
        slope = differences(z, along, v, step, lambda moved: solved(moved, debias, rho, cost))
        for of in NAMES:
            wanted = centred(slope(of), z, of, rho)
            found = (result.hessian(of, along) @ v.ravel()).reshape(wanted.shape)
            assert np.abs(found - wanted).max() <= error * (np.abs(wanted).max() + 1e-3), (of, along)


@pytest.mark.parametrize("debias", [False, True], ids=["OT", "S"])
@pytest.mark.parametrize("rho", [None, 0.7, (None, 0.5), (0.3, None)], ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_every_block_is_the_difference_of_a_gradient(
    debias: bool, rho: Any, p: int, rng: np.random.Generator, any_path: None
) -> None:
    """Where the distances have third derivatives as large as their inverse squares, steps are smaller."""
    check(parts(rng, rho), debias, rho, {"p": p}, rng, 3e-5 if p == 2 else 3e-6, 1e-6)


@pytest.mark.parametrize("cost", [Square(), Cosine(), Cityblock(), PseudoHuber()], ids=repr)
def test_other_costs(cost: Cost, rng: np.random.Generator, any_path: None) -> None:
    check(parts(rng, 0.7), True, 0.7, cost, rng, 1e-5, 2e-6)


@pytest.mark.parametrize("rho", [None, 0.7], ids=str)
def test_points_of_weight_zero(rho: Any, rng: np.random.Generator) -> None:
    """They push nothing, but their potentials move, and weight that comes to them pushes everything."""
    z = parts(rng, rho)
    for name, zeros in (("a", [2, 5]), ("b", [1])):
        mass = z[name].sum()
        z[name][zeros] = 0
        z[name] *= mass / z[name].sum()
    check(z, True, rho, {"p": 2}, rng, 2e-5, 1e-5)


@pytest.mark.parametrize("debias", [False, True], ids=["OT", "S"])
@pytest.mark.parametrize("rho", [None, 0.7], ids=str)
def test_the_transpose_is_the_other_order(debias: bool, rho: Any, rng: np.random.Generator) -> None:
    z = parts(rng, rho)
    result = solved(z, debias, rho, {"p": 2})
    for of, along in BLOCKS:
        u, v = rng.normal(size=z[of].size), rng.normal(size=z[along].size)
        H = result.hessian(of, along)
        assert H.shape == (u.size, v.size)
        close(u @ (H @ v), v @ (result.hessian(along, of) @ u), 1e-10)
        close(H.rmatvec(u), result.hessian(along, of) @ u, 1e-12)
        V = rng.normal(size=(v.size, 3))
        close(H @ V, np.stack([H @ column for column in V.T], axis=1), 1e-9)
        close(H.T @ u, H.rmatvec(u), 1e-15)


def dense_potentials(P: np.ndarray, dC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """df and dg by least squares, of a balanced plan as C changes."""
    K = np.block([[np.diag(P.sum(1)), P], [P.T, np.diag(P.sum(0))]])
    right = np.concatenate([(P * dC).sum(1), (P * dC).sum(0)])
    found = np.linalg.lstsq(K, right, rcond=1e-13)[0]
    return found[: len(P)], found[len(P) :]


def test_against_the_dense_system_of_a_plan(rng: np.random.Generator) -> None:
    """Also of a plan that is far from converged, for it is that of its own marginals."""
    x, y, v = rng.random((12, 3)), rng.random((9, 3)) + 0.2, rng.normal(size=(12, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = epsot.sinkhorn(x, y, blur=0.2, tol=1e-9, max_iter=9)
    assert result.marginal_error > 1e-4
    P, z = result.plan.to_dense(), x[:, None] - y
    dC = np.sum(z * v[:, None], axis=2)
    df, dg = dense_potentials(P, dC)
    change = P * (df[:, None] + dg - dC) / result.eps
    wanted = np.sum(change[:, :, None] * z, axis=1) + P.sum(1)[:, None] * v
    close((result.hessian("x") @ v.ravel()).reshape(x.shape), wanted, 1e-9)


def test_balanced_weights_count_along_sums_of_zero_and_up_to_constants(rng: np.random.Generator) -> None:
    z = parts(rng, None)
    result = solved(z, True, None, {"p": 2})
    for name in "ab":
        other = "x" if name == "a" else "b"
        close(result.hessian(other, name) @ z[name], np.zeros(z[other].size), 1e-9)  # more of the same is no direction
        push = result.hessian(name, other) @ rng.normal(size=z[other].size)
        close(np.sum(z[name] * push), 0.0, 1e-12)


def test_without_points_there_are_the_blocks_of_the_weights(rng: np.random.Generator) -> None:
    z = parts(rng, 0.7)
    result = solved(z, True, 0.7, {"p": 2})
    C = [np.sum((p[:, None] - q) ** 2, axis=2) / 2 for p, q in ((z["x"], z["y"]), (z["x"], z["x"]), (z["y"], z["y"]))]
    geometry = epsot.CostMatrix(C[0], C_xx=C[1], C_yy=C[2])
    other = epsot.divergence(geometry, z["a"], z["b"], eps=EPS, rho=0.7, **TIGHT)
    for of in "ab":
        for along in "ab":
            v = rng.normal(size=z[along].size)
            close(other.hessian(of, along) @ v, result.hessian(of, along) @ v, 1e-9)
    for names in (("x",), ("a", "x"), ("y", "b")):
        with pytest.raises(TypeError, match="CostMatrix has no points"):
            other.hessian(*names)


class OwnGeometry(epsot.geometry.Geometry):
    """A cost that cannot leave rows out, from a matrix."""

    def __init__(self, C: np.ndarray) -> None:
        self.matrix = epsot.CostMatrix(C)
        self.C, self.place, self.dtype, self.shape = C, self.matrix.place, self.matrix.dtype, C.shape

    def kernel(self, workers: int | None = None) -> Any:
        return self.matrix.kernel(workers)

    @property
    def T(self) -> OwnGeometry:
        return OwnGeometry(self.C.T)

    def source(self) -> OwnGeometry:
        raise ValueError("not known")

    def scale(self) -> float:
        return float(np.ptp(self.C))

    def is_self(self) -> bool:
        return False


@pytest.mark.parametrize("rho", [None, 0.7], ids=str)
def test_a_geometry_of_ones_own_keeps_its_zeros(rho: Any, rng: np.random.Generator) -> None:
    """Weights of zero stay where they are, and have the derivatives that they have where they are set aside."""
    C, a, b = rng.random((8, 6)), rng.random(8), rng.random(6)
    a[[1, 4]] = b[2] = 0
    a, b = a / a.sum(), b / b.sum()
    one, other = (epsot.solve(kind(C), a, b, eps=0.1, rho=rho, **TIGHT) for kind in (OwnGeometry, epsot.CostMatrix))
    for of, along in (("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")):
        v = rng.normal(size=len(a if along == "a" else b))
        close(one.hessian(of, along) @ v, other.hessian(of, along) @ v, 1e-8)


def test_points_without_a_partner_change_with_the_mass_alone() -> None:
    """Unbalanced, all that they have is destroyed: rho + eps m_b is what more of it costs."""
    C = np.asarray([[0.0, 1.0], [np.inf, np.inf], [1.0, 0.5]])
    result = epsot.solve(epsot.CostMatrix(C), [0.5, 0.3, 0.2], [0.4, 0.7], eps=0.2, rho=0.6, **TIGHT)
    close((result.hessian("a", "b") @ np.asarray([1.0, 2.0]))[1], 0.2 * 3, 1e-12)
    close((result.hessian("a") @ np.asarray([0.0, 1.0, 0.0])), np.zeros(3), 1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1)])
def test_one_point(n: int, m: int, rng: np.random.Generator) -> None:
    """Balanced, one point pays the mean cost to the others, whatever eps is: |x - y|^2 / 2 curves by its weight."""
    x, y = rng.random((n, 2)), rng.random((m, 2))
    result = epsot.sinkhorn(x, y, blur=0.3, **TIGHT)
    v = rng.normal(size=x.shape)
    close((result.hessian("x") @ v.ravel()).reshape(x.shape), v / n, 1e-10)
    close((result.hessian("y", "x") @ v.ravel()).reshape(y.shape), np.broadcast_to(-v.mean(0) / m, y.shape), 1e-10)


def test_equal_clouds_are_where_the_divergence_is_smallest(rng: np.random.Generator) -> None:
    x = rng.random((9, 2))
    result = epsot.sinkhorn_divergence(x, x.copy(), blur=0.2, **TIGHT)
    H = result.hessian("x") @ np.eye(18)
    close(H, H.T, 1e-10)
    assert np.linalg.eigvalsh(H).min() > -1e-10
    shift = np.tile([1.0, 2.0], 9)
    close(H @ shift, shift / 9, 1e-9)  # all move: |shift|^2 / 2


def test_a_tiny_temperature(rng: np.random.Generator) -> None:
    """Each point has its own partner: half of its squared distance."""
    x = np.arange(10.0)[:, None] + 0.1 * rng.random((10, 1))
    result = epsot.sinkhorn(x, x[::-1] + 0.1, blur=0.01, tol=1e-6)
    v = rng.normal(size=10)
    close(result.hessian("x") @ v, v / 10, 1e-9)
    close(result.hessian("y", "x") @ v, -v[::-1] / 10, 1e-9)


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_products_are_linear_in_directions_of_any_size(size: float, rng: np.random.Generator) -> None:
    """Beside one of usual size, too: squares of the others are beyond float64."""
    operator = solved(parts(rng, None), False, None, {"p": 2}).hessian("x")
    v, w = rng.normal(size=(2, operator.shape[1]))
    found = operator @ np.stack([size * v, w], axis=1)
    close(found[:, 0] / size, operator @ v)
    close(found[:, 1], operator @ w)


@pytest.mark.parametrize("mass", [1e-250, 1e149])
@pytest.mark.parametrize("debias", [False, True])
def test_balanced_blocks_are_proportional_to_the_mass(mass: float, debias: bool, rng: np.random.Generator) -> None:
    """As the gradients are, where squares of the mass are beyond float64."""
    z = parts(rng, None)
    one, many = (solved({**z, "a": z["a"] * k, "b": z["b"] * k}, debias, None, {"p": 2}) for k in (1.0, mass))
    for along in "xy":
        v = rng.normal(size=z[along].size)
        close(many.hessian("x", along) @ v / mass, one.hessian("x", along) @ v, 1e-8)


def test_float32_points_and_offsets(rng: np.random.Generator) -> None:
    """Rounded coordinates, and a common offset, change little; what comes back is float32."""
    x, y = (rng.random((60, 2)) for _ in range(2))
    v = rng.normal(size=120)
    wanted = epsot.sinkhorn_divergence(x, y, blur=0.1, tol=1e-6).hessian("x") @ v
    single = epsot.sinkhorn_divergence(x.astype(np.float32), y.astype(np.float32), blur=0.1, tol=1e-5)
    found = single.hessian("x") @ v.astype(np.float32)
    assert found.dtype == single.hessian("x").dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    far = epsot.sinkhorn_divergence(x + 1000, y + 1000, blur=0.1, tol=1e-6).hessian("x") @ v
    assert np.abs(far - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_many_points_take_float32_sweeps_and_float64_residuals(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rough product is in float32; a fine one to the tolerance of float64, in as many steps, without a warning."""
    x, y, v = rng.random((1100, 2)), rng.random((1000, 2)) + 0.1, rng.normal(size=2200)
    many = epsot.sinkhorn_divergence(x, y, blur=0.1, tol=1e-4)
    found = {tol: many.hessian("x", tol=tol) @ v for tol in (1e-3, 1e-6, 1e-10)}
    monkeypatch.setattr("epsot.results.result.MANY_PAIRS", 1e12)
    few = epsot.sinkhorn_divergence(x, y, blur=0.1, tol=1e-4)
    exact = few.hessian("x", tol=1e-11) @ v
    assert many.xy.curvature.rough is not many.xy.curvature
    assert few.xy.curvature.rough is few.xy.curvature
    for tol, error in ((1e-3, 5e-3), (1e-6, 1e-5), (1e-10, 1e-9)):
        assert np.abs(found[tol] - exact).max() <= error * np.abs(exact).max()
    assert many.xy.curvature.steps <= few.xy.curvature.steps + 3
    assert many.xy.curvature.steps < 3 * many.nit


def test_a_product_that_has_not_converged_warns(rng: np.random.Generator) -> None:
    result = epsot.sinkhorn(rng.random((50, 2)), rng.random((50, 2)), blur=0.05, tol=1e-6)
    with pytest.warns(epsot.ConvergenceWarning, match=r"after 3 steps at .* times the residual"):
        result.hessian("x", max_iter=3) @ np.ones(100)


def test_more_coordinates_than_moments_are_kept_for(rng: np.random.Generator, any_path: None) -> None:
    """Pair by pair, and by moments: padding with zeros changes nothing."""
    x, y, v = rng.random((20, 3)), rng.random((15, 3)), rng.normal(size=(20, 3))
    pad = ((0, 0), (0, 5))
    few = epsot.sinkhorn_divergence(x, y, blur=0.3, **TIGHT).hessian("x") @ v.ravel()
    wide = epsot.sinkhorn_divergence(np.pad(x, pad), np.pad(y, pad), blur=0.3, **TIGHT)
    many = (wide.hessian("x") @ np.pad(v, pad).ravel()).reshape(20, 8)
    close(many[:, :3].ravel(), few, 1e-10)
    close(many[:, 3:], np.zeros((20, 5)), 1e-10)


def test_blocks_along_one_direction_share_a_linear_system(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a framework asks for them: points and weights move, in turns, and all gradients change."""
    systems: list[int] = []
    solve = curvature.conjugate_gradients
    monkeypatch.setattr(curvature, "conjugate_gradients", lambda *z, **more: (systems.append(1), solve(*z, **more))[1])
    x, y = rng.random((12, 2)), rng.random((9, 2))
    moves = {name: rng.normal(size=size) for name, size in zip(NAMES, (24, 18, 12, 9), strict=True)}
    result = epsot.sinkhorn(x, y, blur=0.3, **TIGHT)
    found = {(of, along): result.hessian(of, along) @ moves[along] for of, along in BLOCKS}
    assert len(systems) == 4
    result.hessian("x") @ (2 * moves["x"])
    result.hessian("x", tol=1e-2) @ moves["x"]
    assert len(systems) == 6
    for (of, along), change in found.items():
        alone = epsot.sinkhorn(x, y, blur=0.3, **TIGHT).hessian(of, along) @ moves[along]
        np.testing.assert_array_equal(change, alone)


def test_batches_have_those_of_their_items(rng: np.random.Generator) -> None:
    x, y, v = rng.random((3, 8, 2)), rng.random((7, 2)), rng.normal(size=16)
    for loss in (epsot.sinkhorn, epsot.sinkhorn_divergence):
        batch, alone = loss(x, y, blur=0.3, **TIGHT), loss(x[1], y, blur=0.3, **TIGHT)
        operators = batch.hessian("x")
        assert len(operators) == 3
        close(operators[1] @ v, alone.hessian("x") @ v, 1e-9)
        close(batch[1].hessian("y", "x") @ v, alone.hessian("y", "x") @ v, 1e-9)


def test_other_libraries(rng: np.random.Generator) -> None:
    """Where there are no linear operators, an object with the same methods in their arrays."""
    x, y, v = rng.random((8, 2)), rng.random((7, 2)), rng.normal(size=16)
    wanted = epsot.sinkhorn(x, y, blur=0.3, **TIGHT).hessian("y", "x")
    H = epsot.sinkhorn(strict.asarray(x), strict.asarray(y), blur=0.3, **TIGHT).hessian("y", "x")
    assert H.shape == (14, 16)
    close(H @ strict.asarray(v), wanted @ v, 1e-9)
    close(H.T @ strict.asarray(v[:14]), wanted.rmatvec(v[:14]), 1e-9)
    assert type(H.matmat(strict.asarray(v)[:, None])) is type(strict.asarray(v))


def test_what_is_refused(rng: np.random.Generator) -> None:
    result = epsot.sinkhorn(rng.random((4, 2)), rng.random((3, 2)), blur=0.3)
    with pytest.raises(ValueError, match=r"`of` must be"):
        result.hessian("z")
    with pytest.raises(ValueError, match=r"`along` must be"):
        result.hessian("x", "f")
    with pytest.raises(ValueError, match=r"`tol` must be"):
        result.hessian(tol=-1)
    with pytest.raises(ValueError, match=r"`max_iter` must be"):
        result.hessian(max_iter=0)
    with pytest.raises(ValueError):
        result.hessian() @ np.ones(7)


def test_a_hessian_product_of_the_wrong_shape_is_named(rng: np.random.Generator) -> None:
    class Wrong(PseudoHuber):
        def hessian_product(self, x: Any, y: Any, v: Any, w: Any) -> Any:
            return super().hessian_product(x, y, v, w)[..., 0]

    result = epsot.solve(epsot.PointCloud(rng.random((4, 2)), rng.random((3, 2)), cost=Wrong()), eps=0.2)
    with pytest.raises(ValueError, match=r"hessian_product\(x, y\) must return an array of shape \(4, 3, 2\)"):
        result.hessian() @ np.ones(8)


@pytest.mark.parametrize("cost", [Euclidean(), Cosine(), Square(), Cityblock()], ids=repr)
def test_formulas_of_costs_are_differences_of_their_gradients(cost: Cost, rng: np.random.Generator) -> None:
    x, y, v, w = rng.normal(size=(4, 5, 3))
    close(cost.hessian_product(x, y, v, w), Cost.hessian_product(cost, x, y, v, w), 1e-7)
    close(cost.push_forward(x, v), Cost.push_forward(cost, x, v), 1e-8)
    close(cost.pull_back_change(x, w, v), Cost.pull_back_change(cost, x, w, v), 1e-8)


# Over grids

PIXELS, WIDER = epsot.Grid((3, 2), spacing=0.3), epsot.Grid((2, 4), spacing=(0.4, 0.2), origin=(0.1, 0.0))
RING = epsot.Grid((5, 3), spacing=0.2, periodic=True)


def images(rho: Any, x: epsot.Grid, y: epsot.Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    z = parts(rng, rho, x.size, y.size)
    return z["a"].reshape(x.shape), z["b"].reshape(y.shape)


@pytest.mark.parametrize("debias", [False, True], ids=["OT", "S"])
@pytest.mark.parametrize("rho", [None, (0.3, None)], ids=str)
@pytest.mark.parametrize("cost", ["sqeuclidean", "cityblock", "euclidean"])
def test_grids_have_the_blocks_of_their_points(
    debias: bool, rho: Any, cost: str, rng: np.random.Generator, any_path: None
) -> None:
    """In all of x, y, a and b, flattened in C order; those of the lattice and of lists of its nodes."""
    a, b = images(rho, PIXELS, WIDER, rng)
    a[1, 0] = 0.0
    b = b * (a.sum() / b.sum())
    solve = epsot.divergence if debias else epsot.solve
    options: dict[str, Any] = {"eps": EPS, "rho": rho, **TIGHT}
    lattice = solve(epsot.PointCloud(PIXELS, WIDER, cost=cost), a, b, **options)
    listed = solve(epsot.PointCloud(PIXELS.points, WIDER.points, cost=cost), a.ravel(), b.ravel(), **options)
    for of, along in BLOCKS:
        products, wanted = (result.hessian(of, along) for result in (lattice, listed))
        assert products.shape == wanted.shape
        v = rng.normal(size=(wanted.shape[1], 2))
        close(products @ v, wanted @ v, 1e-7)


@pytest.mark.parametrize("debias", [False, True], ids=["OT", "S"])
@pytest.mark.parametrize("rho", [None, 0.7], ids=str)
@pytest.mark.parametrize("grids", [(PIXELS, WIDER), (RING, RING)], ids=["open", "periodic"])
def test_weights_of_grids_by_differences(debias: bool, rho: Any, grids: Any, rng: np.random.Generator) -> None:
    a, b = images(rho, *grids, rng)
    loss = epsot.sinkhorn_divergence if debias else epsot.sinkhorn
    reach = None if rho is None else rho**0.5

    def solve(z: Parts) -> Any:
        return loss(*grids, z["a"], z["b"], blur=EPS**0.5, reach=reach, **TIGHT)

    z = {"a": a, "b": b}
    result = solve(z)
    for along in "ab":
        v = direction(z, along, rho, rng)
        slope = differences(z, along, v, 1e-4, solve)
        for of in "ab":
            wanted = centred(slope(of), z, of, rho)
            found = (result.hessian(of, along) @ v.ravel()).reshape(wanted.shape)
            close(found, wanted, 1e-5)


def test_nodes_of_a_periodic_grid_by_differences(rng: np.random.Generator) -> None:
    """Against clouds that move, where no pair changes its nearest image."""
    a, b = images(None, RING, RING, rng)
    result = epsot.sinkhorn(RING, RING, a, b, blur=0.15, **TIGHT)
    v, step = rng.normal(size=(RING.size, 2)), 1e-5
    ahead, behind = (epsot.sinkhorn(RING.points + s * v, RING, a.ravel(), b, blur=0.15, **TIGHT) for s in (step, -step))
    for of in "xyab":
        wanted = (getattr(ahead, f"grad_{of}") - getattr(behind, f"grad_{of}")).ravel() / (2 * step)
        found = result.hessian(of, "x") @ v.ravel()
        if of in "ab":
            weights = (a if of == "a" else b).ravel()
            wanted = wanted - wanted @ weights / weights.sum()
        close(found, wanted, 1e-4 * np.abs(wanted).max())
