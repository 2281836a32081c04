"""One small problem in a cache: its costs, its kernel matrix, and the steps made with them. All parts are inlined.

The matrix is K[i, j] = 2^(F[i] + G[j] - scale C[i, j]). A step needs sums of K times 2^(g scale - G), which a sweep
gives as long as the potentials have not gone far from the references; else the matrix is made anew around them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.cpu.compiled import uncounted
from epsot.kernels.cpu.dense import (
    ABREAST_ROWS,
    WIDTH,
    add_columns,
    largest_of_row,
    powers,
    powers_of_row,
    row_products,
)
from epsot.kernels.cpu.lines import logarithms

DRIFT = 40.0  # bits that a potential may go from its reference
LOG_2 = math.log(2.0)
BLOCK = 32  # rows, whose entries are still in the nearest cache when they are read again
# What underflows counts for nothing beside sums that are larger than this times all that multiplies it, and none that
# is smaller than the second has an entry that was clamped.
TRUSTED = {4: (2.0**-90, 2.0**100), 8: (2.0**-900, 2.0**900)}
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


def _padded(count):
    return -(-count // WIDTH) * WIDTH


padded = uncounted(_padded)


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
    """A row of the matrix around its largest entry.  -> its sum"""
    room.row_reference[i] = -largest_of_row(room.costs, i, scale, room.column_reference, b.width)
    return powers_of_row(
        room.costs, i, scale, room.row_reference[i], room.column_reference, room.column_weights, b.width, room.matrix
    )


row_anew = uncounted(_row_anew)


def _columns_ahead(room, a, b, f, g, scale):
    """What a sweep multiplies the columns with, around references that serve; whether the matrix is to be made anew."""
    z, v = room.lines[0], room.lines[1]
    anew, far = room.state[0] != scale, 0.0
    if not anew:
        for j in range(b.size):
            z[j] = g[j] * scale - room.column_reference[j]
        for j in range(b.size):
            far = max(far, abs(z[j]))
        anew = not far <= DRIFT
    if anew:
        put_around(room, a, b, f, g, scale)
        room.state[0] = scale
        far = 0.0
        for j in range(b.size):
            room.column_weights[j] = b.weights[j]
    else:
        for j in range(b.size, b.width):
            z[j] = 0.0
        powers(z, b.width, v)
        for j in range(b.size):
            room.column_weights[j] = b.weights[j] * v[j]
    for j in range(b.size, b.width):
        room.column_weights[j] = 0.0
    return anew, 2.0**far


columns_ahead = uncounted(_columns_ahead)


def _row_logs(room, a, first, stop, scale, damp, f):
    """f = (F - log2 sum) / scale / damp for some rows."""
    sums, logs = room.row_sums, room.lines[2]
    logarithms(sums[first:stop], stop - first, logs[first:stop])
    for i in range(first, min(stop, a.size)):
        f[i] = (room.row_reference[i] - logs[i] / LOG_2) / (scale * damp)


row_logs = uncounted(_row_logs)


def _rows_ahead(room, a, b, first, stop, anew, least, most, scale):
    """The sums of some rows, around references that serve."""
    if anew:
        for i in range(first, min(stop, a.size)):
            room.row_sums[i] = powers_of_row(
                room.costs, i, scale, room.row_reference[i], room.column_reference, room.column_weights, b.width,
                room.matrix,
            )  # fmt: skip
    else:
        for r in range(first, min(stop, a.size), ABREAST_ROWS):
            row_products(room.matrix, r, room.column_weights, b.width, room.row_sums)
    for i in range(first, min(stop, a.size)):
        if not least < room.row_sums[i] <= most:
            room.row_sums[i] = row_anew(room, a, b, i, scale)
    for i in range(a.size, stop):
        room.row_sums[i] = 1.0


rows_ahead = uncounted(_rows_ahead)


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


def _alternate(room, a, b, f, g, updated, eps):
    """f <- next_f(g) from an f that may be near it, updated <- next_g(f), in one sweep.  -> whether all are numbers"""
    scale = 1.0 / (LOG_2 * eps)
    single = room.matrix.itemsize == 4
    least, most = (LEAST_32, MOST_32) if single else (LEAST_64, MOST_64)
    anew, reach = columns_ahead(room, a, b, f, g, scale)
    damp, sums, factors = damping(a, eps), room.column_sums, room.row_weights
    z, logs = room.lines[2], room.lines[3]
    for j in range(b.width):
        sums[j] = 0.0
    largest = 0.0
    for first in range(0, padded(a.size), BLOCK):
        stop = first + BLOCK
        rows_ahead(room, a, b, first, stop, anew, least * reach * b.mass, most, scale)
        if a.rho == np.inf:
            for i in range(first, min(stop, a.size)):
                factor = 1.0 / room.row_sums[i]
                largest = max(largest, factor)
                factors[i] = a.weights[i] * factor
        else:
            row_logs(room, a, first, stop, scale, damp, f)
            for i in range(first, min(stop, a.size)):
                z[i] = f[i] * scale - room.row_reference[i]
            for i in range(a.size, stop):
                z[i] = 0.0
            powers(z[first:stop], BLOCK, logs[first:stop])
            for i in range(first, min(stop, a.size)):
                largest = max(largest, logs[i])
                factors[i] = a.weights[i] * logs[i]
        for i in range(a.size, stop):
            factors[i] = 0.0
        for r in range(first, min(stop, a.size), ABREAST_ROWS):
            add_columns(False, room.matrix, r, factors, b.width, sums)
    if a.rho == np.inf:
        row_logs(room, a, 0, padded(a.size), scale, damp, f)
    damp = damping(b, eps)
    for j in range(b.width):
        z[j] = sums[j] if j < b.size else 1.0
    logarithms(z, b.width, logs)
    least = least * largest * a.mass
    for j in range(b.size):
        found = logs[j] / LOG_2 - room.column_reference[j]
        if not least < z[j] <= most:  # also where nothing is left of any factor
            found = column_exactly(room, a, j, f, scale)
            room.state[0] = 0.0
        updated[j] = -found / (scale * damp)


alternate = uncounted(_alternate)


def _update_self(room, a, f, updated, eps):
    """updated <- next_f(f) of a measure with itself."""
    scale = 1.0 / (LOG_2 * eps)
    least, most = (LEAST_32, MOST_32) if room.matrix.itemsize == 4 else (LEAST_64, MOST_64)
    anew, reach = columns_ahead(room, a, a, f, f, scale)
    for first in range(0, padded(a.size), BLOCK):
        rows_ahead(room, a, a, first, first + BLOCK, anew, least * reach * a.mass, most, scale)
    row_logs(room, a, 0, padded(a.size), scale, damping(a, eps), updated)


update_self = uncounted(_update_self)


def _update_both(room, a, b, f, g, new_f, new_g, eps):
    """new_f <- next_f(g), new_g <- next_g(f)"""
    scale = 1.0 / (LOG_2 * eps)
    least, most = (LEAST_32, MOST_32) if room.matrix.itemsize == 4 else (LEAST_64, MOST_64)
    room.state[0] = 0.0
    columns_ahead(room, a, b, f, g, scale)
    sums, factors, z, logs = room.column_sums, room.row_weights, room.lines[2], room.lines[3]
    for j in range(b.width):
        sums[j] = 0.0
    for first in range(0, padded(a.size), BLOCK):
        stop = first + BLOCK
        rows_ahead(room, a, b, first, stop, True, least * b.mass, most, scale)
        for i in range(first, min(stop, a.size)):
            factors[i] = a.weights[i] * 2.0 ** (f[i] * scale - room.row_reference[i])
        for i in range(a.size, stop):
            factors[i] = 0.0
        for r in range(first, min(stop, a.size), ABREAST_ROWS):
            add_columns(False, room.matrix, r, factors, b.width, sums)
    row_logs(room, a, 0, padded(a.size), scale, damping(a, eps), new_f)
    for j in range(b.width):
        z[j] = sums[j] if j < b.size else 1.0
    logarithms(z, b.width, logs)
    damp = damping(b, eps)
    for j in range(b.size):
        found = logs[j] / LOG_2 - room.column_reference[j]
        if not least * a.mass < z[j] <= most:
            found = column_exactly(room, a, j, f, scale)
        new_g[j] = -found / (scale * damp)
    room.state[0] = 0.0


update_both = uncounted(_update_both)
