"""One side of a solved instance: its potential, its extension to other points, and the derivatives in its points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epsot import gradients
from epsot.costs import Array
from epsot.geometry import PointCloud
from epsot.instance import Instance
from epsot.lazy import cached_property


@dataclass(frozen=True, repr=False, eq=False)
class Side:
    """In float64, over the whole support."""

    instance: Instance
    f: Array  # over the points of positive weight, as solved
    extension: Array  # next_f(g) there: f up to the error of the solve
    g: Array  # the potential of the other side that extends f

    @cached_property
    def _dropped(self) -> tuple[Any, Any]:
        """The geometry from the points of weight zero to the other side, and its kernel."""
        geometry: Any = self.instance.geometry.take(self.instance.side_a.dropped, self.instance.side_b.kept)
        return geometry, geometry.rows_kernel(self.instance.problem.kernel)

    @cached_property
    def _dropped_potential(self) -> tuple[Array, Array]:
        return gradients.extend(self._dropped[1], self.instance.problem, self.g, self.instance.eps)

    @cached_property
    def potential(self) -> Array:
        """f, extended to the points of weight zero.  (n,)"""
        side = self.instance.side_a
        return self.f if side.dropped is None else side.scatter(self.f, self._dropped_potential[0])

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
            return kept
        geometry, kernel = self._dropped
        dropped = gradients.slope(geometry, kernel, self._dropped_potential[0], h, instance.eps)
        return instance.side_a.scatter(kept, dropped)

    @cached_property
    def gradient(self) -> Array:
        """dOT / dx, (n, d): the slope times the weight."""
        side = self.instance.side_a
        return side.scatter(self.instance.problem.a, 0.0)[:, None] * self.slope

    @cached_property
    def weight_gradient(self) -> Array:
        """dOT / da, (n,)."""
        return gradients.weight_gradient(self.instance.problem, self.potential, self.instance.eps)

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
        return f, geometry, kernel, h

    def carried_to(self, kernel: Any) -> Array:
        """f at the first points of another kernel."""
        across = self.instance.problem.kernel.rows_of(kernel)  # type: ignore[attr-defined]
        return gradients.extend(across, self.instance.problem, self.g, self.instance.eps)[0]

    def at(self, points: Array) -> tuple[PointCloud, Array, Array]:
        """Other points, f there, and the gradient of f there."""
        f, geometry, kernel, h = self.potential_at(points)
        return geometry, f, gradients.slope(geometry, kernel, f, h, self.instance.eps)
