"""Sums of rows and of columns from one sweep, for costs whose logits are most of the work."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

import numpy as np

from epsot.communicator import cuts, sizes_of
from epsot.costs import Array
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import LOG2_E
from epsot.kernels.cuda.fused import MARKED, Fused, Operands, on_device
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
        seen, bands = self.comm.seen(h), cuts(self.bands, self.comm.size)
        rows, columns = self.plan_sums(k, h, eps, bands, symmetric=False)
        columns = self.comm.rows(seen, columns, sizes_of(bands))
        f = self.of_bands(bands, seen, rows, None, k, h, eps)
        return f, self.T.from_sums(columns, None, self.T.operands, h, k, eps)

    @on_device
    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        if 0 in self.shape:
            return self.empty_sum(math.inf, self.shape[0])
        h = self.vector(h)
        if not self.two_sided:
            return self.softmin(h, eps, guess)
        seen, bands = self.comm.seen(h), triangle_cuts(self.bands, self.comm.size)
        rows, columns = self.plan_sums(h, h, eps, bands, symmetric=True)
        columns = self.comm.rows(seen, columns, sizes_of(bands))
        return self.of_bands(bands, seen, rows, columns, h, h, eps)

    @property
    def band(self) -> int:
        """Rows of a band."""
        return shapes.band(self.form("SUMS"), self.shape[0])

    @property
    def bands(self) -> int:
        """How many there are."""
        return -(-self.shape[0] // self.band)

    def beginnings(self, bands: list[int]) -> list[int]:
        """The rows at which these begin."""
        return [min(self.shape[0], band * self.band) for band in bands]

    def plan_sums(self, k: Array, h: Array, eps: float, bands: list[int], *, symmetric: bool) -> tuple[Array, Array]:
        """The sums of exp(k[i] + h[j] - C[i, j] / eps) over bands of columns, and over bands of rows.

        Of the bands of rows between two cuts, those of this rank.
        """
        first, last = bands[self.comm.rank : self.comm.rank + 2]
        form, m = self.form("SUMS"), self.shape[1]
        operands = self.operands.within(*self.beginnings([first, last]))
        band_columns = shapes.band(form, m)
        column_bands = -(-m // band_columns)
        rows = self.cupy.zeros((column_bands, operands.n), dtype=np.float64)
        columns = self.cupy.zeros((last - first, m), dtype=np.float64)
        if first == last:
            return rows, columns
        arguments = operands.arguments(h, h, LOG2_E * self.factor / eps, 0.0)
        sizes = (np.int64(self.band), np.int64(band_columns), np.int32(1 + first if symmetric else 0))
        grid = (column_bands, last - first)
        launch(self.cupy, f"pair<{form.name}>", grid, form.threads, (*arguments, k, *sizes, rows, columns))
        return rows, columns

    def of_bands(
        self, bands: list[int], seen: Any, rows: Array, columns: Array | None, k: Array, h: Array, eps: float
    ) -> Array:
        """softmin(h, eps) of all rows, of which each rank has those between two cuts, and their sums."""
        edges = self.beginnings(bands)
        begin, end = edges[self.comm.rank : self.comm.rank + 2]
        others = columns if columns is None else self.cupy.ascontiguousarray(columns[:, begin:end])
        out = self.from_sums(rows, others, self.operands.within(begin, end), k, h, eps)
        return self.comm.complete(seen, out, self.operands.x_order, edges)

    def from_sums(self, sums: Array, others: Array | None, operands: Operands, k: Array, h: Array, eps: float) -> Array:
        """softmin(h, eps) of some rows from the sums of the plan of k and h; what is out of range is redone."""
        n = operands.n
        out = self.cupy.empty(self.shape[0], dtype=np.float64)
        if n == 0:
            return out
        more = np.int64(0 if others is None else others.shape[0])
        order = operands.x_order
        arguments = (sums, np.int64(sums.shape[0]), sums if others is None else others, more, np.int64(n), order, k)
        grid = (shapes.plain_blocks(n),)
        launch(self.cupy, "finish", grid, PLAIN_THREADS, (*arguments, np.float64(eps), out))
        return self.reduce("SUMS", h, eps, k, out, mode=MARKED, operands=operands)


def triangle_cuts(bands: int, size: int) -> list[int]:
    """Where bands of rows are cut for ranks: each has about as many pairs of bands on and right of the diagonal."""
    done = [band * bands - band * (band - 1) // 2 for band in range(bands + 1)]
    return [bisect_left(done, done[-1] * rank / size) for rank in range(size + 1)]
