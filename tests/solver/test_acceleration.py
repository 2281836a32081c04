"""Acceleration: fewer steps to the same solution, and a bounded loss where it fails."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import epsot
from epsot.drivers import choice as drivers
from epsot.geometry import CostMatrix, PointCloud
from epsot.kernels.vectors import LONGEST, WINDOW
from epsot.problems.instance import pose
from epsot.solver.acceleration import AcceleratedState, ConjugateResiduals
from epsot.solver.updates import PATIENCE, Alternating

quiet = pytest.mark.filterwarnings("ignore::epsot.ConvergenceWarning")


def posed(geometry, a=None, b=None, eps=0.01, rho=(None, None)):
    return pose(geometry, a, b, eps=eps, rho=rho, rho_name="rho", workers=1).problem


def clouds(n, seed=0, d=2):
    rng = np.random.default_rng(seed)
    return rng.random((n, d)), rng.random((n, d)) ** 1.5


def linear_map(problem, spread, seed=1):
    """g -> g - S (g - solution), with S symmetric in the weights and eigenvalues from 1/spread to 1."""
    rng = np.random.default_rng(seed)
    m = problem.b.size
    basis, _ = np.linalg.qr(rng.normal(size=(m, m)))
    root = np.sqrt(problem.b.weights)
    S = (basis * np.geomspace(1 / spread, 1, m)) @ basis.T * root / root[:, None]
    solution = rng.normal(size=m)
    return S, solution


def advance(directions, g, result, eps=1.0):
    """A plain step from g to result."""
    return directions.advance(g, result, result, eps)


def test_every_step_does_what_a_full_memory_would():
    """The residuals of a symmetric linear map against the smallest ones over the Krylov spaces, by least squares."""
    a, b = (w / w.sum() for w in np.random.default_rng(0).random((2, 40)) + 0.1)
    problem = posed(PointCloud(*clouds(40)), a, b, rho=(1.0, 2.0))
    S, solution = linear_map(problem, spread=100)
    directions, g, root = problem.directions(), np.zeros(40), np.sqrt(b)
    symmetric = S * root[:, None] / root
    start = root * (S @ solution)  # the residual at zero, in the norm of the weights
    space = np.linalg.qr(start[:, None])[0]
    for step in range(WINDOW + 12):
        g = advance(directions, g, g - S @ (g - solution)).start
        if step:
            Q, _ = np.linalg.qr(symmetric @ space)
            np.testing.assert_allclose(directions.expected, np.linalg.norm(start - Q @ (Q.T @ start)), rtol=1e-3)
            space = np.linalg.qr(np.column_stack([space, symmetric @ space[:, -1]]))[0]
    assert directions.count >= WINDOW


@pytest.mark.parametrize("scaled", [False, True])
def test_a_linear_map_is_solved_in_as_many_steps_as_it_has_eigenvalues(scaled):
    """Three eigenvalues, three directions; a scale moves neither the solution nor the count by more than a few."""
    problem = posed(PointCloud(*clouds(30)), rho=(1.0, 2.0))
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(30, 30)))
    S = (basis * np.repeat([0.01, 0.2, 0.9], 10)) @ basis.T
    solution = 0.01 * np.arange(30.0)
    directions, g = problem.directions(), np.zeros(30)
    if scaled:
        directions.rescale(np.where(np.arange(30) < 2, 0.25, 1.0))
    for _ in range(12 if scaled else 4):
        g = advance(directions, g, g - S @ (g - solution)).start
    np.testing.assert_allclose(g, solution, atol=1e-6)


def test_a_step_beside_nothing_new_is_the_plain_one():
    """A direction that was seen already, or none, is not divided by its own rounding."""
    problem = posed(PointCloud(*clouds(30)))
    directions = problem.directions()
    for _ in range(3):
        start = advance(directions, np.zeros(30), np.linspace(-1, 1, 30)).start
        assert directions.count == 0
        np.testing.assert_allclose(start, np.linspace(-1, 1, 30), atol=1e-15)


def test_constants_do_not_count_when_balanced():
    directions = posed(PointCloud(*clouds(30))).directions()
    assert advance(directions, np.zeros(30), np.full(30, 7.0), 0.1).norm < 1e-12


def test_a_residual_above_the_expected_forgets_the_directions():
    problem = posed(PointCloud(*clouds(30)), rho=(1.0, 2.0))
    directions, rng = problem.directions(), np.random.default_rng(0)
    for size in (3.0, 2.0, 1.0):
        advance(directions, np.zeros(30), size * rng.normal(size=30))
        directions.expected = size
    assert directions.count == 2
    advance(directions, np.zeros(30), 2 * rng.normal(size=30))
    assert directions.count == 1  # the newest, which is all that is known of the map here


def test_no_column_leaps():
    """An eased residual is cut at LONGEST, unless the plain one is longer."""
    problem = posed(PointCloud(*clouds(30)), rho=(1.0, 2.0))
    directions = problem.directions()
    directions.rescale(np.full(30, 1e-6))
    residual = np.concatenate([np.full(10, -1e-9), np.full(10, 0.1), np.full(10, 5.0)])
    start = advance(directions, np.zeros(30), residual).start
    np.testing.assert_allclose(start, np.repeat([-1e-3, LONGEST, 5.0], 10), rtol=1e-9)


@pytest.mark.parametrize("rho", [(None, None), (0.5, None), (0.3, 0.05)])
def test_what_leaves_a_column_is_the_diagonal_of_the_derivative(rho):
    """By finite differences of next_g(next_f(g)) at any g."""
    a, b = np.random.default_rng(3).random((2, 12)) + 0.1
    eps = 0.02
    problem = posed(PointCloud(*clouds(12)), a / a.sum(), b / b.sum(), eps=eps, rho=rho)
    g = 0.03 * np.random.default_rng(4).normal(size=12)
    f = problem.next_f(g, eps)
    leaving = problem.T.leaving(g, f, problem.next_g(f, eps), eps)
    step = 1e-6

    def moved(j, h):
        z = g.copy()
        z[j] += h
        return problem.next_g(problem.next_f(z, eps), eps)[j]

    slopes = [(moved(j, step) - moved(j, -step)) / (2 * step) for j in range(12)]
    np.testing.assert_allclose(leaving, 1 - np.asarray(slopes), rtol=1e-6, atol=1e-8)


def plain_and_accelerated(monkeypatch, *args, **options):
    monkeypatch.setattr(drivers, "solve_at_once", lambda *args: None)
    fast = epsot.solve(*args, **options)
    with monkeypatch.context() as patch:
        patch.setattr(drivers, "ConjugateResiduals", lambda update: update)
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


@pytest.mark.parametrize("rho", [1e-4, 1e4, (1e-4, None), (None, 1e4)])
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_never_much_worse_with_marginals_that_give_way(monkeypatch, rho, tol):
    x, y = clouds(60)
    a, b = np.random.default_rng(1).random((2, 60)) + 0.01
    geometry = PointCloud(x, y)
    fast, slow = plain_and_accelerated(monkeypatch, geometry, a, b, eps=2e-3, rho=rho, tol=tol, max_iter=40_000)
    assert slow.success
    assert fast.success
    assert fast.nit <= 1.5 * slow.nit + 30


@quiet
@pytest.mark.parametrize("power", [-6, -5, -4, -3, -2, -1, 0, 1])
def test_never_a_larger_error_after_as_many_steps(monkeypatch, power):
    """At any temperature, from a point where nothing converges to one where everything does."""
    x, y = clouds(80)
    options = {"eps": 2.0 * 10.0**power, "tol": 1e-6, "max_iter": 400}
    fast, slow = plain_and_accelerated(monkeypatch, PointCloud(x, y), **options)
    assert fast.marginal_error <= max(1.2 * slow.marginal_error, 1e-6)
    assert fast.nit <= slow.nit + 5


def test_it_goes_on_from_the_best_point_with_plain_steps():
    """After mixed steps that bring nothing, the next start is that of the lowest error, and a plain series begins."""
    problem = posed(PointCloud(*clouds(30)), eps=1e-3)
    accelerated = ConjugateResiduals(Alternating(problem))
    first = accelerated.step(accelerated.init(1e-3, None, None), 1e-3)
    best = replace(first.plain, start=np.linspace(0, 1e-3, 30))
    stuck = replace(first, best=best, lowest=(0.0, 0.0), without_progress=PATIENCE - 1)
    retreated = accelerated.step(stuck, 1e-3)
    assert retreated.plain_steps == 1
    assert retreated.plain is best
    assert retreated.plain_length == 2 * stuck.plain_length
    plain = Alternating(problem).step(retreated.plain, 1e-3)
    again = accelerated.step(retreated, 1e-3)
    assert np.array_equal(again.plain.start, plain.start)


def test_a_new_temperature_extrapolates():
    """A potential that is linear in eps is met exactly."""
    problem = posed(PointCloud(*clouds(30)))
    accelerated = ConjugateResiduals(Alternating(problem))
    state = accelerated.init(1.0, None, None)
    g, slope = np.arange(30.0), np.linspace(-1, 1, 30)
    for eps in (1.0, 0.25):
        plain = accelerated.update.init(eps, None, g + slope * eps)
        state = accelerated.new_level(AcceleratedState(plain, problem.directions(), eps, levels=state.levels), eps / 4)
    np.testing.assert_allclose(state.plain.start, g + slope / 16, atol=1e-12)


def test_the_best_pair_is_returned():
    """A last step that made things worse is not what the caller gets."""
    problem = posed(PointCloud(*clouds(30)), eps=1e-3)
    accelerated = ConjugateResiduals(Alternating(problem))
    state = accelerated.init(1e-3, None, None)
    for _ in range(5):
        state = accelerated.step(state, 1e-3)
    worse = replace(state, plain=Alternating(problem).step(replace(state.plain, start=np.zeros(30)), 1e-3), error=1.0)
    assert accelerated.finish(worse, 1e-3).f is state.best.f


def sparse_mixtures(n=1000):
    """Five clusters a side, of unequal shares, and eps far below the spacing of the points."""
    rng = np.random.default_rng(2)

    def cloud():
        centres = rng.uniform(0.15, 0.85, (5, 3))
        return centres[rng.choice(5, n, p=[0.35, 0.25, 0.2, 0.15, 0.05])] + 0.05 * rng.normal(size=(n, 3))

    return PointCloud(cloud(), cloud())


@pytest.mark.parametrize("tol", [1e-2, 1e-3])
def test_what_is_stuck_comes_down_again(tol):
    """Groups of points that hardly exchange mass at eps: settled on a second descent, not in thousands of steps."""
    result = epsot.solve(sparse_mixtures(), eps=1e-4, tol=tol, max_iter=1000)
    assert result.success
    temperatures = [check.eps for check in result.history]
    assert any(later > earlier for earlier, later in itertools.pairwise(temperatures))


def test_a_second_descent_cut_short_loses_nothing():
    """The best of the first stay at the target is what is returned."""
    full = epsot.solve(sparse_mixtures(), eps=1e-4, max_iter=1000)
    start = next(k for k, check in enumerate(full.history[1:]) if check.eps > full.history[k].eps) + 1
    best = min(check.marginal_error for check in full.history[:start] if check.eps == full.eps)
    for extra in (2, 5):
        with pytest.warns(epsot.ConvergenceWarning):
            cut = epsot.solve(sparse_mixtures(), eps=1e-4, max_iter=start + extra)
        assert cut.nit == start + extra
        np.testing.assert_allclose(cut.marginal_error, best, rtol=1e-6)
