"""Sums over lengths along the lines of a lattice, by recursions: out[i] = log2 sum_j 2^(u[j] - c |x[i] - y[j]|).

What the columns on the left of a place add up to falls by the same factor from place to place, so that one walk over a
line finds it for all places, and one back that of the columns on the right. Sums are kept as mantissa and exponent, in
float64: a rounding for each column that is passed adds up, and in float64 does not matter. Nothing is left out.

On a circle a row sees half a period to both sides. The columns of so long a window are the last ones of one segment
and the first ones of the next, if the segments are as long as the shortest window: each segment is walked through from
its own begin and from its own end, and no sum is ever a difference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.compiled import compiled, woven
from epsot.kernels.cpu.exponents import convert, logarithms_of
from epsot.kernels.cpu.tilted import FIRST, NO_MOMENT
from epsot.kernels.cpu.walks import extend, meet
from epsot.kernels.cpu.windows import gather, scatter, starts_of, tops_of_lines

Array = NDArray[Any]

NOWHERE = -1
TERMS = 6  # of a row: two windows on the left, its own column, two on the right, the column half a period away
SIGNS = (1.0, 1.0, 0.0, -1.0, -1.0, 0.0)  # of x - y; there is none of the row's own place, and none half a period away


class Walks(NamedTuple):
    """One axis; sums of columns are numbered: the columns as they are, and those of four walks, of which a line may
    need the first two. Each walk ends a segment where its number is a multiple of `segment`.
    """

    n: int
    m: int
    inner: int
    source: NDArray[np.int64]  # which column stands where on the unrolled line, or NOWHERE
    segment: int
    walks: int  # 2 or 4
    step: float  # from a column to the next
    factors: Array  # (segment + 1,) 2^(-c step k), the powers as in `exponents`
    moves: NDArray[np.int64]
    # The sums that a row is made of, (n, TERMS): their numbers, and the powers and lengths from where they stand
    terms: NDArray[np.int64]
    term_factors: Array
    term_moves: NDArray[np.int64]
    lengths: Array


class Room(NamedTuple):
    """What a thread needs, lines side by side in the last axis."""

    lines: Array
    base: Array
    sums: Array  # (channels, sums, lanes): weights, what is averaged, lengths
    exponents: NDArray[np.int64]  # (sums, lanes)
    scales: Array  # (TERMS, lanes) what the sums of a row, or a sum and a column, count
    tops: NDArray[np.int64]  # (1, lanes)
    total: Array  # (1, lanes)
    means: Array  # (channels - 1, rows, lanes)


def _add_step(p, room, before, ahead, column, behind, to, moment):
    """The sum `to` = the sum `before`, seen from `ahead` steps further, and a column, seen from `behind` steps on."""
    extend(
        room.sums[0], room.exponents, before, p.factors[ahead], p.moves[ahead], column, p.factors[behind],
        p.moves[behind], to, room.scales,
    )  # fmt: skip
    channels, lanes = room.sums.shape[0], room.sums.shape[2]
    last = channels - 1 if moment != NO_MOMENT else channels
    for q in range(1, last):
        for w in range(lanes):
            old = room.scales[0, w] * room.sums[q, before, w] if before >= 0 else 0.0
            room.sums[q, to, w] = old + room.scales[1, w] * room.sums[q, column, w]
    if moment != NO_MOMENT:
        for w in range(lanes):
            own = room.scales[1, w] * (behind * p.step) * room.sums[0, column, w]
            if before >= 0:
                own += room.scales[0, w] * (room.sums[last, before, w] + ahead * p.step * room.sums[0, before, w])
            room.sums[last, to, w] = own


add_step = woven(_add_step)


def _walk(p, room, moment):
    """All sums: from the first column of a segment, from its last; on circles those, seen from the other end, too."""
    m, w = len(p.source), p.segment
    for j in range(m):
        add_step(p, room, m + j - 1 if j % w > 0 else NOWHERE, 1, j, 0, m + j, moment)
    for j in range(m - 1, -1, -1):
        inside = j % w < w - 1 and j < m - 1
        add_step(p, room, 2 * m + j + 1 if inside else NOWHERE, 1, j, 0, 2 * m + j, moment)
    if p.walks == 2:
        return
    for j in range(m - 1, -1, -1):  # the last columns of a segment, seen from its end
        inside = j % w < w - 1 and j < m - 1
        add_step(p, room, 3 * m + j + 1 if inside else NOWHERE, 0, j, w - 1 - j % w, 3 * m + j, moment)
    for j in range(m):  # the first ones, seen from its begin
        add_step(p, room, 4 * m + j - 1 if j % w > 0 else NOWHERE, 0, j, j % w, 4 * m + j, moment)


walk = woven(_walk)


def _add_up(p, room, i, moment):
    """A row from its sums: the logarithm, and the means."""
    meet(room.sums[0], room.exponents, p.terms, p.term_factors, p.term_moves, i, room.scales, room.tops, room.total)
    logarithms_of(room.tops, room.total, 1, room.lines, i)
    channels, lanes = room.sums.shape[0], room.sums.shape[2]
    last = channels - 1 if moment != NO_MOMENT else channels
    for q in range(1, channels):
        for w in range(lanes):
            room.means[q - 1, i, w] = 0.0
        for t in range(TERMS):
            number = p.terms[i, t]
            if number == NOWHERE:
                continue
            for w in range(lanes):
                if q < last:
                    value = room.sums[q, number, w]
                elif moment == FIRST:
                    value = room.sums[0, number, w] * SIGNS[t]
                else:
                    value = room.sums[q, number, w] + p.lengths[i, t] * room.sums[0, number, w]
                room.means[q - 1, i, w] += room.scales[t, w] * value
        for w in range(lanes):
            room.means[q - 1, i, w] /= room.total[0, w]  # which is not 0, if only of weights that are


add_up = woven(_add_up)


def _lengths(u, given, p, unit, scale, moment, room, lanes, begin, end, out, means):
    """out = scale log2 sum_j 2^(unit u[j] - c |x - y|) for the groups of lines begin, ... < end.

    u, out: all lines, flat. given: (q, m lines), of which means[:q] are the means; means[q] is that of the signs of
    x - y, or of |x - y|.
    """
    starts, count, m = np.empty(lanes, np.int64), len(u) // p.m, len(p.source)
    for group in range(begin, end):
        first = group * lanes
        wide = min(lanes, count - first)
        starts_of(first, wide, p.m, p.inner, starts)
        gather(u, starts, p.inner, wide, p.m, room.lines, room.sums[0])
        tops_of_lines(room.lines, p.m, unit, room.base[0])
        room.lines[p.m] = -np.inf  # what stands nowhere
        for j in range(m):
            row = p.source[j]
            convert(room.lines, row if row >= 0 else p.m, unit, room.base, room.sums[0], room.exponents, j)
            for q in range(len(given)):
                for w in range(lanes):
                    some = row >= 0 and w < wide
                    value = given[q, starts[w] + row * p.inner] if some else 0.0
                    room.sums[1 + q, j, w] = room.sums[0, j, w] * value
            if moment != NO_MOMENT:
                room.sums[len(room.sums) - 1, j] = 0.0
        walk(p, room, moment)
        for i in range(p.n):
            add_up(p, room, i, moment)
        starts_of(first, wide, p.n, p.inner, starts)
        scatter(room.lines, starts, p.inner, wide, p.n, room.base, scale, out, room.sums[0])
        for q in range(len(means)):
            for i in range(p.n):
                for w in range(wide):
                    some = room.lines[i, w] > -np.inf
                    means[q, starts[w] + i * p.inner] = room.means[q, i, w] if some else 0.0


lengths = compiled(_lengths)
