"""What ranks say to one another: how they meet, and how all of them end with the error of one.

Three operations carry it: `meet` (a few numbers of each, to all), `gather` (the rows of all, one after the other) and
`exchange` (a part from each to each). Whatever ranks do together begins with a meeting, which carries how each of them
is: one that has failed, anywhere, goes to the next meeting and says so, and all end with its error. Ranks that come to
a meeting for different things, or with different bits, end with an error, too: none waits.
"""

from __future__ import annotations

import json
import pickle
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Words = NDArray[np.int64]

FINE, FAILED = 0, 1  # how a rank is
BYTES, COUNTS, SHARED, ROWS, ANY, END = range(6)  # what it has come for
DEVICE = "device"  # under this name a rank keeps its own
NUMBERS = 3  # of a rank at a meeting
SAMPLED = 256  # numbers of a vector that are compared: where steps round otherwise, nearly all differ
SHOWN = 80  # letters of an option in a message


def sample(vector: Any) -> Any:
    """Some of the numbers, evenly spaced."""
    return vector[:: max(1, len(vector) // SAMPLED)]


def checksum(vector: Array) -> int:
    """Of the bits of a sample of the numbers."""
    return zlib.crc32(np.ascontiguousarray(sample(vector)).tobytes())


class Meetings(ABC):
    """The ranks of a solve, as they meet.

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

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What is made once for these ranks."""
        return {}

    def check_fit(self) -> None:
        """Raise where the device of this rank is lost: others wait for what it was to send, and come to no meeting."""
        if DEVICE in self.kept:
            self.kept[DEVICE].synchronize()

    def report(self, error: BaseException) -> BaseException:
        """Say at the next meeting that this rank has failed; the error with which all end."""
        self.check_fit()
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

    def seen(self, vector: Array) -> Any:
        """What `totals` may be given in place of a vector, where work on it goes on until the ranks meet."""
        return vector

    def checksum(self, vector: Any) -> int:
        """Of the bits of a vector, or of what was `seen` of it."""
        return checksum(vector)

    def totals(self, vector: Any, one: int = 0, other: int = 0) -> tuple[int, int]:
        """The sums of two numbers of each, if they have come with the same bits of a vector."""
        found = self.agree(ROWS, one, other, self.checksum(vector))
        if (found[:, 2] != found[0, 2]).any():
            raise as_shared(
                RuntimeError(
                    "the ranks of `comm` have computed different bits: their processors or their libraries differ; run "
                    "on nodes of one kind"
                )
            )
        return int(found[:, 0].sum()), int(found[:, 1].sum())

    def first(self, write: Callable[[], object]) -> None:
        """What one rank does for all."""
        with self.together():
            if self.rank == 0:
                write()

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
