"""Sums in parts, and what becomes of them: few rows against many columns give work to every thread only in parts.

The partition depends on sizes alone, and parts are put together in their order: the bits do not depend on threads.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.compiled import compiled, inlined
from epsot.kernels.cpu.lines import LINE, logarithms
from epsot.kernels.cpu.sweeps import GROUP

Array = NDArray[Any]

PIECES = 32  # of work, at least, where there are so many columns
LEAST = 64  # groups of a part: a block of rows takes as long to open as a few of them
STRETCH = 1024  # sums whose logarithms are taken at a time: they stay in the L1 cache

# A sum of weights in this window is trusted: nothing has overflowed, and the weights below 2^-126 (2^-1022), which
# count as 0, cannot matter. Outside, the row is redone around its true maximum.
SMALLEST, LARGEST = 2.0**-60, 2.0**100
# Plans have entries like 1e-20 and sums up to their mass: summed as 2^40 P, sums from 1e-30 to 1e18 are in the window.
SHIFT = 40


def parts_of(blocks: int, groups: int) -> int:
    """In how many parts the columns of so few blocks of rows are summed."""
    return max(1, min(-(-PIECES // max(1, blocks)), groups // LEAST))


@numba.njit(nogil=True, error_model="numpy")
def span(part, parts, groups):
    """The groups of a part, from the first to before the second."""
    return part * groups // parts, (part + 1) * groups // parts


@numba.njit(nogil=True, error_model="numpy")
def width_of(starts, filled, groups, spare):
    """The columns in the buffer, without those that the last group lacks: they would only be summed as zeros."""
    return filled * GROUP - (spare if starts[filled - 1] == groups - 1 else 0)


def joined(partial: Array, shift: Array, eps: float, limit: float) -> tuple[Array, Array]:
    """-eps log of the sums around a guess, and which of them are to be trusted, from the partial of `row_sums`."""
    total, left_out = partial.sum(axis=0)
    trusted = (total >= SMALLEST) & (total <= LARGEST) & (left_out <= 2.0 * 2.0**limit * total)
    total[~trusted] = np.nan
    return -eps * math.log(2.0) * (np.log2(total) + shift), trusted


def combined(partial: Array, with_weights: bool) -> tuple[Array, Array, Array]:
    """The maxima of the rows, the sums of weights and those with values beside the maxima, from that of `online`.

    Without weights there is no maximum, and sums add up as they are.
    """
    if not with_weights:
        none = np.zeros(partial.shape[1])
        return none, none, partial[:, :, 2:].sum(axis=0)
    best = partial[:, :, 0].max(axis=0)
    height = np.where(best > -np.inf, best, 0.0)
    fade = np.exp2(partial[:, :, 0] - height)[:, :, None]
    sums = (fade * partial[:, :, 1:]).sum(axis=0)
    return height, sums[:, 0], sums[:, 1:]


def _total(sums, first, count, more, totals):
    """totals = what the parts and `more`, if there is any, add up to, padded by 1."""
    line = sums[0, first : first + count]
    for j in range(count):
        totals[j] = line[j]
    for part in range(1, len(sums)):
        line = sums[part, first : first + count]
        for j in range(count):
            totals[j] += line[j]
    for j in range(len(more)):
        totals[j] += more[j]
    for j in range(count, len(totals)):
        totals[j] = 1.0


total = inlined(_total)


def _softmin_of_logs(totals, logs, k, unit, eps, out):
    """out = eps (k / unit - log sum), nan where a sum is not to be trusted.  -> how many these are"""
    lost = 0
    for j in range(len(out)):
        logs[j] = k[j] / unit - logs[j] + SHIFT * math.log(2.0)
    for j in range(len(out)):
        trusted = (totals[j] >= SMALLEST) & (totals[j] <= LARGEST)
        out[j] = eps * logs[j] if trusted else np.nan
        lost += 1 - trusted
    return lost


softmin_of_logs = inlined(_softmin_of_logs)


def _softmin_of_sums(sums, k, unit, eps, order, more, begin, end, out):
    """out[i] = eps (k[i] / unit - log sum) from 2^SHIFT times the sums of the rows order[begin], ... < order[end].

    sums: (parts, n), to be added in this order; without `order` the rows are as they are. `more`: what is still to be
    added, in the order of the rows. A sum that is not to be trusted gives nan.  -> how many these are
    """
    totals, logs, lost = np.empty(STRETCH), np.empty(STRETCH), 0
    some, rest, found = np.empty(STRETCH), np.empty(STRETCH), np.empty(STRETCH)
    for first in range(begin, end, STRETCH):
        last = min(end, first + STRETCH)
        count = last - first
        width = -(-count // LINE) * LINE
        if len(order) == 0:
            total(sums, first, count, more[first:last], totals[:width])
            logarithms(totals, width, logs)
            lost += softmin_of_logs(totals, logs, k[first:last], unit, eps, out[first:last])
            continue
        rows = order[first:last]
        for j in range(count):
            some[j] = k[rows[j]]
        for j in range(count if len(more) > 0 else 0):
            rest[j] = more[rows[j]]
        total(sums, first, count, rest[: count if len(more) > 0 else 0], totals[:width])
        logarithms(totals, width, logs)
        lost += softmin_of_logs(totals, logs, some[:count], unit, eps, found[:count])
        for j in range(count):
            out[rows[j]] = found[j]
    return lost


softmin_of_sums = compiled(_softmin_of_sums)
