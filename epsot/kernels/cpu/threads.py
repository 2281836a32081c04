"""The package's own threads: they run kernels that release the GIL, and nothing runs before it is needed.

Not Numba's: a parallel region there costs milliseconds on a busy machine, a forked child dies under GNU OpenMP, and the
workqueue layer aborts when two Python threads enter it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from operator import index

from epsot.communicator import ALONE, Workers, ranks_of

MOST_THREADS = 256

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def usable_workers(workers: int | None) -> int:
    """How many threads `workers` stands for, with the ranks that go with them: None and -1 are all usable cores."""
    comm = ranks_of(workers)
    return threads_of(workers) if comm is ALONE else Workers(threads_of(workers), comm)


def threads_of(workers: int | None) -> int:
    """The number of threads alone."""
    if workers is None or (not isinstance(workers, bool) and workers == -1):
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0)) or 1
        return os.cpu_count() or 1
    try:
        number = index(workers)
    except TypeError:
        number = 0
    if isinstance(workers, bool) or number < 1:
        raise ValueError(f"`workers` must be a positive integer, -1 or None (all usable cores), got {workers!r}")
    return min(number, MOST_THREADS)


def forget_pool() -> None:
    """A forked child has the pool's memory but not its threads."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_pool)


def pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="epsot")  # starts threads as they are needed
        return _pool


def run(task: Callable[[int], Iterable[object]], count: int, workers: int) -> None:
    """Go through task(0), ..., task(count - 1), each once, on `workers` threads, of which the caller is one.

    A task is a generator of short steps. Which thread runs which task is left open: results must not depend on it. The
    caller works along: a pool that is busy with the tasks of others delays nothing, and an interrupt reaches it
    between two steps. An exception in any step, or an interrupt, stops every thread after its step, and is raised.
    """
    if min(workers, count) <= 1:  # nothing to share: spare the small problems the bookkeeping
        for number in range(count):
            for _ in task(number):
                pass
        return
    numbers = itertools.count()
    stopped = threading.Event()

    def work() -> None:
        try:
            for number in itertools.takewhile(count.__gt__, numbers):  # next() on a count is atomic
                for _ in task(number):
                    if stopped.is_set():
                        return
        except BaseException:
            stopped.set()
            raise

    others: list[Future[None]] = []
    try:
        for _ in range(min(workers, count) - 1):
            others.append(pool().submit(work))
        work()
    except BaseException:
        stopped.set()
        raise
    finally:
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()
