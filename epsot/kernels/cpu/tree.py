"""A tree of boxes over the columns of a cloud, and what of it can matter to a block of rows.

The groups of 64 columns in compact order are the leaves. A node is left out with all its columns where a bound says
that they carry next to nothing of every row; what they might carry is counted, so that the caller can hold the sum of
it against a budget. All sums here are in base 2 and in units of the row: with a good guess a row sums to 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.compiled import compiled
from epsot.kernels.cpu.sweeps import EUCLIDEAN, GROUP, SQUARE

Array = NDArray[Any]

GROUP_BITS = 6.0  # log2 of the columns of a group
SHARE_BITS = 4.0  # no single node or group may take more than 2^-4 of the budget
LARGEST_HALF = 1e200
ANY = 1e300  # a slope that no column limits


class Tree(NamedTuple):
    """Nodes in preorder: a node's first child follows it, and `skip` is the first node that is not below it."""

    first: NDArray[np.int64]  # (nodes,) its first group
    skip: NDArray[np.int64]  # (nodes,) a leaf has skip = its own number + 1
    boxes: Array  # (nodes, 2 d + 1) float64: lowest and highest coordinates, log2 of the number of columns


NO_TREE = Tree(np.zeros(1, np.int64), np.ones(1, np.int64), np.zeros((1, 1)))


