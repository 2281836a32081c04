"""The terms of the time of a half-step of several processes, and what they foretell of many nodes.

T = K N / (R w) + s N + 8 N (R - 1) / (R B) + L log2 R for N points, of which each has K partners that count: w pairs a
second of one process, s seconds a point for the vectors that every process goes over, B bytes a second and L seconds of
the network. All of it is measured here but for the network, and K and w of a larger problem.

Run as a script it prints the terms and the prediction: mpiexec -n 2 python -m mpi4py -m benchmarks.processes
Without mpiexec it measures one process alone.
"""

import math
import sys
import time

import numpy as np

import epsot
from epsot.communicator import ALONE, as_communicator

SIZE, BLUR = 100_000, 0.01
REPEATS = 7
ASSUMED = {"N": 1e8, "R": 64, "cores": 64, "K": 1e4, "B": 12.5e9, "L": 2e-6}  # 64 nodes of 64 cores
RATE = 1.5e9  # pairs a second of one core in float32, where no more is measured


def clouds(n):
    rng = np.random.default_rng(0)
    return rng.random((n, 3)).astype(np.float32), (rng.random((n, 3)) ** 1.5).astype(np.float32)


def least(function, comm=None):
    """The least of some times, of the process that takes longest."""
    times = []
    for _ in range(REPEATS):
        if comm is not None:
            comm.Barrier()
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times) if comm is None else max(comm.allgather(min(times)))


def half_step(n, workers, ranks):
    """A softmin around a guess, and its kernel."""
    x, y = clouds(n)
    kernel = epsot.PointCloud(x, y).kernel(ranks.workers(workers))
    h, eps = np.full(n, -math.log(n)), BLUR**2
    guess = kernel.softmin(h, eps)
    return lambda: kernel.softmin(h, eps, guess), kernel, h, eps


class Terms:
    """One process: the sweep of a half-step, and the vectors beside it."""

    def setup(self):
        self.sweep, self.kernel, self.h, self.eps = half_step(20_000, 1, ALONE)
        self.sweep()

    def time_half_step(self):
        self.sweep()

    def time_vectors(self):
        self.kernel.weights(self.h, self.eps)


def vectors(kernel, h, eps):
    """Seconds a point of what every process does: the weights, the rows put in order, a step of the acceleration."""
    from epsot.kernels.cpu.between import Vectors

    n, index, out = len(h), kernel.operands[2], np.empty((len(h), 1))
    weights, g = np.full(n, 1 / n), np.random.default_rng(1).random(n)
    memory = Vectors(1).directions(weights, np.log(weights), 1.0, math.inf, balanced=True)
    memory.advance(g, g + 1e-3, g + 1e-3, eps)
    parts = {
        "weights": lambda: kernel.weights(h, eps),
        "scatter": lambda: out.__setitem__(index, out[index]),
        "advance": lambda: memory.advance(g, g + 1e-3, g + 1e-3, eps),
    }
    return {name: least(part) / n for name, part in parts.items()}


def predicted(s, cores):
    """Seconds of the terms of a half-step of 64 nodes; `cores`: on which the vectors run."""
    a, B, L = ASSUMED, ASSUMED["B"], ASSUMED["L"]
    return {
        "pairs": a["K"] * a["N"] / (a["R"] * a["cores"] * RATE),
        "vectors": s * a["N"] / cores,
        "gather": 8 * a["N"] * (a["R"] - 1) / (a["R"] * B),
        "latency": 2 * L * math.log2(a["R"]),
    }


def main():
    try:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    except ImportError:
        comm = None
    ranks = as_communicator(comm)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else SIZE
    first = comm is None or comm.rank == 0
    shared, kernel, h, eps = half_step(n, 1, ranks)
    together = least(shared, comm)
    small = least(lambda: ranks.totals(h), comm)
    mine = np.empty(n // ranks.size)
    counts = [len(mine)] * ranks.size
    moved = least(lambda: ranks.gather(mine, counts), comm)
    if first:
        alone, threads = (least(half_step(n, workers, ALONE)[0]) for workers in (1, ranks.size))
        kept = kernel.share * n
        serial = vectors(half_step(n, 1, ALONE)[1], h, eps)
        print(f"measured at n = {n}, blur {BLUR}, float32, d = 3, ms a half-step, least of {REPEATS}")
        print(f"  one process of 1 thread {1e3 * alone:.1f}, of {ranks.size} threads {1e3 * threads:.1f}")
        print(f"  {ranks.size} processes of one thread {1e3 * together:.1f}: {together / threads:.2f} of that")
        print(f"  of it: a meeting {1e3 * small:.3f}, a gathering of {8 * n / 1e6:.1f} MB {1e3 * moved:.3f}")
        print(f"  pairs kept a row {kept:.0f}; {kept * n / alone:.2e} pairs a second on one thread")
        print("  vectors, ns a point: " + ", ".join(f"{name} {1e9 * z:.1f}" for name, z in serial.items()))
        print(
            "assumed: " + ", ".join(f"{name} = {z:g}" for name, z in ASSUMED.items()) + f", {RATE:.1e} pairs/s a core"
        )
        for cores in (1, 8):
            terms = predicted(sum(serial.values()), cores)
            listed = ", ".join(f"{name} {z:.3f}" for name, z in terms.items())
            print(f"foretold, s a half-step, vectors on {cores} cores: {listed}; together {sum(terms.values()):.2f}")
    if comm is not None:
        ended = comm.Ibarrier()
        while not ended.Test():  # a process that waits in MPI would take a core from those that are measured
            time.sleep(0.01)


if __name__ == "__main__":
    main()
