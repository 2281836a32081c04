"""What follows from the potentials of many small problems: derivatives in the points, values where there is no weight.

Every kernel runs over the items begin, begin + 1, ... < end of a batch, in memory that one thread has for all of them.
"""

from __future__ import annotations

import math

import numpy as np

from epsot.kernels.cpu.compiled import compiled, spliced, uncounted
from epsot.kernels.cpu.dense import ABREAST_ROWS, add_columns, factors_around, powers, powers_of_rows, row_products
from epsot.kernels.cpu.items import STORED, read_costs, read_side
from epsot.kernels.cpu.lines import product
from epsot.kernels.cpu.resident import (
    LEAST_32,
    LEAST_64,
    LOG_2,
    MOST_32,
    MOST_64,
    Side,
    block_of,
    columns_ahead,
    padded,
    rows_ahead,
)
from epsot.kernels.cpu.slope_lines import powers_around, scaled_line, slope_line
from epsot.kernels.cpu.solves import copy
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, SQUARE

CLEAR = 64.0  # times its weight, what a row may have for its sums to show a difference of points and no rounding


def _softmin_anywhere(costs, side, g, scale, line, terms):
    """-log2 sum_j b[j] 2^((g[j] - costs[j]) scale) / scale, around the largest term."""
    top = -np.inf
    for j in range(side.size):
        line[j] = (g[j] - costs[j]) * scale
        top = max(top, line[j])
    for j in range(side.size):
        line[j] -= top
    for j in range(side.size, side.width):
        line[j] = 0.0
    powers(line, side.width, terms)
    total = 0.0
    for j in range(side.size):
        total += side.weights[j] * terms[j]
    return -(math.log2(total) + top) / scale


softmin_anywhere = uncounted(_softmin_anywhere)


def _distance_to(items, p, i, j):
    """C between the point i of the first side and j of the second; of a matrix the entry."""
    x, y = items.first[0, p] + i, items.first[1, p] + j
    if items.kind == STORED:
        return np.float64(items.x[x, y])
    total = 0.0
    for k in range(items.x.shape[1]):
        move = np.float64(items.x[x, k]) - np.float64(items.y[y, k])
        total += abs(move) if items.kind == CITYBLOCK else move * move
    if items.kind == EUCLIDEAN:
        total = math.sqrt(total)
    return total * items.factor * (0.5 if items.kind == SQUARE else 1.0)


distance_to = uncounted(_distance_to)


def _extend_items(items, room, place, begin, end, base, out):
    """out = next_f(base) at the points without weight of the first side of each item; base lies as g, out as f does."""
    for p in range(begin, end):
        n_all, eps = items.sizes[0, p], items.eps[p]
        n, _, _ = read_side(items.a, items.first[2, p], n_all, place.kept_a, place.a)
        if n == n_all:
            continue
        if items.own:
            m, mass, _ = read_side(items.a, items.first[2, p], n_all, place.kept_b, place.b)
        else:
            m, mass, _ = read_side(items.b, items.first[3, p], items.sizes[1, p], place.kept_b, place.b)
        b, g = Side(place.b[0], place.b[1], m, padded(m), mass, np.inf), room.lines[3]
        for j in range(m):
            g[j] = base[items.first[4 if items.own else 5, p] + place.kept_b[j]]
        scale, damp, cursor = 1.0 / (LOG_2 * eps), 1.0 + eps / items.rho[0, p], 0
        for i in range(n_all):
            if cursor < n and place.kept_a[cursor] == i:
                cursor += 1
                continue
            for j in range(m):
                room.lines[2, j] = distance_to(items, p, i, place.kept_b[j])
            found = softmin_anywhere(room.lines[2], b, g, scale, room.lines[0], room.lines[1])
            out[items.first[4, p] + i] = found / damp


extend_items = compiled(_extend_items, _nrt=False)


def _spread_out(place, items, a, b):
    """Coordinates from the mean of the columns, where differences of sums lose least."""
    for k in range(items.x.shape[1]):
        centre = product(b.weights, place.lines[k], b.width) / b.mass
        for i in range(a.width):
            place.x[k, i] -= centre
        for j in range(b.width):
            place.lines[k, j] -= centre


spread_out = spliced(_spread_out)


def _row_slopes(items, p, room, place, a, b, f, g, extension, eps, out):
    """out[i] = sum_j exp((extension[i] + g[j] - C[i, j]) / eps) b[j] (x[i] - y[j]), of f that is near the optimal one.

    The matrix serves as it is, or is made anew. What the columns are weighted with is left for `column_slopes`.
    """
    scale, sums, line, v = 1.0 / (LOG_2 * eps), room.lines[0], room.lines[1], room.lines[2]
    least, most = (LEAST_32, MOST_32) if room.matrix.itemsize == 4 else (LEAST_64, MOST_64)
    anew, reach = columns_ahead(room, a, b, f, g, scale)
    block = block_of(b.width)
    for first in range(0, a.width, block):
        rows_ahead(room, a, b, first, min(first + block, a.width), anew, least * reach * b.mass, most, scale)
    powers_around(extension, scale, room.row_reference, a.width, v)
    first = items.first[4, p]
    for k in range(items.x.shape[1]):
        scaled_line(room.column_weights, place.lines[k], b.width, room.row_weights_of_columns)
        row_products(room.matrix, 0, a.size, room.row_weights_of_columns, b.width, sums)
        slope_line(place.x[k], room.row_sums, sums, items.factor, v, a.width, line)
        for i in range(a.size):
            out[first + i, k] = line[i]


row_slopes = spliced(_row_slopes)


