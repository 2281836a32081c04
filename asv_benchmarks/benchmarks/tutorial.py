"""The three annealing sweeps of ``python -m epsot demo``, 36 solves with everything drawn evaluated, without drawing.

`zeros` has weights of exactly zero outside the shapes, which the solver sets aside. `floor` puts 1e-8 of the largest
weight on every other pixel, as the GeomLoss example does, so that all pixels take part. `grid` has the same weights on
a Grid, as ``python -m epsot demo --grid``.

Run as a script it prints the seconds: python asv_benchmarks/benchmarks/tutorial.py [points ...]
"""

import itertools
import sys
import time

import numpy as np

from epsot.demo import SWEEPS, Measures, densities, on_grids, sweep


def measures(points, weights, dtype):
    x, a, b = densities(points)
    if weights == "grid":
        images = on_grids(Measures(x, x, a, b))
        return images._replace(a=images.a.astype(dtype), b=images.b.astype(dtype))
    x = x.astype(dtype)
    if weights == "floor":
        a, b = (np.where(w == 0, 1e-8 * w.max(), w) for w in (a, b))
    return Measures(x, x, a / a.sum(), b / b.sum())


class Tutorial:
    params = ([400, 10_000], ["zeros", "floor", "grid"], ["float32", "float64"])
    param_names = ("points", "weights", "dtype")
    timeout = 600
    warmup_time = 0.0

    def setup(self, points, weights, dtype):
        self.measures = measures(points, weights, dtype)
        sweep(SWEEPS[1], measures(100, weights, dtype))  # compiles

    def time_biased(self, points, weights, dtype):
        sweep(SWEEPS[0], self.measures)

    def time_unbiased(self, points, weights, dtype):
        sweep(SWEEPS[1], self.measures)

    def time_all_sweeps(self, points, weights, dtype):
        for kind in SWEEPS:
            sweep(kind, self.measures)

    def track_marginal_error(self, points, weights, dtype):
        """Of the last solve of the slow sweep: what a faster time must not be paid with."""
        return sweep(SWEEPS[2], self.measures)[-1].row.marginal_error

    track_marginal_error.unit = "L1, relative to the mass"


def main(sizes):
    for points, weights, dtype in itertools.product(sizes, *Tutorial.params[1:]):
        given = measures(points, weights, dtype)
        sweep(SWEEPS[1], measures(100, weights, dtype))  # compiles
        seconds, worked = [], time.process_time()
        for kind in SWEEPS:
            start = time.perf_counter()
            sweep(kind, given)
            seconds.append(time.perf_counter() - start)
        worked = time.process_time() - worked
        parts = ", ".join(f"{kind.name} {part:.3f}" for kind, part in zip(SWEEPS, seconds, strict=True))
        print(f"{points:>6} points, {weights}, {dtype}: {sum(seconds):.3f} s ({parts}), CPU {worked:.3f} s", flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or Tutorial.params[0])
