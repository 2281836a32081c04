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

from benchmarks.problems import Task, clouds

from peers.solvers import SOLVERS

THREADS = 2
COMPILE_LIMIT = 300.0  # seconds for whatever a library does before its first run
REPEATS, ENOUGH = 5, 1.0  # the best of five, or of as many as begin within a second


def limit_threads(count: int = THREADS) -> None:
    """By the cores that the process may use, which XLA goes by, and by what the others read when they are imported."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(count)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """What all cores and what one process have worked so far, where Linux tells; else zeros."""
    everything, process = Path("/proc/stat"), Path(f"/proc/{pid}/stat")
    if not process.exists():
        return 0.0, 0.0
    user, nice, system = (int(word) for word in everything.read_text().split()[1:4])
    own = process.read_text().rpartition(")")[2].split()[11:13]  # its user and system time, behind its name
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system) / ticks, sum(int(word) for word in own) / ticks


class Watch:
    """Seconds, and the cores that other processes kept busy, since it was made."""

    def __init__(self, pid: int) -> None:
        self.pid, self.start, self.cpu = pid, time.perf_counter(), cpu_seconds(pid)

    def read(self) -> tuple[float, float]:
        seconds = time.perf_counter() - self.start
        everything, own = (now - before for now, before in zip(cpu_seconds(self.pid), self.cpu, strict=True))
        return seconds, max(0.0, everything - own) / seconds


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, cores busy with other work, and what the call returned."""
    watch = Watch(os.getpid())
    answer = call()
    return *watch.read(), answer


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
        """("done", seconds, others, answer), ("limit", others) or ("failed", why); after a limit the worker is gone."""
        self.connection.send((task, solver, setting))
        message = self.receive(COMPILE_LIMIT)
        if message[0] == "ready":
            message = self.receive(limit + ENOUGH)
        if message[0] == "done" and message[1] > limit:
            return "limit", message[2]
        return message

    def receive(self, seconds: float) -> tuple[Any, ...]:
        """What the worker says within that time."""
        watch = Watch(self.process.pid or 0)
        try:
            if self.connection.poll(seconds):
                return self.connection.recv()
        except EOFError:
            return "failed", f"the process ended with exit code {self.stop()}"
        _, others = watch.read()
        self.stop()
        return "limit", others

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def stop(self) -> int | None:
        self.process.kill()
        self.process.join()
        return self.process.exitcode
