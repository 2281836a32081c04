"""A problem as the user posed it: checked weights, points of weight zero set aside, the kernel prepared.

The solver sees `Instance.problem`; `Support` carries values back to the supports of the user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from epsot.arrays import Place, as_count, rounding_of, to_numpy
from epsot.communicator import Communicator, ranks_of
from epsot.costs import Array
from epsot.geometry import Geometry
from epsot.geometry.base import DOUBLE
from epsot.kernels import Kernel
from epsot.lazy import Lean, cached_property
from epsot.problems.measure import Measure
from epsot.problems.problem import SEEN, ULPS, Problem
from epsot.problems.support import Support
from epsot.problems.weights import balancing, check_mass, checked_weights, mass_of

HOT = 16  # times the scale of the costs: a temperature at which float32 has lost a digit of them and more
Here = tuple[slice | None, slice | None]  # the points of this rank, of both sides; None: all
ROUNDING = 2.0**-48  # of a sum of weights, relative to the whole mass


@dataclass(frozen=True)
class Instance(Lean):
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
    def comm(self) -> Communicator:
        """The ranks that share the pairs."""
        return ranks_of(self.problem.kernel.workers)

    @cached_property
    def T(self) -> Instance:
        """Seen from the other side."""
        rho = self.rho[::-1] if isinstance(self.rho, tuple) else self.rho
        geometry = self.geometry.T
        core = geometry if self.core is self.geometry else self.core.T
        return Instance(geometry, self.side_b, self.side_a, core, self.problem.T, self.eps, rho)

    @property
    def a(self) -> Array:
        """The weights of the whole first side, in float64.  (n,)"""
        side = self.side_a
        return side.scatter(self.problem.a.weights, 0.0, 0.0 if side.alone_weights is None else side.alone_weights)

    @property
    def masses(self) -> tuple[float, float]:
        """The masses of both sides, with those of points without a partner."""
        return self.problem.a.mass + self.side_a.lost, self.problem.b.mass + self.side_b.lost

    @property
    def lost(self) -> float:
        """What the mass of points without a partner adds to the value: it is all destroyed.

        It is the limit for large costs, with the share that this mass has in eps KL(P | a b^T).
        """
        if self.side_a.alone is None and self.side_b.alone is None:
            return 0.0
        problem, (mass_a, mass_b) = self.problem, self.masses
        penalty = sum(
            measure.rho * side.lost
            for measure, side in ((problem.a, self.side_a), (problem.b, self.side_b))
            if side.alone is not None
        )
        return penalty + self.eps * (mass_a * mass_b - problem.a.mass * problem.b.mass)

    @cached_property
    def source_geometries(self) -> tuple[Geometry, Geometry]:
        """The first measure with itself: all of its points, and those of positive weight."""
        whole = self.geometry.source()
        return whole, whole if self.core is self.geometry else self.core.source()

    def source(self) -> Instance:
        """The first measure against itself, with the penalty of its own side."""
        side, problem, (whole, core) = self.side_a, self.problem, self.source_geometries
        rho = self.rho[0] if isinstance(self.rho, tuple) else self.rho
        if side.alone is None and core.alone()[0] is None:  # symmetric: no column either
            kernel = self.core.source_kernel(problem.kernel)
            return Instance(whole, side, side, core, problem.source(kernel, core.rounded), self.eps, rho)
        a, mass, strength = self.a, self.masses[0], problem.a.rho
        sides = (Support.of(a, self.place).shared(side.here),) * 2
        workers = problem.kernel.workers
        alone = assemble(whole, sides, (a, a), (mass, mass), (strength, strength), self.eps, rho, workers)
        return replace(alone, problem=replace(alone.problem, own=True))

    @cached_property
    def outside(self) -> tuple[Geometry, Kernel]:
        """The geometry from the points of weight zero of the first side to the second, and its kernel."""
        geometry, problem = self.geometry.scattered(self.side_a.dropped, self.side_b.kept), self.problem
        assert geometry is not None  # points were set aside
        exact = problem.precision < geometry.precision  # as those that the solver sees are computed with
        if exact or ULPS * problem.precision * geometry.rounded() >= SEEN * self.eps:  # or far, and too far for float32
            geometry, problem = geometry.in_float64(), self.exact
        return geometry, geometry.rows_kernel(problem.kernel)

    @cached_property
    def exact_core(self) -> Geometry:
        """The geometry of the points of positive weight whose kernels compute in float64: itself, or a copy."""
        return self.core if self.problem.precision <= DOUBLE else self.core.in_float64()

    @cached_property
    def exact(self) -> Problem:
        """The problem over kernels that compute in float64: itself, or over a copy of float32 points."""
        problem, core = self.problem, self.exact_core
        if core is self.core:
            return problem
        return replace(
            problem, kernel=core.kernel(problem.kernel.workers), precision=core.precision, rounded=core.rounded
        )

    def check_sources(self) -> None:
        """Raise where a measure with itself has no plan."""
        for name, side in (("C_xx", self), ("C_yy", self.T)):
            whole, _ = side.source_geometries
            if whole.forbids():
                core, (kept, _) = restricted(whole, (Support.of(side.a, self.place),) * 2)
                weights, rho = kept.restrict(side.a), side.problem.a.rho
                check_feasible(name, core, (weights, weights), (rho, rho), 1e-8)

    def at_resolution(self, core: Geometry, a: Array, b: Array, eps: float) -> Instance:
        """Other, coarser measures of the same masses in its place, at some temperature."""
        problem, workers = self.problem, self.problem.kernel.workers
        coarse = Problem(
            core.kernel(workers), problem.a.resampled(a), problem.b.resampled(b), problem.precision, problem.rounded,
            problem.own,
        )  # fmt: skip
        return Instance(core, Support(core.shape[0]), Support(core.shape[1]), core, coarse, eps, self.rho)

    def is_self(self) -> bool:
        """Whether both measures and both penalties are equal, so that the divergence is exactly zero."""
        problem = self.problem
        return (
            problem.a.rho == problem.b.rho
            and problem.a.size == problem.b.size
            and self.core.is_self()
            and (self.core is self.geometry or self.geometry.is_self())
            and bool(self.place.xp.all(self.a == self.T.a))
        )


def check_workers(workers: Any) -> None:
    if workers is not None and (number := as_count("workers", workers)) < 1 and number != -1:
        raise ValueError(f"`workers` must be a positive integer, -1 or None (all usable cores), got {workers!r}")


def pose(
    geometry: Geometry, a: Any, b: Any, *, eps: float, rho: Any, rho_name: str, workers: int | None,
    here: Here = (None, None),
) -> Instance:  # fmt: skip
    """Check the weights and set up the problem. `rho` is a pair of strengths or None, in the units of the cost.

    `here`: which points of both sides are those of this rank.
    """
    geometry = geometry.suited(a, b)
    geometry.check_whole()
    place, (first, second) = geometry.place, geometry.supports
    place.admit("the geometry", a=a, b=b)
    rounding = max(rounding_of(a), rounding_of(b))
    given = a is not None, b is not None
    a, b = checked_weights("a", a, first, place), checked_weights("b", b, second, place)
    for name, is_given, z, other in (("a", given[0], a, rho[1]), ("b", given[1], b, rho[0])):
        if is_given:
            check_mass(name, z, other, rho_name, place)
    return posed(
        geometry, (a, b), given, eps=eps, rho=rho, rho_name=rho_name, workers=workers, rounding=rounding, here=here
    )


def posed(
    geometry: Geometry,
    weights: tuple[Array, Array],
    given: tuple[bool, bool],
    *,
    eps: float,
    rho: tuple[float | None, float | None],
    rho_name: str,
    workers: int | None,
    rounding: float,
    equal: bool = False,
    here: Here = (None, None),
) -> Instance:
    """The problem of checked weights in float64, of which `given` says whether the user has chosen them.

    `equal`: what their masses differ by is rounding, after they were made equal.
    """
    place, xp, (a, b) = geometry.place, geometry.place.xp, weights
    n, m = geometry.shape
    strengths = math.inf if rho[0] is None else rho[0], math.inf if rho[1] is None else rho[1]
    mass_a, mass_b = (mass_of(z if is_given else None, z, xp) for is_given, z in zip(given, (a, b), strict=True))
    if rho[0] is None and rho[1] is None and mass_a != mass_b and not equal:
        b = b * balancing(mass_a, mass_b, rounding, rho_name)
        mass_b = mass_of(b, b, xp)  # weights may have become uniform
    stored = rho[0] if rho[0] == rho[1] else rho
    sides = (
        (Support.of(a, place) if given[0] else Support(n)).shared(here[0]),
        (Support.of(b, place) if given[1] else Support(m)).shared(here[1]),
    )
    return assemble(geometry, sides, (a, b), (mass_a, mass_b), strengths, eps, stored, workers, rounding)


def posed_again(
    geometry: Geometry, weights: tuple[Array, Array], masses: tuple[float, float], eps: float, rho: Any, *, own: bool
) -> Instance:
    """The problem that an instance was, of its whole weights and the masses that its solver saw."""
    strengths = tuple(math.inf if z is None else z for z in (rho if isinstance(rho, tuple) else (rho, rho)))
    source = Support.of(weights[0], geometry.place)
    target = source if own else Support.of(weights[1], geometry.place)
    found = assemble(
        geometry, (source, target), weights, masses, (strengths[0], strengths[1]), eps, rho, None, rounding=1.0,
    )  # fmt: skip
    return replace(found, problem=replace(found.problem, own=True)) if own else found


def assemble(
    geometry: Geometry,
    sides: tuple[Support, Support],
    weights: tuple[Array, Array],
    masses: tuple[float, float],
    strengths: tuple[float, float],
    eps: float,
    rho: Any,
    workers: int | None,
    rounding: float = 1e-8,
) -> Instance:
    """The problem over the points that have weight and partners; an error, where it has no plan.

    `strengths` are those of the marginals, inf where one is balanced, and `rho` the same as the user has given it.
    """
    place, xp = geometry.place, geometry.place.xp
    core, (side_a, side_b) = restricted(geometry, sides)
    a, b = side_a.restrict(weights[0]), side_b.restrict(weights[1])
    rows, columns = check_feasible("C", core, (a, b), strengths, rounding)
    if rows is not None or columns is not None:
        side_a, a = side_a.without(rows, a, place)
        side_b, b = side_b.without(columns, b, place)
        core, _ = restricted(geometry, (side_a, side_b))
    if is_hot(core, eps):
        core = core.in_float64()
    if weights[0] is weights[1]:
        side_b, b = side_a, a
    source, target = (
        Measure.of(
            z, mass if side.kept is None else float(xp.sum(z)), strength, place, workers,
            zeros=given.kept is not None and side.kept is None,
        )
        for z, mass, strength, side, given in zip((a, b), masses, strengths, (side_a, side_b), sides, strict=True)
    )  # fmt: skip
    problem = Problem(core.kernel(workers), source, target, core.precision, core.rounded)
    return Instance(geometry, side_a, side_b, core, problem, eps, rho)


def is_hot(core: Geometry, eps: float) -> bool:
    """Whether exponents are so small that float32 sums would show the temperature times their rounding.

    A softmin is -eps log of a sum near one: what is rounded there is soon more than all costs.
    """
    return core.precision > DOUBLE and eps > HOT * core.scale()


def restricted(geometry: Geometry, sides: tuple[Support, Support]) -> tuple[Geometry, tuple[Support, Support]]:
    """The geometry between what is kept of both sides; all of it, and of them, where it can leave nothing out.

    Where nothing is kept of one side, there are no pairs, and no sweep: that geometry can be as slow as it likes.
    """
    source, target = sides
    if source.kept is None and target.kept is None:
        return geometry, sides
    without = [name for name, side in (("a", source), ("b", target)) if side.kept is not None and 0 in side.kept.shape]
    core = (geometry.scattered if without else geometry.take)(source.kept, target.kept)
    if core is not None:
        return core, sides
    if without:
        raise ValueError(
            f"`{without[0]}` must have positive mass where the geometry can leave nothing out, got only zeros"
        )
    if source.alone is not None or target.alone is not None:
        raise ValueError("the geometry must allow a pair in every row and column of positive weight")
    return geometry, (Support(source.size, here=source.here), Support(target.size, here=target.here))


def check_feasible(
    name: str, core: Geometry, weights: tuple[Array, Array], strengths: tuple[float, float], rounding: float
) -> tuple[Array | None, Array | None]:
    """Masks of the rows and columns of positive weight without a partner; an error where they or others need one."""
    alone = core.alone()
    for mask, strength, what in zip(alone, strengths, ("row", "column"), strict=True):
        if mask is not None and math.isinf(strength):
            count = int(core.place.xp.count_nonzero(mask))
            raise ValueError(
                f"`{name}` must allow a pair in every {what} of positive weight, got {count} with +inf only; "
                "give them weight zero or a finite cost, or set `rho`"
            )
    parts = core.components() if min(strengths) == math.inf else None
    if parts is None:
        return alone
    count = 1 + max(int(labels.max()) for labels in parts)
    a, b = (np.bincount(labels, to_numpy(z), count) for labels, z in zip(parts, weights, strict=True))
    excess = np.abs(a - b) - rounding * np.maximum(a, b) - ROUNDING * a.sum()
    worst = int(excess.argmax())
    if excess[worst] > 0:
        n, m = (int((labels == worst).sum()) for labels in parts)
        raise ValueError(
            f"`{name}` must leave a plan, got {n} rows and {m} columns that are allowed only among themselves, "
            f"of masses {a[worst]:g} and {b[worst]:g}; allow more pairs, change the weights, or set `rho`"
        )
    return alone
