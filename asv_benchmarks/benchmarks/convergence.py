"""Passes over all pairs that a solve needs, annealing included: one softmin is one pass, and so is one `apply`.

Run as a script it prints tables, with plain alternating steps beside the accelerated ones:
in asv_benchmarks, python -m benchmarks.convergence [default | tight | self | hard ...]
"""

import functools
import sys
import time
import warnings
from contextlib import contextmanager
from unittest import mock

import numpy as np

import epsot
from benchmarks.problems import Task, clouds
from epsot.drivers import choice as drivers
from epsot.kernels import cpu

COSTS = {"softmin": 1, "softmin_pair": 2, "softmin_self": 1, "apply": 1}  # passes


@contextmanager
def counted(kernel=cpu.Points):
    """Counts the passes made inside."""
    count = [0]

    def counting(method, passes):
        @functools.wraps(method)
        def run(self, *args):
            count[0] += passes
            return method(self, *args)

        return run

    methods = {name: counting(getattr(kernel, name), passes) for name, passes in COSTS.items()}
    with mock.patch.multiple(kernel, **methods):
        yield count


def passes(solve, data, **options):
    """The passes of a solve, and its result."""
    with warnings.catch_warnings(), counted() as count:
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = solve(*data, **options)
    return count[0], result


def sinkhorn(x, y, a=None, b=None, *, blur, **options):
    """`epsot.sinkhorn` with all temperatures on all points: a pass over cells would count for as much."""
    return epsot.solve(epsot.PointCloud(x, y), a, b, eps=blur**2, **options)


def divergence(x, y, *, blur, **options):
    """`epsot.sinkhorn_divergence` likewise."""
    return epsot.divergence(epsot.PointCloud(x, y), eps=blur**2, **options)


def points(family, n, blur, dtype, d=3):
    return tuple(z.astype(dtype) for z in clouds(Task(family, n, d, blur, False)))


class Passes:
    """To the default tolerance in float32, and to a tight one in float64; NaN where that was not reached."""

    params = (["uniform", "mixtures", "shells"], [0.05, 0.02])
    param_names = ("family", "blur")
    timeout = 300

    def track_to_1e_3_float32(self, family, blur):
        count, result = passes(sinkhorn, points(family, 10_000, blur, np.float32), blur=blur, tol=1e-3)
        return count if result.success else np.nan

    def track_to_1e_6_float64(self, family, blur):
        count, result = passes(sinkhorn, points(family, 2_000, blur, np.float64), blur=blur, tol=1e-6)
        return count if result.success else np.nan

    track_to_1e_3_float32.unit = track_to_1e_6_float64.unit = "passes"


class SelfTerms:
    """What debiasing costs: passes of one self term, and seconds of a biased and a debiased solve."""

    params = (["uniform", "mixtures"], [0.05, 0.01])
    param_names = ("family", "blur")
    timeout = 300

    def setup(self, family, blur):
        self.x, self.y = points(family, 10_000, blur, np.float32)
        divergence(self.x[:100], self.y[:100], blur=blur)  # compiles

    def track_passes(self, family, blur):
        return passes(divergence, (self.x, self.x), blur=blur)[0]

    def time_biased(self, family, blur):
        sinkhorn(self.x, self.y, blur=blur)

    def time_debiased(self, family, blur):
        divergence(self.x, self.y, blur=blur)

    track_passes.unit = "passes"


def matching(n, noise=0.003):
    """A cloud in the plane and the same one moved a little: at small blur, nearly a permutation."""
    rng = np.random.default_rng(0)
    x = rng.random((n, 2))
    return x, x + noise * rng.normal(size=x.shape)


def uneven(n):
    """Weights over ten decades."""
    rng = np.random.default_rng(1)
    a, b = 10.0 ** (-10 * rng.random((2, n)))
    return rng.random((n, 2)), rng.random((n, 2)), a / a.sum(), b / b.sum()


HARD = {
    "near matching, blur .02": (lambda: matching(300), 0.02),
    "near matching, blur .04": (lambda: matching(300), 0.04),
    "ten decades, blur .05": (lambda: uneven(300), 0.05),
    "uniform, sparse, blur .02": (lambda: points("uniform", 300, 0.02, np.float64), 0.02),
    "shells, sparse, blur .02": (lambda: points("shells", 300, 0.02, np.float64, 2), 0.02),
}


class Hard:
    """Where eps is small beside the spacing of the points, or the weights are."""

    params = (list(HARD), [1e-3, 1e-6])
    param_names = ("problem", "tol")
    timeout = 300

    def track_passes(self, problem, tol):
        data, blur = HARD[problem]
        count, result = passes(sinkhorn, data(), blur=blur, tol=tol, max_iter=20_000)
        return count if result.success else np.nan

    track_passes.unit = "passes"


@contextmanager
def plain_steps():
    """The loop without its acceleration."""
    with mock.patch.object(drivers, "ConjugateResiduals", lambda update: update):
        yield


def report(name, data, max_iter=1000, **options):
    """One line: accelerated passes, plain passes."""
    cells = []
    for context in (warnings.catch_warnings, plain_steps):
        with context():
            count, result = passes(sinkhorn, data, max_iter=max_iter, **options)
        cells.append(f"{count:>6}" + (" " if result.success else ">"))
    print(f"{name:<40} {cells[0]} accelerated, {cells[1]} plain", flush=True)


def main(tables):
    families, blurs = Passes.params
    for family, blur in [(family, blur) for family in families for blur in blurs]:
        if "default" in tables:
            data = points(family, 10_000, blur, np.float32)
            report(f"{family} blur {blur}, 1e4 float32 to 1e-3", data, blur=blur)
        if "tight" in tables:
            data = points(family, 2_000, blur, np.float64)
            report(f"{family} blur {blur}, 2e3 float64 to 1e-6", data, blur=blur, tol=1e-6)
    if "hard" in tables:
        for name, (data, blur) in HARD.items():
            for tol in Hard.params[1]:
                report(f"{name}, to {tol}", data(), blur=blur, tol=tol, max_iter=20_000)
    if "self" in tables:
        for family, blur in [(family, blur) for family in SelfTerms.params[0] for blur in SelfTerms.params[1]]:
            bench = SelfTerms()
            bench.setup(family, blur)
            seconds = []
            for run in (bench.time_biased, bench.time_debiased):
                start = time.perf_counter()
                run(family, blur)
                seconds.append(time.perf_counter() - start)
            count = bench.track_passes(family, blur)
            print(f"{family} blur {blur}: self term {count} passes, debiased / biased {seconds[1] / seconds[0]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["default", "tight", "self", "hard"])
