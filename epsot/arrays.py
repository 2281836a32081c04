"""Arrays at the door: one namespace, one device, floating point, never modified.

The namespace is found here, once for each public call, and passed down.
"""

from __future__ import annotations

import math
import operator
import os
import warnings
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_cupy_array,
    is_jax_array,
    is_numpy_array,
    is_torch_array,
)

from epsot.costs import Array
from epsot.libraries import Library, as_numpy, library_of, view, works_by_view
from epsot.status import PrecisionWarning

LARGEST_LENGTH = 1e150  # its square is a float64
NUMPY = Library(array_namespace(np.empty(0)), "cpu")
FLOATS = (np.float32, np.float64)
HALF = ("float16", "bfloat16")  # promoted to float32
_SHAPE, _DTYPE, _NDIM = (operator.attrgetter(name) for name in ("shape", "dtype", "ndim"))


class Place(NamedTuple):
    """Where the arrays of one problem are worked on, and where the user has them if that is another library."""

    xp: Any  # the namespace, made compatible by array-api-compat
    device: Any
    home: Library | None = None  # PyTorch or JAX on the CPU, of whose arrays NumPy has a view

    def __reduce__(self) -> tuple[Any, ...]:
        return _place, (self.xp.__name__, self.device, self.home)  # modules travel by name

    @property
    def user(self) -> Library:
        """The library of the user, and the device there."""
        return self.home or Library(self.xp, self.device)

    def admit(self, what: str, **arrays: Any) -> None:
        """Raise unless the arrays are of the library and on the device of the user; `what` names what is there."""
        user = self.user
        for found in _libraries(arrays).values():
            if found.xp is not user.xp or str(found.device) != str(user.device):
                common_place(**arrays, **{what: user.xp.empty(0, device=user.device)})

    def taken(self, name: str, array: Any) -> Any:
        """An array of the user as one of `xp`; what is none, and arrays of `xp`, stay as they are."""
        return view(name, array) if self.home is not None and is_array_api_obj(array) else array

    def received(self, array: Any) -> Array:
        """An array of any library as one of `xp`, on this device."""
        if array_namespace(array) is self.xp and (is_numpy_array(array) or array.device == self.device):
            return array
        return self.xp.asarray(to_numpy(array), device=self.device)

    def handed_out(self, array: Array, dtype: Any = None, *, copy: bool = True) -> Array:
        """An array of `xp` as one of the user, in memory of its own unless `copy` is False."""
        array = self.xp.astype(array, array.dtype if dtype is None else dtype, copy=copy)
        return array if self.home is None else self.home.given(array)


def _place(name: str, device: Any, home: Library | None) -> Place:
    return Place(import_module(name), device, home)


def _libraries(arrays: dict[str, Any]) -> dict[str, Library]:
    """Of those that are arrays of a library: lists, numbers and frames follow the arrays they come with."""
    return {
        name: NUMPY if type(array) is np.ndarray else library_of(name, array)
        for name, array in arrays.items()
        if type(array) is np.ndarray or is_array_api_obj(array)
    }


def common_place(**arrays: Any) -> Place:
    """The one library and device of the arrays given; NumPy where there are only lists and numbers."""
    found = _libraries(arrays)
    if not found:
        return Place(array_namespace(np.empty(0)), "cpu")
    first = next(iter(found.values()))
    if any(other.xp is not first.xp for other in found.values()):
        listed = ", ".join(f"`{name}` is {_kind(arrays[name])}" for name in found)
        raise TypeError(
            f"all arrays must come from one library, got mixed ones: {listed}; convert them to one of these"
        )
    if len({str(library.device) for library in found.values()}) > 1:
        listed = ", ".join(f"`{name}` on {library.device}" for name, library in found.items())
        raise TypeError(f"all arrays must be on one device, got {listed}; move them to the same device first")
    return Place(array_namespace(np.empty(0)), "cpu", first) if works_by_view(first) else Place(*first)


def _kind(array: Any) -> str:
    return f"a {type(array).__module__.split('.')[0]} {type(array).__name__}"


def is_ragged(value: Any) -> bool:
    """Whether this is a list of clouds, or of vectors of weights: of arrays with an axis more than one number has."""
    return isinstance(value, list | tuple) and any(is_array_api_obj(item) and item.ndim > 0 for item in value)


