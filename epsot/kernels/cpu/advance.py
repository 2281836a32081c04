"""The kernel of `between.Directions`: a step in five stages, each of which needs the sums of those before.

The stages are those of `cuda/vectors.cu`: the error and the mean residual; the products of the residual, and of its
change, with the directions; the change made orthogonal to these, and the way along them; the largest part of the way;
the step. Each stage is a pass over the lines of a chunk, or two.
"""

from __future__ import annotations

import math

import numpy as np

from epsot.kernels.cpu.chunks import ERROR, compare, extent, put_aside, settle_comparison
from epsot.kernels.cpu.compiled import compiled, uncounted
from epsot.kernels.cpu.lines import products
from epsot.kernels.cpu.passes import lengthened, mean, new_direction, residues, stepped
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, WINDOW

ROWS = WINDOW + 1  # where the next direction goes no other lies, so that it can be given up
SUMS, SIZES, LENGTH, PEAK, STEP = range(5)  # the stages
STAGES = 5
VALUES = 1 + 2 * ROWS  # of a chunk, at most
MEAN = 4  # beside what belongs to the comparison
LINES = 10  # of working memory: two of the stages, and eight of what is not padded


def _settle(partial, totals, stage):
    """totals[stage] from the lines of all chunks."""
    out, lines = totals[stage], partial[stage]
    count = lines.shape[1] if stage == SIZES else MEAN + 1 if stage == SUMS else 2
    for k in range(count):
        value = 0.0
        for chunk in range(len(lines)):
            value = max(value, lines[chunk, k]) if stage == PEAK else value + lines[chunk, k]
        out[k] = value
    if stage == SUMS:
        settle_comparison(lines, out)


settle = compiled(_settle, _nrt=False, forceinline=True)


def _verdict(totals, rows, oldest, moved, past_size, expected, stage):
    """What the stages before have shown of the residual and of the change that it brought, orthogonal to the others.

    -> their norms, whether the others mislead, whether the new one is more than rounding, the bits of those that count
    without it and beside it.
    """
    size = math.sqrt(totals[SIZES, 0]) if stage > SIZES else 0.0
    norm = math.sqrt(totals[LENGTH, 0]) if stage > LENGTH else 0.0
    misled = size > BENT * expected
    gained = moved and DEPENDENT * (past_size + size) < norm < np.inf
    kept = 0 if misled else rows
    used = kept & ~oldest if gained else kept
    return size, norm, misled, gained, kept, used


verdict = uncounted(_verdict)


