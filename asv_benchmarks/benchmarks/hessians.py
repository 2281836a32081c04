"""Products with second derivatives beside the solve they follow: steps of conjugate gradients, and seconds of the CPU.

A debiased problem of two cubes, solved to a marginal error of 1e-3. The first product also makes what is kept for the
others: marginals, moments, the kernels in float32.

Run as a script it prints the table: python asv_benchmarks/benchmarks/hessians.py
"""

import time
import warnings

import numpy as np

import epsot

SIZES = [2000, 5000]
BLURS = [0.1, 0.05, 0.02]
TOLERANCES = [1e-3, 1e-6, 1e-10]
OTHERS = [(1, 3, 0.05), (2, 10, 0.3), (1, 10, 0.3), (2, 64, 0.5)]  # p, d and blur of what is summed pair by pair


def problem(n, d=3):
    rng = np.random.default_rng(0)
    return rng.random((n, d)), rng.random((n, d)) * 0.8 + 0.3, rng.normal(size=d * n)


def seconds(function, repeats=5):
    """The least of the CPU, of all threads."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def steps(result, tol):
    """Of conjugate gradients in the last product, for the transport and for the self term."""
    parts = result.xy.curvature, result.xx.self_curvature
    return tuple((part.rough if tol >= 1e-3 else part).steps for part in parts)


class Products:
    p, d = 2, 3
    params = (SIZES, BLURS)
    param_names = ("n", "blur")
    timeout = 600

    def setup(self, n, blur):
        warnings.simplefilter("error")
        self.x, self.y, self.v = problem(n, self.d)
        self.blur, self.result = blur, None
        self.result = self.solve()
        self.exact = self.product(1e-12)

    def solve(self):
        return epsot.sinkhorn_divergence(self.x, self.y, p=self.p, blur=self.blur, tol=1e-3)

    def product(self, tol):
        return self.result.hessian("x", tol=tol) @ self.v

    def error(self, tol):
        return np.abs(self.product(tol) - self.exact).max() / np.abs(self.exact).max()

    def track_steps_an_iteration(self, n, blur):
        self.product(1e-3)
        return steps(self.result, 1e-3)[0] / self.result.nit

    def track_fine_steps_an_iteration(self, n, blur):
        self.product(1e-6)
        return steps(self.result, 1e-6)[0] / self.result.nit

    def track_product_in_solves(self, n, blur):
        return seconds(lambda: self.product(1e-3)) / seconds(self.solve)

    def track_error(self, n, blur):
        return self.error(1e-3)

    track_error.unit = "of the largest entry"


class OtherProducts(Products):
    """Of other costs, and in more dimensions."""

    params = (SIZES, OTHERS)
    param_names = ("n", "p, d, blur")

    def setup(self, n, problem):
        self.p, self.d, blur = problem
        super().setup(n, blur)


def main():
    head = "".join(f"{f'CG to {tol:g}':>16}{'CPU s':>8}{'error':>9}" for tol in TOLERANCES)
    print(f"{'n':>5}{'blur':>6}{'iterations':>12}{'solve, CPU s':>14}" + head)
    for n in SIZES:
        for blur in BLURS:
            run = Products()
            run.setup(n, blur)
            line = f"{n:>5}{blur:>6}{run.result.nit:>12}{seconds(run.solve):>14.3f}"
            for tol in TOLERANCES:
                taken = seconds(lambda run=run, tol=tol: run.product(tol))
                cross, own = steps(run.result, tol)
                line += f"{f'{cross} / {own}':>16}{taken:>8.3f}{run.error(tol):>9.0e}"
            print(line, flush=True)
    print(f"\n{'n':>5}{'p':>3}{'d':>4}{'blur':>6}{'iterations':>12}{'solve':>14}{'product to 1e-3':>24}{'error':>7}")
    for n in SIZES:
        for p, d, blur in OTHERS:
            run = OtherProducts()
            run.setup(n, (p, d, blur))
            solve, product = seconds(run.solve), seconds(lambda run=run: run.product(1e-3))
            line = f"{n:>5}{p:>3}{d:>4}{blur:>6}{run.result.nit:>12}{solve:>14.3f}"
            print(line + f"{f'{product:.3f}, {product / solve:.2f} solves':>24}{run.error(1e-3):>7.0e}", flush=True)


if __name__ == "__main__":
    main()
