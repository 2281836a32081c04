"""Items of a batch: what is read of each, and where its solve begins.

All items lie one after the other; points without weight are left out when an item is read.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.cpu.compiled import spliced
from epsot.kernels.cpu.dense import costs_of
from epsot.kernels.cpu.lines import bounds, logarithms
from epsot.kernels.cpu.resident import Side, padded
from epsot.kernels.cpu.solves import copy
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, SQUARE

STORED = 3  # the kind of a cost that is given pair by pair
LEAST_SHARE = 2.0**-40  # of the mass: lighter points are a matter of logarithms
LIGHT, HEAVY = 2.0**-60, 2.0**60  # masses whose products with everything else are finite in float32
RANGE = 1e8  # temperatures that a schedule may span: beyond, constants may hide potentials
STATUS, NIT, ERROR, LOGIT_ERROR, MASS, VALUE, FIRST, START = range(8)  # of the numbers that are left of an item
NUMBERS = 8


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
    warm: Any  # (B,) bool: which have potentials to start from
    warm_f: Any  # these, and of which temperature they are
    warm_g: Any
    warm_eps: Any


class Request(NamedTuple):
    """What is asked of a solve."""

    degree: float
    scaling: float
    tol: float
    max_iter: int
    fixed: bool  # whether annealing starts where it is said to; at the scale of what has weight, if not
    slopes: bool  # whether slopes are wanted: of squares, where every point has weight


class Place(NamedTuple):
    """The memory of one thread, beside the `Room`."""

    x: Any  # (d, n) coordinates of the rows, padded by the first
    lines: Any  # (d, m) and of the columns
    centre: Any  # (d,) numbers, one a coordinate
    kept_a: Any  # int64: the points with weight
    kept_b: Any
    a: Any  # (2, n): weights and their logarithms
    b: Any


def _read_side(weights, first, size, kept, lines):
    """The points with weight, their weights and logarithms.  -> how many, the mass, the least weight"""
    count, mass, least = size, 0.0, np.inf
    for i in range(size):  # all of them, as a rule: nothing then waits for how many there are
        weight = weights[first + i]
        kept[i], lines[0, i] = i, weight
        mass += weight
        least = min(least, weight)
    if not least > 0.0:
        count, least = 0, np.inf
        for i in range(size):
            weight = lines[0, i]
            if weight > 0.0:
                kept[count], lines[0, count] = i, weight
                count += 1
                least = min(least, weight)
    width = padded(count)
    for i in range(count, width):
        lines[0, i] = 1.0
    logarithms(lines[0], width, lines[1])
    for i in range(count, width):
        lines[0, i], lines[1, i] = 0.0, -np.inf
    return count, mass, least


read_side = spliced(_read_side)


def _read_points(points, first, kept, count, lines):
    """The coordinates of points, in lines that the first of them pads."""
    for k in range(len(lines)):
        for i in range(count):
            lines[k, i] = points[first + kept[i], k]
        for i in range(count, padded(count)):
            lines[k, i] = lines[k, 0]


read_points = spliced(_read_points)


def _read_costs(items, p, n, m, place, room, own):
    """The costs between the points with weight; `own`: both sides are the same.  -> whether all of them are finite"""
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
    read_points(items.x, items.first[0, p], place.kept_a, n, place.x)
    if own:
        for k in range(len(place.lines)):
            copy(place.x[k], padded(n), place.lines[k])
    else:
        read_points(items.y, items.first[1, p], place.kept_b, m, place.lines)
    if items.kind == SQUARE:
        costs_of(SQUARE, place.x, n, place.lines, 0.5 * items.factor, padded(m), costs)
    elif items.kind == EUCLIDEAN:
        costs_of(EUCLIDEAN, place.x, n, place.lines, items.factor, padded(m), costs)
    else:
        costs_of(CITYBLOCK, place.x, n, place.lines, items.factor, padded(m), costs)
    return True


read_costs = spliced(_read_costs)


def _extent_of(x, n, lines, m, own, extents, part, ends):
    """The diagonal of the box around the points at hand; the squares are added in the order of NumPy."""
    d = len(extents)
    largest = 0.0
    for k in range(d):
        bounds(x[k], padded(n), ends)
        low, high = ends[0], ends[1]
        if not own:
            bounds(lines[k], padded(m), ends)
        extents[k] = max(high, ends[1]) / 2.0 - min(low, ends[0]) / 2.0
        largest = max(largest, extents[k])
    if largest == 0.0:
        return 0.0
    whole, total = d - d % 8 if d >= 8 else 0, 0.0
    for k in range(8):
        part[k] = 0.0
    for k in range(whole):
        part[k % 8] += (extents[k] / largest) ** 2
    if whole > 0:
        total = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]))
    for k in range(whole, d):
        total += (extents[k] / largest) ** 2
    return 2.0 * largest * math.sqrt(total)


extent_of = spliced(_extent_of)


def _scale_of(items, n, m, place, room, own):
    """The temperature at which annealing starts: `Geometry.scale` of the points at hand."""
    costs = room.costs
    if items.kind == SQUARE or items.kind == EUCLIDEAN:
        extent = extent_of(place.x, n, place.lines, m, own, place.centre, room.lines[0], room.ends)
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


scale_of = spliced(_scale_of)


def _usual(side, least):
    """Whether the weights are those of everyday: the rest is the solver's."""
    return side.size > 0 and LIGHT < side.mass < HEAVY and least > LEAST_SHARE * side.mass


