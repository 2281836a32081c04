"""Transport between two images in epsot, OTT-JAX (Grid) and GeomLoss (images): seconds, and the error that was reached.

in asv_benchmarks, python -m peers.grids [SECONDS]    # the limit of each run, which has a process of its own

All are asked for the potentials of the biased problem at C = |x - y|^2 / 2, eps = blur^2, in pixels, float32. The
marginal error is measured in float64 from the potentials that are returned, by the portable kernel of
`epsot.kernels.lattice`.
OTT does not converge where pixels are empty: for it, and once more for epsot, those have 1e-7 of the mass of the peak.
GeomLoss compiles KeOps first, and asserts a blur below two pixels. POT 0.9.7 has barycenters of images, and no
transport between two.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.images import density

import epsot
from epsot.arrays import common_place
from epsot.kernels.lattice import Axis, Lattice

Densities = tuple[np.ndarray, np.ndarray]
JOBS = [(64, 4.0), (64, 1.0), (256, 4.0), (256, 1.0)]
SETTINGS = {"epsot": [1e-2], "epsot, no empty pixel": [1e-2], "OTT": [1e-2], "GeomLoss": [0.5, 0.9, 0.99]}
BACKGROUND = 1e-7


def violation(a: np.ndarray, b: np.ndarray, k: np.ndarray, h: np.ndarray, eps: float) -> float:
    """max of |P 1 - a| and |P' 1 - b| over the mass, of P = exp(k + h - C / eps)."""
    n = a.shape[0]
    axes = (Axis(n, n, 0.0, 0.0, 1.0, 1.0, None),) * 2
    kernel = Lattice(axes, "squares", 0.5, common_place(a=a), np.float64)
    k, h = k.astype(np.float64).ravel(), h.astype(np.float64).ravel()
    rows, columns = np.exp(k + kernel.log_sums(h, eps)), np.exp(h + kernel.log_sums(k, eps))
    return max(float(np.abs(rows - a.ravel()).sum()), float(np.abs(columns - b.ravel()).sum()))


def with_epsot(a: np.ndarray, b: np.ndarray, blur: float, tol: float) -> Callable[[], Densities]:
    grid = epsot.Grid(a.shape)
    small = epsot.Grid((16, 16))
    epsot.sinkhorn(small, small, density((16, 16), 1), density((16, 16), 2), blur=blur)  # compiles

    def solve() -> Densities:
        result = epsot.sinkhorn(grid, grid, a, b, blur=blur, tol=tol)
        with np.errstate(divide="ignore"):
            return np.log(a) + result.f / blur**2, np.log(b) + result.g / blur**2

    return solve


def with_ott(a: np.ndarray, b: np.ndarray, blur: float, threshold: float) -> Callable[[], Densities]:
    """C = |x - y|^2, so that epsilon is 2 blur^2; potentials hold the weights."""
    import jax
    import jax.numpy as jnp
    from ott.geometry.grid import Grid
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    lines = [jnp.arange(n, dtype=jnp.float32) for n in a.shape]

    def run(a: Any, b: Any) -> Any:
        geometry = Grid(x=lines, epsilon=2 * blur**2)
        out = Sinkhorn(threshold=threshold, max_iterations=4000)(LinearProblem(geometry, a, b))
        return out.f, out.g

    arguments = jnp.asarray(a.ravel()), jnp.asarray(b.ravel())
    compiled = jax.jit(run).lower(*arguments).compile()

    def solve() -> Densities:
        f, g = jax.block_until_ready(compiled(*arguments))
        return np.asarray(f) / (2 * blur**2), np.asarray(g) / (2 * blur**2)

    return solve


def with_geomloss(a: np.ndarray, b: np.ndarray, blur: float, scaling: float) -> Callable[[], Densities]:
    import torch
    from geomloss._legacy.sinkhorn_images import sinkhorn_divergence

    images, unit = [torch.from_numpy(z)[None, None] for z in (a, b)], blur / a.shape[0]  # of the side

    def solve() -> Densities:
        f, g = sinkhorn_divergence(*images, p=2, blur=unit, scaling=scaling, debias=False, potentials=True)
        with np.errstate(divide="ignore"):
            found = ((w, z.numpy().reshape(a.shape)) for w, z in ((a, f), (b, g)))
            k, h = (np.log(w) + np.where(w > 0, z, 0) / unit**2 for w, z in found)
        return k, h

    solve()  # compiles
    return solve


SOLVERS = {
    "epsot": with_epsot, "epsot, no empty pixel": with_epsot, "OTT": with_ott, "GeomLoss": with_geomloss
}  # fmt: skip


def one(name: str, side: int, blur: float, setting: float) -> dict[str, float]:
    """One run, after what it compiles."""
    a, b = density((side, side), 1), density((side, side), 2)
    if name in ("OTT", "epsot, no empty pixel"):
        a, b = (np.maximum(w, BACKGROUND * w.max()) for w in (a, b))
        a, b = (w / w.sum() for w in (a, b))
    solve = SOLVERS[name](a, b, blur, setting)
    start, worked = time.perf_counter(), time.process_time()
    k, h = solve()
    found = {"seconds": time.perf_counter() - start, "worked": time.process_time() - worked}
    return {**found, "error": violation(a, b, k, h, blur**2)}


def main(limit: float) -> None:
    print(f"{'grid':>9} {'blur':>5}  {'solver':<22} {'setting':>7} {'seconds':>8} {'CPU s':>7} {'error':>8}")
    for side, blur in JOBS:
        for name, settings in SETTINGS.items():
            for setting in settings:
                call = [sys.executable, "-m", "peers.grids", "--one", name, str(side), str(blur), str(setting)]
                head = f"{side:>4}x{side:<4} {blur:>5g}  {name:<22} {setting:>7g}"
                try:
                    ran = subprocess.run(call, capture_output=True, text=True, timeout=limit, check=True)
                    found = json.loads(ran.stdout.splitlines()[-1])
                    print(f"{head} {found['seconds']:>8.2f} {found['worked']:>7.2f} {found['error']:>8.1e}", flush=True)
                except subprocess.TimeoutExpired:
                    print(f"{head} no answer in {limit:g} s", flush=True)
                except subprocess.CalledProcessError as error:
                    print(f"{head} failed: {error.stderr.strip().splitlines()[-1][:80]}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        name, side, blur, setting = sys.argv[2:6]
        print(json.dumps(one(name, int(side), float(blur), float(setting))))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 90.0)
