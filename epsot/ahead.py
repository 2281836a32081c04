"""``python -m epsot compile``: the kernels that most need, compiled before anybody waits for them."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import epsot
from epsot.info import cache_folder, cupy_and_device

SMALL, LARGE, MANY_COORDINATES = 100, 4500, 1100  # points: solved in one call, from coarse to fine, step by step
MOST = 4  # processes: each takes half a gigabyte


def clouds(n: int, d: int, dtype: str, xp: Any = np) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.random((n, d)).astype(dtype), rng.random((n + 20, d)).astype(dtype)
    return xp.asarray(x), xp.asarray(y)


def use(result: Any, *, points: bool = True) -> None:
    """Ask for what people ask for."""
    flat = result.f.reshape(-1), result.g.reshape(-1)
    _ = result.value, result.plan @ flat[1], result.plan.T @ flat[0], result.gap
    if points:
        _ = result.displacement, result.grad_y


def small(dtype: str) -> None:
    """In one call of compiled code, alone and in batches."""
    x, y = clouds(SMALL, 2, dtype)
    a = np.ones(SMALL, dtype)
    a[0] = 0
    for options in ({"tol": 1e-3}, {"tol": None}):
        use(epsot.sinkhorn_divergence(x, y, blur=0.1, **options))
    use(epsot.sinkhorn(x, y, a / a.sum(), blur=0.1, p=1))
    many = epsot.sinkhorn_divergence(np.stack([x, x + 1]), y, np.stack([a, a]) / a.sum(), blur=0.1)
    _ = many.value, many.displacement, many.f


def large(d: int, dtype: str, p: int = 2, xp: Any = np, n: int = LARGE) -> None:
    """Step by step, on cells and on points."""
    x, y = clouds(n, d, dtype, xp)
    use(epsot.sinkhorn_divergence(x, y, blur=0.1, p=p))
    use(epsot.sinkhorn(x, y, blur=0.1, p=p, tol=None))


def images() -> None:
    """Over two grids, axis by axis, alone and as measures with a mean."""
    grid, shape = epsot.Grid((64, 48)), (2, 64, 48)
    both = np.random.default_rng(0).random(shape).astype(np.float32)
    both /= both.sum(axis=(1, 2), keepdims=True)
    for options in ({"tol": 1e-3}, {"tol": None}):
        use(epsot.sinkhorn_divergence(grid, grid, *both, blur=2.0, **options))
    use(epsot.solve(epsot.PointCloud(grid, grid, cost="cityblock"), *both, eps=2.0), points=False)
    _ = epsot.barycenter(grid, both, blur=2.0, tol=0.1).gap


def matrices(xp: Any = np) -> None:
    for n in (SMALL, MANY_COORDINATES):
        C = xp.asarray(np.random.default_rng(0).random((n, n + 20)))
        use(epsot.solve(epsot.CostMatrix(C), eps=0.05), points=False)


PROBLEMS: dict[str, Callable[[], None]] = {  # those that take longest first
    "small clouds and batches, float64": partial(small, "float64"),
    "small clouds and batches, float32": partial(small, "float32"),
    "images in 2-D, float32": images,
    "clouds in 2-D, float64": partial(large, 2, "float64"),
    "clouds in 3-D, float64": partial(large, 3, "float64"),
    "clouds in 3-D, float32": partial(large, 3, "float32"),
    "distances in 3-D, float64": partial(large, 3, "float64", 1),
    "clouds in 10-D, float64": partial(large, 10, "float64", n=MANY_COORDINATES),
    "clouds in 10-D, float32": partial(large, 10, "float32", n=MANY_COORDINATES),
    "cost matrices": matrices,
}


def cuda_problems(cupy: Any) -> dict[str, Callable[[], None]]:
    """Those of a device."""
    found: dict[str, Callable[[], None]] = {
        f"CUDA, clouds in {d}-D, {dtype}": partial(large, d, dtype, xp=cupy)
        for d in (2, 3, 10)
        for dtype in ("float64", "float32")
    }
    return {**found, "CUDA, cost matrices": partial(matrices, cupy)}


class Count(logging.Handler):
    """How many kernels were compiled."""

    number = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.number += 1


@contextmanager
def counted() -> Iterator[Count]:
    """What is compiled in the meantime."""
    logger, count = logging.getLogger("epsot.kernels"), Count()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(count)
    try:
        yield count
    finally:
        logger.removeHandler(count)
        logger.setLevel(level)


def prepare(name: str, problem: Callable[[], None]) -> tuple[str, int, float]:
    """Solve a problem: its name, how many kernels that has compiled, and the seconds it took."""
    start = time.perf_counter()
    with counted() as count:
        problem()
    return name, count.number, time.perf_counter() - start


def prepare_all(problems: dict[str, Callable[[], None]], processes: int) -> Iterator[tuple[str, int, float]]:
    """All of them, shared among processes, or one after the other in this one."""
    if processes == 1:
        yield from (prepare(name, problem) for name, problem in problems.items())
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(prepare, name, problem) for name, problem in problems.items()]):
            yield future.result()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--processes",
        type=int,
        choices=range(1, 65),
        metavar="K",
        help=f"how many at once (usable cores, up to {MOST})",
    )


def command(arguments: argparse.Namespace) -> int:
    """Compile, and say what was done; the exit status: 1 where nothing can be kept."""
    from epsot.kernels.cpu.threads import usable_workers

    folder = cache_folder()
    if folder is None:
        print("python -m epsot compile: no folder can be written; set NUMBA_CACHE_DIR to one", file=sys.stderr)
        return 1
    processes = arguments.processes or min(usable_workers(None), MOST)
    where = "one process" if processes == 1 else f"{processes} processes"
    print(f"compiling the usual kernels in {where}, once per machine, to be kept in {folder}", flush=True)
    start, total = time.perf_counter(), 0
    for found in prepare_all(PROBLEMS, processes):
        total += told(*found)
    cupy, device = cupy_and_device()
    for found in () if cupy is None else prepare_all(cuda_problems(cupy), 1):
        print(f"{found[0]:<36} on {device}, {found[2]:.1f} s", flush=True)
    print(f"compiled: {total}, in {time.perf_counter() - start:.0f} s" if total else "all were compiled already")
    return 0


def told(name: str, count: int, seconds: float) -> int:
    """Print a line; the number of kernels."""
    print(f"{name:<36} {count:>3} compiled, {seconds:.1f} s", flush=True)
    return count
