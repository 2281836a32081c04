"""Every row of the table in docs/conventions.rst, against the library it speaks of.

The peers are optional: a row is skipped where its library is not installed. Weights are not uniform, n differs from m,
eps is not 1. Tolerances against GeomLoss are those of its fixed schedule, which leaves an error behind; all other
comparisons are between two converged solutions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot

pytestmark = pytest.mark.filterwarnings("ignore")  # what peers deprecate is not ours to mend

N, M, D = 13, 9, 2
BLUR, REACH = 0.7, 0.9
EPS, RHO = 0.3, 0.8
MASSES = [(1.0, 1.0), (1.5, 0.7)]
EXACT = {"tol": 1e-12, "max_iter": 20_000}


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=(M, D)) + 0.5
    a, b = rng.random(N) + 0.2, rng.random(M) + 0.2
    return x, y, a / a.sum(), b / b.sum()


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)


def gauge(f: Any, g: Any, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pair (f + c, g - c) with <a, f> = <b, g>, the one that epsot returns for balanced problems."""
    f, g = np.asarray(f).ravel(), np.asarray(g).ravel()
    shift = (b @ g - a @ f) / (a.sum() + b.sum())
    return f + shift, g - shift


def assert_close(actual: Any, desired: Any, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(desired), rtol=0, atol=tolerance)


# GeomLoss: C = |x - y|^p / p, eps = blur^p, rho = reach^p, as here


def geomloss(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, potentials: bool = False, **options: Any
) -> Any:
    pytest.importorskip("torch")
    samples_loss = pytest.importorskip("geomloss").SamplesLoss
    import torch

    loss = samples_loss("sinkhorn", backend="tensorized", scaling=0.998, potentials=potentials, **options)
    result = loss(*(torch.asarray(array) for array in (a, x, b, y)))
    return [part.numpy() for part in result] if potentials else float(result)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("debias", [False, True])
def test_geomloss_balanced(clouds: Any, p: int, debias: bool) -> None:
    x, y, a, b = clouds
    ours = (epsot.sinkhorn_divergence if debias else epsot.sinkhorn)(x, y, a, b, blur=BLUR, p=p, **EXACT)
    options = {"p": p, "blur": BLUR, "debias": debias}
    floor = 1e-4 if p == 1 and debias else 1e-5  # their distance of a point to itself is 1e-4, not 0
    assert_close(ours.value, geomloss(x, y, a, b, **options), floor)
    f, g = gauge(*geomloss(x, y, a, b, potentials=True, **options), a, b)
    own_f, own_g = gauge(ours.f, ours.g, a, b)
    assert_close(own_f, f, 3e-3)
    assert_close(own_g, g, 3e-3)


@pytest.mark.parametrize("p", [1, 2])
def test_geomloss_leaves_the_mass_term_out(clouds: Any, p: int) -> None:
    """Balanced, both masses m: ours is theirs plus eps (m^2 - m)."""
    x, y, a, b = clouds
    mass, eps = 2.5, BLUR**p
    ours = epsot.sinkhorn(x, y, mass * a, mass * b, blur=BLUR, p=p, **EXACT)
    theirs = geomloss(x, y, mass * a, mass * b, p=p, blur=BLUR, debias=False)
    assert_close(ours.value, theirs + eps * (mass**2 - mass), 1e-5)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("masses", MASSES)
def test_geomloss_reach(clouds: Any, p: int, masses: tuple[float, float]) -> None:
    """Unbalanced: ours is theirs plus eps (m_a m_b - (m_a + m_b) / 2); the divergences agree as they are."""
    x, y, a, b = clouds
    (mass_a, mass_b), eps = masses, BLUR**p
    a, b = mass_a * a, mass_b * b
    lengths = {"p": p, "blur": BLUR, "reach": REACH}
    ours = epsot.sinkhorn(x, y, a, b, **lengths, **EXACT)
    theirs = geomloss(x, y, a, b, debias=False, **lengths)
    assert_close(ours.value, theirs + eps * (mass_a * mass_b - (mass_a + mass_b) / 2), 1e-4)
    f, g = geomloss(x, y, a, b, potentials=True, debias=False, **lengths)
    assert_close(ours.f, f.ravel(), 3e-3)
    assert_close(ours.g, g.ravel(), 3e-3)
    divergence = epsot.sinkhorn_divergence(x, y, a, b, **lengths, **EXACT)
    assert_close(divergence.value, geomloss(x, y, a, b, debias=True, **lengths), 1e-4)
    # F = f - f_xx is unique too: no gauge to take out
    f, g = geomloss(x, y, a, b, potentials=True, debias=True, **lengths)
    assert_close(divergence.f, f.ravel(), 3e-3)
    assert_close(divergence.g, g.ravel(), 3e-3)


# geomloss.ot: a matrix or |x - y|^2 with no half, reg = eps, unbalanced = rho; max_iter is the length of the schedule


@pytest.fixture
def geomloss_ot() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("geomloss.ot")


