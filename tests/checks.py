"""The definitions, written out over dense float64 arrays: what everything else is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TIGHT = {"tol": 1e-12, "max_iter": 100_000}  # converged as far as float64 goes


def close(actual: Any, desired: Any, tolerance: float = 1e-9) -> None:
    """|actual - desired| <= tolerance (1 + |desired|)."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(desired), rtol=tolerance, atol=tolerance)


def pair(rho: Any) -> tuple[Any, Any]:
    """The strengths of the two sides."""
    return tuple(rho) if isinstance(rho, tuple) else (rho, rho)


def posed(problem: Any, rho: Any) -> Any:
    """Measures of the fixtures, of equal masses where these need to be."""
    return problem.balanced if rho is None else problem


def power_cost(x: np.ndarray, y: np.ndarray, p: int = 2) -> np.ndarray:
    """|x - y|^p / p.  (n, d), (m, d) -> (n, m)"""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1) ** (p / 2) / p


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """sum p log(p / q) - p + q, with 0 log 0 = 0."""
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / q[positive])) - p.sum() + q.sum())


def plan(f: np.ndarray, g: np.ndarray, C: np.ndarray, a: np.ndarray, b: np.ndarray, eps: float) -> np.ndarray:
    """a b exp((f + g - C) / eps).  -> (n, m)"""
    return np.outer(a, b) * np.exp((np.asarray(f)[:, None] + np.asarray(g)[None, :] - C) / eps)


def primal(P: np.ndarray, C: np.ndarray, a: np.ndarray, b: np.ndarray, eps: float, rho: Any = None) -> float:
    """<P, C> + eps KL(P | a b) + rho_a KL(P 1 | a) + rho_b KL(P' 1 | b); a balanced side adds nothing."""
    rho_a, rho_b = pair(rho)
    value = float(np.sum(P[P > 0] * C[P > 0])) + eps * kl(P, np.outer(a, b))
    value += 0.0 if rho_a is None else rho_a * kl(P.sum(axis=1), a)
    return value + (0.0 if rho_b is None else rho_b * kl(P.sum(axis=0), b))


def dual(
    f: np.ndarray, g: np.ndarray, C: np.ndarray, a: np.ndarray, b: np.ndarray, eps: float, rho: Any = None
) -> float:
    """<a, f> + <b, g> - eps (sum P - m_a m_b), with -rho <a, expm1(-f / rho)> on a side that is not balanced."""
    rho_a, rho_b = pair(rho)
    share_a = a @ f if rho_a is None else -rho_a * (a @ np.expm1(-f / rho_a))
    share_b = b @ g if rho_b is None else -rho_b * (b @ np.expm1(-g / rho_b))
    return float(share_a + share_b - eps * (plan(f, g, C, a, b, eps).sum() - a.sum() * b.sum()))


def distance(p: np.ndarray, m: np.ndarray) -> float:
    """sum |p - m| over the larger of the two masses, 0 where both are 0."""
    return float(np.abs(p - m).sum() / (max(p.sum(), m.sum()) or 1.0))


def marginal_error(P: np.ndarray, f: np.ndarray, g: np.ndarray, a: np.ndarray, b: np.ndarray, rho: Any = None) -> float:
    """The larger distance between a marginal of P and the one that the potentials call for."""
    rho_a, rho_b = pair(rho)
    wanted_a = a if rho_a is None else a * np.exp(-f / rho_a)
    wanted_b = b if rho_b is None else b * np.exp(-g / rho_b)
    return max(distance(P.sum(axis=1), wanted_a), distance(P.sum(axis=0), wanted_b))


def softmin(h: np.ndarray, C: np.ndarray, eps: float) -> np.ndarray:
    """-eps log sum_j exp(h[j] - C[i, j] / eps).  (m,) -> (n,)"""
    logits = h[None, :] - C / eps
    top = logits.max(axis=1)
    return -eps * (top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def slopes(function: Callable[[np.ndarray], Any], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of a scalar function in every entry of `at`."""
    out = np.empty_like(at, dtype=np.float64)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        out[index] = (float(function(up)) - float(function(down))) / (2 * step)
    return out


def has_slopes(gradient: Any, function: Callable[[np.ndarray], Any], at: np.ndarray, tolerance: float) -> None:
    """Central differences along three directions, in each of which every entry of `at` moves by a step up or down."""
    step, rng = 5e-6, np.random.default_rng(3)
    for _ in range(3):
        along = rng.choice([-1.0, 1.0], at.shape)
        difference = float(function(at + step * along)) - float(function(at - step * along))
        close(np.sum(np.asarray(gradient) * along), difference / (2 * step), tolerance)


def up_to_constant(values: Any) -> np.ndarray:
    """The values less their mean: what is left of a balanced weight gradient."""
    values = np.asarray(values)
    return values - values.mean()


def adjoint(operator: Any, rng: np.random.Generator, tolerance: float = 1e-12) -> None:
    """<u, A v> = <A' u, v>: the dot test."""
    n, m = operator.shape
    u, v = rng.normal(size=n), rng.normal(size=m)
    close(u @ (operator @ v), (operator.T @ u) @ v, tolerance)