def axes_of(value: Any) -> int:
    """How many axes an argument has as one array."""
    axes = 0
    while isinstance(value, list | tuple) and value:
        value, axes = value[0], axes + 1
    own = getattr(value, "ndim", None)
    if isinstance(own, int):
        return axes + own
    shape = getattr(value, "shape", None)  # a geometry has one, too, and is no array
    return axes + len(shape) if isinstance(shape, tuple) and hasattr(value, "__len__") else axes


def rows_of(value: Any) -> int:
    """The length of the first axis of an argument; 0 of a number."""
    if hasattr(value, "shape"):
        return int(value.shape[0]) if value.shape else 0
    return len(value) if isinstance(value, list | tuple) else 0


def all_numpy(items: Any) -> bool:
    """Whether these are arrays of NumPy and nothing else: what holds of all of a long list is then found at once."""
    return set(map(type, items)) == {np.ndarray}


def named_items(name: str, items: Any) -> dict[str, Any]:
    """The items of a list with the names that tell where they are: of arrays of NumPy one stands for all."""
    return {f"{name}[{k}]": item for k, item in enumerate(items[:1] if all_numpy(items) else items)}


def is_batch_of(value: Any, axes: int) -> bool:
    """Whether this is many arrays of so many axes: one with more of them, or a list of such arrays."""
    if value is None:
        return False
    if isinstance(value, list | tuple):
        if all_numpy(value):
            return bool(max(map(_NDIM, value)) >= axes)
        arrays = [item.ndim for item in value if is_array_api_obj(item)]
        return axes_of(value) > axes if not arrays else max(arrays) >= axes
    return axes_of(value) > axes


def as_real(name: str, array: Any, place: Place) -> Array:
    """The array in float32 or float64: half precision becomes float32, integers, booleans and lists float64.

    Anything else is refused.
    """
    xp = place.xp
    if type(array) is np.ndarray and array.dtype in FLOATS and array.dtype.isnative and xp is NUMPY.xp:
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"`{name}` is a masked array, which is not supported; fill it (forbidden pairs of a cost matrix with inf), "
            "or give masked points weight zero"
        )
    array = place.taken(name, array) if is_array_api_obj(array) else as_numpy(name, array)
    if is_torch_array(array):
        array = array.detach()  # gradients come from formulas: nothing is recorded
    if is_numpy_array(array):
        array = np.asarray(array)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
    if array_namespace(array) is not xp:
        array = xp.asarray(array.tolist(), device=place.device)
    if array.dtype in (xp.float32, xp.float64):
        return array
    if _name(array.dtype) in HALF:
        return xp.astype(array, xp.float32)
    if getattr(array.dtype, "kind", "") != "V" and xp.isdtype(array.dtype, ("integral", "bool")):
        return xp.astype(array, xp.float64)
    raise TypeError(f"`{name}` must be real, float32 or float64, got {array.dtype}; convert it first")


def rounding_of(weights: Any) -> float:
    """The relative error that a sum of such weights may carry: the square root of their machine epsilon."""
    return {"float32": 3e-4, "float16": 3e-2, "bfloat16": 9e-2}.get(_name(getattr(weights, "dtype", None)), 1e-8)


def _name(dtype: Any) -> str:
    """The name of a data type, in which all libraries agree but for their own."""
    return str(dtype).rpartition(".")[2]


def name_of_dtype(dtype: Any) -> str:
    """float32 or float64, of any library, as files name them."""
    return "float32" if "float32" in str(dtype) else "float64"


def dtype_of_name(name: Any, place: Place) -> Any:
    """The data type of that name."""
    if name not in ("float32", "float64"):
        raise ValueError(f"numbers of the type {name!r}")
    return place.xp.empty(0, dtype=getattr(place.xp, name), device=place.device).dtype


def check_finite(name: str, array: Array, what: str, place: Place) -> None:
    """Raise where an entry is NaN or infinite."""
    finite = place.xp.isfinite(array)
    if not bool(place.xp.all(finite)):
        count = int(place.xp.sum(place.xp.astype(~finite, place.xp.int64)))
        raise ValueError(
            f"`{name}` must have finite {what}, got {count} NaN or infinite entries; remove or repair them"
        )


def as_points(name: str, array: Any, place: Place, *, finite: bool = True, some: bool = True) -> Array:
    """A cloud of points, (n, d), checked; whether they are finite, and there are any, only if asked."""
    points = as_real(name, array, place)
    if points.ndim == 1 and points.shape[0] > 0:
        raise ValueError(
            f"`{name}` must be an (n, d) array of points, got shape {tuple(points.shape)}; "
            f"for n points on a line pass `{name}[:, None]`"
        )
    if points.ndim != 2:
        raise ValueError(f"`{name}` must be an (n, d) array of points, got shape {tuple(points.shape)}")
    if some or points.shape[1] == 0:
        check_some(name, points)
    if finite:
        check_finite(name, points, "coordinates", place)
    return points


