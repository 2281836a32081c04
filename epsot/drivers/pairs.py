"""All pairs of many measures: blocks of a batch, with the self terms solved once for each measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from epsot.arrays import start_of
from epsot.communicator import ALONE, SHARED, Communicator
from epsot.drivers.many import ManyOptions, equal_items, solve_part
from epsot.geometry.clouds import PointClouds
from epsot.geometry.rows import Rows
from epsot.geometry.separables import Separables
from epsot.problems.batch import Batch, masses_of
from epsot.status import Status

BLOCK_NUMBERS = 2**20  # of potentials that are held at once
MOST = 4096  # pairs of a block, after which an observer hears


Sides = PointClouds | Separables  # what has sides that stand for themselves


class Measures(NamedTuple):
    """Many measures, and the strength of their marginals."""

    points: Rows
    weights: Rows
    uniform: bool
    rho: float


@dataclass(frozen=True)
class Table:
    """What is known of all pairs: (K, L) arrays on the host, which are filled block by block."""

    value: np.ndarray
    marginal_error: np.ndarray
    status: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Table:
        return cls(np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, int(Status.STOPPED)))


def blocks(rows: np.ndarray, columns: np.ndarray, sizes: np.ndarray) -> Iterator[slice]:
    """Parts of all pairs whose potentials are held at once; `sizes`: the numbers of each."""
    begin, ends = 0, np.cumsum(sizes)
    while begin < len(rows):
        done = ends[begin - 1] if begin else 0
        end = int(np.searchsorted(ends, done + BLOCK_NUMBERS, side="right"))
        end = min(max(begin + 1, end), begin + MOST, len(rows))
        yield slice(begin, end)
        begin = end


def all_pairs(
    geometry: Sides,
    left: Measures,
    right: Measures,
    eps: float,
    asked: ManyOptions,
    start: float | None,
    *,
    symmetric: bool,
    debias: bool,
    workers: int | None,
    observe: Callable[[int, int, Table], object] | None = None,
    comm: Communicator = ALONE,
) -> Table:
    """Fill the table of all pairs. `start`: where annealing starts; of None each pair has its own.

    Ranks do some of the pairs each, and know all at the end.
    """
    count_left, count_right = len(left.points.first), len(right.points.first)
    table = Table.empty((count_left, count_right))
    if symmetric:
        rows, columns = np.triu_indices(count_left, k=1)
    else:
        rows, columns = (z.reshape(-1) for z in np.indices((count_left, count_right)))
    own = []
    if debias or symmetric:
        own = [self_terms(geometry, left, eps, asked, start, workers)]
        own.append(own[0] if symmetric else self_terms(geometry, right, eps, asked, start, workers))
    if symmetric:
        fill_diagonal(table, own[0], debias=debias)
    masses = [masses_of(side.weights, geometry.place) for side in (left, right)]
    rows, columns = rows[comm.rank :: comm.size], columns[comm.rank :: comm.size]  # pairs of a measure go to all
    sizes = left.points.sizes[rows] + right.points.sizes[columns]
    total, done = len(rows), 0
    for part in blocks(rows, columns, sizes):
        some, others = rows[part], columns[part]
        batch = paired(geometry, left, right, some, others, eps, workers)
        found = solve_part(batch, started(asked, batch, start), None, own=False)
        value, error, status = found.value64, found.marginal_error, found.status
        if debias:
            value = value - (own[0].value[some] + own[1].value[others]) / 2
            value = value + eps / 2 * (masses[0][some] - masses[1][others]) ** 2
            error = np.maximum(error, np.maximum(own[0].marginal_error[some], own[1].marginal_error[others]))
            status = np.maximum(status, np.maximum(own[0].status[some], own[1].status[others]))
            same = equal_items(batch)  # the divergence is zero, and the solve with itself says how well that is known
            value = np.where(same, 0.0, value)
            error = np.where(same, own[0].marginal_error[some], error)
            status = np.where(same, own[0].status[some], status)
        for z, new in zip((table.value, table.marginal_error, table.status), (value, error, status), strict=True):
            z[some, others] = new
            if symmetric:
                z[others, some] = new
        done += len(some)
        try:
            if observe is not None:
                observe(done, total, table)
        except StopIteration:
            break
    return together(table, comm)


def together(table: Table, comm: Communicator) -> Table:
    """The table with what each rank has found of it: the others have left it as it was made."""
    parts = [np.asarray(z, np.float64) for z in (table.value, table.marginal_error, table.status)]
    if comm.size == 1:
        return table
    comm.agree(SHARED)
    found = comm.gather(np.stack(parts)[None], [1] * comm.size)  # (ranks, 3, K, L)
    known = found[:, 2] != int(Status.STOPPED)
    best = np.argmax(known, axis=0)
    value, error, status = np.take_along_axis(found, best[None, None], axis=0)[0]
    return Table(value, error, status.astype(table.status.dtype))


def self_terms(
    geometry: Sides, side: Measures, eps: float, asked: ManyOptions, start: float | None, workers: int | None
) -> Table:
    """Each measure with itself.  -> (K,) arrays"""
    numbers = np.arange(len(side.points.first))
    own = geometry.sides(side.points, side.points)
    batch = paired(own, side, side, numbers, numbers, eps, workers)
    told, scale = started(asked, batch, start), start_of(own.widest() if len(numbers) else 0.0, own.degree)  # of all
    found = solve_part(batch, replace(told, scale=np.full(batch.shape, scale)), None, own=True)
    return Table(found.value64, found.marginal_error, found.status)


def paired(
    geometry: Sides, left: Measures, right: Measures, rows: np.ndarray, columns: np.ndarray, eps: float,
    workers: int | None,
) -> Batch:  # fmt: skip
    """The batch of some pairs."""
    clouds = geometry.sides(left.points, right.points).pairs(rows, columns)
    full = np.full(rows.shape, eps)
    strengths = np.full(rows.shape, left.rho), np.full(rows.shape, right.rho)
    weights = left.weights.at(rows), right.weights.at(columns)
    return Batch(clouds, *weights, (left.uniform, right.uniform), full, *strengths, "reach", workers)


def started(asked: ManyOptions, batch: Batch, start: float | None) -> ManyOptions:
    """The options of a block."""
    return replace(asked, start=None if start is None else np.full(batch.shape, start), slopes=False)


def fill_diagonal(table: Table, own: Table, *, debias: bool) -> None:
    """A measure with itself: zero, or the transport to itself."""
    numbers = np.arange(len(own.value))
    table.value[numbers, numbers] = 0.0 if debias else own.value
    table.marginal_error[numbers, numbers], table.status[numbers, numbers] = own.marginal_error, own.status


def common_start(geometry: Sides, diameter: float | None, tol: float | None) -> float | None:
    """Where all pairs start: as the user says; where the schedule is run once, at the diameter of all points."""
    if diameter is None and tol is not None:
        return None
    if diameter is None:
        diameter = geometry.widest()
    return start_of(diameter, geometry.degree)
