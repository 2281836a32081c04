"""The kernel of `between.Directions`: a step in five stages, each of which needs the sums of those before.

The stages are those of `cuda/vectors.cu`: the error and the mean residual; the products of the residual, and of its
change, with the directions; the change made orthogonal to these, and the way along them; the largest part of the way;
the step.
"""

from __future__ import annotations

import math

import numpy as np

from epsot.kernels.cpu.chunks import ERROR, compare, extent, settle_comparison
from epsot.kernels.cpu.compiled import compiled, inlined
from epsot.kernels.cpu.lines import add_rows, largest, products
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, LONGEST, WINDOW

ROWS = WINDOW + 1  # where the next direction goes no other lies, so that it can be given up
SUMS, SIZES, LENGTH, PEAK, STEP = range(5)  # the stages
STAGES = 5
VALUES = 1 + 2 * ROWS  # of a chunk, at most
MEAN = 4  # beside what belongs to the comparison


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


settle = compiled(_settle)


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


verdict = inlined(_verdict)


def _mean(b, g, result, eps, count, width, change, padded, out):
    """<b, (result - g) / eps>"""
    for j in range(count):
        change[j] = (result[j] - g[j]) / eps
    for j in range(width):
        padded[j] = 0.0
    for j in range(count, width):
        change[j] = 0.0
    for j in range(count):
        padded[j] = b[j]
    products(change, padded, padded, width, out, MEAN)


mean = inlined(_mean)


def _residuals(scale, g, result, eps, shift, eased, to, residual):
    """The plain result and its residual r = (result - g) / eps - shift, which `eased` divides by the scale."""
    for j in range(len(g)):
        residual[j] = (result[j] - g[j]) / eps - shift
    if eased:
        for j in range(len(g)):
            r, wide = residual[j], residual[j] / scale[j]
            most = max(LONGEST, abs(r))
            residual[j] = wide if abs(wide) <= most else math.copysign(most, wide)
        for j in range(len(g)):
            to[j] = g[j] + eps * residual[j]
    else:
        for j in range(len(g)):
            to[j] = result[j]


residuals = inlined(_residuals)


def _weigh(weights, z, count, width, out):
    """out = weights z, padded by 0."""
    for j in range(count):
        out[j] = weights[j] * z[j]
    for j in range(count, width):
        out[j] = 0.0


weigh = inlined(_weigh)


def _subtract(z, past, out):
    for j in range(len(out)):
        out[j] = z[j] - past[j]


subtract = inlined(_subtract)


def _sizes(weights, past, changes, residual, moved, rows, count, width, lines, out):
    """<r, r>, and <c, change> and <c, r> for every direction c, weighted; `past`: the last residual."""
    weighted, change = lines[0], lines[1]
    weigh(weights, residual, count, width, weighted)
    products(residual, weighted, weighted, width, out, 0)
    if moved:
        subtract(residual, past, lines[2, :width])
        weigh(weights, lines[2], count, width, change)
    else:
        for j in range(width):
            change[j] = 0.0
    for k in range(len(changes)):
        if rows >> k & 1:
            products(changes[k], change, weighted, width, out, 1 + 2 * k)


sizes = inlined(_sizes)


def _orthogonalised(
    weights, past, moves, changes, pair, shares, slot, count, width, weighted, out
):  # fmt: skip
    """The new direction and its parts in the others, times `shares`, into its slot; <change, change>, <r, change>."""
    move, change = moves[slot, :width], changes[slot, :width]
    subtract(pair[0], past[0], move)
    subtract(pair[1], past[1], change)
    add_rows(move, moves, shares, width)
    add_rows(change, changes, shares, width)
    weigh(weights, change, count, width, weighted)
    products(weighted, change, pair[1], width, out, 0)


orthogonalised = inlined(_orthogonalised)


def _scaled(move, change, norm):
    for j in range(len(move)):
        move[j] /= norm
    for j in range(len(change)):
        change[j] /= norm


scaled = inlined(_scaled)


def _way(moves, shares, anew, count, width, line, start):
    """start += sum_k shares[k] moves[k], from 0 if `anew` -> the largest part of it."""
    for j in range(width):
        line[j] = 0.0
    if not anew:
        for j in range(count):
            line[j] = start[j]
    add_rows(line, moves, shares, width)
    for j in range(count):
        start[j] = line[j]
    for j in range(width):
        line[j] = abs(line[j])
    return largest(line, width)


way = inlined(_way)


