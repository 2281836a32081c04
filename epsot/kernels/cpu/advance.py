"""The kernel of `between.Directions`: a step in five stages, each of which needs the sums of those before.

The stages are those of `cuda/vectors.cu`: the error and the mean residual; the products of the residual, and of its
change, with the directions; the change made orthogonal to these, and the way along them; the largest part of the way;
the step. Each stage is a pass over the lines of a chunk, or two.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.chunks import ERROR, MEAN, compare, compare_step, extent, put_aside, settle_comparison
from epsot.kernels.cpu.compiled import compiled, spliced, uncounted
from epsot.kernels.cpu.lines import products
from epsot.kernels.cpu.passes import lengthened, mean, new_direction, residues, stepped
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, WINDOW

ROWS = WINDOW + 1  # where the next direction goes no other lies, so that it can be given up
SUMS, SIZES, LENGTH, PEAK, STEP = range(5)  # the stages
STAGES = 5
VALUES = 1 + 2 * ROWS  # of a chunk, at most
LINES = 10  # of working memory: two of the stages, and eight of what is not padded


def _settle(partial, totals, stage):
    """totals[stage] from the lines of all chunks. A chunk alone has its line there: `totals_of`."""
    out, lines = totals[stage], partial[stage]
    count = lines.shape[1] if stage == SIZES else MEAN + 1 if stage == SUMS else 2
    for k in range(count if len(lines) > 1 else 0):
        value = 0.0
        for chunk in range(len(lines)):
            value = max(value, lines[chunk, k]) if stage == PEAK else value + lines[chunk, k]
        out[k] = value
    if stage == SUMS:
        settle_comparison(lines, out)


settle = compiled(_settle, _nrt=False, forceinline=True)


def totals_of(partial: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the lines of chunks, (stages, chunks, values), are added up; that of one chunk is its total as it is."""
    return partial[:, 0] if partial.shape[1] == 1 else np.zeros((partial.shape[0], partial.shape[2]))


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


class Step(NamedTuple):
    """What the stages of a step are given."""

    log_b: Any
    b: Any
    weights: Any
    scale: Any
    g: Any
    updated: Any
    result: Any
    past: Any  # (chunks, 2, length): the last result and its residual
    moves: Any  # (chunks, ROWS, length)
    changes: Any
    eps: float
    slope: float
    rho: float
    mass: float
    balanced: bool
    eased: bool
    moved: bool
    slot: int
    pair: Any  # as past: this result
    start: Any
    partial: Any
    totals: Any
    m: int
    lines: Any
    order: Any
    shares: Any


def _aside(step, chunk):
    """The vectors of a chunk that is not padded, in lines that are; the end of `start` is to be put back."""
    first, count, width = extent(chunk, step.m)
    lines = step.lines
    for z, fill, k in (
        (step.log_b, -np.inf, 2), (step.b, 0.0, 3), (step.weights, 0.0, 4), (step.scale, 1.0, 5), (step.g, 0.0, 6),
        (step.updated, 0.0, 7), (step.result, 0.0, 8), (step.start, 0.0, 9),
    ):  # fmt: skip
        put_aside(z, first, count, width, fill, lines[k])


put_chunk_aside = uncounted(_aside)


