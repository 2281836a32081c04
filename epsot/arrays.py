"""Arrays at the door: one namespace, one device, floating point, never modified.

The namespace is found here, once for each public call, and passed down.
"""

from __future__ import annotations

import math
import operator
import warnings
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_cupy_array,
    is_numpy_array,
    is_torch_array,
)

from epsot.costs import Array
from epsot.status import PrecisionWarning

LARGEST_LENGTH = 1e150  # its square is a float64


class Place(NamedTuple):
    """Where the arrays of one problem live."""

    xp: Any  # the namespace, made compatible by array-api-compat
    device: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _place, (self.xp.__name__, self.device)  # modules travel by name


def _place(name: str, device: Any) -> Place:
    return Place(import_module(name), device)


def common_place(**arrays: Any) -> Place:
    """The one namespace and device of the arrays given; NumPy where there are only lists and numbers."""
    found = {name: array for name, array in arrays.items() if is_array_api_obj(array)}
    if not found:
        return Place(array_namespace(np.empty(0)), "cpu")
    spaces = {name: array_namespace(array) for name, array in found.items()}
    if len(set(map(id, spaces.values()))) > 1:
        listed = ", ".join(f"`{name}` is {_kind(array)}" for name, array in found.items())
        raise TypeError(
            f"all arrays must come from one library, got mixed ones: {listed}; convert them to one of these"
        )
    devices = {name: device(array) for name, array in found.items()}
    if len(set(map(str, devices.values()))) > 1:
        listed = ", ".join(f"`{name}` on {where}" for name, where in devices.items())
        raise TypeError(f"all arrays must be on one device, got {listed}; move them to the same device first")
    return Place(next(iter(spaces.values())), next(iter(devices.values())))


def _kind(array: Any) -> str:
    return f"a {type(array).__module__.split('.')[0]} {type(array).__name__}"


def as_real(name: str, array: Any, place: Place) -> Array:
    """The array in float32 or float64: integers, booleans and lists become float64, anything else is refused."""
    xp = place.xp
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"`{name}` is a masked array, which is not supported; fill it, or give masked points weight zero"
        )
    if is_torch_array(array):
        array = array.detach()  # gradients come from formulas: nothing is recorded
    elif not is_array_api_obj(array):
        try:
            array = np.asarray(array)
        except ValueError as error:
            raise ValueError(f"`{name}` must be an array of numbers: {error}") from None
        if array.dtype == object or array.dtype.kind in "SUMm":
            raise TypeError(f"`{name}` must be an array of real numbers, got {array.dtype}")
    if is_numpy_array(array):
        array = np.asarray(array)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
    if not is_array_api_obj(array) or array_namespace(array) is not xp:
        array = xp.asarray(array.tolist(), device=place.device)
    if xp.isdtype(array.dtype, ("integral", "bool")):
        return xp.astype(array, xp.float64)
    if array.dtype not in (xp.float32, xp.float64):
        raise TypeError(f"`{name}` must be real, float32 or float64, got {array.dtype}; convert it first")
    return array


def check_finite(name: str, array: Array, what: str, place: Place) -> None:
    """Raise where an entry is NaN or infinite."""
    finite = place.xp.isfinite(array)
    if not bool(place.xp.all(finite)):
        count = int(place.xp.sum(place.xp.astype(~finite, place.xp.int64)))
        raise ValueError(
            f"`{name}` must have finite {what}, got {count} NaN or infinite entries; remove or repair them"
        )


def as_points(name: str, array: Any, place: Place, *, finite: bool = True) -> Array:
    """A cloud of points, (n, d), checked; whether they are finite only if asked."""
    points = as_real(name, array, place)
    if points.ndim == 1 and points.shape[0] > 0:
        raise ValueError(
            f"`{name}` must be an (n, d) array of points, got shape {tuple(points.shape)}; "
            f"for n points on a line pass `{name}[:, None]`"
        )
    if points.ndim != 2:
        raise ValueError(f"`{name}` must be an (n, d) array of points, got shape {tuple(points.shape)}")
    if 0 in points.shape:
        raise ValueError(f"`{name}` must hold at least one point with one coordinate, got shape {tuple(points.shape)}")
    if finite:
        check_finite(name, points, "coordinates", place)
    return points


def in_dtype(array: Array, dtype: Any, place: Place, *, copy: bool = True) -> Array:
    """The numbers in a dtype of the user; a warning where one that float64 holds is beyond its range."""
    xp = place.xp
    with np.errstate(over="ignore"):
        cast = xp.astype(array, dtype, copy=copy)
    if dtype != array.dtype and bool(xp.any(xp.isinf(cast) & xp.isfinite(array))):
        warnings.warn(
            f"the result is beyond the range of {str(dtype).rpartition('.')[-1]}, and infinite there; "
            "pass float64 points or costs for its number",
            PrecisionWarning,
            stacklevel=5,  # the reader of a property: this, `_cast`, the property, and its decorator
        )
    return cast


def to_numpy(array: Array) -> np.ndarray:
    """The numbers on the host, for the rare places that need them there."""
    if is_numpy_array(array):
        return np.asarray(array)
    if is_torch_array(array):
        return np.asarray(array.detach().cpu())
    if is_cupy_array(array):
        return np.asarray(array.get())
    return np.from_dlpack(array)


def power(name: str, length: float, p: float) -> float:
    """A length to the power p: a temperature."""
    result = math.inf if length > LARGEST_LENGTH else length**p
    if not result > 0:
        raise ValueError(f"`{name}`**p must be a positive float64, got {name}={length!r}; rescale the points")
    return float(result)


def as_positive(name: str, value: Any) -> float:
    """A positive finite number."""
    number = as_number(name, value)
    if not (0 < number < math.inf):
        raise ValueError(f"`{name}` must be positive and finite, got {value!r}")
    return number


def as_number(name: str, value: Any) -> float:
    """One number, as a Python float."""
    try:
        if isinstance(value, str | bytes | bytearray | bool | np.bool_):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be one number, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"`{name}` must be a number that float64 can hold") from None


def as_count(name: str, value: Any, least: int | None = None) -> int:
    """A whole number, as a Python int, and not less than `least`."""
    try:
        if isinstance(value, bool) or getattr(value, "ndim", 0) != 0:
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value!r}")
    return number
