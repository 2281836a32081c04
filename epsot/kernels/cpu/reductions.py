"""Sums around a guess, a block of rows at a time, from the phases of `blocks` and the inner loops of `sweeps`.

Every kernel runs over blocks of 64 rows each (`index` gives their order), of which each has its columns in as many
`parts`: over the pieces begin, begin + 1, ... < end of part = piece % parts. It allocates only buffers of a fixed size.
What it writes depends on the piece alone, never on how pieces are dealt to threads.
Arguments common to all, those of `online` too:
x, centre           rows; lines, tree, matrix the columns or the stored cost (`clouds`, `tree`, `matrix`)
weights, reference  log2(e) h in the order of the columns, padded by -inf to a multiple of 64; about its maximum
tops                the largest weight of every node of the tree
scale               log2(e) factor / eps
capacity, spare     groups in the buffers; columns of the last group that are not there, a multiple of the vectors
limit               log2 of what the columns left out may carry: of each sum, or, for the sums of a plan, of the plan
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from epsot.kernels.cpu.blocks import (
    BLOCK,
    FLAT,
    TILED,
    candidates,
    fill,
    logits,
    open_block,
    raise_level,
)
from epsot.kernels.cpu.compiled import Kernel, compiled
from epsot.kernels.cpu.parts import LARGEST, SHIFT, SMALLEST, span, width_of
from epsot.kernels.cpu.sweeps import GROUP, ROWS, exponentials

# What all columns left out of a row may carry, as a part of its sum: a hundredth of a unit in the last place. Of the
# plan itself, whose sums may be as small as 2^-60: as much of that.
ROUNDING_32, ROUNDING_64 = -31.0, -60.0
PLAN_32, PLAN_64 = -91.0, -120.0
TRIES = 3  # sweeps of a block whose guesses were too low for the bound, each around the sums before
HIGHEST_32, HIGHEST_64 = 126.0, 1022.0  # exponents that need no clamping
LINE_BYTES = 2048  # of the buffers: four lines of logits, and of coordinates, stay in the L1 cache
TILE_BYTES = 1 << 18  # of the points of a tile: half the L2 cache


def buffer_groups(form: int, groups: int, dim: int, itemsize: int) -> int:
    """How many groups of 64 columns are handled at a time."""
    most = LINE_BYTES // (GROUP * itemsize)
    if form == TILED:
        most = max(1, min(most, TILE_BYTES // (GROUP * itemsize * dim)))
    return min(most, groups)


@cache
def row_sums(form: int, kind: int, dim: int) -> Kernel:
    """out[i] = -eps log sum_j exp(h[j] - C[i, j] / eps), by the weights around a guess k of the negative logarithm.

    k_scale k[i] is the guess in base 2. Rows where it was too far off become nan. -> their number, and the groups used

    What is left out is bounded before the sums are known, as if they were 1. Where some are smaller, so that too much
    may be missing, the block is swept again around the sums that were found.

    With more parts than one, partial[part, :, i] becomes the sum and what was left out of it, for `parts.joined`, and
    out[i] what makes log2 of the whole sum that of the weights.
    """

    def row_sums(
        x, centre, index, lines, tree, matrix, weights, tops, reference, scale, limit, capacity, spare,
        k, k_scale, eps, parts, begin, end, out, partial,
    ):  # fmt: skip
        rows, columns = np.empty((BLOCK, x.shape[1]), x.dtype), np.empty((dim + 1, capacity * GROUP), x.dtype)
        z, offset, sums = np.empty((ROWS, capacity * GROUP), x.dtype), np.empty(BLOCK, x.dtype), np.empty(BLOCK)
        frame, rho, starts = np.empty(4 + 3 * dim), np.empty(BLOCK), np.empty(capacity, np.int64)
        groups = np.empty(len(weights) // GROUP, np.int64)
        high = HIGHEST_32 if z.itemsize == 4 else HIGHEST_64
        lost, used = 0, 0
        for piece in range(begin, end):
            block, part = piece // parts, piece % parts
            least, most = span(part, parts, len(groups))
            first = block * BLOCK
            count = min(BLOCK, len(index) - first)
            open_block(
                form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale,
                rows, frame, rho,
            )  # fmt: skip
            for i in range(BLOCK):
                guess = k_scale * k[index[first + i]] if i < count else np.inf
                if form == FLAT and abs(guess) < 1e30:
                    rho[i] = -guess  # the best reference there is
                shift = rho[i] + guess
                offset[i] = shift if abs(shift) < 1e30 else -1e30
            for attempt in range(TRIES):
                level = raise_level(form, kind, dim, rows, offset, count, frame)
                for i in range(BLOCK):
                    sums[i] = 0.0
                cursor = 0
                stop, left_out = candidates(form, kind, dim, tree, tops, frame, level, limit, least, most, groups)
                while cursor < stop:
                    cursor, filled, bound, left_out = fill(
                        form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop,
                        level, limit, left_out,
                    )  # fmt: skip
                    if filled == 0:
                        continue
                    used += filled
                    width = width_of(starts, filled, len(groups), spare)
                    for r in range(0, count, ROWS):
                        logits(
                            form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled,
                            width, scale, columns, z,
                        )  # fmt: skip
                        if bound + level < high:
                            exponentials(False, False, False, z, width, offset, r, count, sums, z)
                        else:
                            exponentials(True, False, False, z, width, offset, r, count, sums, z)
                if parts > 1:
                    for i in range(count):
                        row = index[first + i]
                        partial[part, 0, row], partial[part, 1, row] = sums[i], left_out
                        out[row, 0] = rho[i] - np.float64(offset[i])
                    break
                missing = 0
                for i in range(count):
                    row, total = index[first + i], sums[i]
                    if not SMALLEST <= total <= LARGEST:
                        out[row, 0] = np.nan
                        lost += 0 if offset[i] == -1e30 and attempt > 0 else 1
                        offset[i] = -1e30
                    elif left_out > 2.0 * 2.0**limit * total:
                        missing += 1
                        out[row, 0] = np.nan
                        offset[i] -= math.log2(total)
                    else:
                        out[row, 0] = -eps * math.log(2.0) * (math.log2(total) - np.float64(offset[i]) + rho[i])
                        offset[i] -= math.log2(total)
                if missing == 0:
                    break
            if parts == 1:
                lost += missing
        return lost, used

    return compiled(row_sums)


@cache
def pair_sums(form: int, kind: int, dim: int, symmetric: bool) -> Kernel:
    """out[i] = sum_j w[i, j] and other[j] += sum_i w[i, j], w = 2^SHIFT exp(k[i] + h[j] - C[i, j] / eps).

    Every step-th block, of all its columns the given part. `other` is in the order of the columns. `symmetric`: rows
    and columns are one cloud and k is h; the blocks right of the diagonal give both sums, so that out + other (in the
    same order) is the whole sum.
    """

    def pair_sums(
        x, centre, index, lines, tree, matrix, weights, tops, reference, scale, limit, capacity, spare,
        k, parts, part, begin, end, step, out, other,
    ):  # fmt: skip
        rows, columns = np.empty((BLOCK, x.shape[1]), x.dtype), np.empty((dim + 1, capacity * GROUP), x.dtype)
        z, offset, sums = np.empty((ROWS, capacity * GROUP), x.dtype), np.empty(BLOCK, x.dtype), np.empty(BLOCK)
        frame, rho, starts = np.empty(4 + 3 * dim), np.empty(BLOCK), np.empty(capacity, np.int64)
        groups = np.empty(len(weights) // GROUP, np.int64)
        down, exact = np.empty((1, capacity * GROUP), x.dtype), np.empty(BLOCK)
        high = HIGHEST_32 if z.itemsize == 4 else HIGHEST_64
        for block in range(begin, end, step):
            first = block * BLOCK
            count = min(BLOCK, len(index) - first)
            open_block(
                form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale,
                rows, frame, rho,
            )  # fmt: skip
            for i in range(BLOCK):
                guess = math.log2(math.e) * k[index[first + i]] if i < count else np.inf
                if form == FLAT and abs(guess) < 1e30:
                    rho[i] = -(guess + SHIFT)
                shift = rho[i] + guess + SHIFT
                exact[i] = shift if abs(shift) < 1e30 else -1e30
                offset[i] = exact[i]
                sums[i] = 0.0
            level = raise_level(form, kind, dim, rows, offset, count, frame)
            for diagonal in range(1 if symmetric else 0, -1, -1):  # the diagonal, one-sided, then what is right of it
                cursor = 0
                least, most = span(part, parts, len(groups))
                if symmetric:
                    least = block + 1
                if diagonal:
                    groups[0], stop, left_out = block, 1, 0.0
                else:
                    stop, left_out = candidates(form, kind, dim, tree, tops, frame, level, limit, least, most, groups)
                while cursor < stop:
                    cursor, filled, bound, left_out = fill(
                        form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop,
                        level, limit, left_out,
                    )  # fmt: skip
                    if filled == 0:
                        continue
                    width = width_of(starts, filled, len(groups), spare)
                    for j in range(filled * GROUP):
                        down[0, j] = 0
                    for r in range(0, count, ROWS):
                        logits(
                            form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled,
                            width, scale, columns, z,
                        )  # fmt: skip
                        if bound + level < high:
                            exponentials(False, True, False, z, width, offset, r, count, sums, down)
                        else:
                            exponentials(True, True, False, z, width, offset, r, count, sums, down)
                    if not diagonal:
                        for p in range(filled):
                            for j in range(GROUP):
                                other[starts[p] * GROUP + j] += down[0, p * GROUP + j]
            for i in range(count):
                out[index[first + i]] = sums[i] * 2.0 ** (exact[i] - offset[i])

    return compiled(pair_sums)
