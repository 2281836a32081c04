"""What an iteration takes beside its softmins: the arithmetic on vectors of length n between two sweeps.

`MixedStep` times the mixing of the last steps, with as many directions as are kept; `Between` a whole mixed step whose
softmins take no time: it copies what they would return.

Run as a script it prints nanoseconds a point and softmin, of which an iteration has two:
python asv_benchmarks/benchmarks/between.py
"""

import time

import numpy as np

from epsot import PointCloud
from epsot.kernels.vectors import WINDOW
from epsot.problems.instance import pose
from epsot.solver.acceleration import ConjugateResiduals
from epsot.solver.updates import Alternating

SIZES = [64, 500, 10_000, 1_000_000]
EPS = 0.01


class Silent:
    """A kernel whose softmins are known: they alternate, so that every step brings news."""

    def __init__(self, kernel, found):
        self.workers, self.shape, self.found, self.calls = kernel.workers, kernel.shape, found, 0

    @property
    def T(self):
        return self

    def bursts(self, a, b):
        return None

    def softmin(self, h, eps, guess=None):
        self.calls += 1
        return self.found[self.calls % len(self.found)].copy()


def posed(n, workers, reach=None):
    """A problem of n points a side, its weights not uniform."""
    rng = np.random.default_rng(0)
    a, b = (rng.random(n) + 0.1 for _ in range(2))
    cloud = PointCloud(rng.random((n, 2)), rng.random((n, 2)))
    problem = pose(
        cloud, a / a.sum(), b / b.sum(), eps=EPS, rho=(reach, reach), rho_name="rho", workers=workers
    ).problem
    found = [0.1 * EPS * rng.normal(size=n) for _ in range(7)]
    object.__setattr__(problem, "kernel", Silent(problem.kernel, found))
    return problem


def steps(n, workers, reach):
    """A function that makes one more mixed iteration."""
    update = ConjugateResiduals(Alternating(posed(n, workers, reach)))
    state = [update.init(EPS, None, None)]

    def step():
        state[0] = update.step(state[0], EPS)
        state[0].directions.expected = np.inf  # old directions never mislead
        object.__setattr__(state[0], "plain_steps", 0)
        object.__setattr__(state[0], "look", 10**9)

    for _ in range(2 * WINDOW):
        step()
    return step


class MixedStep:
    params = (SIZES, [1, 2])
    param_names = ("n", "workers")

    def setup(self, n, workers):
        rng = np.random.default_rng(0)
        self.path = [tuple(EPS * rng.normal(size=n) for _ in range(3)) for _ in range(2)]
        self.directions = posed(n, workers).directions()
        for _ in range(2 * WINDOW):
            self.directions.advance(*(EPS * rng.normal(size=n) for _ in range(3)), EPS)
            self.directions.expected = np.inf

    def time_advance(self, n, workers):
        self.path.reverse()
        self.directions.advance(*self.path[0], EPS)
        self.directions.expected = np.inf


class Between:
    params = (SIZES, [1, 2], [None, 0.5])
    param_names = ("n", "workers", "rho")

    def setup(self, n, workers, rho):
        self.step = steps(n, workers, rho)

    def time_iteration_without_softmins(self, n, workers, rho):
        self.step()


def main():
    for rho in (None, 0.5):
        for n in SIZES:
            for workers in (1, 2):
                step, seconds = steps(n, workers, rho), []
                for _ in range(30):
                    start = time.perf_counter()
                    step()
                    seconds.append(time.perf_counter() - start)
                best = min(seconds)
                print(
                    f"rho {rho}, n {n}, workers {workers}: {1e6 * best:9.1f} us, {5e8 * best / n:7.2f} ns", flush=True
                )


if __name__ == "__main__":
    main()
