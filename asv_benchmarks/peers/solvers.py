"""Which solvers run, with which settings, loosest first. No peer is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from benchmarks.problems import Task

LARGE = 2000  # points a side, above which only the settings that can finish in about a minute are tried
SCALINGS = (0.5, 0.7, 0.9, 0.95, 0.99)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Solver:
    """One curve of the plot: a solver and the setting that trades its time for accuracy."""

    adapter: str  # the module that speaks to the library; its worker process serves all solvers of that library
    parameter: str  # what the settings are
    settings: tuple[float, ...]
    large: tuple[float, ...]  # the settings for large problems
    options: dict[str, Any] = field(default_factory=dict)
    largest_d: float = math.inf

    def settings_for(self, task: Task) -> tuple[float, ...]:
        if task.d > self.largest_d:
            return ()
        return self.large if task.n > LARGE else self.settings


def geomloss(backend: str, large: tuple[float, ...], largest_d: float = math.inf) -> Solver:
    return Solver("with_geomloss", "scaling", SCALINGS, large, {"backend": backend}, largest_d)


def pot(method: str, dtype: str, large: tuple[float, ...]) -> Solver:
    return Solver("with_pot", "tolerance", TOLERANCES, large, {"method": method, "dtype": dtype})


SOLVERS = {
    "epsot": Solver("with_epsot", "tol", (1e-1, 3e-2, 1e-2, 1e-3, 1e-4), (1e-1, 3e-2, 1e-2, 1e-3, 1e-4)),
    "epsot tol=None": Solver("with_epsot", "scaling", SCALINGS, (0.5, 0.7, 0.9)),
    "GeomLoss tensorized": geomloss("tensorized", ()),
    "GeomLoss online": geomloss("online", (0.5, 0.7, 0.99)),
    "GeomLoss multiscale": geomloss("multiscale", (0.5, 0.7, 0.9, 0.99), largest_d=3),
    "OTT": Solver("with_ott", "threshold", TOLERANCES, TOLERANCES),
    "OTT scheduler": Solver("with_ott", "threshold", TOLERANCES, TOLERANCES, {"decay": 0.9}),
    "POT sinkhorn": pot("sinkhorn", "float32", TOLERANCES),
    "POT sinkhorn float64": pot("sinkhorn", "float64", ()),
    "POT sinkhorn_log": pot("sinkhorn_log", "float32", ()),
}
