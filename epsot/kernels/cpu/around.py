"""Sums with values around a guess of each row; the arguments are those of `reductions`."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from epsot.kernels.cpu.blocks import BLOCK, FLAT, candidates, fill, logits, open_block, raise_level
from epsot.kernels.cpu.compiled import Kernel, compiled
from epsot.kernels.cpu.online import HIGHEST_SIZE
from epsot.kernels.cpu.parts import LARGEST, SMALLEST, width_of
from epsot.kernels.cpu.products import weigh, weighed_exponentials
from epsot.kernels.cpu.reductions import HIGHEST_32, HIGHEST_64
from epsot.kernels.cpu.sweeps import GROUP, ROWS, exponentials


@cache
def value_sums(form: int, kind: int, dim: int) -> Kernel:
    """out[i, c] = sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j, c], `values` as `weigh` takes them.

    `alone`: only the first column has values. scale_of_guess guess[i] is that of the negative logarithm of
    sum_j exp(h[j] - C[i, j] / eps), in base 2. Rows where it was too far off, or where what was left out may matter,
    become nan.  -> their number
    """

    def value_sums(
        x, centre, index, lines, tree, matrix, weights, tops, reference, scale, limit, capacity, spare,
        k, guess, scale_of_guess, values, alone, begin, end, out,
    ):  # fmt: skip
        q = out.shape[1]
        rows, columns = np.empty((BLOCK, x.shape[1]), x.dtype), np.empty((dim + 1, capacity * GROUP), x.dtype)
        z, offset, sums = np.empty((ROWS, capacity * GROUP), x.dtype), np.empty(BLOCK, x.dtype), np.empty(BLOCK)
        frame, rho, starts = np.empty(4 + 3 * dim), np.empty(BLOCK), np.empty(capacity, np.int64)
        groups, totals = np.empty(len(weights) // GROUP, np.int64), np.empty((BLOCK, q))
        high = HIGHEST_32 if z.itemsize == 4 else HIGHEST_64
        lost = 0
        for block in range(begin, end):
            first = block * BLOCK
            count = min(BLOCK, len(index) - first)
            open_block(
                form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale,
                rows, frame, rho,
            )  # fmt: skip
            for i in range(BLOCK):
                size = scale_of_guess * guess[index[first + i]] if i < count else np.inf
                if form == FLAT and abs(size) < 1e30:
                    rho[i] = -size
                shift = rho[i] + size
                offset[i] = shift if abs(shift) < 1e30 else -1e30
                sums[i] = 0.0
                for c in range(q):
                    totals[i, c] = 0.0
            level = raise_level(form, kind, dim, rows, offset, count, frame)
            cursor = 0
            stop, left_out = candidates(form, kind, dim, tree, tops, frame, level, limit, 0, len(groups), groups)
            while cursor < stop:
                cursor, filled, bound, left_out = fill(
                    form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop,
                    level, limit, left_out,
                )  # fmt: skip
                if filled == 0:
                    continue
                width = width_of(starts, filled, len(groups), spare)
                for r in range(0, count, ROWS):
                    logits(
                        form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled,
                        width, scale, columns, z,
                    )  # fmt: skip
                    if alone and bound + level < high:
                        weighed_exponentials(False, z, width, offset, r, count, starts, values, sums, totals)
                    elif alone:
                        weighed_exponentials(True, z, width, offset, r, count, starts, values, sums, totals)
                    else:
                        exponentials(True, False, True, z, width, offset, r, count, sums, z)
                        for c in range(q // 2):
                            weigh(z, width, starts, values, c, totals, r)
            for i in range(count):
                row, total = index[first + i], sums[i]
                if SMALLEST <= total <= LARGEST and left_out <= 2.0 * 2.0**limit * total:
                    height = rho[i] - np.float64(offset[i]) + math.log2(math.e) * k[row]
                    size = 2.0 ** min(height, HIGHEST_SIZE)
                    for c in range(q):
                        out[row, c] = totals[i, c] * size
                else:
                    lost += 1
                    for c in range(q):
                        out[row, c] = np.nan
        return lost

    return compiled(value_sums)
