"""Truncated Newton-CG beside the solver's conjugate residuals, in passes: python asv_benchmarks/newton_cg.py

The Newton equation of the dual in g alone, S dg = b - c with S = diag(c) - P^T diag(1 / a) P, by conjugate gradients
with the diagonal of S as preconditioner, matrix-free, ended at a residual that follows the error (Dembo, Eisenstat and
Steihaug 1982); Armijo's rule along dg. A step of CG is two passes, as is an iteration of the solver.
"""

from __future__ import annotations

import warnings

import numpy as np
from benchmarks.convergence import HARD, passes, points

import epsot
from epsot.problems.problem import Problem

FORCING = 0.3  # the largest relative residual of CG; 0.03 needs more passes on most problems
MOST = 20_000


def solve(problem: Problem, g: np.ndarray, eps: float, tol: float) -> tuple[int, bool]:
    """Passes from g to the tolerance, and whether it was reached."""
    a, b, kernel = problem.a.weights, problem.b.weights, problem.kernel
    count = 2
    f = problem.next_f(g, eps)
    next_g = problem.next_g(f, eps)
    while count < MOST:
        columns = problem.b.sums(g, next_g, eps)
        error = float(np.sum(np.abs(columns - b)))
        if error <= tol:
            return count, True
        k, h = problem.a.log_weights + f / eps, problem.b.log_weights + g / eps
        diagonal = columns * np.maximum(problem.T.leaving(g, f, next_g, eps), 1e-14)
        count += 1

        def hessian(q: np.ndarray, k: np.ndarray = k, h: np.ndarray = h, columns: np.ndarray = columns) -> np.ndarray:
            forth = kernel.apply(k, h, eps, q[:, None])[:, 0] / a
            return columns * q - kernel.T.apply(h, k, eps, forth[:, None])[:, 0]

        step, inner = conjugate_gradients(hessian, b - columns, diagonal, max(FORCING * error, 0.3 * tol), 3 * b.size)
        count += 2 * inner
        dual, slope = a @ f + b @ g, eps * ((b - columns) @ step)
        length = min(1.0, 20 / float(np.max(np.abs(step - np.median(step)))))
        while True:
            trial = g + length * eps * step
            f = problem.next_f(trial, eps)
            count += 1
            if a @ f + b @ trial >= dual + 1e-4 * length * slope - 1e-15 or length < 1e-6:
                break
            length /= 4
        g = trial
        next_g = problem.next_g(f, eps)
        count += 1
    return count, False


def conjugate_gradients(hessian, rest, diagonal, goal, most):
    """The step, and how many products it took."""
    step, z, inner = np.zeros_like(rest), rest / diagonal, 0
    direction, old = z, rest @ z
    while inner < most:
        inner += 1
        product = hessian(direction)
        curvature = direction @ product
        if curvature <= 0:
            break
        step, rest = step + old / curvature * direction, rest - old / curvature * product
        if np.sum(np.abs(rest)) < goal:
            break
        z = rest / diagonal
        new = rest @ z
        direction, old = z + new / old * direction, new
    return step, inner


def main() -> None:
    warnings.simplefilter("ignore", epsot.ConvergenceWarning)
    problems = {
        f"{family} blur {blur}, n = 2000": (
            lambda family=family, blur=blur: points(family, 2000, blur, np.float64),
            blur,
        )
        for family in ("uniform", "mixtures", "shells")
        for blur in (0.05, 0.02)
    }
    for name, (data, blur) in (problems | HARD).items():
        cells = []
        for tol in (1e-3, 1e-6):
            ours, _ = passes(epsot.sinkhorn, data(), blur=blur, tol=tol, max_iter=MOST // 2)
            before, start = passes(epsot.sinkhorn, data(), blur=blur, tol=1e-2)
            after, reached = solve(start.instance.problem, start.dual_pair.g, start.eps, tol)
            cells.append(f"to {tol:.0e}: {ours:>5} | {before + after:>5}{' ' if reached else '>'}")
        print(f"{name:<28} residuals | Newton-CG  {',  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
