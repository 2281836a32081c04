"""Blocks of several processes as one problem."""

from __future__ import annotations

from typing import Any

from array_api_compat import is_cupy_namespace, is_numpy_namespace

from epsot.arrays import Place
from epsot.communicator import Communicator, Nccl
from epsot.problems.weights import joined_weights


def serving(comm: Communicator, place: Place) -> Communicator:
    """These ranks, for the arrays that are at a place: those on a GPU each go by NCCL."""

    def found(host: Communicator) -> Communicator:
        if is_numpy_namespace(place.xp):
            return host
        if not is_cupy_namespace(place.xp):
            raise TypeError(f"`comm` needs arrays of NumPy, or of CuPy on a GPU for each rank, got {place.xp.__name__}")
        from epsot.kernels.cuda.modules import unproven

        if not unproven():
            raise RuntimeError(
                "`comm` with arrays on GPUs has not been run by a device yet; to try it set EPSOT_UNPROVEN=1 in the "
                "environment of all ranks, or pass arrays of NumPy"
            )
        return Nccl.of(host, place.device)

    return comm.over(found)


class Joining:
    """From what one rank has to what all have: geometry and weights, and which points are those of this rank."""

    def __init__(self, comm: Communicator, a: Any, b: Any) -> None:
        self.comm, self.weights = comm, (a, b)
        self.here: tuple[slice | None, slice | None] = (None, None)

    def __call__(self, geometry: Any) -> Any:
        """The geometry of all ranks."""
        a, b = self.weights
        place, kind = geometry.suited(a, b).place, type(geometry).__name__
        self.comm.check_equal(geometry=kind, arrays=place.xp.__name__, a=a is None, b=b is None)
        self.comm = serving(self.comm, place)
        first, second = geometry.shares(self.comm, a, b)
        whole = geometry.joined(first, second)
        supports = whole.supports
        self.here = first.here, second.here
        sides = zip("ab", (a, b), (first, second), supports, strict=True)
        found = [joined_weights(name, z, share, support, place) for name, z, share, support in sides]
        self.weights = found[0], found[1]
        return whole
