"""Reductions over the costs of two point clouds, which are never stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.costs import Array, Cost
from epsot.kernels import reference, tiled
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import Pairs
from epsot.kernels.cuda.clouds import Cloud, Middle, real_name
from epsot.kernels.cuda.fused import Operands, on_device
from epsot.kernels.cuda.shapes import FRAME, WIDTH, Shape
from epsot.kernels.cuda.two_sided import TwoSided
from epsot.lazy import cached_property

KINDS = {"square": 0, "euclidean": 1, "cityblock": 2}  # as in forms.cu


def kind_of(cost: Cost, d: int) -> int:
    """The kind of a cost, as in forms.cu; on a line a distance is the same without a square root."""
    kind = KINDS[str(cost.kind)]
    return KINDS["cityblock"] if d == 1 and kind == KINDS["euclidean"] else kind


class Points(TwoSided, reference.Points):
    """The kernels of two clouds and a cost that has a `kind`.

    Parameters
    ----------
    x, y : (n, d), (m, d) CuPy arrays, both float32 or both float64, on one device
        Not modified; copied only if not C-contiguous.
    cost : Cost
    workers : the ranks that share the rows, if there are others
    """

    def __init__(self, x: Array, y: Array, cost: Cost, workers: int | None = None) -> None:
        import cupy

        with x.device:
            shared = y is x
            x = cupy.ascontiguousarray(x)
            y = x if shared else cupy.ascontiguousarray(y)
            middle = Middle(x, y)
            cloud = Cloud(x, middle)
            self._join(cloud, cloud if shared else Cloud(y, middle), cost, workers)

    def _join(self, x_cloud: Cloud, y_cloud: Cloud, cost: Cost, workers: int | None) -> None:
        reference.Points.__init__(self, x_cloud.points, y_cloud.points, cost)
        self.x_cloud, self.y_cloud, self.workers = x_cloud, y_cloud, workers
        self.dim = int(self.x.shape[1])
        self.factor, self.kind = float(cost.factor), kind_of(cost, self.dim)

    @property
    def device(self) -> Any:
        return self.x.device

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
        """The kernel of x with itself; what was prepared for x is shared, unless that has a middle between x and y."""
        if self.x_cloud.near:
            return self._with(self.x_cloud, self.x_cloud)
        return type(self)(self.x, self.x, self.cost_function, self.workers)

    @on_device
    def at(self, points: Array) -> Points:
        """The kernel of other points, (r, d), with y; what was prepared for y is shared."""
        return self._with(Cloud(self.cupy.ascontiguousarray(points), self.y_cloud.middle), self.y_cloud)

    def rows_of(self, other: Any) -> Points:
        """The kernel of the first cloud of another kernel with y; what was prepared for near points is shared."""
        return self._with(other.x_cloud, self.y_cloud) if other.x_cloud.near else self.at(other.x)

    @cached_property
    def operands(self) -> Operands:
        x, y = self.x_cloud, self.y_cloud
        if not x.near:
            return self.centred_operands
        groups = shapes.groups(self.shape[1])
        boxes = y.boxes if groups else y.frames  # which nobody reads
        return Operands(
            x.sorted, y.sorted, x.frames, boxes, x.order, y.order, *self.shape, self.dim, groups=groups, frame=FRAME,
        )  # fmt: skip

    @cached_property
    def centred_operands(self) -> Operands:
        x, y = self.x_cloud, self.y_cloud
        return Operands(
            x.centred, y.centred, x.squares, y.squares, x.plain_order, y.plain_order, *self.shape, self.dim, frame=1,
        )  # fmt: skip

    def pairs(self) -> Pairs:
        clouds = self.x_cloud.points64, self.y_cloud.points64
        return Pairs(*clouds, self.real, "double", self.kind, self.factor, *self.shape, self.dim)

    @property
    def real(self) -> str:
        return real_name(self.x)

    def form(self, operation: str) -> Shape:
        real = self.real
        if self.x_cloud.near:
            return shapes.near(real, self.kind, self.dim, 4 if operation == "SUMS" else 2)
        few = operation == "VALUES" or (real == "double" and operation in ("WIDE", "SLOPES"))
        return shapes.tiled(real, self.kind, 4 if few else 8)

    @property
    def wide(self) -> bool:  # type: ignore[override]
        return not self.x_cloud.near

    @property
    def two_sided(self) -> bool:  # type: ignore[override]
        return not self.x_cloud.near  # whose exponentials cost less than a second kind of sums

    @on_device
    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        """out[i] = sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]).  (n,), (m,) -> (n, d)"""
        n, d = self.x.shape
        if 0 in (*self.shape, d):
            return self.empty_sum(0.0, n, d)
        out = self.cupy.empty((n, d), dtype=np.float64)
        h, (width, chunks) = self.vector(h), (d, 1) if self.x_cloud.near else (WIDTH, -(-d // WIDTH))
        seen = self.comm.seen(h)
        self.reduce("SLOPES", h, eps, self.vector(k), out, columns=d, chunks=chunks, width=1 + width)
        return self.complete(seen, out)

    @on_device
    def cost_apply(self, v: Array) -> Array:
        """out[i] = sum_j C[i, j] v[j].  (m,) -> (n,)"""
        n = self.shape[0]
        if 0 in self.shape:
            return self.empty_sum(0.0, n)
        v = self.vector(v)
        if self.kind == KINDS["square"]:
            return self._square_moments(v)
        seen, out = self.comm.seen(v), self.cupy.empty(n, dtype=np.float64)
        form, operands = shapes.tiled(self.real, self.kind, 4), self.centred_operands
        self.reduce("COSTS", v, 1.0, v, out, values=v, operands=self.own(operands), form=form, scale=1.0)
        return self.comm.complete(seen, out, operands.x_order, self.edges)

    def _square_moments(self, v: Array) -> Array:
        """factor / 2 sum_j |x_i - y_j|^2 v_j = factor / 2 (|x_i|^2 sum v - 2 <x_i, sum v y> + sum v |y|^2), centred."""
        cupy, centre = self.cupy, self.y_cloud.middle.point
        step = max(1, tiled.BLOCK_ELEMENTS // self.dim)
        first, second = cupy.zeros(self.dim), cupy.zeros(())
        for begin in range(0, v.shape[0], step):
            move, part = self.y[begin : begin + step] - centre, v[begin : begin + step]
            first += part @ move
            second += part @ (move * move).sum(axis=1)
        out, zeroth = cupy.empty(self.shape[0], dtype=np.float64), v.sum()
        for begin in range(0, out.shape[0], step):
            move = self.x[begin : begin + step] - centre
            out[begin : begin + step] = (move * move).sum(axis=1) * zeroth - 2 * (move @ first) + second
        return 0.5 * self.factor * out

    @on_device
    def cost_rows(self, rows: slice | Array) -> Array:
        """C[rows, :] in float64, a block of rows at a time: the differences of all coordinates exist for one block."""
        cupy, dim = self.cupy, self.dim
        chosen = reference.take_rows(self.x, rows).astype(np.float64)
        y, (n, m) = self.y.astype(np.float64), (chosen.shape[0], self.shape[1])
        out = cupy.empty((n, m), dtype=np.float64)
        step = max(1, 16 * tiled.BLOCK_ELEMENTS // max(1, m * dim))
        for begin in range(0, n, step):
            out[begin : begin + step] = self.cost_function.value(chosen[begin : begin + step, None, :], y[None, :, :])
        return out

    @on_device
    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Any:
        return reference.Points.plan_rows(self, rows, k, h, eps)