@pytest.mark.parametrize(("rho", "masses"), [(None, (1.0, 1.0)), (None, (2.5, 2.5)), (RHO, (1.5, 0.7))])
def test_geomloss_ot_solve(clouds: Any, geomloss_ot: Any, rho: float | None, masses: tuple[float, float]) -> None:
    """Balanced, both masses m: ours is theirs plus eps (m^2 - m); unbalanced they are the same."""
    x, y, a, b = clouds
    a, b, mass = masses[0] * a, masses[1] * b, masses[0]
    C = squared_distances(x, y)
    ours = epsot.solve(epsot.CostMatrix(C), a, b, eps=EPS, rho=rho, **EXACT)
    theirs = geomloss_ot.solve(C, reg=EPS, a=a, b=b, unbalanced=rho, max_iter=2000)
    assert_close(ours.plan.to_dense(), theirs.plan, 1e-3)
    assert_close(ours.value, float(theirs.value) + (EPS * (mass**2 - mass) if rho is None else 0.0), 1e-4)
    f, g = theirs.potential_a, theirs.potential_b
    f, g = gauge(f, g, a, b) if rho is None else (f, g)
    assert_close(ours.f, f, 1e-2)
    assert_close(ours.g, g, 1e-2)
    wrong = np.sum(np.abs(np.asarray(theirs.plan).sum(axis=1) - a)) / mass
    assert rho is not None or 1e-4 < wrong < 1e-3


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize("rho", [None, RHO])
def test_geomloss_ot_solve_sample(clouds: Any, geomloss_ot: Any, debias: bool, rho: float | None) -> None:
    x, y, a, b = clouds
    solve, options = (epsot.divergence if debias else epsot.solve), {"eps": EPS, "rho": rho, **EXACT}
    ours = solve(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, **options)
    theirs = geomloss_ot.solve_sample(x, y, a=a, b=b, reg=EPS, unbalanced=rho, debias=debias, max_iter=2000)
    assert_close(ours.value, theirs.value, 1e-4)
    if debias and rho is not None:  # their potential is that of the transport alone
        assert_close(ours.xy.f, theirs.potential_a, 1e-2)
        assert abs(np.asarray(theirs.potential_a) - ours.f).max() > 0.1


@pytest.mark.parametrize("reach", [None, REACH])
def test_geomloss_ot_lengths(clouds: Any, geomloss_ot: Any, reach: float | None) -> None:
    """reg = 2 blur^2 and the square with no half: the plan of our blur, twice its value."""
    x, y, a, b = clouds
    ours = epsot.sinkhorn(x, y, a, b, blur=BLUR, reach=reach, **EXACT)
    theirs = geomloss_ot.solve_sample(x, y, a=a, b=b, blur=BLUR, reach=reach, max_iter=2000)
    assert_close(2 * ours.value, theirs.value, 1e-4)
    assert_close(ours.plan.to_dense(), theirs.plan, 1e-3)


def test_geomloss_ot_gradients_are_twice_too_large(clouds: Any, geomloss_ot: Any) -> None:
    import torch

    x, y, a, b = clouds
    ours = epsot.solve(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, eps=EPS, **EXACT)
    points = torch.tensor(x, requires_grad=True)
    others = {"a": torch.asarray(a), "b": torch.asarray(b)}
    value = geomloss_ot.solve_sample(points, torch.asarray(y), reg=EPS, max_iter=2000, **others).value
    (theirs,) = torch.autograd.grad(value, points)
    assert_close(2 * ours.grad_x, theirs, 1e-2)


# POT: a cost matrix, reg = eps, reg_m = rho

POT_EXACT = {"numItermax": 100_000, "stopThr": 1e-13}


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
def test_pot_sinkhorn(clouds: Any, method: str) -> None:
    """f = reg (log u - log a); ot.sinkhorn2 is <P, C>, without the entropy."""
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds
    C = squared_distances(x, y)
    ours = epsot.solve(epsot.CostMatrix(C), a, b, eps=EPS, **EXACT)
    plan, log = ot.sinkhorn(a, b, C, EPS, method=method, log=True, **POT_EXACT)
    assert_close(ours.plan.to_dense(), plan)
    f, g = gauge(EPS * np.log(log["u"] / a), EPS * np.log(log["v"] / b), a, b)
    assert_close(ours.f, f)
    assert_close(ours.g, g)
    assert_close(ours.transport_cost, ot.sinkhorn2(a, b, C, EPS, method=method, **POT_EXACT))


def test_pot_solve(clouds: Any) -> None:
    """`value` is ours with the default KL; with reg_type="entropy" the entropies of a and b lie between them."""
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds
    C = squared_distances(x, y)
    ours = epsot.solve(epsot.CostMatrix(C), a, b, eps=EPS, **EXACT)
    options = {"reg": EPS, "max_iter": 100_000, "tol": 1e-13}
    theirs = ot.solve(C, a, b, **options)
    assert_close(ours.value, theirs.value)
    f, g = (EPS * (potential - np.log(w)) for potential, w in zip(theirs.potentials, (a, b), strict=True))
    assert_close(ours.f, gauge(f, g, a, b)[0])
    assert_close(ours.g, gauge(f, g, a, b)[1])
    entropies = -(a @ np.log(a)) - b @ np.log(b)
    assert_close(ours.value, ot.solve(C, a, b, reg_type="entropy", **options).value + EPS * entropies)


