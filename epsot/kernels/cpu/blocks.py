"""What a reduction asks of a cost, block by block: the rows, the next columns, their logits.

A cost comes in one of three forms, chosen at compile time:
NEAR    points with d <= 3; rows and columns move to local origins, and columns far below the sums are left out;
TILED   points of any dimension around one centre, stored as (groups, d * 64);
STORED  a matrix.
All logits are in base 2: log2(e) (h[j] - C[i, j] / eps) = rho[i] + t[i, j] with `scale` = log2(e) factor / eps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import overload

from epsot.kernels.cpu.compiled import Kernel
from epsot.kernels.cpu.place import place
from epsot.kernels.cpu.products import slopes
from epsot.kernels.cpu.stored import item_at, logits_across, logits_along
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, GROUP, ROWS, SQUARE, logits_near, logits_tiled
from epsot.kernels.cpu.vectors import constant

__all__ = ["CITYBLOCK", "EUCLIDEAN", "NEAR", "SQUARE", "STORED", "TILED"]

NEAR, TILED, STORED = 0, 1, 2
BLOCK = 64  # rows
SAMPLES = 256  # columns that are tried as the image of a block


def open_block(*arguments: Any) -> None:
    """Rows index[first : first + count] into `rows`, their constants into `rho`, the local origins into `frame`."""


def fill(*arguments: Any) -> Any:
    """The next columns into the buffer: -> (next group, groups in the buffer, upper bound of their logits)."""


def logits(*arguments: Any) -> None:
    """z[i, j] = t[r + i, j] for four rows and the columns in the buffer."""


def add_slopes(*arguments: Any) -> None:
    """sums[r + i, k] += sum_j z[i, j] grad_k C(x[i], y[j]), up to the factor of the cost, over the buffer."""


@overload(open_block, prefer_literal=True, strict=False)
def _open_block(
    form: Any, kind: Any, dim: Any, x: Any, centre: Any, index: Any, first: Any, count: Any, lines: Any,
    weights: Any, reference: Any, scale: Any, rows: Any, frame: Any, rho: Any,
) -> Kernel:  # fmt: skip
    square, d = constant(kind) == SQUARE, constant(dim)

    def near(form, kind, dim, x, centre, index, first, count, lines, weights, reference, scale, rows, frame, rho):  # type: ignore[no-untyped-def]
        frame[0] = scale
        for k in range(d):  # the middle of the box around the rows
            low = high = np.float64(x[index[first], k])
            for i in range(1, count):
                low, high = min(low, x[index[first + i], k]), max(high, x[index[first + i], k])
            frame[2 + k] = 0.5 * (low + high)
        # The image: where the plan sends the centre, roughly. With the second origin there, the logits that matter are
        # small, and float32 resolves them.
        best, image = -np.inf, -1
        for j in range(0, len(weights), 1 + len(weights) // SAMPLES):
            length = 0.0
            for k in range(d):
                length += (lines[k, j] - frame[2 + k]) ** 2
            value = weights[j] - (0.5 * scale * length if square else scale * math.sqrt(length))
            if value > best:
                best, image = value, j
        frame[1] = 0.0
        if image >= 0:
            frame[1] = best if square else weights[image]
        for k in range(d):
            frame[2 + d + k] = lines[k, image] if square and image >= 0 else frame[2 + k]
            frame[2 + 2 * d + k] = 0.0
        for i in range(BLOCK):
            rho[i] = frame[1]
            for k in range(d):
                move = np.float64(x[index[first + i], k]) - frame[2 + k] if i < count else 0.0
                rows[i, k] = scale * move
                frame[2 + 2 * d + k] = max(frame[2 + 2 * d + k], abs(scale * move))
                if square:
                    rho[i] += scale * move * (frame[2 + d + k] - frame[2 + k] - 0.5 * move)

    def tiled(form, kind, dim, x, centre, index, first, count, lines, weights, reference, scale, rows, frame, rho):  # type: ignore[no-untyped-def]
        frame[1] = reference
        for i in range(BLOCK):
            length = 0.0
            for k in range(x.shape[1]):
                move = np.float64(x[index[first + i], k]) - centre[k] if i < count else 0.0
                rows[i, k] = move
                length += move * move
            rho[i] = reference - 0.5 * scale * length if square else reference

    def stored(form, kind, dim, x, centre, index, first, count, lines, weights, reference, scale, rows, frame, rho):  # type: ignore[no-untyped-def]
        frame[1] = reference
        for i in range(BLOCK):
            rho[i] = reference

    return (near, tiled, stored)[int(constant(form))]


@overload(fill, prefer_literal=True, strict=False)
def _fill(
    form: Any, kind: Any, dim: Any, lines: Any, weights: Any, frame: Any, columns: Any, starts: Any, cursor: Any,
    stop: Any, cutoff: Any,
) -> Kernel:  # fmt: skip
    metric, d = constant(kind), constant(dim)

    def near(form, kind, dim, lines, weights, frame, columns, starts, cursor, stop, cutoff):  # type: ignore[no-untyped-def]
        filled, bound = 0, -np.inf
        while cursor < stop and filled < len(starts):
            top = place(metric, d, lines, weights, cursor * GROUP, frame, columns, filled * GROUP)
            if top >= cutoff:
                starts[filled] = cursor
                filled += 1
                bound = max(bound, top)
            cursor += 1
        return cursor, filled, bound

    def direct(form, kind, dim, lines, weights, frame, columns, starts, cursor, stop, cutoff):  # type: ignore[no-untyped-def]
        filled = min(stop - cursor, len(starts))
        for j in range(filled * GROUP):
            columns[0, j] = weights[cursor * GROUP + j] - frame[1]
        for p in range(filled):
            starts[p] = cursor + p
        return cursor + filled, filled, np.inf

    return near if constant(form) == NEAR else direct


@overload(logits, prefer_literal=True, strict=False)
def _logits(
    form: Any, kind: Any, dim: Any, rows: Any, r: Any, lines: Any, matrix: Any, index: Any, first: Any, starts: Any,
    filled: Any, scale: Any, columns: Any, z: Any,
) -> Kernel:  # fmt: skip
    metric, d = constant(kind), constant(dim)

    def near(form, kind, dim, rows, r, lines, matrix, index, first, starts, filled, scale, columns, z):  # type: ignore[no-untyped-def]
        logits_near(metric, d, rows, r, columns, filled * GROUP, z)

    def tiled(form, kind, dim, rows, r, lines, matrix, index, first, starts, filled, scale, columns, z):  # type: ignore[no-untyped-def]
        factor = scale if metric == SQUARE else -scale
        for p in range(filled):
            logits_tiled(metric, rows, r, lines, starts[p], factor, columns, p * GROUP, z)

    def stored(form, kind, dim, rows, r, lines, matrix, index, first, starts, filled, scale, columns, z):  # type: ignore[no-untyped-def]
        address, down, right, m = matrix[0], matrix[1], matrix[2], matrix[3]
        start = starts[0] * GROUP  # the groups of a stored matrix are never left out: they are neighbours
        address += start * right
        inside = min(filled * GROUP, m - start)
        last = len(index) - 1
        one, four = index[min(first + r, last)], index[min(first + r + ROWS - 1, last)]
        done = 0
        if right != z.itemsize and down == z.itemsize and four - one == ROWS - 1:
            done = inside // ROWS * ROWS
            logits_across(address + one * down, right, -scale, columns, done, z)
        for i in range(ROWS):
            row = address + index[min(first + r + i, last)] * down
            j = done
            if right == z.itemsize:
                j = inside // 16 * 16
                logits_along(row, -scale, columns, j, z, i)
            while j < inside:
                z[i, j] = columns[0, j] - scale * item_at(row + j * right, z)
                j += 1
            while j < filled * GROUP:
                z[i, j] = -np.inf
                j += 1

    return (near, tiled, stored)[int(constant(form))]


@overload(add_slopes, prefer_literal=True, strict=False)
def _add_slopes(
    form: Any, kind: Any, rows: Any, r: Any, lines: Any, starts: Any, filled: Any, columns: Any, z: Any, sums: Any
) -> Kernel:
    metric = constant(kind)

    def near(form, kind, rows, r, lines, starts, filled, columns, z, sums):  # type: ignore[no-untyped-def]
        width = columns.shape[1]
        for p in range(filled):
            slopes(metric, rows, r, columns, width + p * GROUP, width, z, p * GROUP, sums)

    def tiled(form, kind, rows, r, lines, starts, filled, columns, z, sums):  # type: ignore[no-untyped-def]
        for p in range(filled):
            slopes(metric, rows, r, lines, starts[p] * lines.shape[1], GROUP, z, p * GROUP, sums)

    return near if constant(form) == NEAR else tiled
