"""The hot part of a barycenter on coarser grids, where the support has some, and what observes the steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from epsot.costs import Array
from epsot.drivers.barycenter_records import BarycenterIntermediate
from epsot.drivers.coarse_to_fine import OF_LATTICES, depth_of
from epsot.drivers.options import Options
from epsot.geometry import Geometry
from epsot.geometry.pyramid import interpolated
from epsot.problems.barycenter import BarycenterInstance, BarycenterProblem
from epsot.solver.acceleration import AcceleratedState
from epsot.solver.barycenter import BarycenterDual, BarycenterState, Barycentric, MixedBarycenter
from epsot.solver.loop import anneal
from epsot.solver.schedule import Level
from epsot.status import Status


class CoarseStage(NamedTuple):
    """A grid, the measures on it, and the temperatures that it serves; the last one is the support itself."""

    core: Geometry
    problem: BarycenterProblem
    levels: list[Level]


def stages(instance: BarycenterInstance, schedule: Sequence[Level]) -> list[CoarseStage]:
    """At each temperature above the target the coarsest grid that serves it, then the support with all others."""
    problem, geometry = instance.problem, instance.geometry
    pyramids = [geometry.resolutions(z.weights, z.weights, own=True) for z in problem.measures]
    first, found = pyramids[0], []
    if first is not None and first.regular:
        depths = [depth_of(first, first.length(level.eps), OF_LATTICES) for level in schedule[:-1]]
        for depth, group in itertools.groupby(zip(depths, schedule, strict=False), key=itemgetter(0)):
            if depth is None:
                break
            parts = [pyramid.at(depth) for pyramid in pyramids if pyramid is not None]
            cells = problem.at_resolution(parts[0][0], [weights for _, weights, _ in parts])
            found.append(CoarseStage(parts[0][0], cells, [level for _, level in group]))
    done = sum(len(stage.levels) for stage in found)
    return [*found, CoarseStage(geometry, problem, list(schedule[done:]))]


def from_coarse(
    instance: BarycenterInstance, options: Options, schedule: Sequence[Level]
) -> tuple[BarycenterState, int, bool]:
    """The state from which the support itself goes on, after coarser grids where it has any.

    Returned are the iterations made there, too, and whether a callback has ended them.
    """
    *coarse, last = stages(instance, schedule)
    plain, nit = Barycentric(last.problem), 0
    if not coarse or options.max_iter <= len(schedule):
        return plain.init(schedule[0].eps), 0, False
    state = Barycentric(coarse[0].problem).init(schedule[0].eps)
    for stage, following in itertools.pairwise([*coarse, last]):
        update = MixedBarycenter(Barycentric(stage.problem))
        observe = watch(instance, options, stage, last)
        ending = anneal(update, update.init(state), stage.levels, options.max_iter - 1, observe, nit)
        nit, past = ending.nit, stage.levels[-1].eps
        if ending.status is Status.DIVERGED:  # the support may fare better than the cells
            return plain.init(schedule[0].eps), nit, False
        if ending.status is Status.STOPPED:
            return carried(ending.dual, stage, last, past, instance.eps), nit, True
        state = carried(ending.dual, stage, following, past, following.levels[0].eps)
    return state, nit, False


def carried(dual: BarycenterDual, source: CoarseStage, target: CoarseStage, past: float, eps: float) -> BarycenterState:
    """The state on a finer grid at the next temperature: the potentials by a softmin, d by interpolation."""
    cells, plain = source.problem, Barycentric(target.problem)
    xp, across = cells.place.xp, source.core.across(cells.kernel, target.problem.kernel)
    rows = [across.softmin(z.density(dual.g[k, ...], past), past) for k, z in enumerate(cells.measures)]
    log_d = plain.problem.full(-math.log(plain.problem.size))
    if cells.debias:
        log_d = between_nodes(dual.log_d, source.core, target.core)
    log_a, f = plain.problem.called_for(log_d, xp.stack(rows), past)
    return plain.from_weights(log_a, f, log_d, eps)


def between_nodes(values: Array, coarse: Geometry, fine: Geometry) -> Array:
    """Numbers at the nodes of one grid at those of a finer one."""
    assert coarse.nodes is not None  # both are grids: others have no regular resolutions
    assert fine.nodes is not None
    return interpolated(values, coarse.nodes[0], fine.nodes[0], coarse.place.xp)


def watch(
    instance: BarycenterInstance, options: Options, stage: CoarseStage | None = None, last: CoarseStage | None = None
) -> Callable[[int, float, Any], object] | None:
    """What observes the steps, plain or mixed, on the support, the last stage, or on a coarser grid."""
    callback = options.callback
    if callback is None:
        return None

    def observe(nit: int, eps: float, state: AcceleratedState | BarycenterState) -> object:
        dual: BarycenterDual = (state.plain if isinstance(state, AcceleratedState) else state).dual
        seen = partial(on_support, dual, eps, stage, last)
        weights = partial(weights_on, dual, instance, stage)
        return callback(BarycenterIntermediate(nit, eps, dual.marginal_error, weights, seen, instance, options))

    return observe


def on_support(dual: BarycenterDual, eps: float, stage: CoarseStage | None, last: CoarseStage | None) -> BarycenterDual:
    """What a step has found, on the support itself."""
    return dual if stage is None or last is None else carried(dual, stage, last, eps, eps).dual


def weights_on(dual: BarycenterDual, instance: BarycenterInstance, stage: CoarseStage | None) -> Array:
    """The logarithms of the weights of a step, from a coarser grid between its nodes.  (n,)"""
    if stage is None:
        return dual.log_a
    xp, log_a = instance.place.xp, between_nodes(dual.log_a, stage.core, instance.geometry)
    return log_a - xp.log(xp.sum(xp.exp(log_a)))
