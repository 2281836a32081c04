"""The two sides of a solved problem, and the plan between some points of both, as second derivatives see them."""

from __future__ import annotations

from dataclasses import dataclass

from epsot.costs import Array
from epsot.geometry import Geometry
from epsot.geometry.tangents import Tangents
from epsot.kernels import Kernel
from epsot.lazy import cached_property
from epsot.problems.measure import Measure
from epsot.problems.support import Support
from epsot.results.potential import Potential


class Side:
    """The points of one side: `seen` by the solver, with mass, and `unseen`, of weight zero."""

    def __init__(self, support: Support, measure: Measure, potential: Potential, eps: float) -> None:
        self.support, self.measure, self.place, self._potential = support, measure, measure.place, potential
        self.eps, self.softness = eps, eps / measure.rho
        self.density = measure.density(potential.f, eps)  # log a + f / eps
        self.guess = measure.undampen(potential.f, eps)

    @property
    def zeros(self) -> bool:
        """Whether there are points of weight zero."""
        return self.measure.zeros or self.support.dropped is not None

    def none(self, V: Array) -> Array:
        """Zeros at what is seen, for directions (size, q).  (kept, q)"""
        xp, shape = self.place.xp, (self.density.shape[0], V.shape[1])
        return xp.zeros(shape, dtype=xp.float64, device=self.place.device)

    @cached_property
    def per_weight(self) -> Array:
        """1 / a at what is seen, zero where that has no weight."""
        xp, a = self.place.xp, self.measure.weights
        return xp.where(a > 0, 1 / xp.where(a > 0, a, xp.ones_like(a)), xp.zeros_like(a))

    @cached_property
    def density_unseen(self) -> Array:
        """f / eps at what is unseen; -inf at others, where they are no group of their own."""
        xp, f = self.place.xp, self._potential.potential
        if self.support.dropped is not None:
            f = xp.take(f, self.support.dropped)
            return xp.where(xp.isfinite(f), f / self.eps, -xp.inf)
        f = self.support.restrict(f)
        return xp.where((self.measure.weights == 0) & xp.isfinite(f), f / self.eps, -xp.inf)

    def seen(self, whole: Array) -> Array:
        """The part of what is seen.  (n, ...) -> (kept, ...)"""
        return self.support.restrict(whole)

    def unseen(self, whole: Array) -> Array:
        """The part of what is unseen."""
        xp = self.place.xp
        if self.support.dropped is not None:
            return xp.take(whole, self.support.dropped, axis=0)
        whole = self.support.restrict(whole)
        zero = xp.reshape(self.measure.weights == 0, (-1, *[1] * (whole.ndim - 1)))
        return xp.where(zero, whole, xp.zeros_like(whole))

    def whole(self, seen: Array, unseen: Array | None = None) -> Array:
        """Back to all points, zero at those without a partner."""
        if self.support.dropped is not None or unseen is None:
            return self.support.scatter(seen, 0.0 if unseen is None else unseen, 0.0)
        xp = self.place.xp
        mass = xp.reshape(self.measure.weights > 0, (-1, *[1] * (seen.ndim - 1)))
        return self.support.scatter(xp.where(mass, seen, unseen), 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Block:
    """The plan between some rows and some columns: a geometry, its kernel, and the two log-densities."""

    geometry: Geometry
    kernel: Kernel
    k: Array
    h: Array
    eps: float
    guesses: tuple[Array | None, Array | None] = (None, None)  # of the softmins of h and of k

    @cached_property
    def T(self) -> Block:
        """The transposed plan."""
        other = Block(self.geometry.T, self.kernel.T, self.h, self.k, self.eps, self.guesses[::-1])
        vars(other)["T"] = self
        return other

    @cached_property
    def tangents(self) -> Tangents:
        """What becomes of its sums as points move."""
        return self.geometry.tangents(self.kernel, self.k, self.h, self.eps, self.guesses[0])

    def __matmul__(self, v: Array) -> Array:
        """P v.  (m, q) -> (n, q)"""
        return self.kernel.apply(self.k, self.h, self.eps, v, self.guesses[0])
