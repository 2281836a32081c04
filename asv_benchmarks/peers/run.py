"""Measure: python -m peers.run, in `asv_benchmarks`. Rows that are in the results already are not run again."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import platform
import time
import warnings
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.problems import FAMILIES, Task

from peers.answers import errors, reference
from peers.solvers import SOLVERS
from peers.worker import THREADS, Worker, limit_threads, timed

HERE = Path(__file__).parent
KEY = ("family", "n", "d", "blur", "debiased", "solver", "setting")
MEASURED = (
    "status",  # done; limit; beyond (a looser setting had hit the limit); failed; nan
    "limit",  # seconds
    "seconds",
    "marginal_error",
    "value_error",
    "gradient_error",
    "reference_error",  # the reference's own marginal error
    "others",  # cores that other processes kept busy during the run
    "date",
    "note",
)
LIBRARIES = ("epsot", "geomloss", "pykeops", "torch", "ott-jax", "jax", "POT", "numpy", "numba")

# Libraries whose threads wait for one another in a spin lose a factor of 30 to one busy neighbour on two cores.
DISTURBED, ATTEMPTS = 0.2, 3


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, Any], columns: tuple[str, ...] = KEY + MEASURED) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})


def key(task: Task, solver: str, setting: float) -> tuple[str, ...]:
    """As it is read back from the file."""
    parts = (task.family, task.n, task.d, f"{task.blur:.4g}", int(task.debiased), solver, f"{setting:.4g}")
    return tuple(str(part) for part in parts)


def processor() -> str:
    """The model as Linux names it, or what Python knows."""
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def write_machine(path: Path, threads: int = THREADS) -> None:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "from the source tree" if name == "epsot" else "not installed"
    facts = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }
    path.write_text(json.dumps(facts, indent=2) + "\n")


def wait_for_quiet(patience: float, step: float = 0.25) -> None:
    """Until other processes leave the cores alone, if they do within `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end and timed(lambda: time.sleep(step))[1] > DISTURBED:
        pass


def measure(worker: Worker, task: Task, solver: str, setting: float, limit: float, folder: Path) -> dict[str, Any]:
    """One row, without its key."""
    status, *rest = worker.run(task, solver, setting, limit)
    row: dict[str, Any] = {"status": status, "limit": limit, "date": date.today().isoformat()}
    if status == "failed":
        row["note"] = rest[0][:200]
    elif status == "limit":
        row["others"] = rest[0]
    else:
        seconds, others, answer = rest
        truth = reference(task, folder)
        row |= {
            "seconds": seconds,
            **errors(task, answer, truth),
            "reference_error": float(truth.error),
            "others": others,
        }
        if not all(math.isfinite(row[name]) for name in ("marginal_error", "value_error", "gradient_error")):
            row["status"] = "nan"
    return row


class Runs:
    """The rows so far, and a worker for each library that is in use."""

    def __init__(self, limit: float, patience: float, out: Path, folder: Path) -> None:
        self.limit, self.patience, self.out, self.folder = limit, patience, out, folder
        self.status = {tuple(row[name] for name in KEY): row["status"] for row in read_rows(out)}
        self.workers: dict[str, Worker] = {}

    def worker(self, adapter: str) -> Worker:
        if adapter not in self.workers or not self.workers[adapter].alive:
            self.workers[adapter] = Worker(adapter)
        return self.workers[adapter]

    def curve(self, task: Task, name: str) -> None:
        """All settings of one solver, loosest first: a tighter one takes at least as long as one that hit the limit."""
        solver, beyond = SOLVERS[name], False
        for setting in solver.settings_for(task):
            row_key = key(task, name, setting)
            if row_key not in self.status:
                if beyond:
                    row: dict[str, Any] = {"status": "beyond", "limit": self.limit, "date": date.today().isoformat()}
                else:
                    row = self.undisturbed(task, name, setting)
                append(self.out, dict(zip(KEY, row_key, strict=True)) | row)
                self.status[row_key] = row["status"]
                numbers = " ".join(f"{row.get(part, math.nan):9.2e}" for part in MEASURED[2:6] + ("others",))
                print(f"{task!s:36} {name:20} {solver.parameter}={setting:<6g} {row['status']:6} {numbers}", flush=True)
            beyond = beyond or self.status[row_key] in ("limit", "beyond")

    def undisturbed(self, task: Task, name: str, setting: float) -> dict[str, Any]:
        """The row of the first run that others left alone, or of the last attempt; without patience, of the first."""
        for _ in range(ATTEMPTS if self.patience else 1):
            wait_for_quiet(self.patience)
            row = measure(self.worker(SOLVERS[name].adapter), task, name, setting, self.limit, self.folder)
            if row.get("others", 0.0) < DISTURBED:
                break
        return row

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--dims", nargs="+", type=int, default=[3])
    parser.add_argument("--blurs", nargs="+", type=float, default=[0.05, 0.01])
    parser.add_argument("--losses", nargs="+", default=["S", "OT"], choices=["S", "OT"], help="debiased or not")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), help="names, or the beginnings of names")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one run")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for quiet cores before a run")
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--references", type=Path, default=HERE / "references", help="folder of converged solutions")
    options = parser.parse_args()
    limit_threads()
    warnings.simplefilter("ignore", category=RuntimeWarning)  # overflow in what a peer returned is part of the result
    solvers = [name for name in SOLVERS if name.startswith(tuple(options.solvers))]
    grid = itertools.product(options.sizes, options.dims, options.problems, options.blurs, options.losses)
    tasks = [Task(family, n, d, blur, loss == "S") for n, d, family, blur, loss in grid]
    write_machine(options.out.with_suffix(".machine.json"))
    runs = Runs(options.limit, options.patience, options.out, options.references)
    for task in tasks:  # problem by problem, so that what is compared is measured at about the same time
        for name in solvers:
            runs.curve(task, name)
    runs.stop()


if __name__ == "__main__":
    main()
