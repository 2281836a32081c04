"""Draw and tabulate the results: python -m peers.plot, in `asv_benchmarks`."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from peers.run import HERE, read_rows
from peers.solvers import SOLVERS

Row = dict[str, str]

# one hue a library, one shade and marker a variant
STYLES = {
    "epsot": ("#c1272d", "o"),
    "epsot tol=None": ("#ee8a7d", "o"),
    "GeomLoss tensorized": ("#9ecae1", "s"),
    "GeomLoss online": ("#4292c6", "D"),
    "GeomLoss multiscale": ("#08306b", "^"),
    "OTT": ("#1b7837", "v"),
    "OTT scheduler": ("#7fbf7b", "v"),
    "POT sinkhorn": ("#e08214", "p"),
    "POT sinkhorn float64": ("#a6611a", "h"),
    "POT sinkhorn_log": ("#dfc27d", "X"),
}
LABELS = {
    "marginal_error": "marginal error",
    "value_error": "relative error of the value",
    "gradient_error": "relative error of the gradient",
}
PARAMETERS = ("family", "n", "d", "blur", "debiased")


def matching(rows: Iterable[Row], **wanted: str) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def distinct(rows: Iterable[Row], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def panel(axes: Axes, rows: list[Row], error: str) -> None:
    """One problem, a curve a solver."""
    for name, (colour, marker) in STYLES.items():
        own = matching(rows, solver=name)
        done = [(float(row["seconds"]), float(row[error])) for row in matching(own, status="done")]
        if not done:
            continue
        front = 5 if name == "epsot" else 2
        axes.loglog(*zip(*done, strict=True), color=colour, lw=1.2, zorder=front, **dots(marker))
        for row in matching(own, status="limit"):  # the next setting did not finish: dotted as far as it ran
            seconds, height = done[-1]
            axes.plot([seconds, float(row["limit"])], [height] * 2, color=colour, lw=0.9, ls=":", zorder=1)
    axes.grid(True, which="major", color="0.92", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.minorticks_off()


def dots(marker: str) -> dict[str, Any]:
    return {"marker": marker, "ms": 4.5, "mec": "white", "mew": 0.4}


def absent(rows: list[Row]) -> str:
    """The solvers without any point, and why."""
    reasons = {"limit": "over the limit", "failed": "failed", "nan": "not finite"}
    first = {name: matching(rows, solver=name)[:1] for name in STYLES if not matching(rows, solver=name, status="done")}
    if not rows:
        return "not run"
    return "\n".join(f"{name}: {reasons[row['status']]}" for name, own in first.items() for row in own)


def figure(rows: list[Row], error: str, path: Path, title: str) -> None:
    """A row of panels a family, a column a blur."""
    families, blurs = distinct(rows, "family"), distinct(rows, "blur")
    size = (max(4.2 * len(blurs), 6.0), 2.6 * len(families) + 1.0)
    picture, panels = plt.subplots(len(families), len(blurs), figsize=size, sharex=True, sharey=True, squeeze=False)
    for (row, family), (column, blur) in itertools.product(enumerate(families), enumerate(blurs)):
        axes, own = panels[row, column], matching(rows, family=family, blur=blur)
        panel(axes, own, error)
        axes.set_title(f"{family}, blur {blur}", fontsize=9, loc="left")
        axes.text(0.02, 0.03, absent(own), transform=axes.transAxes, fontsize=6.5, color="0.4", va="bottom")
    for axes in panels[-1]:
        axes.set_xlabel("seconds for value and gradient", fontsize=8)
    picture.supylabel(LABELS[error], fontsize=9)
    picture.suptitle(title, fontsize=10)
    shown = {name: style for name, style in STYLES.items() if matching(rows, solver=name)}
    handles = [Line2D([], [], color=colour, label=name, **dots(marker)) for name, (colour, marker) in shown.items()]
    picture.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
    picture.savefig(path, dpi=140)
    plt.close(picture)


def time_to(rows: list[Row], error: float) -> tuple[str, float]:
    """The least seconds in which any setting reached that marginal error; "> " before it where the limit came first."""
    done = [row for row in rows if row["status"] == "done" and float(row["marginal_error"]) <= error]
    if done:
        return "", min(float(row["seconds"]) for row in done)
    limits = [float(row["limit"]) for row in rows if row["status"] in ("limit", "beyond")]
    return ("> ", max(limits)) if limits else ("", math.nan)


def cell(rows: list[Row], base: list[Row], error: float) -> str:
    """Seconds, and in brackets how many times those of epsot; "never" where all settings ended above the error."""
    if not rows:
        return ""
    (bound, seconds), (_, ours) = time_to(rows, error), time_to(base, error)
    if math.isnan(seconds):
        return "never"
    ratio = f" ({bound}{seconds / ours:.2g}x)" if rows != base and not math.isnan(ours) else ""
    return f"{bound}{seconds:.2g}{ratio}"


def table(rows: list[Row], error: float) -> str:
    """A line a problem, a column a solver, as a list-table of reStructuredText."""
    names = [name for name in STYLES if matching(rows, solver=name)]
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - problem"] + [f"     - {name}" for name in names]
    for values in dict.fromkeys(tuple(row[name] for name in PARAMETERS) for row in rows):
        own = matching(rows, **dict(zip(PARAMETERS, values, strict=True)))
        family, n, d, blur, debiased = values
        lines.append(f"   * - {family}, n = {n}, d = {d}, blur {blur}, {'S' if debiased == '1' else 'OT'}")
        base = matching(own, solver="epsot")
        lines += [f"     - {cell(matching(own, solver=name), base, error)}".rstrip() for name in names]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.csv")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the figures go")
    parser.add_argument("--errors", nargs="+", default=["marginal_error", "gradient_error"], choices=list(LABELS))
    parser.add_argument("--reached", type=float, default=1e-2, help="the marginal error of the table")
    options = parser.parse_args()
    rows = [row for row in read_rows(options.results) if row["solver"] in SOLVERS]
    kinds = dict.fromkeys((row["n"], row["d"], row["debiased"]) for row in rows)
    for n, d, debiased in kinds:
        own = matching(rows, n=n, d=d, debiased=debiased)
        loss = "divergence" if debiased == "1" else "transport"
        for error in options.errors:
            path = options.folder / f"{error}_{loss}_n{n}_d{d}.png"
            figure(own, error, path, f"{loss}, n = {n} points a side, {d}-D, float32")
    print(table(rows, options.reached))


if __name__ == "__main__":
    plt.rcParams["figure.constrained_layout.use"] = True
    main()
