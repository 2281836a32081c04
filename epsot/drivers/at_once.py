"""A whole solve in one call of the backend, where steps between sweeps take longer than these."""

from __future__ import annotations

import logging

import numpy as np

from epsot.costs import Array
from epsot.drivers.options import Options
from epsot.geometry.base import DOUBLE
from epsot.kernels.batches import UNSETTLED, Asked, Rules, Warm
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
    if options.callback is not None or instance.comm.any(logger.isEnabledFor(logging.INFO)):
        return None
    if problem.precision > DOUBLE and instance.core.embeds():  # what rounding that has cost is the solver's to see
        return None
    engine = problem.kernel.at_once(problem.a, problem.b, instance.eps)
    if engine is None:
        return None
    asked = Asked(instance.geometry.degree, options.scaling, options.tol, options.max_iter, fixed=True)
    begin = None
    if warm is not None:
        if options.tol is None:
            return None
        begin = Warm(np.ones(1, np.bool_), *warm, np.array([warm_eps]))
    solved = engine.solve(asked, np.array([options.start]), RULES, begin, own=problem.own)
    if solved.status[0] == UNSETTLED:
        return None
    f, g = solved.f, solved.f if problem.own else solved.g
    parts = f, g, solved.f_more, solved.g_more
    dual = dual_of(parts, solved.error[0], solved.mass[0], solved.logit_error[0], options.tol, own=problem.own)
    return Ending(dual, STATUSES[int(solved.status[0])], int(solved.nit[0]), checks_of(solved, 0, options.tol))
