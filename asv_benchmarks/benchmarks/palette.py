"""Few points against many, a palette against pixels: an iteration, beside one of the transposed problem and of NumPy.

Run as a script it prints the table: python asv_benchmarks/benchmarks/palette.py
"""

import time
import warnings

import numpy as np

import epsot

MANY = 1_000_000
FEW = [2, 8, 32]
BLUR = 0.05
PROBLEMS = {  # the cost and the type of the points
    "d=1": (1, "float32", {}),
    "d=2": (2, "float32", {}),
    "d=3": (3, "float32", {}),
    "d=5": (5, "float32", {}),
    "d=3, p=1": (3, "float32", {"p": 1}),
    "d=3, float64": (3, "float64", {}),
    "matrix": (3, "float32", {}),
}
SIDES = ["few x many", "many x few"]


def points(n, d, dtype):
    """A palette and pixels, of which it is a part."""
    pixels = np.random.default_rng(0).random((MANY, d)).astype(dtype)
    return pixels[:n].copy(), pixels


def dense_cost(x, y, p=2):
    square = ((x[:, None] - y[None]) ** 2).sum(-1)
    return square / 2 if p == 2 else np.sqrt(square)


class Iteration:
    """A solve at one temperature, of which the seconds an iteration are taken."""

    def __init__(self, name, n, side):
        d, dtype, options = PROBLEMS[name]
        x, y = points(n, d, dtype)
        if side == SIDES[1]:
            x, y = y, x
        self.eps = BLUR ** options.get("p", 2)
        self.geometry = epsot.CostMatrix(dense_cost(x, y)) if name == "matrix" else epsot.PointCloud(x, y, **options)
        self.solve(2)  # compiles

    def solve(self, most=1000):
        """Held to a small error, so that the iterations are the work."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", epsot.ConvergenceWarning)
            return epsot.solve(self.geometry, eps=self.eps, tol=1e-5, max_iter=most)

    def seconds(self, repeats=3):
        best = np.inf
        for _ in range(repeats):
            start = time.perf_counter()
            result = self.solve(30)
            best = min(best, (time.perf_counter() - start) / result.nit)
        return best


def dense_seconds(name, n, repeats=3):
    """One iteration of both sides around the maxima, over a matrix that is there already."""
    d, dtype, options = PROBLEMS[name]
    eps = BLUR ** options.get("p", 2)
    C, best = dense_cost(*points(n, d, dtype), **options) / eps, np.inf
    g = np.zeros(MANY, C.dtype)
    for _ in range(repeats):
        start = time.perf_counter()
        M = g - C
        top = M.max(1, keepdims=True)
        f = -(top[:, 0] + np.log(np.exp(M - top).mean(1)))
        M = f[:, None] - C
        top = M.max(0)
        np.log(np.exp(M - top).mean(0))
        best = min(best, time.perf_counter() - start)
    return best


class Palette:
    params = (list(PROBLEMS), FEW, SIDES)
    param_names = ("problem", "n", "side")
    timeout = 600

    def setup(self, name, n, side):
        self.iteration = Iteration(name, n, side)

    def track_iteration(self, name, n, side):
        return self.iteration.seconds()

    track_iteration.unit = "s an iteration"


class Dense:
    params = (list(PROBLEMS), FEW)
    param_names = ("problem", "n")
    timeout = 600

    def track_iteration(self, name, n):
        return dense_seconds(name, n)

    track_iteration.unit = "s an iteration"


def main():
    print(f"{'':>14}{'n':>4}" + "".join(f"{side:>14}" for side in SIDES) + f"{'dense NumPy':>14}   ms an iteration")
    for name in PROBLEMS:
        for n in FEW:
            seconds = [*(Iteration(name, n, side).seconds() for side in SIDES), dense_seconds(name, n)]
            print(f"{name:>14}{n:>4}" + "".join(f"{1e3 * z:14.1f}" for z in seconds), flush=True)


if __name__ == "__main__":
    main()
