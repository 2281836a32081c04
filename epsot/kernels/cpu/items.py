"""Many small problems, one after the other: what is read of each, its solve, and what is left of it.

Every kernel runs over the items begin, begin + 1, ... < end of a batch, in memory that one thread has for all of them.
What it writes of an item depends on this item alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.batches import UNSETTLED
from epsot.kernels.cpu.compiled import compiled, uncounted
from epsot.kernels.cpu.dense import ABREAST_ROWS, costs_of, powers, powers_of_row, row_products
from epsot.kernels.cpu.lines import logarithms
from epsot.kernels.cpu.resident import LOG_2, MOST_32, MOST_64, Side, damping, padded, update_both, update_self
from epsot.kernels.cpu.solves import (
    CONVERGED,
    SCHEDULE_ENDED,
    anneal,
    copy,
    logit_error,
    mass_called_for,
    schedule,
    settle_self,
    shift,
    violation_of,
)
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, SQUARE

STORED = 3  # the kind of a cost that is given pair by pair
LEAST_SHARE = 2.0**-40  # of the mass: lighter points are a matter of logarithms
LIGHT, HEAVY = 2.0**-60, 2.0**60  # masses whose products with everything else are finite in float32
RANGE = 1e8  # temperatures that a schedule may span: beyond, constants may hide potentials
STATUS, NIT, ERROR, MASS, VALUE, FIRST, START = range(7)  # of the numbers that are left of an item
NUMBERS = 7


class Items(NamedTuple):
    """A batch. The points, weights and potentials of all items lie in a row; items may share points or weights."""

    x: Any  # (N, d) points of the first side, or (N, M) costs
    y: Any
    kind: int
    factor: float
    first: Any  # (6, B) int64: where an item has its first x, y, a, b, f and g
    sizes: Any  # (2, B) int64: n and m
    a: Any  # weights in float64
    b: Any
    eps: Any  # (B,)
    start: Any  # (B,) temperature at which annealing starts
    rho: Any  # (2, B)
    own: bool  # each is a measure with itself: y and b are not read


class Asked(NamedTuple):
    """What is asked of a solve."""

    degree: float
    scaling: float
    tol: float
    max_iter: int
    fixed: bool  # whether annealing starts where it is said to, and not at the scale of what has weight


class Place(NamedTuple):
    """The memory of one thread, beside the `Room`."""

    x: Any  # (n, d) coordinates of the rows
    lines: Any  # (d, m) and of the columns
    centre: Any  # (d,)
    kept_a: Any  # int64: the points with weight
    kept_b: Any
    a: Any  # (2, n): weights and their logarithms
    b: Any


def _read_side(weights, first, size, kept, lines):
    """The points with weight, their weights and logarithms.  -> how many, the mass, the least weight"""
    count, mass, least = 0, 0.0, np.inf
    for i in range(size):
        weight = weights[first + i]
        if weight > 0.0:
            kept[count], lines[0, count] = i, weight
            count += 1
            mass += weight
            least = min(least, weight)
    width = padded(count)
    for i in range(count, width):
        lines[0, i] = 1.0
    logarithms(lines[0], width, lines[1])
    for i in range(count, width):
        lines[0, i], lines[1, i] = 0.0, -np.inf
    return count, mass, least


read_side = uncounted(_read_side)


def _read_costs(items, p, n, m, place, room):
    """The costs between the points with weight.  -> whether all of them are finite"""
    costs, finite = room.costs, True
    if items.kind == STORED:
        here, there = items.first[0, p], items.first[1, p]
        for i in range(n):
            row = here + place.kept_a[i]
            for j in range(m):
                costs[i, j] = items.x[row, there + place.kept_b[j]]
            for j in range(m, padded(m)):
                costs[i, j] = 0.0
            for j in range(m):
                finite &= abs(costs[i, j]) < np.inf
        return finite
    for k in range(items.x.shape[1]):
        first = items.first[0, p]
        for i in range(n):
            place.x[i, k] = items.x[first + place.kept_a[i], k]
        first = items.first[1, p]
        for j in range(m):
            place.lines[k, j] = items.y[first + place.kept_b[j], k]
        for j in range(m, padded(m)):
            place.lines[k, j] = 0.0
    if items.kind == SQUARE:
        for i in range(n):
            costs_of(SQUARE, place.x, i, place.lines, 0.5 * items.factor, padded(m), costs)
    elif items.kind == EUCLIDEAN:
        for i in range(n):
            costs_of(EUCLIDEAN, place.x, i, place.lines, items.factor, padded(m), costs)
    else:
        for i in range(n):
            costs_of(CITYBLOCK, place.x, i, place.lines, items.factor, padded(m), costs)
    return True


read_costs = uncounted(_read_costs)


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


def _descend(room, a, b, own, levels, count, f, g, new_f, new_g):
    """The schedule run once: `Symmetric`, or `SelfTransport` with a last plain update.

    (f, g) becomes the last mean, (new_f, new_g) the update of it.
    """
    n, m = a.size, 0 if own else b.size
    for i in range(n):
        f[i] = 0.0
    for j in range(m):
        g[j] = 0.0
    for number in range(-1, count + 1):  # the first step starts from a plain update
        eps = levels.eps[min(max(number, 0), count - 1)]
        if own:
            update_self(room, a, f, new_f, eps)
        else:
            update_both(room, a, b, f, g, new_f, new_g, eps)
        part = 1.0 if number < 0 else 0.5
        for i in range(n if number < count else 0):
            f[i] += part * (new_f[i] - f[i])
        for j in range(m if number < count else 0):
            g[j] += part * (new_g[j] - g[j])


descend = uncounted(_descend)


def _mass_of_plan(a, f, next_f, eps):
    """sum(P), of potentials and the next f."""
    mass = 0.0
    for i in range(a.size):
        mass += a.weights[i] * math.exp((f[i] - next_f[i] * damping(a, eps)) / eps)
    return mass


mass_of_plan = uncounted(_mass_of_plan)


def _share_of_value(side, f):
    """<a, f>, or rho <a, 1 - exp(-f / rho)>"""
    total = 0.0
    if side.rho == np.inf:
        for i in range(side.size):
            total += side.weights[i] * f[i]
        return total
    for i in range(side.size):
        total += side.weights[i] * math.expm1(-f[i] / side.rho)
    return -side.rho * total


share_of_value = uncounted(_share_of_value)


def _representable(side, f):
    """Whether the mass that f calls for is one to compute with."""
    if side.rho == np.inf:
        return True
    least = np.inf
    for i in range(side.size):
        least = min(least, f[i])
    return -least / side.rho < 300.0


representable = uncounted(_representable)


def _resolved(status, f, g, a, b, rules, eps, tol):
    """Whether the solver would leave it at this: `verification.verified` finds nothing to look at."""
    error = 2.0 * logit_error(f, g, a, b, eps)
    if not (math.isfinite(error) and representable(a, f) and representable(b, g)):
        return False
    if status != CONVERGED and rules.precision + error > rules.unresolved:
        return False
    return tol < 0.0 or rules.ulps * (rules.precision + error) <= tol


resolved = uncounted(_resolved)


def _usual(side, least, eps, start):
    """Whether weights and temperatures are those of everyday: the rest is the solver's."""
    return side.size > 0 and start <= RANGE * eps and LIGHT < side.mass < HEAVY and least > LEAST_SHARE * side.mass


