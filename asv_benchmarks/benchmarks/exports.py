"""Exports of a plan: rows as numbers, the largest entries, random pairs.

Run as a script it prints CPU seconds: python asv_benchmarks/benchmarks/exports.py [POINTS]
"""

import sys
import time

import numpy as np

import epsot

PLANS = {"cold, 3-D": (3, 0.02), "warm, 8-D": (8, 0.2), "hot, 30-D": (30, 1.0)}  # blurs in the unit cube


def plan(n, d, blur):
    """Between two samples of the uniform distribution, float32."""
    rng = np.random.default_rng(0)
    x, y = (rng.random((n, d), dtype=np.float32) for _ in range(2))
    return epsot.sinkhorn(x, y, blur=blur).plan


class Exports:
    """Seconds and memory, by how many columns a row needs."""

    params = (list(PLANS), [4000])
    param_names = ("plan", "n")

    def setup(self, name, n):
        self.plan = plan(n, *PLANS[name])
        self.plan.rows(0)

    def time_rows(self, name, n):
        for rows in self.plan.row_blocks():
            self.plan.rows(rows)

    def time_to_sparse(self, name, n):
        self.plan.to_sparse()

    def time_sample(self, name, n):
        self.plan.sample(rng=0)

    def peakmem_to_sparse(self, name, n):
        self.plan.to_sparse(max_per_row=10)


def seconds(function):
    begin = time.process_time()
    result = function()
    return result, time.process_time() - begin


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"{n} points a side, CPU seconds")
    print(f"{'plan':<12}{'rows':>8}{'to_sparse':>11}{'sample':>8}  entries a row")
    for name, (d, blur) in PLANS.items():
        P = plan(n, d, blur)
        P.rows(0)
        _, rows = seconds(lambda P=P: [P.rows(block).shape for block in P.row_blocks()])
        sparse, export = seconds(P.to_sparse)
        _, draw = seconds(lambda P=P: P.sample(rng=0))
        print(f"{name:<12}{rows:>8.2f}{export:>11.2f}{draw:>8.2f}  {sparse.nnz / n:.0f}")


if __name__ == "__main__":
    main()