def _step(to, part, start):
    for j in range(len(start)):
        start[j] = to[j] - start[j] * part


step = inlined(_step)


def _conclude(totals, size, share, misled, gained, used, numbers):
    """What the host wants to know of a step."""
    left = size * size - share * share
    for k in range(totals.shape[1] // 2):
        if used >> k & 1:
            left -= totals[SIZES, 2 + 2 * k] ** 2
    numbers[0], numbers[1] = totals[SUMS, ERROR], size
    numbers[2] = math.sqrt(max(0.0, left))  # the norm of the next residual were the map linear
    numbers[3], numbers[4] = misled, gained


conclude = inlined(_conclude)


def _shares_of(totals, kept, used, share, slot, now, shares):
    """shares[0]: what a stage adds of every row; shares[1]: of every direction on the way, as far as it is known."""
    for k in range(shares.shape[1]):
        shares[0, k] = shares[1, k] = 0.0
        if kept >> k & 1:
            shares[1, k] = totals[SIZES, 2 + 2 * k]
            if now <= LENGTH:
                shares[0, k] = -totals[SIZES, 1 + 2 * k]
            elif not used >> k & 1:
                shares[0, k] = -shares[1, k]
    if now > LENGTH:
        shares[0, slot] = share


shares_of = inlined(_shares_of)


def _advance(
    log_b, b, weights, scale, g, updated, result, past, moves, changes, eps, slope, rho, mass, balanced, eased, moved,
    rows, oldest, slot, past_size, expected, pair, start, partial, totals, numbers, stage, last, begin, end,
    lines, shares,
):  # fmt: skip
    """The stages `stage`, ... < last of `Directions.advance`; more than one only over all chunks.

    moves, changes: (chunks, ROWS, length), of which the bits of `rows` say which hold directions; a new one goes to
    `slot`, which is none of them, and takes the place of `oldest`, a bit or 0. past, pair: (chunks, 2, length), a
    result and its residual, the last and these. All four are padded by 0. numbers: the error, the norm, the expected
    norm, whether the old directions mislead, whether there is a new one. An error that is not finite ends it.
    lines (3, CHUNK or the padded length) and shares (2, ROWS) are working memory.
    """
    m = len(g)
    size, norm, misled, gained, kept, used = verdict(totals, rows, oldest, moved, past_size, expected, stage)
    share = 0.0
    for now in range(stage, last):
        if now == stage or now == LENGTH or now == PEAK:  # noqa: SIM109 - what is known has changed
            size, norm, misled, gained, kept, used = verdict(totals, rows, oldest, moved, past_size, expected, now)
            share = totals[LENGTH, 1] / norm if now > LENGTH and gained else 0.0
            shares_of(totals, kept, used, share, slot, now, shares)
        if now > SUMS and not math.isfinite(totals[SUMS, ERROR]):
            break
        for chunk in range(begin, end):
            first, count, width = extent(chunk, m)
            points, line = slice(first, first + count), partial[min(now, PEAK), chunk]
            to, residual = pair[chunk, 0], pair[chunk, 1]
            if now == SUMS:
                compare(log_b, g, updated, slope, rho, chunk, lines[0], lines[1], line)
                if balanced:
                    mean(b[points], g[points], result[points], eps, count, width, lines[0], lines[1], line)
            elif now == SIZES:
                shift = totals[SUMS, MEAN] / mass if balanced else 0.0
                residuals(scale[points], g[points], result[points], eps, shift, eased, to, residual)
                sizes(weights[points], past[chunk, 1], changes[chunk], residual, moved, rows, count, width, lines, line)
            elif now == LENGTH:
                if moved:
                    orthogonalised(
                        weights[points], past[chunk], moves[chunk], changes[chunk], pair[chunk], shares[0], slot, count,
                        width, lines[0], line,
                    )  # fmt: skip
                way(moves[chunk], shares[1], True, count, width, lines[0], start[points])
            elif now == PEAK:
                if gained:
                    scaled(moves[chunk, slot], changes[chunk, slot], norm)
                line[0] = way(moves[chunk], shares[0], False, count, width, lines[0], start[points])
            elif now == STEP:
                furthest = totals[PEAK, 0]
                step(to, 1.0 if furthest <= LEAP * eps else LEAP * eps / furthest, start[points])
        if now < STEP and end - begin == partial.shape[1]:
            settle(partial, totals, now)
    if begin == 0 and last == STAGES:
        conclude(totals, size, share, misled, gained, used, numbers)


advance = compiled(_advance)
