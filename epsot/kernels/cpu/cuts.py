"""How an axis of two lattices is cut into blocks, or into segments, and the working memory of its lines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from epsot.kernels.cpu import cones
from epsot.kernels.cpu.cones import NOWHERE, TERMS, Walks
from epsot.kernels.cpu.exponents import EMPTY
from epsot.kernels.cpu.tilted import Blocks, Room
from epsot.kernels.lattice import Axis

Array = NDArray[Any]

SIZES = (1, 4, 8, 16, 32)  # of blocks
OVERHEAD = 13  # multiply-adds, which tilting a row and a column of a pair of blocks takes as long as
LIMIT = {np.float32: -31.0, np.float64: -60.0}  # log2 of the part of any sum that may be missing
# The largest cost in bits that the integer exponents leave room for, beside those of the potentials
SPAN = {np.float32: 2.0**27, np.float64: 2.0**47}
# log2 of the largest number: what is smaller than its inverse is 0
RANGE = {np.float32: 126.0, np.float64: 1022.0}
NUMBA = {np.float32: types.float32, np.float64: types.float64}
INTEGERS: dict[Any, Any] = {np.float32: np.int32, np.float64: np.int64}
NO_TABLES: dict[Any, tuple[Array, ...]] = {
    real: (np.zeros(0, integer), *(np.zeros((1, 8), kind) for kind in (real, integer, real, integer)))
    for real, integer in INTEGERS.items()
}
MOST_BLOCKS = 1 << 12  # of rows and columns: beyond, tables would take more memory than lines


def unrolled(axis: Axis) -> tuple[int, NDArray[np.int64]]:
    """What stands on the line that rows see: the number of the first place, and the columns, NOWHERE where is none."""
    first, count, turn = axis.places
    source = np.arange(first, first + count)
    if turn:
        source %= turn
        source[source >= axis.m] = NOWHERE
    return first, source


def blocks_of(axis: Axis, inner: int, c: float, d: int, real: Any) -> Blocks:
    """An axis cut into blocks of the size that takes least time, of those that the range of the numbers allows."""
    offset, half, tie = axis.x - axis.y, axis.half, axis.tie
    first, source = unrolled(axis)
    columns = len(source)
    bits = 3.0 - LIMIT[real] + math.log2(d * (columns + SIZES[-1]))
    window = min(columns, 2 * math.sqrt(bits / c) / axis.dy)
    most = RANGE[real] + LIMIT[real] - 8 - math.log2(d * (columns + SIZES[-1]))

    def fits(size: int) -> bool:
        reach = 0.5 * (size - 1) * (axis.dx + axis.dy)
        return size == 1 or (c * reach * reach <= most and size < 2 * max(axis.n, columns))

    size = min(filter(fits, SIZES), key=lambda B: (window / B + 2) * (B + OVERHEAD))
    steps = np.arange(max(8, size)) - (size - 1) / 2
    rows, others = steps * axis.dx, steps * axis.dy
    source = np.concatenate([source, np.full(-columns % size, NOWHERE)])
    X = offset + axis.dx * (np.arange(-(-axis.n // size)) * size + (size - 1) / 2)
    Y = axis.dy * (first + np.arange(len(source) // size) * size + (size - 1) / 2)
    begin = np.searchsorted(Y + others[size - 1], X + rows[0] - half - tie, "left")
    end = np.searchsorted(Y + others[0], X + rows[size - 1] + half + tie, "right")
    begin = np.minimum(begin, len(Y) - 1)
    matrix = np.exp2(-c * (rows[None, :size] - others[:size, None]) ** 2).astype(real)
    around = math.ceil(min(float(len(Y)), math.sqrt(bits / c) / (size * axis.dy)))
    known: tuple[Array, ...] = NO_TABLES[real]
    if axis.dx == axis.dy and len(X) + len(Y) <= MOST_BLOCKS:
        known = tables_of(X, Y, rows, others, size, c, half, tie, real)
    return Blocks(
        size, axis.n, axis.m, inner, source, X, Y, rows, others, begin, np.maximum(end, begin + 1), c, half, tie, bits,
        around, matrix, *known,
    )  # fmt: skip


def tables_of(
    X: Array, Y: Array, rows: Array, columns: Array, size: int, c: float, half: float, tie: float, real: Any
) -> tuple[Array, ...]:
    """Costs of pairs and tilts of pairs of blocks, by their distances, where rows and columns are equally far apart."""
    integer: Any = INTEGERS[real]
    step = rows[1] - rows[0]
    places = np.arange(1 - size * len(X), size * len(Y))  # of a column less that of a row
    apart = X[0] - Y[0] + rows[0] - columns[0] - step * places
    costs = np.rint(-c * apart**2).astype(integer)
    costs[(apart <= tie - half) | (apart > tie + half)] = EMPTY[NUMBA[real]]
    D = (X[0] - Y[0] + step * size * np.arange(1 - len(Y), len(X)))[:, None]
    return (costs, *split(2 * c * D * columns, real), *split(-c * D * D - 2 * c * D * rows, real))


def split(exponents: Array, real: Any) -> tuple[Array, Array]:
    """2^exponents as factors near 1 and integer exponents."""
    whole = np.rint(exponents)
    return np.exp2(exponents - whole).astype(real), whole.astype(INTEGERS[real])


def resized(windows: NDArray[np.int32], size: int, blocks: Blocks) -> NDArray[np.int32]:
    """Windows of blocks of another size, which hold what those held."""
    first = np.arange(len(blocks.X)) * blocks.size
    low = first // size
    high = np.minimum((first + blocks.size - 1) // size, windows.shape[2] - 1)
    out = np.empty((len(windows), 2, len(first)), np.int32)
    out[:, 0] = windows[:, 0, low] * size // blocks.size
    out[:, 1] = np.minimum(-(-windows[:, 1, high] * size // blocks.size), len(blocks.Y))
    return out


def room_of(blocks: Blocks, lanes: int, given: int, means: int, real: Any) -> Room:
    size, width, nJ = blocks.size, len(blocks.rows), len(blocks.Y)
    rows, columns = len(blocks.X) * size, nJ * size
    integer = INTEGERS[real]
    return Room(
        np.empty((max(rows, blocks.m + 1), lanes)), np.empty((1, lanes)), np.empty((columns, lanes), real),
        np.empty((columns, lanes), integer), np.zeros((given, columns, lanes), real), np.empty((1, width), real),
        np.empty((1, width), integer), np.empty((nJ, width), real), np.empty((nJ, width), integer),
        np.empty((nJ, lanes), integer), np.empty((columns, lanes), real), np.empty((size, lanes), integer),
        np.empty((size, lanes), real), np.ones((size, lanes), real), np.empty(((1 + means) * size, lanes), real),
        np.empty((size, lanes), real), np.ones((size, size), real), np.empty((means, rows, lanes), real),
    )  # fmt: skip


def walks_of(axis: Axis, inner: int, c: float) -> Walks:
    """The segments of an axis, and the sums that each of its rows is made of."""
    first, source = unrolled(axis)
    m, tie, half = len(source), axis.tie, axis.half
    x = axis.x - axis.y - first * axis.dy + axis.dx * np.arange(axis.n)  # from the first place
    place = np.rint(x / axis.dy)
    own = np.abs(x - place * axis.dy) <= tie
    left = np.minimum(np.where(own, place - 1, np.floor(x / axis.dy)), m - 1)
    right = np.maximum(np.where(own, place + 1, np.floor(x / axis.dy) + 1), 0)
    furthest, last, segment = np.zeros(axis.n), np.full(axis.n, m - 1), m
    far = np.full(axis.n, NOWHERE)
    if axis.period is not None:
        furthest, last = np.floor((x - half + tie) / axis.dy) + 1, np.ceil((x + half - tie) / axis.dy) - 1
        opposite = np.rint((x - half) / axis.dy)
        far = np.where(np.abs(x - half - opposite * axis.dy) <= tie, opposite, NOWHERE)
        segment = max(1, int(min((left - furthest).min(), (last - right).min())) + 1)
    edge, next_edge = left // segment * segment, (right // segment + 1) * segment
    some, more = (left >= furthest) & (left >= 0), (last >= right) & (right < m)
    numbers = np.stack(
        [
            np.where(some & (furthest < edge), 3 * m + furthest, NOWHERE),
            np.where(some, m + left, NOWHERE),
            np.where(own & (place >= 0) & (place < m), place, NOWHERE),
            np.where(more, 2 * m + right, NOWHERE),
            np.where(more & (last >= next_edge), 4 * m + last, NOWHERE),
            far,
        ],
        axis=1,
    )
    places = np.stack([edge - 1, left, place, right, next_edge, far], axis=1)
    apart = np.where(numbers == NOWHERE, 0.0, np.abs(x[:, None] - places * axis.dy))
    factors, moves = split(-c * axis.dy * np.arange(segment + 1), np.float64)
    return Walks(
        axis.n, axis.m, inner, source, segment, 2 if axis.period is None else 4, float(axis.dy), factors, moves,
        numbers.astype(np.int64), *split(-c * apart, np.float64), apart,
    )  # fmt: skip


def walking_room(axis: Walks, lanes: int, means: int) -> cones.Room:
    sums = (axis.walks + 1) * len(axis.source)
    return cones.Room(
        np.empty((max(axis.n, axis.m + 1), lanes)), np.empty((1, lanes)), np.zeros((1 + means, sums, lanes)),
        np.zeros((sums, lanes), np.int64), np.empty((TERMS, lanes)), np.empty((1, lanes), np.int64),
        np.empty((1, lanes)), np.empty((means, axis.n, lanes)),
    )  # fmt: skip
