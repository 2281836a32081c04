"""The processes that share one solve: *ranks*, each with its block of the rows, and all that they say to one another.

Every rank has all points and all vectors, and decides alike; the pairs are shared out, by ranges of the blocks of rows
that kernels work on. A block does not depend on who computes it, so that the bits are those of one process.

From below: `meetings` is what ranks say to one another, `protocol` which part of a solve is that of each, and the
process that is alone; `mpi` and `threads` are ranks, and `nccl` those that have a GPU each.
"""

from __future__ import annotations

from typing import Any

from epsot.communicator.meetings import ANY, BYTES, COUNTS, END, ROWS, SHARED, as_shared, is_shared
from epsot.communicator.mpi import Mpi
from epsot.communicator.nccl import Nccl
from epsot.communicator.protocol import (
    ALONE,
    Alone,
    Communicator,
    Share,
    Whole,
    Workers,
    cuts,
    ranks_of,
    sizes_of,
)
from epsot.communicator.threads import Threads

__all__ = [
    "ALONE", "ANY", "BYTES", "COUNTS", "END", "ROWS", "SHARED", "Alone", "Communicator", "Mpi", "Nccl", "Share",
    "Threads", "Whole", "Workers", "as_communicator", "as_shared", "cuts", "is_shared", "ranks_of", "sizes_of",
]  # fmt: skip


def as_communicator(comm: Any) -> Communicator:
    """What the user has given: None, a communicator of mpi4py, or one of these."""
    if comm is None:
        return ALONE
    if isinstance(comm, Communicator):
        return comm
    if not all(hasattr(comm, name) for name in ("Get_rank", "Get_size", "Allgather", "Allgatherv", "Alltoallv")):
        raise TypeError(f"`comm` must be a communicator of mpi4py, as `MPI.COMM_WORLD`, got {type(comm).__name__}")
    if comm.Is_inter():
        raise TypeError("`comm` must be an intracommunicator, whose ranks are one group")
    return Mpi(comm) if comm.Get_size() > 1 else ALONE
