"""What points and matrices share: from log-densities to the kernels, over the threads, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.kernels.cpu import online, reductions
from epsot.kernels.cpu.blocks import BLOCK, NEAR, SQUARE, TILED
from epsot.kernels.cpu.clouds import LOG2_E, log_weights, padded, values_by_group, writable
from epsot.kernels.cpu.sweeps import GROUP
from epsot.kernels.cpu.threads import run
from epsot.kernels.cpu.tree import Tree, tops_of
from epsot.kernels.reference import Dense, take_rows
from epsot.lazy import cached_property

Array = NDArray[Any]

SERIAL_WORK = 4e6  # instructions: below, waking a thread costs more than it brings
STEP_WORK = 2e9  # instructions of one step, 0.1 to 0.2 s: how long an interrupt may have to wait
FEW = 0.4  # of all pairs: below, sums of rows that leave out the rest are cheaper than one side of the diagonal
LANES = 16  # partial sums of columns at most


class Fused(Dense):
    """Reductions over blocks of rows. A subclass says what the kernels read.

    Attributes
    ----------
    form, kind, dim : compiled into the kernels
    factor : the cost is `factor` times its family
    instructions : per pair, roughly
    share : the part of all pairs that the last sums around a guess ran over
    operands : the first arguments of every kernel: x, centre, index, lines, tree, matrix
    order : the columns in the order of `lines`
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

    @cached_property
    def blocks(self) -> int:
        return -(-self.shape[0] // BLOCK)

    @cached_property
    def capacity(self) -> int:
        """Groups of columns in the buffers of a kernel."""
        x, m = self.operands[0], self.shape[1]
        return reductions.buffer_groups(self.form, padded(m) // GROUP, x.shape[1], x.itemsize)

    def weights(self, h: Array, eps: float, limit: float | None = None) -> tuple[Array, Array, float, float, float]:
        """log2(e) h as the kernels take it, its maxima over the tree and over all, the scale, the limit."""
        scale = LOG2_E * self.factor / eps
        half = 0.5 * scale if self.form == TILED and self.kind == SQUARE else 0.0
        weights, tops = np.empty(padded(self.shape[1])), NO_TOPS
        reference = log_weights(writable(h, np.float64), self.order, self.squares, half, weights)
        if self.form == NEAR:
            first, skip, _ = self.operands[4]
            tops = np.empty(len(first))
            tops_of(first, skip, weights, tops)
        return weights, tops, reference, scale, self.limit if limit is None else limit

    @property
    def single(self) -> bool:
        """Whether the kernels compute in float32."""
        return self.operands[0].itemsize == 4

    @cached_property
    def limit(self) -> float:
        """log2 of the part of a sum that may be left out."""
        return reductions.ROUNDING_32 if self.single else reductions.ROUNDING_64

    def over_blocks(self, kernel: Callable[[int, int], Any], blocks: int) -> None:
        """kernel(begin, end) over all blocks of rows, in short steps."""
        work = BLOCK * self.shape[1] * self.instructions  # of one block
        if blocks * work < SERIAL_WORK:
            kernel(0, blocks)
            return
        step = max(1, min(int(STEP_WORK // work), -(-blocks // LANES)))

        def task(number: int) -> Iterator[object]:
            yield kernel(number * step, min(blocks, (number + 1) * step))

        run(task, -(-blocks // step), self.workers)

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        n, m = self.shape
        out = np.empty((n, 1))
        if n == 0 or m == 0:
            return np.full(n, np.inf)
        columns = self.weights(h, eps)
        if guess is None:
            self.redo(out, columns, eps, self.operands[2])
            return out[:, 0]
        return self.around(columns, eps, guess, out)

    def around(self, columns: tuple[Any, ...], eps: float, guess: Array, out: Array) -> Array:
        """softmin by the weights around a guess, of what `weights` gave."""
        kernel = reductions.row_sums(self.form, self.kind, self.dim)
        guess, line = writable(guess, np.float64), out[:, 0]
        common = (*self.operands, *columns, self.capacity, guess, LOG2_E / eps, eps)
        counts = []

        def piece(begin: int, end: int) -> None:
            counts.append(kernel(*common, begin, end, out))

        self.over_blocks(piece, self.blocks)
        self.share = sum(used for _, used in counts) / (self.blocks * padded(self.shape[1]) // GROUP)
        if any(lost for lost, _ in counts):
            index = self.operands[2]
            self.redo(out, columns, eps, index[np.isnan(line[index])])
        return line

    def redo(self, out: Array, columns: tuple[Any, ...], eps: float, index: Array) -> None:
        """out[index, 0] = softmin around the true maxima, of what `weights` gave."""
        kernel = online.online(self.form, self.kind, self.dim, online.SOFTMIN)
        x, centre, _, *others = self.operands
        common = (x, centre, index, *others, *columns, self.capacity, out[:, 0], eps, NO_VALUES)
        self.over_blocks(lambda begin, end: kernel(*common, begin, end, out), -(-len(index) // BLOCK))

    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]:
        n, m = self.shape
        if n == 0 or m == 0:
            return np.full(n, np.inf), np.full(m, np.inf)
        rows, columns = self.plan_sums(k, h, eps, symmetric=False)
        return (
            self.from_sums(rows, k, h, eps),
            self.T.from_sums(columns, h, k, eps),
        )

    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        if 0 in self.shape:
            return np.full(self.shape[0], np.inf)
        if guess is not None and self.share < FEW:
            return self.around(self.weights(h, eps), eps, guess, np.empty((self.shape[0], 1)))
        rows, columns = self.plan_sums(h, h, eps, symmetric=True)
        with np.errstate(over="ignore"):  # what is out of range is redone
            sums = rows + columns
        return self.from_sums(sums, h, h, eps)

    def plan_sums(self, k: Array, h: Array, eps: float, *, symmetric: bool) -> tuple[Array, Array]:
        """2^SHIFT times the row sums and the column sums of exp(k[i] + h[j] - C[i, j] / eps)."""
        n, m = self.shape
        weights, *rest = self.weights(h, eps, reductions.PLAN_32 if self.single else reductions.PLAN_64)
        kernel = reductions.pair_sums(self.form, self.kind, self.dim, symmetric)
        rows, k = np.empty(n), writable(k, np.float64)
        common = (*self.operands, weights, *rest, self.capacity, k)
        work = BLOCK * m * self.instructions
        lanes = min(LANES, self.blocks) if self.blocks * work >= SERIAL_WORK else 1
        partial = np.zeros((lanes, len(weights)))
        step = lanes * max(1, int(STEP_WORK // work))

        def task(lane: int) -> Iterator[object]:
            for begin in range(lane, self.blocks, step):
                yield kernel(*common, begin, min(self.blocks, begin + step), lanes, rows, partial[lane])

        run(task, lanes, self.workers)
        columns = np.empty(m)
        with np.errstate(over="ignore"):
            columns[self.order] = partial.sum(axis=0)[:m]  # in the order of the lanes
        return rows, columns

    def from_sums(self, sums: Array, k: Array, h: Array, eps: float) -> Array:
        """softmin(h, eps) from 2^SHIFT times the row sums of the plan of k and h; what is out of range is redone."""
        with np.errstate(divide="ignore", invalid="ignore"):
            out = eps * (k - np.log(sums) + reductions.SHIFT * math.log(2))
        trusted = (sums >= reductions.SMALLEST) & (sums <= reductions.LARGEST)
        if not trusted.all():
            index = self.operands[2]
            self.redo(out[:, None], self.weights(h, eps), eps, index[~trusted[index]])
        return out

    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array:
        """exp(k[i] + h[j] - C[i, j] / eps) for i in rows, in place: new memory takes longer than numbers.  -> (r, m)"""
        out: Array = self.cost_rows(rows)
        out /= -eps
        out += h
        out += take_rows(k, rows)[:, None]
        return np.exp(out, out=out)

    def apply(self, k: Array, h: Array, eps: float, v: Array) -> Array:
        (n, m), q = self.shape, v.shape[1]
        if 0 in (n, m, q):
            return np.zeros((n, q))
        values, size = values_by_group(v, self.order, self.operands[0].dtype)
        out = np.empty((n, values.shape[1] // GROUP))
        self.sum_online(online.APPLY, k, h, eps, values, out)
        return out[:, :q] * size

    def sum_online(self, mode: int, k: Array, h: Array, eps: float, values: Array, out: Array) -> None:
        kernel = online.online(self.form, self.kind, self.dim, mode)
        weights, *rest = self.weights(h, eps, NOTHING if mode == online.COST else None)
        if mode == online.COST:
            weights = np.zeros_like(weights)  # the padding has values of 0, and is finite
        common = (*self.operands, weights, *rest, self.capacity, writable(k, np.float64), eps, values)
        self.over_blocks(lambda begin, end: kernel(*common, begin, end, out), self.blocks)


NO_VALUES = np.zeros((1, 1))
NO_TOPS = np.zeros(1)
NOTHING = -math.inf  # may be left out
