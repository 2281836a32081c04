"""Solves for ranks and for one process alike, for tests with threads and with MPI; whatever ranks there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import epsot
from epsot.communicator import Threads
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


def check_same(alone: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """All ranks have the bits of one process, of their points or of all."""
    for name, expected in alone.items():
        parts = [each[name] for each in found]
        if name in OF_POINTS:
            assert np.array_equal(np.concatenate(parts), expected, equal_nan=True), name
            assert parts[0].dtype == expected.dtype
        else:
            assert all(np.array_equal(part, expected) for part in parts), name


class Counting(Threads):
    """Ranks that count what they say to the host."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.calls: Counter[str] = Counter()

    def meet(self, words: Any) -> Any:
        self.calls["meet"] += 1
        return super().meet(words)

    def gather(self, mine: Any, counts: Any) -> Any:
        self.calls["gather"] += 1
        return super().gather(mine, counts)


def raising(error: BaseException) -> Callable[[Any], None]:
    """A callback that fails in the third iteration."""

    def call(record: Any) -> None:
        if record.nit == 3:
            raise error

    return call


class Sizes(NamedTuple):
    """How large the problems are."""

    small: tuple[int, int] = (900, 1100)
    large: tuple[int, int] = (3300, 3500)
    palette: int = 40000
    grid: tuple[int, int] = (30, 34)


def as_it_is(array: Any) -> Any:
    return array


USUAL = Sizes()


def checked(sizes: Sizes = USUAL, given: Callable[[Any], Any] = as_it_is) -> dict[str, Callable[[Any], Any]]:
    """Solves by name, each a function of the ranks; `given`: a block of numbers as arrays of another library."""
    x, y, a, b = clouds(*sizes.small)
    large_x, large_y, _, _ = clouds(*sizes.large)

    def of_points(call: Any, x: Any, y: Any, a: Any = None, b: Any = None, dtype: Any = None, **options: Any) -> Any:
        def solve(comm: Any) -> Any:
            weights = (None if z is None else given(block(z, comm, 1)) for z in (a, b))
            points = (given(block(z if dtype is None else z.astype(dtype), comm, 1)) for z in (x, y))
            return call(*points, *weights, comm=comm, **options)

        return solve

    def of_matrix(comm: Any) -> Any:
        C, C_xx, C_yy = (np.abs(u[:, None] - v) for u, v in ((x[:, 0], y[:, 0]), (x[:, 0],) * 2, (y[:, 0],) * 2))
        C, C_xx, C_yy = (given(block(z, comm)) for z in (C, C_xx, C_yy))
        weights = (given(block(z, comm)) for z in (a, b))
        return epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy), *weights, eps=0.05, comm=comm)

    def of_grids(comm: Any) -> Any:
        grid, rng = epsot.Grid(sizes.grid, spacing=1 / 30), np.random.default_rng(3)
        weights = (given(block(z / z.sum(), comm)) for z in rng.random((2, *sizes.grid)))
        return epsot.sinkhorn(grid, grid, *weights, blur=0.1, comm=comm)

    def of_cells(comm: Any) -> Any:
        labels = (given(block((8 * z[:, 0]).astype(np.int64), comm)) for z in (x, y))
        parts = (given(block(z, comm)) for z in (x, y))
        geometry = Multiscale(*parts, **dict(zip(("labels_x", "labels_y"), labels, strict=True)))
        return epsot.solve(geometry, eps=0.05, comm=comm)

    return {
        "balanced": of_points(epsot.sinkhorn, x, y, a, b, blur=0.1),
        "schedule": of_points(epsot.sinkhorn, x, y, a, b, blur=0.1, tol=None),
        "unbalanced": of_points(epsot.sinkhorn_divergence, x, y, a, 2 * b, blur=0.1, reach=0.5),
        "lengths": of_points(epsot.sinkhorn, x, y, blur=0.1, p=1),
        "coarse": of_points(epsot.sinkhorn, large_x, large_y, blur=0.03),
        "debiased": of_points(epsot.sinkhorn_divergence, large_x, large_y, dtype=np.float32, blur=0.05),
        "small": of_points(epsot.sinkhorn, x[:AT_ONCE], y[:AT_ONCE], blur=0.1),
        "palette": of_points(epsot.sinkhorn, x[:8], np.tile(y, (sizes.palette // len(y), 1)), blur=0.1),
        "matrix": of_matrix,
        "grids": of_grids,
        "cells": of_cells,
    }
