"""What a result says about itself: outcome, history, warm starts, dtypes."""

from __future__ import annotations

import itertools
import logging
import warnings
from typing import Any

import numpy as np
import pytest

import epsot
from tests import checks
from tests.checks import close, power_cost
from tests.conftest import Measures, measures

CALLS = [epsot.sinkhorn, epsot.sinkhorn_divergence]
quiet = pytest.mark.filterwarnings("ignore::epsot.ConvergenceWarning")


@pytest.fixture(params=CALLS, ids=["value", "divergence"])
def call(request: pytest.FixtureRequest) -> Any:
    return request.param


# Outcomes


def test_max_iter_warns_with_the_error_and_the_cure(awkward: Measures, call: Any) -> None:
    with pytest.warns(epsot.ConvergenceWarning, match=r"marginal error \d.*`max_iter`") as caught:
        result = call(*awkward.balanced, blur=0.01, tol=1e-9, max_iter=4)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert result.status is epsot.Status.MAX_ITER
    assert not result.success
    assert result.nit == 4
    assert result.marginal_error > 1e-9
    for part in getattr(result, "parts", (result,)):
        assert part.nit <= 4


@quiet
@pytest.mark.parametrize("max_iter", [1, 2, 5, 6, 7, 8, 40])
@pytest.mark.parametrize("tol", [None, 1e-9])
def test_the_last_iteration_is_at_the_target(awkward: Measures, call: Any, tol: float | None, max_iter: int) -> None:
    temperatures: list[float] = []
    result = call(
        *awkward.balanced, blur=0.02, tol=tol, max_iter=max_iter, callback=lambda step: temperatures.append(step.eps)
    )
    assert result.nit == len(temperatures) <= max_iter
    close(temperatures[-1], 0.02**2, 1e-15)
    # down, but a solve that is stuck at the target may come down once more
    rises = [warm for warm, hotter in itertools.pairwise(temperatures) if hotter > warm]
    assert rises in ([[]] if tol is None else [[], [temperatures[-1]]])
    assert tol is None or result.nit == max_iter


