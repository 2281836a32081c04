"""Batches of small problems: each is solved in compiled code, one on each thread at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epsot.costs import Cost
from epsot.kernels.batches import UNSETTLED, Asked, Layout, Rules, Solved, Warm
from epsot.kernels.cpu import item_slopes, item_solves
from epsot.kernels.cpu.advance import ROWS, STAGES, VALUES, totals_of
from epsot.kernels.cpu.chunks import CHUNK
from epsot.kernels.cpu.clouds import writable
from epsot.kernels.cpu.dense import WIDTH
from epsot.kernels.cpu.items import (
    ERROR,
    FIRST,
    LOGIT_ERROR,
    MASS,
    NIT,
    NUMBERS,
    RANGE,
    START,
    STATUS,
    STORED,
    VALUE,
    Items,
    Place,
    Request,
)
from epsot.kernels.cpu.levels import Levels
from epsot.kernels.cpu.mixing import Memory
from epsot.kernels.cpu.resident import Room
from epsot.kernels.cpu.solves import Ends
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, SQUARE
from epsot.kernels.cpu.threads import MOST_THREADS, run, usable_workers

Array = NDArray[Any]

LARGEST = CHUNK  # points of one side: the arithmetic of the acceleration takes one piece
STEP_WORK = 1.0e8  # pairs that are met in a step, about: some ten milliseconds, after which an interrupt is heard
NOTES = 2**24  # errors of iterations for which a step makes room: of small problems it would be more
SWEEPS = 40  # of an item, about
LEVELS = 64  # of a schedule: room for most
LONGEST = 4096  # iterations: the solver goes on where an item needs more, and an interrupt is heard
FEW_DIMENSIONS = 8  # in which slopes that nobody asks for cost little
KEPT_PAIRS, KEPT_SHAPES = 2**14, 16  # workplaces that are kept: a few hundred kilobytes each
CACHE_LINE = 64  # bytes
KINDS = {"square": SQUARE, "euclidean": EUCLIDEAN, "cityblock": CITYBLOCK}
NO_POINTS = np.zeros((1, 1))
NO_SLOPES = np.zeros((0, 1)), np.zeros((0, 1))
NOWHERE, NONE = np.zeros(1, np.int64), np.zeros(1)


def width(size: int) -> int:
    return -(-size // WIDTH) * WIDTH


def zeros(shape: int | tuple[int, ...], dtype: Any = np.float64) -> Array:
    """An array that begins with a line of the cache: else each vector of 64 bytes would lie in two of them."""
    kind, sizes = np.dtype(dtype), shape if isinstance(shape, tuple) else (shape,)
    room = np.zeros(math.prod(sizes) * kind.itemsize + CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % CACHE_LINE
    found: Array = room[begin : begin + math.prod(sizes) * kind.itemsize].view(kind).reshape(sizes)
    return found


class Workplace:
    """The memory of one thread, for items of at most n and m points in d dimensions."""

    def __init__(self, shape: tuple[int, int, int, int, str]) -> None:
        self.shape = shape
        n, m, d, levels, dtype = shape
        longer = max(n, m)
        self.room = Room(
            zeros((n, m)), zeros((n, m), dtype), zeros(n), zeros(m), zeros(m, dtype), zeros(n, dtype),
            zeros(m, dtype), zeros(m, dtype), zeros(n), zeros((4, longer)), zeros(1),
            zeros(2),
        )  # fmt: skip
        self.place = Place(
            zeros((d, n)), zeros((d, m)), zeros(d), zeros(n, np.int64), zeros(m, np.int64),
            zeros((2, n)), zeros((2, m)),
        )  # fmt: skip
        partial = zeros((STAGES - 1, 1, VALUES))
        self.memory = Memory(
            zeros((1, ROWS, m)), zeros((1, ROWS, m)), zeros((2, 1, 2, m)), zeros(m), zeros(m),
            partial, totals_of(partial), zeros(5), zeros(5, np.int64),
            zeros(2), zeros((2, m)), zeros(ROWS, np.int64), zeros((2, ROWS)),
        )  # fmt: skip
        self.ends = Ends(
            zeros((3, n)), zeros((3, m)), zeros((3, m)), zeros((3, m)), zeros(m), zeros((2, m)),
            zeros(2),
        )  # fmt: skip
        self.levels = Levels(zeros(levels), zeros(levels, np.int64), zeros(levels), zeros(levels))


FREE: dict[tuple[int, int, int, int, str], deque[Workplace]] = {}  # of small problems: to make one takes as long


def workplace(shape: tuple[int, int, int, int, str]) -> Workplace:
    """One that nobody uses. What it holds does not matter but for where it is padded, which every solve restores."""
    try:
        return FREE[shape].pop()
    except (KeyError, IndexError):
        return Workplace(shape)


def give_back(place: Workplace) -> None:
    """For the next problem of its size."""
    n, m, d, *_ = place.shape
    if n * m > KEPT_PAIRS or max(n, m) * d > KEPT_PAIRS:
        return
    if place.shape not in FREE and len(FREE) >= KEPT_SHAPES:
        FREE.clear()
    FREE.setdefault(place.shape, deque(maxlen=MOST_THREADS)).append(place)


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

    kind = "compiled"

    def __init__(
        self, x: Array, y: Array | None, cost: Cost | None, rows: Layout, columns: Layout, a: Array, b: Array,
        eps: Array, rho_a: Array, rho_b: Array, workers: int | None = None,
    ) -> None:  # fmt: skip
        # Stored costs may hold constants of rows and columns, of which float32 would leave nothing else.
        self.dtype = np.dtype(np.float64) if cost is None else x.dtype
        self.x, self.y, self.cost = writable(x, self.dtype), NO_POINTS if y is None else writable(y), cost
        self.rows, self.columns, self.a, self.b = rows, columns, writable(a), writable(b)
        self.eps, self.rho = writable(eps), np.array([rho_a, rho_b])
        self.workers = usable_workers(workers)

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

    def items(self, start: Array, warm: Warm | None = None, *, own: bool) -> Items:
        rows, columns = self.rows, self.columns
        parts = rows.points, columns.points, rows.weights, columns.weights, rows.values, columns.values
        first = np.concatenate(parts).reshape(6, -1)  # of vectors in a third of the time of np.array
        sizes = np.concatenate((rows.sizes, columns.sizes)).reshape(2, -1)
        if sizes.max(initial=0) > LARGEST:
            sizes[:, (sizes > LARGEST).any(axis=0)] = 0  # not read, and left to the solver
        kind = STORED if self.cost is None else KINDS[str(self.cost.kind)]
        factor = 1.0 if self.cost is None else float(self.cost.factor)
        known, *past = np.zeros(len(self.eps), np.bool_), NONE, NONE, self.eps
        if warm is not None:
            known, *past = warm.known, *map(writable, warm[1:])
        return Items(
            self.x, self.y, kind, factor, first, sizes, self.a, self.b, self.eps, writable(start, np.float64), self.rho,
            own, known, *past,
        )  # fmt: skip

    def over_items(
        self, items: Items, work: Callable[[Workplace, int, int], object], levels: int, sweeps: int, notes: int = 1
    ) -> None:
        """work(workplace, begin, end) over all items, each with room for some notes, on the threads of the batch."""
        count = len(self.eps)
        if count == 0:
            return
        n, m = items.sizes.max(axis=1).tolist()
        shape = width(n), width(m), 1 if self.cost is None else self.x.shape[1], max(LEVELS, levels), self.dtype.str
        step = count if self.workers == 1 else -(-count // (4 * self.workers))
        step = max(1, min(step, NOTES // notes))
        if step * (n * m + 100.0) * sweeps > STEP_WORK:  # of items as large as the largest
            pairs = float((items.sizes[0] * items.sizes[1]).sum()) / count + 100.0
            step = max(1, min(int(STEP_WORK / (pairs * sweeps)), step))

        def task(number: int) -> Iterator[object]:
            place = workplace(shape)
            yield work(place, number * step, min(count, (number + 1) * step))
            give_back(place)

        run(task, -(-count // step), self.workers)

    def solve(self, asked: Asked, start: Array, rules: Rules, warm: Warm | None = None, *, own: bool = False) -> Solved:
        """All items; `own`: each first measure with itself."""
        items, count = self.items(start, warm, own=own), len(self.eps)
        n, m = self.rows.total, self.columns.total
        f, g, f_more, g_more = out = np.zeros(n), np.zeros(m), np.zeros(n), np.zeros(m)
        numbers = np.zeros((count, NUMBERS))
        slopes, most = NO_SLOPES, min(asked.max_iter, LONGEST)
        if self.slopes_at_once(asked):
            d = self.x.shape[1]
            slopes = np.empty((n, d)), np.empty((0 if own else m, d))  # a settled item leaves them all
        told = Request(asked.degree, asked.scaling, asked.tol or 0.0, most, asked.fixed, slopes is not NO_SLOPES)
        kernel = item_solves.self_items if own else item_solves.transport_items
        if asked.tol is None:
            kernel = item_solves.schedule_items
        chunks: list[tuple[int, int, Array, Array]] = []
        levels = most_levels(items.start, self.eps, asked)
        rules = rules._replace(precision=2.0**-24 if self.dtype == np.float32 else 2.0**-53)

        def work(place: Workplace, begin: int, end: int) -> None:
            length = (end - begin) * most if asked.tol is not None else 1
            found, eps_of = np.empty(length), np.empty(length)
            used = kernel(
                items, told, rules, place.room, place.place, place.memory, place.ends, place.levels, begin, end, out,
                numbers, found, eps_of, slopes,
            )  # fmt: skip
            chunks.append((begin, end, found[:used].copy(), eps_of[:used].copy()))

        self.over_items(items, work, levels, SWEEPS, most)
        lines = numbers.T.copy()
        first, status, nit = (lines[k].astype(np.int64) for k in (FIRST, STATUS, NIT))
        error, rounding, mass = lines[ERROR], lines[LOGIT_ERROR], lines[MASS]
        value, started = lines[VALUE], lines[START]
        if asked.max_iter > most:
            status[nit >= most] = UNSETTLED
        if slopes is not NO_SLOPES:
            for k in np.flatnonzero(status == UNSETTLED).tolist():
                slopes[0][self.rows.of(k)] = 0.0
                slopes[1][slice(0) if own else self.columns.of(k)] = 0.0
        found, eps_of = joined(chunks, first)
        made = (None, None) if slopes is NO_SLOPES else slopes
        return Solved(
            f, g, f_more, g_more, status, nit, error, rounding, mass, value, started, first, found, eps_of, *made
        )

    def slopes_at_once(self, asked: Asked) -> bool:
        """Whether the solves leave slopes: while the matrix is there, those of squares take a few sweeps."""
        if not asked.slopes or asked.tol is None or self.cost is None or self.x.shape[1] > FEW_DIMENSIONS:
            return False
        return self.cost.kind == "square" and bool(np.all(self.a > 0) and np.all(self.b > 0))

    def extended(self, z: Array, base: Array, *, own: bool = False) -> Array:
        """The potential z of the first side, and next_f(base) at its points without weight."""
        if bool(np.all(self.a > 0)):
            return z
        items, out, base = self.items(self.eps, own=own), z.copy(), writable(base)

        def work(place: Workplace, begin: int, end: int) -> None:
            item_slopes.extend_items(items, place.room, place.place, begin, end, base, out)

        self.over_items(items, work, 1, 4)
        return out

    def slopes(self, extension: Array, base: Array, *, own: bool = False) -> Array:
        """sum_j exp((extension[i] + base[j] - C[i, j]) / eps) b[j] grad_1 C(x[i], y[j]) of every point.  -> (N, d)"""
        items = self.items(self.eps, own=own)
        out = np.zeros((self.rows.total, self.x.shape[1]))
        extension, base = writable(extension), writable(base)

        def work(place: Workplace, begin: int, end: int) -> None:
            item_slopes.slope_items(items, place.room, place.place, begin, end, extension, base, out)

        self.over_items(items, work, 1, 4)
        return out


def joined(chunks: list[tuple[int, int, Array, Array]], first: Array) -> tuple[Array, Array]:
    """What stretches of items, begin, ... < end, have left of each iteration; `first` becomes where an item begins."""
    if len(chunks) == 1:
        return chunks[0][2:]
    chunks.sort(key=itemgetter(0))
    length = 0
    for begin, end, part, _ in chunks:
        first[begin:end] += length
        length += len(part)
    found, eps_of = (np.concatenate([NONE[:0], *(chunk[k] for chunk in chunks)]) for k in (2, 3))
    return found, eps_of


def most_levels(start: Array, eps: Array, asked: Asked) -> int:
    """A bound on the length of the schedules."""
    if not len(eps):
        return 1
    ratio = RANGE  # no item spans more
    if asked.fixed:
        ratio = min(RANGE, max(1.0, float((start / eps).max())))
    hot = math.ceil(math.log(ratio) / asked.degree / -math.log(asked.scaling)) + 2
    return 2 * min(hot, asked.max_iter + 1) + 4


def both(x: Array, y: Array, cost: Cost, a: Any, b: Any, eps: float) -> Batch | None:
    """The batch of two measures, each with itself; None where one is too large."""
    n, m = len(x), len(y)
    if max(n, m) > LARGEST:
        return None
    begin = np.array([0, n])
    rows, rho = Layout(begin, begin, begin, np.array([n, m])), np.array([a.rho, b.rho])
    points, weights = np.concatenate([x, y]), np.concatenate([a.weights, b.weights])
    return Batch(points, points, cost, rows, rows, weights, weights, np.array([eps, eps]), rho, rho, 1)


def one(
    x: Array, y: Array | None, cost: Cost | None, shape: tuple[int, int], a: Any, b: Any, eps: float
) -> Batch | None:
    """The batch of one problem between two measures; None where it is too large."""
    if max(shape) > LARGEST:
        return None
    rows, columns = (Layout(NOWHERE, NOWHERE, NOWHERE, np.array([size])) for size in shape)
    rho_a, rho_b = np.array([a.rho]), np.array([b.rho])
    return Batch(x, y, cost, rows, columns, a.weights, b.weights, np.array([eps]), rho_a, rho_b, 1)
