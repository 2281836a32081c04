"""What the kernels of several ranks have found, put together: each has done a range of the pieces of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.communicator import Communicator
from epsot.kernels.cpu.blocks import BLOCK
from epsot.kernels.cpu.parts import span
from epsot.kernels.cpu.sweeps import GROUP

Array = NDArray[Any]


def rows_of(comm: Communicator, index: Array, blocks: int, parts: int, out: Array, partial: Array) -> None:
    """The rows `index` of a sweep over blocks of 64, each with its columns in so many parts.

    Of one part they are in out (n, q), of more in partial (parts, n, q) with what out holds for all parts.
    """
    if comm.size == 1:
        return
    if parts == 1:
        comm.gather_rows(out, lambda begin, end: index[begin * BLOCK : end * BLOCK], blocks)
        return
    places = np.arange(partial.shape[0] * partial.shape[1]).reshape(partial.shape[:2])

    def entries(begin: int, end: int) -> Array:
        """Where the pieces of a range have written."""
        pieces = (divmod(piece, parts) for piece in range(begin, end))
        found = [places[part, index[block * BLOCK : (block + 1) * BLOCK]] for block, part in pieces]
        return np.concatenate([*found, np.empty(0, np.int64)])

    flat = np.concatenate([partial, np.broadcast_to(out, (parts, *out.shape))], axis=2).reshape(places.size, -1)
    comm.gather_rows(flat, entries, blocks * parts)
    whole = flat.reshape(*places.shape, -1)
    partial[...], out[...] = whole[..., : partial.shape[2]], whole[-1, :, partial.shape[2] :]


def sums_of(comm: Communicator, index: Array, lanes: int, rows: Array, partial: Array) -> tuple[Array, Array]:
    """The sums of a plan, of which each rank has done a range of the lanes, or of the parts of these.

    rows (parts, n), partial (lanes, m and padding) -> the same of all; of one part, the sum of the lanes (1, m)
    """
    if comm.size == 1:
        return rows, partial
    parts, n = rows.shape
    owner = np.arange(n) // BLOCK % lanes  # of the rows of `index`
    tasks = lanes * parts
    places = np.arange(rows.size).reshape(rows.shape)

    def entries(begin: int, end: int) -> Array:
        pieces = (divmod(task, parts) for task in range(begin, end))
        found = [places[part, index[owner == lane]] for lane, part in pieces]
        return np.concatenate([*found, np.empty(0, np.int64)])

    comm.gather_rows(rows.reshape(-1), entries, tasks)
    if parts == 1:
        first, last = comm.span(lanes)
        return rows, comm.ordered_sum(partial[first:last], lanes)
    columns, groups = np.arange(partial.size).reshape(partial.shape), partial.shape[1] // GROUP

    def spans(begin: int, end: int) -> Array:
        found = []
        for lane, part in (divmod(task, parts) for task in range(begin, end)):
            least, most = span(part, parts, groups)
            found.append(columns[lane, least * GROUP : most * GROUP])
        return np.concatenate([*found, np.empty(0, np.int64)])

    comm.gather_rows(partial.reshape(-1), spans, tasks)
    return rows, partial
