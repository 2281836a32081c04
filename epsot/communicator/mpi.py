"""Processes of MPI as ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from epsot.communicator.meetings import Array, Words
from epsot.communicator.protocol import Communicator


class Mpi(Communicator):
    """The ranks of a communicator of mpi4py."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()

    @property
    def kept(self) -> dict[Any, Any]:
        """With the communicator of mpi4py, whichever object stands for it, until that is freed."""
        found: dict[Any, Any] | None = self.comm.Get_attr(attribute())
        if found is None:
            found = {}
            self.comm.Set_attr(attribute(), found)
        return found

    def meet(self, words: Words) -> Words:
        out = np.empty((self.size, len(words)), np.int64)
        self.comm.Allgather(words, out)
        return out

    def gather(self, mine: Array, counts: Sequence[int]) -> Array:
        out = np.empty((sum(counts), *mine.shape[1:]), mine.dtype)
        width = int(np.prod(mine.shape[1:], dtype=np.int64))
        self.comm.Allgatherv(mine, [out, [count * width for count in counts]])
        return out

    def exchange(self, mine: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        out = np.empty(sum(received), mine.dtype)
        self.comm.Alltoallv([mine, list(sent)], [out, list(received)])
        return out


@cache
def attribute() -> int:
    """The key of what communicators keep for this package; a duplicate of one starts with nothing."""
    from mpi4py import MPI

    return MPI.Comm.Create_keyval()
