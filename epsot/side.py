"""One side of a solved instance: its potential, its extension to other points, and the derivatives in its points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epsot import gradients
from epsot.costs import Array
from epsot.geometry import PointCloud
from epsot.instance import Instance
from epsot.lazy import cached_property


@dataclass(frozen=True, repr=False, eq=False)
class Side:
    """In float64, over the whole support. Points without a partner have a slope of zero: nothing moves there."""

    instance: Instance
    f: Array  # over the points of positive weight, as solved
    extension: Array  # next_f(g) there: f up to the error of the solve
    g: Array  # the potential of the other side that extends f

    @cached_property
    def _dropped_potential(self) -> Array:
        f, _ = gradients.extend(self.instance.outside[1], self.instance.problem, self.g, self.instance.eps)
        return self._beside_mass_alone(f, lambda whole: whole.take(self.instance.side_a.dropped, None))

    def _beside_mass_alone(self, f: Array, rows: Callable[[Any], Any]) -> Array:
        """f at some rows of a geometry: -inf where they are allowed with mass of the other side that has no partner.

        The potential of that mass is +inf: any mass that came there would be worth no end.
        """
        instance, alone = self.instance, self.instance.side_b.alone
        if alone is None:
            return f
        xp, (none, _) = instance.place.xp, rows(instance.geometry.take(None, alone)).alone()
        unbounded = xp.full_like(f, -xp.inf)
        return unbounded if none is None else xp.where(none, f, unbounded)

    @cached_property
    def potential(self) -> Array:
        """f, extended to the points of weight zero, and +inf where no partner has mass.  (n,)"""
        side = self.instance.side_a
        dropped: Any = 0.0 if side.dropped is None else self._dropped_potential
        return side.scatter(self.f, dropped, self.instance.place.xp.inf)

    @cached_property
    def slope(self) -> Array:
        """-displacement: sum_j exp((f[i] + g[j] - C[i, j]) / eps) b[j] grad_1 C, at every point of the side, (n, d)."""
        instance, core = self.instance, self.instance.core
        if not isinstance(core, PointCloud):
            raise TypeError("a CostMatrix has no points to differentiate in; use PointCloud, or `plan`: dOT / dC = P")
        problem: Any = instance.problem
        h = problem.density_b(self.g, instance.eps)
        kept = gradients.slope(core, problem.kernel, self.extension, h, instance.eps)
        if instance.side_a.dropped is None:
            return instance.side_a.scatter(kept, 0.0)
        geometry, kernel = self.instance.outside
        dropped = gradients.slope(geometry, kernel, self._dropped_potential, h, instance.eps)
        return instance.side_a.scatter(kept, dropped)

    @cached_property
    def gradient(self) -> Array:
        """dOT / dx, (n, d): the slope times the weight, and zero at weight zero, however steep it is there."""
        a, xp = self.instance.a[:, None], self.instance.place.xp
        if self.instance.side_a.dropped is None:
            return a * self.slope
        return a * xp.where(a > 0, self.slope, xp.zeros_like(self.slope))

    @cached_property
    def weight_gradient(self) -> Array:
        """dOT / da, (n,)."""
        instance = self.instance
        return gradients.weight_gradient(instance.problem, self.potential, instance.eps, instance.T.mass_a)

    def taken(self, points: Any) -> Array:
        """Other points of the user, (r, d), checked."""
        core = self.instance.core
        if not isinstance(core, PointCloud):
            raise TypeError("a CostMatrix has no points, so that potentials and maps do not extend; use PointCloud")
        return core.taken(points)

    def potential_at(self, points: Array) -> tuple[Array, PointCloud, Any, Array]:
        """f at other points, with their geometry, its kernel, and log_b + g / eps."""
        core, problem = self.instance.core, self.instance.problem
        assert isinstance(core, PointCloud)
        geometry = core.at(points)
        kernel = geometry.rows_kernel(problem.kernel)  # type: ignore[arg-type]
        f, h = gradients.extend(kernel, problem, self.g, self.instance.eps)
        return self._beside_mass_alone(f, lambda whole: whole.at(points)), geometry, kernel, h

    def carried_to(self, kernel: Any) -> Array:
        """f at the first points of another kernel."""
        across = self.instance.problem.kernel.rows_of(kernel)  # type: ignore[attr-defined]
        return gradients.extend(across, self.instance.problem, self.g, self.instance.eps)[0]

    def at(self, points: Array) -> tuple[PointCloud, Array, Array]:
        """Other points, f there, and the gradient of f there."""
        f, geometry, kernel, h = self.potential_at(points)
        return geometry, f, gradients.slope(geometry, kernel, f, h, self.instance.eps)
