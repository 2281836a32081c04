"""Scales as lengths or temperatures, of one problem and of many, in the units of the cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import LARGEST_LENGTH, as_number, as_positive, power, start_of, starts_of, to_numpy
from epsot.geometry import Geometry, PointCloud
from epsot.geometry.batches import Geometries, as_many
from epsot.geometry.multiscale import coarsened
from epsot.geometry.rows import name_of
from epsot.geometry.separables import flat_weights, many_of
from epsot.libraries import as_numpy
from epsot.lists import axes_of, is_ragged
from epsot.problems.weights import penalties
from epsot.results.plan import Plan


class Scales(NamedTuple):
    """Scales in the units of the cost."""

    eps: float
    rho: tuple[float | None, float | None]
    start: float  # where annealing starts
    fixed: bool  # whether that was given
    name: str  # of the argument that stands for rho


def by_length(
    x: Any, y: Any, blur: Any, p: Any, reach: Any, diameter: Any, joined: Callable[[Any], Any] = lambda cloud: cloud
) -> tuple[Geometry, Scales]:
    """Scales as lengths -> the geometry and scales as temperatures: eps = blur^p, rho = reach^p, start = diameter^p.

    `joined`: what makes the geometry of all ranks of that of one.
    """
    blur, reaches = as_positive("blur", blur), penalties("reach", reach)
    diameter = as_diameter(diameter)
    geometry = joined(PointCloud(x, y, p=p))
    p = geometry.cost.degree
    rho_a, rho_b = penalties("reach", tuple(None if reach is None else power("reach", reach, p) for reach in reaches))
    span = geometry.diameter() if diameter is None else diameter
    start, eps = start_of(span, p), temperature(blur, p)
    scales = Scales(eps, (rho_a, rho_b), start, diameter is not None, "reach")
    return coarsened(geometry), scales


def by_temperature(geometry: Any, eps: Any, rho: Any) -> Scales:
    """Scales as temperatures, checked."""
    if not isinstance(geometry, Geometry):
        raise TypeError(
            f"`geometry` must be a PointCloud or a CostMatrix, got {type(geometry).__name__}; "
            "wrap points in PointCloud(x, y) and a matrix in CostMatrix(C)"
        )
    eps, rhos = as_positive("eps", eps), penalties("rho", rho)
    return Scales(eps, rhos, geometry.scale(), False, "rho")


def temperature(blur: float, degree: float) -> float:
    """That of a blur, positive and finite."""
    eps = power("blur", blur, degree)
    if math.isinf(eps):
        raise ValueError(f"`blur` must be a length whose square is a float64, got {blur!r}; rescale the points")
    return eps


def as_diameter(diameter: Any) -> float | None:
    """A length, zero too, or None."""
    if diameter is None:
        return None
    length = as_number("diameter", diameter)
    if not 0 <= length < LARGEST_LENGTH:
        raise ValueError(f"`diameter` must be a finite length whose square is a float64, got {length!r}")
    return length


def scales_of_all(blur: Any, reach: Any, degree: float) -> tuple[float, tuple[float, float]]:
    """One temperature and one pair of strengths, inf where balanced, for problems that share them."""
    eps = temperature(as_positive("blur", blur), degree)
    rho_a, rho_b = (math.inf if z is None else power("reach", z, degree) for z in penalties("reach", reach))
    return eps, (rho_a, rho_b)


class ManyScales(NamedTuple):
    """Scales of many problems in the units of the cost, of the shape of the batch."""

    eps: np.ndarray
    rho: tuple[np.ndarray, np.ndarray]  # inf is balanced
    start: np.ndarray | None  # where annealing starts, if that was given
    name: str


Weights = tuple[Any, Any]  # of both sides of many problems, over flat supports


def many_by_length(
    x: Any, y: Any, a: Any, b: Any, blur: Any, p: Any, reach: Any, diameter: Any
) -> tuple[Geometries, Weights, ManyScales]:
    """`by_length` of many problems, and their weights."""
    blurs, reaches = positive_numbers("blur", blur), strengths("reach", reach)
    if diameter is not None:
        diameter = as_diameters(diameter)
    geometry = many_of(x, y, a, b, p=p)
    a, b = (flat_weights(name, z, grid) for name, z, grid in zip("ab", (a, b), geometry.grids, strict=True))
    shape = broadcast(geometry, a, b, blur=blurs, reach=reaches, diameter=() if diameter is None else diameter)
    geometry, degree = geometry.over(shape), geometry.degree
    start = None if diameter is None else starts_of(np.broadcast_to(diameter, shape), degree)
    eps = np.broadcast_to(powers("blur", blurs, degree), shape).copy()
    rho = tuple(np.broadcast_to(powers("reach", z, degree), shape) for z in reaches)
    return geometry, (a, b), ManyScales(eps, (rho[0], rho[1]), start, "reach")


def many_by_temperature(
    geometry: Geometry | Geometries, a: Any, b: Any, eps: Any, rho: Any
) -> tuple[Geometries, Weights, ManyScales]:
    """`by_temperature` of many problems, and their weights."""
    numbers, rhos = positive_numbers("eps", eps), strengths("rho", rho)
    geometry = as_many(geometry.suited(a, b))
    a, b = (flat_weights(name, z, grid) for name, z, grid in zip("ab", (a, b), geometry.grids, strict=True))
    shape = broadcast(geometry, a, b, eps=numbers, rho=rhos)
    geometry = geometry.over(shape)
    eps = np.broadcast_to(numbers, shape).copy()
    wide = tuple(np.broadcast_to(z, shape) for z in rhos)
    return geometry, (a, b), ManyScales(eps, (wide[0], wide[1]), None, "rho")


def broadcast(geometry: Geometries, a: Any, b: Any, **scales: Any) -> tuple[int, ...]:
    """The shape of the batch that everything has together; an error names what does not fit."""
    shapes = [("the geometry", geometry.shape)]
    shapes += [(f"`{name}`", leading_axes(name, z)) for name, z in (("a", a), ("b", b)) if z is not None]
    for name, scale in scales.items():
        for z in scale if isinstance(scale, tuple) else (scale,):
            shapes.append((f"`{name}`", np.shape(z)))
    try:
        return np.broadcast_shapes(*(shape for _, shape in shapes))
    except ValueError:
        listed = ", ".join(dict.fromkeys(f"{shape} of {name}" for name, shape in shapes if shape))
        cure = "" if a is None and b is None else "; weights have one axis, and those of the batch before it"
        raise ValueError(f"the leading axes must broadcast, got {listed}{cure}") from None


def leading_axes(name: str, weights: Any) -> tuple[int, ...]:
    """The axes of the batch of weights, before that of the points."""
    if is_ragged(weights):
        return (len(weights),)
    return tuple(weights.shape if hasattr(weights, "shape") else as_numpy(name, weights).shape)[:-1]


def powers(name: str, lengths: np.ndarray, p: float) -> np.ndarray:
    """Lengths to the power p; inf stays."""
    distinct, where = np.unique(lengths, return_inverse=True)
    found = [math.inf if math.isinf(z) else power(name, float(z), p) for z in distinct]
    bad = [z for z, eps in zip(distinct, found, strict=True) if math.isinf(eps) and not math.isinf(z)]
    if bad:
        raise ValueError(
            f"`{name}` must be lengths whose squares are float64, got {float(bad[0])!r}; rescale the points"
        )
    return np.array(found, float)[where.reshape(-1)].reshape(lengths.shape)


def as_diameters(diameter: Any) -> np.ndarray:
    """Lengths of any shape, zero too."""
    if axes_of(diameter) == 0:
        return np.asarray(as_diameter(diameter))
    return all_fitting(
        "diameter", diameter, lambda z: (z >= 0) & (z < LARGEST_LENGTH), "a finite length whose square is a float64"
    )


def positive_numbers(name: str, value: Any) -> np.ndarray:
    """Positive finite numbers of any shape, on the host."""
    if axes_of(value) == 0:
        return np.asarray(as_positive(name, value))
    return all_fitting(name, value, lambda z: (z > 0) & (z < math.inf), "positive and finite")


def strengths(name: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """The strengths of both sides of all items, inf where they are balanced; a tuple or a list of two is a pair."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(
            f"`{name}` must be None, one number, a pair for the two sides, or an array of the shape of the batch, "
            f"got {value!r}"
        )
    return strengths_of_side(name, pair[0]), strengths_of_side(name, pair[1])


