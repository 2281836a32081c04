"""Many problems in one call: rates of divergences with their gradients, one small call, all pairs, permutations.

Run as a script it prints the tables: python -m benchmarks.batches [rates] [single] [pairs] [permutations]
"""

import sys
import time
import warnings

import numpy as np

import epsot

CASES = {  # items, points a side (a pair: ragged, from so many), blur
    "64 x 64, blur .2": (10_000, 64, 0.2),
    "64 x 64, blur .05": (10_000, 64, 0.05),
    "8 to 64, blur .2": (10_000, (8, 64), 0.2),
    "8 to 64, blur .05": (10_000, (8, 64), 0.05),
    "500 x 500, blur .05": (100, 500, 0.05),
}


def clouds(count, n, d=3, dtype="float32", seed=0):
    """Two lists of clouds, or two arrays, in the unit cube and a box that overlaps it."""
    rng = np.random.default_rng(seed)
    if isinstance(n, tuple):
        sizes = rng.integers(n[0], n[1] + 1, (2, count))
        return tuple(
            [(rng.random((size, d)) * stretch + shift).astype(dtype) for size in side]
            for side, stretch, shift in zip(sizes, (1, 0.8), (0, 0.3), strict=True)
        )
    x, y = rng.random((count, n, d)), rng.random((count, n, d)) * 0.8 + 0.3
    return x.astype(dtype), y.astype(dtype)


def gradients(x, y, blur, workers=None):
    """Divergences, with the gradients in both clouds."""
    result = epsot.sinkhorn_divergence(x, y, blur=blur, workers=workers)
    return result.value, result.grad_x, result.grad_y


def best(function, repeats=3):
    """The least seconds of some runs, after one that compiles."""
    function()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


class TimeBatch:
    """A batch on one core: its rate is the number of items over the time."""

    params = (list(CASES),)
    param_names = ("case",)

    def setup(self, case):
        count, n, self.blur = CASES[case]
        self.x, self.y = clouds(count // 10, n)
        gradients(self.x[:2], self.y[:2], self.blur, 1)

    def time_divergences_and_gradients(self, case):
        gradients(self.x, self.y, self.blur, 1)


class TimeSingle:
    """One call."""

    params = ([64, 500], [0.2, 0.05])
    param_names = ("n", "blur")

    def setup(self, n, blur):
        self.x, self.y = (z[0].astype(float) for z in clouds(1, n))
        epsot.sinkhorn_divergence(self.x, self.y, blur=blur)

    def time_sinkhorn(self, n, blur):
        epsot.sinkhorn(self.x, self.y, blur=blur)

    def time_divergence(self, n, blur):
        epsot.sinkhorn_divergence(self.x, self.y, blur=blur)


def rates():
    print(f"{'divergences a second':>24} {'one core':>10} {'all cores':>10} {'one call each':>14}")
    for case, (count, n, blur) in CASES.items():
        x, y = clouds(count, n)
        few = min(count, 100)
        one, whole = (best(lambda: gradients(x, y, blur, workers)) / count for workers in (1, None))  # noqa: B023
        each = best(lambda: [gradients(x[k], y[k], blur, 1) for k in range(few)]) / few  # noqa: B023
        print(f"{case:>24} {1 / one:10.0f} {1 / whole:10.0f} {1 / each:14.0f}", flush=True)


def single():
    print(f"{'milliseconds a call':>24} {'sinkhorn':>10} {'divergence':>10} {'and gradient':>14}")
    for dtype in ("float64", "float32"):
        for n in (16, 64, 250, 500, 1000):
            for blur in (0.2, 0.05):
                x, y = (z[0] for z in clouds(1, n, dtype=dtype))
                calls = (
                    lambda: epsot.sinkhorn(x, y, blur=blur),  # noqa: B023
                    lambda: epsot.sinkhorn_divergence(x, y, blur=blur),  # noqa: B023
                    lambda: epsot.sinkhorn_divergence(x, y, blur=blur).grad_x,  # noqa: B023
                )
                times = [1e3 * best(call, max(30, 60_000 // n)) for call in calls]  # a small one is soon disturbed
                print(
                    f"{dtype + f', {n}, blur {blur:g}':>24} {times[0]:10.3f} {times[1]:10.3f} {times[2]:14.3f}",
                    flush=True,
                )


def pairs():
    rng = np.random.default_rng(0)
    measures = [rng.random((500, 3)).astype("float32") * 0.8 + 0.3 * rng.random(3) for _ in range(200)]
    events = [rng.normal(size=(int(size), 3)).astype("float32") for size in rng.integers(10, 101, 1000)]
    extent = float(np.median([epsot.extent(event, event) for event in events]))
    for name, some, blur in (
        ("200 clouds of 500", measures, 0.05),
        ("1000 events of at most 100", events, extent / 10),
    ):
        epsot.pairwise([z.astype("float32") for z in some[:3]], blur=blur)
        start = time.perf_counter()
        result = epsot.pairwise([z.astype("float32") for z in some], blur=blur)
        seconds = time.perf_counter() - start
        count = len(some) * (len(some) - 1) // 2
        print(
            f"{name}: {count} divergences in {seconds:.1f} s, {int(result.success.sum())} entries converged", flush=True
        )


def permutations():
    rng = np.random.default_rng(0)
    for d in (3, 50):
        x, y = rng.normal(size=(500, d)), rng.normal(size=(500, d)) + 0.1
        blur = epsot.extent(x, y) / 10
        epsot.permutation_test(x, y, blur=blur, n_resamples=2)
        start = time.perf_counter()
        result = epsot.permutation_test(x, y, blur=blur, n_resamples=1000, rng=0)
        print(
            f"d = {d}: 1000 permutations of 1000 points in {time.perf_counter() - start:.1f} s, p {result.pvalue:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore", epsot.ConvergenceWarning)
    parts = {"rates": rates, "single": single, "pairs": pairs, "permutations": permutations}
    for part in sys.argv[1:] or parts:
        parts[part]()