usual = uncounted(_usual)


def _left(count, kept, z, first, out):
    """out[first + kept[i]] = z[i]"""
    for i in range(count):
        out[first + kept[i]] = z[i]


left = uncounted(_left)


def _extent_of(x, n, lines, m, d, sums):
    """The diagonal of the box around the points at hand; the squares are added in the order of NumPy."""
    largest = 0.0
    for turn in range(2):
        for k in range(8):
            sums[k] = 0.0
        total = 0.0
        for k in range(d):
            low, high = x[0, k], x[0, k]
            for i in range(1, n):
                low, high = min(low, x[i, k]), max(high, x[i, k])
            for j in range(m):
                low, high = min(low, lines[k, j]), max(high, lines[k, j])
            extent = high / 2.0 - low / 2.0
            if turn == 0:
                largest = max(largest, extent)
            elif d < 8 or k >= d - d % 8:
                total += (extent / largest) ** 2
            else:
                sums[k % 8] += (extent / largest) ** 2
                if k == d - d % 8 - 1:
                    total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
        if largest == 0.0:
            return 0.0
    return 2.0 * largest * math.sqrt(total)


extent_of = uncounted(_extent_of)


def _scale_of(items, n, m, place, room):
    """The temperature at which annealing starts: `Geometry.scale` of the points at hand."""
    costs = room.costs
    if items.kind == SQUARE or items.kind == EUCLIDEAN:
        extent = extent_of(place.x, n, place.lines, m, items.x.shape[1], room.lines[0])
        return extent * extent if items.kind == SQUARE else extent
    low, high = np.inf, -np.inf
    if items.kind == CITYBLOCK:
        for i in range(n):
            high = max(high, costs[i, 0])
        for j in range(m):
            high = max(high, costs[0, j])
        return 2.0 * high
    for i in range(n):
        for j in range(m):
            low, high = min(low, costs[i, j]), max(high, costs[i, j])
    return high - low


