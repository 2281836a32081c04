"""Many problems in one call, one thread: python -m peers.batches, in `asv_benchmarks`.

Rows that are in the results already are printed and not run again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.batches import clouds

import epsot
from peers.answers import Pair, worst_violation
from peers.batch_solvers import BATCH_SOLVERS, Answers, Problems
from peers.run import HERE, append, read_rows, write_machine
from peers.worker import ENOUGH, REPEATS, limit_threads, timed

KEY = ("n", "blur", "debiased", "solver", "setting", "items")
MEASURED = (
    "status",  # done; beyond (at the rate of fewer items it would take longer than the limit); failed; nan
    "per_cpu_second",  # problems, with both gradients
    "per_second",
    "marginal_error",  # of the worst item
    "marginal_median",
    "value_error",  # relative, of the worst item
    "value_median",
    "gradient_error",  # of all gradients of the batch together, relative to their norm
    "reference_error",  # the references' own worst marginal error
    "others",  # cores that other processes kept busy during the run
    "date",
    "note",
)
SHOWN = dict(
    zip(
        MEASURED[1:-2],
        ("/ CPU s", "/ s", "marginal", "median", "value", "median", "gradient", "reference", "others"),
        strict=True,
    )
)
MOST = 1024  # items that are drawn, so that the first of them are the same problems in every run

Row = dict[str, Any]


def problems_of(n: int, blur: float, debiased: bool, count: int) -> Problems:
    x, y = (cloud[:count] for cloud in clouds(MOST, n))
    return Problems(x, y, blur, debiased)


@cache
def reference(n: int, blur: float, debiased: bool, count: int) -> Answers:
    """epsot in float64 to a marginal error of 1e-9, or as near as it comes."""
    problems = problems_of(n, blur, debiased, count)
    x, y = (cloud.astype(np.float64) for cloud in (problems.x, problems.y))
    loss = epsot.sinkhorn_divergence if debiased else epsot.sinkhorn
    with warnings.catch_warnings(action="ignore", category=epsot.ConvergenceWarning):  # the error is kept and shown
        result: Any = loss(x, y, blur=blur, tol=1e-9, max_iter=10_000)
    parts = (result.xy, result.xx, result.yy) if debiased else (result,)
    return Answers(result.value, (result.grad_x, result.grad_y), tuple((part.f, part.g) for part in parts))


def marginal_errors(problems: Problems, potentials: tuple[Pair, ...]) -> np.ndarray:
    """Of each item, measured in float64 from its potentials."""
    items = [tuple((f[k], g[k]) for f, g in potentials) for k in range(len(problems.x))]
    clouds_of_items = zip(problems.x, problems.y, items, strict=True)
    return np.array([worst_violation(x, y, pairs, problems.blur**2) for x, y, pairs in clouds_of_items])


def run(name: str, setting: float, problems: Problems) -> tuple[float, float, float, Answers]:
    """CPU seconds, seconds and busy other cores of the run of least CPU time, and the answers."""
    solver = BATCH_SOLVERS[name]
    call, read = solver.prepare(problems, setting, **solver.options)
    best, total = (math.inf, math.inf, 0.0, None), 0.0
    for _ in range(REPEATS):
        start = time.process_time()
        seconds, others, raw = timed(call)
        best = min(best, (time.process_time() - start, seconds, others, raw), key=lambda run: run[0])
        total += seconds
        if total > ENOUGH:
            break
    return *best[:3], read(best[3])


def row_of(problems: Problems, cpu: float, seconds: float, others: float, answers: Answers) -> Row:
    """One row of results, without its key."""
    count, n = problems.x.shape[:2]
    truth = reference(n, problems.blur, problems.debiased, count)
    marginal = marginal_errors(problems, answers.potentials)
    value = np.abs(answers.value - truth.value) / np.abs(truth.value)
    ours, theirs = (np.stack(some) for some in (truth.gradients, answers.gradients))
    row = {
        "per_cpu_second": count / cpu,
        "per_second": count / seconds,
        "marginal_error": float(marginal.max()),
        "marginal_median": float(np.median(marginal)),
        "value_error": float(value.max()),
        "value_median": float(np.median(value)),
        "gradient_error": float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours)),
        "reference_error": float(marginal_errors(problems, truth.potentials).max()),
        "others": others,
    }
    return {"status": "done" if all(map(math.isfinite, row.values())) else "nan"} | row


class Processes:
    """One for each library, so that none shares its threads and its memory with another."""

    def __init__(self) -> None:
        self.pools: dict[Any, ProcessPoolExecutor] = {}

    def measure(self, name: str, setting: float, problems: Problems) -> Row:
        library = BATCH_SOLVERS[name].prepare
        if library not in self.pools:  # threads and JAX do not survive a fork
            self.pools[library] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            return row_of(problems, *self.pools[library].submit(run, name, setting, problems).result())
        except Exception as error:
            if isinstance(error, BrokenProcessPool):
                del self.pools[library]
            return {"status": "failed", "note": f"{type(error).__name__}: {error}"[:200]}

    def stop(self) -> None:
        for pool in self.pools.values():
            pool.shutdown()


def line(row: Row) -> str:
    numbers = " ".join(f"{float(shown):9.3g}" if (shown := row.get(name, "")) != "" else f"{'':9}" for name in SHOWN)
    loss = "S" if row["debiased"] == "1" else "OT"
    name = f"{row['solver']} {BATCH_SOLVERS[row['solver']].parameter}={row['setting']}"
    return f"{row['n']:>4} {row['blur']:>5} {loss:>2} {name:38} {row['items']:>5} {row['status']:6} {numbers}"


def key(n: int, blur: float, debiased: bool, name: str, setting: float, count: int) -> tuple[str, ...]:
    """As it is read back from the file."""
    return tuple(str(part) for part in (n, f"{blur:.4g}", int(debiased), name, f"{setting:.4g}", count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--blurs", nargs="+", type=float, default=[0.2, 0.05])
    parser.add_argument("--losses", nargs="+", default=["S", "OT"], choices=["S", "OT"], help="debiased or not")
    parser.add_argument("--solvers", nargs="+", default=list(BATCH_SOLVERS), help="names, or the beginnings of names")
    parser.add_argument("--items", nargs="+", type=int, default=[16, 256], help=f"problems in one call, at most {MOST}")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that a larger batch may be expected to take")
    parser.add_argument("--out", type=Path, default=HERE / "batches.csv")
    options = parser.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore", category=RuntimeWarning)  # overflow in what a peer returned is part of the result
    write_machine(options.out.with_suffix(".machine.json"), threads=1)
    rows = {tuple(row[name] for name in KEY): row for row in read_rows(options.out)}
    processes = Processes()
    names = [name for name in BATCH_SOLVERS if name.startswith(tuple(options.solvers))]
    labels = " ".join(f"{label:>9}" for label in SHOWN.values())
    print(f"{'n':>4} {'blur':>5} {'':2} {'':38} {'items':>5} {'':6} {labels}", flush=True)
    for n, blur, loss, name in itertools.product(options.sizes, options.blurs, options.losses, names):
        for setting in BATCH_SOLVERS[name].settings:
            rate = math.inf  # problems a second of the batches so far
            for count in sorted(options.items):
                problem = n, blur, loss == "S"
                row_key = key(*problem, name, setting, count)
                if row_key not in rows:
                    if count / rate > options.limit:
                        row: Row = {"status": "beyond"}
                    else:
                        row = processes.measure(name, setting, problems_of(*problem, count))
                    row |= dict(zip(KEY, row_key, strict=True)) | {"date": date.today().isoformat()}
                    append(options.out, row, KEY + MEASURED)
                    rows[row_key] = row
                print(line(rows[row_key]), rows[row_key].get("note", ""), flush=True)
                rate = float(rows[row_key].get("per_second") or rate)
    processes.stop()


if __name__ == "__main__":
    main()
