"""Temperatures, coarse to fine: plain numbers."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

ROUNDING = 1e-9  # two lengths closer than this, relatively, are one temperature
QUICK = 0.1  # marginal error at which a temperature above the target is left at first ...
THOROUGH = 0.003  # ... and when that has failed; to start with, it would need 1.2 times the passes at n = 1e4
LEVEL_STEPS = 100  # a temperature above the target is left after so many steps in any case


class Level(NamedTuple):
    """One temperature of a schedule."""

    eps: float
    steps: int = 1  # iterations, at most
    tol: float | None = None  # leave once the marginal error is below; None: do all the steps, do not measure
    give_up_above: float = math.inf  # leave, too, once the update is stuck at a larger error


def annealing(
    start: float,
    eps: float,
    *,
    degree: float,
    scaling: float,
    tol: float | None,
    max_iter: int,
    restart: float = 0.0,
    quick: float = QUICK,
) -> tuple[Level, ...]:
    """Scales sigma = start^(1/degree) scaling^k while above that of eps, then eps; the temperature is sigma^degree.

    With tol=None every temperature gets one step, the tutorial's algorithm. Otherwise each is held to `quick`, and the
    last to `tol`. Where eps is far below the spacing of the points that may get stuck: groups of points that hardly
    exchange mass at eps were left with 1e-2 of it too much or too little, where to settle it was cheap. The schedule
    then goes back to `restart` and comes down again, held to THOROUGH.

    A schedule longer than max_iter loses its hottest levels: the last step is always at eps.
    """

    def hot(start: float) -> list[float]:
        sigma, target = max(start, 0.0) ** (1 / degree), eps ** (1 / degree)
        count = 0
        if sigma > target * (1 + ROUNDING):
            count = math.ceil(math.log(sigma / (target * (1 + ROUNDING))) / -math.log(scaling))
        return [(sigma * scaling**k) ** degree for k in range(max(0, count - max_iter + 1), count)]

    if tol is None:
        return (*(Level(temperature) for temperature in hot(start)), Level(eps))
    descents = [[Level(z, LEVEL_STEPS, max(quick, tol)) for z in hot(start)]]
    if again := [Level(z, LEVEL_STEPS, THOROUGH) for z in hot(restart)]:
        descents[0].append(Level(eps, max_iter, tol, give_up_above=THOROUGH))
        descents.append(again)
    return (*itertools.chain(*descents), Level(eps, max_iter, tol))
