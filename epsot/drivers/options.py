"""What a solve is asked to do, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epsot.solver.schedule import QUICK, Level, annealing


@dataclass(frozen=True)
class Options:
    """The checked options of a solve: how to anneal and when to stop."""

    start: float  # the temperature at which annealing starts
    scaling: float
    tol: float | None
    max_iter: int
    callback: Callable[[Any], object] | None

    def schedule(
        self, eps: float, degree: float, warm_eps: float | None = None, *, quick: float = QUICK
    ) -> tuple[Level, ...]:
        """The temperatures down to eps, for a cost of such a degree; a warm start begins at its own."""
        start = self.start if warm_eps is None else min(self.start, warm_eps)
        return annealing(
            start,
            eps,
            degree=degree,
            scaling=self.scaling,
            tol=self.tol,
            max_iter=self.max_iter,
            restart=self.start,
            quick=quick,
        )