@pytest.mark.parametrize("masses", MASSES)
def test_pot_unbalanced(clouds: Any, masses: tuple[float, float]) -> None:
    """reg_type="kl": the plan is ours, f = reg logu."""
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds
    a, b = masses[0] * a, masses[1] * b
    C = squared_distances(x, y)
    ours = epsot.solve(epsot.CostMatrix(C), a, b, eps=EPS, rho=RHO, **EXACT)
    options = {"reg_type": "kl", **POT_EXACT}
    plan, log = ot.unbalanced.sinkhorn_unbalanced(a, b, C, EPS, RHO, log=True, **options)
    assert_close(ours.plan.to_dense(), plan)
    assert_close(ours.f, EPS * log["logu"])
    assert_close(ours.g, EPS * log["logv"])
    linear = ot.unbalanced.sinkhorn_unbalanced2(a, b, C, EPS, RHO, **options)
    assert_close(ours.transport_cost, linear)


def test_pot_empirical_divergence(clouds: Any) -> None:
    """POT debiases <P, C>, not the objective."""
    ot = pytest.importorskip("ot")
    x, y, a, b = clouds
    ours = epsot.divergence(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, eps=EPS, **EXACT)

    theirs = ot.bregman.empirical_sinkhorn_divergence(x, y, EPS, a=a, b=b, numIterMax=100_000, stopThr=1e-13)
    assert_close(ours.transport_cost, theirs)


# OTT-JAX: PointCloud is |x - y|^2 with no half, epsilon = eps


@pytest.fixture
def ott_solve() -> Any:
    jax = pytest.importorskip("jax")
    pytest.importorskip("ott")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    def solve(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, tau: float = 1.0) -> Any:
        geometry = pointcloud.PointCloud(x, y, epsilon=EPS)
        problem = linear_problem.LinearProblem(geometry, a, b, tau_a=tau, tau_b=tau)
        return sinkhorn.Sinkhorn(threshold=1e-12, max_iterations=100_000)(problem)

    yield solve
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_ott_balanced(clouds: Any, ott_solve: Any, mass: float) -> None:
    """reg_ot_cost is our value; their potentials hold the weights: f = f_ott - eps log a."""
    x, y, a, b = clouds
    a, b = mass * a, mass * b
    theirs = ott_solve(x, y, a, b)
    ours = epsot.solve(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, eps=EPS, **EXACT)
    assert_close(ours.value, theirs.reg_ot_cost)
    assert_close(ours.plan.to_dense(), theirs.matrix)
    f, g = gauge(theirs.f - EPS * np.log(a), theirs.g - EPS * np.log(b), a, b)
    assert_close(ours.f, f)
    assert_close(ours.g, g)


def test_ott_is_twice_the_default(clouds: Any, ott_solve: Any) -> None:
    """In lengths: blur = sqrt(epsilon / 2) has the same plan, and half the value."""
    x, y, a, b = clouds
    theirs = ott_solve(x, y, a, b)
    ours = epsot.sinkhorn(x, y, a, b, blur=(EPS / 2) ** 0.5, **EXACT)
    assert_close(2 * ours.value, theirs.reg_ot_cost)
    assert_close(ours.plan.to_dense(), theirs.matrix)


@pytest.mark.parametrize("masses", MASSES)
def test_ott_unbalanced(clouds: Any, ott_solve: Any, masses: tuple[float, float]) -> None:
    """tau = rho / (rho + eps); the entropy is relative to counting, which is our problem with C + eps log(a b^T)."""
    x, y, a, b = clouds
    a, b = masses[0] * a, masses[1] * b
    theirs = ott_solve(x, y, a, b, tau=RHO / (RHO + EPS))
    C = squared_distances(x, y) + EPS * np.log(np.outer(a, b))
    ours = epsot.solve(epsot.CostMatrix(C), a, b, eps=EPS, rho=RHO, **EXACT)
    assert_close(ours.plan.to_dense(), theirs.matrix)
    assert_close(ours.f, theirs.f)
    assert_close(ours.g, theirs.g)


def test_ott_divergence(clouds: Any, ott_solve: Any) -> None:
    from ott.geometry import pointcloud
    from ott.tools import sinkhorn_divergence

    x, y, a, b = clouds
    options = {"threshold": 1e-12, "max_iterations": 100_000}
    theirs, _ = sinkhorn_divergence.sinkhorn_divergence(
        pointcloud.PointCloud, x, y, a=a, b=b, epsilon=EPS, solve_kwargs=options
    )
    ours = epsot.divergence(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, eps=EPS, **EXACT)
    assert_close(ours.value, theirs)
