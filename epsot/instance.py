"""A problem as the user posed it: checked weights, points of weight zero set aside, the kernel prepared.

The solver sees `Instance.problem`, in which every weight is positive; `Support` carries values back to the supports of
the user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from epsot.arrays import Place, as_count, as_number, as_real, check_finite, common_place
from epsot.costs import Array
from epsot.geometry import CostMatrix, PointCloud
from epsot.lazy import cached_property
from epsot.problem import MarginalKL, Problem

Geometry = PointCloud | CostMatrix

LARGEST_MASS = 1e150


@dataclass(frozen=True)
class Support:
    """One side: which points have weight, and the way back."""

    size: int
    kept: Array | None = None  # indices of the points of positive weight; None: all of them
    dropped: Array | None = None  # the other indices
    place: Place | None = None

    @classmethod
    def of(cls, weights: Array, place: Place) -> Support:
        xp, size = place.xp, weights.shape[0]
        positive = weights > 0
        if bool(xp.all(positive)):
            return cls(size)
        return cls(size, xp.nonzero(positive)[0], xp.nonzero(~positive)[0], place)

    def restrict(self, values: Array) -> Array:
        """The values at the points of positive weight.  (size, ...) -> (kept, ...)"""
        return values if self.kept is None or self.place is None else self.place.xp.take(values, self.kept, axis=0)

    def scatter(self, kept: Array, dropped: Array | float) -> Array:
        """Back to the whole support; `dropped` are the values at weight zero.  (kept, ...) -> (size, ...)"""
        if self.kept is None or self.dropped is None or self.place is None:
            return kept
        xp = self.place.xp
        if isinstance(dropped, float):
            shape = (self.dropped.shape[0], *kept.shape[1:])
            dropped = xp.full(shape, dropped, dtype=kept.dtype, device=self.place.device)
        return xp.take(xp.concat([kept, dropped], axis=0), self.order, axis=0)

    @cached_property
    def order(self) -> Array:
        """Where each point stands in the kept ones followed by the dropped ones.  (size,)"""
        xp = self.place.xp  # type: ignore[union-attr]
        return xp.argsort(xp.concat([self.kept, self.dropped]))


@dataclass(frozen=True)
class Instance:
    """What a solve works on and what its result refers to."""

    geometry: Geometry  # the user's, whole
    side_a: Support
    side_b: Support
    core: Geometry  # restricted to positive weights
    problem: Problem  # over `core`
    eps: float
    rho: float | tuple[float | None, float | None] | None  # as given, None: balanced

    @property
    def place(self) -> Place:
        return self.geometry.place

    @property
    def T(self) -> Instance:
        """Seen from the other side."""
        rho = self.rho[::-1] if isinstance(self.rho, tuple) else self.rho
        geometry = self.geometry.T
        core = geometry if self.core is self.geometry else self.core.T
        return Instance(geometry, self.side_b, self.side_a, core, self.problem.T, self.eps, rho)

    def source(self) -> Instance:
        """The first measure against itself, with the penalty of its own side."""
        core = self.core.source()
        whole = core if self.core is self.geometry else self.geometry.source()
        kernel: Any = self.core.source_kernel(self.problem.kernel)  # type: ignore[arg-type]
        rho = self.rho[0] if isinstance(self.rho, tuple) else self.rho
        return Instance(whole, self.side_a, self.side_a, core, self.problem.source(kernel), self.eps, rho)

    def at_resolution(self, core: Geometry, a: Array, b: Array, eps: float) -> Instance:
        """Other, coarser measures of the same masses in its place, at some temperature."""
        problem, xp = self.problem, self.place.xp
        a, b = a * (problem.mass_a / xp.sum(a)), b * (problem.mass_b / xp.sum(b))
        coarse = Problem(
            core.kernel(problem.kernel.workers), a, b, xp.log(a), xp.log(b), problem.mass_a, problem.mass_b,
            problem.kl_a, problem.kl_b, problem.place, problem.precision, problem.scale,
        )  # fmt: skip
        return Instance(core, Support(core.shape[0]), Support(core.shape[1]), core, coarse, eps, self.rho)

    def is_self(self) -> bool:
        """Whether both measures and both penalties are equal, so that the divergence is exactly zero."""
        problem, xp = self.problem, self.place.xp
        return (
            problem.kl_a == problem.kl_b
            and problem.a.shape == problem.b.shape
            and self.core.is_self()
            and (self.core is self.geometry or self.geometry.is_self())
            and bool(xp.all(problem.a == problem.b))
        )


def penalties(name: str, rho: Any) -> tuple[float | None, float | None]:
    """The two strengths from one number, a pair, or None (balanced); inf is None."""
    pair = tuple(rho) if isinstance(rho, tuple | list) else (rho, rho)
    if len(pair) != 2:
        raise ValueError(f"`{name}` must be None, one number, or a pair for the two sides, got {rho!r}")
    checked: list[float | None] = []
    for value in pair:
        number = None if value is None else as_number(name, value)
        if number is not None and not number > 0:
            raise ValueError(f"`{name}` must be positive, or None for balanced transport, got {rho!r}")
        checked.append(None if number is None or math.isinf(number) else number)
    return checked[0], checked[1]


def checked_weights(name: str, weights: Any, size: int, place: Place) -> Array:
    """Weights in float64, (size,); None is uniform, 1 / size each."""
    xp = place.xp
    if weights is None:
        return xp.full((size,), 1 / size, dtype=xp.float64, device=place.device)
    weights = as_real(name, weights, place)
    if tuple(weights.shape) != (size,):
        raise ValueError(f"`{name}` must have shape ({size},), one weight a point, got {tuple(weights.shape)}")
    check_finite(name, weights, "weights", place)
    if bool(xp.any(weights < 0)):
        raise ValueError(f"`{name}` must not be negative, got a smallest weight of {float(xp.min(weights)):g}")
    if not bool(xp.any(weights > 0)):
        raise ValueError(f"`{name}` must have positive mass, got only zeros")
    weights = xp.astype(weights, xp.float64)  # a copy: results outlive changes of the inputs
    mass = float(xp.sum(weights))
    if not mass < LARGEST_MASS:
        raise ValueError(f"`{name}` must have a mass whose square is a float64, got {mass:g}; rescale the weights")
    return weights


def balancing(mass_a: float, mass_b: float, precision: float, name: str) -> float:
    """The factor by which a mass is scaled to that of a, from which it differs by rounding; otherwise an error."""
    if abs(mass_a - mass_b) > precision * max(mass_a, mass_b):
        shown = (f"{mass_a:g}", f"{mass_b:g}")
        got_a, got_b = shown if shown[0] != shown[1] else (repr(mass_a), repr(mass_b))
        raise ValueError(
            f"`a` and `b` must have equal mass in balanced transport, got {got_a} and {got_b}; "
            f"normalise them or set `{name}`"
        )
    return mass_a / mass_b


def check_workers(workers: Any) -> None:
    if workers is not None and workers != -1 and as_count("workers", workers) < 1:
        raise ValueError(f"`workers` must be a positive integer, -1 or None (all usable cores), got {workers!r}")


def pose(geometry: Geometry, a: Any, b: Any, *, eps: float, rho: Any, rho_name: str, workers: int | None) -> Instance:
    """Check the weights and set up the problem. `rho` is a pair of strengths or None, in the units of the cost."""
    place = geometry.place
    check_workers(workers)
    points = geometry.x if isinstance(geometry, PointCloud) else geometry.C
    common_place(a=a, b=b, **{"the geometry": points})
    n, m = geometry.shape
    xp = place.xp
    rounding = max(_rounding(a, xp), _rounding(b, xp))
    given_a, given_b = a is not None, b is not None
    a, b = checked_weights("a", a, n, place), checked_weights("b", b, m, place)
    side_a = Support.of(a, place) if given_a else Support(n)
    side_b = Support.of(b, place) if given_b else Support(m)
    kl_a, kl_b = (MarginalKL(math.inf if value is None else value) for value in rho)
    mass_a, mass_b = (float(xp.sum(z)) if given else 1.0 for z, given in ((a, given_a), (b, given_b)))
    if kl_a.balanced and kl_b.balanced and mass_a != mass_b:
        b = b * balancing(mass_a, mass_b, rounding, rho_name)
        mass_b = float(xp.sum(b))
    core = geometry
    if side_a.kept is not None or side_b.kept is not None:
        core = geometry.take(side_a.kept, side_b.kept)
        a, b = side_a.restrict(a), side_b.restrict(b)
        mass_a, mass_b = float(xp.sum(a)), float(xp.sum(b))
    core.check_feasible()
    problem = Problem(
        core.kernel(workers), a, b, xp.log(a), xp.log(b),
        mass_a, mass_b, kl_a, kl_b, place,
        2.0**-24 if geometry.dtype == xp.float32 else 2.0**-53, core.rounded(),
    )  # fmt: skip
    stored = rho[0] if rho[0] == rho[1] else rho
    return Instance(geometry, side_a, side_b, core, problem, eps, stored)


def _rounding(weights: Any, xp: Any) -> float:
    """The relative error that a sum of such weights may carry: the square root of their machine epsilon."""
    single = getattr(weights, "dtype", None) == xp.float32
    return 3e-4 if single else 1e-8
