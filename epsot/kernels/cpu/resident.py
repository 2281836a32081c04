"""One small problem in a cache: its costs, its kernel matrix, and the steps made with them. All parts are inlined.

The matrix is K[i, j] = 2^(F[i] + G[j] - scale C[i, j]). A step needs sums of K times 2^(g scale - G), which a sweep
gives as long as the potentials have not gone far from the references; else the matrix is made anew around them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.cpu.compiled import spliced, uncounted
from epsot.kernels.cpu.dense import (
    ABREAST_ROWS,
    WIDTH,
    add_columns,
    factors_around,
    inverses,
    largest_of_row,
    powers_of_rows,
    row_products,
    softmins,
    trusted,
)

DRIFT = 40.0  # bits that a potential may go from its reference
LOG_2 = math.log(2.0)
# Rows are read twice, in blocks whose entries are still in the nearest cache the second time. In between each block
# waits for its sums, which is why the blocks of short rows, of at most SHORT numbers, have more of them.
BLOCK, SHORT_BLOCK, SHORT = 32, 64, 128
# What underflows counts for nothing beside sums that are larger than this times all that multiplies it, and none that
# is smaller than the second has an entry that was clamped.
TRUSTED = {4: (2.0**-90, 2.0**100), 8: (2.0**-900, 2.0**900)}
CLAMPED = 1000.0  # bits from which a factor may be less than it should be
LEAST_32, MOST_32 = TRUSTED[4]
LEAST_64, MOST_64 = TRUSTED[8]


class Side(NamedTuple):
    """One side: its points of positive weight. Lines are padded to `width`, weights by 0, their logarithms by -inf."""

    weights: Any
    logs: Any
    size: int
    width: int
    mass: float
    rho: float


class Room(NamedTuple):
    """Where a problem lives. Rows are padded to a multiple of `WIDTH`, too."""

    costs: Any  # (n, m) float64
    matrix: Any  # (n, m) in the type of the points
    row_reference: Any  # (n,) F
    column_reference: Any  # (m,) G, padded by -inf
    column_weights: Any  # (m,) what a sweep multiplies the columns with, in the type of the points
    row_weights: Any  # (n,) and the rows
    row_weights_of_columns: Any  # (m,) that times a coordinate
    column_sums: Any  # (m,) in that type
    row_sums: Any  # (n,) float64
    lines: Any  # (4, longer of both) float64
    state: Any  # (1,) the temperature of the matrix, 0: it has to be made anew
    ends: Any  # (2,) of exponents: the largest, and minus the smallest


def _padded(count):
    return -(-count // WIDTH) * WIDTH


padded = uncounted(_padded)


def _block_of(width):
    """How many rows of a width go through the cache together."""
    return SHORT_BLOCK if width <= SHORT else BLOCK


block_of = uncounted(_block_of)


def _damping(side, eps):
    """By what a softmin is divided."""
    return 1.0 + eps / side.rho


damping = uncounted(_damping)


def _put_around(room, a, b, f, g, scale):
    """References at potentials."""
    for i in range(a.size):
        room.row_reference[i] = f[i] * scale
    for j in range(b.size):
        room.column_reference[j] = g[j] * scale
    for j in range(b.size, b.width):
        room.column_reference[j] = -np.inf


put_around = uncounted(_put_around)


def _row_anew(room, a, b, i, scale):
    """A row of the matrix around its largest entry, and its sum."""
    room.row_reference[i] = -largest_of_row(room.costs, i, scale, room.column_reference, b.width)
    powers_of_rows(
        room.costs, i, i, scale, room.row_reference, room.column_reference, room.column_weights, b.width, room.matrix,
        room.row_sums,
    )  # fmt: skip


row_anew = uncounted(_row_anew)


def _columns_ahead(room, a, b, f, g, scale):
    """What a sweep multiplies the columns with, around references that serve.

    -> whether the matrix is to be made anew, and a bound of all 2^(g scale - G)
    """
    ends = room.ends
    anew, far = room.state[0] != scale, 0.0
    if not anew:
        factors_around(g, scale, room.column_reference, b.weights, 0, b.width, ends, room.column_weights)
        far = max(ends[0], ends[1])
        anew = not far <= DRIFT
    if anew:
        put_around(room, a, b, f, g, scale)
        room.state[0], far = scale, 0.0
        for j in range(b.width):
            room.column_weights[j] = b.weights[j]
    return anew, 2.0**far


columns_ahead = spliced(_columns_ahead)


def _rows_ahead(room, a, b, first, stop, anew, least, most, scale):
    """The sums of some rows, around references that serve."""
    if anew:
        for r in range(first, min(stop, a.size), ABREAST_ROWS):
            powers_of_rows(
                room.costs, r, a.size - 1, scale, room.row_reference, room.column_reference, room.column_weights,
                b.width, room.matrix, room.row_sums,
            )  # fmt: skip
    else:
        row_products(room.matrix, first, min(stop, a.size), room.column_weights, b.width, room.row_sums)
    if not trusted(room.row_sums, a.weights, least, most, first, stop - first):
        for i in range(first, min(stop, a.size)):
            if not least < room.row_sums[i] <= most:
                row_anew(room, a, b, i, scale)


rows_ahead = spliced(_rows_ahead)


def _column_exactly(room, a, j, f, scale):
    """log2 sum_i a[i] 2^((f[i] - C[i, j]) scale)"""
    top = -np.inf
    for i in range(a.size):
        top = max(top, (f[i] - room.costs[i, j]) * scale)
    found = 0.0
    for i in range(a.size):
        found += a.weights[i] * 2.0 ** ((f[i] - room.costs[i, j]) * scale - top)
    return math.log2(found) + top


column_exactly = uncounted(_column_exactly)


def _limits(room):
    """Between what a sum has to be, in the type of the matrix; the first times all that multiplies its terms."""
    if room.matrix.itemsize == 4:
        return LEAST_32, MOST_32
    return LEAST_64, MOST_64


limits = spliced(_limits)


def _factors_of_rows(room, a, f, first, stop, scale):
    """What a sweep multiplies some rows with: a 2^(f scale - F).  -> the largest of these powers"""
    factors_around(f, scale, room.row_reference, a.weights, first, stop - first, room.ends, room.row_weights)
    largest = room.ends[0]
    return 2.0**largest if largest < CLAMPED else np.inf


factors_of_rows = spliced(_factors_of_rows)


def _columns_from_sums(room, a, b, f, largest, scale, damp, out):
    """out = next_g(f) from sums over rows times their factors, of which the largest is given."""
    least, most = limits(room)
    least *= largest * a.mass
    softmins(room.column_sums, room.column_reference, b.weights, 1.0 / (scale * damp), 0, b.width, out)
    if not trusted(room.column_sums, b.weights, least, most, 0, b.width):
        room.state[0] = 0.0
        for j in range(b.size):
            if not least < room.column_sums[j] <= most:  # also where nothing is left of any factor
                out[j] = -column_exactly(room, a, j, f, scale) / (scale * damp)


columns_from_sums = spliced(_columns_from_sums)


def _alternate(room, a, b, f, g, updated, eps):
    """f <- next_f(g) from an f that may be near it, updated <- next_g(f), in one sweep."""
    scale, width = 1.0 / (LOG_2 * eps), a.width
    least, most = limits(room)
    anew, reach = columns_ahead(room, a, b, f, g, scale)
    unit, largest = 1.0 / (scale * damping(a, eps)), 0.0
    for j in range(b.width):
        room.column_sums[j] = 0.0
    block = block_of(b.width)
    for first in range(0, width, block):
        stop = min(first + block, width)
        rows_ahead(room, a, b, first, stop, anew, least * reach * b.mass, most, scale)
        if a.rho == np.inf:
            largest = max(largest, inverses(room.row_sums, a.weights, first, stop - first, room.row_weights))
        else:
            softmins(room.row_sums, room.row_reference, a.weights, unit, first, stop - first, f)
            largest = max(largest, factors_of_rows(room, a, f, first, stop, scale))
        add_columns(False, room.matrix, first, min(stop, a.size), room.row_weights, b.width, room.column_sums)
    if a.rho == np.inf:
        softmins(room.row_sums, room.row_reference, a.weights, unit, 0, width, f)
    columns_from_sums(room, a, b, f, largest, scale, damping(b, eps), updated)


alternate = spliced(_alternate)


def _update_self(room, a, f, updated, eps):
    """updated <- next_f(f) of a measure with itself."""
    scale = 1.0 / (LOG_2 * eps)
    least, most = limits(room)
    anew, reach = columns_ahead(room, a, a, f, f, scale)
    block = block_of(a.width)
    for first in range(0, a.width, block):
        rows_ahead(room, a, a, first, min(first + block, a.width), anew, least * reach * a.mass, most, scale)
    unit = 1.0 / (scale * damping(a, eps))
    softmins(room.row_sums, room.row_reference, a.weights, unit, 0, a.width, updated)


update_self = spliced(_update_self)


def _update_both(room, a, b, f, g, new_f, new_g, eps):
    """new_f <- next_f(g), new_g <- next_g(f), by a matrix around both that is not kept."""
    scale, width = 1.0 / (LOG_2 * eps), a.width
    least, most = limits(room)
    room.state[0] = 0.0
    columns_ahead(room, a, b, f, g, scale)
    largest = 0.0
    for j in range(b.width):
        room.column_sums[j] = 0.0
    block = block_of(b.width)
    for first in range(0, width, block):
        stop = min(first + block, width)
        rows_ahead(room, a, b, first, stop, True, least * b.mass, most, scale)
        largest = max(largest, factors_of_rows(room, a, f, first, stop, scale))
        add_columns(False, room.matrix, first, min(stop, a.size), room.row_weights, b.width, room.column_sums)
    unit = 1.0 / (scale * damping(a, eps))
    softmins(room.row_sums, room.row_reference, a.weights, unit, 0, width, new_f)
    columns_from_sums(room, a, b, f, largest, scale, damping(b, eps), new_g)
    room.state[0] = 0.0


update_both = uncounted(_update_both)
