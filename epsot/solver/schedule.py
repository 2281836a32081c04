"""Temperatures, coarse to fine: plain numbers."""

from __future__ import annotations

from typing import NamedTuple

ROUNDING = 1e-9  # two lengths closer than this, relatively, are one temperature


class Level(NamedTuple):
    """One temperature of a schedule."""

    eps: float
    steps: int = 1  # iterations, at most
    tol: float | None = None  # leave once the marginal error is below; None: do all the steps, do not measure


def annealing(
    start: float, eps: float, *, degree: float, scaling: float, tol: float | None, max_iter: int
) -> tuple[Level, ...]:
    """Scales sigma = start^(1/degree) scaling^k while above that of eps, one step each, then eps until `tol`.

    The temperature is sigma^degree. With tol=None the target gets one step too, as in the tutorial's algorithm. A
    schedule longer than max_iter loses its hottest levels, so that the last step is always at eps.
    """
    target = eps ** (1 / degree)
    sigma, hot = max(start, 0.0) ** (1 / degree), []
    while sigma > target * (1 + ROUNDING):
        hot.append(Level(sigma**degree))
        sigma *= scaling
    hot = hot[len(hot) - min(len(hot), max_iter - 1) :]
    return (*hot, Level(eps, 1 if tol is None else max_iter - len(hot), tol))
