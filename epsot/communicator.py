"""The processes that share one solve: *ranks*, each with its block of the rows, and all that they say to one another.

Every rank has all points and all vectors, and decides alike; the pairs are shared out, by ranges of the blocks of rows
that kernels work on. A block does not depend on who computes it, so that the bits are those of one process.

What ranks say to one another is three operations: `meet` (a few numbers of each, to all), `gather` (the rows of all,
one after the other) and `exchange` (a part from each to each). Whatever they do together begins with a meeting, which
carries how each of them is: one that has failed, anywhere, goes to the next meeting and says so, and all end with its
error. Ranks that come to a meeting for different things, or with different bits, end with an error, too: none waits.
"""

from __future__ import annotations

import json
import pickle
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Words = NDArray[np.int64]
Found = TypeVar("Found")

FINE, FAILED = 0, 1  # how a rank is
BYTES, COUNTS, SHARED, ROWS, ANY, END = range(6)  # what it has come for
NUMBERS = 3  # of a rank at a meeting
SAMPLED = 256  # numbers of a vector that are compared: where steps round otherwise, nearly all differ
SHOWN = 80  # letters of an option in a message


def cuts(count: int, size: int) -> list[int]:
    """Where `count` things are cut for so many ranks."""
    return [count * rank // size for rank in range(size + 1)]


def sizes_of(edges: Sequence[int]) -> list[int]:
    """What is between two cuts, of all."""
    return [end - begin for begin, end in pairwise(edges)]


def checksum(vector: Array) -> int:
    """Of the bits of a sample of the numbers."""
    step = max(1, len(vector) // SAMPLED)
    return zlib.crc32(np.ascontiguousarray(vector[::step]).tobytes())


class Share(NamedTuple):
    """Which of the rows that all ranks have together are those of one."""

    comm: Communicator
    counts: tuple[int, ...]  # of all ranks, in their order

    @property
    def here(self) -> slice | None:
        """The rows of this rank; None: all there are, of a process alone."""
        return self.comm.part(self.counts)

    def own(self, values: Any) -> Any:
        """The rows of this rank, of all."""
        here = self.here
        return values if here is None else values[here]

    @property
    def total(self) -> int:
        return sum(self.counts)

    def joined(self, block: Array) -> Array:
        """The rows of all ranks, of theirs.  (n_r, ...) -> (n, ...)"""
        return self.comm.joined(block, self.counts)


class Communicator(ABC):
    """The ranks of a solve.

    Attributes
    ----------
    rank, size : int
        Which of them this is, and how many there are.
    """

    rank: int
    size: int
    depth: int = 0  # of the parts of the work that it is in

    @abstractmethod
    def meet(self, words: Words) -> Words:
        """A few numbers of each rank.  (k,) -> (size, k)"""

    @abstractmethod
    def gather(self, mine: Array, counts: Sequence[int]) -> Array:
        """The rows of all ranks, of which each knows how many there are.  (n_r, ...) -> (n, ...)"""

    @abstractmethod
    def exchange(self, mine: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        """Numbers to every rank, one part after the other, and those from every rank.  (sum,) -> (sum,)"""

    def __reduce__(self) -> tuple[Any, ...]:
        return _alone, ()  # whatever is copied or sent away belongs to nobody's ranks

    # What is made of them

    def agree(self, purpose: int, *numbers: int) -> Words:
        """A meeting of ranks that have all come for the same, with three numbers each.  -> (size, 3)"""
        words = np.array([FINE, purpose, *numbers, *(0 for _ in range(NUMBERS - len(numbers)))], np.int64)
        found = self.meet(words)
        if (found[:, 0] == FAILED).any():
            raise self._news(found, None)
        if (found[:, 1] != purpose).any():
            raise as_shared(
                RuntimeError(
                    "the ranks of `comm` have gone apart: what is asked of a result, or by a callback, has to be asked "
                    "by all of them, in one order"
                )
            )
        return found[:, 2:]

    def report(self, error: BaseException) -> BaseException:
        """Say at the next meeting that this rank has failed; the error with which all end."""
        try:
            text = pickle.dumps(error)
            pickle.loads(text)
        except Exception:
            text = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        return self._news(self.meet(np.array([FAILED, BYTES, len(text), 0, 0], np.int64)), text)

    def _news(self, found: Words, text: bytes | None) -> BaseException:
        """The error of the first rank that has failed."""
        failed = found[:, 0] == FAILED
        counts = np.where(failed, found[:, 2], 0).tolist()
        texts = self.gather(np.array(bytearray(text or b""), np.uint8), counts).tobytes()
        first = int(np.flatnonzero(failed)[0])
        error: BaseException = pickle.loads(texts[: counts[first]])
        if first != self.rank:
            error.add_note(f"raised on rank {first} of {self.size}")
        return as_shared(error)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A part of the work that all ranks end together, by the same error if one of them has failed."""
        self.depth += 1
        known: BaseException | None = None
        try:
            yield
            self.agree(END)
        except BaseException as error:
            known = as_shared(error) if is_shared(error) else self.report(error)
            if type(known) is type(error) and str(known) == str(error):
                known = as_shared(error)
                raise
            raise known from error
        finally:
            self.depth -= 1
            if known is not None and self.depth == 0:  # the same object may be raised once more
                del vars(known)["_of_all_ranks"]

    def share(self, count: int) -> Share:
        """That of a rank which brings so many rows."""
        return Share(self, tuple(self.agree(COUNTS, count)[:, 0].tolist()))

    def even(self, count: int) -> Share:
        """Rows that all have, shared out evenly."""
        edges = cuts(count, self.size)
        return Share(self, tuple(sizes_of(edges)))

    def part(self, counts: Sequence[int]) -> slice | None:
        """The rows of this rank among those of all."""
        begin = sum(counts[: self.rank])
        return slice(begin, begin + counts[self.rank])

    def joined(self, block: Array, counts: Sequence[int]) -> Array:
        """The blocks of all, one after the other."""
        self.agree(SHARED)
        return self.gather(np.ascontiguousarray(block), counts)

    def span(self, count: int) -> tuple[int, int]:
        """The range of this rank, of so many blocks."""
        edges = cuts(count, self.size)
        return edges[self.rank], edges[self.rank + 1]

    def check_equal(self, **options: Any) -> None:
        """Raise where options differ between ranks."""
        text = json.dumps({name: repr(value) for name, value in options.items()}).encode()
        found = self.agree(SHARED, len(text), zlib.crc32(text))
        if (found == found[0]).all():
            return
        counts, texts = found[:, 0].tolist(), self.gather(np.frombuffer(text, np.uint8), found[:, 0].tolist()).tobytes()
        edges = np.cumsum([0, *counts]).tolist()
        known = [json.loads(texts[a:b]) for a, b in pairwise(edges)]
        for name, value in known[0].items():
            for rank, other in enumerate(known):
                if other.get(name) != value:
                    here, there = value[:SHOWN], str(other.get(name))[:SHOWN]
                    raise as_shared(
                        ValueError(
                            f"`{name}` must be the same on all ranks of `comm`, got {here} on rank 0 and {there} on "
                            f"rank {rank}"
                        )
                    )
        raise as_shared(ValueError("the ranks of `comm` must call the same function"))

    def check_bits(self, name: str, arrays: Callable[[], list[Array]]) -> None:
        """Raise where arrays differ between ranks."""
        self.check_equal(**{name: zlib.crc32(b"".join(z.tobytes() for z in arrays()))})

    def any(self, flag: bool) -> bool:
        """Whether it holds on a rank."""
        return bool(self.agree(ANY, int(flag))[:, 0].any())

    def totals(self, vector: Array, one: int = 0, other: int = 0) -> tuple[int, int]:
        """The sums of two numbers of each, if they have come with the same bits of a vector."""
        found = self.agree(ROWS, one, other, checksum(vector))
        if (found[:, 2] != found[0, 2]).any():
            raise as_shared(
                RuntimeError(
                    "the ranks of `comm` have computed different bits: their processors or their libraries differ; run "
                    "on nodes of one kind"
                )
            )
        return int(found[:, 0].sum()), int(found[:, 1].sum())

    def gather_rows(self, out: Array, rows: Callable[[int, int], Any], count: int) -> None:
        """out[rows(begin, end)] from each rank, of its range of so many blocks, to all."""
        edges = cuts(count, self.size)
        parts = [rows(begin, end) for begin, end in pairwise(edges)]
        counts = [len(part) for part in parts]
        if sum(counts):
            whole = self.gather(np.ascontiguousarray(out[parts[self.rank]]), counts)
            out[np.concatenate(parts)] = whole

    def ordered_sum(self, partial: Array, count: int) -> Array:
        """The sum of `count` lines, of which each rank has its range, in their order.  (mine, m) -> (1, m)"""
        edges, m = cuts(partial.shape[1], self.size), partial.shape[1]
        widths, lines = sizes_of(edges), sizes_of(cuts(count, self.size))
        mine = np.concatenate([partial[:, a:b].reshape(-1) for a, b in pairwise(edges)])
        width = widths[self.rank]
        found = self.exchange(mine, [len(partial) * w for w in widths], [line * width for line in lines])
        found = found.reshape(count, width)
        total = found[0].copy()
        for line in found[1:]:  # one after the other, as one process adds them
            total += line
        return self.gather(total, widths).reshape(1, m)

    def first(self, write: Callable[[], object]) -> None:
        """What one rank does for all."""
        with self.together():
            if self.rank == 0:
                write()

    def workers(self, workers: Any) -> Any:
        """The threads of each rank, which know it."""
        return Workers(-1 if workers is None else workers, self)

    def whole(self) -> Communicator:
        """These ranks, where each brings all of what they have."""
        return Whole(self)

    def prepare(self, compute: Callable[[], object]) -> None:
        """What all compute while they are together, so that each may ask for it alone."""
        compute()

    def observing(self, callback: Callable[[Any], object] | None) -> Callable[[Any], object] | None:
        """The callback of this rank; all stop where it stops one. None: no rank has any."""
        if not self.any(callback is not None):
            return None

        def call(record: Any) -> None:
            stopped = False
            try:
                if callback is not None:
                    callback(record)
            except StopIteration:
                stopped = True
            if self.any(stopped):
                raise StopIteration

        return call


def as_shared(error: BaseException) -> BaseException:
    """An error that all ranks know of."""
    vars(error)["_of_all_ranks"] = True
    return error


def is_shared(error: BaseException) -> bool:
    return "_of_all_ranks" in vars(error)


class Alone(Communicator):
    """One process: there is nothing to say, and nothing to wait for."""

    rank, size = 0, 1

    def meet(self, words: Words) -> Words:
        return words[None]

    def gather(self, mine: Array, counts: Sequence[int]) -> Array:
        return mine

    def exchange(self, mine: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        return mine

    @contextmanager
    def together(self) -> Iterator[None]:
        yield

    def share(self, count: int) -> Share:
        return Share(self, (count,))

    def part(self, counts: Sequence[int]) -> slice | None:
        return None

    def joined(self, block: Array, counts: Sequence[int]) -> Array:
        return block

    def span(self, count: int) -> tuple[int, int]:
        return 0, count

    def check_equal(self, **options: Any) -> None: ...

    def check_bits(self, name: str, arrays: Callable[[], list[Array]]) -> None: ...

    def any(self, flag: bool) -> bool:
        return flag

    def totals(self, vector: Array, one: int = 0, other: int = 0) -> tuple[int, int]:
        return one, other

    def gather_rows(self, out: Array, rows: Callable[[int, int], Any], count: int) -> None: ...

    def ordered_sum(self, partial: Array, count: int) -> Array:
        return partial

    def workers(self, workers: Any) -> Any:
        return workers

    def whole(self) -> Communicator:
        return self

    def prepare(self, compute: Callable[[], object]) -> None: ...

    def observing(self, callback: Callable[[Any], object] | None) -> Callable[[Any], object] | None:
        return callback


ALONE = Alone()


def _alone() -> Alone:
    return ALONE


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


class Whole(Communicator):
    """Ranks that each bring all of what they have, the same on all, and are given all of it."""

    def __init__(self, comm: Communicator) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size

    def meet(self, words: Words) -> Words:
        return self.comm.meet(words)

    def gather(self, mine: Array, counts: Sequence[int]) -> Array:
        return self.comm.gather(mine, counts)

    def exchange(self, mine: Array, sent: Sequence[int], received: Sequence[int]) -> Array:
        return self.comm.exchange(mine, sent, received)

    def share(self, count: int) -> Share:
        return Share(self, (count,))

    def even(self, count: int) -> Share:
        return Share(self, (count,))

    def part(self, counts: Sequence[int]) -> slice | None:
        return None

    def joined(self, block: Array, counts: Sequence[int]) -> Array:
        return block


class Workers(int):
    """Threads of this process, -1 for all usable cores, and the ranks beside it."""

    comm: Communicator

    def __new__(cls, threads: Any, comm: Communicator) -> Workers:
        new = super().__new__(cls, threads)
        new.comm = comm
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


def ranks_of(workers: Any) -> Communicator:
    """The ranks that go with some workers."""
    found: Communicator = getattr(workers, "comm", ALONE)
    return found


def as_communicator(comm: Any) -> Communicator:
    """What the user has given: None, a communicator of mpi4py, or one of these."""
    if comm is None:
        return ALONE
    if not isinstance(comm, Communicator):
        if not all(hasattr(comm, name) for name in ("Get_rank", "Get_size", "Allgather", "Allgatherv", "Alltoallv")):
            raise TypeError(f"`comm` must be a communicator of mpi4py, as `MPI.COMM_WORLD`, got {type(comm).__name__}")
        if comm.Is_inter():
            raise TypeError("`comm` must be an intracommunicator, whose ranks are one group")
        comm = Mpi(comm)
    return comm if comm.size > 1 else ALONE
