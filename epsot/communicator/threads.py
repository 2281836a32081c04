"""Threads of one process as ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from epsot.communicator.meetings import Array, Words
from epsot.communicator.protocol import Communicator

Found = TypeVar("Found")


class Threads(Communicator):
    """Threads of one process as ranks: for tests, and to try what ranks do.

    ``Threads.run(size, function)`` calls ``function(comm)`` on each and returns what they return.
    """

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.size, self.barrier, self.slots = rank, size, barrier, slots

    def _all(self, mine: Any) -> list[Any]:
        """What each rank brings."""
        self.slots[self.rank] = mine
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found

    def meet(self, words: Words) -> Words:
        return np.stack(self._all(words))

    def gather(self, mine: Array, counts: Sequence[int]) -> Array:
        return np.concatenate(self._all(mine.copy()))

    def exchange(self, mine: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        found = self._all((mine.copy(), np.cumsum([0, *sent])))
        return np.concatenate([part[edges[self.rank] : edges[self.rank + 1]] for part, edges in found])

    @classmethod
    def run(cls, size: int, function: Callable[[Threads], Found], timeout: float = 120.0) -> list[Found]:
        """What function(comm) returns on each of so many ranks; the error of the first that raises one of its own."""
        barrier, slots = threading.Barrier(size, timeout=timeout), [None] * size
        found: list[Any] = [None] * size
        errors: list[BaseException | None] = [None] * size

        def work(rank: int) -> None:
            try:
                found[rank] = function(cls(rank, size, barrier, slots))
            except BaseException as error:
                errors[rank] = error
                barrier.abort()

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raised = [error for error in errors if error is not None]
        own = [error for error in raised if not isinstance(error, threading.BrokenBarrierError)]
        if raised:
            raise (own or raised)[0]
        return found
