"""Batches of small problems: each is solved in compiled code, one on each thread at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.costs import Cost
from epsot.kernels.batches import UNSETTLED, Asked, Layout, Rules, Solved
from epsot.kernels.cpu import items as compiled_items
from epsot.kernels.cpu.advance import ROWS, STAGES, VALUES
from epsot.kernels.cpu.chunks import CHUNK
from epsot.kernels.cpu.clouds import writable
from epsot.kernels.cpu.dense import WIDTH
from epsot.kernels.cpu.items import ERROR, FIRST, MASS, NIT, NUMBERS, START, STATUS, STORED, VALUE, Items, Place
from epsot.kernels.cpu.mixing import Memory
from epsot.kernels.cpu.resident import Room
from epsot.kernels.cpu.solves import Ends, Levels
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, SQUARE
from epsot.kernels.cpu.threads import run, usable_workers

Array = NDArray[Any]

LARGEST = CHUNK  # points of one side: the arithmetic of the acceleration takes one piece
STEP_WORK = 2.0e7  # pairs that are met in a step, about: a few milliseconds, after which an interrupt is heard
SWEEPS = 40  # of an item, about
LONGEST = 2**14  # iterations of an item: what takes more is the solver's
ERRORS = 2**24  # that a step has room for
KINDS = {"square": SQUARE, "euclidean": EUCLIDEAN, "cityblock": CITYBLOCK}
NO_POINTS = np.zeros((1, 1))
NOWHERE = np.zeros(1, np.int64)


def width(size: int) -> int:
    return -(-size // WIDTH) * WIDTH


class Workplace:
    """The memory of one thread, for items of at most n and m points in d dimensions."""

    def __init__(self, n: int, m: int, d: int, dtype: Any, levels: int) -> None:
        n, m = width(n), width(m)
        longer = max(n, m)
        self.room = Room(
            np.empty((n, m)), np.zeros((n, m), dtype), np.zeros(n), np.zeros(m), np.zeros(m, dtype), np.zeros(n, dtype),
            np.zeros(m, dtype), np.ones(n), np.zeros((4, longer)), np.zeros(1),
        )  # fmt: skip
        self.place = Place(
            np.zeros((n, d)), np.zeros((d, m)), np.zeros(d), np.zeros(n, np.int64), np.zeros(m, np.int64),
            np.zeros((2, n)), np.zeros((2, m)),
        )  # fmt: skip
        self.memory = Memory(
            np.zeros((1, ROWS, m)), np.zeros((1, ROWS, m)), np.zeros((2, 1, 2, m)), np.zeros(m), np.zeros(m),
            np.zeros((STAGES - 1, 1, VALUES)), np.zeros((STAGES - 1, VALUES)), np.zeros(5), np.zeros(5, np.int64),
            np.zeros(2), np.zeros((3, m)), np.zeros((2, ROWS)),
        )  # fmt: skip
        self.ends = Ends(
            np.zeros((3, n)), np.zeros((3, m)), np.zeros((3, m)), np.zeros((3, m)), np.zeros(m), np.zeros((2, m)),
            np.zeros(2),
        )  # fmt: skip
        self.levels = Levels(np.zeros(levels), np.zeros(levels, np.int64), np.zeros(levels), np.zeros(levels))


class Batch:
    """Problems between two rows of clouds, or of stored costs, of the layouts given.

    Parameters
    ----------
    x, y : (N, d) and (M, d) arrays, or (N, M) costs and None
    cost : Cost or None
        One with a `kind`; None where costs are stored.
    rows, columns : Layout
        Of stored costs, the points are rows and columns of the matrix.
    a, b : flat arrays of weights in float64
    eps, rho_a, rho_b : (B,) arrays in float64
    """

    def __init__(
        self, x: Array, y: Array | None, cost: Cost | None, rows: Layout, columns: Layout, a: Array, b: Array,
        eps: Array, rho_a: Array, rho_b: Array, workers: int | None = None,
    ) -> None:  # fmt: skip
        self.x, self.y, self.cost = writable(x), NO_POINTS.astype(x.dtype) if y is None else writable(y), cost
        self.rows, self.columns, self.a, self.b = rows, columns, writable(a), writable(b)
        self.eps, self.rho = writable(eps), np.ascontiguousarray(np.stack([rho_a, rho_b]))
        self.workers = usable_workers(workers)
        # Stored costs may hold constants of rows and columns, of which float32 would leave nothing else.
        self.dtype = np.dtype(np.float64) if cost is None else self.x.dtype

    @property
    def T(self) -> Batch:
        """Seen from the other side."""
        if self.cost is None:
            n, m = int(self.rows.sizes[0]), int(self.columns.sizes[0])
            matrices = self.x.reshape(-1, n, m).swapaxes(1, 2).reshape(-1, n)
            rows = self.columns._replace(points=self.rows.points // n * m)
            return Batch(
                matrices, None, None, rows, self.rows._replace(points=self.columns.points), self.b, self.a, self.eps,
                self.rho[1], self.rho[0], self.workers,
            )  # fmt: skip
        return Batch(
            self.y, self.x, self.cost, self.columns, self.rows, self.b, self.a, self.eps, self.rho[1], self.rho[0],
            self.workers,
        )  # fmt: skip

    def source(self) -> Batch:
        """Each first measure with itself, of points."""
        return Batch(
            self.x, self.x, self.cost, self.rows, self.rows, self.a, self.a, self.eps, self.rho[0], self.rho[0],
            self.workers,
        )  # fmt: skip

    def items(self, start: Array, *, own: bool) -> Items:
        rows, columns = self.rows, self.columns
        first = np.stack([rows.points, columns.points, rows.weights, columns.weights, rows.values, columns.values])
        sizes = np.stack([rows.sizes, columns.sizes])
        sizes[:, (sizes > LARGEST).any(axis=0)] = 0  # not read, and left to the solver
        kind = STORED if self.cost is None else KINDS[str(self.cost.kind)]
        factor = 1.0 if self.cost is None else float(self.cost.factor)
        return Items(
            self.x, self.y, kind, factor, first, sizes, self.a, self.b, self.eps,
            writable(start, np.float64), self.rho, own,
        )  # fmt: skip

    def over_items(
        self, items: Items, work: Callable[[Workplace, int, int], object], levels: int, sweeps: int, errors: int = 1
    ) -> None:  # fmt: skip
        """work(workplace, begin, end) over all items, on the threads of the batch."""
        count = len(self.eps)
        if count == 0:
            return
        n, m = (int(size) for size in items.sizes.max(axis=1))
        d = 1 if self.cost is None else self.x.shape[1]
        pairs = float((items.sizes[0] * items.sizes[1]).mean()) + 100.0
        step = max(1, min(int(STEP_WORK / (pairs * sweeps)), -(-count // (4 * self.workers)), ERRORS // errors))
        free: deque[Workplace] = deque()

        def task(number: int) -> Iterator[object]:
            try:
                place = free.pop()
            except IndexError:
                place = Workplace(n, m, d, self.dtype, levels)
            yield work(place, number * step, min(count, (number + 1) * step))
            free.append(place)

        run(task, -(-count // step), self.workers)

    def solve(self, asked: Asked, start: Array, rules: Rules, *, own: bool = False) -> Solved:
        """All items; `own`: each first measure with itself."""
        items, count = self.items(start, own=own), len(self.eps)
        f, g, f_more, g_more = out = tuple(np.zeros(layout.total) for layout in (self.rows, self.columns) * 2)
        numbers = np.zeros((count, NUMBERS))
        most = min(asked.max_iter, LONGEST)
        told = compiled_items.Asked(asked.degree, asked.scaling, asked.tol or 0.0, most, asked.fixed)
        kernel = compiled_items.self_items if own else compiled_items.transport_items
        if asked.tol is None:
            kernel = compiled_items.schedule_items
        chunks: list[tuple[int, int, Array, Array]] = []
        levels = most_levels(items.start, self.eps, asked)
        rules = rules._replace(precision=2.0**-24 if self.dtype == np.float32 else 2.0**-53)

        def work(place: Workplace, begin: int, end: int) -> None:
            length = (end - begin) * most if asked.tol is not None else 1
            found, eps_of = np.empty(length), np.empty(length)
            used = kernel(
                items, told, rules, place.room, place.place, place.memory, place.ends, place.levels, begin, end, out,
                numbers, found, eps_of,
            )  # fmt: skip
            chunks.append((begin, end, found[:used].copy(), eps_of[:used].copy()))

        self.over_items(items, work, levels, SWEEPS, most)
        chunks.sort(key=itemgetter(0))
        first, length = numbers[:, FIRST].astype(np.int64), 0
        for begin, end, part, _ in chunks:
            first[begin:end] += length
            length += len(part)
        status, nit = numbers[:, STATUS].astype(np.int64), numbers[:, NIT].astype(np.int64)
        if asked.max_iter > most:
            status[nit >= most] = UNSETTLED
        found, eps_of = (np.concatenate([np.empty(0), *(chunk[k] for chunk in chunks)]) for k in (2, 3))
        error, mass, value, started = (numbers[:, k].copy() for k in (ERROR, MASS, VALUE, START))
        return Solved(f, g, f_more, g_more, status, nit, error, mass, value, started, first, found, eps_of)

    def extended(self, z: Array, base: Array, *, own: bool = False) -> Array:
        """The potential z of the first side, and next_f(base) at its points without weight."""
        if bool(np.all(self.a > 0)):
            return z
        items, out, base = self.items(self.eps, own=own), z.copy(), writable(base)

        def work(place: Workplace, begin: int, end: int) -> None:
            compiled_items.extend_items(items, place.room, place.place, begin, end, base, out)

        self.over_items(items, work, 1, 4)
        return out

    def slopes(self, extension: Array, base: Array, *, own: bool = False) -> Array:
        """sum_j exp((extension[i] + base[j] - C[i, j]) / eps) b[j] grad_1 C(x[i], y[j]) of every point.  -> (N, d)"""
        items = self.items(self.eps, own=own)
        out = np.zeros((self.rows.total, self.x.shape[1]))
        extension, base = writable(extension), writable(base)

        def work(place: Workplace, begin: int, end: int) -> None:
            compiled_items.slope_items(items, place.room, place.place, begin, end, extension, base, out)

        self.over_items(items, work, 1, 4)
        return out


def most_levels(start: Array, eps: Array, asked: Asked) -> int:
    """A bound on the length of the schedules."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(start > eps, start / eps, 1.0)
    longest = float(np.max(ratio[np.isfinite(ratio)], initial=1.0)) ** (1 / asked.degree)
    hot = int(np.ceil(np.log(longest) / -np.log(asked.scaling))) + 2
    return 2 * min(hot, asked.max_iter + 1) + 4


def one(
    x: Array, y: Array | None, cost: Cost | None, shape: tuple[int, int], a: Any, b: Any, eps: float
) -> Batch | None:
    """The batch of one problem between two measures; None where it is too large."""
    if max(shape) > LARGEST:
        return None
    rows, columns = (Layout(NOWHERE, NOWHERE, NOWHERE, np.array([size])) for size in shape)
    rho_a, rho_b = np.array([a.rho]), np.array([b.rho])
    return Batch(x, y, cost, rows, columns, a.weights, b.weights, np.array([eps]), rho_a, rho_b, 1)
