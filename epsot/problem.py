"""A problem: two weighted supports, a kernel over their pairs, and how strictly the marginals bind.

P[i, j] = a[i] b[j] exp((f[i] + g[j] - C[i, j]) / eps). All arrays here are float64 and one-dimensional, and every
weight is positive: points of weight zero are set aside by `Support` and get their values back at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from epsot.arrays import Place
from epsot.costs import Array
from epsot.geometry.base import DOUBLE
from epsot.kernels import Kernel, vectors_of
from epsot.kernels.bursts import Bursts, Marginal, Refused
from epsot.kernels.reference import bounded_exp, log_marginals
from epsot.kernels.vectors import Directions, Vectors, distance
from epsot.lazy import cached_property

ULPS = 8  # errors of exponents that a sum may show, at most

Made = TypeVar("Made")


@dataclass(frozen=True)
class MarginalKL:
    """The penalty rho KL(P 1 | a); rho = inf is the balanced constraint, and the limit of every formula."""

    rho: float = math.inf

    @property
    def balanced(self) -> bool:
        return math.isinf(self.rho)

    def dampen(self, softmin: Any, eps: float) -> Any:
        """The maximiser of the dual in f from the softmin of g: f = softmin / (1 + eps / rho)."""
        return softmin if self.balanced else softmin / (1 + eps / self.rho)

    def undampen(self, f: Array, eps: float) -> Array:
        """The softmin whose damping is f."""
        return f if self.balanced else f * (1 + eps / self.rho)

    def marginal(self, a: Array, f: Array, xp: Any) -> Array:
        """The marginal that f calls for, P 1 at the optimum: a exp(-f / rho)."""
        return a if self.balanced else a * xp.exp(-f / self.rho)

    def log_marginal(self, log_a: Array, f: Array) -> Array:
        """log a - f / rho."""
        return log_a if self.balanced else log_a - f / self.rho

    def value(self, a: Array, f: Array, xp: Any) -> Array:
        """The share of the dual objective: <a, f>, or rho <a, 1 - exp(-f / rho)>."""
        return xp.sum(a * f) if self.balanced else -self.rho * xp.sum(a * xp.expm1(-f / self.rho))

    def weight_gradient(self, f: Array, eps: float, other_mass: float, xp: Any) -> Array:
        """dOT / da[i] = rho + eps m_b - (rho + eps) exp(-f[i] / rho); balanced: f[i] + eps (m_b - 1)."""
        slope = f if self.balanced else -(self.rho + eps) * xp.expm1(-f / self.rho)
        return slope + eps * (other_mass - 1)

    def divergence(self, r: Array, a: Array, xp: Any) -> Array:
        """rho KL(r | a); zero where it is a constraint."""
        if self.balanced:
            return xp.sum(xp.zeros_like(r))
        ratio = r / a
        excess = ratio - 1
        near = xp.abs(excess) < 0.5  # for a large rho r is close to a: log1p keeps the digits
        log = xp.where(
            near,
            xp.log1p(xp.where(near, excess, xp.zeros_like(r))),
            xp.log(xp.where(near | (ratio <= 0), xp.ones_like(r), ratio)),
        )
        return self.rho * xp.sum(a * (ratio * log - excess))


@dataclass(frozen=True)
class Problem:
    """Positive weights, a kernel, and the marginal penalties."""

    kernel: Kernel
    a: Array  # (n,)
    b: Array  # (m,)
    log_a: Array
    log_b: Array
    mass_a: float
    mass_b: float
    kl_a: MarginalKL
    kl_b: MarginalKL
    place: Place
    precision: float  # of the arithmetic of the kernel: half a unit in the last place of 1
    scale: float  # of the terms of the cost that this arithmetic rounds
    own: bool = False  # whether both sides are one measure, and one potential serves for both

    @cached_property
    def T(self) -> Problem:
        """The problem seen from the other side."""
        return Problem(
            self.kernel.T, self.b, self.a, self.log_b, self.log_a,
            self.mass_b, self.mass_a, self.kl_b, self.kl_a, self.place, self.precision, self.scale, self.own,
        )  # fmt: skip

    def source(self, kernel: Kernel, scale: float) -> Problem:
        """The problem of the first measure with itself, over its own kernel, which rounds terms of such a scale."""
        return Problem(
            kernel, self.a, self.a, self.log_a, self.log_a,
            self.mass_a, self.mass_a, self.kl_a, self.kl_a, self.place, self.precision, scale, own=True,
        )  # fmt: skip

    @cached_property
    def vectors(self) -> Vectors:
        """The arithmetic between two sweeps, of the backend of the weights."""
        return vectors_of(self.a, self.kernel.workers)

    @cached_property
    def bursts(self) -> Bursts | None:
        """What makes many steps at once, where the backend has it and it is worth it."""
        return self.kernel.bursts(
            Marginal(self.log_a, self.a, self.mass_a, self.kl_a.rho),
            Marginal(self.log_b, self.b, self.mass_b, self.kl_b.rho),
        )

    def in_bursts(self, make: Callable[[Bursts], Made]) -> Made | None:
        """What `make` does with the bursts; None where there are none, or the device refuses them, now and later."""
        if self.bursts is None:
            return None
        try:
            return make(self.bursts)
        except Refused:
            vars(self)["bursts"] = None
            return None

    @property
    def balanced(self) -> bool:
        return self.kl_a.balanced and self.kl_b.balanced

    def directions(self) -> Directions:
        """The memory of the acceleration, which goes on from one g to the next."""
        return self.vectors.directions(self.b, self.log_b, self.mass_b, self.kl_b.rho, balanced=self.balanced)

    def density_a(self, f: Array, eps: float) -> Array:
        """log a + f / eps.  (n,)"""
        return self.vectors.density(self.log_a, f, eps)

    def density_b(self, g: Array, eps: float) -> Array:
        """log b + g / eps.  (m,)"""
        return self.vectors.density(self.log_b, g, eps)

    def zeros(self) -> tuple[Array, Array]:
        """Potentials to start from.  -> (n,), (m,)"""
        xp = self.place.xp
        return xp.zeros_like(self.a), xp.zeros_like(self.b)

    def next_f(self, g: Array, eps: float, guess: Array | None = None) -> Array:
        """The f that is optimal for g; `guess` is an earlier f.  (m,) -> (n,)"""
        if guess is not None:
            guess = self.kl_a.undampen(guess, eps)
        return self.kl_a.dampen(self.kernel.softmin(self.density_b(g, eps), eps, guess), eps)

    def next_g(self, f: Array, eps: float, guess: Array | None = None) -> Array:
        """The g that is optimal for f; `guess` is an earlier g.  (n,) -> (m,)"""
        if guess is not None:
            guess = self.kl_b.undampen(guess, eps)
        return self.kl_b.dampen(self.T.kernel.softmin(self.density_a(f, eps), eps, guess), eps)

    def next_pair(self, f: Array, g: Array, eps: float) -> tuple[Array, Array]:
        """(next_f(g), next_g(f)), in one sweep.  (n,), (m,) -> (n,), (m,)"""
        new_f, new_g = self.kernel.softmin_pair(self.density_a(f, eps), self.density_b(g, eps), eps)
        return self.kl_a.dampen(new_f, eps), self.kl_b.dampen(new_g, eps)

    def next_self(self, f: Array, eps: float, guess: Array | None = None) -> Array:
        """next_f(f) where both sides are one measure.  (n,) -> (n,)"""
        if guess is not None:
            guess = self.kl_a.undampen(guess, eps)
        return self.kl_a.dampen(self.kernel.softmin_self(self.density_a(f, eps), eps, guess), eps)

    def dual_shift(self, f: Array, g: Array) -> Array:
        """The c for which (f + c, g - c) is best, 0-d (Sejourne et al. 2022).

        Unbalanced, it maximises the dual and so removes the slow direction of the iteration, the mass. Balanced, any c
        will do, and the limit of the formula is the symmetric gauge <a, f> = <b, g>.
        """
        xp = self.place.xp
        if self.balanced:
            return (xp.sum(self.b * g) - xp.sum(self.a * f)) / (self.mass_a + self.mass_b)
        rho = 1 / (1 / self.kl_a.rho + 1 / self.kl_b.rho)
        return rho * (self.log_mass(f) - self.T.log_mass(g))

    def log_mass(self, f: Array) -> Array:
        """The logarithm of the mass that f calls for, 0-d."""
        return self.vectors.log_mass(self.log_a, f, self.kl_a.rho)

    def violation(self, f: Array, next_f: Array, eps: float) -> Array:
        """The L1 distance of P 1 and the marginal that f calls for, of the pair (f, g) whose next f is given, 0-d.

        It is relative to the larger of the two masses, and 0 where both are 0.
        """
        return self.vectors.violation(self.log_a, f, next_f, eps, self.kl_a.rho)

    def marginals(self, f: Array, next_f: Array, eps: float) -> tuple[Array, Array]:
        """That, and the mass of P, both 0-d."""
        return self.vectors.marginals(self.log_a, f, next_f, eps, self.kl_a.rho)

    def row_sums(self, f: Array, next_f: Array, eps: float) -> Array:
        """P 1 of the pair (f, g) whose next f is given: a exp((f - softmin) / eps).  -> (n,)"""
        xp = self.place.xp
        return bounded_exp(self.log_a + (f - self.kl_a.undampen(next_f, eps)) / eps, xp)

    def leaving(self, f: Array, g: Array, next_f: Array, eps: float) -> Array:
        """1 - sum_j P[i, j]^2 / (rows[i] columns[j]), with g optimal for f: what of f[i] a step replaces.  -> (n,)

        It is the diagonal of the derivative of f - next_f(next_g(f)). The squares are a plan at half the temperature.
        """
        xp = self.place.xp
        h = 2 * self.density_b(g, eps) - self.kl_b.log_marginal(self.log_b, g)
        squares = self.kernel.softmin(h, eps / 2)
        log_share = self.log_a + (f + self.kl_a.undampen(next_f, eps) - 2 * squares) / eps
        share = bounded_exp(log_share, xp) / ((1 + eps / self.kl_a.rho) * (1 + eps / self.kl_b.rho))
        return xp.where(share < 1, 1 - share, xp.zeros_like(share))

    def measured(self, f: Array, g: Array, eps: float) -> float:
        """The marginal error of exactly this pair, by sweeps of its own; inf where it is no number."""
        xp = self.place.xp
        if self.kernel.stored:
            found = []
            logs = log_marginals(self.kernel.cost_rows, f, g, self.log_a, self.log_b, eps)
            for log_p, log_weights, kl, z in zip(
                logs, (self.log_a, self.log_b), (self.kl_a, self.kl_b), (f, g), strict=True
            ):
                log_m = kl.log_marginal(log_weights, z)
                found.append(distance(log_m, xp.where(log_p == log_m, xp.zeros_like(z), log_p - log_m), xp)[0])
        elif self.own:
            found = [self.violation(f, self.next_self(f, eps, f), eps)]
        else:
            found = [
                self.violation(f, self.next_f(g, eps, f), eps),
                self.T.violation(g, self.next_g(f, eps, g), eps),
            ]
        errors = [float(error) for error in found]
        return math.inf if any(map(math.isnan, errors)) else max(errors)

    def rounding(self, f: Array, g: Array, eps: float) -> float:
        """A bound on the relative error that rounding leaves in P: a few ulps of its exponents."""
        return ULPS * self.exponent_error(self.logit_error(f, g, eps), eps)

    def exponent_error(self, logit_error: float, eps: float) -> float:
        """The size of the error of (f + g - C) / eps by the rounding of all three, where P counts.

        There a stored cost is near f + g. However large others are, rounding leaves them too large.
        """
        scale = 0.0 if self.kernel.stored else self.scale
        return self.precision * max(1.0, scale / eps) + logit_error

    def logit_error(self, f: Array, g: Array, eps: float, constant: Array | float = 0.0) -> float:
        """The error of exponents by the rounding of f and g to float64; inf where they are not finite.

        Of (f + g - C) / eps, and of f / rho and g / rho in the marginals that are called for. `constant` is what f had
        less and g more when they were found.
        """
        xp = self.place.xp
        if 0 in (*f.shape, *g.shape):
            return 0.0
        largest, constant = xp.max(xp.abs(f)), abs(constant)
        slopes = 1 / eps + 1 / self.kl_a.rho, 1 / eps + 1 / self.kl_b.rho
        if self.own:
            return DOUBLE * float(largest) * sum(slopes)
        return DOUBLE * float((largest + constant) * slopes[0] + (xp.max(xp.abs(g)) + constant) * slopes[1])
