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

    def put(self, rows: np.ndarray, columns: np.ndarray, found: Table) -> None:
        """What is known of some pairs."""
        self.value[rows, columns], self.marginal_error[rows, columns] = found.value, found.marginal_error
        self.status[rows, columns] = found.status

    def at(self, numbers: np.ndarray) -> Table:
        """What is known of some measures."""
        return Table(self.value[numbers], self.marginal_error[numbers], self.status[numbers])


@dataclass(frozen=True)
class Question:
    """What is asked of all pairs alike."""

    geometry: Sides
    eps: float
    asked: ManyOptions
    start: float | None  # where annealing starts; of None each pair has its own
    workers: int | None

    def batch(self, left: Measures, right: Measures, rows: np.ndarray, columns: np.ndarray) -> Batch:
        """Some pairs."""
        clouds = self.geometry.sides(left.points, right.points).pairs(rows, columns)
        full = np.full(rows.shape, self.eps)
        strengths = np.full(rows.shape, left.rho), np.full(rows.shape, right.rho)
        weights = left.weights.at(rows), right.weights.at(columns)
        return Batch(clouds, *weights, (left.uniform, right.uniform), full, *strengths, "reach", self.workers)

    def solve(self, batch: Batch, *, own: bool, scale: float | None = None) -> Table:
        """What is found of each pair of a batch; `scale`: that of all its costs, where it is known.  -> (B,) arrays"""
        start, known = (None if z is None else np.full(batch.shape, z) for z in (self.start, scale))
        found = solve_part(batch, replace(self.asked, start=start, scale=known, slopes=False), None, own=own)
        return Table(found.value64, found.marginal_error, found.status)

    def self_terms(self, side: Measures) -> Table:
        """Each measure with itself.  -> (K,) arrays"""
        numbers, geometry = np.arange(len(side.points.first)), self.geometry.sides(side.points, side.points)
        scale = start_of(geometry.widest() if len(numbers) else 0.0, geometry.degree)
        return self.solve(self.batch(side, side, numbers, numbers), own=True, scale=scale)


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
    question: Question,
    left: Measures,
    right: Measures,
    *,
    symmetric: bool,
    debias: bool,
    observe: Callable[[int, int, Table], object] | None = None,
    comm: Communicator = ALONE,
) -> Table:
    """The table of all pairs. Ranks do some of the pairs each, and know all at the end."""
    table = Table.empty((len(left.points.first), len(right.points.first)))
    rows, columns = pairs_of(table, symmetric=symmetric)
    selves: list[Table] = []
    if debias or symmetric:
        selves = [question.self_terms(left)]
        selves.append(selves[0] if symmetric else question.self_terms(right))
    if symmetric:
        fill_diagonal(table, selves[0], debias=debias)
    masses = [masses_of(side.weights, question.geometry.place) for side in (left, right)]
    rows, columns = rows[comm.rank :: comm.size], columns[comm.rank :: comm.size]  # pairs of a measure go to all
    for part in blocks(rows, columns, left.points.sizes[rows] + right.points.sizes[columns]):
        some, others = rows[part], columns[part]
        batch = question.batch(left, right, some, others)
        found = question.solve(batch, own=False)
        if debias:
            gaps = masses[0][some] - masses[1][others]
            found = debiased(
                found, selves[0].at(some), selves[1].at(others), question.eps / 2 * gaps**2, equal_items(batch)
            )
        table.put(some, others, found)
        if symmetric:
            table.put(others, some, found)
        if is_stopped(observe, part.stop, len(rows), table):
            break
    return together(table, comm)


def pairs_of(table: Table, *, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of all pairs; of a symmetric table those above the diagonal."""
    if symmetric:
        return np.triu_indices(len(table.value), k=1)
    rows, columns = np.indices(table.value.shape)
    return rows.reshape(-1), columns.reshape(-1)


def debiased(xy: Table, xx: Table, yy: Table, shift: np.ndarray, same: np.ndarray) -> Table:
    """The divergences of some pairs: zero of the `same`, where the solve with itself says how well that is known."""
    value = xy.value - (xx.value + yy.value) / 2 + shift
    error = np.maximum(xy.marginal_error, np.maximum(xx.marginal_error, yy.marginal_error))
    status = np.maximum(xy.status, np.maximum(xx.status, yy.status))
    return Table(
        np.where(same, 0.0, value), np.where(same, xx.marginal_error, error), np.where(same, xx.status, status)
    )


def is_stopped(observe: Callable[[int, int, Table], object] | None, done: int, total: int, table: Table) -> bool:
    """Whether the one who looks on has seen enough."""
    try:
        if observe is not None:
            observe(done, total, table)
    except StopIteration:
        return True
    return False


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
