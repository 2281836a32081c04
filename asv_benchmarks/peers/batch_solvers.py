"""How each library is asked for many problems in one call: values, and gradients in x and in y.

A function a library: it compiles what there is to compile, and returns the call that is timed and a reader of its
answers. The costs and temperatures are those of `with_*.py`. Each library is imported by its own process alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peers.answers import Pair

Calls = tuple[Callable[[], Any], Callable[[Any], "Answers"]]


@dataclass(frozen=True)
class Problems:
    """Transport of x[k] to y[k] for each k, between uniform weights; C = |x - y|^2 / 2, eps = blur^2."""

    x: np.ndarray  # (K, n, d) float32
    y: np.ndarray  # (K, n, d) float32
    blur: float
    debiased: bool


@dataclass(frozen=True)
class Answers:
    """In the conventions of epsot; see `peers.answers.Answer`."""

    value: np.ndarray  # (K,)
    gradients: Pair  # in x and in y, (K, n, d) each
    potentials: tuple[Pair, ...]  # (K, n) each: of x with y; debiased also of x with x and of y with y


def epsot(problems: Problems, tol: float) -> Calls:
    import epsot

    loss = epsot.sinkhorn_divergence if problems.debiased else epsot.sinkhorn
    warnings.simplefilter("ignore", epsot.ConvergenceWarning)  # what did not converge is seen in the errors

    def call(count: int | None = None) -> Any:
        x, y = problems.x[:count], problems.y[:count]
        result = loss(x, y, blur=problems.blur, tol=tol, max_iter=100_000, workers=1)
        return result, result.value, result.grad_x, result.grad_y

    def read(raw: Any) -> Answers:
        result, value, *gradients = raw
        parts = (result.xy, result.xx, result.yy) if problems.debiased else (result,)
        return in_float64(value, gradients, [(part.f, part.g) for part in parts])

    call(2)
    return call, read


def geomloss(problems: Problems, scaling: float) -> Calls:
    """One temperature schedule for all items, from the box around all of them."""
    import torch
    from geomloss import SamplesLoss

    from peers.with_geomloss import seen

    torch.set_num_threads(1)
    x, y = (torch.from_numpy(z).requires_grad_() for z in (problems.x, problems.y))
    loss = SamplesLoss(
        "sinkhorn", p=2, blur=problems.blur, scaling=scaling, debias=problems.debiased, backend="tensorized"
    )

    def call() -> Any:
        value = loss(x, y)
        return value.detach(), torch.autograd.grad(value.sum(), [x, y]), seen["potentials"]

    def read(raw: Any) -> Answers:
        value, gradients, (f_xx, f_yy, g, f) = raw
        pairs = [(f, g), (f_xx, f_xx), (f_yy, f_yy)] if problems.debiased else [(f, g)]
        return in_float64(value, gradients, [(f.detach(), g.detach()) for f, g in pairs])

    return call, read


def ott(problems: Problems, threshold: float, decay: float | None = None) -> Calls:
    """The solver of one problem under vmap: all items iterate until the slowest has converged."""
    import jax
    import jax.numpy as jnp

    from peers.with_ott import loss_of, potential

    x, y = jnp.asarray(problems.x), jnp.asarray(problems.y)
    n, blur = x.shape[1], problems.blur
    one = jax.value_and_grad(loss_of(blur, problems.debiased, decay), argnums=(0, 1), has_aux=True)
    solve = jax.jit(jax.vmap(one, (0, 0, None))).lower(x, y, threshold).compile()

    def read(raw: Any) -> Answers:
        (value, pairs), gradients = raw
        potentials = [(potential(f, n, blur), potential(g, n, blur)) for f, g in pairs]
        return in_float64(value / 2, [gradient / 2 for gradient in gradients], potentials)

    return lambda: jax.block_until_ready(solve(x, y, threshold)), read


def pot(problems: Problems, tolerance: float) -> Calls:
    """`ot.solve_batch` in the log domain, of torch arrays; a divergence as its user has to write it.

    Its stopping rule is an L2 norm, of the worst item: see `peers.with_pot`.
    """
    import ot
    import torch

    torch.set_num_threads(1)
    x, y = (torch.from_numpy(z).requires_grad_() for z in (problems.x, problems.y))
    n, eps = x.shape[1], problems.blur**2
    options = {"method": "log_sinkhorn", "reg_type": "kl", "max_iter": 100_000, "tol": tolerance / math.sqrt(n)}

    def transport(source: Any, target: Any) -> tuple[Any, Pair]:
        result = ot.solve_batch(ot.batch.dist_batch(source, target) / 2, eps, **options)
        return result.value, result.potentials

    def call() -> Any:
        value, pair = transport(x, y)
        pairs = [pair]
        if problems.debiased:
            (value_x, pair_x), (value_y, pair_y) = transport(x, x), transport(y, y)
            value = value - (value_x + value_y) / 2
            pairs += [pair_x, pair_y]
        return value.detach(), torch.autograd.grad(value.sum(), [x, y]), pairs

    def read(raw: Any) -> Answers:
        value, gradients, pairs = raw
        potentials = [tuple(eps * (z.detach().double() + math.log(n)) for z in pair) for pair in pairs]
        return in_float64(value, gradients, potentials)

    return call, read


def in_float64(value: Any, gradients: Any, potentials: Any) -> Answers:
    def converted(pair: Any) -> Any:
        return tuple(np.asarray(z, np.float64) for z in pair)

    return Answers(np.asarray(value, np.float64), converted(gradients), tuple(map(converted, potentials)))


@dataclass(frozen=True)
class BatchSolver:
    """A library, and the setting that trades its time for accuracy."""

    prepare: Callable[..., Calls]
    parameter: str
    settings: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)


BATCH_SOLVERS = {
    "epsot": BatchSolver(epsot, "tol", (1e-2, 1e-3)),
    "GeomLoss tensorized": BatchSolver(geomloss, "scaling", (0.5, 0.9)),
    "OTT vmap": BatchSolver(ott, "threshold", (1e-2, 1e-3)),
    "OTT vmap scheduler": BatchSolver(ott, "threshold", (1e-2, 1e-3), {"decay": 0.9}),
    "POT solve_batch": BatchSolver(pot, "tolerance", (1e-2, 1e-3)),
}
