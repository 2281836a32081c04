"""Measures in the plane as NumPy arrays on the host: what there is to draw, without drawing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import to_numpy
from epsot.costs import Array
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult

Result = SinkhornResult | DivergenceResult

RESOLUTION = 64  # points along a side of the lattice at which potentials are evaluated


def on_host(array: Any) -> np.ndarray:
    """Anything array-like on the host, in float64."""
    return np.asarray(to_numpy(array) if is_array_api_obj(array) else array, dtype=float)


def drawn(name: str, array: Any) -> np.ndarray:
    """What the caller wants drawn, on the host, in float64."""
    if isinstance(array, Result):
        raise TypeError(
            f"`{name}` must be an array, got a {type(array).__name__}; `plot.transport(result)` draws a result"
        )
    try:
        return on_host(array)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be an array of real numbers, got a {type(array).__name__}: {error}") from None


def plane(name: str, points: Any, size: int | None = None) -> np.ndarray:
    """Points in the plane, (n, 2), in float64 on the host."""
    host = drawn(name, points)
    if host.ndim != 2 or host.shape[1] != 2 or (size is not None and host.shape[0] != size):
        rows = "n" if size is None else size
        raise ValueError(
            f"`{name}` must have shape ({rows}, 2) to be drawn in the plane, got {host.shape}; "
            "choose or project to two coordinates"
        )
    return host


def vector(name: str, values: Any, size: int) -> np.ndarray:
    host = drawn(name, values)
    if host.shape != (size,):
        raise ValueError(f"`{name}` must have shape ({size},), one value a point, got {host.shape}")
    return host


def masses(name: str, values: Any, size: int) -> np.ndarray:
    """Weights that have areas."""
    host = vector(name, values, size)
    if not np.all((host >= 0) & (host < np.inf)):
        raise ValueError(f"`{name}` must be non-negative and finite")
    return host


def levels(values: Any) -> np.ndarray:
    """The values of level lines, in ascending order, each once."""
    host = drawn("levels", values)
    if host.ndim != 1:
        raise ValueError(f"`levels` must be a sequence of the values to draw a line for, got {values!r}")
    return np.unique(host)


def lattice(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The columns, the rows, and the index of each point of a rectangular lattice; None for any other points."""
    columns, column = np.unique(points[:, 0], return_inverse=True)
    rows, row = np.unique(points[:, 1], return_inverse=True)
    if min(columns.size, rows.size) < 2 or columns.size * rows.size != len(points):
        return None
    index = np.full((rows.size, columns.size), -1)
    index[row, column] = np.arange(len(points))
    return None if np.any(index < 0) else (columns, rows, index)


def lattice_over(extent: Sequence[float]) -> np.ndarray:
    """RESOLUTION^2 points that cover a frame."""
    axes = np.linspace(extent[0], extent[1], RESOLUTION), np.linspace(extent[2], extent[3], RESOLUTION)
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def frame(points: np.ndarray) -> tuple[float, float, float, float]:
    """A frame around the points, with a margin of 5 % of the longer side."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * float(np.max(high - low)) or 1.0
    low, high = low - margin, high + margin
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def bounds(extent: Any) -> tuple[float, float, float, float]:
    """A frame as the caller gave it."""
    host = drawn("extent", extent)
    if host.shape != (4,) or not np.all(np.isfinite(host)) or host[0] >= host[1] or host[2] >= host[3]:
        raise ValueError(
            f"`extent` must be (left, right, bottom, top) with left < right and bottom < top, got {extent!r}"
        )
    return tuple(host.tolist())


def spread(x: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most so many points, each as far as can be from those before it."""
    if len(x) <= most:
        return np.arange(len(x))
    chosen = np.zeros(most, dtype=int)
    gap = np.full(len(x), np.inf)  # squared distance to the chosen points
    for k in range(1, most):
        gap = np.minimum(gap, np.sum((x - x[chosen[k - 1]]) ** 2, axis=1))
        chosen[k] = np.argmax(gap)
    return chosen


def measures(
    result: Result, name: str = "result"
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Points and weights of both sides, on the host."""
    if not isinstance(result, Result):
        raise TypeError(f"`{name}` must be a SinkhornResult or a DivergenceResult, got {type(result).__name__}")
    instance = result.instance
    geometry = instance.geometry
    if geometry.points is None:
        raise TypeError(f"`{name}` must be one between points to be drawn, got one of a {type(geometry).__name__}")
    a, b = instance.a, instance.T.a
    x, y = geometry.points
    return (plane("x", x), on_host(a)), (plane("y", y), on_host(b))


def potentials_at(result: Result, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f and g at other points, debiased if the result is, on the host."""
    place, geometry = result.instance.place, result.instance.geometry
    z: Array = place.xp.asarray(points, dtype=geometry.dtype, device=place.device)
    if isinstance(result, DivergenceResult):
        f = result.xy.source.potential_at(z) - result.xx.source.potential_at(z)
        g = result.xy.target.potential_at(z) - result.yy.source.potential_at(z)
    else:
        f, g = result.source.potential_at(z), result.target.potential_at(z)
    return on_host(f), on_host(g)


def text(name: str, value: Any) -> str | None:
    """What is written, if anything."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"`{name}` must be a text, got a {type(value).__name__}")
    return value


def headings(titles: Any, count: int) -> Sequence[str | None]:
    """One for each result."""
    if titles is None:
        return [None] * count
    if isinstance(titles, str) or not isinstance(titles, Iterable):
        raise TypeError(f"`titles` must be a sequence of texts, got a {type(titles).__name__}")
    listed = [text("titles", title) for title in titles]
    if len(listed) != count:
        raise ValueError(f"`titles` must hold one title a result, {count}, got {len(listed)}")
    return listed