@numba.njit(nogil=True, error_model="numpy")
def halves(begin, end):
    """Where a range of points is cut in two: at a multiple of a group."""
    return begin + ((end - begin) // GROUP + 1) // 2 * GROUP


def plant(lines: Array, size: int) -> Tree:
    """The tree over the columns `lines`, (d, m) padded to groups, of which the first `size` are there."""
    if not size:
        return NO_TREE
    groups = lines.reshape(len(lines), -1, GROUP)
    first, skip = (np.empty(2 * groups.shape[1], np.int64) for _ in range(2))
    boxes = np.empty((len(first), 2 * len(lines) + 1))
    nodes = grow(groups.min(axis=2), groups.max(axis=2), size, first, skip, boxes)
    return Tree(first[:nodes].copy(), skip[:nodes].copy(), boxes[:nodes].copy())


def _grow(low, high, size, first, skip, boxes):
    """The nodes in preorder, cut as the points were; then the boxes, from the last to the first. -> how many"""
    d, nodes, depth = len(low), 0, 1
    begins, ends, parents = np.empty(128, np.int64), np.empty(128, np.int64), np.empty(len(first), np.int64)
    above = np.empty(128, np.int64)
    begins[0], ends[0], above[0] = 0, size, -1
    while depth:
        depth -= 1
        begin, end = begins[depth], ends[depth]
        first[nodes], skip[nodes], parents[nodes] = begin // GROUP, nodes + 1, above[depth]
        if end - begin > GROUP:
            middle = halves(begin, end)
            begins[depth], ends[depth], above[depth] = middle, end, nodes
            begins[depth + 1], ends[depth + 1], above[depth + 1] = begin, middle, nodes
            depth += 2
        nodes += 1
    for node in range(nodes - 1, 0, -1):
        skip[parents[node]] = max(skip[parents[node]], skip[node])
    for node in range(nodes - 1, -1, -1):
        one, other = node + 1, 0
        if skip[node] > one:
            other = skip[one]
        for k in range(d):
            if other == 0:
                boxes[node, k], boxes[node, d + k] = low[k, first[node]], high[k, first[node]]
            else:
                boxes[node, k] = min(boxes[one, k], boxes[other, k])
                boxes[node, d + k] = max(boxes[one, d + k], boxes[other, d + k])
        if other == 0:
            boxes[node, 2 * d] = math.log2(min(GROUP, size - first[node] * GROUP))
        else:
            boxes[node, 2 * d] = math.log2(2.0 ** boxes[one, 2 * d] + 2.0 ** boxes[other, 2 * d])
    return nodes


grow = compiled(_grow)


def _tops(first, skip, weights, begin, end, tops):
    """The largest weight of every leaf among some nodes, -inf where there is none, into tops (nodes,)."""
    for node in range(begin, end):
        if skip[node] == node + 1:
            top = -np.inf
            for j in range(first[node] * GROUP, first[node] * GROUP + GROUP):
                top = max(top, weights[j])
            tops[node] = top


def _tops_above(skip, tops):
    """The same of all other nodes, from the last to the first: children come after their parents."""
    for node in range(len(skip) - 1, -1, -1):
        if skip[node] > node + 1:
            tops[node] = max(tops[node + 1], tops[skip[node + 1]])


tops_of = compiled(_tops)
tops_above = compiled(_tops_above)


@numba.njit(nogil=True, error_model="numpy")
def gap(value, low, high):
    """The distance from a number to an interval."""
    return max(low - value, value - high, 0.0)


@numba.njit(nogil=True, error_model="numpy")
def peak(metric, d, tree, tops, lines, weights, scale, centre, at, best, image):
    """The column j of the largest weights[j] - cost of centre[at:], if that is more than `best`.  -> (value, j)"""
    first, skip, boxes = tree
    node = np.int64(0)
    while node < len(first):
        length = 0.0
        for k in range(d):
            step = gap(centre[at + k], boxes[node, k], boxes[node, d + k])
            length += step * step if metric in (SQUARE, EUCLIDEAN) else step
        cost = 0.5 * length if metric == SQUARE else math.sqrt(length) if metric == EUCLIDEAN else length
        if tops[node] - scale * cost <= best:
            node = skip[node]
            continue
        if skip[node] == node + 1:
            for j in range(first[node] * GROUP, first[node] * GROUP + GROUP):
                length = 0.0
                for k in range(d):
                    step = lines[k, j] - centre[at + k]
                    length += step * step if metric in (SQUARE, EUCLIDEAN) else abs(step)
                cost = 0.5 * length if metric == SQUARE else math.sqrt(length) if metric == EUCLIDEAN else length
                if weights[j] - scale * cost > best:
                    best, image = weights[j] - scale * cost, j
        node += 1
    return best, image


@numba.njit(nogil=True, error_model="numpy")
def level_of(metric, d, rows, offset, count, frame):
    """The highest offset of the rows, from which bounds of their weights start; sets how `frame` bounds their slopes.

    A row at `move` from the centre has the weights 2^(offset + u + move (y - image)). The simple bound takes the
    highest offset and the largest moves, which no one row need have: offsets may fall like -move^2 / 2, as they do
    where the plan maps the block without contracting it. Then offset + move^2 / 2 is bounded instead, and the rest is
    the bound of move (y - image) - move^2 / 2. Taken is the one that is lower for columns far out.
    """
    scale = frame[0]
    top, bent, half = -1e30, -1e30, 0.0
    for i in range(count):
        top = max(top, np.float64(offset[i]))
        if metric == SQUARE:
            square = 0.0
            for k in range(d):
                square += np.float64(rows[i, k]) * rows[i, k]
            bent = max(bent, offset[i] + 0.5 * square / scale)
    frame[2 + 3 * d], frame[3 + 3 * d] = ANY, 0.0
    if metric == SQUARE:
        for k in range(d):
            half += 0.5 * frame[2 + 2 * d + k] * frame[2 + 2 * d + k] / scale
        if bent - half < top and 0.5 / scale < LARGEST_HALF:
            top = bent
            frame[2 + 3 * d], frame[3 + 3 * d] = scale, 0.5 / scale
    return top


@numba.njit(nogil=True, error_model="numpy")
def node_bound(metric, d, boxes, node, top, frame):
    """An upper bound of the logits of a node's columns in the block of `frame`: that of `place`, over a whole box."""
    scale, bend, half = frame[0], frame[2 + 3 * d], frame[3 + 3 * d]
    bound, far = top - frame[1], 0.0
    for k in range(d):
        low, high, centre = boxes[node, k], boxes[node, d + k], frame[2 + k]
        image, extent = frame[2 + d + k], frame[2 + 2 * d + k]
        if metric == SQUARE:
            # -scale |y - centre|^2 / 2 + the bound of move (y - image) is largest at centre -+ extent, or at a border
            largest = -np.inf
            for side in (-1.0, 1.0):
                y = min(max(centre + side * extent / scale, low), high)
                length = abs(y - image)
                slope = min(extent, bend * length)
                largest = max(largest, slope * (length - half * slope) - 0.5 * scale * (y - centre) * (y - centre))
            bound += largest
        else:
            step = max(scale * gap(centre, low, high) - extent, 0.0)
            far += step * step if metric == EUCLIDEAN else step
    if metric == EUCLIDEAN:
        far = math.sqrt(far)
    return bound - far


@numba.njit(nogil=True, error_model="numpy")
def gather(metric, d, tree, tops, frame, level, limit, least, most, groups):
    """The groups from `least` to before `most` that may matter to the rows, into `groups`.

    -> (how many, mass left out)

    A node is left out where its columns carry at most 2^(limit - SHARE_BITS) of any row, and all of them 2^limit.
    """
    first, skip, boxes = tree
    found, left_out, budget = 0, 0.0, 2.0**limit
    node = np.int64(0)  # of 0 as it stands Numba makes a type, and compiles the parts once more for it
    while node < len(first) and first[node] < most:
        leaf = skip[node] == node + 1
        following = skip[node]
        last = first[following] if following < len(first) else len(groups)
        if last <= least:
            node = following
            continue
        share = node_bound(metric, d, boxes, node, tops[node], frame) + level + boxes[node, 2 * d]
        if share <= limit - SHARE_BITS and left_out + 2.0**share <= budget:
            left_out += 2.0**share
            node = following
        elif leaf:
            groups[found] = first[node]
            found += 1
            node = following
        else:
            node += 1
    return found, left_out
