"""Exports of a plan, made from blocks of its rows: the largest entries, single ones, and random pairs.

And the product with a sparse matrix, made from blocks of its columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from array_api_compat import is_cupy_array, is_numpy_array

from epsot.arrays import Place, as_choice, as_count, as_number, to_numpy
from epsot.costs import Array

BLOCK_ELEMENTS = 2**22  # numbers of the plan that an export holds at once: 32 MiB of float64
FEWEST = 16  # columns of a sparse matrix that are multiplied at once, each a sum in one sweep over all pairs


class Rows(Protocol):
    """What is read of a plan."""

    @property
    def k(self) -> Array:
        """An array of its library."""

    @property
    def place(self) -> Place: ...
    @property
    def real(self) -> Any:
        """The dtype of entries."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def T(self) -> Rows: ...
    @property
    def inside(self) -> Rows:
        """The same, whose arrays are of the library that computes."""

    def rows(self, i: Any) -> Array: ...
    def row_blocks(self) -> Iterable[slice]: ...
    def sum(self, axis: int) -> Array: ...
    def __matmul__(self, v: Array) -> Array: ...


def largest_entries(plan: Rows, mass: float, max_per_row: int | None) -> Any:
    """The CSR array behind `Plan.to_sparse`."""
    mass = as_number("mass", mass)
    if not 0 < mass <= 1:
        raise ValueError(f"`mass` must be in (0, 1], the share of each row to keep, got {mass!r}")
    if max_per_row is not None and not (isinstance(max_per_row, int | np.integer) and max_per_row > 0):
        raise ValueError(f"`max_per_row` must be a positive integer or None, got {max_per_row!r}")
    plan = plan.inside
    if is_numpy_array(plan.k):
        from scipy.sparse import csr_array as csr
    elif is_cupy_array(plan.k):
        from cupyx.scipy.sparse import csr_matrix as csr
    else:
        raise TypeError("sparse export needs NumPy or CuPy arrays; convert the inputs, or read `plan.rows` in blocks")
    xp = plan.place.xp
    parts = [_largest(plan.rows(rows), mass, max_per_row, xp) for rows in plan.row_blocks()]
    counts, columns, values = (xp.concat(part) for part in zip(*parts, strict=True))
    starts = xp.concat([xp.zeros_like(counts[:1]), xp.cumulative_sum(counts)])
    return csr((values, columns, starts), shape=plan.shape)


def _largest(P: Array, mass: float, max_per_row: int | None, xp: Any) -> tuple[Array, Array, Array]:
    """The fewest largest entries of each row that carry the share.  (r, m) -> (r,) counts, columns, values"""
    total = P.sum(axis=1, dtype=xp.float64)[:, None]
    # entries below this, all together, do not carry the rest: they need no sorting
    candidate = P > (1 - mass) * total / P.shape[1]
    row, column = xp.nonzero(candidate)
    value = P[row, column]
    counts = xp.count_nonzero(candidate, axis=1)
    place = xp.arange(row.shape[0]) - (xp.cumulative_sum(counts) - counts)[row]
    widest = max(1, int(counts.max()))  # one column where there is no mass at all
    packed = xp.zeros((P.shape[0], widest), dtype=P.dtype)  # to the left; columns stay in order
    packed[row, place] = value
    ordered = xp.flip(xp.sort(packed, axis=1, stable=False), axis=1)
    before = xp.cumulative_sum(ordered, axis=1, dtype=xp.float64) - ordered  # what larger entries carry
    wanted = xp.count_nonzero((before < (mass - 1e-12) * total) & (ordered > 0), axis=1)
    if max_per_row is not None:
        wanted = xp.minimum(wanted, max_per_row)
    least = xp.take_along_axis(ordered, xp.maximum(wanted - 1, 0)[:, None], axis=1)
    larger, tied = packed > least, packed == least
    spare = wanted[:, None] - xp.count_nonzero(larger, axis=1)[:, None]  # of equal ones the first
    keep = (larger | (tied & (xp.cumulative_sum(tied, axis=1) <= spare)))[row, place]
    return wanted, column[keep], value[keep]


def sample_pairs(plan: Rows, size: int | None, rng: Any, mode: str) -> tuple[Array, Array]:
    """The index arrays behind `Plan.sample`."""
    as_choice("mode", mode, ("independent", "stratified"))
    size = plan.shape[0] if size is None else size
    if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 0:
        raise ValueError(f"`size` must be a non-negative integer or None, got {size!r}")
    place, plan = plan.place, plan.inside
    generator = as_generator("rng", rng)
    cumulative = np.cumsum(to_numpy(plan.sum(axis=1)), dtype=np.float64)  # (n,) numbers, on the host with the generator
    if size > 0 and not cumulative[-1] > 0:
        raise ValueError(f"there is nothing to draw from: the mass of the plan is {cumulative[-1]:g}; pass `size=0`")
    if mode == "independent":
        levels = np.sort(generator.random(size))
    else:  # systematic resampling: one offset, equal steps
        levels = (generator.random() + np.arange(size)) / max(size, 1)
    i = np.minimum(np.searchsorted(cumulative, levels * cumulative[-1], side="right"), plan.shape[0] - 1)
    j = _columns_given_rows(plan, i, generator.random(size))
    order = generator.permutation(size) if mode == "independent" else np.arange(size)
    drawn = (place.xp.asarray(index[order], device=place.device) for index in (i, j))
    i, j = (place.handed_out(index) for index in drawn)
    return i, j


