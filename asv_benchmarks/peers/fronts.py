"""The tables of docs/accuracy.rst, from results.csv: python -m peers.fronts, in `asv_benchmarks`.

For each problem and each error, the least time in which epsot and in which any other solver got below it, whatever
setting that took. Rows where epsot is behind, or did not get there, are in the tables like all others.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from peers.plot import PARAMETERS, Row, matching
from peers.run import HERE, read_rows

DOCS = HERE.parent.parent / "docs"
BOUNDS = {"marginal_error": (1e-2, 1e-3), "value_error": (1e-2, 1e-3), "gradient_error": (1e-2, 1e-3, 1e-4)}
OURS = ("epsot", "epsot tol=None")
Front = tuple[float, str, str]  # seconds, solver, setting


def first_below(rows: list[Row], error: str, bound: float) -> Front | None:
    """The fastest run that ended below the bound."""
    found = [
        (float(row["seconds"]), row["solver"], row["setting"])
        for row in matching(rows, status="done")
        if float(row[error]) <= bound
    ]
    return min(found, default=None)


def line(rows: list[Row], error: str, bound: float) -> list[str]:
    """What epsot and the best of the others took, and how many times as long the latter."""
    ours = first_below([row for row in rows if row["solver"] in OURS], error, bound)
    theirs = first_below([row for row in rows if row["solver"] not in OURS], error, bound)
    ratio = "" if ours is None or theirs is None else f"{theirs[0] / ours[0]:.2g}"
    mine = ["not reached", ""] if ours is None else [seconds(ours), ours[2]]
    best = ["not reached", ""] if theirs is None else [seconds(theirs), f"{theirs[1]}, {theirs[2]}"]
    return [*mine, *best, ratio]


def seconds(front: Front) -> str:
    return f"{front[0]:.2g}" if front[0] < 10 else f"{front[0]:.0f}"


def problem(row: Row) -> str:
    return f"{row['family']}, n = {row['n']}, d = {row['d']}, blur {row['blur']}"


def table(rows: list[Row], error: str, bound: float) -> list[list[str]]:
    """A line a problem, from where epsot does worst to where it does best; what nobody reached is left out."""
    lines = []
    for key in dict.fromkeys(tuple(row[name] for name in PARAMETERS) for row in rows):
        own = matching(rows, **dict(zip(PARAMETERS, key, strict=True)))
        found = line(own, error, bound)
        if found[0] != "not reached" or found[2] != "not reached":
            lines.append([problem(own[0]), *found])
    return sorted(lines, key=worth)


def worth(cells: list[str]) -> float:
    if cells[1] == "not reached":
        return 0.0
    return float(cells[-1] or "inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results.csv")
    parser.add_argument("--out", type=Path, default=DOCS / "accuracy")
    arguments = parser.parse_args()
    rows = read_rows(arguments.results)
    arguments.out.mkdir(exist_ok=True)
    for error, bounds in BOUNDS.items():
        for bound in bounds:
            path = arguments.out / f"{error}_{bound:.0e}.csv"
            lines = table(rows, error, bound)
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(lines)
            behind = sum(worth(cells) < 1 for cells in lines)
            print(f"{path}: epsot behind on {behind}")


if __name__ == "__main__":
    main()
