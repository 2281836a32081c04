"""Barycenters of images: four of 128 x 128 pixels, a table of 5 x 5 mixtures, and POT's beside them by objective.

Run as a script it prints the table: python -m benchmarks.barycenters [images] [table] [free] [memory]
"""

import sys
import time
import tracemalloc
import warnings

import numpy as np

import epsot

KINDS = ("disk", "ring", "square", "two disks")
SHARES = (0.4, 0.3, 0.2, 0.1)


def shape(kind, n=128):
    """A sharp shape of n x n pixels, of mass one."""
    z = (np.arange(n) + 0.5) / n
    u, v = np.meshgrid(z, z, indexing="ij")
    inside = {
        "disk": (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.09,
        "ring": abs(np.hypot(u - 0.5, v - 0.5) - 0.3) < 0.07,
        "square": (abs(u - 0.5) < 0.28) & (abs(v - 0.5) < 0.28),
        "two disks": ((u - 0.3) ** 2 + (v - 0.3) ** 2 < 0.02) | ((u - 0.7) ** 2 + (v - 0.65) ** 2 < 0.03),
    }[kind]
    return (inside / inside.sum()).astype(np.float32)


def shapes(n=128):
    return epsot.Grid((n, n)), np.stack([shape(kind, n) for kind in KINDS])


def table(grid, a, blur, tol, side=5):
    """Mixtures of four images at the corners, each started from its neighbour."""
    found, last = [], None
    for i in range(side):
        u, row = i / (side - 1), []
        for j in range(side):
            v = j / (side - 1)
            t = [(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v]
            last = epsot.barycenter(grid, a, t, blur=blur, tol=tol, init=last)
            row.append(last)
        last = row[0]
        found.append(row)
    return found


def objective(grid, weights, a, t, blur):
    """sum_k t_k S(weights, a_k), measured."""
    weights = np.asarray(weights, dtype=float)
    weights = weights / weights.sum()
    parts = [
        epsot.sinkhorn_divergence(grid, grid, weights, b / b.sum(), blur=blur, tol=1e-4, max_iter=5000)
        for b in a.astype(float)
    ]
    return sum(share * float(part.value) for share, part in zip(t, parts, strict=True))


class TimeImages:
    """Four images, float32, debiased."""

    params = ([2.0, 4.0], [1e-2, 1e-3])
    param_names = ("blur", "tol")
    timeout = 300

    def setup(self, blur, tol):
        self.grid, self.a = shapes()
        epsot.barycenter(self.grid, self.a, SHARES, blur=blur, tol=0.1)

    def time_barycenter(self, blur, tol):
        epsot.barycenter(self.grid, self.a, SHARES, blur=blur, tol=tol)

    def track_objective(self, blur, tol):
        weights = epsot.barycenter(self.grid, self.a, SHARES, blur=blur, tol=tol).weights
        return objective(self.grid, weights, self.a, SHARES, blur)


class TimeTable:
    """A table of 5 x 5 mixtures of four images."""

    timeout = 300

    def setup(self):
        self.grid, self.a = shapes()

    def time_table(self):
        table(self.grid, self.a, 2.0, 1e-2)


class MemoryImages:
    """Four images of 256 x 256."""

    def setup(self):
        self.grid, self.a = shapes(256)

    def peakmem_barycenter(self):
        epsot.barycenter(self.grid, self.a, SHARES, blur=4.0, tol=1e-2)


def clock(function):
    """What it returns, and its CPU and wall seconds, after a call that compiles."""
    function()
    wall, cpu = time.perf_counter(), time.process_time()
    found = function()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def images():
    grid, a = shapes()
    print(f"{'four images of 128 x 128':>36} {'CPU s':>7} {'s':>6} {'nit':>5} {'objective':>10} {'gap':>7}")
    for blur in (2.0, 4.0):
        for tol in (1e-2, 1e-3):
            found, cpu, wall = clock(lambda: epsot.barycenter(grid, a, SHARES, blur=blur, tol=tol))  # noqa: B023
            value = objective(grid, found.weights, a, SHARES, blur)
            name = f"epsot, blur {blur:g}, {tol:g}"
            print(f"{name:>36} {cpu:7.2f} {wall:6.2f} {found.nit:5d} {value:10.3f} {float(found.gap):7.3f}", flush=True)
    peer(grid, a, 4.0)


def peer(grid, a, blur):
    """POT's, in one run each: it computes in the log domain or not; at a blur of two it takes minutes."""
    try:
        from ot.bregman import convolutional_barycenter2d_debiased
    except ImportError:
        return
    reg = 2 * (blur / 127) ** 2  # its pixels are on the unit square, and its cost is the square without a half
    for stop in (1e-2, 1e-3):
        cpu = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = convolutional_barycenter2d_debiased(
                a.astype(float), reg=reg, weights=np.asarray(SHARES), stopThr=stop, numItermax=1000
            )
        cpu = time.process_time() - cpu
        value = objective(grid, np.maximum(found, 0), a, SHARES, blur)
        print(f"{f'POT, blur {blur:g}, {stop:g}':>36} {cpu:7.2f} {'':6} {'':5} {value:10.3f}", flush=True)


def mixtures():
    grid, a = shapes()
    found, cpu, wall = clock(lambda: table(grid, a, 2.0, 1e-2))
    steps = [[result.nit for result in row] for row in found]
    print(f"a table of 5 x 5 at blur 2 to 1e-2: {cpu:.2f} CPU s, {wall:.2f} s; iterations {steps}")


def free():
    rng = np.random.default_rng(0)
    clouds = [rng.random((500, 2)), rng.random((500, 2)) * 0.5 + [2, 1], rng.normal(size=(500, 2)) * 0.3 - [1, 0]]
    start = rng.random((500, 2))
    for blur in (0.1, 0.03):
        found, cpu, wall = clock(lambda: epsot.free_barycenter(clouds, init=start, blur=blur))  # noqa: B023
        print(
            f"three clouds of 500 points, blur {blur:g}: {cpu:.2f} CPU s, {wall:.2f} s, {found.nit} steps", flush=True
        )


def memory():
    for n in (256, 512):
        grid, a = shapes(n)
        epsot.barycenter(grid, a, SHARES, blur=4.0, tol=0.1)
        tracemalloc.start()
        epsot.barycenter(grid, a, SHARES, blur=4.0, tol=1e-2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"four images of {n} x {n}: {peak / a.size:.0f} bytes a pixel of each", flush=True)


if __name__ == "__main__":
    for part in sys.argv[1:] or ("images", "table", "free", "memory"):
        {"images": images, "table": mixtures, "free": free, "memory": memory}[part]()
