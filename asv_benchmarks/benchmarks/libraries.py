"""A divergence with its value, gradient and displacement, of arrays of other libraries on the CPU beside NumPy's.

PyTorch and JAX (without x64: float32) are optional. Run as a script it prints milliseconds, the best of some calls and
the ratio to NumPy: python asv_benchmarks/benchmarks/libraries.py [POINTS ...]
"""

import sys
import time
from importlib import import_module

import numpy as np

import epsot

MODULES = {"numpy": "numpy", "torch": "torch", "jax": "jax.numpy"}
SIZES = [64, 500, 3000]


def clouds(library, n):
    """Two samples of cubes in 3-D, float32."""
    asarray = import_module(MODULES[library]).asarray
    rng = np.random.default_rng(0)
    x, y = (rng.random((n, 3), dtype=np.float32) for _ in range(2))
    return asarray(x), asarray(y + np.float32(0.3))


def solve(x, y):
    result = epsot.sinkhorn_divergence(x, y, blur=0.1)
    return result.value, result.grad_x, result.displacement


class Libraries:
    """Seconds; what others take more than NumPy is the price of the door."""

    params = (list(MODULES), SIZES)
    param_names = ("library", "n")

    def setup(self, library, n):
        try:
            self.clouds = clouds(library, n)
        except ImportError:
            raise NotImplementedError(f"{library} is not installed") from None
        solve(*self.clouds)

    def time_divergence(self, library, n):
        solve(*self.clouds)


def main(sizes):
    for n in sizes:
        given = {}
        for library in MODULES:
            try:
                given[library] = clouds(library, n)
            except ImportError:
                continue
        best = dict.fromkeys(given, float("inf"))
        for _ in range(5 + 20_000 // n):  # in turns, so that a busy machine slows all of them
            for library, (x, y) in given.items():
                start = time.perf_counter()
                solve(x, y)
                best[library] = min(best[library], time.perf_counter() - start)
        line = ", ".join(f"{name} {1e3 * t:.2f} ms ({t / best['numpy']:.2f})" for name, t in best.items())
        print(f"{n} points: {line}", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or SIZES)
