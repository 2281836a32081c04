"""GeomLoss: C = |x - y|^2 / 2, eps = blur^2, as in epsot; value and gradient by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.problems import Task
from geomloss import SamplesLoss
from geomloss._legacy import sinkhorn_samples

from peers.answers import Answer, Pair

torch.set_num_threads(2)

# `potentials=True` returns differences of the potentials of a divergence only. All of them pass through one function,
# and `clusterize` knows the order in which the multiscale backend holds the points.
seen: dict[str, Any] = {}
cost, clusterize = sinkhorn_samples.sinkhorn_cost, sinkhorn_samples.clusterize


def recording_cost(eps: float, rho: Any, a: Any, b: Any, *potentials: Any, **options: Any) -> Any:
    seen["potentials"] = potentials
    return cost(eps, rho, a, b, *potentials, **options)


def recording_clusterize(*arguments: Any, **options: Any) -> Any:
    clusters = clusterize(*arguments, **options)
    seen.setdefault("orders", []).append(clusters[-1])
    return clusters


sinkhorn_samples.sinkhorn_cost, sinkhorn_samples.clusterize = recording_cost, recording_clusterize


def prepare(
    task: Task, x: np.ndarray, y: np.ndarray, setting: float, *, parameter: str, backend: str
) -> Callable[[], Any]:
    loss = SamplesLoss("sinkhorn", p=2, blur=task.blur, scaling=setting, debias=task.debiased, backend=backend)

    def on(source: torch.Tensor, target: torch.Tensor) -> Any:
        seen.clear()
        points = source.requires_grad_()
        value = loss(points, target)
        (gradient,) = torch.autograd.grad(value, [points])
        return value.detach(), gradient, dict(seen)

    clouds = torch.from_numpy(x), torch.from_numpy(y)
    # KeOps compiles for a dimension and the sparsity of a jump between scales, not for a size
    on(*(cloud[:1000].clone() for cloud in clouds))
    return lambda: on(*clouds)


def read(task: Task, raw: Any) -> Answer:
    value, gradient, record = raw
    x_order, y_order = record.get("orders", (None, None))
    f_xx, f_yy, g, f = record["potentials"]
    xy = restored(f, x_order), restored(g, y_order)
    potentials: tuple[Pair, ...] = (xy,)
    if task.debiased:
        xx, yy = restored(f_xx, x_order), restored(f_yy, y_order)
        potentials = xy, (xx, xx), (yy, yy)
    return Answer(float(value), gradient.double().numpy(), potentials)


def restored(potential: torch.Tensor, order: torch.Tensor | None) -> np.ndarray:
    """In float64, from the order of the clusters to that of the points."""
    values = potential.detach().double().numpy().ravel()
    if order is None:
        return values
    out = np.empty_like(values)
    out[order.numpy()] = values
    return out
