"""Sums of rows and of columns from one sweep, for costs whose logits are most of the work."""

from __future__ import annotations

import math

import numpy as np

from epsot.costs import Array
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import LOG2_E
from epsot.kernels.cuda.fused import MARKED, Fused, on_device
from epsot.kernels.cuda.modules import launch
from epsot.kernels.cuda.shapes import PLAIN_THREADS


class TwoSided(Fused):
    """`Fused` with the softmins of both sides.

    Attributes
    ----------
    two_sided : whether one sweep for both sides is faster than one for each
    """

    two_sided: bool = True

    @property
    def T(self) -> TwoSided:
        raise TypeError("the transpose belongs to the subclass")

    @on_device
    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]:
        if 0 in self.shape:
            return self.empty_sum(math.inf, self.shape[0]), self.empty_sum(math.inf, self.shape[1])
        k, h = self.vector(k), self.vector(h)
        if not (self.two_sided and self.T.two_sided):  # a mean row is guessed to have a mean mass
            guesses = (eps * (z + math.log(len(z))) for z in (k, h))
            return self.softmin(h, eps, next(guesses)), self.T.softmin(k, eps, next(guesses))
        rows, columns = self.plan_sums(k, h, eps, symmetric=False)
        one, other = self.operands.x_order, self.operands.y_order
        return self.from_sums(rows, None, one, k, h, eps), self.T.from_sums(columns, None, other, h, k, eps)

    @on_device
    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        if 0 in self.shape:
            return self.empty_sum(math.inf, self.shape[0])
        h = self.vector(h)
        if not self.two_sided:
            return self.softmin(h, eps, guess)
        rows, columns = self.plan_sums(h, h, eps, symmetric=True)
        return self.from_sums(rows, columns, self.operands.x_order, h, h, eps)

    def plan_sums(self, k: Array, h: Array, eps: float, *, symmetric: bool) -> tuple[Array, Array]:
        """The sums of exp(k[i] + h[j] - C[i, j] / eps) over bands of columns, and over bands of rows."""
        n, m = self.shape
        form = self.form("SUMS")
        band_rows, band_columns = shapes.band(form, n), shapes.band(form, m)
        row_bands, column_bands = -(-n // band_rows), -(-m // band_columns)
        rows = self.cupy.zeros((column_bands, n), dtype=np.float64)
        columns = self.cupy.zeros((row_bands, m), dtype=np.float64)
        arguments = self.operands.arguments(h, h, LOG2_E * self.factor / eps, 0.0)
        sizes = (np.int64(band_rows), np.int64(band_columns), np.int32(symmetric))
        grid = (column_bands, row_bands)
        launch(self.cupy, f"pair<{form.name}>", grid, form.threads, (*arguments, k, *sizes, rows, columns))
        return rows, columns

    def from_sums(self, sums: Array, others: Array | None, order: Array, k: Array, h: Array, eps: float) -> Array:
        """softmin(h, eps) from the sums of the plan of k and h; what is out of range is redone."""
        n = self.shape[0]
        out = self.cupy.empty(n, dtype=np.float64)
        more = np.int64(0 if others is None else others.shape[0])
        arguments = (sums, np.int64(sums.shape[0]), sums if others is None else others, more, np.int64(n), order, k)
        grid = (shapes.plain_blocks(n),)
        launch(self.cupy, "finish", grid, PLAIN_THREADS, (*arguments, np.float64(eps), out))
        return self.reduce("SUMS", h, eps, k, out, mode=MARKED)
