"""Arguments that stand for many problems: arrays with leading axes, and lists of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import NUMPY, Place, as_real, check_cloud, is_usual
from epsot.costs import Array

SHAPE, DTYPE, NDIM = map(attrgetter, ("shape", "dtype", "ndim"))


class Listed:
    """A list of arrays that is one argument.

    Ten thousand small arrays are looked at by `map` and `set`: a line of Python for each takes as long as the solves.
    """

    def __init__(self, name: str, items: Sequence[Any]) -> None:
        self.name, self.items = name, items
        self.are_numpy = set(map(type, items)) == {np.ndarray}

    def named(self) -> dict[str, Any]:
        """The items with the names that tell where they are: of arrays of NumPy one stands for all."""
        return {f"{self.name}[{k}]": z for k, z in enumerate(self.items[:1] if self.are_numpy else self.items)}

    def most_axes(self) -> int | None:
        """How many axes the arrays have, at the most; None where there is none."""
        if self.are_numpy:
            return int(max(map(NDIM, self.items)))
        return max((z.ndim for z in self.items if is_array_api_obj(z)), default=None)

    def dtypes(self) -> set[Any]:
        """Those of the items; None stands for that of what is no array."""
        return set(map(DTYPE, self.items)) if self.are_numpy else {getattr(z, "dtype", None) for z in self.items}

    def real(self, place: Place) -> list[Array]:
        """`as_real` of each."""
        if self.are_numpy and place.xp is NUMPY.xp and all(map(is_usual, self.dtypes())):
            return list(self.items)
        return [as_real(f"{self.name}[{k}]", z, place) for k, z in enumerate(self.items)]

    def vectors(self, place: Place, what: str) -> list[Array]:
        """Vectors, of weights for one, checked but for their numbers."""
        arrays = self.real(place)
        if set(map(NDIM, arrays)) != {1}:
            k = next(k for k, z in enumerate(arrays) if z.ndim != 1)
            raise ValueError(f"`{self.name}[{k}]` must be a vector of {what}s, got shape {tuple(arrays[k].shape)}")
        return arrays

    def points(self, place: Place) -> tuple[list[Array], np.ndarray]:
        """Clouds of points of one dimension, checked but for their coordinates, and of how many points each is."""
        clouds = self.real(place)
        shapes = list(map(SHAPE, clouds))
        if not all(len(shape) == 2 and 0 not in shape for shape in set(shapes)):
            for k, cloud in enumerate(clouds):
                check_cloud(f"{self.name}[{k}]", cloud)
        d = shapes[0][1]
        if any(shape[1] != d for shape in set(shapes)):
            k = next(k for k, shape in enumerate(shapes) if shape[1] != d)
            raise ValueError(
                f"`{self.name}[{k}]` must have points of the dimension of `{self.name}[0]`, got {shapes[k][1]} and "
                f"{d} coordinates"
            )
        return clouds, np.array([shape[0] for shape in shapes], np.int64)


def is_ragged(value: Any) -> bool:
    """Whether this is a list of clouds, or of vectors of weights: of arrays with an axis more than one number has."""
    return isinstance(value, list | tuple) and any(is_array_api_obj(item) and item.ndim > 0 for item in value)


def named(**given: Any) -> dict[str, Any]:
    """Arguments with their names, those that are lists item by item."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        found |= Listed(name, value).named() if is_ragged(value) else {name: value}
    return found


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


def is_batch_of(value: Any, axes: int) -> bool:
    """Whether this is many arrays of so many axes: one with more of them, or a list of such arrays."""
    most = Listed("", value).most_axes() if isinstance(value, list | tuple) else None
    return most >= axes if most is not None else axes_of(value) > axes
