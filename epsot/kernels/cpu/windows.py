"""Which blocks of columns the blocks of rows are summed over, and the proof that no others count.

Only the blocks of columns lo[R] <= J < hi[R] are summed for the block R of rows. The cost is Monge: the share of a
column beside those on its right falls from row to row. So a block on the left of the windows is tested once, at the
first row where it is left out, against the sum there, and one on the right at the last row. O(N) tests of a line prove
that no more than a given part of any sum is missing, whatever the windows were; a block that fails comes back, and the
rows are redone. That holds on a circle, too, unrolled to a line of nearly two periods, in which no row sees further
than half of one.
"""

from __future__ import annotations

import numpy as np

from epsot.kernels.cpu.compiled import compiled, inlined, uncounted, woven
from epsot.kernels.cpu.exponents import SQUARE, convert, load_columns, load_rows, store_columns, store_rows
from epsot.kernels.cpu.tilted import seen_from, sum_block
from epsot.kernels.cpu.tilts import exceeds, top_of

SPARE = 4.0  # bits by which the windows of the next call are wider than they have to be in this one


def _costs_from(p, room, R, i, J, empty):
    """Where the exponents of the costs of a block of columns stand, for a row of a block: in the table or the room."""
    if len(p.costs) > 0:
        return J * p.size - (R * p.size + i) + p.size * len(p.X) - 1
    seen_from(p, room, J, p.X[R] + p.rows[i], empty)
    return 0


costs_from = woven(_costs_from)


def _matters(p, room, R, i, J, bits, empty):
    """Whether the block J of columns may carry more than 2^-bits of the sum of row i of the block R, in any line."""
    start, row = costs_from(p, room, R, i, J, empty), R * p.size + i
    if len(p.costs) > 0:
        return exceeds(room.exponents, J * p.size, p.size, p.costs, start, room.lines, row, bits)
    return exceeds(room.exponents, J * p.size, p.size, room.column_moves, start, room.lines, row, bits)


matters = woven(_matters)


def _gather(flat, starts, stride, wide, count, lines, like):
    """lines[j, w] = flat[starts[w] + j stride], -inf in lanes of no line."""
    lanes = lines.shape[1]
    if wide == lanes and starts[lanes - 1] - starts[0] == lanes - 1:
        load_rows(flat, starts[0], stride, count, lines, like)
        return
    done = 0
    if wide == lanes and stride == 1:
        done = count // SQUARE * SQUARE
        load_columns(flat, starts[0], starts[1] - starts[0], done, lines, like)
    for j in range(done, count):
        for w in range(wide):
            lines[j, w] = flat[starts[w] + j * stride]
        for w in range(wide, lanes):
            lines[j, w] = -np.inf


gather = uncounted(_gather)


def _scatter(lines, starts, stride, wide, count, base, scale, flat, like):
    """flat[starts[w] + i stride] = scale (lines[i, w] + base[0, w])"""
    lanes = lines.shape[1]
    if wide == lanes and starts[lanes - 1] - starts[0] == lanes - 1:
        store_rows(lines, base, scale, flat, starts[0], stride, count, like)
        return
    done = 0
    if wide == lanes and stride == 1:
        done = count // SQUARE * SQUARE
        store_columns(lines, base, scale, flat, starts[0], starts[1] - starts[0], done, like)
    for i in range(done, count):
        for w in range(wide):
            flat[starts[w] + i * stride] = scale * (lines[i, w] + base[0, w])


scatter = uncounted(_scatter)


def _starts_of(first, wide, count, inner, starts):
    """Where the lines first, first + 1, ... of `count` numbers begin, which are `inner` numbers apart."""
    for w in range(wide):
        line = first + w
        starts[w] = line // inner * count * inner + line % inner


starts_of = uncounted(_starts_of)


def _tops_of_lines(lines, count, unit, base):
    """base[w] = the largest unit lines[j, w] as an integer, 0 where there is none."""
    base[:] = -np.inf
    for j in range(count):
        for w in range(len(base)):
            base[w] = max(base[w], lines[j, w])
    for w in range(len(base)):
        base[w] = np.rint(unit * base[w]) if base[w] > -np.inf else 0.0


tops_of_lines = uncounted(_tops_of_lines)


