"""What a solve has reached, of the very potentials that are returned; measured anew where rounding may hide it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from epsot.kernels.reference import MAX_EXPONENT
from epsot.problems.instance import Instance
from epsot.problems.problem import ULPS, UNSEEN, Problem
from epsot.results.certificates import UNRESOLVED
from epsot.solver.acceleration import ConjugateResiduals
from epsot.solver.loop import Outcome, anneal
from epsot.solver.schedule import Level
from epsot.solver.updates import Alternating, Dual, SelfTransport, Update
from epsot.status import Status

NEARLY = 2.0  # times the tolerance: what float64 sums may find where float32 sums found less than the tolerance ...
LAST_STEPS = 30  # ... and steps in float64 that then reach it

Watch = Callable[[Update], Callable[[int, float, Any], object] | None]  # what observes the steps of an update


def verified(instance: Instance, outcome: Outcome, tol: float | None, max_iter: int, watch: Watch) -> Outcome:
    """The outcome in the symmetric gauge, with the error and the status that hold of it.

    A step in float32 may have a fixed point far from that of the exact one, and an error of zero there. And potentials
    are rounded to float64: where that matters, no iteration brings more.
    """
    eps = instance.eps
    # A constant has taken digits from what the solve has found; in the symmetric gauge none is twice as large.
    logit_error = 2 * instance.problem.logit_error(outcome.dual.f, outcome.dual.g, eps)
    outcome = centred(instance.problem, replace(outcome, dual=replace(outcome.dual, logit_error=logit_error)))
    if not representable(instance.problem, outcome.dual, logit_error):
        return replace(outcome, status=Status.DIVERGED)
    hidden = ULPS * instance.problem.exponent_error(logit_error, eps)
    if outcome.dual.error is not None and outcome.status is not Status.DIVERGED and hidden > (tol or 0.0):
        logit_error = instance.problem.logit_error(outcome.dual.f, outcome.dual.g, eps)
        outcome = measured(instance, outcome, logit_error, hidden, tol or 0.0)
        if outcome.status is Status.CONVERGED and float(outcome.dual.error) > (tol or 0.0):  # type: ignore[arg-type]
            outcome = centred(instance.problem, finished(instance.exact, outcome, eps, tol or 0.0, max_iter, watch))
    if exhausted(instance, outcome):
        return replace(outcome, status=Status.STALLED)
    return outcome


def exhausted(instance: Instance, outcome: Outcome) -> bool:
    """Whether no digits are left that more iterations, or a slower schedule, could bring."""
    status, dual, eps = outcome.status, outcome.dual, instance.eps
    if status not in (Status.MAX_ITER, Status.SCHEDULE_ENDED):
        return False
    problem = instance.problem if status is Status.MAX_ITER else instance.exact
    assert dual.logit_error is not None  # it is that of a verified solve
    if problem.exponent_error(dual.logit_error, eps) <= UNRESOLVED:
        return False
    return problem.exponent_error(problem.logit_error(dual.f, dual.g, eps), eps) > UNRESOLVED


def centred(problem: Problem, outcome: Outcome) -> Outcome:
    """In the gauge <a, f> = <b, g>, where any constant will do."""
    dual = outcome.dual
    if not problem.balanced or problem.own:
        return outcome
    return replace(outcome, dual=dual.shifted(problem.dual_shift(dual.f, dual.g)))


def representable(problem: Problem, dual: Dual, logit_error: float) -> bool:
    """Whether the potentials are finite, and the marginals that they call for no larger than what is computed with."""
    if problem.balanced or not math.isfinite(logit_error):
        return math.isfinite(logit_error)
    masses = (problem.a.log_mass(dual.f), problem.b.log_mass(dual.g))
    return max(map(float, masses)) < MAX_EXPONENT


def measured(instance: Instance, outcome: Outcome, logit_error: float, hidden: float, tol: float) -> Outcome:
    """With the error of all rows and columns in float64, where what rounding may hide is more than what was found."""
    dual, eps, xp = outcome.dual, instance.eps, instance.place.xp
    known = float(dual.error)  # type: ignore[arg-type]
    if not hidden > known:
        return outcome
    unseen = UNSEEN * instance.exact.exponent_error(logit_error, eps)  # kernels round exponents in any case
    seen = instance.exact.measured(dual.f, dual.g, eps)
    error = max(known, seen + (unseen if unseen > tol else 0.0))
    failed = outcome.status is Status.CONVERGED and not (max(known, seen) + unseen <= NEARLY * tol and unseen <= tol)
    dual = replace(dual, error=xp.asarray(error, dtype=xp.float64, device=instance.place.device))
    return replace(outcome, dual=dual, status=Status.STALLED if failed else outcome.status)


def finished(exact: Problem, outcome: Outcome, eps: float, tol: float, max_iter: int, watch: Watch) -> Outcome:
    """The last steps in float64, from where float32 has come near the tolerance."""
    if outcome.nit >= max_iter:
        return replace(outcome, status=Status.MAX_ITER)
    update: Update = SelfTransport(exact) if exact.own else ConjugateResiduals(Alternating(exact))
    state = update.init(eps, outcome.dual.f, outcome.dual.g)
    last = anneal(update, state, (Level(eps, LAST_STEPS, tol),), max_iter, watch(update), outcome.nit)
    status = last.status if last.status in (Status.CONVERGED, Status.STOPPED) else Status.STALLED
    return replace(last, status=status, history=(*outcome.history, *last.history))