@pytest.mark.parametrize("tol", [1e-12, 0.0])
def test_single_precision_stalls_early(tol: float) -> None:
    """float32 points cannot be told apart below a rounding; the solve says so and does not run on."""
    x, y, a, b = (array.astype(np.float32) for array in measures(40, 30, 3, zeros=False).balanced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = epsot.sinkhorn(x, y, a, b, blur=0.5, tol=tol, max_iter=5000)
    assert result.status in (epsot.Status.CONVERGED, epsot.Status.STALLED)
    assert result.success == (result.marginal_error <= tol)
    assert result.nit < 500


@quiet
def test_zero_tolerance_ends(awkward: Measures, call: Any) -> None:
    result = call(*awkward.balanced, blur=0.5, tol=0, max_iter=100_000)
    assert result.status in (epsot.Status.CONVERGED, epsot.Status.STALLED)
    assert result.nit < 10_000
    assert result.marginal_error < 1e-12


def test_no_plan_has_these_marginals() -> None:
    """Row 0 may only go to column 0, which has less mass: nothing converges, and it is said."""
    C = np.asarray([[0.0, np.inf], [1.0, 0.0]])
    with pytest.warns(epsot.ConvergenceWarning):
        result = epsot.solve(epsot.CostMatrix(C), [0.7, 0.3], [0.4, 0.6], eps=0.1, tol=1e-6, max_iter=2000)
    assert result.status is epsot.Status.MAX_ITER
    assert result.marginal_error > 0.1


@quiet
@pytest.mark.parametrize("value", [np.nan])
def test_a_cost_that_leaves_the_numbers_diverges(value: float) -> None:
    class Broken(epsot.Cost):
        def value(self, x: Any, y: Any) -> Any:
            return np.where(np.sum((x - y) ** 2, axis=-1) > 1, value, 0.0)

        def gradient(self, x: Any, y: Any) -> Any:
            return x - y

    x, y = np.zeros((40, 1)), np.zeros((40, 1))
    x[1], y[1] = 0.9, -0.9  # points that nobody has tried
    with np.errstate(all="ignore"):
        for tol in (None, 1e-3):
            result = epsot.solve(epsot.PointCloud(x, y, cost=Broken()), eps=0.1, tol=tol, max_iter=100)
            assert result.status is epsot.Status.DIVERGED
            assert not result.success
            assert not result.marginal_error <= 1e-3


@quiet
@pytest.mark.parametrize("reach", [None, 0.01, 1.0, (None, 0.5)])
@pytest.mark.parametrize(
    ("dtype", "blur"), [(np.float32, 0.03), (np.float64, 1e-4), (np.float32, 1.0), (np.float64, 1e6)]
)
def test_success_is_never_claimed_falsely(call: Any, dtype: Any, blur: float, reach: Any) -> None:
    x, y, a, b = (array.astype(dtype) for array in measures(12, 10, 2, seed=3).balanced)
    for tol in (1e-1, 1e-6):
        result = call(x, y, a, b, blur=blur, reach=reach, tol=tol, max_iter=200)
        assert result.success == (result.status is epsot.Status.CONVERGED)
        if result.success:
            assert result.marginal_error <= tol
            assert np.isfinite(result.value)
            for part in getattr(result, "parts", (result,)):
                plan = part.plan.to_dense().astype(np.float64)
                side_a, side_b = part.instance.side_a, part.instance.side_b
                left, right = (
                    side.scatter(measure.weights, 0.0)
                    for side, measure in ((side_a, part.instance.problem.a), (side_b, part.instance.problem.b))
                )
                f, g = part.source.potential, part.target.potential
                measured = checks.marginal_error(plan, f, g, left, right, part.rho)
                # float32 kernels know an exponent of 1e4 to about 1e-5
                assert measured <= tol + (1e-4 if dtype == np.float32 else 1e-7)


@pytest.mark.filterwarnings("ignore::epsot.PrecisionWarning")
@quiet
@pytest.mark.parametrize("blur", [1e-6, 1e-3])
def test_a_blur_below_single_precision_warns_of_nothing_else(call: Any, blur: float) -> None:
    """Bounds may be infinite, and a status bad, or the precision; what NumPy thinks of it is no concern of the user."""
    x, y, a, b = (array.astype(np.float32) for array in measures(12, 10, 2, seed=3).balanced)
    for reach in (None, 0.01, (None, 0.5), (0.5, None)):
        for tol, max_iter in ((1e-3, 200), (1e-3, 1), (None, 50)):
            result = call(x, y, a, b, blur=blur, reach=reach, tol=tol, max_iter=max_iter)
            assert not np.isnan(result.value)
            assert not np.isnan(result.primal)


@quiet
@pytest.mark.parametrize("blur", [1e-3, 3e-3])
def test_a_plateau_is_no_stall(blur: float) -> None:
    """At a small blur the error rests at a multiple of 1 / n before it falls on; rounding is not to blame.

    Gradual annealing shows that the problem is within reach.
    """
    rng = np.random.default_rng(1)
    x, y = rng.random((50, 2)), rng.random((50, 2))
    assert epsot.sinkhorn(x, y, blur=blur, scaling=0.9, max_iter=5000).success
    assert epsot.sinkhorn(x, y, blur=blur, max_iter=3000).status is not epsot.Status.STALLED


def test_message_and_repr_are_short(awkward: Measures, call: Any) -> None:
    for tol in (None, 1e-3):
        result = call(*awkward.balanced, blur=0.3, tol=tol)
        text = repr(result)
        assert type(result).__name__ in text
        assert result.status.name in text
        assert "array" not in text
        assert len(text.splitlines()) < 12
        assert result.status.meaning in result.message


# The schedule as seen from outside


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("scaling", "blur"), [(0.5, 0.1), (0.9, 0.03), (0.5, 0.25), (0.1, 1e-3)])
def test_number_of_temperatures(call: Any, scaling: float, blur: float, p: int) -> None:
    """ceil(log(diameter / blur) / log(1 / scaling)) + 1, whatever p is."""
    x, y, a, b = measures(7, 6, 2).balanced
    diameter = 3.0
    result = call(x, y, a, b, blur=blur, p=p, diameter=diameter, scaling=scaling, tol=None)
    expected = int(np.ceil(np.log(diameter / blur) / np.log(1 / scaling))) + 1
    assert result.nit == expected
    assert call(x, y, a, b, blur=4.0, p=p, diameter=diameter, scaling=scaling, tol=None).nit == 1


