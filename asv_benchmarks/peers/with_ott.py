"""OTT-JAX: C = |x - y|^2, so that epsilon = 2 blur^2 and all values and potentials are halved.

Dense point clouds: `batch_size` fails in ott-jax 0.6.0 with jax 0.10.2, which has no `batching.is_vmappable`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.problems import Task
from ott.geometry.epsilon_scheduler import Epsilon
from ott.geometry.pointcloud import PointCloud
from ott.solvers import linear
from ott.tools.sinkhorn_divergence import sinkhorn_divergence

from peers.answers import Answer


def loss_of(blur: float, debiased: bool, decay: float | None) -> Callable[..., Any]:
    """(x, y, threshold) -> (value, potentials), in the conventions of OTT."""
    target = 2 * blur**2
    # the scheduler starts at epsilon = 1, about the squared size of the clouds
    epsilon = target if decay is None else Epsilon(target, init=1 / target, decay=decay)

    def loss(x: Any, y: Any, threshold: float) -> Any:
        options = {"threshold": threshold, "max_iterations": 100_000}
        if debiased:
            value, out = sinkhorn_divergence(PointCloud, x, y, epsilon=epsilon, solve_kwargs=options)
            return value, out.potentials
        out = linear.solve(PointCloud(x, y, epsilon=epsilon), **options)
        return out.reg_ot_cost, ((out.f, out.g),)

    return loss


def potential(theirs: Any, n: int, blur: float) -> np.ndarray:
    """In the conventions of epsot: theirs hold the weights, 1 / n each."""
    return np.asarray(theirs, np.float64) / 2 + blur**2 * np.log(n)


@cache
def compiled(n: int, d: int, blur: float, debiased: bool, decay: float | None) -> Callable[..., Any]:
    """(x, y, threshold) -> ((value, potentials), gradient), compiled ahead of the clock."""
    loss = loss_of(blur, debiased, decay)
    points = jax.ShapeDtypeStruct((n, d), jnp.float32)
    return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(points, points, 0.1).compile()


def prepare(
    task: Task, x: np.ndarray, y: np.ndarray, setting: float, *, parameter: str, decay: float | None = None
) -> Callable[[], Any]:
    function = compiled(task.n, task.d, task.blur, task.debiased, decay)
    arguments = jnp.asarray(x), jnp.asarray(y), jnp.float32(setting)
    return lambda: jax.block_until_ready(function(*arguments))


def read(task: Task, raw: Any) -> Answer:
    (value, pairs), gradient = raw
    potentials = tuple((potential(f, task.n, task.blur), potential(g, task.n, task.blur)) for f, g in pairs)
    return Answer(float(value) / 2, np.asarray(gradient, np.float64) / 2, potentials)
