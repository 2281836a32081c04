"""What happens to vectors between two sweeps, in any array-API namespace: the definition.

A sweep over all pairs costs n m, this only n + m. On a GPU, though, every operation on an array is a launch, and every
number that the host reads waits for the device: there a backend offers the same in a few launches and one reading.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from epsot.costs import Array
from epsot.kernels.reference import bounded_exp, logsumexp

WINDOW = 10  # directions kept; near the solution one would do, far from it 5 need up to 1.2 times the passes
DEPENDENT = 1e-8  # a direction that is the sum of the others up to this part of it is rounding
BENT = 1.05  # a residual so much larger than expected: the map is not linear yet, old directions mislead
LEAP = 20.0  # no mix goes further than so many eps from the plain step: there the map is not what it was here
LONGEST = 1.0  # no eased column moves by more than this many eps a step, where a plain step would not


def distance(log_m: Array, exponent: Array, xp: Any) -> tuple[Array, Array]:
    """sum_i |p[i] - m[i]| / max(sum p, sum m), 0 where both are 0, and sum p, for log p = log m + exponent.

    Beside the largest of all terms: no underflow of m may hide an exponent of p, nor an overflow.
    (..., n), (..., n) -> (...), (...)
    """
    with np.errstate(invalid="ignore"):  # of what is not finite the distance is not a number
        log_larger = log_m + xp.where(exponent > 0, exponent, xp.zeros_like(exponent))
        top = xp.max(log_larger, axis=-1)
        top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
        larger = xp.exp(log_larger - top[..., None])
        missed = -xp.expm1(-xp.abs(exponent)) * larger
        rest = larger - missed
        of_plan = xp.sum(xp.where(exponent > 0, larger, rest), axis=-1)
        called_for = xp.sum(xp.where(exponent > 0, rest, larger), axis=-1)
        most = xp.maximum(of_plan, called_for)
        error = xp.sum(missed, axis=-1) / xp.where(most == 0, xp.ones_like(most), most)
        return error, bounded_exp(top, xp) * of_plan


def with_row(matrix: Array, at: int, row: Array, xp: Any) -> Array:
    """The matrix with another row: arrays of some libraries are immutable."""
    return xp.concat([matrix[:at, :], row[None, :], matrix[at + 1 :, :]], axis=0)


class MixedStep(NamedTuple):
    """What a plain step leads to."""

    start: Array  # (m,) the g from which to go on
    error: float  # the violation of the pair before the step
    norm: float  # of the residual of the step


class Directions:
    """Where the last steps at one temperature went and what that did to the residual r(g) = (next g - g) / eps.

    `moves` and `changes` hold pairs (p + J p, J p), with J the derivative of r, the changes orthonormal in `weights`;
    they are replaced in turn.
    """

    rows = WINDOW
    window = WINDOW

    def __init__(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> None:
        self.xp: Any = array_namespace(b)
        self.b, self.log_b, self.mass, self.rho, self.balanced = b, log_b, mass, rho, balanced
        self.moves, self.changes = (
            self.xp.zeros((self.rows, b.shape[0]), dtype=self.xp.float64, device=b.device) for _ in range(2)
        )
        self.plain = b / mass  # the weights where nothing is eased
        self.rescale(None)

    def keep(self, window: int) -> None:
        """Fewer of them, before any is known."""
        self.window = window
        self.moves, self.changes = self.moves[:window, :], self.changes[:window, :]

    def weigh(self, b: Array, log_b: Array) -> None:
        """Start anew with other weights of the same mass."""
        self.b, self.log_b, self.plain = b, log_b, b / self.mass
        self.rescale(None)

    def forget(self) -> None:
        """Start anew."""
        self.count = 0
        self.past: Any = None  # the last plain result and its residual
        self.size = self.expected = math.inf  # norm of that residual, and of the next were the map linear

    def rescale(self, scale: Array | None) -> None:
        """Divide the residual by a scale, (m,) in (0, 1], or by 1; J stays symmetric in the weights times the scale."""
        self.scale, self.weights = scale, self.plain if scale is None else self.plain * scale
        self.forget()

    def advance(self, g: Array, updated: Array, result: Array, eps: float) -> MixedStep:
        """Take in a plain step from g to `updated`, or to `result` along a constant shift, and mix it with the last."""
        error = float(Vectors().violation(self.log_b, g, updated, eps, self.rho))
        if not math.isfinite(error):
            return MixedStep(result, error, error)
        norm = self.push(g, result, eps)
        return MixedStep(self.mix(eps), error, norm)

    def norm(self, z: Array) -> float:
        """The root of the weighted mean square."""
        return math.sqrt(float((self.weights * z) @ z))

    def push(self, g: Array, result: Array, eps: float) -> float:
        """Take in a plain step from g to result; returns the norm of its residual."""
        xp = self.xp
        residual = (result - g) / eps
        if self.balanced:  # constants do not matter
            residual = residual - (self.b @ residual) / self.mass
        if self.scale is not None:
            eased = residual / self.scale
            longest = xp.where(xp.abs(residual) > LONGEST, xp.abs(residual), LONGEST * xp.ones_like(eased))
            residual = xp.where(xp.abs(eased) > longest, xp.sign(eased) * longest, eased)
            result = g + eps * residual
        size = self.norm(residual)
        if size > BENT * self.expected:
            self.count = 0
        if self.past is not None:
            self._append(result - self.past[0], residual - self.past[1], self.size + size)
        self.past, self.size = (result, residual), size
        return size

    def _append(self, move: Array, change: Array, largest: float) -> None:
        """Take in a direction, made orthogonal to those kept, in place of the oldest; |change| is at most `largest`."""
        kept = min(self.count, self.window)
        if kept:
            shares = self.changes[:kept, :] @ (self.weights * change)
            change, move = change - shares @ self.changes[:kept, :], move - shares @ self.moves[:kept, :]
        size = self.norm(change)
        if DEPENDENT * largest < size < math.inf:
            slot = self.count % self.window
            self.moves = with_row(self.moves, slot, move / size, self.xp)
            self.changes = with_row(self.changes, slot, change / size, self.xp)
            self.count += 1

    def mix(self, eps: float) -> Array:
        """The g from which to go on: the point along the directions where the linear residual is smallest, and a step.

        Without directions it is the plain step.
        """
        assert self.past is not None
        xp, (result, residual), kept = self.xp, self.past, min(self.count, self.window)
        self.expected = self.size
        if not kept:
            return result
        shares = self.changes[:kept, :] @ (self.weights * residual)
        self.expected = math.sqrt(max(0.0, self.size**2 - float(shares @ shares)))
        move = shares @ self.moves[:kept, :]
        furthest = float(xp.max(xp.abs(move)))
        return result - (move if furthest <= LEAP * eps else move * (LEAP * eps / furthest))


class Vectors:
    """The operations that the solver asks for by name. Nothing is kept."""

    def density(self, log_b: Array, g: Array, eps: float) -> Array:
        """log b + g / eps.  (m,), (m,) -> (m,)"""
        return log_b + g / eps

    def violation(self, log_a: Array, f: Array, next_f: Array, eps: float, rho: float) -> Array:
        """sum_i |p[i] - m[i]| / max(sum p, sum m), 0-d, of the pair (f, g) whose next f is given; 0 where both are 0.

        p = P 1 is the marginal of the plan, m = a exp(-f / rho) the one that f calls for.
        """
        return self.marginals(log_a, f, next_f, eps, rho)[0]

    def marginals(self, log_a: Array, f: Array, next_f: Array, eps: float, rho: float) -> tuple[Array, Array]:
        """The violation, and sum p, both 0-d."""
        xp = array_namespace(log_a)
        with np.errstate(invalid="ignore"):
            # Equal potentials agree, infinite ones too: a point without a partner has p = m = 0.
            exponent = xp.where(f == next_f, xp.zeros_like(f), f - next_f) * (1 / eps + 1 / rho)
            log_m = log_a if math.isinf(rho) else log_a - f / rho
        return distance(log_m, exponent, xp)

    def log_mass(self, log_a: Array, f: Array, rho: float) -> Array:
        """log sum_i a[i] exp(-f[i] / rho), 0-d, without overflow."""
        return logsumexp((log_a if math.isinf(rho) else log_a - f / rho)[None, :])[0]

    def directions(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> Directions:
        """Of a side with weights b and marginal strength rho; balanced: both sides are."""
        return Directions(b, log_b, mass, rho, balanced=balanced)
