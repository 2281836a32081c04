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


def problem(n):
    rng = np.random.default_rng(0)
    return rng.random((n, 3)), rng.random((n, 3)) * 0.8 + 0.3, rng.normal(size=3 * n)


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
    params = (SIZES, BLURS)
    param_names = ("n", "blur")
    timeout = 600

    def setup(self, n, blur):
        warnings.simplefilter("error")
        self.x, self.y, self.v = problem(n)
        self.blur, self.result = blur, None
        self.result = self.solve()
        self.exact = self.product(1e-12)

    def solve(self):
        return epsot.sinkhorn_divergence(self.x, self.y, blur=self.blur, tol=1e-3)

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


if __name__ == "__main__":
    main()
