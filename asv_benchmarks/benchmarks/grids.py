"""Passes over the pixels of a lattice on one core, and what one exponential for each pair of pixels would take.

The floor of exponentials: along each axis a line of N pixels has N^2 pairs, d n N in all, at 9e9 exponentials a second
in float32, which is what a core with AVX-512 makes of `kernels.py`. A pass by tilted blocks in windows goes below, and
is linear in the pixels: at 512^2 and 1024^2 and one blur in pixels the time for a pixel is the same.

Run as a script it prints the table: python -m benchmarks.grids
"""

import math
import time

import numpy as np

from epsot.arrays import common_place
from epsot.kernels.cpu.lattice import LatticeKernel
from epsot.kernels.lattice import Axis, Lattice

EXPONENTIALS = 9e9  # a second
CASES = {  # shape, blur in pixels
    "256^2, 1": ((256, 256), 1.0),
    "512^2, 1": ((512, 512), 1.0),
    "512^2, 2": ((512, 512), 2.0),
    "1024^2, 1": ((1024, 1024), 1.0),
    "1024^2, 2": ((1024, 1024), 2.0),
    "1024^2, 8": ((1024, 1024), 8.0),
    "64^3, 1": ((64, 64, 64), 1.0),
    "128^3, 2": ((128, 128, 128), 2.0),
    "10000, 2": ((10_000,), 2.0),
}
KINDS = {"squares": 2, "lengths": 1}  # power of a length that a temperature is
PLACE = common_place(x=np.zeros(1))


def density(shape, seed, spots=6):
    """Gaussian spots; what is below 2 % of the largest is zero, as most of an image."""
    rng = np.random.default_rng(seed)
    size = np.array(shape) / max(shape)
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / max(shape) for n in shape], indexing="ij")
    out = np.zeros(shape)
    for _ in range(spots):
        centre, width = (0.15 + 0.7 * rng.random(len(shape))) * size, rng.uniform(0.03, 0.1)
        squares = sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True))
        out += rng.uniform(0.3, 1) * np.exp(-squares / (2 * width**2))
    out[out < 0.02 * out.max()] = 0
    return out / out.sum()


def problem(shape, blur, dtype, kind="squares"):
    """A kernel and the log-densities near convergence, after annealing by halves.  -> kernel, k, h, eps"""
    with np.errstate(divide="ignore"):
        log_a, log_b = (np.log(density(shape, seed)).ravel() for seed in (1, 2))
    axes = tuple(Axis(n, n, 0.0, 0.0, 1.0, 1.0, None) for n in shape)
    kernel = LatticeKernel(axes, kind, 1 / KINDS[kind], PLACE, np.dtype(dtype).type, workers=1)
    scales, g = [math.hypot(*shape)], np.zeros(len(log_b))
    while scales[-1] > blur:
        scales.append(max(blur, scales[-1] / 2))
    for scale in [*scales, blur, blur, blur]:
        eps = scale ** KINDS[kind]
        f = kernel.softmin(log_b + g / eps, eps)
        g = kernel.T.softmin(log_a + f / eps, eps)
    return kernel, log_a + f / eps, log_b + g / eps, eps


def seconds(function, repeats=7):
    """The least CPU seconds of some runs, after one that compiles."""
    function()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


class TimePass:
    """One softmin near convergence, in the windows of the call before."""

    params = (list(CASES), ["float32", "float64"], list(KINDS))
    param_names = ("case", "dtype", "kind")

    def setup(self, case, dtype, kind):
        self.kernel, self.k, self.h, self.eps = problem(*CASES[case], dtype, kind)

    def time_softmin(self, case, dtype, kind):
        self.kernel.softmin(self.h, self.eps)


class TimeProducts:
    """Sums over the plan with values, and the means of differences."""

    params = (["1024^2, 2", "64^3, 1"], ["float32", "float64"])
    param_names = ("case", "dtype")

    def setup(self, case, dtype):
        self.kernel, self.k, self.h, self.eps = problem(*CASES[case], dtype)
        self.v = np.random.default_rng(0).normal(size=(len(self.h), 1))
        self.time_apply(case, dtype)
        self.time_cost_gradient(case, dtype)

    def time_apply(self, case, dtype):
        self.kernel.apply(self.k, self.h, self.eps, self.v)

    def time_cost_gradient(self, case, dtype):
        self.kernel.cost_gradient(self.k, self.h, self.eps)


class TrackError:
    """Of exponents, beside the portable passes in float64."""

    params = (["256^2, 1"], ["float32", "float64"], list(KINDS))
    param_names = ("case", "dtype", "kind")

    def track_error(self, case, dtype, kind):
        return error(*problem(*CASES[case], dtype, kind))


def error(kernel, k, h, eps):
    """The largest of any sum, relative to it."""
    reference = Lattice(kernel.axes, kernel.kind, kernel.factor, PLACE, np.float64)
    return float(np.abs(kernel.softmin(h, eps) - reference.softmin(h, eps)).max() / eps)


def main():
    print("CPU milliseconds of a pass near convergence, one core; `first` finds its windows first")
    names = ["floor", "float32", "first", "float64", "lengths", "apply", "gradient"]
    print(f"{'case':>10} " + " ".join(f"{name:>8}" for name in names))
    for case, (shape, blur) in CASES.items():
        floor = math.prod(shape) * sum(shape) / EXPONENTIALS
        kernel, k, h, eps = problem(shape, blur, "float32")
        again = seconds(lambda: kernel.softmin(h, eps))  # noqa: B023
        first = seconds(lambda: kernel.between(kernel.axes).softmin(h, eps), 3)  # noqa: B023
        v = np.random.default_rng(0).normal(size=(len(h), 1))
        apply = seconds(lambda: kernel.apply(k, h, eps, v), 3)  # noqa: B023
        gradient = seconds(lambda: kernel.cost_gradient(k, h, eps), 3)  # noqa: B023
        found = [floor, again, first]
        for dtype, kind in (("float64", "squares"), ("float32", "lengths")):
            kernel, k, h, eps = problem(shape, blur, dtype, kind)
            found.append(seconds(lambda: kernel.softmin(h, eps), 3))  # noqa: B023
        print(f"{case:>10} " + " ".join(f"{1e3 * z:8.1f}" for z in [*found, apply, gradient]), flush=True)


if __name__ == "__main__":
    main()
