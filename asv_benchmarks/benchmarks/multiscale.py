"""Large clouds in two and three dimensions: seconds, memory and the error reached, of value and gradient in x.

Run as a script it prints tables, each line in a process of its own, so that its memory is its own:
in asv_benchmarks, python -m benchmarks.multiscale [large [FAMILY] | growth [PICTURE] | crossover]
"""

import json
import subprocess
import sys
import time
import warnings

import numpy as np

import epsot
from benchmarks.problems import FAMILIES, Task, clouds
from epsot.geometry import Multiscale

LARGE = [(10**5, 3, 0.05), (10**5, 3, 0.01), (10**6, 3, 0.01), (10**6, 2, 0.003)]
TOL = 1e-2
GROWTH = (10**5, 2 * 10**5, 5 * 10**5, 10**6, 2 * 10**6, 4 * 10**6)
SMALL = (1000, 2000, 4000, 8000)


def solve(x, y, blur, tol=TOL):
    """What is asked for: the value of the divergence and its gradient in x."""
    result = epsot.sinkhorn_divergence(x, y, blur=blur, tol=tol)
    return result, result.value, result.grad_x


def compile_kernels(d, blur):
    """Every kernel once, from coarse to fine."""
    x, y = clouds(Task("uniform", 4000, d, blur, True))
    solve(x, y, 0.1)
    epsot.divergence(epsot.PointCloud(x[:200], y[:200]), eps=0.01)


class Large:
    """The rows of the table in `docs/performance.rst`."""

    params = (LARGE,)
    param_names = ("n, d, blur",)
    timeout = 1200
    number = repeat = 1
    rounds = 1
    warmup_time = 0

    def setup(self, row):
        n, d, self.blur = row
        compile_kernels(d, self.blur)
        self.x, self.y = clouds(Task("uniform", n, d, self.blur, True))

    def time_divergence(self, row):
        solve(self.x, self.y, self.blur)

    def peakmem_divergence(self, row):
        solve(self.x, self.y, self.blur)

    def track_marginal_error(self, row):
        result = solve(self.x, self.y, self.blur)[0]
        return result.marginal_error if result.success else np.nan


class Crossover:
    """From coarse to fine, and on all points at once, at the default tolerance."""

    params = (["PointCloud", "Multiscale"], list(SMALL), [2, 3], [0.05, 0.01])
    param_names = ("geometry", "n", "d", "blur")

    def setup(self, geometry, n, d, blur):
        compile_kernels(d, blur)
        kind = Multiscale if geometry == "Multiscale" else epsot.PointCloud
        self.geometry, self.eps = kind(*clouds(Task("uniform", n, d, blur, True))), blur**2

    def time_divergence(self, geometry, n, d, blur):
        epsot.divergence(self.geometry, eps=self.eps)


def one(family, n, d, blur, tol):
    """One solve: seconds, the work of all threads, memory, and what was reached."""
    compile_kernels(d, blur)
    x, y = clouds(Task(family, n, d, blur, True))
    start, worked = time.perf_counter(), time.process_time()
    result = solve(x, y, blur, tol)[0]
    return {
        "seconds": time.perf_counter() - start,
        "work": time.process_time() - worked,
        "memory": peak(),
        "iterations": [part.nit for part in result.parts],
        "error": result.marginal_error,
        "status": result.status.name,
    }


def peak():
    """The most memory this process has held, in GB; nan where the system does not tell."""
    try:
        import resource
    except ImportError:
        return np.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def alone(*row):
    """`one` in a process of its own, printed."""
    command = [sys.executable, "-m", "benchmarks.multiscale", "one", *map(str, row)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    family, n, d, blur, _ = row
    print(
        f"{family:<9} n = {n:>8} d = {d} blur {blur:<8.4g} {found['seconds']:8.2f} s (CPU {found['work']:.2f} s) "
        f"{found['memory']:6.2f} GB, iterations {found['iterations']}, error {found['error']:.1e} {found['status']}",
        flush=True,
    )
    return found


def growth(file=None):
    """At a blur of the spacing of the points, up to four millions; in CPU seconds, which other work hardly changes."""
    seconds = [alone("uniform", n, 3, n ** (-1 / 3), TOL)["work"] for n in GROWTH]
    slope = np.polyfit(np.log(GROWTH), np.log(seconds), 1)[0]
    print(f"CPU seconds grow like n^{slope:.2f}")
    if file is not None:
        draw(seconds, slope, file)


def draw(seconds, slope, file):
    """The growth, beside that of the number of points and that of the number of pairs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for power, style, label in ((1, ":", "like n"), (2, "--", "like n\u00b2")):
        axes.loglog(GROWTH, seconds[0] * (np.asarray(GROWTH) / GROWTH[0]) ** power, style, color="grey", label=label)
    axes.loglog(GROWTH, seconds, "o-", color="#c1272d", label=f"epsot, like $n^{{{slope:.2f}}}$")
    axes.set(xlabel="points a side, 3-D", ylabel="CPU seconds of all threads", ylim=(seconds[0] / 2, 4 * seconds[-1]))
    axes.set_title("Value and gradient of the divergence, blur = spacing, error 1e-2", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)


def crossover():
    """The best of three runs of each."""
    for n in SMALL:
        for d in (2, 3):
            compile_kernels(d, 0.05)
            for family, blur in [(family, blur) for family in FAMILIES for blur in (0.05, 0.01)]:
                points, seconds = clouds(Task(family, n, d, blur, True)), []
                for kind in (epsot.PointCloud, Multiscale):
                    runs = []
                    for _ in range(3):
                        start = time.perf_counter()
                        epsot.divergence(kind(*points), eps=blur**2)
                        runs.append(time.perf_counter() - start)
                    seconds.append(min(runs))
                print(
                    f"{family:<9} n = {n:>5} d = {d} blur {blur:<5} all points {seconds[0]:.3f} s, coarse to fine "
                    f"{seconds[1]:.3f} s: {seconds[0] / seconds[1]:.1f} times as fast",
                    flush=True,
                )


def main(words):
    warnings.simplefilter("ignore", epsot.ConvergenceWarning)
    if words[:1] == ["one"]:
        family, n, d, blur, tol = words[1:]
        print(json.dumps(one(family, int(n), int(d), float(blur), float(tol))))
    elif words[:1] == ["growth"]:
        growth(*words[1:])
    elif words[:1] == ["crossover"]:
        crossover()
    else:
        for family in words[1:] or FAMILIES:
            for n, d, blur in LARGE:
                alone(family, n, d, blur, TOL)


if __name__ == "__main__":
    main(sys.argv[1:])
