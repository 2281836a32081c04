"""Derivatives of the value, by formula: the potentials are optimal, so only the explicit dependence counts (Danskin).

dOT / dx[i] = sum_j P[i, j] grad_1 C(x[i], y[j]). The displacement -grad_x / a needs no division: the weight a[i] is
left out of the exponent, and a point of weight zero gets its limit.
"""

from __future__ import annotations

from typing import Any

from epsot.costs import Array
from epsot.geometry import PointCloud
from epsot.kernels import PointsKernel
from epsot.problem import Problem


def slope(geometry: PointCloud, kernel: PointsKernel, f: Array, h: Array, eps: float) -> Array:
    """sum_j exp(f[i] / eps + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]): the gradient of f at x[i].  -> (n, d)"""
    return geometry.pull_back(kernel.cost_gradient(f / eps, h, eps))


def extend(kernel: Any, problem: Problem, g: Array, eps: float) -> tuple[Array, Array]:
    """f at the first points of `kernel`, whose second are those of the problem, and h = log_b + g / eps."""
    h = problem.log_b + g / eps
    return problem.kl_a.dampen(kernel.softmin(h, eps), eps), h


def weight_gradient(problem: Problem, f: Array, eps: float, other_mass: float) -> Array:
    """dOT / da[i], up to a constant when balanced; `other_mass` is the whole mass of b.  (n,) -> (n,)"""
    return problem.kl_a.weight_gradient(f, eps, other_mass, problem.place.xp)
