"""The schedule of a solve in compiled code: `solver.schedule.annealing`, in memory that serves many problems."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.cpu.compiled import spliced


class Levels(NamedTuple):
    """A schedule: `count` temperatures with steps, tolerance and error above which to give up."""

    eps: Any
    steps: Any
    tol: Any
    give_up_above: Any


def _hot_levels(start, eps, degree, scaling, max_iter):
    """The length that belongs to the first temperature, and the numbers of the first level and behind the last."""
    sigma, target, hot = max(start, 0.0) ** (1.0 / degree), eps ** (1.0 / degree), 0
    if sigma > target * (1.0 + 1e-9):
        hot = int(math.ceil(math.log(sigma / (target * (1.0 + 1e-9))) / -math.log(scaling)))  # noqa: RUF046 - Numba's is a float
    return sigma, max(0, hot - max_iter + 1), hot


hot_levels = spliced(_hot_levels)


def _schedule(rules, start, restart, eps, degree, scaling, tol, max_iter, levels):
    """The levels of `solver.schedule.annealing`; a negative tolerance is none.  -> how many, 0 without room for them"""
    sigma, first, hot = hot_levels(restart, eps, degree, scaling, max_iter)
    descents, count = 2 if hot > first and tol >= 0.0 else 1, 0
    for descent in range(descents):
        if descent == 0:
            sigma, first, hot = hot_levels(start, eps, degree, scaling, max_iter)
        else:
            sigma, first, hot = hot_levels(restart, eps, degree, scaling, max_iter)
        if count + hot - first + 1 > len(levels.eps):
            return 0
        for k in range(first, hot):
            levels.eps[count] = (sigma * scaling**k) ** degree
            levels.steps[count], levels.give_up_above[count] = rules.level_steps, np.inf
            levels.tol[count] = max(rules.quick, tol) if descent == 0 else rules.thorough
            count += 1
        levels.eps[count], levels.steps[count], levels.tol[count] = eps, max_iter, tol
        levels.give_up_above[count] = rules.thorough if descent == 0 and descents == 2 else np.inf
        count += 1
    return count


schedule = spliced(_schedule)