# History, callback, logging


def test_history(awkward: Measures, call: Any) -> None:
    result = call(*awkward.balanced, blur=0.1, tol=1e-6, max_iter=10_000)
    xy = getattr(result, "xy", result)
    at_target = [check for check in result.history if check.eps == result.eps]
    assert at_target[-1].nit == result.nit
    close(at_target[-1].marginal_error, xy.marginal_error, 1e-12)
    assert [check.nit for check in at_target] == sorted({check.nit for check in at_target})
    assert all(check.marginal_error > 1e-6 for check in at_target[:-1])


@pytest.mark.parametrize("tol", [None, 1e-6])
@pytest.mark.parametrize("reach", [None, 0.7])
def test_callback_sees_every_iteration(awkward: Measures, call: Any, tol: float | None, reach: Any) -> None:
    x, y, a, b = awkward.balanced
    seen: list[Any] = []

    def callback(step: Any) -> None:
        assert step.f.shape == a.shape
        assert step.g.shape == b.shape
        assert np.isfinite(step.f).all()
        assert np.isfinite(step.g).all()
        assert step.marginal_error >= 0
        seen.append((step.nit, step.eps, step.marginal_error, step.f, step.g))

    result = call(x, y, a, b, blur=0.2, reach=reach, tol=tol, max_iter=10_000, callback=callback)
    assert [step[0] for step in seen] == list(range(1, result.nit + 1))
    assert seen[-1][1] == result.eps
    if tol is not None:
        _, eps, error, f, g = seen[-1]
        assert error <= tol
        C, rho = power_cost(x, y), None if reach is None else reach**2
        measured = checks.marginal_error(checks.plan(f, g, C, a, b, eps), f, g, a, b, rho)
        close(error, measured, 1e-10)


@pytest.mark.parametrize("after", [1, 3, 12])
@pytest.mark.parametrize("tol", [None, 1e-9])
def test_callback_stops(awkward: Measures, call: Any, tol: float | None, after: int) -> None:
    def callback(step: Any) -> None:
        if step.nit == after:
            raise StopIteration

    result = call(*awkward.balanced, blur=0.001, tol=tol, callback=callback)
    assert result.status is epsot.Status.STOPPED
    assert not result.success
    assert after <= result.nit <= after + 1  # the result belongs to the target temperature
    assert np.isfinite(result.f).all()
    assert not np.isnan(result.value)  # a bound, maybe -inf
    assert result.eps == 0.001**2


def test_stopping_at_the_very_end_is_still_a_stop(awkward: Measures, call: Any) -> None:
    def callback(step: Any) -> None:
        if step.eps == 0.3**2 and step.marginal_error <= 1e-3:
            raise StopIteration

    result = call(*awkward.balanced, blur=0.3, tol=1e-3, callback=callback)
    assert result.status is epsot.Status.STOPPED
    assert not result.success


def test_other_exceptions_of_a_callback_pass_through(awkward: Measures) -> None:
    def callback(step: Any) -> None:
        raise KeyError(step.nit)

    with pytest.raises(KeyError):
        epsot.sinkhorn(*awkward.balanced, blur=0.3, callback=callback)