def _conclude(totals, size, share, misled, gained, used, numbers):
    """What the host wants to know of a step."""
    left = size * size - share * share
    for k in range(totals.shape[1] // 2):
        if used >> k & 1:
            left -= totals[SIZES, 2 + 2 * k] ** 2
    numbers[0], numbers[1] = totals[SUMS, ERROR], size
    numbers[2] = math.sqrt(max(0.0, left))  # the norm of the next residual were the map linear
    numbers[3], numbers[4] = misled, gained


conclude = uncounted(_conclude)


def _listed(bits, order):
    """The numbers of the bits that are set.  -> how many"""
    count = 0
    for k in range(len(order)):
        order[count] = k
        count += bits >> k & 1
    return count


listed = uncounted(_listed)


def _shares_of(totals, kept, used, gained, slot, share, now, order, shares):
    """Which rows a stage adds, shares[0] of each, and shares[1] of it on the way, as far as that is known.

    -> how many rows
    """
    bits = kept
    if now > LENGTH:
        bits = kept & ~used | (1 << slot if gained else 0)
    count = listed(bits, order)
    for i in range(count):
        k = order[i]
        shares[1, i] = totals[SIZES, 2 + 2 * k]
        if now <= LENGTH:
            shares[0, i] = -totals[SIZES, 1 + 2 * k]
        else:
            shares[0, i] = share if gained and k == slot else -shares[1, i]
    return count


shares_of = uncounted(_shares_of)


def _advance(
    log_b, b, weights, scale, g, updated, result, past, moves, changes, eps, slope, rho, mass, balanced, eased, moved,
    rows, oldest, slot, past_size, expected, pair, start, partial, totals, numbers, m, stage, last, begin, end,
    lines, order, shares,
):  # fmt: skip
    """The stages `stage`, ... < last of `Directions.advance`; more than one only over all chunks.

    moves, changes: (chunks, ROWS, length), of which the bits of `rows` say which hold directions; a new one goes to
    `slot`, which is none of them, and takes the place of `oldest`, a bit or 0. past, pair: (chunks, 2, length), a
    result and its residual, the last and these. All four are padded by 0. numbers: the error, the norm, the expected
    norm, whether the old directions mislead, whether there is a new one. An error that is not finite ends it.
    The vectors have m numbers, and may be padded as `passes` wants it: else the end of the last chunk is put aside.
    lines (LINES, CHUNK; 2 suffice where all is padded), order (ROWS,) and shares (2, ROWS) are working memory.
    """
    size, share, norm, misled, gained, kept, used, known = 0.0, 0.0, 0.0, False, False, rows, rows, 0
    chunk = end - 1
    first, count, width = extent(chunk, m)
    aside = first + width > len(g)
    if aside:
        for z, fill, k in (
            (log_b, -np.inf, 2), (b, 0.0, 3), (weights, 0.0, 4), (scale, 1.0, 5), (g, 0.0, 6), (updated, 0.0, 7),
            (result, 0.0, 8), (start, 0.0, 9),
        ):  # fmt: skip
            put_aside(z, first, count, width, fill, lines[k])
    for now in range(stage, last):
        if now > SUMS and not math.isfinite(totals[SUMS, ERROR]):
            break
        if now != SUMS and (now == stage or now != STEP):  # what is known has changed
            size, norm, misled, gained, kept, used = verdict(totals, rows, oldest, moved, past_size, expected, now)
            share = totals[LENGTH, 1] / norm if now > LENGTH and gained else 0.0
            known = shares_of(totals, kept, used, gained, slot, share, now, order, shares)
        for chunk in range(begin, end):
            first, count, width = extent(chunk, m)
            line, to, residual = partial[min(now, PEAK), chunk], pair[chunk, 0], pair[chunk, 1]
            logs, plain, weight, by = log_b, b, weights, scale
            here, new, there, way = g, updated, result, start
            if aside and chunk == end - 1:
                first, logs, plain, weight, by = 0, lines[2], lines[3], lines[4], lines[5]
                here, new, there, way = lines[6], lines[7], lines[8], lines[9]
            if now == SUMS:
                compare(logs, here, new, slope, rho, first, width, lines[0], lines[1], line)
                if balanced:
                    line[MEAN] = mean(plain, here, there, eps, first, width)
            elif now == SIZES:
                shift = totals[SUMS, MEAN] / mass if balanced else 0.0
                line[0] = residues(
                    weight, by, here, there, eps, shift, eased, moved, past[chunk, 1], first, count, width, to,
                    residual, lines[0], lines[1],
                )  # fmt: skip
                products(changes[chunk], order, known, lines[1], lines[0], width, line, 1)
            elif now == LENGTH and moved:
                new_direction(
                    weight, pair[chunk], past[chunk], moves[chunk], changes[chunk], order, shares, known, slot, first,
                    width, way, line,
                )  # fmt: skip
            elif now == LENGTH:
                for j in range(first, first + width):
                    way[j] = 0.0
            elif now == PEAK:
                line[0] = lengthened(
                    moves[chunk], changes[chunk], slot, gained, norm, order, shares, known, first, width, way
                )
            else:
                furthest = totals[PEAK, 0]
                stepped(to, 1.0 if furthest <= LEAP * eps else LEAP * eps / furthest, first, width, way)
        if now < STEP and end - begin == partial.shape[1]:
            settle(partial, totals, now)
    if aside:
        first, count, width = extent(end - 1, m)
        for j in range(count):
            start[first + j] = lines[9, j]
    if begin == 0 and last == STAGES:
        conclude(totals, size, share, misled, gained, used, numbers)


advance = compiled(_advance, _nrt=False, forceinline=True)
