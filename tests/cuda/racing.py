"""Some kernels with a barrier less, to be run under the thread sanitizer: python -m tests.cuda.racing WHAT OLD NEW"""

from __future__ import annotations

import sys

import numpy as np

from epsot.costs import HalfSquare
from epsot.kernels.cuda import modules
from tests.cuda import bridge, fake_cupy
from tests.cuda.sanitized import few_threads, only, use_bursts, use_lattices

GROUPS = {
    "rows": ("float, square, d = 2", "order"),
    "bursts": ("float, bursts, square, d = 2", "vectors", "order"),
    "lattices": ("float, lattices", "double, lattices", "lengths, lattices"),
}


def main(what: str, old: str, new: str) -> None:
    few_threads()
    only(*GROUPS[what])
    code = modules.source()
    assert old in code
    modules.source = lambda: code.replace(old, new)  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 2)).astype(np.float32)
    with fake_cupy.installed():
        kernel = bridge.points(x, y, HalfSquare())
        if what == "rows":
            kernel.softmin(rng.normal(size=200), 0.1)
        elif what == "bursts":
            use_bursts(kernel, 200, 200, 3, rng)
        else:
            use_lattices(65, 65, rng)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
