"""Arrays of many items that lie one after the other, and how the user names them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from epsot.arrays import Place, as_real, to_numpy
from epsot.costs import Array
from epsot.geometry.grid import Grid, grid_of, grid_parts
from epsot.lists import Listed, is_ragged

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """Arrays that lie one after the other along the first axis, of the items of some shape."""

    values: Array  # (N, ...)
    first: np.ndarray  # (*shape) int64: where an item begins
    sizes: np.ndarray  # (*shape) int64
    ragged: bool
    length: int = 0  # of each item of an array with leading axes, also where there are no items
    grid: Grid | None = None  # that all items have in place of listed points

    @classmethod
    def stacked(cls, array: Array, axes: int) -> Rows:
        """Of an array with leading axes; an item has `axes` of its own."""
        shape, (n, *rest) = tuple(array.shape[: array.ndim - axes]), array.shape[array.ndim - axes :]
        count = math.prod(shape)
        values = array_namespace(array).reshape(array, (count * n, *rest)) if array.ndim > axes else array
        first = (np.arange(count, dtype=np.int64) * n).reshape(shape)
        return cls(values, first, np.full(shape, n, np.int64), False, n)

    @classmethod
    def listed(cls, arrays: Sequence[Array], xp: Any, sizes: np.ndarray | None = None) -> Rows:
        """Of a list of arrays, whose lengths may be known."""
        if sizes is None:
            sizes = np.array([array.shape[0] for array in arrays], np.int64)
        values = arrays[0] if len(arrays) == 1 else xp.concat(list(arrays), axis=0)
        return cls(values, offsets(sizes), sizes, ragged=True)

    def written(self) -> dict[str, Any]:
        """What a file holds of them."""
        return {
            "values": self.values, "first": self.first, "sizes": self.sizes, "ragged": self.ragged,
            "length": self.length, "grid": grid_parts(self.grid),
        }  # fmt: skip

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place, dtype: Any = None) -> Rows:
        """Of what a file holds; ValueError where an item lies outside of the array, which kernels do not look at.

        `dtype`: of the nodes of a grid, which are not in the file.
        """
        grid, values, first, sizes = grid_of(parts["grid"]), parts["values"], parts["first"], parts["sizes"]
        listed = grid is None or values is not None
        values = place.received(values) if listed else grid.points_in(place, dtype)  # type: ignore[union-attr]
        whole = first.shape == sizes.shape and first.dtype == sizes.dtype == np.int64
        if not whole or np.any(first < 0) or np.any(sizes < 1) or np.any(sizes > values.shape[0] - first):
            raise ValueError("the items of a batch lie outside of their array")
        if grid is not None and np.any(sizes != grid.size):
            raise ValueError("the items of a batch are not those of their grid")
        return cls(values, first, sizes, bool(parts["ragged"]), int(parts["length"]), grid)

    @classmethod
    def of_grid(cls, grid: Grid, points: Array = None) -> Rows:
        """One item: the nodes of a grid, which need not be listed."""
        return cls(points, np.zeros((), np.int64), np.full((), grid.size, np.int64), False, grid.size, grid)

    @property
    def shape(self) -> Shape:
        return self.first.shape

    def over(self, shape: Shape) -> Rows:
        """Broadcast to another shape: items may share what they have."""
        if self.shape == shape:
            return self
        first, sizes = (np.broadcast_to(z, shape) for z in (self.first, self.sizes))
        return replace(self, first=first, sizes=sizes)

    def at(self, numbers: np.ndarray) -> Rows:
        """Some of the items, counted through all axes."""
        first, sizes = self.first.reshape(-1)[numbers], self.sizes.reshape(-1)[numbers]
        return replace(self, first=first, sizes=sizes)

    def item(self, k: int) -> Array:
        """The array of one item, counted through all axes."""
        first, size = int(self.first.flat[k]), int(self.sizes.flat[k])
        return self.values[first : first + size, ...]

    def in_order(self, place: Place) -> Array:
        """What each item has, one after the other: anew where items share it, or have another order."""
        first, sizes = self.first.reshape(-1), self.sizes.reshape(-1)
        begins = offsets(sizes)
        if len(sizes) and bool(np.all(first == begins)) and self.values.shape[0] == begins[-1] + sizes[-1]:
            return self.values
        index = np.repeat(first - begins, sizes) + np.arange(int(sizes.sum()))
        return place.xp.take(self.values, place.xp.asarray(index, device=place.device), axis=0)


def offsets(sizes: np.ndarray) -> np.ndarray:
    """Where each of some arrays that lie one after the other begins."""
    flat = sizes.reshape(-1)
    return np.concatenate([[0], np.cumsum(flat)[:-1]]).astype(np.int64) if len(flat) else flat


def vectors_of(name: str, given: Any, place: Place, what: str) -> Rows:
    """Numbers of all items in float64, (..., n) or a list of (n,), checked but for how many there are of each."""
    xp = place.xp
    if is_ragged(given):
        rows = Rows.listed(Listed(name, given).vectors(place, what), xp)
    else:
        array = as_real(name, given, place)
        if array.ndim < 1:
            raise ValueError(f"`{name}` must have one {what} a point, got one number")
        rows = Rows.stacked(array, 1)
    return replace(rows, values=xp.astype(rows.values, xp.float64))


def fitted(name: str, rows: Rows, sizes: np.ndarray, what: str) -> Rows:
    """Such vectors for items of these sizes, of the shape of the batch."""
    shape = sizes.shape
    try:
        wide = rows.over(shape)
    except ValueError:
        raise ValueError(
            f"`{name}` must have {what}s for a batch of shape {shape}, got those of {rows.shape}"
        ) from None
    if np.array_equal(wide.sizes, sizes):
        return wide
    if not rows.ragged and len(set(sizes.flat)) == 1:
        raise ValueError(
            f"`{name}` must have shape ({sizes.flat[0]},), one {what} a point, after the axes of the batch, "
            f"got {(*rows.shape, rows.length)}"
        )
    k = int(np.flatnonzero((wide.sizes != sizes).reshape(-1))[0])
    raise ValueError(
        f"`{name_of(name, shape, k)}` must have shape ({sizes.flat[k]},), one {what} a point, "
        f"got ({wide.sizes.flat[k]},)"
    )


def name_of(name: str, shape: Shape, k: int) -> str:
    """How the user writes the item k of an argument."""
    index = np.unravel_index(k, shape) if shape else ()
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def reduced(rows: Rows, ufunc: Any, place: Place) -> np.ndarray:
    """A reduction by a ufunc of NumPy over each item, on the host.  -> (*shape, ...) float64"""
    xp, values, rest = place.xp, rows.values, tuple(rows.values.shape[1:])
    if rows.first.size == 0:
        return np.zeros((*rows.shape, *rest))
    reduce = {np.minimum: xp.min, np.maximum: xp.max, np.add: xp.sum}[ufunc]
    distinct, where = np.unique(rows.first, return_inverse=True)
    if not rows.ragged:
        n = int(rows.sizes.flat[0])
        found = to_numpy(reduce(xp.reshape(values, (-1, n, *rest)), axis=1))[distinct // n]
    else:
        sizes = dict(zip(rows.first.flat, rows.sizes.flat, strict=True))
        lengths = np.array([sizes[begin] for begin in distinct])
        ends = distinct + lengths
        if is_numpy_array(values) and ufunc is np.add:
            found = sums_of(values, distinct, lengths)
        elif is_numpy_array(values):  # between an end and the next begin nobody asks
            edges = np.stack([distinct, ends], axis=1).reshape(-1)
            found = ufunc.reduceat(values, edges[:-1] if ends[-1] == len(values) else edges, axis=0)[::2]
        else:
            parts = [values[int(begin) : int(end), ...] for begin, end in zip(distinct, ends, strict=True)]
            found = to_numpy(xp.stack([reduce(part, axis=0) for part in parts]))
    return np.asarray(found, np.float64)[where.reshape(-1)].reshape(*rows.shape, *rest)


def sums_of(values: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The sums of some parts of an array, with the bits of np.sum of each: `reduceat` adds in another order."""
    found = np.empty((len(first), *values.shape[1:]))
    for length in np.unique(lengths):
        some = lengths == length
        found[some] = values[first[some][:, None] + np.arange(length)].sum(axis=1)
    return found


def shape_of(x: Rows, y: Rows) -> Shape:
    """That of pairs of clouds."""
    try:
        return np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ValueError(
            f"`x` and `y` must hold as many clouds, or one, got leading axes {x.shape} and {y.shape}; for all pairs of "
            "clouds call `pairwise`"
        ) from None
