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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import epsot
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult

POINTS = 10_000
FLOOR = 1e-8  # of the largest weight, at pixels without mass of a grid
WARM_UP_POINTS = 100
LEVELS = np.linspace(-1, 1, 21)  # of the potentials, in squared units of the frame
FRAME = (0.0, 1.0, 0.0, 1.0)
ARROWS = 80  # a panel: more hide the points that they start from


class DemoError(Exception):
    """What the person at the terminal can mend; the message says how."""


class Measures(NamedTuple):
    """The two weighted clouds to match, or two images."""

    x: np.ndarray | epsot.Grid  # (n, 2)
    y: np.ndarray | epsot.Grid  # (m, 2)
    a: np.ndarray  # (n,), or of the shape of the grid
    b: np.ndarray  # (m,), likewise


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


def densities(points: int = POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pair of elongated densities over the pixels of the unit square.

    Parameters
    ----------
    points : int
        About how many pixels; the lattice has ``round(sqrt(points))`` along each side.

    Returns
    -------
    x : (n, 2) array
        Pixel centres, the same for both densities.
    a, b : (n,) arrays
        Weights of sum one, exactly zero outside the shapes: a thick bow, and a wave with a clasp below it.

    Examples
    --------
    >>> from epsot.demo import densities
    >>> x, a, b = densities(400)
    >>> x.shape, bool((a == 0).any())
    ((400, 2), True)
    """
    side = max(4, round(math.sqrt(points)))
    centres = (np.arange(side) + 0.5) / side
    x = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    t = np.linspace(0, 1, 200)
    angle = np.pi * (0.3 + 1.4 * t)
    bow = np.outer((1 - t) ** 2, [0.10, 0.52]) + np.outer(2 * t * (1 - t), [0.04, 0.02]) + np.outer(t**2, [0.62, 0.14])
    wave = np.stack([0.20 + 0.52 * t, 0.76 + 0.12 * t + 0.065 * np.sin(2.2 * np.pi * (t - 0.05))], axis=1)
    clasp = np.stack([0.80 + 0.10 * np.cos(angle), 0.40 + 0.13 * np.sin(angle)], axis=1)
    a = _stroke(x, bow, 0.03 + 0.055 * np.sin(np.pi * t), 1 / side)
    b = _stroke(x, wave, 0.045 - 0.03 * t, 1 / side) + _stroke(x, clasp, np.full(len(t), 0.03), 1 / side)
    return x, a / a.sum(), b / b.sum()


def read_density(path: str | Path, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A density from a picture in which dark is mass.

    Parameters
    ----------
    path : path
        A PNG file, or any other that Pillow reads. Transparent pixels are white.
    points : int
        About how many pixels to keep of a larger picture: one at the centre of each cell of a square lattice.

    Returns
    -------
    x : (n, 2) array
        Pixel centres; the longer side of the picture is one unit, and its last row is at the bottom.
    a : (n,) array
        Weights of sum one.

    Raises
    ------
    DemoError
        If the file cannot be read, or is blank.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DemoError(f"cannot read {path} as a picture: {error}") from None
    paper = Image.new("RGBA", picture.size, "white")
    grey = np.asarray(Image.alpha_composite(paper, picture).convert("RGB"), dtype=float).mean(axis=2)
    ink = 1 - grey[::-1] / 255  # row 0 of the picture is its top, y = 1
    height, width = ink.shape
    ratio = min(1.0, math.sqrt(points / (height * width)))
    rows, columns = max(1, round(ratio * height)), max(1, round(ratio * width))
    v, u = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    a = ink[np.ix_((v * height).astype(int), (u * width).astype(int))].ravel()
    if not a.sum() > 0:
        raise DemoError(f"{path} has no dark pixel; dark is mass, on a white ground")
    longer = max(height, width)
    x = np.stack(np.meshgrid(u * width / longer, v * height / longer), axis=-1).reshape(-1, 2)
    return x, a / a.sum()


def as_image(x: np.ndarray, a: np.ndarray) -> tuple[epsot.Grid, np.ndarray]:
    """Pixels in a lattice as a grid, of which axis 0 is that of the first coordinate, and their weights.

    All pixels take part, as in the GeomLoss example: those without mass get 1e-8 of the largest weight.
    """
    axes = [np.unique(x[:, k]) for k in range(2)]
    steps = [(line[-1] - line[0]) / (len(line) - 1) if len(line) > 1 else 1.0 for line in axes]
    grid = epsot.Grid([len(line) for line in axes], spacing=steps, origin=[line[0] for line in axes])
    image = np.where(a > 0, a, FLOOR * a.max()).reshape(grid.shape[::-1]).T
    return grid, image / image.sum()


def on_grids(measures: Measures) -> Measures:
    """The same densities as images."""
    (x, a), (y, b) = (as_image(np.asarray(z), w) for z, w in ((measures.x, measures.a), (measures.y, measures.b)))
    return Measures(x, y, a, b)


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


def warm_up(workers: int | None = None, *, grid: bool = False) -> float:
    """Compile, or load from the cache, what the sweeps will use; the seconds it took."""
    start = time.perf_counter()
    x, a, b = densities(WARM_UP_POINTS)
    few = Measures(x, x, a, b)
    with compilations_announced():
        for kind in (*SWEEPS[:2], CONVERGED):
            sweep(kind, on_grids(few) if grid else few, workers)
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
        f"iterations; with `tol={CONVERGED.tol:g}`, the last row,\nthe solve goes on at the last temperature and ends at "
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
    ready = warm_up(workers, grid=isinstance(measures.x, epsot.Grid))
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


def _stroke(x: np.ndarray, centres: np.ndarray, radii: np.ndarray, pixel: float) -> np.ndarray:
    """A brush stroke: 1 within its discs, 0 outside, a pixel in between.  (n, 2), (k, 2), (k,) -> (n,)"""
    depth = np.full(len(x), -np.inf)
    for centre, radius in zip(centres, radii, strict=True):
        depth = np.maximum(depth, radius - np.sqrt(np.sum((x - centre) ** 2, axis=1)))
    return np.clip(0.5 + depth / pixel, 0.0, 1.0)


def _count(text: str) -> int:
    """A positive integer, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number
