"""The definition of every reduction: dense, any namespace, no cleverness. The oracle of the parity tests.

All reductions run over the second index; the other side is `T`. Everything returned is float64. A log-weight of -inf
is a point of weight zero; an empty reduction is +inf for `softmin` and 0 for the sums.

The other backends repeat these names, arguments and meanings. `guess`, an estimate of the softmin (the
previous potential), may change the speed of a backend and its last bits, never the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from epsot.costs import Array, Cost, check_shape
from epsot.kernels.batches import WholeSolve
from epsot.kernels.bursts import Bursts, Marginal
from epsot.lazy import Lean, cached_property

MAX_EXPONENT = 400.0  # of masses: what is beyond e^400 is hopeless, but must stay a number, also times a cost
DIFFERENCES = 2**20  # numbers that are held at a time where differences are taken first


def logsumexp(logits: Array) -> Array:
    """out[i] = log sum_j exp(logits[i, j]); an empty row or one of -inf gives -inf.  (..., n, m) -> (..., n)"""
    xp = array_namespace(logits)
    if 0 in logits.shape:
        return xp.full(logits.shape[:-1], -xp.inf, dtype=logits.dtype, device=logits.device)
    top = xp.max(logits, axis=-1)  # (..., n)
    empty = top == -xp.inf
    top = xp.where(empty, xp.zeros_like(top), top)
    total = xp.sum(xp.exp(logits - top[..., None]), axis=-1)
    total = xp.where(empty, xp.ones_like(total), total)
    return xp.where(empty, xp.full_like(top, -xp.inf), top + xp.log(total))


def bounded_exp(z: Array, xp: Any) -> Array:
    """exp(z), at most e^400: of the logarithm of a whole mass, never of a factor that a small one would hide."""
    return xp.exp(xp.where(z > MAX_EXPONENT, MAX_EXPONENT, z))


def take_rows(array: Array, rows: slice | Array) -> Array:
    """Some rows of an array, by a slice or by a vector of indices."""
    if isinstance(rows, slice):
        return array[rows, ...]
    return array_namespace(array).take(array, rows, axis=0)


def log_marginals(
    cost_rows: Callable[[slice], Array], f: Array, g: Array, log_a: Array, log_b: Array, eps: float
) -> tuple[Array, Array]:
    """log P 1 and log P' 1 of P = a b exp((f + g - C) / eps), with f + g - C taken first.  -> (n,), (m,)

    Where the three are huge their difference is exact all the same, as no sum of quotients by eps would be.
    """
    xp = array_namespace(f, g)
    f, g = (xp.where(z == xp.inf, xp.zeros_like(z), z) for z in (f, g))  # all their pairs are forbidden
    rows, top, total = [], xp.full_like(g, -xp.inf), xp.zeros_like(g)
    step = max(1, DIFFERENCES // max(1, g.shape[0]))
    for start in range(0, f.shape[0], step):
        part = slice(start, min(start + step, f.shape[0]))
        logits = ((f[part, None] - cost_rows(part)) + g[None, :]) / eps + (log_a[part, None] + log_b[None, :])
        rows.append(logsumexp(logits))
        highest = xp.maximum(top, xp.max(logits, axis=0))
        shift = xp.where(highest == -xp.inf, xp.zeros_like(highest), highest)
        total = total * xp.exp(top - shift) + xp.sum(xp.exp(logits - shift[None, :]), axis=0)
        top = highest
    empty = total == 0
    return xp.concat(rows), xp.where(empty, top, top + xp.log(xp.where(empty, xp.ones_like(total), total)))


def times(P: Array, v: Array) -> Array:
    """P v.  (n, m), (m, q) -> (n, q)

    Not by BLAS, where NumPy would use it: its bits depend on its threads, and on the machine. One column at a time,
    which is the order in which einsum is fast: half as long as the exponentials of P.
    """
    if not is_numpy_array(P):
        return P @ v
    out = np.empty((P.shape[0], v.shape[1]))
    for k in range(v.shape[1]):
        out[:, k] = np.einsum("ij,j->i", P, np.ascontiguousarray(v[:, k]))
    return out


class Dense(Lean):
    """Reductions over a cost that `cost_rows` gives row by row."""

    shape: tuple[int, int]
    stored = False  # whether `cost_rows` are exact, not computed
    window: int | None = None  # directions that the acceleration keeps, where fewer than usual are enough
    workers: int | None = None  # threads on the CPU, of fused kernels and between two sweeps, and the ranks beside them

    @property
    def T(self) -> Dense:
        raise TypeError("the transpose belongs to the subclass")

    def bursts(self, a: Marginal, b: Marginal) -> Bursts | None:
        """What makes many steps at once for two measures on these supports, where that is worth it."""
        return None

    def at_once(self, a: Marginal, b: Marginal, eps: float) -> WholeSolve | None:
        """What makes whole solves of two measures on these supports, where they are small enough for it."""
        return None

    def both_at_once(self, a: Marginal, other: Any, b: Marginal, eps: float) -> WholeSolve | None:
        """What solves a with itself here, and b with itself over another kernel, in one call; None: one by one."""
        return None

    def cost_rows(self, rows: slice | Array) -> Array:
        """C[rows, :] in float64, for a slice or a vector of indices.  -> (r, m)"""
        raise TypeError("the cost belongs to the subclass")

    @cached_property
    def cost(self) -> Array:
        """The whole C in float64.  (n, m)"""
        return self.cost_rows(slice(None))

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        """out[i] = -eps log sum_j exp(h[j] - C[i, j] / eps).  (m,) -> (n,)"""
        return -eps * logsumexp(h[None, :] - self.cost / eps)

    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]:
        """Both sides from one pair of log-densities: (softmin(h, eps), T.softmin(k, eps)).  (n,), (m,) -> (n,), (m,)

        A backend may use the one exponential exp(k[i] + h[j] - C[i, j] / eps) for both; its sums are the marginals of
        the plan that k and h stand for.
        """
        return self.softmin(h, eps), self.T.softmin(k, eps)

    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        """softmin(h, eps) where both supports are one: C is symmetric, and a pair i < j may serve twice."""
        return self.softmin(h, eps)

    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array:
        """exp(k[i] + h[j] - C[i, j] / eps) for i in rows, of a bounded exponent.  -> (r, m)"""
        xp = array_namespace(k, h)
        return bounded_exp(take_rows(k, rows)[:, None] + (h[None, :] - self.cost_rows(rows) / eps), xp)

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        """out[i] = sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j].  (n,), (m,), (m, q) -> (n, q)

        `guess` is that of softmin(h, eps), around which a backend may sum.
        """
        return times(self.plan_rows(slice(None), k, h, eps), v)

    def cost_apply(self, v: Array) -> Array:
        """out[i] = sum_j C[i, j] v[j], with inf * 0 = 0.  (m,) -> (n,)"""
        xp = array_namespace(v)
        return xp.sum(xp.where(v[None, :] == 0, xp.zeros_like(self.cost), self.cost) * v[None, :], axis=1)


class Points(Dense):
    """Two clouds and a cost of their points."""

    def __init__(self, x: Array, y: Array, cost: Cost) -> None:
        self.x, self.y, self.cost_function = x, y, cost  # (n, d), (m, d)
        self.shape = (x.shape[0], y.shape[0])

    def with_clouds(self, x: Array, y: Array) -> Points:
        """The kernel of two other clouds."""
        kernel = type(self)(x, y, self.cost_function)
        kernel.workers = self.workers
        return kernel

    @property
    def T(self) -> Points:
        return self.with_clouds(self.y, self.x)

    def source(self) -> Points:
        """The kernel of the first cloud with itself."""
        return self.with_clouds(self.x, self.x)

    def at(self, points: Array) -> Points:
        """The kernel of other points, (r, d), with the second cloud."""
        return self.with_clouds(points, self.y)

    def rows_of(self, other: Points) -> Points:
        """The kernel of the first cloud of another kernel with the second of this one."""
        return self.at(other.x)

    @cached_property
    def points64(self) -> tuple[Array, Array]:
        """Both clouds in float64."""
        xp: Any = array_namespace(self.x, self.y)
        return xp.astype(self.x, xp.float64), xp.astype(self.y, xp.float64)

    def cost_rows(self, rows: slice | Array) -> Array:
        x, y = self.points64
        return self.cost_function.value(take_rows(x, rows)[:, None, :], y[None, :, :])

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        """out[i] = sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]).  (n,), (m,) -> (n, d)"""
        return self.gradient_rows(slice(None), k, h, eps)

    def gradient_rows(self, rows: slice, k: Array, h: Array, eps: float) -> Array:
        """cost_gradient for i in rows.  -> (r, d)"""
        xp = array_namespace(self.x, self.y)
        x, y = self.points64
        chosen, others = x[rows, :][:, None, :], y[None, :, :]
        gradient = self.cost_function.gradient(chosen, others)
        shape = (chosen.shape[0], y.shape[0], y.shape[1])
        check_shape("gradient", gradient, shape, f"{tuple(chosen.shape)} and {tuple(others.shape)}")
        return xp.sum(self.plan_rows(rows, k, h, eps)[:, :, None] * gradient, axis=1)


class Matrix(Dense):
    """A cost matrix; +inf forbids a pair."""

    stored = True

    def __init__(self, C: Array) -> None:
        self.C = C  # (n, m)
        self.shape = (C.shape[0], C.shape[1])

    @property
    def T(self) -> Matrix:
        kernel = type(self)(self.C.T)
        kernel.workers = self.workers
        return kernel

    def cost_rows(self, rows: slice | Array) -> Array:
        xp = array_namespace(self.C)
        return xp.astype(take_rows(self.C, rows), xp.float64)
