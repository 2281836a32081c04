"""What a solve goes through: one stage on all points, or several from coarse to fine.

At a temperature eps = blur^p, cells of about that blur say all there is to say. A stage is a part of the schedule at
one resolution. The cheap ones are held to small errors: what is left for the points themselves is what no cell can see.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from epsot.geometry.multiscale import Resolutions
from epsot.instance import Instance
from epsot.solver.schedule import LEVEL_STEPS, THOROUGH, Level, annealing

WIDEST = 1.5  # cells, beside the blur
NEARLY_ALL = 0.6  # of the points: so many cells are no cheaper than the points
MANY = 0.25  # of the points: at the target, finer cells are tried up to so many


class Stage(NamedTuple):
    """A part of a solve."""

    instance: Instance
    levels: Sequence[Level]


def coarse_to_fine(
    instance: Instance, resolutions: Resolutions, start: float, *, scaling: float, tol: float, max_iter: int
) -> Iterator[Stage]:
    """From the temperature `start` down to that of the instance, each at the coarsest resolution that serves it."""
    core, target = instance.core, instance.eps
    schedule = annealing(start, target, degree=core.degree, scaling=scaling, tol=None, max_iter=max_iter)
    steps = [(depth_of(resolutions, resolutions.geometry.length(level.eps)), level.eps) for level in schedule]
    depth = steps[-1][0]
    while depth is not None and depth + 1 < len(resolutions.widths) and resolutions.share(depth + 1) < MANY:
        depth += 1
        steps.append((depth, target))
    for depth, group in itertools.groupby((step for step in steps if step[0] is not None), key=itemgetter(0)):
        levels = [Level(eps, LEVEL_STEPS, max(tol, THOROUGH)) for _, eps in group]
        yield Stage(instance.at_resolution(*resolutions.at(depth), levels[-1].eps), levels)
    hottest = next((eps for depth, eps in steps if depth is None), target)
    yield Stage(
        instance,
        annealing(hottest, target, degree=core.degree, scaling=scaling, tol=tol, max_iter=max_iter, restart=hottest),
    )


def depth_of(resolutions: Resolutions, blur: float) -> int | None:
    """The coarsest resolution that serves a blur; None: the points themselves."""
    depth = next((depth for depth, width in enumerate(resolutions.widths) if width <= WIDEST * blur), None)
    return None if depth is None or resolutions.share(depth) > NEARLY_ALL else depth
