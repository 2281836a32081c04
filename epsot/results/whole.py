"""The reductions of a plan over all points of the user, made of those over the points that the solver sees.

What has weight zero, however far away, takes part in no sum: it must not take digits from the others either, as it
would in kernels that place all points around common centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epsot.costs import Array
from epsot.kernels import Kernel
from epsot.kernels.reference import take_rows
from epsot.lazy import Lean, cached_property
from epsot.problems.instance import Instance


@dataclass(frozen=True, eq=False)
class WholeKernel(Lean):
    """`kernels.Kernel` over whole supports. Log-densities are -inf at what the solver does not see."""

    instance: Instance
    core: Kernel  # between the points that the solver sees

    @property
    def shape(self) -> tuple[int, int]:
        return self.instance.geometry.shape

    @property
    def T(self) -> WholeKernel:
        return WholeKernel(self.instance.T, self.core.T)

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        """out[i] = -eps log sum_j exp(h[j] - C[i, j] / eps).  (m,) -> (n,)"""
        rows, h = self.instance.side_a, self.instance.side_b.restrict(h)
        kept = self.core.softmin(h, eps, None if guess is None else rows.restrict(guess))
        return rows.scatter(kept, self._outside(lambda kernel: kernel.softmin(h, eps)), self.instance.place.xp.inf)

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        """out[i] = sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j].  (n,), (m,), (m, q) -> (n, q)"""
        rows, columns, xp = self.instance.side_a, self.instance.side_b, self.instance.place.xp
        h, v = columns.restrict(h), columns.restrict(v)
        kept = self.core.apply(rows.restrict(k), h, eps, v, None if guess is None else rows.restrict(guess))
        outside = self._outside(lambda kernel: kernel.apply(xp.take(k, rows.dropped), h, eps, v))
        return rows.scatter(kept, outside, 0.0)

    def _outside(self, compute: Any) -> Array | float:
        """What is computed at the points of weight zero, if there are any."""
        return 0.0 if self.instance.side_a.dropped is None else compute(self.instance.outside[1])

    @cached_property
    def _positions(self) -> Array:
        """Where each row stands among those that the solver sees, -1 where it is none of them.  (n,)"""
        place, rows = self.instance.place, self.instance.side_a
        own = place.xp.arange(self.core.shape[0], dtype=place.xp.float64, device=place.device)
        return place.xp.astype(rows.scatter(own, -1.0, -1.0), place.xp.int64)

    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array:
        """exp(k[i] + h[j] - C[i, j] / eps) for i in rows, zero at what the solver does not see.  -> (r, m)"""
        place, source, target = self.instance.place, self.instance.side_a, self.instance.side_b
        xp, where = place.xp, take_rows(self._positions, rows)
        seen, shape = where >= 0, (where.shape[0], self.core.shape[1])
        if 0 in self.core.shape:
            P = xp.zeros(shape, dtype=xp.float64, device=place.device)
        else:
            first = xp.where(seen, where, xp.zeros_like(where))
            P = self.core.plan_rows(first, source.restrict(k), target.restrict(h), eps)
        P = xp.where(seen[:, None], P, xp.zeros_like(P))
        if target.place is None:
            return P
        unseen = xp.zeros((shape[0], target.size - shape[1]), dtype=xp.float64, device=place.device)
        return xp.take(xp.concat([P, unseen], axis=1), target.order, axis=1)

    def cost_rows(self, rows: slice | Array) -> Array:
        """C[rows, :] in float64.  -> (r, m)"""
        return self._all.cost_rows(rows)

    @cached_property
    def _all(self) -> Kernel:
        """Between all points, for costs as such."""
        return self.instance.geometry.kernel(self.core.workers)