@pytest.mark.parametrize("tol", [None, 1e-6])
def test_logging(awkward: Measures, tol: float | None, caplog: pytest.LogCaptureFixture) -> None:
    """One record a temperature at INFO, none by default."""
    temperatures: set[float] = set()
    with caplog.at_level(logging.INFO, logger="epsot"):
        epsot.sinkhorn(*awkward.balanced, blur=0.1, tol=tol, callback=lambda step: temperatures.add(step.eps))
    records = [record for record in caplog.records if record.name == "epsot"]
    assert len(records) == len(temperatures)
    assert all(record.levelno == logging.INFO for record in records)
    caplog.clear()
    epsot.sinkhorn(*awkward.balanced, blur=0.1, tol=tol)
    assert not caplog.records


def test_logging_of_every_check(awkward: Measures, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, one more record for every measurement of `history`."""
    with caplog.at_level(logging.DEBUG, logger="epsot"):
        result = epsot.sinkhorn(*awkward.balanced, blur=0.1)
    checks = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len(checks) == len(result.history)
    for line, check in zip(checks, result.history, strict=True):
        assert line == f"iteration {check.nit}: eps {check.eps:.3e}, marginal error {check.marginal_error:.2e}"


# Warm starts


@pytest.fixture(params=[None, 0.8], ids=["balanced", "unbalanced"])
def reach(request: pytest.FixtureRequest) -> Any:
    return request.param


WARM: dict[str, Any] = {"blur": 0.2, "tol": 1e-9, "max_iter": 20_000}


def same_answer(warm: Any, cold: Any) -> None:
    assert warm.success
    close(warm.value, cold.value, 1e-8)
    close(warm.f, cold.f, 1e-6)
    close(warm.grad_x, cold.grad_x, 1e-6)


def test_init_from_itself_takes_one_iteration(awkward: Measures, call: Any, reach: Any) -> None:
    cold = call(*awkward.balanced, reach=reach, **WARM)
    warm = call(*awkward.balanced, reach=reach, init=cold, **WARM)
    assert warm.nit == 1
    same_answer(warm, cold)


def test_init_from_another_problem(awkward: Measures, call: Any, reach: Any) -> None:
    """Another blur, other weights, moved points, other sizes, another dtype, the other kind of result."""
    x, y, a, b = awkward.balanced
    cold = call(x, y, a, b, reach=reach, **WARM)
    other = a[::-1] * (a.sum() / a[::-1].sum())
    inits = [
        call(x, y, a, b, blur=1.0, reach=reach),
        call(x, y, a, b, blur=0.1, reach=reach),
        call(x, y, other, b, blur=0.2, reach=reach),
        call(x + 0.3, y, a, b, blur=0.2, reach=reach),
        call(x[:4], y[:6], blur=0.2, reach=reach),
        call(*(array.astype(np.float32) for array in (x, y, a, b)), blur=0.2, reach=reach),
        epsot.sinkhorn(x, y, a, b, blur=0.2, reach=reach),
        epsot.sinkhorn_divergence(x, y, a, b, blur=0.2, reach=reach),
        call(x, y, a, b, blur=0.2, reach=1.5 if reach is None else None),
    ]
    for init in inits:
        same_answer(call(x, y, a, b, reach=reach, init=init, **WARM), cold)


def test_init_follows_the_points(awkward: Measures, call: Any, reach: Any) -> None:
    """Potentials belong to places, not to positions in an array: the same points in another order change nothing."""
    x, y, a, b = awkward.balanced
    cold = call(x, y, a, b, reach=reach, **WARM)
    rows, columns = (np.random.default_rng(5).permutation(len(z)) for z in (x, y))
    moved = call(x[rows], y[columns], a[rows], b[columns], reach=reach, init=cold, **(WARM | {"tol": 2e-9}))
    assert moved.nit == 1
    close(moved.f, cold.f[rows], 1e-6)


def test_init_between_one_measure_and_two(awkward: Measures) -> None:
    x, y, a, b = awkward.balanced
    own = epsot.sinkhorn_divergence(x, x, a, a, blur=0.2)
    two = epsot.sinkhorn_divergence(x, y, a, b, blur=0.2)
    same_answer(epsot.sinkhorn_divergence(x, y, a, b, init=own, **WARM), epsot.sinkhorn_divergence(x, y, a, b, **WARM))
    assert float(epsot.sinkhorn_divergence(x, x, a, a, init=two, **WARM).value) == 0.0


@quiet
def test_init_that_diverged_does_no_harm() -> None:
    """A result whose potentials are not finite is no reason to fail."""
    x, y, a, b = measures(8, 7, 2).balanced
    poisoned = epsot.sinkhorn(x, y, a, b, blur=0.3, tol=None)
    poisoned.dual_pair.f[...] = np.nan
    poisoned.dual_pair.g[...] = np.inf
    close(epsot.sinkhorn(x, y, a, b, init=poisoned, **WARM).value, epsot.sinkhorn(x, y, a, b, **WARM).value, 1e-8)


def test_init_of_a_wrong_shape() -> None:
    small, large = (epsot.CostMatrix(np.ones((n, 3))) for n in (2, 4))
    with pytest.raises(ValueError, match="`init`"):
        epsot.solve(large, eps=1, init=epsot.solve(small, eps=1))


# Dtypes and laziness


@pytest.mark.parametrize("reach", [None, 0.8])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_single_precision(call: Any, reach: Any, offset: float) -> None:
    """Values within 1e-4 of float64, whatever the offset, and every output in float32."""
    problem = measures(30, 25, 3).balanced
    x, y, a, b = (array.astype(np.float32) for array in problem._replace(x=problem.x + offset, y=problem.y + offset))
    options = {"blur": 0.1, "reach": reach, "tol": 1e-5, "max_iter": 10_000}
    single = call(x, y, a, b, **options)
    # the float32 points themselves, in float64
    double = call(*(array.astype(np.float64) for array in (x, y)), a, b, **options)
    close(single.value, double.value, 1e-4)
    close(single.grad_x, double.grad_x, 1e-4)
    close(single.displacement, double.displacement, 1e-3)
    names = ("value", "f", "g", "grad_x", "grad_y", "grad_a", "grad_b", "displacement", "dual", "primal", "gap")
    for name in names:
        assert getattr(single, name).dtype == np.float32, name
        assert getattr(double, name).dtype == np.float64, name
    outputs = [
        single.potential(x),
        single.transport(x),
        single.plan @ b,
        single.plan.sum(),
        single.plan.sum(axis=0),
        single.plan.barycentric_map(),
        single.plan.rows(0),
        single.plan.to_dense(),
        single.plan.to_sparse(),
        single.plan.as_linear_operator(),
    ]
    assert all(output.dtype == np.float32 for output in outputs)


def test_mixed_dtypes(awkward: Measures) -> None:
    x, y, a, b = awkward.balanced
    assert epsot.sinkhorn(x.astype(np.float32), y, a, b, blur=0.3).value.dtype == np.float64
    # the weights do not decide
    result = epsot.sinkhorn(x.astype(np.float32), y.astype(np.float32), a, b, blur=0.3)
    assert result.value.dtype == np.float32


@pytest.mark.parametrize("tol", [None, 1e-6])
def test_derived_quantities_do_not_change(awkward: Measures, call: Any, tol: float | None) -> None:
    """The order in which attributes are first read is of no consequence."""
    names = ["value", "f", "g", "grad_x", "grad_y", "grad_a", "grad_b", "displacement", "dual", "primal", "gap"]
    first, second = (call(*awkward.balanced, blur=0.3, tol=tol, max_iter=10_000) for _ in range(2))
    forward = {name: np.array(getattr(first, name)) for name in names}
    backward = {name: np.array(getattr(second, name)) for name in reversed(names)}
    for name in names:
        assert np.array_equal(forward[name], backward[name]), name
        assert np.array_equal(forward[name], getattr(first, name)), name


def test_results_are_frozen(awkward: Measures, call: Any) -> None:
    result = call(*awkward.balanced, blur=0.3)
    with pytest.raises(AttributeError):
        result.value = 3
    with pytest.raises(AttributeError):
        result.xyz = 3
