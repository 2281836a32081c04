"""What points and matrices share: from log-densities to the kernels, over the threads, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.communicator import ALONE, Communicator, ranks_of
from epsot.kernels.cpu import around, online, reductions
from epsot.kernels.cpu.blocks import BLOCK, NEAR, SQUARE, TILED
from epsot.kernels.cpu.clouds import LOG2_E, NO_ORDER, log_weights, padded, values_by_group, writable
from epsot.kernels.cpu.parts import combined, joined, parts_of, softmin_of_sums
from epsot.kernels.cpu.ranks import rows_of, sums_of
from epsot.kernels.cpu.sweeps import GROUP
from epsot.kernels.cpu.threads import run
from epsot.kernels.cpu.tree import Tree, tops_above, tops_of
from epsot.kernels.reference import MAX_EXPONENT, Dense, take_rows
from epsot.lazy import cached_property

Array = NDArray[Any]

SERIAL_WORK = 4e6  # instructions: below, waking a thread costs more than it brings
STEP_WORK = 2e9  # instructions of one step, 0.1 to 0.2 s: how long an interrupt may have to wait
CHUNK = 1 << 16  # numbers of a vector that one thread goes through at a time: 0.1 ms
MANY_ROWS = 4096  # against no more than a block of columns: there the sums of columns of the transpose are faster
FEW = 0.4  # of all pairs: below, sums of rows that leave out the rest are cheaper than one side of the diagonal
NO_MOVES = 0
LANES = 16  # partial sums of columns at most
VECTOR = 16  # columns, of which a width is a multiple


def few_against_many(few: int, many: int) -> bool:
    """Whether one side is a single block, and the other so long that it alone is the work."""
    return few <= BLOCK and many >= MANY_ROWS


class Fused(Dense):
    """Reductions over blocks of rows. A subclass says what the kernels read.

    Attributes
    ----------
    form, kind, dim : compiled into the kernels
    factor : the cost is `factor` times its family
    instructions : per pair, roughly
    share : the part of all pairs that the last sums around a guess ran over
    operands : the first arguments of every kernel: x, centre, index, lines, tree, matrix
    order : the columns in the order of `lines`; empty: as they are
    squares : |y - centre|^2, for the form TILED
    """

    form: int
    kind: int = 0
    dim: int = 0
    factor: float = 1.0
    instructions: int = 20
    share: float = 1.0
    workers: int
    operands: tuple[Array, Array, NDArray[np.int64], Array, Tree, Array]
    order: NDArray[np.int64]
    squares: Array

    @property
    def T(self) -> Fused:
        raise TypeError("the transpose belongs to the subclass")

    @property
    def comm(self) -> Communicator:
        """The ranks that share the blocks of rows."""
        return ranks_of(self.workers)

    @cached_property
    def blocks(self) -> int:
        return -(-self.shape[0] // BLOCK)

    @cached_property
    def capacity(self) -> int:
        """Groups of columns in the buffers of a kernel."""
        x, m = self.operands[0], self.shape[1]
        return reductions.buffer_groups(self.form, padded(m) // GROUP, x.shape[1], x.itemsize)

    def by_chunks(self, kernel: Callable[[int, int], Any], size: int) -> list[Any]:
        """What kernel(begin, end) returns over chunks of a vector, in their order."""
        if size <= CHUNK:  # small problems are spared the bookkeeping
            return [kernel(0, size)] if size else []
        found: list[Any] = [None] * -(-size // CHUNK)

        def task(number: int) -> Iterator[None]:
            found[number] = kernel(number * CHUNK, min(size, (number + 1) * CHUNK))
            yield

        run(task, len(found), self.workers)
        return found

    def weights(
        self, h: Array, eps: float, limit: float | None = None, unit: float = 1.0
    ) -> tuple[Array, Array, float, float, float]:
        """log2(e) h / unit as the kernels take it, its maxima over the tree and over all, the scale, the limit."""
        scale = LOG2_E * self.factor / eps
        half = 0.5 * scale if self.form == TILED and self.kind == SQUARE else 0.0
        m, h = self.shape[1], writable(h, np.float64)
        weights, tops = np.empty(padded(m)), NO_TOPS
        weights[m:] = -np.inf
        highest = self.by_chunks(
            lambda begin, end: log_weights(h, LOG2_E / unit, self.order, self.squares, half, begin, end, weights), m
        )
        reference = max(highest, default=-math.inf)
        if self.form == NEAR:
            first, skip, _ = self.operands[4]
            tops = np.empty(len(first))
            self.by_chunks(lambda begin, end: tops_of(first, skip, weights, begin, end, tops), len(first))
            tops_above(skip, tops)
        limit = self.limit if limit is None else limit
        return weights, tops, reference if reference > -math.inf else 0.0, scale, limit

    @property
    def single(self) -> bool:
        """Whether the kernels compute in float32."""
        return self.operands[0].itemsize == 4

    @cached_property
    def limit(self) -> float:
        """log2 of the part of a sum that may be left out."""
        return reductions.ROUNDING_32 if self.single else reductions.ROUNDING_64

    @cached_property
    def spare(self) -> int:
        """Columns that the last group lacks, in whole vectors."""
        m = self.shape[1]
        return (padded(m) - m) // VECTOR * VECTOR

    def parts(self, blocks: int) -> int:
        """In how many parts the columns of so many blocks of rows are summed."""
        return parts_of(blocks, padded(self.shape[1]) // GROUP)

    @property
    def tall(self) -> bool:
        """Whether sums over the rows of the transpose, one block, fill vectors that the few columns do not."""
        return few_against_many(self.shape[1], self.shape[0])

    def over_blocks(self, kernel: Callable[[int, int], Any], blocks: int, parts: int = 1) -> Communicator:
        """kernel(begin, end) over all blocks of rows, or parts of them, in short steps; who has them all together.

        Ranks do a range each, and of little work all of it.
        """
        work = min(BLOCK, self.shape[0]) * self.shape[1] * self.instructions // parts  # of one of them
        blocks *= parts
        if blocks * work < SERIAL_WORK:
            kernel(0, blocks)
            return ALONE
        first, last = self.comm.span(blocks)
        step = max(1, min(int(STEP_WORK // work), -(-(last - first) // LANES)))

        def task(number: int) -> Iterator[object]:
            begin = first + number * step
            yield kernel(begin, min(last, begin + step))

        run(task, -(-(last - first) // step), self.workers)
        return self.comm

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        n, m = self.shape
        out = np.empty((n, 1))
        if n == 0 or m == 0:
            return np.full(n, np.inf)
        if guess is not None and self.tall:
            _, sums = self.T.plan_sums(h, guess, eps, symmetric=False, unit=eps)
            return self.from_sums(sums, self.T.order, guess, h, eps, unit=eps)
        columns = self.weights(h, eps)
        if guess is None:
            self.redo(out, columns, eps, self.operands[2])
            return out[:, 0]
        return self.around(columns, eps, guess, out)

    def around(self, columns: tuple[Any, ...], eps: float, guess: Array, out: Array) -> Array:
        """softmin by the weights around a guess, of what `weights` gave."""
        kernel = reductions.row_sums(self.form, self.kind, self.dim)
        guess, line, parts = writable(guess, np.float64), out[:, 0], self.parts(self.blocks)
        *most, limit = columns
        limit -= math.log2(parts)
        partial = np.empty((parts, 2, len(line))) if parts > 1 else NO_PARTS
        common = (*self.operands, *most, limit, self.capacity, self.spare, guess, LOG2_E / eps, eps, parts)
        counts = []

        def piece(begin: int, end: int) -> None:
            counts.append(kernel(*common, begin, end, out, partial))

        comm = self.over_blocks(piece, self.blocks, parts)
        lost, used = (sum(z) for z in zip(*counts, strict=True)) if counts else (0, 0)
        lost, used = comm.totals(columns[0], lost, used)
        rows_of(comm, self.operands[2], self.blocks, parts, out, partial.swapaxes(1, 2))
        self.share = used / (self.blocks * padded(self.shape[1]) // GROUP)
        if parts > 1:
            line[:], trusted = joined(partial, line, eps, limit)
            lost = not trusted.all()
        if lost:
            index = self.operands[2]
            self.redo(out, columns, eps, index[np.isnan(line[index])])
        return line

    def redo(self, out: Array, columns: tuple[Any, ...], eps: float, index: Array) -> None:
        """out[index, 0] = softmin around the true maxima, of what `weights` gave."""
        self.sum_around_maxima(online.SOFTMIN, columns, out[:, 0], eps, index, NO_VALUES, out)

    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]:
        n, m = self.shape
        if n == 0 or m == 0:
            return np.full(n, np.inf), np.full(m, np.inf)
        if self.tall:
            columns, rows = self.T.softmin_pair(h, k, eps)
            return rows, columns
        rows, columns = self.plan_sums(k, h, eps, symmetric=False)
        return (
            self.from_sums(rows, NO_ORDER, k, h, eps),
            self.T.from_sums(columns, self.order, h, k, eps),
        )

    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        if 0 in self.shape:
            return np.full(self.shape[0], np.inf)
        if guess is not None and self.share < FEW:
            return self.around(self.weights(h, eps), eps, guess, np.empty((self.shape[0], 1)))
        rows, columns = self.plan_sums(h, h, eps, symmetric=True)
        return self.from_sums(columns, self.order, h, h, eps, more=rows[0])

    def plan_sums(self, k: Array, h: Array, eps: float, *, symmetric: bool, unit: float = 1.0) -> tuple[Array, Array]:
        """2^SHIFT times the row sums and the column sums of exp(k[i] + h[j] / unit - C[i, j] / eps).

        Each in so many parts, to be added in their order.  -> (parts, n), (lanes, m and padding), in the order of the
        columns
        """
        n, m = self.shape
        parts = 1 if symmetric else self.parts(self.blocks)
        limit = (reductions.PLAN_32 if self.single else reductions.PLAN_64) - math.log2(parts)
        columns = self.weights(h, eps, limit, unit)
        kernel = reductions.pair_sums(self.form, self.kind, self.dim, symmetric)
        rows, k = np.empty((parts, n)), writable(k, np.float64)
        common = (*self.operands, *columns, self.capacity, self.spare, k, parts)
        work = min(BLOCK, n) * m * self.instructions
        lanes = min(LANES, self.blocks) if self.blocks * work >= SERIAL_WORK else 1
        partial = np.zeros((lanes, padded(m)))
        step = lanes * max(1, int(STEP_WORK * parts // work))

        def task(number: int) -> Iterator[object]:
            lane, part = number // parts, number % parts
            for begin in range(lane, self.blocks, step):
                yield kernel(*common, part, begin, min(self.blocks, begin + step), lanes, rows[part], partial[lane])

        shared = self.comm if lanes * parts > 1 else ALONE
        first, last = shared.span(lanes * parts)
        run(lambda number: task(first + number), last - first, self.workers)
        shared.totals(columns[0])
        return sums_of(shared, self.operands[2], lanes, rows, partial)

    def from_sums(
        self, sums: Array, order: Array, k: Array, h: Array, eps: float, *, unit: float = 1.0, more: Array | None = None
    ) -> Array:
        """softmin(h, eps) from 2^SHIFT times the row sums of the plan of k / unit and h; redone where out of range.

        `sums` (parts, n and padding) are to be added, in such an order of the rows, and `more` (n,) in their own; they
        are given up.
        """
        n = self.shape[0]
        alone = len(sums) == 1 and not len(order) and more is None
        out = sums[0, :n, None] if alone else np.empty((n, 1))  # of long vectors, new memory is a good part of the work
        arguments = (sums, writable(k, np.float64), unit, eps, order, NO_SUMS if more is None else more)
        if any(self.by_chunks(lambda begin, end: softmin_of_sums(*arguments, begin, end, out[:, 0]), n)):
            index = self.operands[2]
            self.redo(out, self.weights(h, eps), eps, index[np.isnan(out[index, 0])])
        return out[:, 0]

    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array:
        """exp(k[i] + h[j] - C[i, j] / eps) for i in rows, in place: new memory takes longer than numbers.  -> (r, m)"""
        out: Array = self.cost_rows(rows)
        out /= -eps
        out += h
        out += take_rows(k, rows)[:, None]
        np.minimum(out, MAX_EXPONENT, out=out)
        return np.exp(out, out=out)

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        (n, m), q = self.shape, v.shape[1]
        if 0 in (n, m, q):
            return np.zeros((n, q))
        values, size = values_by_group(v, self.order, self.operands[0].dtype)
        out = np.empty((n, values.shape[1] // GROUP))
        if guess is None or self.parts(self.blocks) > 1:
            self.sum_online(online.APPLY, k, h, eps, values, out)
        else:
            self.sum_around(k, self.weights(h, eps), eps, values, guess, out, alone=q == 1)
        return out[:, :q] * size

    def sum_around(
        self, k: Array, columns: tuple[Any, ...], eps: float, values: Array, guess: Array, out: Array, *, alone: bool
    ) -> None:
        """What `apply` computes, around a guess of softmin, from what `weights` gave of h."""
        kernel = around.value_sums(self.form, self.kind, self.dim)
        k, guess = writable(k, np.float64), writable(guess, np.float64)
        common = (*self.operands, *columns, self.capacity, self.spare, k, guess, LOG2_E / eps, values, alone)
        lost: list[int] = []

        def piece(begin: int, end: int) -> None:
            lost.append(kernel(*common, begin, end, out))

        comm, index = self.over_blocks(piece, self.blocks), self.operands[2]
        missing, _ = comm.totals(columns[0], sum(lost))
        rows_of(comm, index, self.blocks, 1, out, NO_PARTS)
        if missing:
            self.sum_around_maxima(online.APPLY, columns, k, eps, index[np.isnan(out[index, 0])], values, out)

    def sum_online(
        self, mode: int, k: Array, h: Array, eps: float, values: Array, out: Array, moves: Any = NO_MOVES
    ) -> None:
        """The sums of `online` into `out`; `moves` are what `tangents.add_tangents` takes."""
        weights, *rest = self.weights(h, eps, NOTHING if mode == online.COST else None)
        if mode == online.COST:
            weights = np.zeros_like(weights)  # the padding has values of 0, and is finite
        columns, k = (weights, *rest), writable(k, np.float64)
        self.sum_around_maxima(mode, columns, k, eps, self.operands[2], values, out, moves)

    def sum_around_maxima(
        self, mode: int, columns: tuple[Any, ...], k: Array, eps: float, index: Array, values: Array, out: Array,
        moves: Any = NO_MOVES,
    ) -> None:  # fmt: skip
        """The rows `index` of what `online` computes, of what `weights` gave."""
        kernel = online.online(self.form, self.kind, self.dim, mode)
        blocks = -(-len(index) // BLOCK)
        parts = self.parts(blocks)
        x, centre, _, *others = self.operands
        *most, limit = columns
        q = out.shape[1] if mode != online.SOFTMIN else 0  # values of a row
        partial = np.empty((parts, len(out), 2 + q)) if parts > 1 else NO_PARTS
        common = (
            x, centre, index, *others, *most, limit - math.log2(parts), self.capacity, self.spare, k, eps, values,
            moves, parts,
        )  # fmt: skip
        comm = self.over_blocks(lambda begin, end: kernel(*common, begin, end, out, partial), blocks, parts)
        comm.totals(columns[0])
        rows_of(comm, index, blocks, parts, out, partial)
        if parts > 1:
            height, sums, totals = combined(partial[:, index], mode != online.COST)
            if mode == online.SOFTMIN:
                with np.errstate(divide="ignore"):
                    totals = -eps * math.log(2.0) * (np.log2(sums) + height)[:, None]
            elif mode != online.COST:
                totals *= np.exp2(np.minimum(height + LOG2_E * k[index], online.HIGHEST_SIZE))[:, None]
            out[index] = totals


NO_VALUES = np.zeros((1, 1))
NO_TOPS = np.zeros(1)
NO_PARTS = np.zeros((1, 1, 1))
NO_SUMS = np.zeros(0)
NOTHING = -math.inf  # may be left out
