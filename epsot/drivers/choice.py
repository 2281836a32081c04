"""Drivers: they choose an update and a schedule and call the loop; a divergence is three solves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.drivers import coarse_to_fine
from epsot.drivers.at_once import selves_at_once, solve_at_once
from epsot.drivers.options import Options
from epsot.drivers.stages import Stage, run_stage
from epsot.drivers.starts import Given, Start, check_start, warm_start
from epsot.problems.instance import HOT, Instance
from epsot.problems.problem import Problem
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult
from epsot.solver.acceleration import ConjugateResiduals
from epsot.solver.loop import Outcome
from epsot.solver.updates import Alternating, Dual, SelfTransport, Symmetric, Update
from epsot.status import Status

UNSEEABLE = 2.0**-46  # marginal error that rounding may leave in float64, of any sums
WIDE, LONG = 4, 4096  # columns for each row, and columns: from so many of both on, a solve goes from the other side

Init = Start


def solve_transport(instance: Instance, options: Options, init: Init) -> SinkhornResult:
    """One transport problem: the tutorial's algorithm without a tolerance, alternating updates with one.

    Acceleration mixes the potentials of the second side. Where that is by far the longer one, the problem is solved
    from the other side: the memory of the mixing is small then, and it takes fewer steps.
    """

    def update(problem: Problem) -> Update:
        return Symmetric(problem) if options.tol is None else ConjugateResiduals(Alternating(problem))

    init = init.xy if isinstance(init, DivergenceResult) else init
    if options.tol is None or not wide(instance):
        return run(update, instance, options, init)
    if isinstance(init, SinkhornResult):
        check_start(init, instance)  # an error is to show the problem as it was posed
    if options.callback is not None:
        callback = options.callback
        options = replace(options, callback=lambda record: callback(record.T))
    past = turned(init, init.instance.T) if isinstance(init, SinkhornResult) else init and init.T
    result = run(update, instance.T, options, past)
    return turned(result, instance)


def is_far_above(instance: Instance, options: Options) -> bool:
    """Whether the temperature is far above all costs, at which annealing starts; zero costs have nothing to lose."""
    return options.tol is not None and 0 < HOT * options.start < instance.eps


def sharpened(tol: Any, share: Any, masses: tuple[Any, Any], balanced: Any) -> Any:
    """The marginal error at which potentials are known as a part of what they are made of, where that is little of eps.

    There every plan is nearly a b^T, and fits nearly, though potentials are zero: before a penalty damps them, they are
    off by eps times the error. `share` is that of the costs in eps; unbalanced, masses other than one count as these.
    """
    with np.errstate(divide="ignore"):
        uneven = np.minimum(*(np.abs(np.log(mass)) for mass in masses))
    share = np.where(balanced, share, np.maximum(share, uneven))
    return np.minimum(tol, np.maximum(tol * HOT * share, UNSEEABLE))


def wide(instance: Instance) -> bool:
    """Whether there are far more columns than rows."""
    n, m = instance.core.shape
    return m >= max(WIDE * n, LONG)


def turned(result: SinkhornResult, instance: Instance) -> SinkhornResult:
    """The result seen from the other side, `instance`."""
    return replace(result, instance=instance, dual_pair=result.dual_pair.T)


def solve_self(instance: Instance, options: Options, init: SinkhornResult | None) -> SinkhornResult:
    """A measure against itself: with a tolerance it needs no annealing."""

    def update(problem: Problem) -> Update:
        return SelfTransport(problem, extrapolate=options.tol is None)

    return run(update, instance, options, init, anneals=options.tol is None)


def without_annealing(options: Options) -> Options:
    """As asked of a measure with itself: only a schedule that is run once needs all of it."""
    return options if options.tol is None else replace(options, start=0.0)


def solve_divergence(instance: Instance, options: Options, init: Init) -> DivergenceResult:
    """Three solves, or one where both measures are the same."""
    instance.check_sources()  # before any work
    warm = init if isinstance(init, DivergenceResult) else None
    if instance.is_self():
        same = solve_self(instance.source(), options, warm.xy if warm else None)
        return DivergenceResult(same, same, same)
    xy = solve_transport(instance, options, init)
    silent = options if options.callback is None else replace(options, callback=None)
    return DivergenceResult(xy, *solve_selves((instance.source(), instance.T.source()), silent, warm))


def solve_selves(
    sources: tuple[Instance, Instance], options: Options, warm: DivergenceResult | None
) -> tuple[SinkhornResult, SinkhornResult]:
    """Two measures, each with itself: from no potentials in one call, where that is possible."""
    x, y = sources
    if warm is not None or is_far_above(x, options):
        past = (None, None) if warm is None else (warm.xx, warm.yy)
        return solve_self(x, options, past[0]), solve_self(y, options, past[1])
    xx, yy = selves_at_once(x, y, without_annealing(options))
    return (
        solve_self(x, options, None) if xx is None else result_of(x, options, xx),
        solve_self(y, options, None) if yy is None else result_of(y, options, yy),
    )


def run(
    make: Callable[[Problem], Update], instance: Instance, options: Options, init: SinkhornResult | Given | None,
    *, anneals: bool = True,
) -> SinkhornResult:  # fmt: skip
    """The result of one problem."""
    if 0 in instance.core.shape:
        return result_of(instance, options, unmoved(instance, options))
    told = options
    if is_far_above(instance, options):  # but a `diameter` may be anything
        problem, share = instance.problem, max(options.start, instance.core.scale()) / instance.eps
        tol = sharpened(options.tol, share, (problem.a.mass, problem.b.mass), problem.balanced)
        told = replace(options, tol=float(tol))
    outcome = settle(make, instance, told if anneals else without_annealing(told), init)
    missed = outcome.status in (Status.MAX_ITER, Status.STALLED)
    if told.tol != options.tol and missed and float(outcome.dual.error) <= options.tol:  # type: ignore[arg-type,operator]
        outcome = replace(outcome, status=Status.CONVERGED)  # as was asked
    return result_of(instance, options, outcome)


def result_of(instance: Instance, options: Options, outcome: Outcome) -> SinkhornResult:
    return SinkhornResult(instance, outcome.dual, outcome.status, outcome.nit, outcome.history, options.tol)


def settle(
    make: Callable[[Problem], Update], instance: Instance, options: Options, init: SinkhornResult | Given | None
) -> Outcome:
    """Anneal from an earlier result; from none, too, where that has led nowhere: a start is to cost time at most."""
    warm = None if init is None else warm_start(init, instance, options)
    if init is None or warm is None:
        return from_none(make, instance, options)
    outcome = solve_at_once(instance, options, warm, init.eps) or on_points(make, instance, options, warm, init.eps)
    lost = outcome.status in (Status.STALLED, Status.DIVERGED) and outcome.nit < options.max_iter
    if options.tol is None or not lost:
        return outcome
    cold = from_none(make, instance, options, outcome.nit)
    found = cold.status in (Status.CONVERGED, Status.STOPPED) or outcome.status is Status.DIVERGED
    better = cold if found else outcome
    return replace(better, nit=cold.nit, history=(*outcome.history, *cold.history))


def from_none(make: Callable[[Problem], Update], instance: Instance, options: Options, nit: int = 0) -> Outcome:
    """Anneal in one call, from coarse to fine where the geometry has coarser resolutions, or step by step."""
    problem = instance.problem
    found = solve_at_once(instance, options) if nit == 0 else None
    if found is not None:
        return found
    resolutions = None
    if options.tol is not None:  # without one, every temperature sees all points
        resolutions = instance.core.resolutions(problem.a.weights, problem.b.weights, own=problem.own)
    if resolutions is not None:
        return coarse_to_fine.solve(make, instance, resolutions, options, nit)
    return on_points(make, instance, options, nit=nit)


def on_points(
    make: Callable[[Problem], Update],
    instance: Instance,
    options: Options,
    warm: tuple[Array | None, Array | None] = (None, None),
    warm_eps: float | None = None,
    nit: int = 0,
) -> Outcome:
    """Anneal on all points, from earlier potentials at their temperature, or from none."""
    update = make(instance.problem)
    schedule = options.schedule(instance.eps, instance.geometry.degree, warm_eps)
    state = update.init(schedule[0].eps, *warm)
    return run_stage(update, state, Stage(instance, schedule), instance, options, nit)


def unmoved(instance: Instance, options: Options) -> Outcome:
    """Where no point has both mass and a partner there is nothing to iterate, and the plan is zero."""
    xp = instance.place.xp
    zero = xp.asarray(0.0, dtype=xp.float64, device=instance.place.device)
    status = Status.SCHEDULE_ENDED if options.tol is None else Status.CONVERGED
    return Outcome(Dual(*instance.problem.zeros(), zero, zero), status, 0, ())
