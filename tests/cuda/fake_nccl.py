"""A module of the shape of `cupy.cuda.nccl` for threads as ranks, beside `fake_cupy`.

A collective copies between raw addresses. It wants what NCCL takes on trust: the same number of bytes of the same type
from all ranks, each on the device of its communicator and on the current stream. Where NCCL would wait for ever for a
rank that does not come, all end with an error.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cuda import fake_cupy

NCCL_INT8 = 0
SECONDS = 60  # that a rank waits for the others
calls: Counter[int] = Counter()  # by the device


class NcclError(RuntimeError):
    """What NCCL says, in CuPy's words."""


class Group:
    """The ranks of a communicator."""

    def __init__(self, size: int) -> None:
        self.barrier, self.slots = threading.Barrier(size, timeout=SECONDS), [None] * size

    def of_all(self, rank: int, mine: Any) -> list[Any]:
        self.slots[rank] = mine
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found


groups: dict[tuple[int, ...], Group] = {}
making = threading.Lock()
numbers = itertools.count()


def get_unique_id() -> tuple[int, ...]:
    """128 numbers that are characters, signed as those of C."""
    return (*([-128, 127] * 62), *next(numbers).to_bytes(4, "big"))


class NcclCommunicator:
    def __init__(self, ndev: int, commId: tuple[int, ...], rank: int) -> None:
        assert len(commId) == 128 and all(isinstance(number, int) for number in commId)
        with making:
            self.group = groups.setdefault(commId, Group(ndev))
        self.rank, self.device = rank, fake_cupy.Device().id
        if len(set(self.group.of_all(rank, self.device))) < ndev:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: invalid usage")

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        calls[self.device] += 1
        found = self.group.of_all(self.rank, (sendbuf, count, datatype))
        assert {(size, kind) for _, size, kind in found} == {(count, NCCL_INT8)} and count > 0
        assert self.device == fake_cupy.Device().id and stream == fake_cupy.get_current_stream().ptr
        for rank, (place, _, _) in enumerate(found):
            assert rank != self.rank or place == recvbuf + rank * count  # in place
            ctypes.memmove(recvbuf + rank * count, place, count)
        self.group.of_all(self.rank, None)  # all have read what this one sends


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """`from cupy.cuda import nccl` gives this module, inside of `fake_cupy.installed`."""
    module = types.ModuleType("cupy.cuda.nccl")
    vars(module).update(
        available=True, NCCL_INT8=NCCL_INT8, NcclError=NcclError, NcclCommunicator=NcclCommunicator,
        get_unique_id=get_unique_id,
    )  # fmt: skip
    cuda = fake_cupy.MODULES["cupy.cuda"]
    cuda.nccl = module  # type: ignore[attr-defined]
    calls.clear()
    try:
        yield module
    finally:
        del cuda.nccl  # type: ignore[attr-defined]
