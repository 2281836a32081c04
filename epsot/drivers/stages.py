"""A stage of a solve: a problem at one resolution with its part of the schedule, annealed and verified."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from epsot.drivers.intermediate import Intermediate
from epsot.drivers.options import Options
from epsot.drivers.verification import verified
from epsot.kernels import carrying
from epsot.problems.instance import Instance
from epsot.solver.loop import Outcome, anneal
from epsot.solver.schedule import Level
from epsot.solver.updates import Update
from epsot.status import Status


class Stage(NamedTuple):
    """A part of a solve."""

    instance: Instance
    levels: Sequence[Level]
    cells: bool = False  # whether the points of the instance are cells, of which those of the user are made


def run_stage(update: Update, state: Any, stage: Stage, instance: Instance, options: Options, nit: int = 0) -> Outcome:
    """One stage of the solve of an instance, after `nit` iterations. What belongs to the points is verified."""
    callback = options.callback

    def watch(update: Update) -> Callable[[int, float, Any], object] | None:
        if callback is None:
            return None
        return lambda nit, eps, state: callback(
            Intermediate(nit, eps, state, update, stage.instance, instance, options, cells=stage.cells)
        )

    most = options.max_iter - 1 if stage.cells else options.max_iter  # one is left for the points themselves
    with carrying(stage.instance.problem.kernel):
        outcome = anneal(update, state, stage.levels, most, watch(update), nit)
        if not stage.cells:
            return verified(stage.instance, outcome, options.tol, options.max_iter, watch)
    coarse = stage.instance
    if not math.isfinite(coarse.problem.logit_error(outcome.dual.f, outcome.dual.g, coarse.eps)):
        return replace(outcome, status=Status.DIVERGED)
    return outcome
