"""Barycenters: the temperatures of a solve, where it starts, and what holds of what it returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from epsot.arrays import Place
from epsot.costs import Array
from epsot.drivers.barycenter_records import (
    FIRST,
    BarycenterIntermediate,
    BarycenterStart,
    Further,
    read_barycenter,
    self_transport,
)
from epsot.drivers.barycenter_stages import from_coarse, watch
from epsot.drivers.intermediate import Intermediate
from epsot.drivers.options import Options
from epsot.drivers.starts import is_of_numpy
from epsot.drivers.verification import LAST_STEPS
from epsot.kernels import carrying
from epsot.kernels.reference import logsumexp
from epsot.problems.barycenter import BarycenterInstance
from epsot.results.barycenter import BarycenterResult
from epsot.solver.barycenter import BarycenterDual, BarycenterState, Barycentric, MixedBarycenter
from epsot.solver.loop import Ending, anneal
from epsot.solver.schedule import Level
from epsot.status import Status

HELD = 0.03  # marginal error at which a temperature above the target is left; from .1 on, the target took 4 times the
HELD_STEPS = 12  # steps of four images of 128 x 128 pixels at a blur of one or two, to 1e-3; after so many in any case
WARMER = 4.0  # times the blur of an earlier result: where a solve goes on from that, with other shares


def solve_barycenter(instance: BarycenterInstance, options: Options, init: BarycenterStart) -> BarycenterResult:
    """Anneal from none, or from an earlier result; one measure alone is its own debiased barycenter."""
    if instance.problem.debias and len(instance.active) == 1:
        ending = alone(instance, options)
    else:
        with carrying(instance.problem.kernel):
            ending = verified(instance, annealed(instance, options, init), options)
    return BarycenterResult(
        instance, ending.dual, ending.status, ending.nit, ending.history, options.tol,
        Further(instance, replace(options, callback=None)),
    )  # fmt: skip


def as_result(init: BarycenterStart, place: Place) -> BarycenterResult | None:
    """What a solve starts from, in its library: a result of NumPy, as all are that come from files, serves any."""
    if isinstance(init, BarycenterIntermediate):
        init = init.record()
    if init is None or init.place.xp is place.xp:
        return init
    if not is_of_numpy(init.place):
        raise TypeError("`init` must be a barycenter of the same array library as the measures, or of NumPy")
    return read_barycenter(init._written(), place)


def levels(instance: BarycenterInstance, options: Options, warm_eps: float | None = None) -> Sequence[Level]:
    """The temperatures, each above the target held to HELD, or run once without a tolerance."""
    degree = instance.geometry.degree
    start = replace(options, start=options.start * FIRST**degree, tol=None)
    *hot, target = start.schedule(instance.eps, degree, warm_eps)
    if options.tol is None:
        return (*hot, target)
    held = [Level(level.eps, HELD_STEPS, max(HELD, options.tol)) for level in hot]
    return (*held, Level(target.eps, options.max_iter, options.tol))


def annealed(instance: BarycenterInstance, options: Options, init: BarycenterStart) -> Ending[BarycenterDual]:
    """Down the temperatures; without a tolerance by plain steps, one at each."""
    plain, past = Barycentric(instance.problem), as_result(init, instance.place)
    warm = None if past is None or options.tol is None else warm_start(instance, past, plain)
    schedule = levels(instance, options, None if warm is None else warm.eps)
    if options.tol is None:
        state = plain.init(schedule[0].eps)
        return anneal(plain, state, schedule, options.max_iter, watch(instance, options))
    nit, stopped = 0, False
    if warm is None:
        warm, nit, stopped = from_coarse(instance, options, schedule)
        schedule = [level for level in schedule if level.eps <= warm.eps]
    if stopped:
        dual = plain.step(warm, instance.eps).dual
        return Ending(dual, Status.STOPPED, nit + 1, ())
    update = MixedBarycenter(plain)
    observe = watch(instance, options)
    return anneal(update, update.init(warm), schedule, options.max_iter, observe, nit)


def warm_start(instance: BarycenterInstance, init: BarycenterResult, plain: Barycentric) -> BarycenterState | None:
    """The state of an earlier result, where that has a potential for every measure.

    At a higher temperature than its own, and from its weights beside those that come of none: where it has left hardly
    any mass, none would come in many steps, and no error would tell.
    """
    past = init.instance
    same, _ = instance.geometry.same_sides(past.geometry)
    if not same or len(past.weights) != len(instance.weights):
        raise ValueError(
            f"`init` must be a barycenter of {len(instance.weights)} measures on the same support, got one of "
            f"{len(past.weights)} on " + ("the same" if same else "another")
        )
    if not set(instance.active) <= set(past.active) or past.problem.debias != plain.problem.debias:
        return None
    xp, found = instance.place.xp, init.found
    f = xp.stack([found.updated[past.active.index(k), ...] for k in instance.active])
    if not bool(xp.all(xp.isfinite(f))) or not bool(xp.all(xp.isfinite(found.log_d))):
        return None
    eps = max(past.eps, instance.eps) * WARMER**instance.geometry.degree
    broad = plain.init(eps).dual.log_a
    log_a = logsumexp(xp.stack([found.log_a, broad], axis=1)) - math.log(2)
    return plain.from_weights(log_a, f, found.log_d, eps)


def alone(instance: BarycenterInstance, options: Options) -> Ending[BarycenterDual]:
    """The measure itself, with the potential of its self-transport."""
    (k,), asked, callback, xp = instance.active, options, options.callback, instance.place.xp
    if callback is not None:
        tell, log_a = callback, instance.problem.measures[0].log_weights

        def observe(record: Intermediate) -> object:
            dual = partial(dual_alone, instance, record.flat("f"), record.eps)
            return tell(
                BarycenterIntermediate(
                    record.nit, record.eps, record.marginal_error, lambda: log_a, dual, instance, asked
                )
            )

        options = replace(options, callback=observe)
    result = self_transport(instance, options, k)
    f = result.source.potential
    status = result.status if bool(xp.all(xp.isfinite(f))) else Status.DIVERGED
    return Ending(dual_alone(instance, f, instance.eps), status, result.nit, result.history)


def dual_alone(instance: BarycenterInstance, f: Array, eps: float) -> BarycenterDual:
    """Of a measure alone and the potential of its self-transport, (n,)."""
    problem = instance.problem
    log_a = problem.measures[0].log_weights
    updated = problem.next_f(f[None, :], eps)
    error = problem.error(log_a, f[None, :], updated, eps)
    return BarycenterDual(log_a, log_a + f / eps, f[None, :], f[None, :], updated, -updated[0, ...] / eps, error, error)


def verified(instance: BarycenterInstance, ending: Ending[BarycenterDual], options: Options) -> Ending[BarycenterDual]:
    """The status that holds of what is returned: where rounding of the kernel may hide more, by steps in float64."""
    problem, dual, xp, eps = instance.problem, ending.dual, instance.place.xp, instance.eps
    if not (bool(xp.all(xp.isfinite(dual.f))) and bool(xp.all(xp.isfinite(dual.log_a)))):
        return replace(ending, status=Status.DIVERGED)
    exact, tol = instance.exact, options.tol
    if ending.status is not Status.CONVERGED or tol is None or problem.rounding(dual.f, dual.log_d, eps) <= tol:
        return ending
    if exact.rounding(dual.f, dual.log_d, eps) > max(tol, dual.marginal_error):
        return replace(ending, status=Status.STALLED)
    if exact is problem or ending.nit >= options.max_iter:
        return ending
    update = MixedBarycenter(Barycentric(exact))
    state = update.init(update.update.going_on(dual.log_d, dual.f, eps, dual))
    level = Level(eps, LAST_STEPS, tol)
    last = anneal(update, state, (level,), options.max_iter, watch(instance, options), ending.nit)
    status = last.status if last.status in (Status.CONVERGED, Status.STOPPED) else Status.STALLED
    return replace(last, status=status, history=(*ending.history, *last.history))
