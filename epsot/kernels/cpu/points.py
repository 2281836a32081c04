"""Reductions over the costs of two point clouds, which are never stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.costs import Cost
from epsot.kernels import reference
from epsot.kernels.bursts import Marginal
from epsot.kernels.cpu import batches, online
from epsot.kernels.cpu.blocks import CITYBLOCK, EUCLIDEAN, FLAT, NEAR, SQUARE, TILED
from epsot.kernels.cpu.clouds import (
    LOG2_E,
    NEAR_DIMENSIONS,
    NO_ORDER,
    Cloud,
    lines_by_group,
    padded,
    values_by_group,
    writable,
)
from epsot.kernels.cpu.fused import NO_VALUES, Fused, few_against_many
from epsot.kernels.cpu.threads import usable_workers
from epsot.kernels.cpu.tree import NO_TREE, Tree
from epsot.lazy import cached_property

Array = NDArray[Any]

METRICS = {SQUARE: ("sqeuclidean", 0.5), EUCLIDEAN: ("euclidean", 1.0), CITYBLOCK: ("cityblock", 1.0)}
NO_MATRIX = np.zeros(4, np.int64)
NO_SQUARES = np.zeros(1)
FLATTEST = 2.0**30  # times the span of the points: at such a temperature float32 does not see the costs
MANY = 4096  # points, from which it pays to try whether pairs can be left out


def middle(*clouds: Array) -> Array:
    """The mean of all points."""
    total: Array = sum(cloud.sum(axis=0, dtype=np.float64) for cloud in clouds)
    return total / max(1, sum(map(len, clouds)))


class Points(Fused, reference.Points):
    """The kernels of two clouds and a cost that has a `kind`.

    Parameters
    ----------
    x, y : (n, d), (m, d) arrays, both float32 or both float64
        Not modified; copied only if not C-contiguous and writable.
    cost : Cost
    workers : int, optional
        Threads: None and -1 are all usable cores.
    """

    def __init__(self, x: Array, y: Array, cost: Cost, workers: int | None = None) -> None:
        shared = y is x
        x = writable(x)
        y = x if shared else writable(y)
        centre = None
        if x.shape[1] > NEAR_DIMENSIONS and len(x) + len(y):
            centre = middle(x) if shared else middle(x, y)
        cloud = Cloud(x, centre)
        self._join(cloud, cloud if shared else Cloud(y, centre), cost, usable_workers(workers))

    def _join(self, x_cloud: Cloud, y_cloud: Cloud, cost: Cost, workers: int) -> None:
        reference.Points.__init__(self, x_cloud.points, y_cloud.points, cost)
        d = self.x.shape[1]
        self.x_cloud, self.y_cloud, self.workers = x_cloud, y_cloud, workers
        few = few_against_many(*sorted(self.shape))
        self.form, self.factor = (FLAT if few else NEAR) if x_cloud.near else TILED, float(cost.factor)
        self.kind = batches.KINDS[str(cost.kind)]
        if d == 1 and self.kind == EUCLIDEAN:  # the same without a square root
            self.kind = CITYBLOCK
        self.dim = 0 if self.form == TILED else d
        self.instructions = 16 + d * (1 if self.kind == SQUARE else 2)
        if self.form == NEAR and len(self.x) >= MANY:
            self.share = 0.0  # not known yet

    def _with(self, x_cloud: Cloud, y_cloud: Cloud) -> Points:
        other = object.__new__(type(self))
        other._join(x_cloud, y_cloud, self.cost_function, self.workers)
        return other

    @cached_property
    def _transpose(self) -> Points:
        return self._with(self.y_cloud, self.x_cloud)

    @property
    def T(self) -> Points:
        return self._transpose

    def source(self) -> Points:
        """The kernel of x with itself; what was prepared for x is shared, unless that has a centre between x and y."""
        cloud = self.x_cloud if self.form == NEAR else Cloud(self.x, middle(self.x))
        return self._with(cloud, cloud)

    def at(self, points: Array) -> Points:
        """The kernel of other points, (r, d), with y; what was prepared for y is shared."""
        return self._with(Cloud(writable(points), self.y_cloud.centre), self.y_cloud)

    def rows_of(self, other: Any) -> Points:
        """The kernel of the first cloud of another kernel with y; what was prepared for near points is shared."""
        return self._with(other.x_cloud, self.y_cloud) if other.x_cloud.near else self.at(other.x)

    @cached_property
    def operands(self) -> tuple[Array, Array, NDArray[np.int64], Array, Tree, Array]:
        x, y = self.x_cloud, self.y_cloud
        index = x.order if self.form == NEAR else np.arange(len(x.points))
        if self.form == FLAT:
            return x.points, x.centre, index, y.as_they_are, NO_TREE, NO_MATRIX
        return x.points, x.centre, index, y.lines, y.tree, NO_MATRIX

    @cached_property
    def order(self) -> NDArray[np.int64]:
        return self.y_cloud.order if self.form == NEAR else NO_ORDER

    @cached_property
    def squares(self) -> Array:
        return NO_SQUARES if self.form != TILED or self.kind != SQUARE else self.y_cloud.squares

    def at_once(self, a: Marginal, b: Marginal, eps: float) -> batches.Batch | None:
        return batches.one(self.x, self.y, self.cost_function, self.shape, a, b, eps)

    def both_at_once(self, a: Marginal, other: Any, b: Marginal, eps: float) -> batches.Batch | None:
        if not isinstance(other, Points) or other.cost_function is not self.cost_function:
            return None
        return batches.both(self.x, other.x, self.cost_function, a, b, eps)

    def cost_rows(self, rows: slice | Array) -> Array:
        """C[rows, :] in float64, by SciPy, which needs no memory for the differences of all coordinates."""
        from scipy.spatial.distance import cdist  # not before it is needed

        metric, half = METRICS[self.kind]
        x, y = self.points64
        out: Array = cdist(reference.take_rows(x, rows), y, metric)
        out *= half * self.factor
        return out

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        """out[i] = sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]).  (n,), (m,) -> (n, d)"""
        out = np.zeros(self.x.shape)
        if 0 not in (*self.shape, self.x.shape[1]):
            if self.single and self.kind != SQUARE:
                eps = min(eps, FLATTEST * self.span)  # lengths are scaled by eps, and their squares must not underflow
            self.sum_online(online.GRADIENT, k, h, eps, NO_VALUES.astype(self.x.dtype), out)
        return self.factor * out

    def cost_tangents(
        self, k: Array, h: Array, eps: float, t: Array, v: Array | None, w: Array | None, *, turning: bool
    ) -> Array:
        """Sums of the plan as x moves along v and y along w, so that costs change by dC and their gradients by dg.

        P = exp(k[i] + h[j] - C[i, j] / eps); out[i, d] = sum_j P t[j], out[i, d + 1] = sum_j P dC and, where
        `turning`, out[i, :d] = sum_j P ((t[j] - dC) grad_1 C / eps + dg).
        t (m, q), v (n, d, q), w (m, d, q), None for zeros -> (n, d + 2, q)
        """
        (n, m), d, q = self.shape, self.x.shape[1], t.shape[1]
        if self.single and self.kind != SQUARE:
            eps = min(eps, FLATTEST * self.span)  # as for gradients
        own, others = np.zeros((padded(n), q, d)), np.zeros((m, q, d + 1))
        if v is not None:
            own[:n] = v.transpose(0, 2, 1)[self.operands[2]]
        if w is not None:
            others[:, :, :d] = w.transpose(0, 2, 1)
        others[:, :, d] = t / self.factor
        size = np.exp2(np.frexp(np.maximum(np.abs(own).max(axis=(0, 2)), np.abs(others).max(axis=(0, 2))))[1])
        own, others = own / size[:, None], others / size[:, None]  # as float32 has no room for all numbers
        lines = lines_by_group(others.reshape(m, -1), self.order, self.x.dtype)
        moves = own.reshape(-1, q * d).astype(self.x.dtype), lines, turning
        out = np.empty((n, q * (d + 2)))
        self.sum_online(online.TANGENTS, k, h, eps, NO_VALUES.astype(self.x.dtype), out, moves)
        return np.asarray(self.factor * size * out.reshape(n, q, d + 2).transpose(0, 2, 1))

    @cached_property
    def span(self) -> float:
        """The widest side of a box around both clouds, inf where it is 0."""
        low = np.minimum(self.x.min(axis=0), self.y.min(axis=0)).astype(np.float64)
        high = np.maximum(self.x.max(axis=0), self.y.max(axis=0)).astype(np.float64)
        return float((high - low).max()) or math.inf

    def cost_apply(self, v: Array) -> Array:
        """out[i] = sum_j C[i, j] v[j].  (m,) -> (n,)"""
        if 0 in self.shape:
            return np.zeros(self.shape[0])
        if self.kind == SQUARE:
            return self._square_moments(np.asarray(v, np.float64))
        values, size = values_by_group(np.asarray(v)[:, None], self.order, self.x.dtype)
        out = np.empty((self.shape[0], 2))
        zero = np.zeros(self.shape[1])
        self.sum_online(online.COST, np.zeros(self.shape[0]), zero, LOG2_E * self.factor, values, out)
        return np.asarray(-self.factor * size[0] * out[:, 0])

    def _square_moments(self, v: Array) -> Array:
        """factor / 2 sum_j |x_i - y_j|^2 v_j = factor / 2 (|x_i|^2 sum v - 2 <x_i, sum v y> + sum v |y|^2), centred.

        By einsum, which is not BLAS: the bits do not depend on threads.
        """
        centre = self.y.mean(axis=0, dtype=np.float64)
        zeroth, first, second = math.fsum(v), np.zeros(self.x.shape[1]), 0.0
        for begin in range(0, len(v), 4096):
            move, part = self.y[begin : begin + 4096] - centre, v[begin : begin + 4096]
            first += np.einsum("i,ij->j", part, move)
            second += float(np.einsum("i,ij,ij->", part, move, move))
        out = np.empty(len(self.x))
        for begin in range(0, len(out), 4096):
            move = self.x[begin : begin + 4096] - centre
            squares, product = np.einsum("ij,ij->i", move, move), np.einsum("ij,j->i", move, first)
            out[begin : begin + 4096] = squares * zeroth - 2 * product + second
        out *= 0.5 * self.factor
        return out
