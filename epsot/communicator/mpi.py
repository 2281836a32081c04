"""Processes of MPI as ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epsot.communicator.meetings import Array, Words
from epsot.communicator.protocol import Communicator


class Mpi(Communicator):
    """The ranks of a communicator of mpi4py."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()

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
