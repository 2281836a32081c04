"""The ranks that share a solve, as the rest of the package knows them: which part of it is that of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from epsot.communicator.meetings import COUNTS, SHARED, Array, Meetings, Words


def cuts(count: int, size: int) -> list[int]:
    """Where `count` things are cut for so many ranks."""
    return [count * rank // size for rank in range(size + 1)]


def sizes_of(edges: Sequence[int]) -> list[int]:
    """What is between two cuts, of all."""
    return [end - begin for begin, end in pairwise(edges)]


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


class Communicator(Meetings):
    """The ranks of a solve, each of which does a range of the blocks of rows."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _alone, ()  # whatever is copied or sent away belongs to nobody's ranks

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
        gather = self.sending(block, counts)
        self.agree(SHARED)
        return gather()

    def sending(self, mine: Array, counts: Sequence[int]) -> Callable[[], Array]:
        """A gathering that has all it needs: once the ranks have met, nothing can keep one of them from it."""
        mine = np.ascontiguousarray(mine)
        return lambda: self.gather(mine, counts)

    def rows(self, vector: Any, mine: Array, counts: Sequence[int]) -> Array:
        """The rows of all, of ranks that have come with the same bits of a vector.  (n_r, ...) -> (n, ...)"""
        gather = self.sending(mine, counts)
        self.totals(vector)
        return gather()

    def complete(self, vector: Any, out: Array, order: Array, edges: Sequence[int]) -> Array:
        """`out` with the rows of all, of which each has made order[begin:end] between two of the edges."""
        mine = out[order[edges[self.rank] : edges[self.rank + 1]]]
        out[order] = self.rows(vector, mine, sizes_of(edges))
        return out

    def span(self, count: int) -> tuple[int, int]:
        """The range of this rank, of so many blocks."""
        edges = cuts(count, self.size)
        return edges[self.rank], edges[self.rank + 1]

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

    def workers(self, workers: Any) -> Any:
        """The threads of each rank, which know it."""
        return Workers(-1 if workers is None else workers, self)

    def whole(self) -> Communicator:
        """These ranks, where each brings all of what they have."""
        return Whole(self)

    def over(self, make: Callable[[Communicator], Communicator]) -> Communicator:
        """These ranks by other means, which `make` finds for them."""
        return make(self)

    def prepare(self, compute: Callable[[], object]) -> None:
        """What all compute while they are together, so that each may ask for it alone."""
        compute()


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

    def rows(self, vector: Any, mine: Array, counts: Sequence[int]) -> Array:
        return mine

    def complete(self, vector: Any, out: Array, order: Array, edges: Sequence[int]) -> Array:
        return out

    def span(self, count: int) -> tuple[int, int]:
        return 0, count

    def check_equal(self, **options: Any) -> None: ...

    def check_bits(self, name: str, arrays: Callable[[], list[Array]]) -> None: ...

    def any(self, flag: bool) -> bool:
        return flag

    def totals(self, vector: Any, one: int = 0, other: int = 0) -> tuple[int, int]:
        return one, other

    def gather_rows(self, out: Array, rows: Callable[[int, int], Any], count: int) -> None: ...

    def ordered_sum(self, partial: Array, count: int) -> Array:
        return partial

    def workers(self, workers: Any) -> Any:
        return workers

    def whole(self) -> Communicator:
        return self

    def over(self, make: Callable[[Communicator], Communicator]) -> Communicator:
        return self

    def prepare(self, compute: Callable[[], object]) -> None: ...

    def observing(self, callback: Callable[[Any], object] | None) -> Callable[[Any], object] | None:
        return callback


ALONE = Alone()


def _alone() -> Alone:
    return ALONE


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

    def sending(self, mine: Array, counts: Sequence[int]) -> Callable[[], Array]:
        return self.comm.sending(mine, counts)

    @property
    def kept(self) -> dict[Any, Any]:
        return self.comm.kept

    def seen(self, vector: Array) -> Any:
        return self.comm.seen(vector)

    def checksum(self, vector: Any) -> int:
        return self.comm.checksum(vector)

    def over(self, make: Callable[[Communicator], Communicator]) -> Communicator:
        return Whole(self.comm.over(make))

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
