"""Few rows against many columns: the columns in parts, so that there is work for every thread.

The partition depends on sizes alone, and parts are put together in their order: the bits do not depend on threads.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu.sweeps import GROUP

Array = NDArray[Any]

PIECES = 32  # of work, at least, where there are so many columns
LEAST = 64  # groups of a part: a block of rows takes as long to open as a few of them


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


def joined(partial: Array, shift: Array, eps: float, limit: float, window: tuple[float, float]) -> tuple[Array, Array]:
    """-eps log of the sums around a guess, and which of them are to be trusted, from the partial of `row_sums`."""
    total, left_out = partial.sum(axis=0)
    trusted = (total >= window[0]) & (total <= window[1]) & (left_out <= 2.0 * 2.0**limit * total)
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
