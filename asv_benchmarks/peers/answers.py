"""What a solver answers, and how far it is from the truth."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.problems import Task, clouds
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

import epsot
from epsot.costs import HalfSquare
from epsot.kernels import cpu

SMALL = 2000  # up to here errors are measured without any code of epsot

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Answer:
    """In the conventions of epsot: C = |x - y|^2 / 2, P = a b exp((f + g - C) / eps)."""

    value: float
    gradient: np.ndarray  # of the value in x, (n, d)
    potentials: tuple[Pair, ...]  # (f, g) of x with y; debiased also of x with x and of y with y


def softmin(x: np.ndarray, y: np.ndarray, g: np.ndarray, eps: float) -> np.ndarray:
    """out[i] = -eps log sum_j exp((g[j] - C[i, j]) / eps) / m, in float64, (n,)."""
    h = g / eps - math.log(len(y))
    if len(x) > SMALL:
        return cpu.Points(x, y, HalfSquare(), workers=2).softmin(h, eps)
    blocks = np.array_split(x, max(1, len(x) // 250))
    return np.concatenate(
        [-eps * logsumexp(h - cdist(block, y, "sqeuclidean") / (2 * eps), axis=1) for block in blocks]
    )


def violation(x: np.ndarray, y: np.ndarray, f: np.ndarray, g: np.ndarray, eps: float) -> float:
    """sum_i |(P 1)_i - a_i|, with (P 1)_i = a_i exp((f - softmin(g))_i / eps)."""
    with np.errstate(over="ignore"):
        return float(np.mean(np.abs(np.expm1((f - softmin(x, y, g, eps)) / eps))))


def marginal_error(task: Task, potentials: tuple[Pair, ...]) -> float:
    """The larger of the two sides' L1 violations, of the worst of the problems; NaN where a potential is not finite."""
    x, y = clouds(task)
    return worst_violation(x, y, potentials, task.blur**2)


def worst_violation(x: np.ndarray, y: np.ndarray, potentials: tuple[Pair, ...], eps: float) -> float:
    """Of the transport of x to y and, where there are potentials for them, of x to x and of y to y."""
    x, y = (cloud.astype(np.float64) for cloud in (x, y))
    errors: list[float] = []
    for (left, right), (f, g) in zip(((x, y), (x, x), (y, y)), potentials, strict=False):
        if not (np.isfinite(f).all() and np.isfinite(g).all()):
            return math.nan
        errors += [violation(left, right, f, g, eps), violation(right, left, g, f, eps)]
    return max(errors)


@dataclass(frozen=True)
class Reference:
    """A converged solution in float64."""

    value: np.ndarray  # 0-d
    gradient: np.ndarray  # (n, d)
    error: np.ndarray  # 0-d, its own marginal error


def reference(task: Task, folder: Path) -> Reference:
    """epsot in float64, measured like any other answer; both losses of a problem are kept in one file of `folder`."""
    name = f"{task.family}_{task.n}_{task.d}_{task.blur:g}.npz"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / name, **converged(task))
    loss = "S" if task.debiased else "OT"
    with np.load(folder / name) as stored:
        return Reference(*(stored[f"{loss}_{part}"] for part in ("value", "gradient", "error")))


def converged(task: Task) -> dict[str, Any]:
    """To a marginal error of 1e-9, from 1e4 points on of 1e-5, or as near as 1000 iterations come."""
    x, y = (cloud.astype(np.float64) for cloud in clouds(task))
    tol = 1e-9 if task.n < 10_000 else 1e-5
    with warnings.catch_warnings(action="ignore", category=epsot.ConvergenceWarning):  # the error is kept and shown
        S = epsot.sinkhorn_divergence(x, y, blur=task.blur, tol=tol, max_iter=1000, workers=2)
    found: dict[str, Any] = {}
    for loss, result, parts in (("S", S, S.parts), ("OT", S.xy, (S.xy,))):
        error = marginal_error(task, tuple((part.f, part.g) for part in parts))
        found |= {f"{loss}_value": result.value, f"{loss}_gradient": result.grad_x, f"{loss}_error": error}
    return found


def errors(task: Task, answer: Answer, truth: Reference) -> dict[str, float]:
    """The three errors of a row of results: marginal (absolute, the mass is 1), value and gradient (relative)."""
    return {
        "marginal_error": marginal_error(task, answer.potentials),
        "value_error": float(abs(answer.value - truth.value) / abs(truth.value)),
        "gradient_error": float(np.linalg.norm(answer.gradient - truth.gradient) / np.linalg.norm(truth.gradient)),
    }
