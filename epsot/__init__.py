"""Entropy-regularised optimal transport by annealed log-domain Sinkhorn iterations.

`sinkhorn` and `sinkhorn_divergence` take point clouds and scales as lengths; `solve` and `divergence` take any cost and
temperatures. `epsot.plot` draws results.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from epsot.barycenter import barycenter
from epsot.costs import Cost
from epsot.free_barycenter import free_barycenter
from epsot.geometry import CostMatrix, Grid, PointCloud, extent
from epsot.loading import load
from epsot.objective import Objective
from epsot.pairwise import PairwiseResult, pairwise
from epsot.permutation import PermutationTestResult, permutation_test
from epsot.progress import ProgressBar
from epsot.results.barycenter import BarycenterResult
from epsot.results.batch import BatchResult
from epsot.results.batch_debiased import BatchDivergence
from epsot.results.debiased import DivergenceResult
from epsot.results.free_barycenter import FreeBarycenterResult
from epsot.results.plan import Plan
from epsot.results.result import SinkhornResult
from epsot.status import ConvergenceWarning, PrecisionWarning, Status
from epsot.transport import divergence, sinkhorn, sinkhorn_divergence, solve

try:
    __version__ = version("epsot")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "BarycenterResult",
    "BatchDivergence",
    "BatchResult",
    "ConvergenceWarning",
    "Cost",
    "CostMatrix",
    "DivergenceResult",
    "FreeBarycenterResult",
    "Grid",
    "Objective",
    "PairwiseResult",
    "PermutationTestResult",
    "Plan",
    "PointCloud",
    "PrecisionWarning",
    "ProgressBar",
    "SinkhornResult",
    "Status",
    "barycenter",
    "divergence",
    "extent",
    "free_barycenter",
    "load",
    "pairwise",
    "permutation_test",
    "plot",
    "sinkhorn",
    "sinkhorn_divergence",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name == "plot":  # matplotlib loads on first use
        return import_module("epsot.plot")
    raise AttributeError(f"module 'epsot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "geometry"])
