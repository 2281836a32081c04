"""``python -m epsot demo``: the annealing sweep between two shapes, as figures and a table.

Two densities on a lattice of pixels, the biased loss and the unbiased divergence at a sequence of blurs, with their
potentials and displacements: the example with which GeomLoss explains annealing. `sweep` computes and `draw` draws, so
that a benchmark can time the first alone.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import epsot
from epsot.drawings import POINTS, DemoError, Measures, densities, on_grids, read_density
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult

LEVELS = np.linspace(-1, 1, 21)  # of the potentials, in squared units of the frame
FRAME = (0.0, 1.0, 0.0, 1.0)
ARROWS = 80  # a panel: more hide the points that they start from


@dataclass(frozen=True)
class Sweep:
    """The blurs ``scaling**i`` for first <= i < count, each solved by one pass down the schedule, or to a tolerance."""

    name: str
    scaling: float
    count: int
    unbiased: bool
    first: int = 0
    tol: float | None = None

    @property
    def blurs(self) -> list[float]:
        return [self.scaling**i for i in range(self.first, self.count)]

    @property
    def title(self) -> str:
        """What is solved, for a person: "Divergence S, unbiased: the blur halves from panel to panel"."""
        loss = "Divergence S, unbiased" if self.unbiased else "Transport OT, biased"
        step = "halves" if self.scaling == 0.5 else f"shrinks to {self.scaling:g} of itself"
        return f"{loss}: the blur {step} from panel to panel"


SWEEPS = (
    Sweep("biased", 0.5, 9, unbiased=False),
    Sweep("unbiased", 0.5, 9, unbiased=True),
    Sweep("unbiased-slow", 0.7, 18, unbiased=True),
)
CONVERGED = Sweep("converged", 0.5, 9, unbiased=True, first=8, tol=1e-3)  # what iterating on gives, in one row


@dataclass(frozen=True)
class Row:
    """One solve: a line of the table."""

    sweep: str
    scaling: float
    blur: float  # in units of the frame
    value: float  # in squared units of the frame
    marginal_error: float  # relative to the larger mass, of the plan or of the weights
    iterations: int
    seconds: float  # of the solve, and of the value, potentials, displacement and marginal error


@dataclass(frozen=True)
class Solved:
    """One solve, and what the table says of it."""

    row: Row
    result: SinkhornResult | DivergenceResult


def sweep(kind: Sweep, measures: Measures, workers: int | None = None) -> list[Solved]:
    """Solve one sweep: values, potentials, displacements and marginal errors, all evaluated.

    Parameters
    ----------
    kind : Sweep
        Which blurs, biased or not.
    measures : Measures
        The two weighted clouds, of diameter one.
    workers : int, optional
        Threads, as in `epsot.sinkhorn`.

    Returns
    -------
    list of Solved
        From the largest blur to the smallest.
    """
    return list(solves(kind, measures, workers))


def solves(kind: Sweep, measures: Measures, workers: int | None = None) -> Iterator[Solved]:
    """The solves of a `sweep`, each as it is done."""
    x, y, a, b = measures
    transport: Any = epsot.sinkhorn_divergence if kind.unbiased else epsot.sinkhorn
    for blur in kind.blurs:
        start = time.perf_counter()
        result = transport(x, y, a, b, blur=blur, diameter=1.0, scaling=kind.scaling, tol=kind.tol, workers=workers)
        value, error = float(result.value), float(result.marginal_error)
        _ = result.f, result.g, result.displacement
        seconds = time.perf_counter() - start
        yield Solved(Row(kind.name, kind.scaling, blur, value, error, result.nit, seconds), result)


def warm_up(measures: Measures, workers: int | None = None) -> float:
    """Compile, or load from the cache, what the sweeps will use; the seconds it took.

    Few points would be solved by other kernels, so that these are the measures themselves: a solve of each kind.
    """
    start = time.perf_counter()
    with compilations_announced():
        for kind in (*SWEEPS[:2], CONVERGED):
            sweep(replace(kind, first=kind.count - 1), measures, workers)
    return time.perf_counter() - start


@contextmanager
def compilations_announced() -> Iterator[None]:
    """Say before the first kernel that it is being compiled, which is what takes so long, and name each."""
    kernels = logging.getLogger("epsot.kernels")
    level, told = kernels.level, _Announcing()
    kernels.addHandler(told)
    kernels.setLevel(logging.INFO)
    try:
        yield
    finally:
        kernels.removeHandler(told)
        kernels.setLevel(level)


class _Announcing(logging.Handler):
    """A line for each kernel, after one that says what is going on."""

    first = True

    def emit(self, record: logging.LogRecord) -> None:
        if self.first:
            print("compiling kernels, once per machine; this takes some seconds to a minute", flush=True)
        self.first = False
        print(f"  {record.getMessage()}", flush=True)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """The table as CSV, numbers in full precision."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


HEAD = f"{'sweep':<14} {'blur':>8} {'value':>10} {'marginal error':>15} {'iterations':>11} {'seconds':>9}"


