"""Many problems of one padded shape: `Measure` and `Problem` with a batch axis in front.

f is (B, n), g is (B, m). What belongs to a whole problem, a mass, a strength, a temperature, is a NumPy array (B,) on
the host, where decisions are made, and an array (B,) of the library of the weights where it meets others.

Points of weight zero, padding among them, have a potential of zero here, whatever costs they have: no sum sees them.
Only `extended_f` and `extended_g` give them the value that extends the potential of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from epsot.arrays import Place, to_numpy
from epsot.costs import Array
from epsot.geometry.base import DOUBLE
from epsot.kernels.item_bursts import ItemBursts, Sides
from epsot.kernels.reference import bounded_exp, logsumexp
from epsot.kernels.vectors import distance
from epsot.lazy import cached_property
from epsot.problems.problem import ULPS

Record = TypeVar("Record")


class Kernels(Protocol):
    """The reductions of many problems that a solve asks for, as defined in `epsot.kernels.batched`."""

    stored: bool

    @property
    def T(self) -> Kernels: ...

    def softmin(self, h: Array, eps: Array) -> Array: ...
    def softmin_pair(self, k: Array, h: Array, eps: Array) -> tuple[Array, Array]: ...
    def bursts(self, a: Sides, b: Sides) -> ItemBursts | None: ...
    def take(self, indices: Array) -> Kernels: ...


def on_device(numbers: np.ndarray, place: Place) -> Array:
    """An array of the host where the others are, in memory of its own."""
    return place.xp.asarray(np.array(numbers), device=place.device)


class Chosen(NamedTuple):
    """Some of the problems, by their indices on the host and on the device."""

    host: np.ndarray
    device: Array
    xp: Any

    @classmethod
    def of(cls, indices: np.ndarray, place: Place) -> Chosen:
        return cls(indices, on_device(indices, place), place.xp)

    def of_record(self, record: Any) -> Any:
        """What belongs to them of an array with a batch axis, or of all arrays in a tuple; None stays."""
        if isinstance(record, tuple):
            parts = [self.of_record(part) for part in record]
            return type(record)(*parts) if hasattr(record, "_fields") else tuple(parts)
        if record is None:
            return None
        if isinstance(record, np.ndarray):
            return record[self.host, ...]
        return self.xp.take(record, self.device, axis=0)


def merged(mask: np.ndarray, new: Record, old: Record, place: Place) -> Record:
    """New arrays where a mask of the problems is true, and old ones elsewhere, or tuples of both."""
    if mask.all():
        return new
    if not mask.any():
        return old
    found: Record = _merged(on_device(mask, place), new, old, place.xp)
    return found


def _merged(mask: Array, new: Any, old: Any, xp: Any) -> Any:
    if isinstance(new, tuple):
        parts = [_merged(mask, *pair, xp) for pair in zip(new, old, strict=True)]
        return type(new)(*parts) if hasattr(new, "_fields") else tuple(parts)
    return xp.where(xp.reshape(mask, (-1,) + (1,) * (new.ndim - 1)), new, old)


@dataclass(frozen=True, eq=False)
class Measures:
    """One side of every problem: weights with the penalty rho KL(P 1 | a); rho = inf is the constraint P 1 = a."""

    weights: Array  # (B, n)
    log_weights: Array
    mass: np.ndarray  # (B,)
    rho: np.ndarray  # (B,)
    place: Place
    zeros: bool  # whether there are weights of zero

    @classmethod
    def of(cls, weights: Array, mass: np.ndarray | None, rho: np.ndarray | float, place: Place) -> Measures:
        """Of non-negative weights in float64, and their sums where these are known."""
        xp, count = place.xp, weights.shape[0]
        with np.errstate(divide="ignore"):
            log_weights = xp.log(weights)
        masses = to_numpy(xp.sum(weights, axis=-1)) if mass is None else np.asarray(mass, float)
        rhos = np.broadcast_to(np.asarray(rho, float), (count,))
        return cls(weights, log_weights, masses, rhos, place, bool(xp.any(weights == 0)))

    def take(self, chosen: Chosen) -> Measures:
        """Those of some problems."""
        return replace(
            self, weights=chosen.of_record(self.weights), log_weights=chosen.of_record(self.log_weights),
            mass=chosen.of_record(self.mass), rho=chosen.of_record(self.rho),
        )  # fmt: skip

    def on_device(self, numbers: np.ndarray) -> Array:
        """Numbers of the problems, or masks, beside the weights.  (B,) -> (B,)"""
        return on_device(numbers, self.place)

    @cached_property
    def masses(self) -> Array:
        """(B, 1)"""
        return self.on_device(self.mass)[:, None]

    @cached_property
    def strengths(self) -> Array:
        """(B, 1)"""
        return self.on_device(self.rho)[:, None]

    @cached_property
    def balanced(self) -> np.ndarray:
        """Which are constraints.  (B,)"""
        return np.asarray(np.isinf(self.rho))

    @cached_property
    def all_balanced(self) -> bool:
        return bool(self.balanced.all())

    def counted(self, z: Array, other: float = 0.0) -> Array:
        """z, and another number where there is no weight."""
        xp = self.place.xp
        return xp.where(self.weights > 0, z, xp.full_like(z, other)) if self.zeros else z

    def dot(self, z: Array) -> Array:
        """<a, z>; where there is no weight, z may be anything.  (B, n) -> (B,)"""
        return self.place.xp.sum(self.weights * self.counted(z), axis=-1)

    def largest(self, z: Array) -> Array:
        """max |z| where there is weight.  (B, n) -> (B,)"""
        return self.place.xp.max(self.counted(self.place.xp.abs(z)), axis=-1)

    def median(self, z: Array) -> Array:
        """The middle of z where there is weight, whatever the weights are.  (B, n) -> (B,)"""
        xp = self.place.xp
        ordered = xp.sort(self.counted(z, np.inf), axis=-1)
        middle = xp.sum(xp.astype(self.weights > 0, xp.int64), axis=-1, keepdims=True) // 2
        here = xp.arange(ordered.shape[1], device=self.place.device)[None, :] == middle
        return xp.sum(xp.where(here, ordered, xp.zeros_like(ordered)), axis=-1)

    def log_mass(self, f: Array) -> Array:
        """The logarithms of the masses that f calls for.  (B, n) -> (B,)"""
        return logsumexp(self.log_called_for(f))

    def log_called_for(self, f: Array) -> Array:
        """log a - f / rho."""
        return self.log_weights if self.all_balanced else self.log_weights - f / self.strengths

    def called_for(self, f: Array) -> Array:
        """a exp(-f / rho), the marginals that f calls for, whatever f is where there is no weight."""
        return (
            self.weights if self.all_balanced else self.weights * self.place.xp.exp(-self.counted(f) / self.strengths)
        )

    def dampen(self, softmin: Array, eps: Array) -> Array:
        """f = softmin / (1 + eps / rho)."""
        return softmin if self.all_balanced else softmin / (1 + eps[:, None] / self.strengths)

    def undampen(self, f: Array, eps: Array) -> Array:
        """The softmin whose damping is f."""
        return f if self.all_balanced else f * (1 + eps[:, None] / self.strengths)

    def density(self, f: Array, eps: Array) -> Array:
        """log a + f / eps."""
        return self.log_weights + f / eps[:, None]

    def marginals(self, f: Array, next_f: Array, eps: Array) -> tuple[Array, Array]:
        """As `Vectors.marginals`: the violation of the pair (f, g) whose next f is given, and sum P.  -> (B,), (B,)"""
        xp = self.place.xp
        exponent = xp.where(f == next_f, xp.zeros_like(f), f - next_f) * (1 / eps[:, None] + 1 / self.strengths)
        return distance(self.log_called_for(f), exponent, xp)

    def violation(self, f: Array, next_f: Array, eps: Array) -> Array:
        """The first of these.  -> (B,)"""
        return self.marginals(f, next_f, eps)[0]


@dataclass(frozen=True, eq=False)
class Problems:
    """Two measures of every problem, and a kernel over their pairs. Each point of positive weight has a partner."""

    kernel: Kernels
    a: Measures
    b: Measures
    eps: np.ndarray  # (B,) the temperatures to be solved at
    scale: np.ndarray  # (B,) of the terms of the cost that arithmetic rounds
    precision: float = DOUBLE  # of the arithmetic of the kernel
    own: bool = False  # whether both sides are one measure, and one potential serves for both

    @property
    def place(self) -> Place:
        return self.a.place

    @property
    def count(self) -> int:
        return int(self.a.weights.shape[0])

    @cached_property
    def bursts(self) -> ItemBursts | None:
        """What makes many steps of each at once, or None."""
        return self.kernel.bursts(self.a, self.b) if self.count else None

    @cached_property
    def balanced(self) -> np.ndarray:
        """Which are balanced on both sides.  (B,)"""
        return np.asarray(self.a.balanced & self.b.balanced)

    @cached_property
    def empty(self) -> np.ndarray:
        """Which have no mass on one side at least, so that there is nothing to iterate.  (B,)"""
        return np.asarray((self.a.mass == 0) | (self.b.mass == 0))

    def take(self, chosen: Chosen) -> Problems:
        """Some of the problems."""
        a = self.a.take(chosen)
        b = a if self.b is self.a else self.b.take(chosen)
        eps, scale = chosen.of_record((self.eps, self.scale))
        return replace(self, kernel=self.kernel.take(chosen.device), a=a, b=b, eps=eps, scale=scale)

    def zeros(self) -> tuple[Array, Array]:
        """Potentials to start from.  -> (B, n), (B, m)"""
        xp = self.place.xp
        return xp.zeros_like(self.a.weights), xp.zeros_like(self.b.weights)

    def extended_f(self, g: Array, eps: Array) -> Array:
        """The f that is optimal for g, also where there is no weight.  (B, m) -> (B, n)"""
        return self.a.dampen(self.kernel.softmin(self.b.density(g, eps), eps), eps)

    def extended_g(self, f: Array, eps: Array) -> Array:
        """The g that is optimal for f, also where there is no weight.  (B, n) -> (B, m)"""
        return self.b.dampen(self.kernel.T.softmin(self.a.density(f, eps), eps), eps)

    def next_f(self, g: Array, eps: Array) -> Array:
        """The f that is optimal for g.  (B, m) -> (B, n)"""
        return self.a.counted(self.extended_f(g, eps))

    def next_g(self, f: Array, eps: Array) -> Array:
        """The g that is optimal for f.  (B, n) -> (B, m)"""
        return self.b.counted(self.extended_g(f, eps))

    def extended_pair(self, f: Array, g: Array, eps: Array) -> tuple[Array, Array]:
        """Both, in one sweep."""
        new_f, new_g = self.kernel.softmin_pair(self.a.density(f, eps), self.b.density(g, eps), eps)
        return self.a.dampen(new_f, eps), self.b.dampen(new_g, eps)

    def next_pair(self, f: Array, g: Array, eps: Array) -> tuple[Array, Array]:
        """(next_f(g), next_g(f)), in one sweep."""
        new_f, new_g = self.extended_pair(f, g, eps)
        return self.a.counted(new_f), self.b.counted(new_g)

    def gauge(self, f: Array, g: Array) -> Array:
        """The c for which <a, f + c> = <b, g - c> where a problem is balanced, 0 where it is not.  -> (B,)"""
        shift = (self.b.dot(g) - self.a.dot(f)) / (self.a.masses + self.b.masses)[:, 0]
        return self.only(self.balanced, shift)

    def mass_shift(self, f: Array, g: Array) -> Array:
        """The c for which (f + c, g - c) is best where a problem is not balanced, 0 where it is.  -> (B,)"""
        unbalanced = ~self.balanced
        slopes = 1 / self.a.rho + 1 / self.b.rho
        rho = self.a.on_device(1 / np.where(unbalanced, slopes, 1.0))
        return self.only(unbalanced, rho * (self.a.log_mass(f) - self.b.log_mass(g)))

    def only(self, mask: np.ndarray, z: Array) -> Array:
        """z (B,) where a mask of the problems is true, and 0 elsewhere."""
        return merged(mask, z, self.place.xp.zeros_like(z), self.place)

    def leaving(self, f: Array, g: Array, next_g: Array, eps: Array) -> Array:
        """What a step replaces of g, with f optimal for it, as `Problem.T.leaving`.  -> (B, m)"""
        xp, a, b = self.place.xp, self.a, self.b
        h = a.log_weights + f * (2 / eps[:, None] + 1 / a.strengths)  # 2 (log a + f / eps) - (log a - f / rho)
        squares = self.kernel.T.softmin(h, eps / 2)
        log_share = b.log_weights + (g + b.undampen(next_g, eps) - 2 * squares) / eps[:, None]
        damping = (1 + eps[:, None] / a.strengths) * (1 + eps[:, None] / b.strengths)
        share = bounded_exp(log_share, xp) / damping
        return xp.where(share < 1, 1 - share, xp.zeros_like(share))

    def largest(self, f: Array, g: Array) -> Array:
        """The largest potentials of both sides.  -> (2, B)"""
        return self.place.xp.stack([self.a.largest(f), self.b.largest(g)])

    def logit_error(self, largest: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """The error of exponents by the rounding of potentials whose largest are given.  (2, B), (B,) -> (B,)"""
        slopes = 1 / eps + 1 / self.a.rho, 1 / eps + 1 / self.b.rho
        return np.asarray(DOUBLE * (largest[0] * slopes[0] + largest[1] * slopes[1]))

    def exponent_error(self, logit_error: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """The size of the error of (f + g - C) / eps by the rounding of all three, where P counts.  (B,) -> (B,)"""
        scale = 0.0 if self.kernel.stored else self.scale
        return np.asarray(self.precision * np.maximum(1.0, scale / eps) + logit_error)

    def rounding(self, f: Array, g: Array, eps: np.ndarray) -> np.ndarray:
        """A bound on the relative error that rounding leaves in P: a few ulps of its exponents.  -> (B,)"""
        return ULPS * self.exponent_error(self.logit_error(to_numpy(self.largest(f, g)), eps), eps)