def _run_stage(step, now, begin, end, aside, size, share, norm, gained, known):
    """One stage over some chunks; the last of them may lie aside. The stage is a constant: only its part is left."""
    lines, order, shares = step.lines, step.order, step.shares
    alone = step.partial.shape[1] == 1
    for chunk in range(begin, end):
        first, count, width = extent(chunk, step.m)
        line, to, residual = step.partial[min(now, PEAK), chunk], step.pair[chunk, 0], step.pair[chunk, 1]
        logs, plain, weight, by = step.log_b, step.b, step.weights, step.scale
        here, new, there, way = step.g, step.updated, step.result, step.start
        if aside and chunk == end - 1:
            first, logs, plain, weight, by = 0, lines[2], lines[3], lines[4], lines[5]
            here, new, there, way = lines[6], lines[7], lines[8], lines[9]
        if now == SUMS:
            if alone:
                compare_step(
                    plain, logs, here, new, there, step.slope, step.rho, step.eps, width, lines[0], lines[1], residual,
                    line,
                )  # fmt: skip
            else:
                compare(logs, here, new, step.slope, step.rho, first, width, lines[0], lines[1], line)
                line[MEAN] = mean(plain, here, there, step.eps, first, width, residual)
        elif now == SIZES:
            shift = step.totals[SUMS, MEAN] / step.mass if step.balanced else 0.0
            line[0] = residues(
                weight, by, here, there, step.eps, shift, step.eased, step.moved, step.past[chunk, 1], first, count,
                width, to, residual, lines[0], lines[1],
            )  # fmt: skip
            products(step.changes[chunk], order, known, lines[1], lines[0], width, line, 1)
        elif now == LENGTH and step.moved:
            new_direction(
                weight, step.pair[chunk], step.past[chunk], step.moves[chunk], step.changes[chunk], order, shares,
                known, step.slot, first, width, way, line,
            )  # fmt: skip
        elif now == LENGTH:
            for j in range(first, first + width):
                way[j] = 0.0
        elif now == PEAK:
            line[0] = lengthened(
                step.moves[chunk], step.changes[chunk], step.slot, gained, norm, order, shares, known, first, width,
                way,
            )  # fmt: skip
        else:
            furthest = step.totals[PEAK, 0]
            stepped(to, 1.0 if furthest <= LEAP * step.eps else LEAP * step.eps / furthest, first, width, way)
    if now < STEP and end - begin == step.partial.shape[1]:
        settle(step.partial, step.totals, now)


run_stage = spliced(_run_stage)


def _open_stage(step, now, rows, oldest, past_size, expected):
    """What is known before a stage.  -> norms, verdicts, the bits that count, and of how many directions"""
    size, norm, misled, gained, kept, used = verdict(step.totals, rows, oldest, step.moved, past_size, expected, now)
    share = step.totals[LENGTH, 1] / norm if now > LENGTH and gained else 0.0
    known = shares_of(step.totals, kept, used, gained, step.slot, share, now, step.order, step.shares)
    return size, share, norm, misled, gained, used, known


open_stage = spliced(_open_stage)


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
    step = Step(
        log_b, b, weights, scale, g, updated, result, past, moves, changes, eps, slope, rho, mass, balanced, eased,
        moved, slot, pair, start, partial, totals, m, lines, order, shares,
    )  # fmt: skip
    first, count, width = extent(end - 1, m)
    aside = first + width > len(g)
    if aside:
        put_chunk_aside(step, end - 1)
    size, share, norm, misled, gained, used, known = 0.0, 0.0, 0.0, False, False, rows, 0
    if stage <= SUMS:
        run_stage(step, SUMS, begin, end, aside, size, share, norm, gained, known)
    finite = math.isfinite(totals[SUMS, ERROR])
    if finite and stage <= SIZES < last:
        size, share, norm, misled, gained, used, known = open_stage(step, SIZES, rows, oldest, past_size, expected)
        run_stage(step, SIZES, begin, end, aside, size, share, norm, gained, known)
    if finite and stage <= LENGTH < last:
        size, share, norm, misled, gained, used, known = open_stage(step, LENGTH, rows, oldest, past_size, expected)
        run_stage(step, LENGTH, begin, end, aside, size, share, norm, gained, known)
    if finite and stage <= PEAK < last:
        size, share, norm, misled, gained, used, known = open_stage(step, PEAK, rows, oldest, past_size, expected)
        run_stage(step, PEAK, begin, end, aside, size, share, norm, gained, known)
    if finite and stage <= STEP < last:
        if stage == STEP:
            size, share, norm, misled, gained, used, known = open_stage(step, STEP, rows, oldest, past_size, expected)
        run_stage(step, STEP, begin, end, aside, size, share, norm, gained, known)
    if aside:
        for j in range(count):
            start[first + j] = lines[9, j]
    if begin == 0 and last == STAGES:
        conclude(totals, size, share, misled, gained, used, numbers)


advance = compiled(_advance, _nrt=False, forceinline=True)
