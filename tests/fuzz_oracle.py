"""What is true of a pair of potentials, from the definitions alone: dense sums in 80 bits, and in logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import epsot

Real = np.longdouble
HALF_ULP = float(np.finfo(Real).eps) / 2  # of the numbers here


def cost_matrix(cost: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """C(x[i], y[j]) for p = 1 or 2, a name of SciPy's, or a Cost of the user's.  (n, d), (m, d) -> (n, m)"""
    x, y = x.astype(Real), y.astype(Real)
    if isinstance(cost, epsot.Cost):
        return np.asarray(cost.value(x[:, None, :], y[None, :, :]))
    if cost == "cosine":
        x, y = unit(x), unit(y)
    total = np.zeros((len(x), len(y)), Real)
    for xk, yk in zip(x.T, y.T, strict=True):
        difference = np.abs(xk[:, None] - yk[None, :])
        total += difference if cost == "cityblock" else difference**2
    if cost in (1, "euclidean"):
        return np.sqrt(total)
    return total / 2 if cost in (2, "cosine") else total


def cost_gradient(cost: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of C(x[i], y[j]) in x, zero where there is none.  (n, d), (m, d) -> (n, m, d)"""
    x, y = x.astype(Real)[:, None, :], y.astype(Real)[None, :, :]
    if isinstance(cost, epsot.Cost):
        return np.asarray(cost.gradient(x, y))
    if cost == "cosine":
        u, v = unit(x), unit(y)
        return (u * np.sum(u * v, axis=-1, keepdims=True) - v) / np.sqrt(np.sum(x**2, axis=-1, keepdims=True))
    if cost == "cityblock":
        return np.sign(x - y)
    if cost in (1, "euclidean"):
        distance = np.sqrt(np.sum((x - y) ** 2, axis=-1, keepdims=True))
        return (x - y) / np.where(distance > 0, distance, 1)
    return (x - y) * (1 if cost == 2 else 2)


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True)))