scale_of = uncounted(_scale_of)


def _open_item(items, p, asked, rules, room, place, memory, own):
    """Both sides of an item, its costs where they are usual, whether they are, and where annealing starts."""
    n, mass, least = read_side(items.a, items.first[2, p], items.sizes[0, p], place.kept_a, place.a)
    a = Side(place.a[0], place.a[1], n, padded(n), mass, items.rho[0, p])
    fine = usual(a, least, items.eps[p], items.start[p])
    if own:
        b, m = a, n
        copy(place.kept_a, n, place.kept_b)
    else:
        m, mass, least = read_side(items.b, items.first[3, p], items.sizes[1, p], place.kept_b, place.b)
        b = Side(place.b[0], place.b[1], m, padded(m), mass, items.rho[1, p])
        fine &= usual(b, least, items.eps[p], items.start[p])
    fine = fine and read_costs(items, p, n, m, place, room)
    if fine and items.kind != STORED:  # a schedule that starts elsewhere does not show how large exponents are
        fine = scale_of(items, n, m, place, room) <= RANGE * items.eps[p]
    start = items.start[p]
    if fine and not asked.fixed and not own and (n < items.sizes[0, p] or m < items.sizes[1, p]):
        start = min(start, scale_of(items, n, m, place, room))
    room.state[0] = 0.0
    for i in range(n, padded(n)):  # rows of nothing, whose factors are 0
        for j in range(padded(m)):
            room.matrix[i, j] = 0.0
    for turn in range(2):
        for part in range(2):
            for j in range(m, padded(m)):
                memory.pairs[turn, 0, part, j] = 0.0
    return a, b, fine, start


open_item = uncounted(_open_item)


def _conclude(numbers, p, status, nit, error, mass, value):
    numbers[p, STATUS], numbers[p, NIT], numbers[p, ERROR] = status, nit, error
    numbers[p, MASS], numbers[p, VALUE] = mass, value


conclude = uncounted(_conclude)


def _transport_items(
    items, asked, rules, room, place, memory, ends, levels, begin, end, out, numbers, errors, eps_of
):  # fmt: skip
    """Each item to its tolerance. -> how many errors were measured

    out: f, g, nothing, and next_g(f). errors, eps_of: one item after the other, from numbers[p, FIRST] on.
    """
    cursor, tol, max_iter = 0, asked.tol, asked.max_iter
    for p in range(begin, end):
        eps = items.eps[p]
        a, b, fine, start = open_item(items, p, asked, rules, room, place, memory, False)
        numbers[p, STATUS], numbers[p, FIRST], numbers[p, START] = UNSETTLED, cursor, start
        if not fine:
            continue
        count = schedule(rules, start, eps, asked.degree, asked.scaling, tol, max_iter, levels)
        status, nit, chosen, error = anneal(
            room, memory, rules, a, b, levels, count, max_iter, ends, errors[cursor:], eps_of[cursor:]
        )
        f, g, updated = ends.f[chosen], ends.g[chosen], ends.updated[chosen]
        if status == UNSETTLED or not resolved(status, f, g, a, b, rules, eps, tol):
            continue
        cursor += nit
        c = shift(a, b, f, g) if a.rho == np.inf and b.rho == np.inf else 0.0
        for i in range(a.size):
            f[i] += c
        for j in range(b.size):
            g[j] -= c
            updated[j] -= c
        mass = mass_called_for(a, f)
        value = share_of_value(a, f) + share_of_value(b, g) - eps * (mass - a.mass * b.mass)
        conclude(numbers, p, status, nit, error, mass, value)
        left(a.size, place.kept_a, f, items.first[4, p], out[0])
        left(b.size, place.kept_b, g, items.first[5, p], out[1])
        left(b.size, place.kept_b, updated, items.first[5, p], out[3])
    return cursor


transport_items = compiled(_transport_items, _nrt=False)


def _self_items(items, asked, rules, room, place, memory, ends, levels, begin, end, out, numbers, errors, eps_of):
    """Each first measure with itself to its tolerance. -> as `transport_items`; out: f, nothing, and next_f(f)."""
    cursor = 0
    for p in range(begin, end):
        eps = items.eps[p]
        a, _, fine, start = open_item(items, p, asked, rules, room, place, memory, True)
        numbers[p, STATUS], numbers[p, FIRST], numbers[p, START] = UNSETTLED, cursor, start
        if not fine:
            continue
        f, updated = ends.f[0], ends.f[1]
        status, nit, error = settle_self(
            room, memory, rules, a, eps, asked.tol, asked.max_iter, f, updated, ends.f[2], errors[cursor:],
            eps_of[cursor:],
        )  # fmt: skip
        if status == UNSETTLED or not resolved(status, f, f, a, a, rules, eps, asked.tol):
            continue
        cursor += nit
        mass = memory.numbers[1]
        conclude(numbers, p, status, nit, error, mass, 2.0 * share_of_value(a, f) - eps * (mass - a.mass * a.mass))
        left(a.size, place.kept_a, f, items.first[4, p], out[0])
        left(a.size, place.kept_a, updated, items.first[4, p], out[2])
    return cursor


