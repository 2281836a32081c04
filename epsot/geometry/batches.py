"""Many geometries in one: what a batch says of itself.

An item is a geometry of its own, made when it is asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np

from epsot.arrays import Place
from epsot.costs import Array, Cost
from epsot.geometry.base import Geometry, Written
from epsot.geometry.grid import Grid
from epsot.geometry.rows import Rows, Shape


class Geometries(Written, ABC):
    """A batch of geometries.

    Attributes
    ----------
    place : Place
    dtype : dtype
    shape : tuple
        Of the batch.
    sizes : two arrays
        The numbers of points of each item on either side, of the shape of the batch.
    ragged : (bool, bool)
        Whether what belongs to a side is handed out as a list.
    """

    place: Place
    dtype: Any
    shape: Shape
    sizes: tuple[np.ndarray, np.ndarray]
    ragged: tuple[bool, bool]

    def __len__(self) -> int:
        return math.prod(self.shape)

    @property
    @abstractmethod
    def lengths(self) -> tuple[int, int]:
        """How many points the items have on either side where all have as many, also where there are no items."""

    @property
    @abstractmethod
    def degree(self) -> float:
        """eps = factor length^degree."""

    @property
    @abstractmethod
    def T(self) -> Geometries:
        """Seen from the other side."""

    @abstractmethod
    def over(self, shape: Shape) -> Geometries:
        """Broadcast to another shape."""

    @abstractmethod
    def item(self, k: int) -> Geometry:
        """One of them, counted through all axes."""

    def stored(self, name: str) -> tuple[Array, np.ndarray] | None:
        """The costs of that name as one matrix, and the row where each item begins; None where there is none."""
        return None

    @property
    def clouds(self) -> tuple[Rows, Rows] | None:
        """The points of both sides; None where there are none."""
        return None

    @property
    def family(self) -> Cost | None:
        """The cost that the kernels compute between points; None where there are none."""
        return None

    def embedded(self) -> tuple[Array, Array] | None:
        """The points between which that is the cost, flat; None where there are none."""
        return None

    @property
    def grids(self) -> tuple[Grid | None, Grid | None]:
        """That the points of all items are of, on either side."""
        return None, None

    @property
    def dimension(self) -> int | None:
        """The number of coordinates of the points; None where there are none."""
        return None if self.clouds is None else int(self.clouds[0].values.shape[1])

    def suited(self, a: Any, b: Any) -> Geometries:
        """The geometries where such weights of the user are."""
        return self

    def _derived(self) -> Self:
        """Another one of the same attributes, some of which are about to change."""
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def matrices(self, name: str) -> Array:
        """The costs of that name, (B, n, m)."""
        raise TypeError(f"{type(self).__name__} have no stored costs")

    def pull_back(self, slopes: Array, side: int) -> Array:
        """Gradients in the points between which the kernels compute, as those in the points of the user; all flat."""
        return slopes

    def embeds(self) -> bool:
        """Whether the kernels compute between other points than the user's."""
        return False

    def forbidding(self) -> list[int]:
        """The items that forbid pairs, which may leave no plan."""
        return []

    def rounded(self) -> np.ndarray:
        """The size of the largest terms of a cost that are rounded, roughly, or more; of the shape of the batch."""
        return np.zeros(self.shape)

    def scale(self) -> np.ndarray:
        """The temperatures at which annealing starts."""
        return np.array([self.item(k).scale() for k in range(len(self))], float).reshape(self.shape)


def as_many(geometry: Geometry | Geometries) -> Geometries:
    """The batch of one geometry, of the shape ()."""
    if isinstance(geometry, Geometries):
        return geometry
    if geometry.many is None:
        raise TypeError(
            f"a {type(geometry).__name__} cannot be solved for many weights at once; solve it for each of them"
        )
    many: Geometries = geometry.many.of(geometry)
    return many
