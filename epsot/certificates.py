"""Bounds on the optimal value: the dual of any potentials from below, the cost of a feasible plan from above."""

from __future__ import annotations

import math
from typing import Any

from epsot.costs import Array
from epsot.kernels.vectors import bounded_exp
from epsot.problem import Problem


def dual_value(problem: Problem, f: Array, g: Array, mass: Array, eps: float) -> Array:
    """D_a(f) + D_b(g) - eps (sum P - m_a m_b), 0-d: a lower bound for any potentials."""
    xp = problem.place.xp
    share = problem.kl_a.value(problem.a, f, xp)
    shares = 2 * share if problem.own else share + problem.kl_b.value(problem.b, g, xp)
    return shares - eps * (mass - problem.mass_a * problem.mass_b)


def primal_value(problem: Problem, f: Array, g: Array, eps: float, next_g: Array | None = None) -> Array:
    """The cost of a feasible plan near P, 0-d: an upper bound on the optimal value.

    `next_g` is that of f, where it is known and f = next_f(g): the rows are then exact and the columns known, which
    saves two sweeps of four.

    Rows, then columns are scaled down to the marginals that f and g call for. Where both sides bind, what is missing is
    added as a rank-one plan R (Altschuler, Weed and Rigollet 2017, algorithm 2); where one does, it is scaled to fit.
    The entropy of the sum of the scaled plan and R is bounded by convexity, which keeps everything a sum over rows and
    columns; the bound is tight as R vanishes.
    """
    if problem.kl_a.balanced and not problem.kl_b.balanced:
        return primal_value(problem.T, g, f, eps)
    xp = problem.place.xp
    log_a, log_b, kernel = problem.log_a, problem.log_b, problem.kernel
    k, h = log_a + f / eps, log_b + g / eps
    if next_g is None:
        # (P 1)[i] = exp(k[i] - softmin[i] / eps)
        log_rows = k - kernel.softmin(h, eps, problem.kl_a.undampen(f, eps)) / eps
        excess = problem.kl_a.log_marginal(log_a, f) - log_rows
        k = k + xp.where(excess < 0, excess, xp.zeros_like(excess))
        softmin = kernel.T.softmin(k, eps, problem.kl_b.undampen(g, eps))
    else:
        softmin = problem.kl_b.undampen(next_g, eps)
    log_columns = h - softmin / eps  # of P^T 1
    fit = problem.kl_b.log_marginal(log_b, g) - log_columns
    if problem.kl_a.balanced or not problem.kl_b.balanced:
        fit = xp.where(fit < 0, fit, xp.zeros_like(fit))
    h, columns = h + fit, bounded_exp(log_columns + fit, xp)
    rows = bounded_exp(k - kernel.softmin(h, eps, problem.kl_a.undampen(f, eps)) / eps, xp)
    # <P, C> + eps <P, log P / (a b)>: the cost cancels
    value = eps * (_dot(xp, rows, k - log_a) + _dot(xp, columns, h - log_b))
    mass = xp.sum(rows)
    if problem.balanced:
        value = value + remainder(problem, problem.a - rows, problem.b - columns, mass, eps)
        mass = xp.asarray(problem.mass_a, dtype=mass.dtype, device=problem.place.device)
    penalties = problem.kl_a.divergence(rows, problem.a, xp) + problem.kl_b.divergence(columns, problem.b, xp)
    return value + penalties - eps * (mass - problem.mass_a * problem.mass_b)


def remainder(problem: Problem, missing_a: Array, missing_b: Array, scaled_mass: Array, eps: float) -> Array:
    """The cost that R = missing_a missing_b^T / t adds, with t its mass and the entropy bounded by convexity, 0-d.

    With M the whole mass and l = t / M, F((1 - l) Q + l R / l) <= (1 - l) F(Q) + l F(R / l).
    """
    xp = problem.place.xp
    missing_a, missing_b = (xp.where(z > 0, z, xp.zeros_like(z)) for z in (missing_a, missing_b))
    t = float(xp.sum(missing_a))
    other = float(xp.sum(missing_b))
    if t <= 0 or other <= 0:
        return xp.zeros_like(scaled_mass)
    missing_b = missing_b * (t / other)  # equal up to rounding
    whole = problem.mass_a
    cost = _dot(xp, missing_a, problem.kernel.cost_apply(missing_b)) / t
    entropy = _entropy(xp, missing_a, problem.a) + _entropy(xp, missing_b, problem.b)
    share = xp.asarray(t, dtype=scaled_mass.dtype, device=problem.place.device)
    entropy = entropy + t * (math.log(whole) - 2 * math.log(t))
    stretch = -xp.log(xp.where(share < whole, 1 - share / whole, xp.ones_like(share))) * scaled_mass
    return cost + eps * (entropy + stretch)


def _dot(xp: Any, u: Array, v: Array) -> Array:
    """<u, v>, where u = 0 silences an infinite v."""
    return xp.sum(xp.where(u == 0, xp.zeros_like(u), u * xp.where(u == 0, xp.zeros_like(v), v)))


def _entropy(xp: Any, u: Array, weights: Array) -> Array:
    """<u, log(u / weights)>, with 0 log 0 = 0."""
    return xp.sum(u * xp.log(xp.where(u > 0, u, weights) / weights))
