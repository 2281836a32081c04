"""The portable backend: the reference, a block of rows at a time, in any array-API namespace.

Everything is computed in float64, so that float32 points lose nothing to an offset or a small temperature. Memory is
bounded: a block holds about `BLOCK_ELEMENTS` numbers, whatever n and m are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from array_api_compat import array_namespace

from epsot.communicator import cuts, ranks_of, sizes_of
from epsot.costs import Array
from epsot.kernels import reference

BLOCK_ELEMENTS = 2**20  # 8 MiB of float64: large enough to hide the cost of a call, small enough for a cache


class Tiled(reference.Dense):
    """Row blocks of the dense definition; `width` numbers are needed for each pair."""

    width = 1

    def blocks(self, n: int | None = None) -> Iterator[slice]:
        """Slices of all rows, or of n."""
        n, m = self.shape[0] if n is None else n, self.shape[1]
        step = max(1, BLOCK_ELEMENTS // max(1, m * self.width))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))

    def by_rows(
        self, like: Array, compute: Callable[[slice], Array], *trailing: int, blocks: Iterable[slice] | None = None
    ) -> Array:
        """Concatenate compute(rows) over all blocks, or over some.  -> (n, *trailing)"""
        xp: Any = array_namespace(like)
        parts = [compute(rows) for rows in (self.blocks() if blocks is None else blocks)]
        if not parts:
            return xp.empty((0, *trailing), dtype=xp.float64, device=like.device)
        return xp.concat(parts, axis=0) if len(parts) > 1 else parts[0]

    def shared(self, like: Array, compute: Callable[[slice], Array], *trailing: int) -> Array:
        """`by_rows`, of which each rank does a range of the blocks."""
        comm, blocks = ranks_of(self.workers), list(self.blocks())
        begin, end = comm.span(len(blocks))
        mine = self.by_rows(like, compute, *trailing, blocks=blocks[begin:end])
        starts = [*(rows.start for rows in blocks), self.shape[0]]
        edges = [starts[cut] for cut in cuts(len(blocks), comm.size)]
        return comm.rows(like, mine, sizes_of(edges))

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        return self.shared(h, lambda rows: -eps * reference.logsumexp(h[None, :] - self.cost_rows(rows) / eps))

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        return self.shared(h, lambda rows: reference.times(self.plan_rows(rows, k, h, eps), v), v.shape[1])

    def cost_apply(self, v: Array) -> Array:
        xp = array_namespace(v)

        def compute(rows: slice) -> Array:
            cost = self.cost_rows(rows)
            return xp.sum(xp.where(v[None, :] == 0, xp.zeros_like(cost), cost) * v[None, :], axis=1)

        return self.shared(v, compute)


class Points(Tiled, reference.Points):
    """`reference.Points` in blocks of rows."""

    @property
    def width(self) -> int:  # type: ignore[override]
        return int(self.x.shape[1])

    def cost_rows(self, rows: slice | Array) -> Array:
        """In blocks, too: the differences of all coordinates exist for one of them."""
        x, y = self.points64
        chosen = reference.take_rows(x, rows)

        def compute(part: slice) -> Array:
            return self.cost_function.value(chosen[part, :][:, None, :], y[None, :, :])

        return self.by_rows(y, compute, y.shape[0], blocks=self.blocks(chosen.shape[0]))

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        return self.shared(h, lambda rows: self.gradient_rows(rows, k, h, eps), self.x.shape[1])


class Matrix(Tiled, reference.Matrix):
    """`reference.Matrix` in blocks of rows."""
