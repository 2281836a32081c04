"""Temperatures, coarse to fine: plain numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

ROUNDING = 1e-9  # two lengths closer than this, relatively, are one temperature
LEVEL_TOL = 0.1  # with a tolerance, a temperature above the target is left at this marginal error ...
LEVEL_STEPS = 30  # ... or after so many steps; 0.05 needed as many passes in all, one step a temperature up to 1.5x


class Level(NamedTuple):
    """One temperature of a schedule."""

    eps: float
    steps: int = 1  # iterations, at most
    tol: float | None = None  # leave once the marginal error is below; None: do all the steps, do not measure


def annealing(
    start: float, eps: float, *, degree: float, scaling: float, tol: float | None, max_iter: int
) -> tuple[Level, ...]:
    """Scales sigma = start^(1/degree) scaling^k while above that of eps, then eps; the temperature is sigma^degree.

    With tol=None every temperature gets one step, the tutorial's algorithm. Otherwise each is held to LEVEL_TOL, and
    the last to `tol`. A schedule longer than max_iter loses its hottest levels: the last step is always at eps.
    """
    sigma, target = max(start, 0.0) ** (1 / degree), eps ** (1 / degree)
    count = 0
    if sigma > target * (1 + ROUNDING):
        count = math.ceil(math.log(sigma / (target * (1 + ROUNDING))) / -math.log(scaling))
    temperatures = [(sigma * scaling**k) ** degree for k in range(max(0, count - max_iter + 1), count)]
    if tol is None:
        return (*(Level(hot) for hot in temperatures), Level(eps))
    level_tol = max(LEVEL_TOL, tol)
    return (*(Level(hot, LEVEL_STEPS, level_tol) for hot in temperatures), Level(eps, max_iter, tol))
