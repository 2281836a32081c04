"""The pool: fork, interrupts, exceptions, two callers."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from epsot.kernels.cpu import threads


def steps(record):
    """A task that notes its number in two steps."""

    def task(number):
        yield
        record.append(number)
        yield

    return task


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_every_task_once(workers, count):
    record = []
    threads.run(steps(record), count, workers)
    assert sorted(record) == list(range(count))


def test_usable_workers():
    assert threads.usable_workers(None) == threads.usable_workers(-1) >= 1
    assert threads.usable_workers(1) == 1
    assert threads.usable_workers(3) == 3


@pytest.mark.parametrize("workers", [0, -2, 1.0, "2", True])
def test_workers_that_mean_nothing(workers):
    with pytest.raises(ValueError, match="workers"):
        threads.usable_workers(workers)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_exception_cancels_and_propagates(workers):
    begun = []

    def task(number):
        begun.append(number)
        if number == 2:
            raise RuntimeError("task 2")
        time.sleep(0.001)
        yield

    with pytest.raises(RuntimeError, match="task 2"):
        threads.run(task, 10_000, workers)
    assert len(begun) < 10_000
    record = []
    threads.run(steps(record), 10, workers)
    assert sorted(record) == list(range(10))


def test_two_python_threads_at_once():
    records = [[], []]
    callers = [threading.Thread(target=threads.run, args=(steps(record), 500, 3)) for record in records]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [sorted(record) for record in records] == [list(range(500))] * 2


def test_a_task_may_run_tasks():
    record = []

    def outer(number):
        threads.run(steps(record), 4, 2)
        yield

    threads.run(outer, 6, 3)
    assert sorted(record) == sorted(list(range(4)) * 6)


SCRIPT = """
import os, signal, sys, threading, time
from epsot.kernels.cpu import threads
assert threading.active_count() == 1, "a thread was started at import"
record = []
def task(number):
    time.sleep(0.01); record.append(number); yield
threads.run(task, 4, 2)
"""


def run_script(body):
    done = subprocess.run([sys.executable, "-c", SCRIPT + body], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_the_child_has_its_own_pool():
    body = """
child = os.fork()
if child == 0:
    threads.run(task, 4, 2)
    os._exit(0 if len(record) == 8 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
threads.run(task, 4, 2)
print(len(record))
"""
    assert run_script(body).split() == ["8"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_ends_the_call_and_not_the_pool(workers):
    body = f"""
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    threads.run(task, 10**6, {workers})
except KeyboardInterrupt:
    before = len(record)
    time.sleep(0.1)
    assert len(record) == before, "tasks run on"
    threads.run(task, 4, {workers})
    print(len(record) - before)
"""
    assert run_script(body).split() == ["4"]