usual = spliced(_usual)


def _clear_padding(a, b, room, memory, ends):
    """What pads the lines of a solve, which the items before may have written."""
    for i in range(a.size, a.width):  # rows of nothing, whose factors are 0
        for j in range(b.width):
            room.matrix[i, j] = 0.0
    for turn in range(3):
        for i in range(a.size, a.width):
            ends.f[turn, i] = 0.0
        for j in range(b.size, b.width):
            ends.g[turn, j] = ends.updated[turn, j] = ends.result[turn, j] = 0.0
    for j in range(b.size, b.width):
        ends.start[j] = memory.weights[j] = 0.0
        memory.scale[j] = 1.0


clear_padding = spliced(_clear_padding)


def _open_item(items, p, asked, room, place, memory, ends, own):
    """Both sides of an item, its costs where they are usual, whether they are, and where annealing starts."""
    n, mass, least = read_side(items.a, items.first[2, p], items.sizes[0, p], place.kept_a, place.a)
    a = Side(place.a[0], place.a[1], n, padded(n), mass, items.rho[0, p])
    fine, start = usual(a, least), items.start[p]
    if own:
        b, m = a, n
        copy(place.kept_a, n, place.kept_b)
    else:
        m, mass, least = read_side(items.b, items.first[3, p], items.sizes[1, p], place.kept_b, place.b)
        b = Side(place.b[0], place.b[1], m, padded(m), mass, items.rho[1, p])
        fine &= usual(b, least)
    fine = fine and start < np.inf and read_costs(items, p, n, m, place, room, own)
    if fine and not (asked.fixed and items.kind == STORED):
        scale = scale_of(items, n, m, place, room, own)
        # A schedule that starts elsewhere does not show how large exponents are.
        fine = items.kind == STORED or scale <= RANGE * items.eps[p]
        start = start if asked.fixed else scale
    fine &= start <= RANGE * items.eps[p]
    room.state[0] = 0.0
    clear_padding(a, b, room, memory, ends)
    return a, b, fine, start


open_item = spliced(_open_item)


def _start_from(items, p, a, b, place, f, g, start):
    """The potentials to start from, zero where there are none.  -> the temperature at which annealing begins"""
    if not items.warm[p]:
        for i in range(a.size):
            f[i] = 0.0
        for j in range(b.size):
            g[j] = 0.0
        return start
    for i in range(a.size):
        f[i] = items.warm_f[items.first[4, p] + place.kept_a[i]]
    for j in range(0 if items.own else b.size):
        g[j] = items.warm_g[items.first[5, p] + place.kept_b[j]]
    return min(start, items.warm_eps[p])


start_from = spliced(_start_from)
