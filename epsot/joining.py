"""Blocks of several processes as one problem."""

from __future__ import annotations

from typing import Any

from array_api_compat import is_numpy_namespace

from epsot.communicator import Communicator
from epsot.problems.instance import joined_weights


class Joining:
    """From what one rank has to what all have: geometry and weights, and which points are those of this rank."""

    def __init__(self, comm: Communicator, a: Any, b: Any) -> None:
        self.comm, self.weights = comm, (a, b)
        self.here: tuple[slice | None, slice | None] = (None, None)

    def __call__(self, geometry: Any) -> Any:
        """The geometry of all ranks."""
        a, b = self.weights
        self.comm.check_equal(geometry=type(geometry).__name__, a=a is None, b=b is None)
        first, second = geometry.shares(self.comm, a, b)
        whole = geometry.joined(first, second)
        place, supports = geometry.suited(a, b).place, whole.supports
        if self.comm.size > 1 and not is_numpy_namespace(place.xp):
            raise TypeError(f"`comm` needs arrays in the memory of the CPU, got those of {place.user.xp.__name__}")
        self.here = first.here, second.here
        sides = zip("ab", (a, b), (first, second), supports, strict=True)
        found = [joined_weights(name, z, share, support, place) for name, z, share, support in sides]
        self.weights = found[0], found[1]
        return whole
