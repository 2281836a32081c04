"""One side of a problem: weights over a support, and how strictly they bind.

This is the only place above the kernels that reduces over a support. Log-weights of -inf are weights of zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsot.arrays import Place
from epsot.costs import Array
from epsot.kernels import vectors_of
from epsot.kernels.reference import bounded_exp
from epsot.kernels.vectors import Directions, Vectors
from epsot.lazy import Lean, cached_property


@dataclass(frozen=True, eq=False)
class Measure(Lean):
    """Weights a with the penalty rho KL(P 1 | a); rho = inf is the constraint P 1 = a, and the limit of every formula.

    All arrays are float64 and one-dimensional. f is the potential of this side.
    """

    weights: Array  # (n,)
    log_weights: Array
    mass: float
    rho: float
    place: Place
    workers: int | None = None  # threads of the arithmetic on the CPU
    zeros: bool = False  # whether there are weights of zero

    @classmethod
    def of(
        cls, weights: Array, mass: float, rho: float, place: Place, workers: int | None = None, *, zeros: bool = False
    ) -> Measure:
        """Of weights whose sum is known."""
        return cls(weights, place.xp.log(weights), mass, rho, place, workers, zeros)

    def resampled(self, weights: Array) -> Measure:
        """Other weights in their place, scaled to the same mass; zero only where those may be."""
        xp = self.place.xp
        weights = weights * (self.mass / xp.sum(weights))
        return Measure.of(weights, self.mass, self.rho, self.place, self.workers, zeros=self.zeros)

    @property
    def size(self) -> int:
        return int(self.weights.shape[0])

    @property
    def balanced(self) -> bool:
        return math.isinf(self.rho)

    @cached_property
    def vectors(self) -> Vectors:
        """The arithmetic between two sweeps, of the backend of the weights."""
        return vectors_of(self.weights, self.workers)

    # Sums over the support

    def counted(self, z: Array, other: float = 0.0) -> Array:
        """z, and another number where there is no weight."""
        xp = self.place.xp
        return xp.where(self.weights > 0, z, xp.full_like(z, other)) if self.zeros else z

    def dot(self, z: Array) -> Array:
        """<a, z>, 0-d; where there is no weight, z may be anything."""
        return self.place.xp.sum(self.weights * self.counted(z))

    def mean(self, z: Array) -> Array:
        """<a, z> / mass, 0-d; 0 of no mass."""
        return self.dot(z) / (self.mass or 1.0)

    def largest(self, z: Array) -> Array:
        """max |z| where there is weight, 0-d."""
        xp = self.place.xp
        return xp.max(self.counted(xp.abs(z)))

    def median(self, z: Array) -> Array:
        """The middle of z where there is weight, 0-d, whatever the weights are."""
        xp = self.place.xp
        count = int(xp.count_nonzero(self.weights > 0)) if self.zeros else self.size
        return xp.sort(self.counted(z, math.inf))[count // 2]

    def entropy(self, r: Array) -> Array:
        """<r, log(r / a)>, 0-d, with 0 log 0 = 0."""
        xp = self.place.xp
        ratio = xp.where(r > 0, r / self.counted(self.weights, 1.0), xp.ones_like(r))
        return xp.sum(r * xp.log(ratio))

    def log_mass(self, f: Array) -> Array:
        """The logarithm of the mass that f calls for, 0-d."""
        return self.vectors.log_mass(self.log_weights, f, self.rho)

    # The penalty and its conjugate

    def dampen(self, softmin: Any, eps: float) -> Any:
        """The maximiser of the dual in f from the softmin of g: f = softmin / (1 + eps / rho)."""
        return softmin if self.balanced else softmin / (1 + eps / self.rho)

    def undampen(self, f: Array, eps: float) -> Array:
        """The softmin whose damping is f."""
        return f if self.balanced else f * (1 + eps / self.rho)

    def called_for(self, f: Array) -> Array:
        """The marginal that f calls for, P 1 at the optimum: a exp(-f / rho), whatever f is at weight zero."""
        return self.weights if self.balanced else self.weights * self.place.xp.exp(-self.counted(f) / self.rho)

    def log_called_for(self, f: Array) -> Array:
        """log a - f / rho."""
        return self.log_weights if self.balanced else self.log_weights - f / self.rho

    def value(self, f: Array) -> Array:
        """The share of the dual objective, 0-d: <a, f>, or rho <a, 1 - exp(-f / rho)>."""
        if self.balanced:
            return self.dot(f)
        return -self.rho * self.dot(self.place.xp.expm1(-self.counted(f) / self.rho))

    def weight_gradient(self, f: Array, eps: float, other_mass: float) -> Array:
        """dOT / da[i] = rho + eps m_b - (rho + eps) exp(-f[i] / rho); balanced: f[i] + eps (m_b - 1)."""
        with np.errstate(over="ignore"):  # a point may call for more than numbers hold
            slope = f if self.balanced else -(self.rho + eps) * self.place.xp.expm1(-f / self.rho)
        return slope + eps * (other_mass - 1)

    def divergence(self, r: Array) -> Array:
        """rho KL(r | a), 0-d; zero where it is a constraint."""
        xp = self.place.xp
        if self.balanced:
            return xp.sum(xp.zeros_like(r))
        ratio = r / self.counted(self.weights, 1.0)
        excess = ratio - 1
        near = xp.abs(excess) < 0.5  # for a large rho r is close to a: log1p keeps the digits
        log = xp.where(
            near,
            xp.log1p(xp.where(near, excess, xp.zeros_like(r))),
            xp.log(xp.where(near | (ratio <= 0), xp.ones_like(r), ratio)),
        )
        return self.rho * self.dot(ratio * log - excess)

    # The plan, as its potentials show it

    def density(self, f: Array, eps: float) -> Array:
        """log a + f / eps.  (n,)"""
        return self.vectors.density(self.log_weights, f, eps)

    def violation(self, f: Array, next_f: Array, eps: float) -> Array:
        """The L1 distance of P 1 and the marginal that f calls for, of the pair (f, g) whose next f is given, 0-d.

        It is relative to the larger of the two masses, and 0 where both are 0.
        """
        return self.vectors.violation(self.log_weights, f, next_f, eps, self.rho)

    def marginals(self, f: Array, next_f: Array, eps: float) -> tuple[Array, Array]:
        """That, and the mass of P, both 0-d."""
        return self.vectors.marginals(self.log_weights, f, next_f, eps, self.rho)

    def sums(self, f: Array, next_f: Array, eps: float) -> Array:
        """P 1 of the pair (f, g) whose next f is given: a exp((f - softmin) / eps).  -> (n,)"""
        return bounded_exp(self.log_weights + (f - self.undampen(next_f, eps)) / eps, self.place.xp)

    def directions(self, *, balanced: bool, window: int | None = None) -> Directions:
        """The memory of the acceleration, which goes on from one potential to the next; balanced: both sides are."""
        found = self.vectors.directions(self.weights, self.log_weights, self.mass, self.rho, balanced=balanced)
        if window is not None:
            found.keep(window)
        return found
