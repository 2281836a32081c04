"""Bounds on the optimal value: the dual of any potentials from below, the cost of a feasible plan from above.

Both are as large as the costs, their difference may be smaller than the rounding of these. They are therefore taken of
the costs less what every plan of these marginals pays alike; that part is added to both, and cancels in the gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from epsot.costs import Array
from epsot.kernels.reference import bounded_exp
from epsot.lazy import Lean, cached_property
from epsot.problems.instance import Instance
from epsot.problems.problem import ULPS, Problem

UNRESOLVED = 0.1  # error of exponents by rounding, beyond which sums of exponentials prove nothing


@dataclass(frozen=True, eq=False)
class Certificate(Lean):
    """What a pair of potentials proves, in float64: `common` + `dual` <= the optimal value <= `common` + `primal`."""

    problem: Problem  # without that part of the cost that depends on one side only
    f: Array  # (n,)
    g: Array  # (m,)
    eps: float
    levels: tuple[Array, Array]  # the means of f and of g on sides whose mass is fixed, 0 on others; 0-d
    common: Array  # what every plan of these marginals pays alike, 0-d
    resolved: bool  # whether float64 resolves the exponents
    mass: Array | None = None  # sum(P), if known
    next_g: Array | None = None  # that of f, if known, and then f is next_f(g)

    @classmethod
    def of(
        cls,
        instance: Instance,
        f: Array,
        g: Array,
        mass: Array | None = None,
        next_g: Array | None = None,
        found_with: float = 0.0,
    ) -> Certificate:
        """Of potentials over the points of positive weight; `mass` and `next_g` as the kernels of the solve found.

        These found them with such an error of exponents, which a constant of the potentials may have made large.
        """
        problem, eps, xp = instance.exact, instance.eps, instance.place.xp
        logit_error = problem.logit_error(f, g, eps)
        resolved = problem.exponent_error(logit_error, eps) <= UNRESOLVED
        zero = xp.zeros_like(xp.sum(f))
        common = zero
        split = instance.exact_core.split() if problem.balanced and not problem.own else None
        if split is not None:
            core, u, v = split
            problem = replace(problem, kernel=core.kernel(problem.kernel.workers), rounded=core.rounded)
            common = problem.a.dot(u) + problem.b.dot(v)
            f, g = f - u, g - v
        if problem is not instance.problem or found_with > 8 * logit_error:
            mass = next_g = None
        levels = (
            problem.a.mean(f) if problem.a.balanced else zero,
            problem.b.mean(g) if problem.b.balanced else zero,
        )
        common = common + (levels[0] + levels[1]) * (problem.a if problem.a.balanced else problem.b).mass
        return cls(problem, f, g, eps, levels, common, resolved, mass, next_g)

    @cached_property
    def dual(self) -> Array:
        """The lower bound less `common`, 0-d; -inf where nothing is resolved."""
        problem, xp = self.problem, self.problem.place.xp
        if not self.resolved:
            return xp.full_like(self.common, -xp.inf)
        mass = self.mass
        if mass is None:
            next_f = problem.next_self(self.f, self.eps) if problem.own else problem.next_f(self.g, self.eps)
            mass = xp.sum(problem.a.sums(self.f, next_f, self.eps))
        unseen = self.slack * self.eps * mass  # the error of that sum
        return dual_value(problem, self.f - self.levels[0], self.g - self.levels[1], mass, self.eps) - unseen

    @cached_property
    def primal(self) -> Array:
        """The upper bound less `common`, 0-d; inf where nothing is resolved."""
        if not self.resolved:
            return self.problem.place.xp.full_like(self.common, self.problem.place.xp.inf)
        return primal_value(self.problem, self.f, self.g, self.eps, self.next_g, self.levels, self.slack)

    @cached_property
    def slack(self) -> float:
        """The relative error of sums of exponentials by rounding."""
        problem, eps = self.problem, self.eps
        return ULPS * problem.exponent_error(problem.logit_error(self.f, self.g, eps), eps)


def dual_value(problem: Problem, f: Array, g: Array, mass: Array, eps: float) -> Array:
    """D_a(f) + D_b(g) - eps (sum P - m_a m_b), 0-d: a lower bound for any potentials."""
    share = problem.a.value(f)
    shares = 2 * share if problem.own else share + problem.b.value(g)
    return shares - eps * (mass - problem.a.mass * problem.b.mass)


def primal_value(
    problem: Problem,
    f: Array,
    g: Array,
    eps: float,
    next_g: Array | None = None,
    levels: tuple[Array | float, Array | float] = (0.0, 0.0),
    slack: float = 0.0,
) -> Array:
    """The cost of a feasible plan near P, 0-d: an upper bound on the optimal value.

    `next_g` is that of f, where it is known and f = next_f(g): the rows are then exact and the columns known, which
    saves two sweeps of four. `levels` are constants of f and g, and their sum one of the cost, that do not count.
    `slack` is the relative error of the sums of rows and columns by rounding; as much is added as it may hide, of their
    own cost and of what is missing.

    Rows, then columns are scaled down to the marginals that f and g call for. Where both sides bind, what is missing is
    added as a rank-one plan R (Altschuler, Weed and Rigollet 2017, algorithm 2); where one does, it is scaled to fit.
    The entropy of the sum of the scaled plan and R is bounded by convexity, which keeps everything a sum over rows and
    columns; the bound is tight as R vanishes.
    """
    if problem.a.balanced and not problem.b.balanced:
        return primal_value(problem.T, g, f, eps, levels=levels[::-1], slack=slack)
    xp = problem.place.xp
    log_a, log_b, kernel = problem.a.log_weights, problem.b.log_weights, problem.kernel
    k, h = log_a + f / eps, log_b + g / eps
    if next_g is None:
        # (P 1)[i] = exp(k[i] - softmin[i] / eps)
        log_rows = k - kernel.softmin(h, eps, problem.a.undampen(f, eps)) / eps
        excess = problem.a.log_called_for(f) - log_rows
        k = k + xp.where(excess < 0, excess, xp.zeros_like(excess))
        softmin = kernel.T.softmin(k, eps, problem.b.undampen(g, eps))
    else:
        softmin = problem.b.undampen(next_g, eps)
    log_columns = h - softmin / eps  # of P^T 1
    fit = problem.b.counted(problem.b.log_called_for(g) - log_columns)
    if problem.a.balanced or not problem.b.balanced:
        fit = xp.where(fit < 0, fit, xp.zeros_like(fit))
    h, columns = h + fit, bounded_exp(log_columns + fit, xp)
    rows = bounded_exp(k - kernel.softmin(h, eps, problem.a.undampen(f, eps)) / eps, xp)
    # <P, C> + eps <P, log P / (a b)>: the cost cancels
    shares_a, shares_b = eps * (k - log_a) - levels[0], eps * (h - log_b) - levels[1]
    value = _dot(xp, rows, shares_a) + _dot(xp, columns, shares_b)
    mass = xp.sum(rows)
    value = value + slack * (_dot(xp, rows, xp.abs(shares_a)) + _dot(xp, columns, xp.abs(shares_b)))
    if problem.balanced:
        value = value + remainder(problem, rows, columns, mass, eps, levels[0] + levels[1], slack)
        mass = xp.asarray(problem.a.mass, dtype=mass.dtype, device=problem.place.device)
    penalties = problem.a.divergence(rows) + problem.b.divergence(columns)
    return value + penalties - eps * (mass - problem.a.mass * problem.b.mass)


def remainder(
    problem: Problem, rows: Array, columns: Array, mass: Array, eps: float, level: Array | float, slack: float
) -> Array:
    """The cost that R = missing_a missing_b^T / t adds to a plan of such sums and such a mass, 0-d.

    t is the mass of R, and the entropy is bounded by convexity: with M the whole mass and l = t / M,
    F((1 - l) Q + l R / l) <= (1 - l) F(Q) + l F(R / l). `level` is a constant of the cost that does not count.

    What rounding may hide of the sums it hides of what is missing, too, and that costs what R does there.
    """
    xp = problem.place.xp
    missing_a, missing_b = problem.a.weights - rows, problem.b.weights - columns
    missing_a, missing_b = (xp.where(z > 0, z, xp.zeros_like(z)) for z in (missing_a, missing_b))
    t = float(xp.sum(missing_a))
    other = float(xp.sum(missing_b))
    if t <= 0 or other <= 0:
        return xp.zeros_like(mass)
    missing_b = missing_b * (t / other)  # equal up to rounding
    whole = problem.a.mass
    costs_a, costs_b = problem.kernel.cost_apply(missing_b) / t, problem.kernel.T.cost_apply(missing_a) / t
    cost = _dot(xp, missing_a, costs_a) - level * t
    entropy = problem.a.entropy(missing_a) + problem.b.entropy(missing_b)
    share = xp.asarray(t, dtype=mass.dtype, device=problem.place.device)
    entropy = entropy + t * (math.log(whole) - 2 * math.log(t))
    stretch = -xp.log(xp.where(share < whole, 1 - share / whole, xp.ones_like(share))) * mass
    hidden = sum(
        _dot(xp, xp.where(missing > 0, sums, xp.zeros_like(sums)), xp.abs(costs - level))
        for missing, sums, costs in ((missing_a, rows, costs_a), (missing_b, columns, costs_b))
    )
    hidden = hidden + 2 * eps * mass * (1 + abs(math.log(t / whole)))
    return cost + eps * (entropy + stretch) + slack * hidden


def _dot(xp: Any, u: Array, v: Array) -> Array:
    """<u, v>, where u = 0 silences an infinite v."""
    return xp.sum(xp.where(u == 0, xp.zeros_like(u), u * xp.where(u == 0, xp.zeros_like(v), v)))