def as_generator(name: str, rng: Any) -> np.random.Generator:
    """The generator that `numpy.random.default_rng` makes of a seed, or is given."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`{name}` must be None, a seed, or a numpy.random.Generator, got {type(rng).__name__}: {error}"
        ) from None


def _columns_given_rows(plan: Rows, i: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """One column for each row index of the sorted i, by inverting the distribution of the row at its level."""
    xp, device, m = plan.place.xp, plan.place.device, plan.shape[1]
    j = np.empty(len(i), dtype=np.int64)
    step = max(1, BLOCK_ELEMENTS // m)
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        unique, place = np.unique(i[part], return_inverse=True)
        rows = xp.astype(plan.rows(xp.asarray(unique, device=device)), xp.float64)
        carried = xp.cumulative_sum(rows, axis=1)
        total = carried[:, -1:]
        # Row r goes from r to r + 1, so that all are searched at once.
        carried = carried / xp.where(total > 0, total, xp.ones_like(total))
        carried += xp.arange(len(unique), dtype=xp.float64, device=device)[:, None]
        wanted = np.minimum(place + levels[part], np.nextafter(place + 1.0, 0))
        found = xp.searchsorted(xp.reshape(carried, (-1,)), xp.asarray(wanted, device=device), side="right")
        j[part] = np.clip(to_numpy(found) - place * m, 0, m - 1)
    return j


def times(plan: Rows, v: Any) -> Array:
    """P v for a sparse matrix, (m, q), some columns of which are dense at a time.  -> (n, q)"""
    if v.ndim != 2:
        return plan @ _dense(plan, v)
    (m, q), columns = v.shape, v.tocsc()
    step = max(FEWEST, BLOCK_ELEMENTS // max(1, m))
    parts = [plan @ _dense(plan, columns[:, start : start + step]) for start in range(0, max(1, q), step)]
    return parts[0] if len(parts) == 1 else plan.place.user.xp.concat(parts, axis=1)


def _dense(plan: Rows, v: Any) -> Array:
    """A sparse array as one of the user's."""
    dense, place = v.toarray(), plan.place
    return dense if place.home is None else place.home.given(np.asarray(dense))


def part(plan: Rows, i: Any, j: Any) -> Array:
    """P[i, j] as NumPy indexes: by integers, slices or vectors of integers; of two vectors every pair is one entry."""
    place, real, plan = plan.place, plan.real, plan.inside
    xp, (n, m) = place.xp, plan.shape
    i, j = as_index("i", place.taken("i", i), n, "row", place), as_index("j", place.taken("j", j), m, "column", place)
    if isinstance(i, int) or (isinstance(i, slice) and isinstance(j, slice)):
        out = _along(plan.rows(i), j, xp)
    elif isinstance(j, int):
        out = _along(plan.T.rows(j), i, xp)
    elif isinstance(j, slice):
        out = _along(plan.rows(i), j, xp)
    elif isinstance(i, slice):
        out = _along(plan.T.rows(j), i, xp).T
    else:
        out = _pairs(plan, i, j, xp)
    return place.handed_out(out, real)


def _along(rows: Array, index: Any, xp: Any) -> Array:
    """rows[..., index]"""
    return rows[..., index] if isinstance(index, int | slice) else xp.take(rows, index, axis=rows.ndim - 1)


def _pairs(plan: Rows, i: Array, j: Array, xp: Any) -> Array:
    """P[i[k], j[k]] for every k, from blocks of rows.  (r,), (r,) -> (r,)"""
    if i.shape != j.shape:
        raise IndexError(f"`i` and `j` must be equally long, a pair for each entry, got {i.shape[0]} and {j.shape[0]}")
    m, count, parts = plan.shape[1], i.shape[0], []
    step = max(1, BLOCK_ELEMENTS // m)
    for start in range(0, max(1, count), step):
        stop = min(start + step, count)
        block, columns = plan.rows(i[start:stop]), j[start:stop]
        places = m * xp.arange(columns.shape[0], dtype=xp.int64, device=plan.place.device) + columns
        parts.append(xp.take(xp.reshape(block, (-1,)), places))
    return xp.concat(parts)


def as_index(name: str, index: Any, size: int, what: str, place: Place) -> Any:
    """A slice as it is, an integer or a vector of integers from 0 to size - 1."""
    if isinstance(index, slice):
        return index
    if not isinstance(index, list | tuple | range) and getattr(index, "ndim", 0) == 0:
        number = as_count(name, index)
        if not -size <= number < size:
            raise IndexError(f"{what} {number} is out of range for a plan with {size} {what}s")
        return number % size
    vector = as_integers(name, index, place)
    if bool(place.xp.any((vector < -size) | (vector >= size))):
        raise IndexError(f"a {what} is out of range for a plan with {size} {what}s")
    return place.xp.where(vector < 0, vector + size, vector)


def as_integers(name: str, index: Any, place: Place) -> Array:
    """A vector of integers."""
    xp = place.xp
    try:
        vector = xp.asarray(list(index) if isinstance(index, range) else index, device=place.device)
    except ValueError:  # rows of unequal lengths
        raise TypeError(f"`{name}` must be an integer, a slice or a vector of integers, got {index!r}") from None
    if vector.shape == (0,) and not hasattr(index, "dtype"):  # an empty list has no type of its own
        vector = xp.astype(vector, xp.int64)
    if vector.ndim != 1 or not xp.isdtype(vector.dtype, "integral"):
        raise TypeError(f"`{name}` must be an integer, a slice or a vector of integers, got {index!r}")
    return vector
