"""`load`: what `save` has written, as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from epsot import archives
from epsot.arrays import NUMPY, Place, as_path
from epsot.devices import on_array_device
from epsot.drivers.barycenter_records import read_barycenter
from epsot.drivers.many import engine_of
from epsot.drivers.records import BatchRecord, Record
from epsot.kernels.batches import Solved
from epsot.pairwise import PairwiseResult
from epsot.permutation import PermutationTestResult
from epsot.problems.batch import Batch
from epsot.results.batch import BatchResult
from epsot.results.batch_debiased import BatchDivergence
from epsot.results.debiased import DivergenceResult
from epsot.results.free_barycenter import FreeBarycenterResult
from epsot.results.result import SinkhornResult

HERE = Place(NUMPY.xp, "cpu")


@on_array_device
def load(path: str | os.PathLike[str]) -> Any:
    """What the method `save` of a result, or of the record of a callback, has written.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    SinkhornResult, DivergenceResult, a batch or a barycenter, PairwiseResult, PermutationTestResult or a record
        What was saved, with all that belongs to it, to the bit: values, potentials, derivatives, plan, bounds, history.
        Arrays are NumPy's, whatever library they had; `init` takes them for problems of any library.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is none that `save` has written, or was written in a format of a later version. Nothing
        in a file is ever run.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import epsot
    >>> x, y = np.asarray([[0.0], [1.0]]), np.asarray([[0.1], [1.1], [0.9]])
    >>> result = epsot.sinkhorn(x, y, blur=0.3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "result.npz"
    ...     result.save(path)
    ...     again = epsot.load(path)
    >>> bool(again.value == result.value and (again.plan @ np.ones(3) == result.plan @ np.ones(3)).all())
    True
    """
    path = as_path("path", path)
    kind, parts = archives.read(path)
    if kind not in READERS:
        raise ValueError(f"{path!r} holds a {kind!r}, which this version of epsot does not know")
    try:
        return READERS[kind](parts, HERE)
    except MemoryError:
        raise
    except Exception as error:  # whatever is missing, of another type or size, in what was not written by `save`
        raise ValueError(f"{path!r} is damaged, or was not written by `save`: {error}") from error


def batch_result(parts: dict[str, Any], place: Place) -> BatchResult:
    """The result of many problems."""
    return solved_batch(Batch.read(parts["batch"], place), parts)


def batch_divergence(parts: dict[str, Any], place: Place) -> BatchDivergence:
    """The result of many divergences."""
    xy = batch_result(parts["xy"], place)
    xx, yy = solved_batch(xy.batch, parts["xx"]), solved_batch(xy.batch.T, parts["yy"])
    if parts["same"].shape != (len(xy.solved.status),):
        raise ValueError("a batch of another size")
    return BatchDivergence(xy, xx, yy, parts["same"])


def solved_batch(batch: Batch, parts: dict[str, Any]) -> BatchResult:
    """Of the problems and what a file holds beside them."""
    own, how = bool(parts["own"]), parts["engine"]
    engine = None if how is None else engine_of(batch, own=own, padded=how == "padded")
    solved = Solved(**parts["solved"])
    sizes = [layout.total for layout in batch.layouts()]
    check_sizes(solved, len(batch.geometry), sizes, own=own)
    check_histories(solved, parts["tol"])
    singles = {}
    for name, single in parts["singles"].items():
        k = int(name)
        instance = batch.instance(k)
        instance = instance.source() if single["own"] else instance
        singles[k] = SinkhornResult._solved(instance, single)
    if set(singles) != set((solved.status < 0).nonzero()[0].tolist()):
        raise ValueError("items without a result")
    return BatchResult(batch, engine, solved, singles, parts["tol"], own)


def check_sizes(solved: Solved, count: int, sizes: list[int], *, own: bool) -> None:
    """Raise where arrays are not of the sizes that kernels take for granted."""
    n, m = sizes[0], sizes[0 if own else 1]
    numbers = (
        solved.status, solved.nit, solved.error, solved.logit_error, solved.mass, solved.value, solved.start,
        solved.first,
    )  # fmt: skip
    potentials = ((solved.f, n), (solved.f_more, n), (solved.g, m), (solved.g_more, m))
    if any(z.shape != (count,) for z in numbers) or any(z.shape != (size,) for z, size in potentials):
        raise ValueError("a batch of another size")
    slopes = [(solved.f_slope, n)] if own else [(solved.f_slope, n), (solved.g_slope, m)]
    if any(z is not None and z.shape[:1] + z.shape[2:] != (size,) for z, size in slopes):
        raise ValueError("derivatives of a batch of another size")


def check_histories(solved: Solved, tol: float | None) -> None:
    """Raise where the errors of an item are said to be where there are none."""
    if tol is None:
        return
    made, length = solved.status >= 0, len(solved.errors)
    first, nit = solved.first[made], solved.nit[made]
    if solved.errors.shape != (length,) or solved.temperatures.shape != (length,):
        raise ValueError("errors without a temperature")
    if np.any(first < 0) or np.any(nit < 0) or np.any(nit > length - first):
        raise ValueError("a history beyond the errors that there are")


READERS: dict[str, Callable[[dict[str, Any], Place], Any]] = {
    "SinkhornResult": SinkhornResult._read,
    "DivergenceResult": DivergenceResult._read,
    "BatchResult": batch_result,
    "BatchDivergence": batch_divergence,
    "BarycenterResult": read_barycenter,
    "FreeBarycenterResult": FreeBarycenterResult._read,
    "PairwiseResult": PairwiseResult._read,
    "PermutationTestResult": PermutationTestResult._read,
    "Record": Record._read,
    "BatchRecord": BatchRecord._read,
}
