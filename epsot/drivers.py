"""Drivers: they choose an update and a schedule and call the loop; a divergence is three solves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epsot.arrays import Place
from epsot.costs import Array
from epsot.debiased import DivergenceResult
from epsot.devices import resident
from epsot.geometry.multiscale import Resolutions
from epsot.instance import Instance
from epsot.problem import Problem
from epsot.result import SinkhornResult
from epsot.side import Side
from epsot.solver.acceleration import AcceleratedState, ConjugateResiduals
from epsot.solver.loop import anneal
from epsot.solver.schedule import Level, annealing
from epsot.solver.updates import Alternating, Dual, SelfTransport, Symmetric, Update
from epsot.stages import Stage, coarse_to_fine
from epsot.status import Status
from epsot.verification import verified

logger = logging.getLogger("epsot")

FAR = 1e3  # times the costs: potentials from which no solve should start ...
FAR_OF_ITSELF = 30.0  # ... nor one of a measure and itself, which needs few steps from none at all
WIDE, LONG = 4, 4096  # columns for each row, and columns: from so many of both on, a solve goes from the other side

Init = SinkhornResult | DivergenceResult | None


@dataclass(frozen=True)
class Options:
    """The checked options of a solve: how to anneal and when to stop."""

    start: float  # the temperature at which annealing starts
    scaling: float
    tol: float | None
    max_iter: int
    callback: Callable[[Any], object] | None

    def schedule(self, instance: Instance, warm_eps: float | None) -> tuple[Level, ...]:
        """The temperatures; a warm start begins at its own."""
        start = self.start if warm_eps is None else min(self.start, warm_eps)
        return annealing(
            start,
            instance.eps,
            degree=instance.geometry.degree,
            scaling=self.scaling,
            tol=self.tol,
            max_iter=self.max_iter,
            restart=self.start,
        )


@resident
class Intermediate:
    """The record that a callback gets after each iteration: `nit`, `eps`, and on demand `marginal_error`, `f`, `g`."""

    def __init__(
        self,
        nit: int,
        eps: float,
        state: Any,
        update: Update,
        stage: Instance,
        instance: Instance,
        turned: bool = False,
    ) -> None:
        self.nit, self.eps, self._turned = nit, eps, turned
        self._state, self._update, self._stage, self._instance = state, update, stage, instance

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self._instance.place

    @property
    def marginal_error(self) -> float:
        """Of the potentials before this iteration (tol=None) or of those it gives, on the cells or points at hand."""
        return float(self._update.error(self._state, self.eps))

    @property
    def T(self) -> Intermediate:
        """Seen from the other side."""
        return Intermediate(
            self.nit, self.eps, self._state, self._update, self._stage, self._instance, turned=not self._turned
        )

    def _potential(self, of_target: bool) -> Array:
        """The potential of the source or of the target of the problem that is being solved."""
        stage = replace(self._stage, eps=self.eps)
        result = SinkhornResult(stage, Dual(*self._update.pair(self._state)), Status.STOPPED, self.nit, ())
        if self._stage is self._instance:
            return result.g if of_target else result.f
        x, y = self._instance.geometry.points  # type: ignore[misc]  # those of which the cells are made
        return result._cast(result.target.potential_at(y) if of_target else result.source.potential_at(x))

    @property
    def f(self) -> Array:
        """The potential of the source, (n,); from cells, its extension to the points."""
        return self._potential(self._turned)

    @property
    def g(self) -> Array:
        """The potential of the target, (m,); from cells, its extension to the points."""
        return self._potential(not self._turned)

    def __repr__(self) -> str:
        return f"Intermediate(nit={self.nit}, eps={self.eps:.4g})"


def solve_transport(instance: Instance, options: Options, init: Init) -> SinkhornResult:
    """One transport problem: the tutorial's algorithm without a tolerance, alternating updates with one.

    Acceleration mixes the potentials of the second side. Where that is by far the longer one, the problem is solved
    from the other side: the memory of the mixing is small then, and it takes fewer steps.
    """

    def update(problem: Problem) -> Update:
        return Symmetric(problem) if options.tol is None else ConjugateResiduals(Alternating(problem))

    init = init.xy if isinstance(init, DivergenceResult) else init
    if init is not None:
        check_start(init, instance)
    if options.tol is None or not wide(instance):
        return run(update, instance, options, init)
    if options.callback is not None:
        callback = options.callback
        options = replace(options, callback=lambda record: callback(record.T))
    result = run(update, instance.T, options, None if init is None else turned(init, init.instance.T))
    return turned(result, instance)


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

    return run(update, instance, options if options.tol is None else replace(options, start=0.0), init)


def solve_divergence(instance: Instance, options: Options, init: Init) -> DivergenceResult:
    """Three solves, or one where both measures are the same."""
    warm = init if isinstance(init, DivergenceResult) else None
    if instance.is_self():
        same = solve_self(instance.source(), options, warm.xy if warm else None)
        return DivergenceResult(same, same, same)
    xy = solve_transport(instance, options, init)
    silent = replace(options, callback=None)
    xx = solve_self(instance.source(), silent, warm.xx if warm else None)
    yy = solve_self(instance.T.source(), silent, warm.yy if warm else None)
    return DivergenceResult(xy, xx, yy)


def run(
    make: Callable[[Problem], Update], instance: Instance, options: Options, init: SinkhornResult | None
) -> SinkhornResult:
    """Anneal from coarse to fine or on all points at once, from an earlier result or from none."""
    if 0 in instance.core.shape:
        return unmoved(instance, options)
    update = make(instance.problem)
    warm = None if init is None else warm_start(init, instance, options, isinstance(update, SelfTransport))
    resolutions = None
    if warm is None and options.tol is not None:
        resolutions = instance.core.resolutions(
            instance.problem.a.weights, instance.problem.b.weights, own=instance.problem.own
        )
    if resolutions is not None:
        return descend(make, instance, resolutions, options)
    schedule = options.schedule(instance, None if init is None or warm is None else init.eps)
    state = update.init(schedule[0].eps, *(warm or (None, None)))
    return settle(update, state, Stage(instance, schedule), instance, options)


def unmoved(instance: Instance, options: Options) -> SinkhornResult:
    """Where no point has both mass and a partner there is nothing to iterate, and the plan is zero."""
    xp = instance.place.xp
    zero = xp.asarray(0.0, dtype=xp.float64, device=instance.place.device)
    status = Status.SCHEDULE_ENDED if options.tol is None else Status.CONVERGED
    return SinkhornResult(instance, Dual(*instance.problem.zeros(), zero, zero), status, 0, (), options.tol)


def descend(
    make: Callable[[Problem], Update], instance: Instance, resolutions: Resolutions, options: Options
) -> SinkhornResult:
    """Anneal from coarse to fine, each stage from the potentials of those before."""
    assert options.tol is not None
    stages = coarse_to_fine(
        instance, resolutions, options.start, scaling=options.scaling, tol=options.tol, max_iter=options.max_iter
    )
    past: list[SinkhornResult] = []  # the last result of each temperature, the last two of them
    nit = 0
    for stage in stages:
        if past and past[-1].status is Status.STOPPED:  # one more step: what is returned belongs to points and target
            if stage.instance is not instance:
                continue
            stage, options = Stage(instance, (Level(instance.eps),)), replace(options, callback=None)
        logger.info("%d x %d points", *stage.instance.core.shape)
        update = make(stage.instance.problem)
        state = resume(update, stage, past) if past else update.init(stage.levels[0].eps, None, None)
        result = settle(update, state, stage, instance, options, nit)
        nit = result.nit
        if past and past[-1].status is Status.STOPPED:
            return replace(result, status=Status.STOPPED)
        if stage.instance is not instance and result.status is Status.DIVERGED:
            past = []  # the points may fare better than the cells
        else:
            past = [*(earlier for earlier in past if earlier.eps > result.eps), result][-2:]
    return past[-1]


def resume(update: Update, stage: Stage, past: Sequence[SinkhornResult]) -> Any:
    """The state at the points of a stage to go on from where coarser ones have come, at one or two temperatures.

    Two let an accelerated update extrapolate to the next, which saves a fifth of the iterations.
    """
    *before, last = past
    kernel = stage.instance.problem.kernel
    f = last.source.carried_to(kernel)
    if isinstance(update, SelfTransport):
        return update.init(last.eps, f, None)
    state = update.init(last.eps, f, last.target.carried_to(kernel.T))
    if isinstance(state, AcceleratedState):
        levels = tuple((earlier.eps, earlier.target.carried_to(kernel.T)) for earlier in before)
        state = replace(state, levels=levels)
    return state


def settle(
    update: Update, state: Any, stage: Stage, instance: Instance, options: Options, nit: int = 0
) -> SinkhornResult:
    """One stage of the solve of an instance, after `nit` iterations: anneal, verify, and wrap up."""
    posed, levels = stage
    callback = options.callback

    def watch(update: Update) -> Callable[[int, float, Any], object] | None:
        if callback is None:
            return None
        return lambda nit, eps, state: callback(Intermediate(nit, eps, state, update, posed, instance))

    most = options.max_iter if posed is instance else options.max_iter - 1  # one is left for the points themselves
    outcome = anneal(update, state, levels, most, watch(update), nit)
    if posed is instance:
        outcome = verified(posed, outcome, options.tol, options.max_iter, watch)
    elif not math.isfinite(posed.problem.logit_error(outcome.dual.f, outcome.dual.g, posed.eps)):
        outcome = replace(outcome, status=Status.DIVERGED)
    return SinkhornResult(posed, outcome.dual, outcome.status, outcome.nit, outcome.history, options.tol)


def check_start(init: SinkhornResult, instance: Instance) -> tuple[bool, bool]:
    """Of which sides its potentials are over the same points; an error where the result is none to start from."""
    home, past_home = instance.place.user, init.instance.place.user
    if past_home.xp is not home.xp:
        raise TypeError("`init` must be a result of the same array library as the points")
    if str(past_home.device) != str(home.device):
        raise TypeError(f"`init` must be on the device of the points, got one on {past_home.device}")
    return instance.geometry.same_sides(init.instance.geometry)


def warm_start(init: SinkhornResult, instance: Instance, options: Options, own: bool) -> tuple[Array, Array] | None:
    """The potentials of an earlier result over the points of positive weight; where the points differ, one softmin.

    None where they are no start: not finite, or so large that float64 would not resolve what has to be added to them.
    `own`: of a measure and itself.
    """
    same, xp = check_start(init, instance), instance.place.xp

    def potential(side: Side, number: int, needed: bool) -> Array:
        fits = init.instance.geometry.shape[number] == instance.geometry.shape[number]
        if same[number] or (fits and not needed):
            return side.potential
        points = instance.geometry.points[number]  # type: ignore[index]  # else both sides are the same
        try:
            return side.potential_at(points)
        except ValueError:  # points at which the cost of the earlier result is not defined
            return xp.full(points.shape[0], xp.nan, dtype=xp.float64, device=instance.place.device)

    # An update of both sides begins with f from g, and takes the earlier f for a guess; a self-transport has f alone.
    f = potential(init.source, 0, needed=own)
    g = f if own else potential(init.target, 1, needed=True)
    problem, eps = instance.problem, instance.eps
    most = (FAR_OF_ITSELF if own else FAR) * max(options.start, problem.scale, eps)
    most = problem.b.dampen(most, eps)  # a short reach makes potentials small
    if not bool(xp.all(xp.abs(g) <= most)) or not bool(xp.all(xp.isfinite(f))):
        return None
    f, g = instance.side_a.restrict(f), instance.side_b.restrict(g)
    if problem.balanced and not own:  # a large constant would take the digits of all that is added to it
        constant = problem.b.dot(g) / problem.b.mass
        f, g = f + constant, g - constant
    return f, g
