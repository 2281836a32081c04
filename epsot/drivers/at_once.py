"""A whole solve in one call of the backend, where steps between sweeps take longer than these."""

from __future__ import annotations

import logging

import numpy as np

from epsot.costs import Array
from epsot.drivers.options import Options
from epsot.geometry.base import DOUBLE
from epsot.kernels.batches import UNSETTLED, Asked, Rules, Solved, Warm, WholeSolve
from epsot.problems.instance import Instance
from epsot.problems.problem import ULPS
from epsot.results.certificates import UNRESOLVED
from epsot.results.solved import checks_of, dual_of
from epsot.solver.acceleration import LEAST, LONG, SLOW, STILL, TIED
from epsot.solver.loop import Ending, Outcome
from epsot.solver.schedule import LEVEL_STEPS, QUICK, THOROUGH
from epsot.solver.updates import HALVING, PATIENCE
from epsot.status import STATUSES

logger = logging.getLogger("epsot")

RULES = Rules(
    PATIENCE, STILL.steps, STILL.factor, SLOW.steps, SLOW.factor, HALVING.steps, HALVING.factor, LONG, TIED, LEAST,
    QUICK, THOROUGH, LEVEL_STEPS, ULPS, DOUBLE, UNRESOLVED,
)  # fmt: skip


def solve_at_once(
    instance: Instance, options: Options, warm: tuple[Array, Array] | None = None, warm_eps: float = 0.0
) -> Outcome | None:
    """By the decisions of the solver, from potentials or none; None where only the solver can, or somebody looks on."""
    problem = instance.problem
    if not usual(instance, options) or (warm is not None and options.tol is None):
        return None
    engine = problem.kernel.at_once(problem.a, problem.b, instance.eps)
    if engine is None:
        return None
    begin = None if warm is None else Warm(np.ones(1, np.bool_), *warm, np.array([warm_eps]))
    solved = engine.solve(asked_of(instance, options), np.array([options.start]), RULES, begin, own=problem.own)
    return ended(engine, solved, 0, instance, options.tol)


def selves_at_once(first: Instance, second: Instance, options: Options) -> tuple[Outcome | None, Outcome | None]:
    """The same of two measures, each with itself, from no potentials: both in the same call."""
    if not usual(first, options):
        return None, None
    kernel, other, a, b = first.problem.kernel, second.problem.kernel, first.problem.a, second.problem.a
    engine = kernel.both_at_once(a, other, b, first.eps)
    if engine is None:
        return None, None
    solved = engine.solve(asked_of(first, options), np.full(2, options.start), RULES, own=True)
    return ended(engine, solved, 0, first, options.tol), ended(engine, solved, 1, second, options.tol)


def usual(instance: Instance, options: Options) -> bool:
    """Whether nobody looks on, and no more than the usual rounding is to be seen."""
    if options.callback is not None or instance.comm.any(logger.isEnabledFor(logging.INFO)):
        return False
    # what rounding embedded points has cost is the solver's to see
    return instance.problem.precision <= DOUBLE or not instance.core.embeds()


def asked_of(instance: Instance, options: Options) -> Asked:
    return Asked(instance.geometry.degree, options.scaling, options.tol, options.max_iter, fixed=True)


def ended(engine: WholeSolve, solved: Solved, k: int, instance: Instance, tol: float | None) -> Outcome | None:
    """How a problem has ended, the k-th of those in the call; None where the solver has to look at it."""
    status = int(solved.status[k])
    if status == UNSETTLED:
        return None
    own, rows, columns = instance.problem.own, engine.rows.of(k), engine.columns.of(k)
    f, more_f = solved.f[rows], solved.f_more[rows]
    g, more_g = (f, more_f) if own else (solved.g[columns], solved.g_more[columns])
    known = solved.error[k], solved.mass[k], solved.logit_error[k]
    dual = dual_of((f, g, more_f, more_g), *known, tol, own=own)
    return Ending(dual, STATUSES[status], int(solved.nit[k]), checks_of(solved, k, tol))