def line(row: Row) -> str:
    """A row of the table for people."""
    return (
        f"{row.sweep:<14} {row.blur:>8.4f} {row.value:>10.6f} {row.marginal_error:>15.2e} "
        f"{row.iterations:>11d} {row.seconds:>9.4f}"
    )


def explained(once: Row, converged: Row) -> str:
    """Why the marginal errors of the sweeps are as they are, beside the same blur with a tolerance."""
    return (
        "The sweeps go down each schedule once and stop, as the classical algorithm does (`tol=None`): their marginal\n"
        f"errors are what that leaves. At blur {once.blur:.4f} it is {once.marginal_error:.2g} after {once.iterations} "
        f"iterations; with `tol={CONVERGED.tol:g}`, the last row,\n"
        "the solve goes on at the last temperature and ends at "
        f"{converged.marginal_error:.2g} after {converged.iterations}."
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--points", type=_count, default=POINTS, metavar="N", help="about how many pixels a density has (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("epsot-demo"), metavar="DIR", help="folder to write to (%(default)s)"
    )
    parser.add_argument("--source", type=Path, metavar="PNG", help="a picture of your own to start from; dark is mass")
    parser.add_argument("--target", type=Path, metavar="PNG", help="a picture of your own to go to; dark is mass")
    parser.add_argument(
        "--grid", action="store_true", help="take the pixels for a lattice, which is faster than points"
    )
    parser.add_argument("--workers", type=_count, metavar="K", help="threads to use (all usable cores)")


def run(arguments: argparse.Namespace) -> None:
    """Solve, print, draw and write.

    Raises
    ------
    DemoError
        If Matplotlib is missing, a picture cannot be read, or the folder cannot be written.
    """
    try:
        import epsot.plot  # noqa: F401  before any work, so that a missing Matplotlib does not cost the sweeps
    except ImportError as error:
        raise DemoError(str(error)) from None
    measures = on_grids(_measures(arguments)) if arguments.grid else _measures(arguments)
    folder: Path = arguments.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _run(measures, folder, arguments.workers)
    except OSError as error:
        raise DemoError(f"cannot write to {folder}: {error}; choose another folder with --out") from None


def command(arguments: argparse.Namespace) -> int:
    """Run the parsed command; the exit status: 1 with one line on stderr for what the caller can mend."""
    try:
        run(arguments)
    except DemoError as error:
        print(f"python -m epsot demo: {error}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command on its own, from its arguments."""
    parser = argparse.ArgumentParser(prog="python -m epsot demo", description=__doc__)
    add_arguments(parser)
    return command(parser.parse_args(argv))


def _run(measures: Measures, folder: Path, workers: int | None) -> None:
    n, m = (int(np.count_nonzero(weights)) for weights in (measures.a, measures.b))
    print(f"{measures.a.size} and {measures.b.size} points, {n} and {m} of them with mass", flush=True)
    ready = warm_up(measures, workers)
    print(f"kernels ready in {ready:.2f} s\n\n{HEAD}", flush=True)
    done: dict[Sweep, list[Solved]] = {}
    for kind in (*SWEEPS, CONVERGED):
        done[kind] = []
        for one in solves(kind, measures, workers):
            print(line(one.row), flush=True)
            done[kind].append(one)
    rows = [one.row for solved in done.values() for one in solved]
    print(f"\n{explained(same_as(rows[-1], rows), rows[-1])}\n")
    print(f"{len(rows)} solves in {sum(row.seconds for row in rows):.2f} s; drawing", flush=True)
    files = [folder / f"{kind.name}.png" for kind in SWEEPS]
    for kind, file in zip(SWEEPS, files, strict=True):
        draw([one.result for one in done[kind]], file, kind.title)
    write_table(folder / "table.csv", rows)
    print("written:", *files, folder / "table.csv", sep="\n  ")


def same_as(last: Row, rows: Sequence[Row]) -> Row:
    """The row of a sweep that is nearest in blur to the converged one, unbiased where there is one."""
    return min(rows[:-1], key=lambda row: (abs(math.log(row.blur / last.blur)), not row.sweep.startswith("unbiased")))


def draw(results: Sequence[SinkhornResult | DivergenceResult], path: Path, title: str) -> None:
    """One figure, three panels a row; each says its blur, and after how many iterations."""
    import matplotlib.pyplot as plt

    from epsot import plot

    titles = [f"blur = {result.instance.geometry.blur(result.eps):.3g}, iteration {result.nit}" for result in results]
    figure = plot.sweep(results, levels=LEVELS, extent=FRAME, titles=titles, arrows=ARROWS)
    figure.suptitle(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _measures(arguments: argparse.Namespace) -> Measures:
    """The shapes drawn by formula, or one or two pictures in their place."""
    x, a, b = densities(arguments.points)
    y = x
    if arguments.source is not None:
        x, a = read_density(arguments.source, arguments.points)
    if arguments.target is not None:
        y, b = read_density(arguments.target, arguments.points)
    return Measures(x, y, a, b)


def _count(text: str) -> int:
    """A positive integer, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number
