"""What `test_mpi` runs on every rank: ``mpiexec -n 2 python -m mpi4py tests/mpi_ranks.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))

import epsot
from epsot.communicator import ALONE, as_communicator
from tests.ranks import OF_POINTS, block, checked, clouds, everything


def of_one_process(cases: tuple[str, ...], comm: Any) -> dict[str, dict[str, Any]]:
    """What each solve finds alone; the ranks share them out."""
    mine = {case: everything(checked()[case](ALONE)) for case in cases[comm.rank :: comm.size]}
    return {case: found for part in comm.allgather(mine) for case, found in part.items()}


def same(case: str, alone: dict[str, Any], comm: Any) -> None:
    """The bits of one process, of all that a result knows."""
    found = everything(checked()[case](comm))
    for name, expected in alone.items():
        parts = comm.allgather(found[name])
        if name in OF_POINTS:
            assert np.array_equal(np.concatenate(parts), expected, equal_nan=True), (case, name)
        else:
            assert all(np.array_equal(part, expected) for part in parts), (case, name)


def one_file(comm: Any, folder: Path) -> None:
    """All save together, and go on from what was written."""
    x, y, _, _ = clouds(900, 1100)
    result = epsot.sinkhorn(block(x, comm), block(y, comm), blur=0.1, comm=comm)
    path = folder / f"of {comm.size}.npz"
    result.save(path)
    again = epsot.sinkhorn(block(x, comm), block(y, comm), blur=0.1, comm=comm, init=epsot.load(path))
    assert again.success and again.nit < result.nit
    assert np.array_equal(epsot.load(path).f, epsot.sinkhorn(x, y, blur=0.1).f)


def one_error(comm: Any) -> None:
    """What one rank raises, all raise."""
    x, y, _, _ = clouds(900, 1100)

    def call(record: Any) -> None:
        if record.nit == 3 and comm.rank == comm.size - 1:
            raise KeyError("mine")

    for options, error in (({"callback": call}, KeyError), ({"blur": 0.1 + (comm.rank > 0)}, ValueError)):
        try:
            epsot.sinkhorn(block(x, comm), block(y, comm), comm=comm, **{"blur": 0.1, **options})
        except error:
            continue
        assert comm.size == 1 and error is ValueError, "no error"


def what_is_kept(comm: Any) -> None:
    """With the communicator of MPI, whichever solve asks, and not with a duplicate of it."""
    if comm.size > 1:
        kept = as_communicator(comm).kept
        kept["mine"] = comm.rank
        assert as_communicator(comm).kept is kept and kept["mine"] == comm.rank
        other = comm.Dup()
        assert as_communicator(other).kept == {}
        other.Free()


def main(folder: Path) -> None:
    comm = MPI.COMM_WORLD
    what_is_kept(comm)
    cases = ("balanced", "schedule", "unbalanced", "lengths", "coarse", "matrix")
    for case, alone in of_one_process(cases, comm).items():
        same(case, alone, comm)
    one_file(comm, folder)
    one_error(comm)
    clouds_of_all = [clouds(20 + k, 20)[0] for k in range(5)]
    shared = epsot.pairwise(clouds_of_all, blur=0.2, comm=comm)
    assert np.array_equal(shared.value, epsot.pairwise(clouds_of_all, blur=0.2).value)
    if comm.rank == 0:
        print(f"{comm.size} ranks: all equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
