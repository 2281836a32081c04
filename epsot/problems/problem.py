"""A problem: two measures and a kernel over their pairs.

P[i, j] = a[i] b[j] exp((f[i] + g[j] - C[i, j]) / eps). All arrays here are float64 and one-dimensional. Where points of
weight zero can be left out, `Support` has set them aside, and gives them values at the end; else they are here, and
have the potential that extends that of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from epsot.arrays import Place
from epsot.costs import Array
from epsot.geometry.base import DOUBLE
from epsot.kernels import Kernel
from epsot.kernels.bursts import Bursts, Refused
from epsot.kernels.reference import bounded_exp, log_marginals
from epsot.kernels.vectors import Directions, distance
from epsot.lazy import Lean, cached_property
from epsot.problems.measure import Measure

ULPS = 8  # errors of exponents that a sum may show, at most ...
SEEN = 1e-2  # relative error of the plan by rounding that a number nobody has asked to be small may have ...
LEAST_SEEN = 1e-4  # ... and any: bounds are a hundred times what they bound, and float32 holds no more
UNSEEN = 4  # ... and that one in float64 was found to hide, of exponents up to 1e12

Made = TypeVar("Made")


def is_hidden(rounding: float, error: Array | float | None) -> bool:
    """Whether an error by rounding is small beside the marginal error of a plan, if that was measured.

    A larger one its numbers would show, though the result says less of them. A device that knows the marginal error is
    asked only where that decides.
    """
    return rounding < LEAST_SEEN or rounding < (SEEN if error is None else min(float(error), SEEN))


@dataclass(frozen=True)
class Problem(Lean):
    """Two measures, and a kernel over their pairs."""

    kernel: Kernel
    a: Measure
    b: Measure
    precision: float  # of the arithmetic of the kernel: half a unit in the last place of 1
    rounded: Callable[[], float]  # -> the size of the terms of the cost that this arithmetic rounds
    own: bool = False  # whether both sides are one measure, and one potential serves for both

    @property
    def place(self) -> Place:
        return self.a.place

    @cached_property
    def T(self) -> Problem:
        """The problem seen from the other side."""
        return Problem(self.kernel.T, self.b, self.a, self.precision, self.rounded, self.own)

    def source(self, kernel: Kernel, rounded: Callable[[], float]) -> Problem:
        """The problem of the first measure with itself, over its own kernel, which rounds other terms."""
        return Problem(kernel, self.a, self.a, self.precision, rounded, own=True)

    @cached_property
    def scale(self) -> float:
        """What `rounded` returns, found when it is asked for: a small problem needs none."""
        return self.rounded()

    @cached_property
    def bursts(self) -> Bursts | None:
        """What makes many steps at once, where the backend has it and it is worth it."""
        return self.kernel.bursts(self.a, self.b)

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
        return self.a.balanced and self.b.balanced

    def directions(self) -> Directions:
        """The memory of the acceleration, which goes on from one g to the next."""
        return self.b.directions(balanced=self.balanced, window=self.kernel.window)

    def zeros(self) -> tuple[Array, Array]:
        """Potentials to start from.  -> (n,), (m,)"""
        xp = self.place.xp
        return xp.zeros_like(self.a.weights), xp.zeros_like(self.b.weights)

    def next_f(self, g: Array, eps: float, guess: Array | None = None) -> Array:
        """The f that is optimal for g; `guess` is an earlier f.  (m,) -> (n,)"""
        if guess is not None:
            guess = self.a.undampen(guess, eps)
        return self.a.dampen(self.kernel.softmin(self.b.density(g, eps), eps, guess), eps)

    def next_g(self, f: Array, eps: float, guess: Array | None = None) -> Array:
        """The g that is optimal for f; `guess` is an earlier g.  (n,) -> (m,)"""
        if guess is not None:
            guess = self.b.undampen(guess, eps)
        return self.b.dampen(self.T.kernel.softmin(self.a.density(f, eps), eps, guess), eps)

    def next_pair(self, f: Array, g: Array, eps: float) -> tuple[Array, Array]:
        """(next_f(g), next_g(f)), in one sweep.  (n,), (m,) -> (n,), (m,)"""
        new_f, new_g = self.kernel.softmin_pair(self.a.density(f, eps), self.b.density(g, eps), eps)
        return self.a.dampen(new_f, eps), self.b.dampen(new_g, eps)

    def next_self(self, f: Array, eps: float, guess: Array | None = None) -> Array:
        """next_f(f) where both sides are one measure.  (n,) -> (n,)"""
        if guess is not None:
            guess = self.a.undampen(guess, eps)
        return self.a.dampen(self.kernel.softmin_self(self.a.density(f, eps), eps, guess), eps)

    def dual_shift(self, f: Array, g: Array) -> Array:
        """The c for which (f + c, g - c) is best, 0-d (Sejourne et al. 2022).

        Unbalanced, it maximises the dual and so removes the slow direction of the iteration, the mass. Balanced, any c
        will do, and the limit of the formula is the symmetric gauge <a, f> = <b, g>.
        """
        if self.balanced:
            return (self.b.dot(g) - self.a.dot(f)) / (self.a.mass + self.b.mass)
        rho = 1 / (1 / self.a.rho + 1 / self.b.rho)
        return rho * (self.a.log_mass(f) - self.b.log_mass(g))

    def leaving(self, f: Array, g: Array, next_f: Array, eps: float) -> Array:
        """1 - sum_j P[i, j]^2 / (rows[i] columns[j]), with g optimal for f: what of f[i] a step replaces.  -> (n,)

        It is the diagonal of the derivative of f - next_f(next_g(f)). The squares are a plan at half the temperature.
        """
        xp = self.place.xp
        h = self.b.counted(2 * self.b.density(g, eps) - self.b.log_called_for(g), -math.inf)
        squares = self.kernel.softmin(h, eps / 2)
        log_share = self.a.log_weights + (f + self.a.undampen(next_f, eps) - 2 * squares) / eps
        share = bounded_exp(log_share, xp) / ((1 + eps / self.a.rho) * (1 + eps / self.b.rho))
        return xp.where(share < 1, 1 - share, xp.zeros_like(share))

    def measured(self, f: Array, g: Array, eps: float) -> float:
        """The marginal error of exactly this pair, by sweeps of its own; inf where it is no number."""
        xp = self.place.xp
        if self.kernel.stored:
            found = []
            logs = log_marginals(self.kernel.cost_rows, f, g, self.a.log_weights, self.b.log_weights, eps)
            for log_p, measure, z in zip(logs, (self.a, self.b), (f, g), strict=True):
                log_m = measure.log_called_for(z)
                found.append(distance(log_m, xp.where(log_p == log_m, xp.zeros_like(z), log_p - log_m), xp)[0])
        elif self.own:
            found = [self.a.violation(f, self.next_self(f, eps, f), eps)]
        else:
            found = [
                self.a.violation(f, self.next_f(g, eps, f), eps),
                self.b.violation(g, self.next_g(f, eps, g), eps),
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

    def logit_error(self, f: Array, g: Array, eps: float) -> float:
        """The error of exponents by the rounding of f and g to float64; inf where they are not finite.

        Of (f + g - C) / eps, and of f / rho and g / rho in the marginals that are called for.
        """
        if 0 in (*f.shape, *g.shape):
            return 0.0
        largest = self.a.largest(f)
        slopes = 1 / eps + 1 / self.a.rho, 1 / eps + 1 / self.b.rho
        if self.own:
            return DOUBLE * float(largest) * sum(slopes)
        return DOUBLE * float(largest * slopes[0] + self.b.largest(g) * slopes[1])