def row_by_row(points: Array, dtype: Any, xp: Any) -> Array:
    """A copy that lies row by row in memory: sums over it have the same bits however the given array lay there."""
    if is_numpy_array(points) or is_cupy_array(points):
        return points.astype(dtype, order="C")
    return xp.astype(points, dtype)


def list_of_points(name: str, clouds: Any, place: Place) -> tuple[list[Array], list[Any], set[Any]]:
    """`as_points` of each of a list, whether they are finite not checked.  -> with all shapes, and the data types

    To go through a long list of small arrays takes as long as to look at their numbers: it is done once.
    """
    if place.xp is NUMPY.xp and all_numpy(clouds):
        shapes, dtypes = list(map(_SHAPE, clouds)), set(map(_DTYPE, clouds))
        usual = all(len(shape) == 2 and 0 not in shape for shape in set(shapes))
        if usual and all(dtype in FLOATS and dtype.isnative for dtype in dtypes):
            return list(clouds), shapes, dtypes
    found = [as_points(f"{name}[{k}]", cloud, place, finite=False) for k, cloud in enumerate(clouds)]
    return found, [tuple(cloud.shape) for cloud in found], {cloud.dtype for cloud in found}


def check_some(name: str, points: Array) -> None:
    """Raise where there are no points."""
    if 0 in points.shape:
        raise ValueError(f"`{name}` must hold at least one point with one coordinate, got shape {tuple(points.shape)}")


def in_dtype(array: Array, dtype: Any, place: Place, *, copy: bool = True) -> Array:
    """The numbers in another dtype, for the user; a warning where one that float64 holds is beyond its range."""
    xp = place.xp
    if dtype == array.dtype:
        return place.handed_out(array, copy=copy)
    with np.errstate(over="ignore"):
        cast = xp.astype(array, dtype, copy=copy)
    if not bool(xp.all(xp.isfinite(cast))) and _largest(array, xp) > xp.finfo(dtype).max:
        warnings.warn(
            f"the result is beyond the range of {str(dtype).rpartition('.')[-1]}, and infinite there; "
            "pass float64 points or costs for its number",
            PrecisionWarning,
            stacklevel=5,  # the reader of a property: this, `_cast`, the property, and its decorator
        )
    return place.handed_out(cast, copy=False)


def _largest(array: Array, xp: Any) -> float:
    """The largest finite size of a number, in one reading unless some are infinite."""
    largest = float(xp.max(xp.abs(array)))
    return float(xp.max(xp.where(xp.isfinite(array), xp.abs(array), 0))) if math.isinf(largest) else largest


def to_numpy(array: Array) -> np.ndarray:
    """The numbers on the host, for the rare places that need them there."""
    if is_numpy_array(array):
        return np.asarray(array)
    if is_torch_array(array):
        return np.asarray(array.detach().cpu())
    if is_cupy_array(array):
        return np.asarray(array.get())
    return np.asarray(array) if is_jax_array(array) else np.from_dlpack(array)


def power(name: str, length: float, p: float) -> float:
    """A length to the power p: a temperature."""
    result = math.inf if length > LARGEST_LENGTH else length**p
    if not result > 0:
        raise ValueError(f"`{name}`**p must be a positive float64, got {name}={length!r}; rescale the points")
    return float(result)


def start_of(span: float, degree: float) -> float:
    """A diameter to the power of the degree: the temperature at which annealing starts, inf beyond float64."""
    return math.inf if span > LARGEST_LENGTH else float(span**degree)


def starts_of(spans: np.ndarray, degree: float) -> np.ndarray:
    """The same of many, with the same bits: a power of NumPy has others."""
    return np.array([start_of(span, degree) for span in spans.reshape(-1).tolist()], float).reshape(spans.shape)


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


def as_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False, got {_short(value)}")
    return bool(value)


def as_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        kind = ValueError if isinstance(value, str) else TypeError
        *others, last = (f'"{choice}"' for choice in choices)
        raise kind(f"`{name}` must be {', '.join(others)} or {last}, got {_short(value)}")
    return value


def as_path(name: str, value: Any) -> str:
    """A path, as a text."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"`{name}` must be a path, got {_short(value)}") from None


def _short(value: Any) -> str:
    """A word or a number as it is, of anything else its kind."""
    return repr(value) if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"
