"""The same bits for any number of threads, of the package and of BLAS, and whichever kernels BLAS has chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import epsot

SCRIPT = """
import hashlib, sys, warnings
import numpy as np
import epsot
from epsot.kernels.cpu import between

warnings.simplefilter("ignore", epsot.ConvergenceWarning)
between.TASK = 1  # chunks: vectors of this length are shared among threads


class Quartic(epsot.Cost):
    degree = 4

    def value(self, x, y):
        return np.sum((x - y) ** 2, axis=-1) ** 2

    def gradient(self, x, y):
        return 4 * np.sum((x - y) ** 2, axis=-1)[..., None] * (x - y)


def geometry(kind, n, m):
    rng = np.random.default_rng(5)
    if kind == "matrix":
        return epsot.CostMatrix(rng.random((n, m)))
    d = {"2-D": 2, "10-D": 10, "own cost": 3}[kind]
    return epsot.PointCloud(rng.random((n, d)), rng.random((m, d)), cost=Quartic() if kind == "own cost" else None)


def outputs(kind, rho, workers):
    n, m = {"2-D": (300, 12_000), "10-D": (12_000, 200), "matrix": (60, 12_000), "own cost": (6, 12_000)}[kind]
    rng = np.random.default_rng(6)
    a, b = rng.random(n) + 0.01, rng.random(m) + 0.01
    pair = geometry(kind, n, m)
    options = dict(eps=0.02, rho=rho, scaling=0.3, max_iter=9, tol=1e-14, workers=workers)
    result = epsot.solve(pair, a / a.sum(), b / b.sum(), **options)
    yield from (result.f, result.g, result.value, result.grad_a, result.grad_b)
    yield from (result.dual, result.primal, result.marginal_error)
    yield from (result.plan @ rng.random((m, 2)), rng.random(n) @ result.plan)
    yield result.instance.problem.kernel.cost_apply(rng.random(m))
    if kind != "matrix":
        yield from (result.grad_x, result.grad_y)


for kind in ("2-D", "10-D", "matrix", "own cost"):
    for rho in (None, 0.3):
        found = [
            [hashlib.sha1(np.ascontiguousarray(z)).hexdigest()[:12] for z in outputs(kind, rho, int(workers))]
            for workers in sys.argv[1:]
        ]
        assert all(each == found[0] for each in found), (kind, rho, found)
        print(kind, rho, *found[0])
"""


def bits(folder: Path, *workers: str, **env: str) -> str:
    """What the script prints in a process of its own, the same for all of these numbers of workers."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(epsot.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script), *workers],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_neither_threads_nor_blas_matter(tmp_path: Path) -> None:
    """Products of BLAS depend on its threads and, like its kernels, on the machine: none of them is used."""
    one_thread = bits(tmp_path, "1", "2", "3", OPENBLAS_NUM_THREADS="1")
    others = bits(tmp_path, "2", OPENBLAS_NUM_THREADS="4", OPENBLAS_CORETYPE="Nehalem")
    assert one_thread.splitlines() == others.splitlines()
