"""Solves for ranks and for one process alike, for tests with threads and with MPI; whatever ranks there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import epsot
from epsot.geometry import Multiscale

OF_POINTS = ("f", "g", "grad_x", "grad_y", "grad_a", "grad_b", "displacement")
NAMES = (*OF_POINTS, "value", "dual", "primal", "gap", "transport_cost", "marginal_error", "nit", "status", "history")
OF_COSTS = ("grad_x", "grad_y", "displacement")  # what a matrix has not
AT_ONCE = 100  # points: such a problem is solved in one call, on every rank


def clouds(n: int, m: int, d: int = 3, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Two clouds, and weights of which some are zero."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((n, d)), rng.random((m, d)) ** 2 + 0.3
    a, b = rng.random(n), rng.random(m)
    a[5] = b[7] = 0.0
    return x, y, a / a.sum(), b / b.sum()


def block(whole: Any, comm: Any, lengths: int = 0) -> Any:
    """That of a rank; of `lengths` other than 0, of uneven blocks."""
    n, size = len(whole), comm.size
    edges = [n * k * (k + lengths) // (size * (size + lengths)) for k in range(size + 1)]
    return whole[edges[comm.rank] : edges[comm.rank + 1]]


def everything(result: Any) -> dict[str, Any]:
    """All that a result knows."""
    names = [name for name in NAMES if result.instance.geometry.points is not None or name not in OF_COSTS]
    return {name: getattr(result, name) for name in names}


def checked() -> dict[str, Callable[[Any], Any]]:
    """Solves by name, each a function of the ranks."""
    x, y, a, b = clouds(900, 1100)
    large_x, large_y, _, _ = clouds(3300, 3500, 2)

    def of_points(call: Any, x: Any, y: Any, a: Any = None, b: Any = None, dtype: Any = None, **options: Any) -> Any:
        def solve(comm: Any) -> Any:
            weights = (None if z is None else block(z, comm, 1) for z in (a, b))
            points = (block(z if dtype is None else z.astype(dtype), comm, 1) for z in (x, y))
            return call(*points, *weights, comm=comm, **options)

        return solve

    def of_matrix(comm: Any) -> Any:
        C, C_xx, C_yy = (np.abs(u[:, None] - v) for u, v in ((x[:, 0], y[:, 0]), (x[:, 0],) * 2, (y[:, 0],) * 2))
        geometry = epsot.CostMatrix(block(C, comm), C_xx=block(C_xx, comm), C_yy=block(C_yy, comm))
        return epsot.divergence(geometry, block(a, comm), block(b, comm), eps=0.05, comm=comm)

    def of_grids(comm: Any) -> Any:
        grid, rng = epsot.Grid((30, 34), spacing=1 / 30), np.random.default_rng(3)
        weights = (block(z / z.sum(), comm) for z in rng.random((2, 30, 34)))
        return epsot.sinkhorn(grid, grid, *weights, blur=0.1, comm=comm)

    def of_cells(comm: Any) -> Any:
        labels = [(8 * z[:, 0]).astype(np.int64) for z in (x, y)]
        parts = (block(z, comm) for z in (x, y))
        geometry = Multiscale(*parts, labels_x=block(labels[0], comm), labels_y=block(labels[1], comm))
        return epsot.solve(geometry, eps=0.05, comm=comm)

    return {
        "balanced": of_points(epsot.sinkhorn, x, y, a, b, blur=0.1),
        "schedule": of_points(epsot.sinkhorn, x, y, a, b, blur=0.1, tol=None),
        "unbalanced": of_points(epsot.sinkhorn_divergence, x, y, a, 2 * b, blur=0.1, reach=0.5),
        "lengths": of_points(epsot.sinkhorn, x, y, dtype=np.float32, blur=0.1, p=1),
        "coarse": of_points(epsot.sinkhorn, large_x, large_y, blur=0.03),
        "debiased": of_points(epsot.sinkhorn_divergence, large_x, large_y, dtype=np.float32, blur=0.05),
        "small": of_points(epsot.sinkhorn, x[:AT_ONCE], y[:AT_ONCE], blur=0.1),
        "palette": of_points(epsot.sinkhorn, x[:8], np.tile(y, (36, 1))[:40000], blur=0.1),
        "matrix": of_matrix,
        "grids": of_grids,
        "cells": of_cells,
    }
