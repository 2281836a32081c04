"""What the public functions are given, checked before any work: scales as lengths or temperatures, and options."""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

from epsot.arrays import LARGEST_LENGTH, as_count, as_number, as_positive, power
from epsot.drivers.options import Options
from epsot.geometry import Geometry, Multiscale, PointCloud
from epsot.geometry.multiscale import pays
from epsot.problems.instance import check_workers, penalties
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult


class Scales(NamedTuple):
    """Scales in the units of the cost."""

    eps: float
    rho: tuple[float | None, float | None]
    start: float  # where annealing starts
    fixed: bool  # whether that was given
    name: str  # of the argument that stands for rho


def by_length(x: Any, y: Any, blur: Any, p: Any, reach: Any, diameter: Any) -> tuple[PointCloud, Scales]:
    """Scales as lengths -> the geometry and scales as temperatures: eps = blur^p, rho = reach^p, start = diameter^p."""
    blur, reaches = as_positive("blur", blur), penalties("reach", reach)
    if diameter is not None:
        diameter = as_number("diameter", diameter)
        if not 0 <= diameter < LARGEST_LENGTH:
            raise ValueError(f"`diameter` must be a finite length whose square is a float64, got {diameter!r}")
    geometry = PointCloud(x, y, p=p)
    p = geometry.cost.degree
    rho_a, rho_b = penalties("reach", tuple(None if reach is None else power("reach", reach, p) for reach in reaches))
    span = geometry.diameter() if diameter is None else diameter
    start = math.inf if span > LARGEST_LENGTH else float(span**p)
    eps = power("blur", blur, p)
    if math.isinf(eps):
        raise ValueError(f"`blur` must be a length whose square is a float64, got {blur!r}; rescale the points")
    scales = Scales(eps, (rho_a, rho_b), start, diameter is not None, "reach")
    return Multiscale.of(geometry) if pays(geometry) else geometry, scales


def check_options(
    y: Any, *, blur: Any, p: Any, reach: Any, diameter: Any, scaling: Any, tol: Any, max_iter: Any, workers: Any
) -> None:
    """Raise what `sinkhorn` would raise of its options, given the points of one side."""
    _, scales = by_length(y[:1, :], y[:1, :], blur, p, reach, diameter)
    as_options(scales.start, scaling, tol, max_iter, None, None)
    check_workers(workers)


def by_temperature(geometry: Any, eps: Any, rho: Any) -> Scales:
    """Scales as temperatures, checked."""
    if not isinstance(geometry, Geometry):
        raise TypeError(
            f"`geometry` must be a PointCloud or a CostMatrix, got {type(geometry).__name__}; "
            "wrap points in PointCloud(x, y) and a matrix in CostMatrix(C)"
        )
    eps, rhos = as_positive("eps", eps), penalties("rho", rho)
    return Scales(eps, rhos, geometry.scale(), False, "rho")


def as_options(start: float, scaling: Any, tol: Any, max_iter: Any, callback: Any, init: Any) -> Options:
    """What the solver is to do: where annealing starts, how it goes on, when it ends."""
    scaling = as_number("scaling", scaling)
    if not 0 < scaling < 1:
        raise ValueError(f"`scaling` must be between 0 and 1, both excluded, got {scaling!r}; 0.5 is a good start")
    if tol is not None:
        tol = as_number("tol", tol)
        if not tol >= 0:
            raise ValueError(f"`tol` must be None or a marginal error >= 0, got {tol!r}")
    max_iter = as_count("max_iter", max_iter, 1)
    if not start < math.inf:
        raise ValueError(
            f"the costs must span a finite range, got {start}; rescale the points, the matrix or `diameter`"
        )
    if callback is not None:
        check_callback(callback)
    if init is not None and not isinstance(init, SinkhornResult | DivergenceResult):
        raise TypeError(f"`init` must be an earlier result, got {type(init).__name__}")
    return Options(start, scaling, tol, max_iter, callback)


def check_callback(callback: Any) -> None:
    """Raise where it cannot be called with one argument."""
    if not callable(callback):
        raise TypeError(f"`callback` must be callable, got {callback!r}")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"`callback` is called with one argument, `intermediate`: got {callback!r}, {error}") from None