def _column_slopes(items, p, room, place, a, b, f, extension, eps, out):
    """The same of the second side, by the matrix that `row_slopes` has left."""
    scale, first, factors, sums = 1.0 / (LOG_2 * eps), items.first[5, p], room.row_weights, room.column_sums
    whole, line, v, weights = room.lines[0], room.lines[1], room.lines[2], room.lines[3]
    factors_around(f, scale, room.row_reference, a.weights, 0, a.width, room.ends, weights)
    powers_around(extension, scale, room.column_reference, b.width, v)
    for k in range(-1, items.x.shape[1]):
        if k < 0:
            copy(weights, a.width, factors)
        else:
            scaled_line(weights, place.x[k], a.width, factors)
        for j in range(b.width):
            sums[j] = 0.0
        add_columns(False, room.matrix, 0, a.size, factors, b.width, sums)
        if k < 0:
            copy(sums, b.width, whole)
            continue
        slope_line(place.lines[k], whole, sums, items.factor, v, b.width, line)
        for j in range(b.size):
            out[first + j, k] = line[j]


column_slopes = spliced(_column_slopes)


def _slope_of_row(items, i, row, place, b, costs, matrix, out, at):
    """out[at] = sum_j matrix[row, j] b[j] grad_1 C, of the costs that are no squares."""
    for k in range(out.shape[1]):
        total, here = 0.0, place.x[k, row]
        for j in range(b.size):
            move = here - place.lines[k, j]
            part = np.float64(matrix[row, j]) * b.weights[j]
            if items.kind == CITYBLOCK:
                total += part if move > 0.0 else (-part if move < 0.0 else 0.0)
            elif costs[row, j] > 0.0:
                total += part * move * items.factor / costs[row, j]
        out[at, k] = total * (items.factor if items.kind == CITYBLOCK else 1.0)


slope_of_row = uncounted(_slope_of_row)


def _slope_exactly(items, row, place, b, costs, scale, height, lifts, out, at):
    """out[at] = sum_j 2^(height + lifts[j] - scale C[row, j]) b[j] grad_1 C, where the matrix has no such numbers."""
    for k in range(out.shape[1]):
        out[at, k] = 0.0
    for j in range(b.size):
        part = b.weights[j] * 2.0 ** (height + lifts[j] - scale * costs[row, j]) * items.factor
        for k in range(out.shape[1]):
            move = place.x[k, row] - place.lines[k, j]
            if items.kind == CITYBLOCK:
                out[at, k] += part if move > 0.0 else (-part if move < 0.0 else 0.0)
            elif items.kind == SQUARE:
                out[at, k] += part * move if move != 0.0 else 0.0
            elif costs[row, j] > 0.0 and move != 0.0:
                out[at, k] += part * (move * items.factor / costs[row, j])


slope_exactly = uncounted(_slope_exactly)


def _centre(lines, count, centre):
    """The mean of some points, given in lines."""
    for k in range(len(centre)):
        centre[k] = 0.0
        for j in range(count):
            centre[k] += lines[k, j]
        centre[k] /= count


centre_of = uncounted(_centre)


def _slope_items(items, room, place, begin, end, extension, base, out):
    """out = sum_j exp((extension[i] + base[j] - C[i, j]) / eps) b[j] grad_1 C(x[i], y[j]) for every point of each item.

    extension lies as f does, base as g; of a measure with itself both as f.
    """
    d, centre, most = items.x.shape[1], place.centre, MOST_32 if room.matrix.itemsize == 4 else MOST_64
    if items.kind == SQUARE:
        most = CLEAR
    for p in range(begin, end):
        n, m_all, scale = items.sizes[0, p], items.sizes[0 if items.own else 1, p], 1.0 / (LOG_2 * items.eps[p])
        of_f, of_g = items.first[4, p], items.first[4 if items.own else 5, p]
        if items.own:
            m, mass, _ = read_side(items.a, items.first[2, p], m_all, place.kept_b, place.b)
        else:
            m, mass, _ = read_side(items.b, items.first[3, p], m_all, place.kept_b, place.b)
        b = Side(place.b[0], place.b[1], m, padded(m), mass, np.inf)
        for i in range(n):
            place.kept_a[i] = i
        read_costs(items, p, n, m, place, room, False)
        for j in range(m):
            room.column_reference[j] = base[of_g + place.kept_b[j]] * scale
        for j in range(m, b.width):
            room.column_reference[j] = -np.inf
        for j in range(b.width):
            room.column_weights[j] = b.weights[j] if j < m else 0.0
        for i in range(n):
            room.row_reference[i] = extension[of_f + i] * scale
        for r in range(0, n, ABREAST_ROWS):
            powers_of_rows(
                room.costs, r, n - 1, scale, room.row_reference, room.column_reference, room.column_weights, b.width,
                room.matrix, room.row_sums,
            )  # fmt: skip
        if items.kind != SQUARE:
            for i in range(n):
                slope_of_row(items, i, i, place, b, room.costs, room.matrix, out, of_f + i)
        centre_of(place.lines, m, centre)
        sums = room.lines[0]
        for k in range(d if items.kind == SQUARE else 0):
            for j in range(m):
                room.column_weights[j] = b.weights[j] * (place.lines[k, j] - centre[k])
            row_products(room.matrix, 0, n, room.column_weights, b.width, sums)
            for i in range(n):
                out[of_f + i, k] = items.factor * ((place.x[k, i] - centre[k]) * room.row_sums[i] - sums[i])
        for i in range(n):
            if not room.row_sums[i] <= most:
                slope_exactly(
                    items, i, place, b, room.costs, scale, extension[of_f + i] * scale, room.column_reference, out,
                    of_f + i,
                )  # fmt: skip


slope_items = compiled(_slope_items, _nrt=False)
