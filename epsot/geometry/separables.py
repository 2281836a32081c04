"""Many pairs of weights over two grids."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from epsot.arrays import Place
from epsot.costs import Cost
from epsot.geometry.batches import Geometries, as_many
from epsot.geometry.clouds import PointClouds
from epsot.geometry.grid import Grid
from epsot.geometry.points import PointCloud
from epsot.geometry.rows import Rows, Shape
from epsot.geometry.separable import Separable
from epsot.libraries import as_numpy
from epsot.lists import is_ragged


class Separables(Geometries):
    """The cost between two grids, for many pairs of weights: `x` and `y` have no points, but those of their grids."""

    stored_as = "many grids"
    ragged = False, False

    def __init__(self, pair: Separable, x: Rows, y: Rows) -> None:
        self.pair, self.place, self.dtype, self.cost = pair, pair.place, pair.dtype, pair.cost
        self.x, self.y, self.shape = x, y, x.shape
        self.sizes = x.sizes, y.sizes

    @classmethod
    def of(cls, pair: Separable) -> Separables:
        """The batch of one pair of grids, of the shape ()."""
        sides = (Rows.of_grid(grid) for grid in (pair.x, pair.y))
        return cls(pair, *sides)

    def written(self) -> dict[str, Any]:
        return {"pair": self.pair.written(), "shape": list(self.shape)}

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> Separables:
        return cls.of(Separable.read(parts["pair"], place)).over(tuple(parts["shape"]))

    def over(self, shape: Shape) -> Separables:
        return Separables(self.pair, self.x.over(shape), self.y.over(shape))

    def sides(self, x: Rows, y: Rows) -> Separables:
        assert x.grid is not None and y.grid is not None
        return Separables(self.pair.between(x.grid, y.grid), x, y)

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> Separables:
        return Separables(self.pair, self.x.at(rows), self.y.at(columns))

    @property
    def lengths(self) -> tuple[int, int]:
        return self.pair.shape

    @property
    def degree(self) -> float:
        return self.pair.degree

    @property
    def T(self) -> Separables:
        return Separables(self.pair.T, self.y, self.x)

    def item(self, k: int) -> Separable:
        return self.pair

    @property
    def grids(self) -> tuple[Grid, Grid]:
        return self.pair.x, self.pair.y

    @property
    def dimension(self) -> int:
        return self.pair.x.dimension

    def widest(self) -> float:
        return self.pair.diameter()

    def scale(self) -> np.ndarray:
        return np.full(self.shape, self.pair.scale())

    def __repr__(self) -> str:
        return f"Separables(shape={self.shape}, {self.pair!r})"


Separable.many = Separables


def many_of(x: Any, y: Any, a: Any, b: Any, *, p: float = 2, cost: str | Cost | None = None) -> Geometries:
    """The geometries of many problems between clouds or grids; between two grids the weights say where they are."""
    if isinstance(x, Grid) and isinstance(y, Grid):
        return as_many(PointCloud(x, y, p=p, cost=cost).suited(a, b))
    return PointClouds(x, y, p=p, cost=cost)


def flat_weights(name: str, weights: Any, grid: Grid | None) -> Any:
    """Weights over a grid, (..., *shape), as those over its points, (..., n); others as they are."""
    if weights is None or grid is None:
        return weights
    if is_ragged(weights):
        return [flat_weights(f"{name}[{k}]", item, grid) for k, item in enumerate(weights)]
    array = weights if is_array_api_obj(weights) else as_numpy(name, weights)
    axes, shape = len(grid.shape), tuple(array.shape)
    if shape[max(0, len(shape) - axes) :] != grid.shape:
        raise ValueError(
            f"`{name}` must have the shape of its grid, {grid.shape}, after the axes of the batch, got {shape}"
        )
    return array_namespace(array).reshape(array, (*shape[: len(shape) - axes], math.prod(grid.shape)))
