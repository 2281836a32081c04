"""Derivatives of the value, by formula: the potentials are optimal, so only the explicit dependence counts (Danskin).

dOT / dx[i] = sum_j P[i, j] grad_1 C(x[i], y[j]). The displacement -grad_x / a needs no division: the weight a[i] is
left out of the exponent, and a point of weight zero gets its limit.

The cost <P, C> itself follows from such sums where C is homogeneous: by Euler, p C = <x, grad_1 C> + <y, grad_2 C>.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.geometry import CostMatrix, PointCloud
from epsot.kernels import PointsKernel
from epsot.problem import Problem


def slope(geometry: PointCloud, kernel: PointsKernel, f: Array, h: Array, eps: float) -> Array:
    """sum_j exp(f[i] / eps + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]): the gradient of f at x[i].  -> (n, d)"""
    with np.errstate(over="ignore", invalid="ignore"):  # at weight zero, beside mass that nobody serves, no end of it
        return geometry.pull_back(kernel.cost_gradient(f / eps, h, eps))


def extend(kernel: Any, problem: Problem, g: Array, eps: float) -> tuple[Array, Array]:
    """f at the first points of `kernel`, whose second are those of the problem, and h = log_b + g / eps."""
    h = problem.log_b + g / eps
    return problem.kl_a.dampen(kernel.softmin(h, eps), eps), h


def weight_gradient(problem: Problem, f: Array, eps: float, other_mass: float) -> Array:
    """dOT / da[i], up to a constant when balanced; `other_mass` is the whole mass of b.  (n,) -> (n,)"""
    with np.errstate(over="ignore"):  # the same
        return problem.kl_a.weight_gradient(f, eps, other_mass, problem.place.xp)


BLOCK_ELEMENTS = 2**20  # pairs whose costs are held at once
HOMOGENEOUS = ("square", "euclidean", "cityblock")  # families of costs with C(s x, s y) = s^p C(x, y)


def transport_cost(geometry: PointCloud | CostMatrix, problem: Problem, f: Array, g: Array, eps: float) -> Array:
    """<P, C>, 0-d: two sweeps for the gradients of a homogeneous cost, or all pairs in blocks of rows.

    Those costs see differences only, so that the points may be taken from a centre: what cancels is as large as the
    clouds are wide, wherever they lie.
    """
    xp, kernel = problem.place.xp, problem.kernel
    k, h = problem.log_a + f / eps, problem.log_b + g / eps
    if 0 in geometry.shape:
        return xp.asarray(0.0, dtype=xp.float64, device=problem.place.device)
    if isinstance(geometry, PointCloud) and geometry.cost.family.kind in HOMOGENEOUS:
        x, y = (xp.astype(geometry.cost.embed(z), xp.float64) for z in (geometry.x, geometry.y))
        force_x, force_y = kernel.cost_gradient(k, h, eps), kernel.T.cost_gradient(h, k, eps)  # type: ignore[attr-defined]
        centre = xp.mean(x, axis=0)
        return (xp.sum((x - centre) * force_x) + xp.sum((y - centre) * force_y)) / geometry.cost.family.degree
    (n, m), parts = geometry.shape, []
    step = max(1, BLOCK_ELEMENTS // m)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        P, C = kernel.plan_rows(rows, k, h, eps), kernel.cost_rows(rows)
        parts.append(xp.sum(P * xp.where(P > 0, C, xp.zeros_like(C))))  # nothing moves at a cost of +inf
    return xp.sum(xp.stack(parts))
