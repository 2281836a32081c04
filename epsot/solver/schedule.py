"""Temperatures, coarse to fine: plain numbers."""

from __future__ import annotations

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
    target = eps ** (1 / degree)
    sigma, hot = max(start, 0.0) ** (1 / degree), []
    while sigma > target * (1 + ROUNDING):
        hot.append(Level(sigma**degree) if tol is None else Level(sigma**degree, LEVEL_STEPS, max(LEVEL_TOL, tol)))
        sigma *= scaling
    hot = hot[len(hot) - min(len(hot), max_iter - 1) :]
    return (*hot, Level(eps, 1 if tol is None else max_iter, tol))
