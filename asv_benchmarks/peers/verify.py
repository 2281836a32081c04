"""The references against another library: python -m peers.verify, in `asv_benchmarks`.

POT's plain iterations in float64, run to 1e-9 at 1000 points, give value and gradient from a dense plan.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from benchmarks.problems import FAMILIES, Task, clouds

from peers.answers import errors, reference
from peers.worker import limit_threads


def main() -> None:
    limit_threads()
    from peers import with_pot

    for family in FAMILIES:
        for debiased in (False, True):
            task = Task(family, 1000, 3, 0.05, debiased)
            x, y = (cloud.astype(np.float64) for cloud in clouds(task))
            call = with_pot.prepare(task, x, y, 1e-9, parameter="tolerance", method="sinkhorn", dtype="float64")
            with TemporaryDirectory() as folder:
                truth = reference(task, Path(folder))
            found = errors(task, with_pot.read(task, call()), truth)
            print(f"{task}: reference's own marginal error {truth.error:.1e}; POT against it:", end="")
            print(*(f" {name} {value:.1e}" for name, value in found.items()), sep=",")


if __name__ == "__main__":
    main()
