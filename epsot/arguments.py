"""What the public functions are given, checked before any work: scales as lengths or temperatures, and options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import (
    LARGEST_LENGTH,
    as_count,
    as_number,
    as_positive,
    power,
    start_of,
    starts_of,
    to_numpy,
)
from epsot.drivers.options import Options
from epsot.drivers.starts import is_start
from epsot.geometry import Geometry, PointCloud
from epsot.geometry.batches import Geometries, as_many
from epsot.geometry.multiscale import coarsened
from epsot.geometry.rows import name_of
from epsot.geometry.separables import flat_weights, many_of
from epsot.libraries import as_numpy
from epsot.lists import Listed, axes_of, is_batch_of, is_ragged
from epsot.problems.instance import check_workers
from epsot.problems.weights import penalties
from epsot.results.plan import Plan
from epsot.status import warn

BYTES, LEAST_PICTURE = ("uint8", "uint16", "bool"), 16  # data types of pictures, and pixels of a side


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


def as_diameters(diameter: Any) -> np.ndarray:
    """Lengths of any shape, zero too."""
    if axes_of(diameter) == 0:
        return np.asarray(as_diameter(diameter))
    numbers = as_numbers("diameter", diameter)
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < LARGEST_LENGTH)).reshape(-1))
    if len(bad):
        k = int(bad[0])
        raise ValueError(
            f"`{name_of('diameter', numbers.shape, k)}` must be a finite length whose square is a float64, "
            f"got {float(numbers.flat[k])!r}"
        )
    return numbers


def is_batch(axes: tuple[int, ...], a: Any, b: Any, scales: tuple[Any, ...], strengths: Any) -> bool:
    """Whether weights or scales stand for many problems: those of one have so many axes, or none.

    A tuple or a list of two strengths is a pair.
    """
    if any(is_batch_of(weights, count) for weights, count in zip((a, b), axes, strict=True)):
        return True
    sides = strengths if isinstance(strengths, tuple | list) else (strengths,)
    return any(axes_of(scale) > 0 for scale in (*scales, *sides))


def as_numbers(name: str, value: Any) -> np.ndarray:
    """Numbers of any shape in float64, on the host."""
    if isinstance(value, Plan):  # which is an array for NumPy
        raise TypeError(f"`{name}` must hold numbers, got a Plan")
    numbers = to_numpy(value) if is_array_api_obj(value) else np.asarray(as_numpy(name, value))
    if numbers.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must hold numbers, got {numbers.dtype}")
    return numbers.astype(np.float64)


def positive_numbers(name: str, value: Any) -> np.ndarray:
    """Positive finite numbers of any shape, on the host."""
    if axes_of(value) == 0:
        return np.asarray(as_positive(name, value))
    numbers = as_numbers(name, value)
    bad = np.flatnonzero(~((numbers > 0) & (numbers < math.inf)).reshape(-1))
    if len(bad):
        k = int(bad[0])
        raise ValueError(
            f"`{name_of(name, numbers.shape, k)}` must be positive and finite, got {float(numbers.flat[k])!r}"
        )
    return numbers


def strengths(name: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """The strengths of both sides of all items, inf where they are balanced; a tuple or a list of two is a pair."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(
            f"`{name}` must be None, one number, a pair for the two sides, or an array of the shape of the batch, "
            f"got {value!r}"
        )
    found = []
    for side in pair:
        if axes_of(side) == 0:
            number, _ = penalties(name, side)
            found.append(np.asarray(math.inf if number is None else number))
            continue
        numbers = as_numbers(name, side)
        bad = np.flatnonzero(~(numbers > 0).reshape(-1))
        if len(bad):
            k = int(bad[0])
            raise ValueError(
                f"`{name_of(name, numbers.shape, k)}` must be positive, or inf for balanced transport, "
                f"got {float(numbers.flat[k])!r}"
            )
        found.append(numbers)
    return found[0], found[1]


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


Weights = tuple[Any, Any]  # of both sides of many problems, over flat supports


def many_by_length(
    x: Any, y: Any, a: Any, b: Any, blur: Any, p: Any, reach: Any, diameter: Any
) -> tuple[Geometries, Weights, ManyScales]:
    """`by_length` of many problems, and their weights."""
    blurs, reaches = positive_numbers("blur", blur), strengths("reach", reach)
    if diameter is not None:
        diameter = as_diameters(diameter)
    warn_of_pictures(x=x, y=y)
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


def may_be_bytes(dtype: Any) -> bool:
    """Whether a data type is that of pictures, by its size alone: a name takes microseconds to make."""
    return bool(getattr(dtype, "itemsize", 1) <= 2)


def is_picture(array: Any) -> bool:
    """Whether this is an array of bytes of the shape of a picture, or of many."""
    dtype = getattr(array, "dtype", "")
    if not may_be_bytes(dtype):
        return False
    if str(dtype).rpartition(".")[2] not in BYTES or array.ndim < 2:
        return False
    shape = tuple(array.shape)
    *_, height, width = shape[:-1] if array.ndim > 2 and shape[-1] <= 4 else shape
    return bool(min(height, width) >= LEAST_PICTURE)


def first_picture(given: Any) -> Any:
    """The picture that was given, or the first one of a list; None where there is none."""
    if not isinstance(given, list | tuple):
        return given if is_picture(given) else None
    return next(filter(is_picture, given), None) if any(map(may_be_bytes, Listed("", given).dtypes())) else None


def warn_of_pictures(**points: Any) -> None:
    """Say what to write where points look like a picture: its rows would be taken for clouds."""
    for name, given in points.items():
        array = first_picture(given)
        if array is not None:
            warn(
                f"`{name}` of shape {tuple(array.shape)} and dtype {array.dtype} looks like a picture, but is taken "
                "for points, one a row of its last axis: the colours as one cloud are "
                f"`{name}.reshape(-1, {array.shape[-1]})`, the brightness is the weights of pixels over their "
                "positions; pass floats to say that these are coordinates",
                UserWarning,
            )


def check_options(
    y: Any, *, blur: Any, p: Any, reach: Any, diameter: Any, scaling: Any, tol: Any, max_iter: Any, workers: Any
) -> None:
    """Raise what `sinkhorn` would raise of its options, given some of the points of one side."""
    _, scales = by_length(y, y, blur, p, reach, diameter)
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
    if init is not None and not is_start(init):
        raise TypeError(
            "`init` must be an earlier result, a pair of potentials (f, g), or a record of a callback, got "
            f"{type(init).__name__}"
        )
    return Options(start, scaling, tol, max_iter, callback)


def as_shares(t: Any, count: int, measures: str = "a") -> tuple[float, ...]:
    """Shares of so many measures in a mean, of sum one; None: all equal."""
    if count < 1:
        raise ValueError(f"`{measures}` must hold at least one measure, got none")
    if t is None:
        return (1 / count,) * count
    numbers = as_numbers("t", t)
    if numbers.shape != (count,):
        raise ValueError(f"`t` must have shape ({count},), one share a measure, got {numbers.shape}")
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < math.inf)))
    if len(bad):
        raise ValueError(f"`t[{bad[0]}]` must be finite and not negative, got {float(numbers[bad[0]])!r}")
    if not numbers.any():
        raise ValueError("`t` must have a positive share, got only zeros")
    numbers = numbers / numbers.max()  # sums of these do not overflow
    return tuple((numbers / math.fsum(numbers.tolist())).tolist())


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
