"""Numbers of many problems that lie one after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj, is_numpy_array

from epsot.arrays import Place, in_dtype
from epsot.costs import Array
from epsot.problems.batch import Batch, masses_of

# Slopes of many problems do not fit into a cache, and NumPy takes arrays of short lines line by line: by stretches, and
# each column by column, gradients take half of the time.
FEW_COORDINATES, POINTS_AT_ONCE = 8, 2**12


def spread(numbers: np.ndarray, sizes: np.ndarray, place: Place) -> Array:
    """One number an item -> one a point of it."""
    xp = place.xp
    flat = np.repeat(np.broadcast_to(numbers, sizes.shape).reshape(-1), sizes.reshape(-1)).astype(np.float64)
    return xp.asarray(flat, device=place.device)


def flat_weights(batch: Batch, side: int) -> Array:
    """The weights of one side of all items, also where they share them."""
    if batch.uniform[side] is True:  # to repeat numbers takes a fifth of the time of fetching each from its place
        sizes = batch.geometry.sizes[side]
        return spread(1 / sizes, sizes, batch.place)
    return (batch.a, batch.b)[side].in_order(batch.place)


def batch_masses(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The masses of both sides of all items; those of weights that nobody has chosen are 1."""
    ones = np.ones(batch.shape)
    return tuple(  # type: ignore[return-value]
        ones if np.all(free) else np.where(free, ones, masses_of(rows, batch.place))
        for free, rows in zip(batch.uniform, (batch.a, batch.b), strict=True)
    )


def weighted(weights: Array, slope: Array, own: Array | None, place: Place) -> Array:
    """weights (slope - own), and zero at weight zero, however steep it is there."""
    xp, a = place.xp, weights[:, None]
    slope = slope if own is None else slope - own
    if bool(xp.all(weights > 0)):
        return a * slope
    return a * xp.where(a > 0, slope, xp.zeros_like(slope))


def gradient(batch: Batch, weights: Array, slope: Array, own: Array | None, side: int) -> Any:
    """`weighted` as the user has the points of a side."""
    d, place = slope.shape[1], batch.place
    if is_numpy_array(slope) and d <= FEW_COORDINATES and bool(np.all(weights > 0)):
        found = np.empty(slope.shape, batch.geometry.dtype)
        for begin in range(0, len(slope), POINTS_AT_ONCE):
            rows = slice(begin, begin + POINTS_AT_ONCE)
            part = slope[rows].copy() if own is None else slope[rows] - own[rows]
            for k in range(d):
                part[:, k] *= weights[rows]
            found[rows] = part
        if bool(np.all(np.isfinite(found))):
            return given(batch, found, side, copy=False)
    return given(batch, weighted(weights, slope, own, place), side)


def beyond(xy: Array, own: Array, xp: Any) -> Array:
    """xy - own, where equal terms cancel, infinite ones too."""
    equal, zeros = xy == own, xp.zeros_like(xy)
    return xp.where(equal, zeros, xy) - xp.where(equal, zeros, own)


def at_points(result: Any, name: str, points: Any) -> Any:
    """A method of every item at points of its own, or at the same for all: stacked, or in a list."""
    count, shape = math.prod(result.shape), result.shape
    if isinstance(points, list | tuple) and points and is_array_api_obj(points[0]) and points[0].ndim == 2:
        if len(points) != count:
            raise ValueError(f"`points` must be one cloud, or {count} of them, got {len(points)}")
        return [getattr(result._item(k), name)(points[k]) for k in range(count)]
    if is_array_api_obj(points) and points.ndim > 2:
        if tuple(points.shape[:-2]) != shape:
            raise ValueError(f"`points` must have the axes of the batch, {shape}, got shape {tuple(points.shape)}")
        clouds = [points[np.unravel_index(k, shape)] for k in range(count)]
    else:
        clouds = [points] * count
    found = [getattr(result._item(k), name)(cloud) for k, cloud in enumerate(clouds)]
    xp = result.place.user.xp
    stacked = xp.stack(found)
    return xp.reshape(stacked, (*shape, *stacked.shape[1:]))


def given(batch: Batch, flat: Array, side: int, *, copy: bool = True) -> Any:
    """What lies flat as the user has the points of a side: stacked, or in a list, in the dtype of the geometry.

    Without a copy, of an array that nobody else has and that is in this dtype.
    """
    place, dtype, sizes = batch.place, batch.geometry.dtype, batch.geometry.sizes[side]
    if batch.geometry.ragged[side]:
        whole, ends = in_dtype(flat, dtype, place, copy=copy), np.cumsum(sizes)
        return [whole[begin:end, ...] for begin, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True)]
    grid = batch.geometry.grids[side]
    support = (batch.geometry.lengths[side],) if grid is None else grid.shape
    return in_dtype(place.xp.reshape(flat, (*batch.shape, *support, *flat.shape[1:])), dtype, place, copy=copy)
