"""Ranks that have a GPU each: what they say goes over MPI, and arrays of CuPy from device to device by NCCL.

Nothing is sent by NCCL before all ranks have met and are well, with room for what they get: a collective that one of
them does not come to would leave the devices of the others waiting for ever.
"""

from __future__ import annotations

import hashlib
import platform
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epsot.communicator.meetings import COUNTS, DEVICE, SHARED, Array, Words, as_shared, sample
from epsot.communicator.protocol import Communicator

BOOT = Path("/proc/sys/kernel/random/boot_id")  # of Linux: tells nodes apart that have one name


class Sample:
    """Some numbers of a vector on a device, on their way to the host while the device goes on."""

    def __init__(self, vector: Any) -> None:
        import cupy

        some = cupy.ascontiguousarray(sample(vector))
        self.numbers = np.frombuffer(cupy.cuda.alloc_pinned_memory(max(1, some.nbytes)), some.dtype, some.size)
        some.get(out=self.numbers, blocking=False)
        self.arrived = cupy.cuda.Event(disable_timing=True)
        self.arrived.record()

    def checksum(self) -> int:
        self.arrived.synchronize()
        return zlib.crc32(self.numbers.tobytes())


class Nccl(Communicator):
    """Ranks that talk by another communicator and send what is on their devices by NCCL.

    Parts are padded to the longest, of the bytes of any type, on the current stream.
    """

    def __init__(self, host: Communicator, nccl: Any, byte: int) -> None:
        self.host, self.nccl, self.byte = host, nccl, byte
        self.rank, self.size = host.rank, host.size

    @classmethod
    def of(cls, host: Communicator, device: Any) -> Nccl:
        """Over a device of each rank. Those that have been joined for these ranks stay so."""
        numbers = host.agree(COUNTS, number_of(device))[:, 0].tolist()
        key = ("NCCL", *numbers)
        if key not in host.kept:
            check_apart(numbers)
            host.kept[key] = joined_devices(host, device)
        host.kept[DEVICE] = device
        return cls(host, *host.kept[key])

    @property
    def kept(self) -> dict[Any, Any]:
        return self.host.kept

    def meet(self, words: Words) -> Words:
        return self.host.meet(words)

    def gather(self, mine: Array, counts: Sequence[int]) -> Array:
        whole: Array = self.sending(mine, counts)()
        return whole

    def exchange(self, mine: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        return self.host.exchange(mine, sent, received)

    def sending(self, mine: Any, counts: Sequence[int]) -> Callable[[], Any]:
        if isinstance(mine, np.ndarray):
            return self.host.sending(mine, counts)
        import cupy

        room = cupy.empty((self.size, max(counts), *mine.shape[1:]), dtype=mine.dtype)
        room[self.rank, : counts[self.rank]] = mine
        part = room.nbytes // self.size

        def gather() -> Any:
            place, stream = room.data.ptr, cupy.cuda.get_current_stream().ptr
            if part:
                self.nccl.allGather(place + self.rank * part, place, part, self.byte, stream)
            if len(set(counts)) == 1:
                return room.reshape(-1, *mine.shape[1:])
            return cupy.concatenate([found[:count] for found, count in zip(room, counts, strict=True)])

        return gather

    def seen(self, vector: Any) -> Any:
        return vector if isinstance(vector, np.ndarray) else Sample(vector)

    def checksum(self, vector: Any) -> int:
        if isinstance(vector, np.ndarray):
            return self.host.checksum(vector)
        seen = vector if isinstance(vector, Sample) else Sample(vector)
        return seen.checksum()


def bindings() -> Any:
    """CuPy's module for NCCL; its import warns where the library is missing, and this says what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    if not nccl.available:
        raise RuntimeError(
            "`comm` with arrays on GPUs needs NCCL, which CuPy has not found: on Linux `pip install nvidia-nccl-cu13`, "
            "or `-cu12`, whichever is your CUDA version; with conda `conda install -c conda-forge nccl`"
        )
    return nccl


def number_of(device: Any) -> int:
    """A number that no other GPU has, in whichever machine."""
    boot = BOOT.read_bytes() if BOOT.exists() else b""
    name = b"\0".join([platform.node().encode(), boot, str(device.pci_bus_id).encode()])
    return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")


def check_apart(numbers: list[int]) -> None:
    """Raise where two ranks have one device: NCCL would tell these, and leave the others waiting."""
    for rank, number in enumerate(numbers):
        if (other := numbers.index(number)) != rank:
            raise as_shared(
                ValueError(
                    f"ranks {other} and {rank} of `comm` have their arrays on one GPU: give each rank one of its own, "
                    "as by `cupy.cuda.Device(local_rank).use()`"
                )
            )


def joined_devices(host: Communicator, device: Any) -> tuple[Any, int]:
    """What sends between the devices of all ranks, and its name for a byte."""
    nccl = bindings()
    name = np.array(nccl.get_unique_id() if host.rank == 0 else (), np.int64)
    counts = host.agree(SHARED, len(name))[:, 0].tolist()
    unique = tuple(host.gather(name, counts).tolist())
    with device:
        return nccl.NcclCommunicator(host.size, unique, host.rank), int(nccl.NCCL_INT8)
