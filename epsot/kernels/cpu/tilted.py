"""Sums over squared distances along the lines of a lattice, by tilted blocks.

    out[i] = log2 sum_j 2^(u[j] - c (x[i] - y[j])^2)

For a block of rows around X and one of columns around Y, with offsets p[i] and q[j] and D = X - Y,

    (D + p - q)^2 = D^2 + 2 D p - 2 D q + (p - q)^2
    v[j] = 2^(u[j] + 2 c D q[j] - r),  r the largest exponent                the columns, tilted
    s[i] = sum_j 2^(-c (p[i] - q[j])^2) v[j]                                one matrix for all pairs of blocks
    sum over the blocks of s[i] 2^(r - c D^2 - 2 c D p[i])                   the rows, tilted likewise

so that the N^2 exponentials of a line become multiply-adds and, with numbers kept as in `exponents`, a few integer
operations for each row and column of a pair of blocks. Only what is near 0 is rounded to the type of the blocks.

Which pairs of blocks are summed is said in `windows`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.compiled import uncounted, woven
from epsot.kernels.cpu.exponents import SIDE, logarithms_of
from epsot.kernels.cpu.tilts import add_product, fades, powers_of_two, raise_tops, tilted, top_of, weighed

Array = NDArray[Any]

NO_MOMENT, FIRST, SECOND = range(3)  # of the differences x[i] - y[j], whose means are taken along with the sums


class Blocks(NamedTuple):
    """One axis, cut into blocks of `size` rows and of as many columns, which the last ones may not fill."""

    size: int
    n: int  # rows
    m: int  # columns, of which `source` tells which stands where
    inner: int  # the distance from a number of a line to the next
    source: NDArray[np.int64]  # -1: nowhere
    X: Array  # (row blocks,) their centres
    Y: Array  # (column blocks,)
    rows: Array  # (size, at least 8) offsets from the centre
    columns: Array
    begin: NDArray[np.int64]  # (row blocks,) the first block of columns that any row sees
    end: NDArray[np.int64]  # the one behind the last
    c: float
    half: float  # how far a row sees: half a period, or inf
    tie: float  # lengths below are rounding
    bits: float  # what a block that is left out must be below the sum
    around: int  # blocks on either side of the best one that a window opens with
    matrix: Array  # (size, size) 2^(-c (p[i] - q[j])^2), a line for each column
    # Where rows and columns are equally far apart, and there are not too many, what depends on their distance alone:
    costs: NDArray[Any]  # (distances,) the exponents -c (x - y)^2, those of 0 of what is not seen; else empty
    column_factors: Array  # (distances of blocks, at least 8) the tilts of columns; else one line
    column_moves: NDArray[Any]
    row_factors: Array
    row_moves: NDArray[Any]


class Room(NamedTuple):
    """What a thread needs, lines side by side in the last axis."""

    lines: Array  # float64: what comes in, then the logarithms that go out
    base: Array  # (1, lanes) what all exponents of a line are relative to
    mantissas: Array
    exponents: Array
    values: Array  # (q, columns, lanes) what is averaged
    column_factors: Array  # (1, at least 8) of a row or a tilt that is in no table
    column_moves: NDArray[Any]
    row_factors: Array  # (column blocks, at least 8)
    row_moves: NDArray[Any]
    highest: Array  # (column blocks, lanes)
    tilted: Array  # (columns, lanes)
    tops: Array  # (size, lanes) of rows
    fades: Array
    ones: Array
    sums: Array  # (products * size, lanes)
    product: Array  # (size, lanes)
    matrix: Array  # (size, size)
    means: Array  # (q and one of a moment, rows, lanes)


def _beyond(D, offsets, half, tie, empty, moves):
    """The exponents of the columns that a row at distance D of their centre does not see become those of 0."""
    for j in range(len(offsets)):
        d = D - offsets[j]
        if d <= tie - half or d > tie + half:
            moves[j] = empty


beyond = woven(_beyond)


def _seen_from(p, room, J, x, empty):
    """The powers -c (x - y)^2 of the columns of a block, for a row at x: the tilt of the room, of what counts."""
    D = x - p.Y[J]
    powers_of_two(p.columns, -p.c * D * D, 2 * p.c * D, -p.c, room.column_factors, room.column_moves, 0)
    if abs(D) + p.columns[p.size - 1] > p.half - p.tie:
        beyond(D, p.columns, p.half, p.tie, empty, room.column_moves[0])


seen_from = woven(_seen_from)


def _tilt(p, room, R, J, k):
    """The tilts of a pair of blocks, in the tables or the room: the line of the columns, and that of the rows."""
    if len(p.costs) > 0:
        line = R - J + len(p.Y) - 1
        return line, line
    D = p.X[R] - p.Y[J]
    powers_of_two(p.columns, 0.0, 2 * p.c * D, 0.0, room.column_factors, room.column_moves, 0)
    powers_of_two(p.rows, -p.c * D * D, -2 * p.c * D, 0.0, room.row_factors, room.row_moves, k)
    return 0, k


tilt = woven(_tilt)


def _open_block(p, room, R, a, z, empty):
    """The columns tilted for a block of rows, block by block, and the largest exponent that each row finds."""
    B, known = p.size, len(p.costs) > 0
    factors, moves = (p.column_factors, p.column_moves) if known else (room.column_factors, room.column_moves)
    row_moves = p.row_moves if known else room.row_moves
    room.tops[:] = empty
    for J in range(a, z):
        k = J - a
        if abs(p.X[R] - p.Y[J]) + p.rows[B - 1] + p.columns[B - 1] > p.half - p.tie:
            for i in range(B):
                seen_from(p, room, J, p.X[R] + p.rows[i], empty)
                top_of(room.exponents, J * B, B, room.column_moves, 0, room.highest, k)
                for w in range(room.tops.shape[1]):
                    room.tops[i, w] = max(room.tops[i, w], room.highest[k, w])
            continue
        line, row_line = tilt(p, room, R, J, k)
        top_of(room.exponents, J * B, B, moves, line * moves.shape[1], room.highest, k)
        tilted(
            room.mantissas, room.exponents, J * B, B, factors, moves, line, room.highest, k, room.tilted, k * B,
        )  # fmt: skip
        raise_tops(room.tops, room.highest, k, row_moves, row_line, B)


open_block = woven(_open_block)


def _multiply(p, room, matrix, numbers, at, rows, to):
    """sums[to + i] += fades[i] sum_j matrix[j, i] numbers[at + j]"""
    if rows % SIDE == 0:
        add_product(SIDE, matrix, numbers, at, p.size, rows, room.fades, room.sums, to)
    else:
        add_product(1, matrix, numbers, at, p.size, rows, room.fades, room.sums, to)


multiply = woven(_multiply)


def _add_pair(p, room, R, J, k, moment):
    """What the block J of columns, the k-th of the window, adds to the sums of a block of rows."""
    B, D = p.size, p.X[R] - p.Y[J]
    if len(p.costs) > 0:
        line = R - J + len(p.Y) - 1
        fades(room.highest, k, p.row_factors, p.row_moves, line, room.tops, B, room.fades)
    else:
        fades(room.highest, k, room.row_factors, room.row_moves, k, room.tops, B, room.fades)
    multiply(p, room, p.matrix, room.tilted, k * B, B, 0)
    count = len(room.values)
    for q in range(count):
        weighed(room.tilted, k * B, room.values[q], J * B, B, room.product)
        multiply(p, room, p.matrix, room.product, 0, B, (1 + q) * B)
    if moment != NO_MOMENT:
        for j in range(B):
            for i in range(B):
                d = D + p.rows[i] - p.columns[j]
                room.matrix[j, i] = p.matrix[j, i] * (d if moment == FIRST else d * d)
        multiply(p, room, room.matrix, room.tilted, k * B, B, (1 + count) * B)


add_pair = woven(_add_pair)


def _add_row(p, room, R, i, J, moment, empty):
    """The same for one row, of a block of which it may see a part only."""
    B, count, x = p.size, len(room.values), p.X[R] + p.rows[i]
    seen_from(p, room, J, x, empty)
    tilted(
        room.mantissas, room.exponents, J * B, B, room.column_factors, room.column_moves, 0, room.tops, i,
        room.product, 0,
    )  # fmt: skip
    room.matrix[:, 0] = 1.0
    add_product(1, room.matrix, room.product, 0, B, 1, room.ones, room.sums, i)
    if moment != NO_MOMENT:
        for j in range(B):
            d = x - p.Y[J] - p.columns[j]
            tied = p.half - abs(d) <= p.tie
            room.matrix[j, 0] = d * d if moment == SECOND else (0.0 if tied else d)
        add_product(1, room.matrix, room.product, 0, B, 1, room.ones, room.sums, (1 + count) * B + i)
        room.matrix[:, 0] = 1.0
    for q in range(count):
        weighed(room.product, 0, room.values[q], J * B, B, room.fades)
        add_product(1, room.matrix, room.fades, 0, B, 1, room.ones, room.sums, (1 + q) * B + i)


add_row = uncounted(_add_row)


def _sum_block(p, room, R, a, z, moment, empty):
    """The logarithms of the sums of a block of rows over the columns of the blocks a, ... < z, and the means."""
    B = p.size
    open_block(p, room, R, a, z, empty)
    room.sums[:] = 0.0
    for J in range(a, z):
        D = p.X[R] - p.Y[J]
        if abs(D) + p.rows[B - 1] + p.columns[B - 1] > p.half - p.tie:
            for i in range(B):
                add_row(p, room, R, i, J, moment, empty)
        else:
            add_pair(p, room, R, J, J - a, moment)
    logarithms_of(room.tops, room.sums, B, room.lines, R * B)
    for q in range(len(room.means)):
        for i in range(B):
            for w in range(room.sums.shape[1]):
                found = room.sums[i, w] > 0 and room.tops[i, w] > empty // 2
                room.means[q, R * B + i, w] = room.sums[(1 + q) * B + i, w] / room.sums[i, w] if found else 0.0


sum_block = uncounted(_sum_block)