def log_sum(z: np.ndarray, axis: int) -> np.ndarray:
    """log sum exp z along an axis; -inf where there is nothing."""
    top = np.max(z, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    return np.asarray(np.log(np.sum(np.exp(z - top), axis=axis)) + np.squeeze(top, axis))


def inner(u: np.ndarray, v: np.ndarray) -> Any:
    """<u, v>, where u = 0 silences an infinite v."""
    return np.sum(u[u != 0] * v[u != 0])


@dataclass(frozen=True)
class Posed:
    """One transport problem, dense."""

    C: np.ndarray  # (n, m), +inf where forbidden
    a: np.ndarray  # (n,)
    b: np.ndarray  # (m,)
    eps: float
    rho: tuple[float, float]  # inf: balanced
    points: tuple[Any, np.ndarray, np.ndarray] | None = None  # the cost, x and y
    size: float = 0.0  # of the numbers that costs between points are differences of

    @cached_property
    def log_a(self) -> np.ndarray:
        return np.asarray(np.log(self.a.astype(Real)))

    @cached_property
    def log_b(self) -> np.ndarray:
        return np.asarray(np.log(self.b.astype(Real)))

    @cached_property
    def allowed(self) -> np.ndarray:
        return np.isfinite(self.C) & (self.a > 0)[:, None] & (self.b > 0)

    @cached_property
    def largest(self) -> float:
        """The largest cost between points of positive weight."""
        return float(np.max(np.abs(self.C), where=self.allowed, initial=0))

    @property
    def idle(self) -> bool:
        """Whether no mass has a partner."""
        return not bool(self.allowed.any())

    @property
    def T(self) -> Posed:
        return Posed(self.C.T, self.b, self.a, self.eps, self.rho[::-1])

    def log_plan(self, f: np.ndarray, g: np.ndarray) -> np.ndarray:
        """log a b exp((f + g - C) / eps)."""
        sums = np.where(self.allowed, f[:, None] + g[None, :], 0) - np.where(self.allowed, self.C, 0)
        return np.where(self.allowed, self.log_a[:, None] + self.log_b + sums / Real(self.eps), -np.inf)

    def log_called(self, f: np.ndarray) -> np.ndarray:
        """The logarithm of the first marginal that f calls for: a, or a exp(-f / rho)."""
        if math.isinf(self.rho[0]):
            return self.log_a
        return np.where(self.a > 0, self.log_a - np.where(self.a > 0, f, 0) / self.rho[0], -np.inf)

    def next_f(self, g: np.ndarray) -> np.ndarray:
        """The f that is best for g."""
        exponents = np.where(self.allowed, self.log_b + (g[None, :] - self.C) / Real(self.eps), -np.inf)
        return -Real(self.eps) * log_sum(exponents, 1) / (1 + Real(self.eps) / self.rho[0])


@dataclass(frozen=True)
class Truth:
    """All that follows from a pair of potentials, (n,) and (m,), in the precision they are given in."""

    posed: Posed
    f: np.ndarray
    g: np.ndarray

    @classmethod
    def of(cls, posed: Posed, f: Any, g: Any) -> Truth:
        return cls(posed, np.asarray(f).astype(Real), np.asarray(g).astype(Real))

    @cached_property
    def log_plan(self) -> np.ndarray:
        return self.posed.log_plan(self.f, self.g)

    @cached_property
    def sides(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """For both sides the logarithms of the marginal of the plan and of that called for."""
        posed = self.posed
        columns = log_sum(self.log_plan, 0), posed.T.log_called(self.g)
        return (log_sum(self.log_plan, 1), posed.log_called(self.f)), columns

    @cached_property
    def error(self) -> float:
        """max over the sides of sum |p - m| / max(sum p, sum m), 0 where both are 0."""
        errors = []
        for p, m in self.sides:
            top = max(np.max(p), np.max(m))
            if top == -np.inf:
                continue
            p, m = np.exp(p - top), np.exp(m - top)
            errors.append(float(np.sum(np.abs(p - m)) / max(np.sum(p), np.sum(m))))
        return max(errors, default=0.0)

    @cached_property
    def terms(self) -> float:
        """The size of what is added up, mass included: rounding is relative to this."""
        posed, total = self.posed, Real(self.posed.eps) * np.sum(self.posed.a) * np.sum(self.posed.b)
        for (p, m), f, w, rho in zip(self.sides, (self.f, self.g), (posed.a, posed.b), posed.rho, strict=True):
            size = np.abs(np.where(w > 0, f, 0)) + posed.eps + (0 if math.isinf(rho) else rho)
            total += inner(np.exp(p) + np.exp(m) + (0 if math.isinf(rho) else w), np.where(np.isfinite(size), size, 0))
        mass = np.exp(log_sum(self.sides[0][0], 0))
        total += mass * posed.size if mass > 0 else 0
        return math.inf if np.isnan(total) else float(total)

    @cached_property
    def exponent(self) -> float:
        """The size of the terms of an exponent."""
        largest = self.posed.largest / self.posed.eps
        for f, w, rho in zip((self.f, self.g), (self.posed.a, self.posed.b), self.posed.rho, strict=True):
            top = np.max(np.abs(f), where=(w > 0) & np.isfinite(f), initial=0)
            largest += float(top / min(self.posed.eps, rho))
        return largest

    @property
    def noise(self) -> float:
        """The relative error that rounding here leaves in the plan."""
        return 8 * HALF_ULP * self.exponent

    @cached_property
    def dual(self) -> float:
        """D_a(f) + D_b(g) - eps (sum P - m_a m_b): a lower bound whatever f and g are."""
        posed, value = self.posed, Real(0)
        for f, w, rho in zip((self.f, self.g), (posed.a, posed.b), posed.rho, strict=True):
            weights = w.astype(Real)
            value += inner(weights, f) if math.isinf(rho) else -rho * inner(weights, np.expm1(-f / rho))
        mass = np.exp(log_sum(self.sides[0][0], 0))
        return float(value - posed.eps * (mass - np.sum(posed.a.astype(Real)) * np.sum(posed.b.astype(Real))))

    @cached_property
    def primal(self) -> float:
        """The cost of a feasible plan near that of f and g: an upper bound (Altschuler et al. 2017 where balanced)."""
        posed, log_P = self.posed, self.log_plan
        balanced = [math.isinf(rho) for rho in posed.rho]
        for axis, log_w in ((1, posed.log_a), (0, posed.log_b)):
            if balanced[1 - axis]:
                sums = log_sum(log_P, axis)
                fit = np.where(np.isfinite(log_w), log_w - np.where(np.isfinite(sums), sums, 0), 0)
                fit = np.minimum(fit, 0) if all(balanced) else fit
                log_P = log_P + (fit[:, None] if axis else fit)
        P = np.exp(log_P)
        if all(balanced):
            missing_a, missing_b = (np.maximum(w - P.sum(axis=k), 0) for w, k in ((posed.a, 1), (posed.b, 0)))
            if missing_a.sum() > 0 and missing_b.sum() > 0:
                P = P + missing_a[:, None] * missing_b / max(missing_a.sum(), missing_b.sum())
        weights = posed.a.astype(Real)[:, None] * posed.b.astype(Real)
        entropy = np.log(np.where(P > 0, P, 1)) - np.log(np.where(P > 0, weights, 1))
        value = inner(P, np.where(P > 0, posed.C + posed.eps * entropy, 0)) - posed.eps * (P.sum() - weights.sum())
        for rho, r, w in zip(posed.rho, (P.sum(axis=1), P.sum(axis=0)), (posed.a, posed.b), strict=True):
            if not math.isinf(rho):
                log = np.log(np.where(r > 0, r, 1)) - np.log(np.where(r > 0, w, 1).astype(Real))
                value += rho * (inner(r, log) - r.sum() + w.astype(Real).sum())
            elif w[r == 0].any():
                return math.inf
        return float(value)

    def improved(self, count: int) -> Truth:
        """The potentials after some exact iterations more."""
        f, g = self.f, self.g
        for _ in range(count):
            g = self.posed.T.next_f(f)
            f = self.posed.next_f(g)
        return Truth(self.posed, f, g)

    @cached_property
    def bracket(self) -> tuple[float, float]:
        """Bounds on the optimum, tighter where that is cheap."""
        better = self.improved(10) if self.posed.C.size <= 2000 else self
        lows, highs = (self.dual, better.dual, -math.inf), (self.primal, better.primal, math.inf)
        return float(np.fmax.reduce(lows)), float(np.fmin.reduce(highs))

    def unsure_slopes(self, unit: float) -> float:
        """The L1 error of the gradient where kernels know positions up to some units of the extent of the clouds."""
        assert self.posed.points is not None
        cost, x, y = self.posed.points
        moves = np.abs(x[:, None, :].astype(Real) - y[None, :, :])
        step, P = 8 * unit * Real(moves.max(initial=0)), np.exp(self.log_plan)
        if cost in (2, "sqeuclidean"):
            error = np.full(P.shape, 2 * step * x.shape[1])
        elif cost == "cosine":  # of unit vectors, whose gradient is over the length of the point
            error = 16 * unit * x.shape[1] / np.linalg.norm(x.astype(float), axis=1)[:, None]
        elif cost == "cityblock":
            error = 2.0 * (moves <= step).sum(axis=2)
        else:
            far = np.sqrt((moves**2).sum(axis=2))
            error = 2.0 * step / np.maximum(np.maximum(far, step), np.finfo(Real).tiny) * x.shape[1]
        return float((P * error).sum())

    @cached_property
    def gradient(self) -> tuple[np.ndarray, float]:
        """dOT / dx = sum_j P[i, j] grad_1 C, (n, d), and the largest |grad_1 C|."""
        assert self.posed.points is not None
        slopes = np.where(self.posed.allowed[:, :, None], cost_gradient(*self.posed.points), 0)
        total = np.einsum("ij,ijk->ik", np.exp(self.log_plan), slopes)
        return total, float(np.abs(slopes).sum(axis=2).max())
