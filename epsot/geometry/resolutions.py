"""What a geometry offers a solve from coarse to fine: itself at coarser resolutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from epsot.costs import Array
from epsot.geometry.base import Geometry


class Resolutions(ABC):
    """The coarser geometries of a problem, from coarse to fine.

    Attributes
    ----------
    widths : sequence of float
        Of the cells, in the units of the blur.
    regular : bool
        Whether they are lattices, of which each has 2^-d of the nodes of the next: all of them cost little beside the
        finest, which has not been said of cells between scattered points.
    """

    regular: ClassVar[bool] = False
    widths: Sequence[float]

    @abstractmethod
    def length(self, eps: float) -> float:
        """The blur of a temperature, beside which cells are wide or narrow."""

    @abstractmethod
    def share(self, depth: int) -> float:
        """The number of cells beside that of points, as the mean over the sides whose square is that of the pairs."""

    @abstractmethod
    def at(self, depth: int) -> tuple[Geometry, Array, Array]:
        """The cost between the cells, and their weights."""
