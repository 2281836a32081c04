"""Reductions over a stored cost matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.kernels import reference
from epsot.kernels.bursts import Marginal
from epsot.kernels.cpu import batches
from epsot.kernels.cpu.blocks import STORED
from epsot.kernels.cpu.clouds import NO_ORDER
from epsot.kernels.cpu.fused import Fused
from epsot.kernels.cpu.threads import usable_workers
from epsot.kernels.cpu.tree import NO_TREE, Tree
from epsot.lazy import cached_property

Array = NDArray[Any]

CHUNK = 1 << 18  # entries converted to float64 at a time


class Matrix(Fused, reference.Matrix):
    """The kernels of a cost matrix, (n, m) float32 or float64, read where it lies; +inf forbids a pair.

    They compute in float64 whatever the entries are: rows and columns of a cost may hold constants that do not matter
    and, rounded with the rest to float32, would leave nothing of what does.
    """

    form = STORED

    def __init__(self, C: Array, workers: int | None = None) -> None:
        self._read(np.asarray(C), usable_workers(workers))

    def _read(self, C: Array, workers: int) -> None:
        reference.Matrix.__init__(self, C)
        self.workers = workers

    @cached_property
    def _transpose(self) -> Matrix:
        other = object.__new__(type(self))
        other._read(self.C.T, self.workers)
        return other

    @property
    def T(self) -> Matrix:
        return self._transpose

    def source(self) -> Matrix:
        """The kernel of x with itself: the same matrix, which only a square one has."""
        return self

    def at_once(self, a: Marginal, b: Marginal, eps: float) -> batches.Batch | None:
        return batches.one(self.C, None, None, self.shape, a, b, eps)

    @cached_property
    def operands(self) -> tuple[Array, Array, NDArray[np.int64], Array, Tree, Array]:
        address = self.C.__array_interface__["data"][0]
        matrix = np.array([address, *self.C.strides, self.shape[1]], np.int64)
        entry = np.zeros((1, 1), self.C.dtype)  # says what is read
        return np.zeros((1, 1)), np.zeros(1), np.arange(self.shape[0]), entry, NO_TREE, matrix

    order = NO_ORDER

    @cached_property
    def squares(self) -> Array:
        return np.zeros(1)

    def cost_apply(self, v: Array) -> Array:
        """out[i] = sum_j C[i, j] v[j], with inf * 0 = 0.  (m,) -> (n,)"""
        n, m = self.shape
        v, out = np.asarray(v, np.float64), np.zeros(n)
        used = np.flatnonzero(v)
        rows = max(1, CHUNK // max(m, 1))
        for begin in range(0, n, rows):
            part = self.C[begin : begin + rows]
            out[begin : begin + rows] = np.einsum("ij,j->i", part[:, used].astype(np.float64), v[used])  # not BLAS
        return out
