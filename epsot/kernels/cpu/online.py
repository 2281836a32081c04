"""Sums around the running maximum of each row; the arguments are those of `reductions`."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from epsot.kernels.cpu.blocks import (
    BLOCK,
    FLAT,
    NEAR,
    SQUARE,
    add_slopes,
    candidates,
    fill,
    logits,
    open_block,
    raise_level,
    references,
)
from epsot.kernels.cpu.compiled import Kernel, compiled
from epsot.kernels.cpu.parts import span, width_of
from epsot.kernels.cpu.products import weigh
from epsot.kernels.cpu.sweeps import GROUP, ROWS, exponentials, peaks
from epsot.kernels.cpu.tangents import add_tangents
from epsot.kernels.reference import MAX_EXPONENT

SOFTMIN, APPLY, GRADIENT, COST, TANGENTS = 0, 1, 2, 3, 4
HIGHEST_SIZE = MAX_EXPONENT * math.log2(math.e)  # of a row of the plan, in base 2


@cache
def online(form: int, kind: int, dim: int, mode: int) -> Kernel:
    """Sums around the running maximum of each row, which need no guess.

    SOFTMIN   out[i, 0] = -eps log sum_j exp(h[j] - C[i, j] / eps), only for the rows in `index`
    APPLY     out[i, c] = sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j, c], `values` as `weigh` takes them
    GRADIENT  out[i, c] = sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_c C(x[i], y[j]), up to the factor
    COST      out[i, c] = -log2(e) / eps sum_j C[i, j] v[j, c], weights and reference being 0
    TANGENTS  what `tangents.turn` sums for some directions, which `moves` are

    With more parts than one, partial[part, i, :] becomes the maximum, the sum of weights and those with values, beside
    the maximum, for `parts.combined`.
    """
    keep = mode != SOFTMIN

    def online(
        x, centre, index, lines, tree, matrix, weights, tops, reference, scale, limit, capacity, spare,
        k, eps, values, moves, parts, begin, end, out, partial,
    ):  # fmt: skip
        q = out.shape[1]
        rows, columns = np.empty((BLOCK, x.shape[1]), x.dtype), np.empty((dim + 1, capacity * GROUP), x.dtype)
        z, best, sums = np.empty((ROWS, capacity * GROUP), x.dtype), np.empty(BLOCK, x.dtype), np.empty(BLOCK)
        frame, rho, starts = np.empty(4 + 3 * dim), np.empty(BLOCK), np.empty(capacity, np.int64)
        groups = np.empty(len(weights) // GROUP, np.int64)
        negated, top, depth = np.empty(BLOCK, x.dtype), np.empty(ROWS, x.dtype), np.empty(BLOCK)
        totals, plain, turned = np.empty((BLOCK, q)), np.empty_like(rows), np.empty((ROWS, 2 * GROUP), x.dtype)
        for piece in range(begin, end):
            block, part = piece // parts, piece % parts
            least, most = span(part, parts, len(groups))
            first = block * BLOCK
            count = min(BLOCK, len(index) - first)
            image = open_block(
                form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale,
                rows, frame, rho,
            )  # fmt: skip
            if form == FLAT and mode != COST:
                references(kind, dim, lines, weights, scale, rows, rho)
            # A row at `move` has the logit 0 with the image, the origin of the columns: its maximum is not below. Of a
            # part it may be.
            floor, bar = 0.0 if form == NEAR and kind == SQUARE and image >= 0 and parts == 1 else -1e30, limit
            for _again in range(2):
                for i in range(BLOCK):
                    best[i], sums[i], depth[i] = -1e30, 0.0, -floor
                    for c in range(q):
                        totals[i, c] = 0.0
                    for c in range(x.shape[1] if mode in (GRADIENT, TANGENTS) else 0):
                        plain[i, c] = rows[i, c]
                        # rows are scaled, and have another origin
                        if form == NEAR and kind == SQUARE and i < count:
                            plain[i, c] = x[index[first + i], c] - frame[2 + dim + c]
                level = raise_level(form, kind, dim, rows, depth, count, frame)
                found, left_out = candidates(form, kind, dim, tree, tops, frame, level, bar, least, most, groups)
                start: Any = np.int64(0)
                for p in range(found if form == NEAR and image >= 0 else 0):
                    if groups[p] <= image // GROUP:
                        start = p  # the groups near the image come first: they show what the others can add
                for around in range(2):
                    cursor, stop = (start, found) if around == 0 else (np.int64(0), start)
                    while cursor < stop:
                        cursor, filled, _, left_out = fill(
                            form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop,
                            level, bar, left_out,
                        )  # fmt: skip
                        if filled == 0:
                            continue
                        width = width_of(starts, filled, len(groups), spare)
                        for r in range(0, count, ROWS):
                            logits(
                                form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts,
                                filled, width, scale, columns, z,
                            )  # fmt: skip
                            if mode != COST:
                                peaks(z, width, top)
                                for i in range(ROWS):
                                    if top[i] > best[r + i]:
                                        fade = 2.0 ** np.float64(best[r + i] - top[i])
                                        sums[r + i] *= fade
                                        for c in range(q if keep else 0):
                                            totals[r + i, c] *= fade
                                        best[r + i] = top[i]
                                    negated[r + i] = -best[r + i]
                                    depth[r + i] = -max(np.float64(best[r + i]), floor)
                                exponentials(False, False, keep, z, width, negated, r, count, sums, z)
                            if mode in (APPLY, COST):
                                for c in range(q // 2):
                                    weigh(z, width, starts, values, c, totals, r)
                            if mode == GRADIENT:
                                add_slopes(form, kind, plain, r, lines, starts, width, columns, z, totals)
                            if mode == TANGENTS:
                                add_tangents(
                                    form, kind, plain, r, first, lines, starts, width, columns, z, scale, moves,
                                    turned, totals,
                                )  # fmt: skip
                        if mode != COST:
                            level = raise_level(form, kind, dim, rows, depth, count, frame)
                found = 0
                for i in range(count):
                    found += 1 if sums[i] > 0 else 0
                if found == count or floor < 0 or mode == COST:
                    break
                floor, bar = -1e30, -np.inf  # rounding of huge logits can hide even the image: then all columns count
            for i in range(count):
                row = index[first + i]
                height = np.float64(best[i]) + rho[i]
                if parts > 1:
                    partial[part, row, 0], partial[part, row, 1] = height if sums[i] > 0 else -np.inf, sums[i]
                    for c in range(q if keep else 0):
                        partial[part, row, 2 + c] = totals[i, c]
                elif mode == SOFTMIN:
                    out[row, 0] = -eps * math.log(2.0) * (math.log2(sums[i]) + height) if sums[i] > 0 else np.inf
                else:
                    size = 1.0 if mode == COST else 2.0 ** min(height + math.log2(math.e) * k[row], HIGHEST_SIZE)
                    for c in range(q):
                        out[row, c] = totals[i, c] * size

    return compiled(online)
