"""A solve from coarse to fine: which cells or points at which temperatures, and how potentials get to the next.

At a temperature eps = blur^p, cells of about that blur say all there is to say. A stage is a part of the schedule at
one resolution. The cheap ones are held to small errors: what is left for the points is what cells cannot resolve.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

from epsot.costs import Array
from epsot.drivers.options import Options
from epsot.drivers.stages import Stage, run_stage
from epsot.geometry.resolutions import Resolutions
from epsot.kernels import Kernel
from epsot.problems.instance import Instance
from epsot.problems.problem import Problem
from epsot.results.potential import Potential
from epsot.solver.loop import Outcome
from epsot.solver.schedule import LEVEL_STEPS, QUICK, THOROUGH, Level
from epsot.solver.updates import Dual, Update
from epsot.status import Status

logger = logging.getLogger("epsot")


class Manner(NamedTuple):
    """How cells are used."""

    widest: float  # beside the blur
    nearly_all: float  # of the points: so many cells are no cheaper than the points
    many: float  # of the points: at the target, finer cells are tried up to so many
    thorough: float  # the error to which cells are held ...
    quick: float  # ... and the points, above the target
    slowest: float  # factor of one temperature, as a length, to the next


OF_POINTS = Manner(1.5, 0.6, 0.25, THOROUGH, QUICK, 0.0)
# 256 x 256 pixels at a blur of one, to 1e-2: 101 iterations on the finest grid with .5 and levels held to .1, 54 with
# levels held to .03, 81 with .7, and 37 with both where pixels are at most half a blur wide. Coarse grids cost nothing.
OF_LATTICES = Manner(0.5, 0.6, 0.0, 0.03, 0.03, 0.7)


@dataclass(frozen=True)
class Reached:
    """The potentials at the end of a temperature, over the cells of the time."""

    instance: Instance
    dual: Dual

    @property
    def eps(self) -> float:
        return self.instance.eps

    def f(self, kernel: Kernel) -> Array:
        """The first of them at the first points of another kernel."""
        return Potential.source(self.instance, self.dual).carried_to(kernel)

    def g(self, kernel: Kernel) -> Array:
        """The second of them at its second points."""
        return Potential.target(self.instance, self.dual).carried_to(kernel.T)


def solve(
    make: Callable[[Problem], Update], instance: Instance, resolutions: Resolutions, options: Options, nit: int = 0
) -> Outcome:
    """Anneal from coarse to fine, each stage from the potentials of those before, after `nit` iterations."""
    reached: list[Reached] = []  # the ends of the last two temperatures, on the finest cells that have seen them
    stopped = False
    for stage in stages(instance, resolutions, options):
        if stopped:  # one more step: what is returned belongs to points and target
            if stage.cells:
                continue
            stage, options = Stage(instance, (Level(instance.eps),)), replace(options, callback=None)
        logger.info("%d x %d points", *stage.instance.core.shape)
        update = make(stage.instance.problem)
        outcome = run_stage(update, start(update, stage, reached), stage, instance, options, nit)
        nit = outcome.nit
        if stopped:
            return replace(outcome, status=Status.STOPPED)
        stopped = outcome.status is Status.STOPPED
        if stage.cells and outcome.status is Status.DIVERGED:
            reached = []  # the points may fare better than the cells
        else:
            eps = stage.instance.eps
            reached = [*(end for end in reached if end.eps > eps), Reached(stage.instance, outcome.dual)][-2:]
    return outcome


def start(update: Update, stage: Stage, reached: list[Reached]) -> Any:
    """The state at the points of a stage to go on from where coarser ones have come, at one or two temperatures.

    Two let an accelerated update extrapolate to the next, which saves a fifth of the iterations. The points are the
    last stage, and let go of the coarser ones: those of an image hold as much as two vectors of the points.
    """
    if not reached:
        return update.init(stage.levels[0].eps, None, None)
    problem = stage.instance.problem
    *before, last = reached
    if not stage.cells:
        reached.clear()
    if problem.own:
        return update.init(last.eps, last.f(problem.kernel), None)
    past = tuple((end.eps, end.g(problem.kernel)) for end in before)
    return update.init(last.eps, last.f(problem.kernel), last.g(problem.kernel), past)


def stages(instance: Instance, resolutions: Resolutions, options: Options) -> Iterator[Stage]:
    """Down to the temperature of the instance, at each the coarsest resolution that serves it."""
    core, target = instance.core, instance.eps
    manner = OF_LATTICES if resolutions.regular else OF_POINTS
    options = replace(options, scaling=max(options.scaling, manner.slowest))
    schedule = replace(options, tol=None).schedule(target, core.degree)
    steps = [(depth_of(resolutions, resolutions.length(level.eps), manner), level.eps) for level in schedule]
    depth = steps[-1][0]
    while depth is not None and depth + 1 < len(resolutions.widths) and resolutions.share(depth + 1) < manner.many:
        depth += 1
        steps.append((depth, target))
    for depth, group in itertools.groupby((step for step in steps if step[0] is not None), key=itemgetter(0)):
        levels = [Level(eps, LEVEL_STEPS, max(options.tol or 0.0, manner.thorough)) for _, eps in group]
        yield Stage(instance.at_resolution(*resolutions.at(depth), levels[-1].eps), levels, cells=True)
    hottest = next((eps for depth, eps in steps if depth is None), target)
    yield Stage(instance, replace(options, start=hottest).schedule(target, core.degree, quick=manner.quick))


def depth_of(resolutions: Resolutions, blur: float, manner: Manner) -> int | None:
    """The coarsest resolution that serves a blur; None: the points themselves."""
    depth = next((depth for depth, width in enumerate(resolutions.widths) if width <= manner.widest * blur), None)
    return None if depth is None or resolutions.share(depth) > manner.nearly_all else depth
