"""A process of its own for each library, so that a run can be stopped at its time limit and nobody shares threads."""

from __future__ import annotations

import importlib
import multiprocessing
import operator
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peers.problems import Task, clouds
from peers.solvers import SOLVERS

THREADS = 2
COMPILE_LIMIT = 300.0  # seconds for whatever a library does before its first run
REPEATS, ENOUGH = 5, 1.0  # the best of five, or of as many as begin within a second


def limit_threads() -> None:
    """By the cores that the process may use, which XLA goes by, and by what the others read when they are imported."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(THREADS)


def busy_seconds() -> float:
    """What all cores have worked since the machine started, where Linux tells; else what this process has."""
    own = os.times()
    stat = Path("/proc/stat")
    if not stat.exists():
        return own.user + own.system
    user, nice, system = (int(word) for word in stat.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, the cores that other processes kept busy meanwhile, and what the call returned."""
    own, all_of_them, start = os.times(), busy_seconds(), time.perf_counter()
    answer = call()
    seconds = time.perf_counter() - start
    others = busy_seconds() - all_of_them - sum(os.times()[:2]) + sum(own[:2])
    return seconds, max(0.0, others / seconds), answer


def serve(connection: Connection, adapter: str) -> None:
    """Answer (task, solver, setting) with ("ready",), then ("done", seconds, others, answer) or ("failed", why)."""
    library: Any = importlib.import_module(f"peers.{adapter}")
    while True:
        try:
            task, name, setting = connection.recv()
        except EOFError:  # the parent has ended
            return
        solver = SOLVERS[name]
        try:
            call = library.prepare(task, *clouds(task), setting, parameter=solver.parameter, **solver.options)
            connection.send(("ready",))
            runs = [timed(call)]
            while len(runs) < REPEATS and sum(seconds for seconds, *_ in runs) < ENOUGH:
                runs.append(timed(call))
            seconds, others, raw = min(runs, key=operator.itemgetter(0))
            connection.send(("done", seconds, others, library.read(task, raw)))
        except Exception as error:
            connection.send(("failed", f"{type(error).__name__}: {error}"))


class Worker:
    """The parent's end."""

    def __init__(self, adapter: str) -> None:
        context = multiprocessing.get_context("spawn")  # threads and JAX do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, adapter), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, task: Task, solver: str, setting: float, limit: float) -> tuple[Any, ...]:
        """("done", seconds, others, answer), ("limit",) or ("failed", why); after a limit the worker is gone."""
        self.connection.send((task, solver, setting))
        for seconds in (COMPILE_LIMIT, limit + ENOUGH):
            try:
                message = self.connection.recv() if self.connection.poll(seconds) else ("limit",)
            except EOFError:
                message = ("failed", f"the process ended with exit code {self.stop()}")
            if message[0] != "ready":
                break
        if message[0] == "limit" or (message[0] == "done" and message[1] > limit):
            self.stop()
            return ("limit",)
        return message

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def stop(self) -> int | None:
        self.process.kill()
        self.process.join()
        return self.process.exitcode
