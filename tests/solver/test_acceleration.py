"""Acceleration: fewer steps to the same solution, and a bounded loss where it fails."""

import numpy as np
import pytest

import epsot
from epsot import drivers
from epsot.geometry import CostMatrix, PointCloud
from epsot.instance import pose
from epsot.solver.acceleration import MEMORY, AcceleratedState, Anderson, Memory
from epsot.solver.updates import Alternating


def posed(geometry, a=None, b=None, eps=0.01, rho=(None, None)):
    return pose(geometry, a, b, eps=eps, rho=rho, rho_name="rho", workers=1).problem


def clouds(n, seed=0, d=2):
    rng = np.random.default_rng(seed)
    return rng.random((n, d)), rng.random((n, d)) ** 1.5


def test_the_mix_minimises_the_residual():
    """Against constrained least squares, by the KKT system of the stacked residuals."""
    problem = posed(PointCloud(*clouds(30)), rho=(1.0, 2.0))
    rng = np.random.default_rng(1)
    memory = Memory(problem)
    results, residuals = rng.normal(size=(4, 30)), rng.normal(size=(4, 30))
    for result, residual in zip(results, residuals, strict=True):
        memory.push(result, residual)
    gram = (residuals * problem.b) @ residuals.T
    system = np.block([[gram, np.ones((4, 1))], [np.ones((1, 4)), np.zeros((1, 1))]])
    c = np.linalg.solve(system, [0, 0, 0, 0, 1])[:4]
    np.testing.assert_allclose(memory.mix(), c @ results, rtol=1e-7)


def test_the_oldest_step_is_forgotten():
    """After more pushes than places, the mix is that of the last ones alone."""
    problem = posed(PointCloud(*clouds(30)), rho=(1.0, 2.0))
    rng = np.random.default_rng(1)
    steps = [(rng.normal(size=30), rng.normal(size=30)) for _ in range(MEMORY + 3)]
    long, short = Memory(problem), Memory(problem)
    for step in steps:
        long.push(*step)
    for step in steps[3:]:
        short.push(*step)
    np.testing.assert_allclose(long.mix(), short.mix(), rtol=1e-9)


def test_constants_do_not_count_when_balanced():
    problem = posed(PointCloud(*clouds(30)))
    memory = Memory(problem)
    for _ in range(3):
        memory.push(np.ones(30), np.full(30, 7.0))
    assert abs(memory.gram[:3, :3]).max() < 1e-25
    assert memory.mix() is None or np.allclose(memory.mix(), 1)


def plain_and_accelerated(monkeypatch, *args, **options):
    fast = epsot.solve(*args, **options)
    with monkeypatch.context() as patch:
        patch.setattr(drivers, "Anderson", lambda update: update)
        slow = epsot.solve(*args, **options)
    return fast, slow


@pytest.mark.parametrize("rho", [None, 0.3, (None, 0.3)])
@pytest.mark.parametrize("tol", [1e-3, 1e-9])
def test_fewer_steps_to_the_same_solution(monkeypatch, rho, tol):
    x, y = clouds(60)
    fast, slow = plain_and_accelerated(monkeypatch, PointCloud(x, y), eps=0.002, rho=rho, tol=tol, max_iter=20_000)
    assert fast.success
    assert slow.success
    assert fast.nit < slow.nit / 2
    assert abs(fast.value64 - slow.value64) <= fast.gap + slow.gap + 1e-12


def adversarial():
    rng = np.random.default_rng(3)
    far = np.concatenate([rng.normal(size=(20, 2)) * 0.02 + centre for centre in ([0, 0], [1, 0], [0, 1])])
    yield "clusters far apart", PointCloud(far, far[::-1] + [5.0, 2.0]), None, None, 2.5e-3
    angle = rng.random((2, 60)) * 2 * np.pi
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    yield "thin shells", PointCloud(ring[0], 1.2 * ring[1]), None, None, 3e-3
    z = rng.random((60, 2))
    yield "near permutation", PointCloud(z, z + 0.003 * rng.normal(size=z.shape)), None, None, 2e-3
    a, b = 10.0 ** (-10 * rng.random((2, 60)))
    yield "ten decades", PointCloud(z, rng.random((60, 2))), a / a.sum(), b / b.sum(), 3e-3
    yield "random costs", CostMatrix(rng.random((60, 50))), None, None, 1e-2
    C = rng.random((60, 60))
    C[rng.random((60, 60)) < 0.5] = np.inf
    np.fill_diagonal(C, 0.5)
    yield "forbidden pairs", CostMatrix(C), None, None, 2e-2
    yield "hot", PointCloud(z, rng.random((60, 2))), None, None, 20.0


@pytest.mark.parametrize(("geometry", "a", "b", "eps"), [pytest.param(*case, id=name) for name, *case in adversarial()])
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_never_much_worse_than_plain_steps(monkeypatch, geometry, a, b, eps, tol):
    """The series of plain steps doubles after each failure, so the loss is bounded by a factor and a few steps."""
    fast, slow = plain_and_accelerated(monkeypatch, geometry, a, b, eps=eps, tol=tol, max_iter=40_000)
    assert slow.success
    assert fast.success
    assert fast.nit <= 1.5 * slow.nit + 30


def test_it_goes_on_from_the_best_point_with_plain_steps():
    """After mixed steps that bring nothing, the next start is that of the lowest error, and a plain series begins."""
    problem = posed(PointCloud(*clouds(30)), eps=1e-3)
    accelerated = Anderson(Alternating(problem))
    best = accelerated.step(accelerated.init(1e-3, None, None), 1e-3)
    stuck = AcceleratedState(
        best.plain, Memory(problem), 1e-3, error=1.0, lowest=0.0, best=np.full(30, 0.25), waited=10
    )
    retreated = accelerated.step(stuck, 1e-3)
    assert retreated.plain_steps == 1
    assert np.array_equal(retreated.plain.start, np.full(30, 0.25))
    assert retreated.plain_length == 2 * stuck.plain_length
    plain = Alternating(problem).step(retreated.plain, 1e-3)
    again = accelerated.step(retreated, 1e-3)
    assert np.array_equal(again.plain.start, plain.start)


def test_a_new_temperature_extrapolates():
    """A potential that is linear in eps is met exactly."""
    problem = posed(PointCloud(*clouds(30)))
    accelerated = Anderson(Alternating(problem))
    state = accelerated.init(1.0, None, None)
    g, slope = np.arange(30.0), np.linspace(-1, 1, 30)
    for eps in (1.0, 0.25):
        state = AcceleratedState(
            accelerated.update.init(eps, None, g + slope * eps), Memory(problem), eps, levels=state.levels
        )
        state = accelerated.descend(state, eps / 4)
    np.testing.assert_allclose(state.plain.start, g + slope / 16, atol=1e-12)
