"""Reductions over a stored cost matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.kernels import reference
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import MATRIX, Pairs
from epsot.kernels.cuda.clouds import identity, real_name
from epsot.kernels.cuda.fused import Operands, on_device
from epsot.kernels.cuda.shapes import Shape
from epsot.kernels.cuda.two_sided import TwoSided
from epsot.lazy import cached_property


class Matrix(TwoSided, reference.Matrix):
    """The kernels of a cost matrix, an (n, m) CuPy array, read where it lies; +inf forbids a pair.

    Its entries may be float32. The arithmetic is float64: rows and columns may have constants in common, which change
    no plan and would take the digits of float32.
    """

    real = "double"

    def __init__(self, C: Array, workers: int | None = None) -> None:
        super().__init__(C)
        self.workers = workers

    @property
    def device(self) -> Any:
        return self.C.device

    @cached_property
    def _transpose(self) -> Matrix:
        return type(self)(self.C.T, self.workers)

    @property
    def T(self) -> Matrix:
        return self._transpose

    def source(self) -> Matrix:
        """The kernel of x with itself: the same matrix, which only a square one has."""
        return self

    @cached_property
    def operands(self) -> Operands:
        n, m = self.shape
        down, right = (stride // self.C.itemsize for stride in self.C.strides)
        none = self.cupy.zeros(1, dtype=np.float64)
        rows, columns = identity(self.cupy, n), identity(self.cupy, m)
        return Operands(self.C, self.C, none, none, rows, columns, n, m, 0, down, right)

    def pairs(self) -> Pairs:
        strides = self.operands.down, self.operands.right
        return Pairs(self.C, self.C, self.real, self.entry, MATRIX, self.factor, *self.shape, self.dim, *strides)

    @property
    def entry(self) -> str:
        """The C++ type of the entries."""
        return real_name(self.C)

    def form(self, operation: str) -> Shape:
        return shapes.stored(self.entry, self.C.strides[0] != self.C.itemsize or self.shape[0] == 1)

    @on_device
    def cost_apply(self, v: Array) -> Array:
        """out[i] = sum_j C[i, j] v[j], with inf * 0 = 0.  (m,) -> (n,)"""
        if 0 in self.shape:
            return self.empty_sum(0.0, self.shape[0])
        v, out = self.vector(v), self.cupy.empty(self.shape[0], dtype=np.float64)
        seen = self.comm.seen(v)
        return self.complete(seen, self.reduce("COSTS", v, 1.0, v, out, values=v, scale=1.0))

    @on_device
    def cost_rows(self, rows: slice | Array) -> Any:
        return reference.Matrix.cost_rows(self, rows)

    @on_device
    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Any:
        return reference.Matrix.plan_rows(self, rows, k, h, eps)
