"""Processes of MPI share solves: the bits of one process, one file, one error. What ranks do is `mpi_ranks`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import epsot

BESIDE = Path(sys.executable).with_name("mpiexec")  # of the wheel `mpich`
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
PROGRAM = Path(__file__).with_name("mpi_ranks.py")

NO_MPI = importlib.util.find_spec("mpi4py") is None or MPIEXEC is None
needs_mpi = pytest.mark.skipif(NO_MPI, reason="needs mpi4py and mpiexec: `pip install epsot[mpi] mpich`")


def launched(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", str(size), sys.executable, "-m", "mpi4py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@needs_mpi
@pytest.mark.parametrize("size", [2, *(pytest.param(size, marks=pytest.mark.every) for size in (1, 3, 4))])
def test_ranks_find_what_one_process_finds(size: int, tmp_path: Path) -> None:
    ended = launched(size, str(PROGRAM), str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{size} ranks: all equal" in ended.stdout


@needs_mpi
def test_an_error_outside_of_the_package_ends_all(tmp_path: Path) -> None:
    """What `python -m mpi4py` is for: the other rank waits in a solve that this one never calls."""
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np, epsot\n"
        "from mpi4py import MPI\n"
        "x = np.random.default_rng(0).random((500, 2))\n"
        "if MPI.COMM_WORLD.rank == 1:\n"
        "    raise KeyError('outside')\n"
        "epsot.sinkhorn(x, x + 1, blur=0.1, comm=MPI.COMM_WORLD)\n"
    )
    ended = launched(2, str(program))
    assert ended.returncode != 0 and "outside" in ended.stderr


@pytest.mark.every
@pytest.mark.filterwarnings("ignore")  # of the schedulers
@pytest.mark.parametrize("scheduler", ["joblib", "dask"])
def test_schedulers_share_out_a_distance_matrix(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the documentation, beside `pairwise` in one process."""
    pytest.importorskip("distributed" if scheduler == "dask" else "joblib")
    folder = Path(__file__).parents[1] / "docs" / "examples" / "libraries"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    example = importlib.import_module("many_processes")
    clouds = example.measures(6)
    expected = epsot.pairwise(clouds, blur=0.3).value
    if scheduler == "joblib":
        found = example.by_joblib(clouds)
    else:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            found = example.by_dask(client, clouds)
    assert np.array_equal(found, expected)