def _first_windows(p, room, lo, hi, best, empty):
    """Windows around the best blocks of all lines, which are no less for later rows: halves of the rows in turn.

    best: (row blocks, 2), the lowest and the highest of the best blocks of the lines.
    """
    nI, nJ = len(p.X), len(p.Y)
    lanes = room.highest.shape[1]
    most, which = np.empty(lanes, room.highest.dtype), np.empty(lanes, np.int64)
    stride = 1
    while stride < nI:
        stride *= 2
    while stride >= 1:
        for R in range(stride - 1, nI, 2 * stride):
            first, last = p.begin[R], p.end[R] - 1
            if R - stride >= 0:
                first = max(first, best[R - stride, 0])
            if R + stride < nI:
                last = min(last, best[R + stride, 1])
            most[:] = empty // 2
            which[:] = -1
            for J in range(first, last + 1):
                start = costs_from(p, room, R, p.size // 2, J, empty)
                if len(p.costs) > 0:
                    top_of(room.exponents, J * p.size, p.size, p.costs, start, room.highest, 0)
                else:
                    top_of(room.exponents, J * p.size, p.size, room.column_moves, start, room.highest, 0)
                for w in range(lanes):
                    if room.highest[0, w] > most[w]:
                        most[w], which[w] = room.highest[0, w], J
            low, high = nJ, -1
            for w in range(lanes):
                if which[w] >= 0:
                    low, high = min(low, which[w]), max(high, which[w])
            if high < 0:
                low, high = first, max(first, last)
            best[R, 0], best[R, 1] = low, high
        stride //= 2
    for R in range(nI):
        lo[R], hi[R] = max(p.begin[R], best[R, 0] - p.around), min(p.end[R], best[R, 1] + p.around + 1)


first_windows = inlined(_first_windows)


def _sweep(p, room, lo, hi, moment, empty):
    """All blocks of rows of some lines: each over its window, and what the tests bring back.  -> pairs of blocks"""
    nI, pairs = len(p.X), 0
    for R in range(nI):
        past = max(p.begin[R], lo[R - 1] if R > 0 else 0)
        a = min(max(lo[R], past), p.end[R] - 1)
        z = min(max(hi[R], a + 1), p.end[R])
        sum_block(p, room, R, a, z, moment, empty)
        pairs += z - a
        J = past
        while J < a and not matters(p, room, R, 0, J, p.bits, empty):
            J += 1
        if J < a:
            a = J
            sum_block(p, room, R, a, z, moment, empty)
            pairs += z - a
        lo[R], hi[R] = a, z
    for R in range(nI - 1, -1, -1):
        a, z = lo[R], hi[R]
        last = min(p.size, p.n - R * p.size) - 1
        top = min(p.end[R], hi[R + 1] if R + 1 < nI else len(p.Y))
        J = top
        while J > z and not matters(p, room, R, last, J - 1, p.bits, empty):
            J -= 1
        if J > z:
            hi[R] = J
            sum_block(p, room, R, a, J, moment, empty)
            pairs += J - a
    return pairs


sweep = uncounted(_sweep)


def _trim(p, room, lo, hi, empty):
    """Windows without what has not counted, and for the next call without what will hardly do."""
    nI, bits = len(p.X), p.bits + SPARE
    for R in range(nI):
        a, z = lo[R], hi[R]
        last = min(p.size, p.n - R * p.size) - 1
        while a < z - 1 and not matters(p, room, R, 0, a, bits, empty):
            a += 1
        while z > a + 1 and not matters(p, room, R, last, z - 1, bits, empty):
            z -= 1
        lo[R], hi[R] = a, z
    for R in range(nI - 2, -1, -1):  # edges that fall back nowhere, as the tests need
        lo[R] = min(lo[R], lo[R + 1])
    for R in range(1, nI):
        hi[R] = max(hi[R], hi[R - 1])


trim = uncounted(_trim)


def _squares(u, given, p, unit, scale, moment, windows, known, room, lanes, empty, begin, end, out, means):
    """out = scale log2 sum_j 2^(unit u[j] - c (x - y)^2) for the groups of lines begin, ... < end.

    u, out: all lines, flat. given: (q, m lines), of which means[:q] are the means; means[q] that of a moment.
    windows: (groups, 2, row blocks), the guess, and afterwards that of the next call; without `known` they are found.
    -> pairs of blocks
    """
    starts, best, pairs = np.empty(lanes, np.int64), np.empty((len(p.X), 2), np.int64), 0
    count = len(u) // p.m
    for group in range(begin, end):
        first = group * lanes
        wide = min(lanes, count - first)
        starts_of(first, wide, p.m, p.inner, starts)
        gather(u, starts, p.inner, wide, p.m, room.lines, room.mantissas)
        tops_of_lines(room.lines, p.m, unit, room.base[0])
        room.lines[p.m] = -np.inf  # what stands nowhere
        for j in range(len(room.mantissas)):
            row = p.source[j]
            convert(room.lines, row if row >= 0 else p.m, unit, room.base, room.mantissas, room.exponents, j)
        for q in range(len(given)):
            for j in range(len(room.mantissas)):
                row = p.source[j]
                for w in range(wide):
                    room.values[q, j, w] = given[q, starts[w] + row * p.inner] if row >= 0 else 0.0
        lo, hi = windows[group, 0], windows[group, 1]
        if not known:
            first_windows(p, room, lo, hi, best, empty)
        pairs += sweep(p, room, lo, hi, moment, empty)
        trim(p, room, lo, hi, empty)
        starts_of(first, wide, p.n, p.inner, starts)
        scatter(room.lines, starts, p.inner, wide, p.n, room.base, scale, out, room.mantissas)
        for q in range(len(means)):
            for i in range(p.n):
                for w in range(wide):
                    means[q, starts[w] + i * p.inner] = room.means[q, i, w]
    return pairs


squares = compiled(_squares)
