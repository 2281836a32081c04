"""Images and volumes: seconds, memory and the error of debiased solves over grids, with potentials and weight gradient.

Run as a script it prints a table, each line in a process of its own, so that its memory is its own:
in asv_benchmarks, python -m benchmarks.images [NUMBER ...]
"""

import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np

import epsot

# shape, blur in pixels, tolerance
JOBS = [
    ((256, 256), 1.0, 1e-2),
    ((256, 256), 1.0, 1e-3),
    ((256, 256), 4.0, 1e-3),
    ((512, 512), 1.0, 1e-2),
    ((1024, 1024), 2.0, 1e-2),
    ((64, 64, 64), 1.0, 1e-2),
    ((128, 128, 128), 2.0, 1e-2),
    ((128, 128, 128), 1.0, 1e-2),
    ((256, 256, 256), 2.0, 1e-2),
    ((256, 256, 256), 1.0, 1e-2),
]


def density(shape, seed, count=6):
    """Six bells of any width, zero below 2 % of the peak: 60 to 90 % of the pixels are empty.  float32"""
    rng = np.random.default_rng(seed)
    longest = max(shape)
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / longest for n in shape], indexing="ij", sparse=True)
    out = np.zeros(shape)
    for _ in range(count):
        centre = (0.15 + 0.7 * rng.random(len(shape))) * np.array(shape) / longest
        width, height = rng.uniform(0.03, 0.1), rng.uniform(0.3, 1)
        apart = sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True))
        out += height * np.exp(-apart / (2 * width * width))
    out[out < 0.02] = 0
    return (out / out.sum()).astype(np.float32)


def solve(shape, blur, tol, images=None):
    """What is asked for: the potentials of the divergence and its gradient in the weights."""
    grid = epsot.Grid(shape)
    a, b = images or (density(shape, 1), density(shape, 2))
    start, worked = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", epsot.ConvergenceWarning)
        result = epsot.sinkhorn_divergence(grid, grid, a, b, blur=blur, tol=tol)
    _ = result.f, result.g, result.grad_a
    return result, time.perf_counter() - start, time.process_time() - worked


class Solves:
    params = (range(len(JOBS) - 2),)  # the largest take minutes
    param_names = ("job",)
    timeout = 600
    number = repeat = rounds = 1
    warmup_time = 0

    def setup(self, job):
        shape, blur, tol = JOBS[job]
        solve((16,) * len(shape), blur, tol)  # compiles

    def time_divergence(self, job):
        solve(*JOBS[job])

    def peakmem_divergence(self, job):
        solve(*JOBS[job])

    def track_marginal_error(self, job):
        return solve(*JOBS[job])[0].marginal_error

    def track_iterations(self, job):
        return solve(*JOBS[job])[0].nit


def line(job):
    """One job in this process, as JSON."""
    shape, blur, tol = JOBS[job]
    solve((16,) * len(shape), blur, tol)
    images = density(shape, 1), density(shape, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, seconds, worked = solve(shape, blur, tol, images)
    used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / np.prod(shape)
    error = float(result.marginal_error)
    return {"seconds": seconds, "worked": worked, "bytes": used, "error": error, "nit": result.nit}


def main(numbers):
    print(
        f"{'grid':>12} {'blur':>5} {'tol':>6} {'seconds':>8} {'CPU s':>7} {'bytes a pixel':>14} {'error':>8} {'nit':>4}"
    )
    for job in numbers:
        shape, blur, tol = JOBS[job]
        call = [sys.executable, "-m", "benchmarks.images", "--one", str(job)]
        found = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        times = f"{found['seconds']:>8.2f} {found['worked']:>7.2f} {found['bytes']:>14.0f}"
        name = "x".join(map(str, shape))
        print(f"{name:>12} {blur:>5g} {tol:>6g} {times} {found['error']:>8.1e} {found['nit']:>4}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(line(int(sys.argv[2]))))
    else:
        main([int(number) for number in sys.argv[1:]] or range(len(JOBS)))