self_items = compiled(_self_items, _nrt=False)


def _schedule_items(items, asked, rules, room, place, memory, ends, levels, begin, end, out, numbers, errors, eps_of):
    """Each item down its schedule once. -> 0; out: f, g, and the pair of which these are the update."""
    own = items.own
    for p in range(begin, end):
        eps = items.eps[p]
        a, b, fine, start = open_item(items, p, asked, rules, room, place, memory, own)
        numbers[p, STATUS], numbers[p, START] = UNSETTLED, start
        if not fine:
            continue
        f, g, past_f, past_g = ends.f[0], ends.g[0], ends.f[1], ends.g[1]
        next_f, next_g = ends.f[2], ends.g[2]
        count = schedule(rules, start, eps, asked.degree, asked.scaling, -1.0, asked.max_iter, levels)
        descend(room, a, b, own, levels, count, past_f, past_g, f, g)
        if own:
            update_self(room, a, f, next_f, eps)
            g, next_g = f, next_f
        else:
            update_both(room, a, b, f, g, next_f, next_g, eps)
        mass = mass_of_plan(a, f, next_f, eps)
        error = max(violation_of(a, f, next_f, eps, room, memory), violation_of(b, g, next_g, eps, room, memory))
        if not math.isfinite(error) or not resolved(SCHEDULE_ENDED, f, g, a, b, rules, eps, -1.0):
            continue
        c = shift(a, b, f, g) if a.rho == np.inf and b.rho == np.inf and not own else 0.0
        value = share_of_value(a, f) + share_of_value(b, g) - eps * (mass - a.mass * b.mass)
        conclude(numbers, p, SCHEDULE_ENDED, count, error, mass, value)
        for i in range(a.size if c != 0.0 else 0):
            f[i] += c
            past_f[i] += c
        for j in range(b.size if c != 0.0 else 0):
            g[j] -= c
            past_g[j] -= c
        left(a.size, place.kept_a, f, items.first[4, p], out[0])
        left(a.size, place.kept_a, past_f, items.first[4, p], out[2])
        if not own:
            left(b.size, place.kept_b, g, items.first[5, p], out[1])
            left(b.size, place.kept_b, past_g, items.first[5, p], out[3])
    return 0


schedule_items = compiled(_schedule_items, _nrt=False)


def _slope_of_row(items, i, row, place, b, costs, matrix, out, at):
    """out[at] = sum_j matrix[row, j] b[j] grad_1 C, of the costs that are no squares."""
    for k in range(out.shape[1]):
        total, here = 0.0, place.x[row, k]
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
            move = place.x[row, k] - place.lines[k, j]
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
        read_costs(items, p, n, m, place, room)
        for j in range(m):
            room.column_reference[j] = base[of_g + place.kept_b[j]] * scale
        for j in range(m, b.width):
            room.column_reference[j] = -np.inf
        for j in range(b.width):
            room.column_weights[j] = b.weights[j] if j < m else 0.0
        for i in range(n):
            room.row_sums[i] = powers_of_row(
                room.costs, i, scale, extension[of_f + i] * scale, room.column_reference, room.column_weights, b.width,
                room.matrix,
            )  # fmt: skip
        if items.kind != SQUARE:
            for i in range(n):
                slope_of_row(items, i, i, place, b, room.costs, room.matrix, out, of_f + i)
        centre_of(place.lines, m, centre)
        sums = room.lines[0]
        for k in range(d if items.kind == SQUARE else 0):
            for j in range(m):
                room.column_weights[j] = b.weights[j] * (place.lines[k, j] - centre[k])
            for r in range(0, n, ABREAST_ROWS):
                row_products(room.matrix, r, room.column_weights, b.width, sums)
            for i in range(n):
                out[of_f + i, k] = items.factor * ((place.x[i, k] - centre[k]) * room.row_sums[i] - sums[i])
        for i in range(n):
            if not room.row_sums[i] <= most:
                slope_exactly(
                    items, i, place, b, room.costs, scale, extension[of_f + i] * scale, room.column_reference, out,
                    of_f + i,
                )  # fmt: skip


slope_items = compiled(_slope_items, _nrt=False)
