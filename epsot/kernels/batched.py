"""The reductions of `reference` for many problems of one padded shape, in any array-API namespace.

A batch axis goes before the axes of all arrays: h is (B, m), a softmin (B, n), a temperature (B,). Everything is
computed in float64, a block at a time: some problems, or where one is too large for a block some of its rows. Supports
that all problems share are given once, as a batch of one, and their costs are then computed once for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from epsot.costs import Array, Cost, check_shape
from epsot.kernels.reference import bounded_exp, logsumexp
from epsot.lazy import cached_property

if TYPE_CHECKING:
    from epsot.kernels.item_bursts import ItemBursts, Sides

BLOCK_ELEMENTS = 2**24  # numbers that a block holds: a device is to be busy for longer than a launch takes
CACHED_ELEMENTS = 2**16  # the same of NumPy, for the cache of a core: 2**20 took 3 times as long at 100 x 64 x 64
HELD = 2**24  # costs of points that are kept from one sweep to the next


def times(P: Array, v: Array) -> Array:
    """P v.  (B, n, m), (B, m, q) -> (B, n, q)

    Not by BLAS, where NumPy would use it: its bits depend on its threads, and on the machine.
    """
    if not is_numpy_array(P):
        return array_namespace(P).matmul(P, v)
    columns = [np.einsum("bij,bj->bi", P, np.ascontiguousarray(v[:, :, k])) for k in range(v.shape[2])]
    return np.stack(columns, axis=2) if columns else np.zeros((*P.shape[:2], 0))


def some(array: Array, problems: slice) -> Array:
    """The part of an array that belongs to some problems; all of it where it is shared."""
    return array if array.shape[0] == 1 else array[problems, ...]


class Batched:
    """Reductions over costs (B, n, m), or (1, n, m) where all problems share them."""

    shape: tuple[int, int]  # (n, m)
    stored = False  # whether costs are exact, not computed
    width = 1  # numbers needed for a pair

    @property
    def T(self) -> Batched:
        raise TypeError("the transpose belongs to the subclass")

    def source(self) -> Batched:
        """The kernel of the first supports with themselves."""
        raise TypeError(f"a {type(self).__name__} knows no costs within a side")

    def take(self, indices: Array) -> Batched:
        """The kernel of some of the problems, by a vector of indices."""
        raise TypeError("the choice of problems belongs to the subclass")

    def bursts(self, a: Sides, b: Sides) -> ItemBursts | None:
        """What makes many steps of each problem at once, where a backend has that."""
        return None

    def costs(self, problems: slice, rows: slice) -> Array:
        """C[problems, rows, :] in float64; of one problem, where all have the same.  -> (b or 1, r, m)"""
        raise TypeError("the cost belongs to the subclass")

    def blocks(self, count: int, like: Array, width: int = 1) -> Iterator[tuple[slice, list[slice]]]:
        """Slices of `count` problems, and those of the rows of each of them, for `width` numbers a pair."""
        (n, m), numbers = self.shape, CACHED_ELEMENTS if is_numpy_array(like) else BLOCK_ELEMENTS
        height = min(max(1, n), max(1, numbers // max(1, m * width)))
        step = max(1, numbers // max(1, n * m * width))
        for start in range(0, count, step):
            problems = slice(start, min(start + step, count))
            yield problems, [slice(row, min(row + height, n)) for row in range(0, n, height)]

    def by_blocks(
        self, like: Array, compute: Callable[[slice, slice], Array], *trailing: int, count: int, width: int = 1
    ) -> Array:
        """compute(problems, rows) over all blocks, put together.  -> (count, n, *trailing)"""
        xp: Any = array_namespace(like)
        if count == 0 or self.shape[0] == 0:
            return xp.zeros((count, self.shape[0], *trailing), dtype=xp.float64, device=like.device)
        parts = []
        for problems, slices in self.blocks(count, like, width):
            made = [compute(problems, rows) for rows in slices]
            parts.append(made[0] if len(made) == 1 else xp.concat(made, axis=1))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def softmin(self, h: Array, eps: Array) -> Array:
        """out[b, i] = -eps[b] log sum_j exp(h[b, j] - C[b, i, j] / eps[b]).  (B, m), (B,) -> (B, n)"""

        def compute(problems: slice, rows: slice) -> Array:
            cold = eps[problems]
            logits = h[problems, None, :] - self.costs(problems, rows) / cold[:, None, None]
            return -cold[:, None] * logsumexp(logits)

        return self.by_blocks(h, compute, count=h.shape[0], width=self.width)

    def softmin_pair(self, k: Array, h: Array, eps: Array) -> tuple[Array, Array]:
        """Both sides from one pair of log-densities: (softmin(h, eps), T.softmin(k, eps))."""
        return self.softmin(h, eps), self.T.softmin(k, eps)

    def plans(self, problems: slice, rows: slice, k: Array, h: Array, eps: Array) -> Array:
        """exp(k[b, i] + h[b, j] - C[b, i, j] / eps[b]) of a block, of a bounded exponent.  -> (b, r, m)"""
        xp = array_namespace(k, h)
        exponents = h[problems, None, :] - self.costs(problems, rows) / eps[problems, None, None]
        return bounded_exp(k[problems, rows][:, :, None] + exponents, xp)

    def apply(self, k: Array, h: Array, eps: Array, v: Array) -> Array:
        """out[b, i] = sum_j exp(k[b, i] + h[b, j] - C[b, i, j] / eps[b]) v[b, j].  (B, m, q) -> (B, n, q)"""

        def compute(problems: slice, rows: slice) -> Array:
            return times(self.plans(problems, rows, k, h, eps), v[problems, ...])

        return self.by_blocks(h, compute, v.shape[2], count=h.shape[0], width=self.width)

    def cost_apply(self, v: Array) -> Array:
        """out[b, i] = sum_j C[b, i, j] v[b, j], with inf * 0 = 0.  (B, m) -> (B, n)"""
        xp = array_namespace(v)

        def compute(problems: slice, rows: slice) -> Array:
            part, cost = v[problems, None, :], self.costs(problems, rows)
            return xp.sum(xp.where(part == 0, xp.zeros_like(part), cost) * part, axis=-1)

        return self.by_blocks(v, compute, count=v.shape[0], width=self.width)


class Matrix(Batched):
    """Cost matrices, (B, n, m), or (1, n, m) for all problems; +inf forbids a pair."""

    stored = True

    def __init__(self, C: Array) -> None:
        self.C = C
        self.shape = (C.shape[1], C.shape[2])

    @cached_property
    def T(self) -> Matrix:
        return type(self)(array_namespace(self.C).matrix_transpose(self.C))

    def take(self, indices: Array) -> Matrix:
        return self if self.C.shape[0] == 1 else type(self)(array_namespace(self.C).take(self.C, indices, axis=0))

    def costs(self, problems: slice, rows: slice) -> Array:
        xp = array_namespace(self.C)
        return xp.astype(some(self.C, problems)[:, rows, :], xp.float64, copy=False)


class Points(Batched):
    """Clouds x, (B, n, d), and y, (B, m, d), and a cost of their points; a cloud of all problems is (1, n, d)."""

    def __init__(self, x: Array, y: Array, cost: Cost) -> None:
        xp = array_namespace(x, y)
        self.x, self.y = (xp.astype(z, xp.float64, copy=False) for z in (x, y))
        self.cost_function = cost
        self.shape = (x.shape[1], y.shape[1])

    @cached_property
    def held(self) -> Matrix | None:
        """The costs of all problems, where they are few enough to be kept."""
        (n, m), count = self.shape, max(self.x.shape[0], self.y.shape[0])
        if 0 in (self.x.shape[0], self.y.shape[0]) or count * n * m > HELD:
            return None
        return Matrix(self.by_blocks(self.x, self.computed, m, count=count, width=self.x.shape[2]))

    @property
    def width(self) -> int:  # type: ignore[override]
        return 1 if self.held is not None else int(self.x.shape[2])

    def derived(self, x: Array, y: Array, held: Matrix | None) -> Points:
        """The kernel of other clouds, whose costs are known if these are."""
        new = type(self)(x, y, self.cost_function)
        if held is not None:
            vars(new)["held"] = held
        return new

    @cached_property
    def T(self) -> Points:
        return self.derived(self.y, self.x, None if self.held is None else self.held.T)

    def source(self) -> Points:
        return type(self)(self.x, self.x, self.cost_function)

    def take(self, indices: Array) -> Points:
        xp = array_namespace(self.x)
        x, y = (z if z.shape[0] == 1 else xp.take(z, indices, axis=0) for z in (self.x, self.y))
        return self.derived(x, y, None if self.held is None else self.held.take(indices))

    def computed(self, problems: slice, rows: slice) -> Array:
        """C[problems, rows, :], from the points."""
        return self.cost_function.value(*self.pairs(problems, rows))

    def pairs(self, problems: slice, rows: slice) -> tuple[Array, Array]:
        """The points of a block, to be broadcast.  -> (b or 1, r, 1, d), (b or 1, 1, m, d)"""
        return some(self.x, problems)[:, rows, None, :], some(self.y, problems)[:, None, :, :]

    def costs(self, problems: slice, rows: slice) -> Array:
        return self.computed(problems, rows) if self.held is None else self.held.costs(problems, rows)

    def cost_gradient(self, k: Array, h: Array, eps: Array) -> Array:
        """out[b, i] = sum_j exp(k[b, i] + h[b, j] - C / eps[b]) grad_1 C(x[b, i], y[b, j]).  -> (B, n, d)"""
        xp, (m, d) = array_namespace(k, h), self.y.shape[1:]

        def compute(problems: slice, rows: slice) -> Array:
            x, y = self.pairs(problems, rows)
            gradient = self.cost_function.gradient(x, y)
            expected = (max(x.shape[0], y.shape[0]), x.shape[1], m, d)
            check_shape("gradient", gradient, expected, f"{tuple(x.shape)} and {tuple(y.shape)}")
            return xp.sum(self.plans(problems, rows, k, h, eps)[..., None] * gradient, axis=2)

        return self.by_blocks(h, compute, d, count=h.shape[0], width=d)
