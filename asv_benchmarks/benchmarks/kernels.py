"""Pairs per second of the fused CPU kernels on one core, and the share of the machine's own floor.

The floor is what the instructions of a pair need if nothing ever waits. A pair of half the squared distance costs

    d multiply-adds (inner product), 1 subtraction (reference), 2 clamps, 1 rounding, 1 subtraction, 5 multiply-adds
    (polynomial; 11 in float64), 1 conversion, 1 shift, 1 integer addition, 1 addition (the sum): d + 14 (d + 20)

vector instructions for 8 pairs in float32 with AVX2, 4 in float64 (16 and 8 with AVX-512). A core of the last ten years
starts at most four vector instructions in a cycle with AVX2, two with AVX-512, and two of them may be multiply-adds.
The cycles of a second are measured by a chain of dependent multiply-adds, each of which takes four.

Run as a script it prints the table: python asv_benchmarks/benchmarks/kernels.py
"""

import itertools
import time

import llvmlite.binding
import numba
import numpy as np

from epsot.costs import HalfSquare
from epsot.kernels import cpu

DTYPES = {"float32": np.float32, "float64": np.float64}
DIMENSIONS = [1, 2, 3, 10, 64, 500]
STORED = ["softmin", "softmin_pair"]
OPERATIONS = ["softmin", "softmin_pair", "softmin_self", "apply", "cost_gradient"]
EPS = 1.0  # so high that every pair counts: none may be left out


def problem(dtype, d, n):
    """Points of unit variance in all, and log-densities of a plan near convergence."""
    rng = np.random.default_rng(0)
    x, y = ((rng.normal(size=(n, d)) / np.sqrt(d)).astype(DTYPES[dtype]) for _ in range(2))
    kernel = cpu.Points(x, y, HalfSquare(), workers=1)
    log_weights = np.full(n, -np.log(n))
    f = kernel.softmin(log_weights, EPS)
    g = kernel.T.softmin(log_weights + f / EPS, EPS)
    return kernel, log_weights + f / EPS, log_weights + g / EPS, f


def call(operation, kernel, k, h, f):
    """One sweep over all pairs."""
    if operation == "softmin":
        return kernel.softmin(h, EPS, f)
    if operation == "softmin_pair":
        return kernel.softmin_pair(k, h, EPS)
    if operation == "softmin_self":
        return kernel.source().softmin_self(k, EPS)
    if operation == "apply":
        return kernel.apply(k, h, EPS, h[:, None])
    return kernel.cost_gradient(k, h, EPS)


def best_time(function, repeats=5):
    function()  # compiles
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def size(d):
    """Points a side: 0.1 s a sweep or less."""
    return 8192 if d <= 10 else 3072 if d <= 64 else 1024


def pairs_per_second(operation, dtype, d):
    n = size(d)
    kernel, k, h, f = problem(dtype, d, n)
    return n * n / best_time(lambda: call(operation, kernel, k, h, f))


@numba.njit(fastmath={"contract"})
def chain(value, factor, count):
    """Each step waits for the one before."""
    for _ in range(count):
        value = value * factor + factor
    return value


def clock():
    """Cycles per second, under the load of the moment."""
    count = 1_000_000
    return 4 * count / best_time(lambda: chain(1.0, 0.5, count))


def floor(dtype, d):
    """Pairs per second of a core that never waits."""
    wide = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
    lanes = (64 if wide else 32) // np.dtype(dtype).itemsize
    products = d + (5 if dtype == "float32" else 11)
    cycles = max((products + 9) / (2 if wide else 4), products / 2)  # per vector of pairs
    return clock() * lanes / cycles


class Pairs:
    params = (OPERATIONS, list(DTYPES), DIMENSIONS)
    param_names = ("operation", "dtype", "d")
    timeout = 300

    def track_pairs_per_second(self, operation, dtype, d):
        return pairs_per_second(operation, dtype, d)

    track_pairs_per_second.unit = "pairs/s on one core"


class Floor:
    params = (list(DTYPES), DIMENSIONS)
    param_names = ("dtype", "d")
    timeout = 300

    def track_share_of_the_floor(self, dtype, d):
        return pairs_per_second("softmin", dtype, d) / floor(dtype, d)

    track_share_of_the_floor.unit = "softmin, 1 is the floor"


class Stored:
    """A cost matrix in one of two orders: float32 entries are computed with in float64, and take half the memory."""

    params = (STORED, list(DTYPES), ["C", "F"], [300, 1000, 5000])
    param_names = ("operation", "dtype", "order", "n")

    def track_entries_per_second(self, operation, dtype, order, n):
        return entries_per_second(operation, dtype, order, n)

    track_entries_per_second.unit = "entries/s on one core"


def entries_per_second(operation, dtype, order, n):
    """Of one sweep over all of an (n, n) matrix."""
    rng = np.random.default_rng(0)
    kernel = cpu.Matrix(np.asarray(rng.random((n, n)), DTYPES[dtype], order=order), workers=1)
    h = rng.normal(size=n)
    f = kernel.softmin(h, 0.05)
    if operation == "softmin":
        return n * n / best_time(lambda: kernel.softmin(h, 0.05, f))
    return n * n / best_time(lambda: kernel.softmin_pair(f / 0.05, h, 0.05))


class Small:
    """What a call costs when there is nothing to compute."""

    params = ([16, 64, 256],)
    param_names = ("n",)

    def setup(self, n):
        self.arguments = problem("float64", 3, n)
        call("softmin", *self.arguments)

    def time_softmin(self, n):
        call("softmin", *self.arguments)


def main():
    for dtype in DTYPES:
        print(f"{dtype}, {clock():.2e} cycles a second, pairs a second:\n")
        print(f"{'d':>5}" + "".join(f"{name:>15}" for name in OPERATIONS) + f"{'floor':>12}{'share':>8}")
        for d in DIMENSIONS:
            rates = [pairs_per_second(operation, dtype, d) for operation in OPERATIONS]
            bound = floor(dtype, d)
            cells = "".join(f"{rate:15.2e}" for rate in rates)
            print(f"{d:>5}{cells}{bound:12.2e}{rates[0] / bound:8.2f}", flush=True)
        print()
    print(f"matrices, entries a second:\n\n{'n':>5}{'entries':>10}{'order':>6}" + "".join(map("{:>15}".format, STORED)))
    for n, dtype, order in itertools.product([300, 1000, 5000], DTYPES, "CF"):
        rates = [entries_per_second(operation, dtype, order, n) for operation in STORED]
        print(f"{n:>5}{dtype:>10}{order:>6}" + "".join(f"{rate:15.2e}" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
