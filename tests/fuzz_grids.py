"""Random problems over grids: the oracle sees their points, and the package two lattices."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

import epsot
from tests.fuzz_problems import Generator, Problem, decades, finished

CALLS = ["sinkhorn", "sinkhorn_divergence", "solve", "divergence"]
NODES = 60  # of a side, at most


@dataclass(frozen=True)
class OnGrids(Problem):
    """A call between two grids. `sides` lists their nodes."""

    grids: tuple[epsot.Grid, ...] = ()

    @property
    def handed(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        shaped = (
            None if w is None else np.reshape(w, grid.shape) for w, grid in zip(self.weights, self.grids, strict=True)
        )
        return self.grids, tuple(shaped)

    @property
    def exact(self) -> tuple[np.ndarray, ...]:
        """Nodes that no offset has rounded: lattices see the differences of their numbers.

        Of a cost that is no sum over the axes, the points that stand for them, in the dtype of the weights.
        """
        if self.cost == 1:
            dtype = np.float32 if self.single else np.float64
            return tuple(np.asarray(grid.points, dtype).astype(np.longdouble) for grid in self.grids)
        return tuple(nodes(grid) for grid in self.grids)

    @property
    def single(self) -> bool:
        """Weights say in which dtype results are."""
        given = [w.dtype for w in self.weights if w is not None]
        return bool(given) and bool(np.result_type(*given) == np.float32)

    @property
    def rounds(self) -> bool:
        """Lattices round no square of a diameter; the distance, whose points are float32 with the weights, does."""
        return self.cost == 1 and super().rounds


def nodes(grid: epsot.Grid) -> np.ndarray:
    """The nodes in 80 bits.  -> (n, d)"""
    steps = np.indices(grid.shape).reshape(grid.dimension, -1).T.astype(np.longdouble)
    return np.asarray(steps * np.asarray(grid.spacing) + np.asarray(grid.origin))


def draw_grid(rng: Generator, d: int, spread: float, like: epsot.Grid | None = None) -> epsot.Grid:
    """A lattice of any proportions, far from the origin or not; `like`: one that is not far from another."""
    shape = [int(rng.integers(1, 9)) for _ in range(d)]
    while np.prod(shape) > NODES:
        shape[int(np.argmax(shape))] -= 1
    spacing = [spread * decades(rng, -0.5, 0.5) for _ in range(d)]
    far = decades(rng, 0, 6) if rng.random() < 0.2 else 1.0
    origin = np.zeros(d) if like is None else np.array(like.origin)
    return epsot.Grid(shape, spacing=spacing, origin=origin + spread * far * rng.standard_normal(d))


def draw_on_grids(seed: int, index: int) -> OnGrids:
    """The problem of that number."""
    rng = np.random.default_rng([seed, index, 2])
    call, d = CALLS[rng.integers(4)], int(rng.integers(1, 5))
    spread = decades(rng, -9, 9) if rng.random() < 0.3 else 1.0
    x = draw_grid(rng, d, spread)
    y = x if rng.random() < 0.3 else draw_grid(rng, d, spread, x)
    by_length = call in ("sinkhorn", "sinkhorn_divergence")
    cost: Any = [1, 2, 2, 2][rng.integers(4)] if by_length else [2, "sqeuclidean", "cityblock"][rng.integers(3)]
    degree = 2 if cost in (2, "sqeuclidean") and not by_length else 1
    problem = finished(rng, call, cost, (x.points, y.points), (x.size, y.size), spread**degree)
    return OnGrids(**{field.name: getattr(problem, field.name) for field in fields(problem)}, grids=(x, y))