def strengths_of_side(name: str, value: Any) -> np.ndarray:
    """Those of one side of all items."""
    if axes_of(value) == 0:
        number, _ = penalties(name, value)
        return np.asarray(math.inf if number is None else number)
    return all_fitting(name, value, lambda z: z > 0, "positive, or inf for balanced transport")


def as_numbers(name: str, value: Any) -> np.ndarray:
    """Numbers of any shape in float64, on the host."""
    if isinstance(value, Plan):  # which is an array for NumPy
        raise TypeError(f"`{name}` must hold numbers, got a Plan")
    numbers = to_numpy(value) if is_array_api_obj(value) else np.asarray(as_numpy(name, value))
    if numbers.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must hold numbers, got {numbers.dtype}")
    return numbers.astype(np.float64)


def all_fitting(name: str, value: Any, fits: Callable[[np.ndarray], np.ndarray], what: str) -> np.ndarray:
    """Numbers of any shape; the error names the first that does not fit, and says what all have to be."""
    numbers = as_numbers(name, value)
    bad = np.flatnonzero(~fits(numbers).reshape(-1))
    if len(bad):
        k = int(bad[0])
        raise ValueError(f"`{name_of(name, numbers.shape, k)}` must be {what}, got {float(numbers.flat[k])!r}")
    return numbers
