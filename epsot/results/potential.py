"""One side of a solved instance: its potential, its extension to other points, and the derivatives in its points.

Derivatives follow by formula: the potentials are optimal, so only the explicit dependence counts (Danskin). dOT / dx[i]
= sum_j P[i, j] grad_1 C(x[i], y[j]). The displacement -grad_x / a needs no division: the weight a[i] is left out of the
exponent, and a point of weight zero gets its limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.geometry import Geometry
from epsot.geometry.base import DOUBLE
from epsot.kernels import Kernel
from epsot.lazy import Lean, cached_property
from epsot.problems.instance import Instance
from epsot.problems.problem import ULPS, is_hidden
from epsot.solver.updates import Dual


@dataclass(frozen=True, repr=False, eq=False)
class Potential(Lean):
    """In float64, over the whole support. Points without a partner have a slope of zero: nothing moves there."""

    instance: Instance
    f: Array  # over the points of positive weight, as solved
    extension: Array  # next_f(g) there: f up to the error of the solve
    g: Array  # the potential of the other side that extends f
    logit_error: float = 0.0  # of the exponents in which they were found, if that is known
    marginal_error: Array | None = None  # of the plan, 0-d, if it was measured

    @classmethod
    def source(cls, instance: Instance, dual: Dual) -> Potential:
        """The side of f, of a solved instance."""
        return cls(instance, dual.f, *(dual.f_map or (dual.f, dual.g)), dual.logit_error, dual.error)

    @classmethod
    def target(cls, instance: Instance, dual: Dual) -> Potential:
        """The side of g."""
        return cls.source(instance.T, dual.T)

    @cached_property
    def _dropped_potential(self) -> Array:
        f = self._extended(self.instance.outside[1])
        return self._beside_mass_alone(f, lambda whole: whole.take(self.instance.side_a.dropped, None))

    @cached_property
    def _h(self) -> Array:
        """log_b + g / eps, over the points of the other side that the solver sees."""
        return self.instance.problem.b.density(self.g, self.instance.eps)

    def _extended(self, kernel: Kernel) -> Array:
        """f at the first points of a kernel, whose second are those of the problem."""
        instance = self.instance
        return instance.problem.a.dampen(kernel.softmin(self._h, instance.eps), instance.eps)

    def _slope(self, geometry: Geometry, kernel: Kernel, f: Array) -> Array:
        """sum_j exp(f[i] / eps + h[j] - C[i, j] / eps) grad_1 C: the gradient of f at the first points.  -> (n, d)"""
        eps = self.instance.eps
        with np.errstate(over="ignore", invalid="ignore"):  # at weight zero, beside mass that nobody serves, no end
            return geometry.cost_gradient(kernel, f / eps, self._h, eps)

    def _beside_mass_alone(self, f: Array, rows: Callable[[Any], Any]) -> Array:
        """f at some rows of a geometry: -inf where they are allowed with mass of the other side that has no partner.

        The potential of that mass is +inf: any mass that came there would be worth no end.
        """
        instance, alone = self.instance, self.instance.side_b.alone
        if alone is None:
            return f
        xp = instance.place.xp
        unbounded = xp.full_like(f, -xp.inf)
        if not instance.geometry.forbids():
            return unbounded
        none, _ = rows(instance.geometry.take(None, alone)).alone()
        return unbounded if none is None else xp.where(none, f, unbounded)

    @cached_property
    def potential(self) -> Array:
        """f, extended to the points of weight zero, and +inf where no partner has mass.  (n,)"""
        side, measure = self.instance.side_a, self.instance.problem.a
        if measure.zeros:  # where they are: a mix of steps extends nothing
            return self.instance.place.xp.where(
                measure.weights > 0, self.f, self._extended(self.instance.problem.kernel)
            )
        dropped: Any = 0.0 if side.dropped is None else self._dropped_potential
        return side.scatter(self.f, dropped, self.instance.place.xp.inf)

    @cached_property
    def _sweeping(self) -> tuple[Geometry, Kernel, Array]:
        """What shares of a plan are seen with: in float64, where float32 would see its rounding.

        The geometry of the points of positive weight, its kernel, and next_f(g) by the kernel that has found it, or by
        this one: what rounding does to all costs of a row, the extension takes back.
        """
        instance, problem = self.instance, self.instance.problem
        exact = problem.precision <= DOUBLE
        error = 0.0 if exact else self.logit_error or problem.logit_error(self.f, self.g, instance.eps)
        rounding = 0.0 if exact else ULPS * problem.exponent_error(error, instance.eps)
        if is_hidden(rounding, self.marginal_error):
            return instance.core, problem.kernel, self.extension
        return instance.exact_core, instance.exact.kernel, instance.exact.next_f(self.g, instance.eps)

    @cached_property
    def slope(self) -> Array:
        """-displacement: sum_j exp((f[i] + g[j] - C[i, j]) / eps) b[j] grad_1 C, at every point of the side, (n, d)."""
        instance = self.instance
        kept = self._slope(*self._sweeping)
        if instance.side_a.dropped is None:
            return instance.side_a.scatter(kept, 0.0)
        return instance.side_a.scatter(kept, self._slope(*instance.outside, self._dropped_potential))

    @cached_property
    def gradient(self) -> Array:
        """dOT / dx, (n, d): the slope times the weight, and zero at weight zero, however steep it is there."""
        a, xp = self.instance.a[:, None], self.instance.place.xp
        if self.instance.side_a.dropped is None and not self.instance.problem.a.zeros:
            return a * self.slope
        return a * xp.where(a > 0, self.slope, xp.zeros_like(self.slope))

    @cached_property
    def weight_gradient(self) -> Array:
        """dOT / da, (n,); balanced, up to a constant."""
        instance = self.instance
        with np.errstate(over="ignore"):  # as above
            return instance.problem.a.weight_gradient(self.potential, instance.eps, instance.masses[1])

    def taken(self, points: Any) -> Any:
        """Other points of the user, (r, d), or of a grid, checked; a rank may have none beside others."""
        return self.instance.core.taken(points, some=self.instance.side_a.here is None)

    def _at(self, points: Any) -> tuple[Geometry, Kernel, Array]:
        """The geometry of other points with the second side, its kernel, and f there."""
        core, kernel, _ = self._sweeping
        geometry = core.at(points)
        kernel = geometry.rows_kernel(kernel)
        return geometry, kernel, self._beside_mass_alone(self._extended(kernel), lambda whole: whole.at(points))

    def potential_at(self, points: Any) -> Array:
        """f at other points.  (r, d) -> (r,)"""
        return self._at(points)[2]

    def carried_to(self, kernel: Kernel) -> Array:
        """f at the first points of another kernel."""
        return self._extended(self.instance.core.across(self.instance.problem.kernel, kernel))

    def slope_at(self, points: Any) -> Array:
        """The gradient of f at other points.  (r, d) -> (r, d)"""
        return self._slope(*self._at(points))
