"""What a reduction asks of a cost, block by block: the rows, the next columns, their logits.

A cost comes in one of four forms, chosen at compile time:
NEAR    points with d <= 3; rows and columns move to local origins, and columns far below the sums are left out;
TILED   points of any dimension around one centre, stored as (groups, d * 64);
STORED  a matrix;
FLAT    points with d <= 3, few of them against many: nothing is ordered or left out, as few points far apart leave no
        block compact; logits are computed in float64 and rounded around a reference of each row.
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
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, GROUP, ROWS, SQUARE, logits_flat, logits_near, logits_tiled
from epsot.kernels.cpu.tree import GROUP_BITS, SHARE_BITS, gather, level_of, peak
from epsot.kernels.cpu.vectors import constant

__all__ = ["CITYBLOCK", "EUCLIDEAN", "FLAT", "NEAR", "SQUARE", "STORED", "TILED"]

NEAR, TILED, STORED, FLAT = 0, 1, 2, 3
BLOCK = 64  # rows
SAMPLES = 256  # columns that are tried as the image of a block


def open_block(*arguments: Any) -> Any:
    """Rows index[first : first + count] into `rows`, their constants into `rho`, the local origins into `frame`.

    -> the column to which the plan sends the centre of the rows, roughly; -1 where there is none, or no centre
    """


def references(*arguments: Any) -> None:
    """rho[i] = the largest logit of row i among some columns, all where there are few, 0 where it is -inf; of FLAT."""


def raise_level(*arguments: Any) -> Any:
    """-> the level from which weights are bounded, given the offsets of the rows: the highest."""


def candidates(*arguments: Any) -> Any:
    """The groups from `least` to before `most` that may matter to the block, into `groups`.

    -> (how many, mass left out)
    """


def fill(*arguments: Any) -> Any:
    """The next candidates into the buffer, but for those on which a closer bound says that they do not matter.

    -> (next candidate, groups in the buffer, upper bound of their logits, mass left out)
    """


def logits(*arguments: Any) -> None:
    """z[i, j] = t[r + i, j] for four rows, as far as there are so many, and the columns in the buffer."""


def add_slopes(*arguments: Any) -> None:
    """sums[r + i, k] += sum_j z[i, j] grad_k C(x[i], y[j]), up to the factor of the cost, over the buffer."""


@overload(open_block, prefer_literal=True, strict=False)
def _open_block(
    form: Any, kind: Any, dim: Any, x: Any, centre: Any, index: Any, first: Any, count: Any, lines: Any, tree: Any,
    weights: Any, tops: Any, reference: Any, scale: Any, rows: Any, frame: Any, rho: Any,
) -> Kernel:  # fmt: skip
    metric, d = constant(kind), constant(dim)
    square = metric == SQUARE

    def near(  # type: ignore[no-untyped-def]
        form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale, rows, frame, rho
    ):  # fmt: skip
        frame[0] = scale
        for k in range(d):  # the middle of the box around the rows
            low = high = np.float64(x[index[first], k])
            for i in range(1, count):
                low, high = min(low, x[index[first + i], k]), max(high, x[index[first + i], k])
            frame[2 + k] = 0.5 * (low + high)
        # The image: where the plan sends the centre, roughly. With the second origin there, the logits that matter are
        # small, and float32 resolves them.
        best, image = -np.inf, np.int64(-1)  # of -1 as it stands Numba makes a type, and compiles `peak` for it, too
        for j in range(0, len(weights), 1 + len(weights) // SAMPLES):
            length = 0.0
            for k in range(d):
                length += (lines[k, j] - frame[2 + k]) ** 2
            value = weights[j] - (0.5 * scale * length if square else scale * math.sqrt(length))
            if value > best:
                best, image = value, j
        best, image = peak(metric, d, tree, tops, lines, weights, scale, frame, 2, best, image)
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
        return image

    def tiled(  # type: ignore[no-untyped-def]
        form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale, rows, frame, rho
    ):  # fmt: skip
        frame[1] = reference
        for i in range(BLOCK):
            length = 0.0
            for k in range(x.shape[1]):
                move = np.float64(x[index[first + i], k]) - centre[k] if i < count else 0.0
                rows[i, k] = move
                length += move * move
            rho[i] = reference - 0.5 * scale * length if square else reference
        return -1

    def stored(  # type: ignore[no-untyped-def]
        form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale, rows, frame, rho
    ):  # fmt: skip
        frame[1] = reference
        for i in range(BLOCK):
            rho[i] = reference
        return -1

    def flat(  # type: ignore[no-untyped-def]
        form, kind, dim, x, centre, index, first, count, lines, tree, weights, tops, reference, scale, rows, frame, rho
    ):  # fmt: skip
        for i in range(BLOCK):
            for k in range(d):
                rows[i, k] = x[index[first + i], k] if i < count else 0.0
            rho[i] = 0.0
        return -1

    return (near, tiled, stored, flat)[int(constant(form))]


@overload(references, prefer_literal=True, strict=False)
def _references(kind: Any, dim: Any, lines: Any, weights: Any, scale: Any, rows: Any, rho: Any) -> Kernel:
    metric, d = constant(kind), constant(dim)

    def flat(kind, dim, lines, weights, scale, rows, rho):  # type: ignore[no-untyped-def]
        for i in range(BLOCK):
            best = -np.inf
            for j in range(0, len(weights), 1 + len(weights) // SAMPLES):
                length = 0.0
                for k in range(d):
                    step = np.float64(rows[i, k]) - np.float64(lines[k, j])
                    length += abs(step) if metric == CITYBLOCK else step * step
                cost = 0.5 * length if metric == SQUARE else math.sqrt(length) if metric == EUCLIDEAN else length
                best = max(best, weights[j] - scale * cost)
            rho[i] = best if abs(best) < 1e30 else 0.0

    return flat


@overload(raise_level, prefer_literal=True, strict=False)
def _raise_level(form: Any, kind: Any, dim: Any, rows: Any, offset: Any, count: Any, frame: Any) -> Kernel:
    metric, d = constant(kind), constant(dim)

    def near(form, kind, dim, rows, offset, count, frame):  # type: ignore[no-untyped-def]
        return level_of(metric, d, rows, offset, count, frame)

    def direct(form, kind, dim, rows, offset, count, frame):  # type: ignore[no-untyped-def]
        top = -1e30
        for i in range(count):
            top = max(top, np.float64(offset[i]))
        return top

    return near if constant(form) == NEAR else direct


@overload(candidates, prefer_literal=True, strict=False)
def _candidates(
    form: Any, kind: Any, dim: Any, tree: Any, tops: Any, frame: Any, level: Any, limit: Any, least: Any, most: Any,
    groups: Any,
) -> Kernel:  # fmt: skip
    metric, d = constant(kind), constant(dim)

    def near(form, kind, dim, tree, tops, frame, level, limit, least, most, groups):  # type: ignore[no-untyped-def]
        return gather(metric, d, tree, tops, frame, level, limit, least, most, groups)

    def direct(form, kind, dim, tree, tops, frame, level, limit, least, most, groups):  # type: ignore[no-untyped-def]
        for g in range(least, most):
            groups[g - least] = g
        return most - least, 0.0

    return near if constant(form) == NEAR else direct


@overload(fill, prefer_literal=True, strict=False)
def _fill(
    form: Any, kind: Any, dim: Any, lines: Any, weights: Any, frame: Any, columns: Any, starts: Any, groups: Any,
    cursor: Any, stop: Any, level: Any, limit: Any, left_out: Any,
) -> Kernel:  # fmt: skip
    metric, d = constant(kind), constant(dim)

    def near(form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop, level, limit, left_out):  # type: ignore[no-untyped-def]
        filled, bound, budget = 0, -np.inf, 2.0**limit
        while cursor < stop and filled < len(starts):
            top = place(metric, d, lines, weights, groups[cursor] * GROUP, frame, columns, filled * GROUP)
            share = top + level + GROUP_BITS
            if share <= limit - SHARE_BITS and left_out + 2.0**share <= budget:
                left_out += 2.0**share
            else:
                starts[filled] = groups[cursor]
                filled += 1
                bound = max(bound, top)
            cursor += 1
        return cursor, filled, bound, left_out

    def direct(form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop, level, limit, left_out):  # type: ignore[no-untyped-def]
        filled, first = min(stop - cursor, len(starts)), groups[cursor]
        for j in range(filled * GROUP):
            columns[0, j] = weights[first * GROUP + j] - frame[1]
        for p in range(filled):
            starts[p] = first + p
        return cursor + filled, filled, np.inf, left_out

    def flat(form, kind, dim, lines, weights, frame, columns, starts, groups, cursor, stop, level, limit, left_out):  # type: ignore[no-untyped-def]
        filled = min(stop - cursor, len(starts))
        for p in range(filled):
            starts[p] = groups[cursor] + p
        return cursor + filled, filled, np.inf, left_out

    return (near, direct, direct, flat)[int(constant(form))]


@overload(logits, prefer_literal=True, strict=False)
def _logits(
    form: Any, kind: Any, dim: Any, rows: Any, r: Any, lines: Any, weights: Any, rho: Any, matrix: Any, index: Any,
    first: Any, count: Any, starts: Any, filled: Any, width: Any, scale: Any, columns: Any, z: Any,
) -> Kernel:  # fmt: skip
    metric, d = constant(kind), constant(dim)

    def near(  # type: ignore[no-untyped-def]
        form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled, width, scale,
        columns, z,
    ):  # fmt: skip
        logits_near(metric, d, rows, r, columns, width, z)

    def tiled(  # type: ignore[no-untyped-def]
        form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled, width, scale,
        columns, z,
    ):  # fmt: skip
        factor = scale if metric == SQUARE else -scale
        for p in range(filled):
            logits_tiled(metric, rows, r, lines, starts[p], factor, columns, p * GROUP, z)

    def stored(  # type: ignore[no-untyped-def]
        form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled, width, scale,
        columns, z,
    ):  # fmt: skip
        address, down, right, m = matrix[0], matrix[1], matrix[2], matrix[3]
        start = starts[0] * GROUP  # the groups of a stored matrix are never left out: they are neighbours
        address += start * right
        inside = min(width, m - start)
        last = len(index) - 1
        one, four = index[min(first + r, last)], index[min(first + r + ROWS - 1, last)]
        neighbours = first + r + ROWS - 1 <= last and four - one == ROWS - 1  # `index` rises, but may leave rows out
        done = 0
        if right != lines.itemsize and down == lines.itemsize and neighbours:
            done = inside // ROWS * ROWS
            logits_across(address + one * down, right, -scale, columns, done, z, lines)
        for i in range(ROWS):
            row = address + index[min(first + r + i, last)] * down
            j = done
            if right == lines.itemsize:
                j = inside // 16 * 16
                logits_along(row, -scale, columns, j, z, i, lines)
            while j < inside:
                z[i, j] = columns[0, j] - scale * item_at(row + j * right, lines)
                j += 1
            while j < width:
                z[i, j] = -np.inf
                j += 1

    def flat(  # type: ignore[no-untyped-def]
        form, kind, dim, rows, r, lines, weights, rho, matrix, index, first, count, starts, filled, width, scale,
        columns, z,
    ):  # fmt: skip
        factor = -0.5 * scale if metric == SQUARE else -scale
        logits_flat(metric, d, rows, r, lines, weights, starts[0] * GROUP, width, factor, rho, count, z)

    return (near, tiled, stored, flat)[int(constant(form))]


@overload(add_slopes, prefer_literal=True, strict=False)
def _add_slopes(
    form: Any, kind: Any, rows: Any, r: Any, lines: Any, starts: Any, width: Any, columns: Any, z: Any, sums: Any
) -> Kernel:
    metric = constant(kind)

    def near(form, kind, rows, r, lines, starts, width, columns, z, sums):  # type: ignore[no-untyped-def]
        line = columns.shape[1]
        for p in range(-(-width // GROUP)):
            slopes(metric, rows, r, columns, line + p * GROUP, line, z, p * GROUP, min(GROUP, width - p * GROUP), sums)

    def tiled(form, kind, rows, r, lines, starts, width, columns, z, sums):  # type: ignore[no-untyped-def]
        for p in range(-(-width // GROUP)):
            start, stop = starts[p] * lines.shape[1], min(GROUP, width - p * GROUP)
            slopes(metric, rows, r, lines, start, GROUP, z, p * GROUP, stop, sums)

    def flat(form, kind, rows, r, lines, starts, width, columns, z, sums):  # type: ignore[no-untyped-def]
        slopes(metric, rows, r, lines, starts[0] * GROUP, lines.shape[1], z, 0, width, sums)

    return flat if constant(form) == FLAT else near if constant(form) == NEAR else tiled
