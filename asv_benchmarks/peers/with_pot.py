"""POT, from points: the cost matrix, `ot.sinkhorn` for each part, value and gradient as its user has to write them.

The matrix is |x - y|^2 / 2 and reg = blur^2. Its stopping rule is the L2 norm of a marginal's violation; with n equal
weights an L1 norm of `tolerance` is about tolerance / sqrt(n) in L2, which is what it is given.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
from benchmarks.problems import Task

from peers.answers import Answer, Pair

warnings.simplefilter("ignore")  # what did not converge is seen in the errors


def transport(
    x: np.ndarray, y: np.ndarray, eps: float, method: str, threshold: float
) -> tuple[float, np.ndarray, Pair]:
    """OT = <a, f> + <b, g> - eps (sum P - 1), its partial derivative in x, and the potentials."""
    a, b = (np.full(len(cloud), 1 / len(cloud), cloud.dtype) for cloud in (x, y))
    plan, log = ot.sinkhorn(
        a, b, ot.dist(x, y) / 2, eps, method=method, stopThr=threshold, numItermax=1_000_000, log=True
    )
    log_u, log_v = (log[f"log_{name}"] if f"log_{name}" in log else np.log(log[name]) for name in ("u", "v"))
    f, g = eps * (log_u - np.log(a)), eps * (log_v - np.log(b))
    rows = plan.sum(axis=1)
    value = a @ f + b @ g - eps * (rows.sum() - 1)
    return value, rows[:, None] * x - plan @ y, (f, g)


def prepare(
    task: Task, x: np.ndarray, y: np.ndarray, setting: float, *, parameter: str, method: str, dtype: str
) -> Callable[[], Any]:
    x, y = x.astype(dtype), y.astype(dtype)
    threshold = setting / math.sqrt(task.n)
    eps = task.blur**2

    def call() -> Any:
        value, gradient, pair = transport(x, y, eps, method, threshold)
        if not task.debiased:
            return value, gradient, (pair,)
        value_x, gradient_x, pair_x = transport(x, x, eps, method, threshold)
        value_y, _, pair_y = transport(y, y, eps, method, threshold)
        # half of OT(x, x), both of whose arguments move
        return value - (value_x + value_y) / 2, gradient - gradient_x, (pair, pair_x, pair_y)

    return call


def read(task: Task, raw: Any) -> Answer:
    value, gradient, pairs = raw
    potentials = tuple((f.astype(np.float64), g.astype(np.float64)) for f, g in pairs)
    return Answer(float(value), gradient.astype(np.float64), potentials)
