"""The problem of a barycenter: several measures on one support, and a kernel over the pairs of its points.

All weights are of mass one, in float64. What is sought are weights a on the same support, and for every measure a plan
from a to it: P_k[i, j] = a[i] a_k[j] exp((f_k[i] + g_k[j] - C[i, j]) / eps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from epsot.arrays import Place, as_number, rounding_of
from epsot.costs import Array
from epsot.geometry import Geometry
from epsot.geometry.base import DOUBLE, of_parts, parts_of
from epsot.kernels import Kernel
from epsot.kernels.reference import logsumexp
from epsot.kernels.vectors import Directions, Vectors
from epsot.lazy import Lean, cached_property
from epsot.problems.instance import Instance, check_workers, posed
from epsot.problems.measure import Measure
from epsot.problems.problem import ULPS
from epsot.problems.weights import checked_weights

SELF_SHARE = 2.0  # weight of the self-transport in the norm of the mixing, beside one of all plans together


@dataclass(frozen=True, eq=False)
class BarycenterProblem:
    """Measures of positive shares, the kernel of their support with itself, and what is minimised.

    debias: sum_k t_k S(a, a_k); else sum_k t_k OT(a, a_k) + eps KL(a | uniform).
    """

    kernel: Kernel
    measures: tuple[Measure, ...]
    shares: tuple[float, ...]  # t_k, of sum one
    debias: bool
    precision: float  # of the arithmetic of the kernel: half a unit in the last place of 1
    scale: float  # of the terms of the cost that this arithmetic rounds

    @property
    def place(self) -> Place:
        return self.measures[0].place

    @property
    def size(self) -> int:
        return self.measures[0].size

    @property
    def vectors(self) -> Vectors:
        return self.measures[0].vectors

    def at_resolution(self, core: Geometry, weights: list[Array]) -> BarycenterProblem:
        """Other, coarser measures in place of these, over such a geometry."""
        measures = tuple(measure.resampled(z) for measure, z in zip(self.measures, weights, strict=True))
        return replace(self, kernel=core.kernel(self.kernel.workers), measures=measures)

    def full(self, number: float) -> Array:
        """The same number at every point.  (n,)"""
        place = self.place
        return place.xp.full((self.size,), number, dtype=place.xp.float64, device=place.device)

    # Softmins

    def next_f(self, g: Array, eps: float, guess: Array | None = None) -> Array:
        """f_k[i] = -eps log sum_j a_k[j] exp((g_k[j] - C[i, j]) / eps).  (K, n) -> (K, n)"""
        rows = [measure.density(g[k, ...], eps) for k, measure in enumerate(self.measures)]
        return self._softmins(rows, eps, guess)

    def next_g(self, log_a: Array, f: Array, eps: float, guess: Array | None = None) -> Array:
        """g_k[j] = -eps log sum_i a[i] exp((f_k[i] - C[i, j]) / eps).  (n,), (K, n) -> (K, n)"""
        return self._softmins([log_a + f[k, ...] / eps for k in range(len(self.measures))], eps, guess)

    def _softmins(self, rows: list[Array], eps: float, guess: Array | None) -> Array:
        found = [self.kernel.softmin_self(h, eps, None if guess is None else guess[k, ...]) for k, h in enumerate(rows)]
        return self.place.xp.stack(found)

    def log_blurred(self, log_d: Array, eps: float, guess: Array | None = None) -> Array:
        """log K d for K[i, j] = exp(-C[i, j] / eps).  (n,) -> (n,)"""
        return -self.kernel.softmin_self(log_d, eps, None if guess is None else -eps * guess) / eps

    # Sums over the measures

    def mean(self, z: Array) -> Array:
        """sum_k t_k z_k.  (K, ...) -> (...)"""
        total = self.shares[0] * z[0, ...]
        for k in range(1, len(self.shares)):
            total = total + self.shares[k] * z[k, ...]
        return total

    def value(self, g: Array) -> Array:
        """sum_k t_k <a_k, g_k>, 0-d."""
        return self.mean(self.place.xp.stack([measure.dot(g[k, ...]) for k, measure in enumerate(self.measures)]))

    def error(self, log_a: Array, f: Array, updated: Array, eps: float) -> float:
        """sum_k t_k sum_i |(P_k 1)[i] - a[i]| of potentials whose next f is given: `updated`."""
        errors = [self.vectors.violation(log_a, f[k, ...], updated[k, ...], eps, math.inf) for k in range(f.shape[0])]
        return float(self.mean(self.place.xp.stack(errors)))

    def self_error(self, log_a: Array, log_d: Array, log_blurred: Array, eps: float) -> float:
        """sum_i |d[i] (K d)[i] - a[i]|."""
        return float(self.vectors.violation(log_a, eps * (log_d + log_blurred), eps * log_a, eps, math.inf))

    def called_for(self, log_d: Array, f: Array, eps: float) -> tuple[Array, Array]:
        """The weights that d and the potentials call for, and the potentials with the constant of these.

        log a = log d - sum_k t_k f_k / eps, of mass one.  (n,), (K, n) -> (n,), (K, n)
        """
        log_a = log_d - self.mean(f) / eps
        excess = logsumexp(log_a[None, :])[0]
        return log_a - excess, f + eps * excess

    # What the solver asks for

    def directions(self, log_a: Array, memory: Directions | None = None) -> Directions:
        """The memory of the mixing, of all f_k and, debiased, eps log d, in the weights t_k a and SELF_SHARE a.

        `memory`: that of other weights, which is used again.
        """
        xp, own = self.place.xp, (SELF_SHARE,) if self.debias else ()
        weights = (*self.shares, *own)
        log_weights = xp.concat([log_a + math.log(weight) for weight in weights])
        if memory is not None:
            memory.weigh(xp.exp(log_weights), log_weights)
            return memory
        mass = math.fsum(weights)
        found = self.vectors.directions(xp.exp(log_weights), log_weights, mass, math.inf, balanced=False)
        if self.kernel.window is not None:
            found.keep(self.kernel.window)
        return found

    def rounding(self, f: Array, log_d: Array, eps: float) -> float:
        """A bound on the relative error that rounding leaves in the plans: a few ulps of their exponents."""
        xp = self.place.xp
        scale = 0.0 if self.kernel.stored else self.scale
        largest = float(xp.max(xp.abs(f))) / eps
        finite = xp.where(xp.isfinite(log_d), log_d, xp.zeros_like(log_d))
        sizes = DOUBLE * (2 * largest + float(xp.max(xp.abs(finite))))
        return ULPS * (self.precision * max(1.0, scale / eps) + sizes)


@dataclass(frozen=True, eq=False)
class BarycenterInstance(Lean):
    """The barycenter that the user asked for: checked measures, of which those of positive shares are solved for."""

    geometry: Geometry  # of the support with itself
    weights: tuple[Array, ...]  # of all K measures, in float64, flat and of mass one
    shares: tuple[float, ...]  # t, of sum one
    mass: float
    eps: float
    rounding: float  # of sums of the weights as they were given
    problem: BarycenterProblem

    @property
    def place(self) -> Place:
        return self.geometry.place

    def written(self) -> dict[str, Any]:
        """What a file holds of it."""
        return {
            "geometry": parts_of(self.geometry), "weights": list(self.weights), "shares": list(self.shares),
            "mass": self.mass, "eps": self.eps, "rounding": self.rounding, "debias": self.problem.debias,
        }  # fmt: skip

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> BarycenterInstance:
        """Of what a file holds; ValueError where it does not fit."""
        geometry, debias = of_parts(parts["geometry"], place), bool(parts["debias"])
        n, m = geometry.shape
        weights = tuple(checked_weights("a", place.received(z), (n,), place) for z in parts["weights"])
        shares = tuple(as_number("t", share) for share in parts["shares"])
        if n != m or len(weights) != len(shares) or not any(share > 0 for share in shares):
            raise ValueError(f"{len(weights)} measures of {len(shares)} shares, on {n} and {m} points")
        mass, eps, rounding = (as_number(name, parts[name]) for name in ("mass", "eps", "rounding"))
        problem = problem_of(geometry, weights, shares, debias=debias, workers=None)
        return cls(geometry, weights, shares, mass, eps, rounding, problem)

    @property
    def active(self) -> tuple[int, ...]:
        """The measures of positive shares."""
        return tuple(k for k, share in enumerate(self.shares) if share > 0)

    @cached_property
    def exact(self) -> BarycenterProblem:
        """The problem over a kernel that computes in float64: itself, or over a copy of float32 points."""
        problem = self.problem
        if problem.precision <= DOUBLE:
            return problem
        core = self.geometry.in_float64()
        return replace(
            problem, kernel=core.kernel(problem.kernel.workers), precision=core.precision, scale=core.rounded()
        )

    def between(self, a: Array, b: Array) -> Instance:
        """The transport between two measures of mass one on the support, with the mass of the user."""
        weights, both = (a * self.mass, b * self.mass), (True, True)
        return posed(
            self.geometry, weights, both, eps=self.eps, rho=(None, None), rho_name="reach",
            workers=self.problem.kernel.workers, rounding=self.rounding, equal=True,
        )  # fmt: skip


def of_one_mass(weights: dict[str, Array], rounding: float, place: Place) -> tuple[tuple[Array, ...], float]:
    """Weights by their names, each divided by its mass, and that of the first, from which others differ by rounding."""
    masses = {name: float(place.xp.sum(z)) for name, z in weights.items()}
    (first, whole), *_ = masses.items()
    for name, mass in masses.items():
        if not mass > 0:
            raise ValueError(f"`{name}` must have positive mass, got only zeros; leave it out")
        if abs(mass - whole) > rounding * max(mass, whole):
            raise ValueError(f"`{name}` must have the mass of `{first}`, got {mass!r} and {whole!r}; normalise them")
    return tuple(z / masses[name] for name, z in weights.items()), whole


def pose_barycenter(
    geometry: Geometry, a: Any, shares: tuple[float, ...], *, eps: float, debias: bool, workers: int | None
) -> BarycenterInstance:
    """Check the measures, one of each share, and set up the problem."""
    check_workers(workers)
    named = {f"a[{k}]": a[k, ...] if hasattr(a, "ndim") else a[k] for k in range(len(shares))}
    geometry = geometry.suited(a, None)
    place, support = geometry.place, geometry.supports[0]
    place.admit("the support", **named)
    weights = [checked_weights(name, given, support, place) for name, given in named.items()]
    rounding = max(map(rounding_of, named.values()))
    normalised, mass = of_one_mass(dict(zip(named, weights, strict=True)), rounding, place)
    problem = problem_of(geometry, normalised, shares, debias=debias, workers=workers)
    return BarycenterInstance(geometry, normalised, shares, mass, eps, rounding, problem)


def problem_of(
    geometry: Geometry, weights: tuple[Array, ...], shares: tuple[float, ...], *, debias: bool, workers: int | None
) -> BarycenterProblem:
    """Of checked weights of mass one, those of positive shares."""
    place = geometry.place
    measures = tuple(
        Measure.of(z, 1.0, math.inf, place, workers, zeros=not bool(place.xp.all(z > 0)))
        for z, share in zip(weights, shares, strict=True)
        if share > 0
    )
    return BarycenterProblem(
        geometry.kernel(workers), measures, tuple(share for share in shares if share > 0), debias, geometry.precision,
        geometry.rounded(),
    )  # fmt: skip
