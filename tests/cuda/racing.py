"""Some kernels with a barrier less, to be run under the thread sanitizer: python -m tests.cuda.racing OLD NEW"""

from __future__ import annotations

import sys

import numpy as np

from epsot.costs import HalfSquare
from epsot.kernels.cuda import modules
from tests.cuda import bridge, fake_cupy
from tests.cuda.sanitized import few_threads, use_bursts, use_lattices


def main(old: str, new: str) -> None:
    few_threads()
    code = modules.source()
    assert old in code
    modules.source = lambda: code.replace(old, new)  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 2)).astype(np.float32)
    with fake_cupy.installed():
        kernel = bridge.points(x, y, HalfSquare())
        kernel.softmin(rng.normal(size=200), 0.1)
        use_bursts(kernel, 200, 200, 3, rng)
        use_lattices(65, 65, rng)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
