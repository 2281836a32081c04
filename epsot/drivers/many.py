"""Many problems in one call: what solves them at once, and the single solver for what is large or unusual."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from epsot import kernels
from epsot.arrays import to_numpy
from epsot.costs import Array
from epsot.drivers import choice
from epsot.drivers.at_once import RULES
from epsot.drivers.intermediate import BatchIntermediate
from epsot.drivers.one_by_one import OneByOne
from epsot.drivers.options import Options
from epsot.drivers.padded import LARGEST, PaddedBatch, Side
from epsot.drivers.starts import warm_start
from epsot.kernels.batches import UNSETTLED, Asked, Layout, Solved, Warm
from epsot.problems.batch import Batch, masses_of
from epsot.problems.instance import HOT, Instance
from epsot.results.batch import BatchResult
from epsot.results.batch_debiased import BatchDivergence
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult
from epsot.results.solved import Engine


@dataclass(frozen=True)
class ManyOptions:
    """What is asked of all items, checked: `options.start` stands for none of them."""

    options: Options
    start: np.ndarray | None  # of the shape of the batch: where annealing starts; None: at the scale of what has weight
    slopes: bool = True  # whether derivatives in the points may be asked for
    scale: np.ndarray | None = None  # of the costs of each item, where somebody knows it

    def of(self, k: int, instance: Instance) -> Options:
        """The options of one item."""
        start = math.inf if self.start is None else float(self.start.flat[k])
        if math.isinf(start):
            start = instance.core.scale()
        if not start < math.inf:
            raise ValueError(
                f"the costs must span a finite range, got {start} in item {k}; rescale the points, the matrix or "
                "`diameter`"
            )
        return replace(self.options, start=start)

    def asked(self, batch: Batch) -> Asked:
        options = self.options
        return Asked(
            batch.geometry.degree, options.scaling, options.tol, options.max_iter, self.start is not None, self.slopes
        )


Init = Any


def item_of(init: Init, k: int) -> Any:
    """The earlier result from which an item starts."""
    if init is None or isinstance(init, SinkhornResult | DivergenceResult):
        return init
    return init._item(k)


def layouts(batch: Batch, *, own: bool) -> tuple[Layout, Layout]:
    """Where the items of both sides lie; of each first measure with itself both are the first."""
    rows, columns = batch.layouts()
    return rows, rows if own else columns


def starts(batch: Batch, asked: ManyOptions, init: Init, *, own: bool) -> Warm:
    """The potentials of earlier results of all items, where they are a start; zero elsewhere."""
    count, xp, device = len(batch.geometry), batch.place.xp, batch.place.device
    known, eps = np.zeros(count, np.bool_), batch.eps.reshape(-1).copy()
    parts: tuple[list[Array], list[Array]] = ([], [])
    for k in range(count):
        instance, past = batch.instance(k), item_of(init, k)
        instance = instance.source() if own else instance
        past = past.xy if isinstance(past, DivergenceResult) else past
        found, eps[k] = warm_start(past, instance, asked.of(k, instance)), past.eps
        known[k] = found is not None
        for side, layout in enumerate(layouts(batch, own=own)):
            if found is None:
                parts[side].append(xp.zeros(int(layout.sizes[k]), dtype=xp.float64, device=device))
            else:
                parts[side].append((instance.side_a, instance.side_b)[side].scatter(found[side], 0.0))
    return Warm(known, xp.concat(parts[0]), xp.concat(parts[1]), eps)


def nothing(batch: Batch, *, own: bool) -> Solved:
    """All items left to the single solver."""
    xp, device, count = batch.place.xp, batch.place.device, math.prod(batch.shape)
    empty = [xp.zeros(z.total, dtype=xp.float64, device=device) for z in layouts(batch, own=own) * 2]
    none = np.full(count, UNSETTLED, np.int64)
    zero, nothing = np.zeros(count), np.empty(0)
    f, g, f_more, g_more = empty
    return Solved(f, g, f_more, g_more, none, none * 0, zero, zero, zero, zero, zero, none * 0, nothing, nothing)


def engine_of(
    batch: Batch,
    *,
    own: bool,
    callback: Callable[[Any], object] | None = None,
    tol: float | None = None,
    padded: bool = False,
) -> Engine | None:
    """What solves the items at once, or each first measure with itself; None where only the single solver can.

    A callback is called by items that are padded only.
    """
    points = batch.geometry.embedded()
    stored = batch.geometry.stored("C_xx" if own else "C")
    if points is None and stored is None:
        return None
    engine = None
    if not padded and callback is None:
        engine = compiled_engine(batch, points, stored, own=own)
        if engine is None and most_pairs(batch, own=own) > LARGEST:
            return None
    if engine is None:
        engine = padded_engine(batch, points, callback, tol, own=own)
    return engine.source() if own and points is not None else engine


def compiled_engine(
    batch: Batch, points: tuple[Array, Array] | None, stored: tuple[Array, np.ndarray] | None, *, own: bool
) -> Engine | None:
    """What solves items between points, or else of stored costs, by compiled code; None where there is none."""
    rows, columns = batch.layouts()
    measures = (batch.a.values, batch.b.values, batch.eps.reshape(-1), batch.rho_a.reshape(-1), batch.rho_b.reshape(-1))
    engine: Engine | None = None
    if points is not None and batch.geometry.family is not None:
        engine = kernels.point_batch(*points, batch.geometry.family, rows, columns, *measures, batch.workers)
    elif stored is not None:
        matrix, first = stored
        placed, others = rows._replace(points=first), rows if own else columns
        engine = kernels.matrix_batch(matrix, placed, others, *measures, batch.workers)
    return engine


def most_pairs(batch: Batch, *, own: bool) -> int:
    """Of the longest rows with the longest columns."""
    n, m = (int(sizes.max(initial=0)) for sizes in batch.geometry.sizes)
    return n * (n if own else m)


def padded_engine(
    batch: Batch,
    points: tuple[Array, Array] | None,
    callback: Callable[[Any], object] | None,
    tol: float | None,
    *,
    own: bool,
) -> Engine:
    """Items of one padded shape, in any library, between points or of matrices (B, n, m)."""
    geometry, (rows, columns), place = batch.geometry, batch.layouts(), batch.place
    x, y = points or (None, None)
    matrices = geometry.matrices("C_xx" if own else "C") if points is None else None
    a = Side(x, batch.a.values, rows, batch.rho_a.reshape(-1), place)
    b = Side(y, batch.b.values, columns, batch.rho_b.reshape(-1), place)
    scale, eps = geometry.rounded().reshape(-1), batch.eps.reshape(-1)
    scales = geometry.scale, lambda k: batch.instance(k).core.scale()
    engine = PaddedBatch(a, b, geometry.family, matrices, eps, scale, *scales)
    if callback is not None:
        engine.observe = follower(callback, batch, (a, b), tol)
    return engine


def follower(
    callback: Callable[[Any], object], batch: Batch, sides: tuple[Side, Side], tol: float | None
) -> Callable[[np.ndarray, np.ndarray, Any], object]:
    """What tells a callback of the iterations of a batch."""
    first: list[np.ndarray] = []  # the temperatures of the first iteration

    def follow(nit: np.ndarray, eps: np.ndarray, snapshot: Any) -> object:
        first[:] = first or [eps.copy()]
        return callback(BatchIntermediate(batch, nit, eps, snapshot, sides, first[0], tol))

    return follow


def solve_part(
    batch: Batch, asked: ManyOptions, init: Init, *, own: bool, given: dict[int, SinkhornResult] | None = None
) -> BatchResult:
    """The transports of all items, or each first measure with itself, but for those whose results are given."""
    options, singles = asked.options, dict(given or {})
    engine = engine_of(batch, own=own, callback=options.callback, tol=options.tol) if len(batch.geometry) else None
    solved = nothing(batch, own=own) if engine is None else at_once(engine, batch, asked, init, singles, own=own)
    observer = None if engine is not None or options.callback is None else OneByOne(batch, options.callback)
    solve = choice.solve_self if own else choice.solve_transport
    for k in np.flatnonzero(solved.status == UNSETTLED).tolist():
        if k not in singles:
            instance = batch.instance(k)  # what looks on has seen it, if there is an engine
            alone = replace(asked.of(k, instance), callback=None if observer is None else observer.of(k))
            singles[k] = solve(instance.source() if own else instance, alone, item_of(init, k))
    return BatchResult(batch, engine, solved, singles, options.tol, own)


def at_once(
    engine: Engine, batch: Batch, asked: ManyOptions, init: Init, known: Collection[int], *, own: bool
) -> Solved:
    """All items but those that are known already."""
    told, start = where_to_start(batch, asked, own=own)
    start[list(known)] = math.inf  # they are solved
    begins = init is not None and asked.options.tol is not None
    solved = engine.solve(told, start, RULES, starts(batch, asked, init, own=own) if begins else None, own=own)
    hot = hot_items(batch, asked, told, start, solved)
    return solved._replace(status=np.where(hot, UNSETTLED, solved.status))


def hot_items(batch: Batch, asked: ManyOptions, told: Asked, start: np.ndarray, solved: Solved) -> np.ndarray:
    """Which items are so far above their costs that the single solver has to look.  -> (B,)

    Of float32 points, where sums would lose the costs (`is_hot`), and of others where potentials would be off by more
    than was asked (`sharpened`). `start` is zero where annealing starts at the scale of the item.
    """
    geometry, eps, tol = batch.geometry, batch.eps.reshape(-1), asked.options.tol
    single = geometry.dtype == batch.place.xp.float32 and geometry.clouds is not None and not geometry.embeds()
    if not single and (tol is None or not np.any(eps > HOT * start)):
        return np.zeros(len(geometry), np.bool_)
    if asked.scale is not None:
        scale = asked.scale.reshape(-1)
    else:
        scale = geometry.scale().reshape(-1) if told.fixed else solved.start
    if not single:
        scale = np.maximum(start, scale)
    hot: np.ndarray = (eps > HOT * scale) & (scale > 0)
    if single or not np.any(hot):
        return hot
    balanced = np.isinf(batch.rho_a.reshape(-1)) & np.isinf(batch.rho_b.reshape(-1))
    masses = masses_of(batch.a, batch.place).reshape(-1), masses_of(batch.b, batch.place).reshape(-1)
    hot &= solved.error > choice.sharpened(tol, scale / eps, masses, balanced)
    return hot


def where_to_start(batch: Batch, asked: ManyOptions, *, own: bool) -> tuple[Asked, np.ndarray]:
    """What is asked of the items, and the temperatures at which they start annealing; 0 where that is their scale."""
    told, count = asked.asked(batch), len(batch.geometry)
    if own and asked.options.tol is not None:  # it needs no annealing
        return told._replace(fixed=True), np.zeros(count)
    if asked.start is not None:
        return told, asked.start.reshape(-1).copy()
    if batch.geometry.embeds():  # the scale is that of the user's points
        return told._replace(fixed=True), np.array([batch.instance(k).core.scale() for k in range(count)])
    return told, np.zeros(count)


def solve_transports(batch: Batch, asked: ManyOptions, init: Init) -> BatchResult:
    """Many transport problems."""
    return solve_part(batch, asked, init, own=False)


def solve_divergences(batch: Batch, asked: ManyOptions, init: Init) -> BatchDivergence:
    """Many divergences: three batches; where both measures of an item are one, one solve for all three."""
    parts = (init.xy, init.xx, init.yy) if hasattr(init, "xx") else (init, None, None)
    same = equal_items(batch)
    silent = replace(asked, options=replace(asked.options, callback=None))
    shared = {}
    for k in np.flatnonzero(same).tolist():
        instance = batch.instance(k)
        shared[k] = choice.solve_self(instance.source(), silent.of(k, instance), item_of(parts[1], k))
    xy = solve_part(batch, asked, parts[0], own=False, given=shared)
    if asked.start is None:  # all three start where the transport does
        known = np.where(xy.solved.status == UNSETTLED, math.inf, xy.solved.start)
        silent = replace(silent, start=known.reshape(batch.shape), scale=xy.solved.start)
    xx = solve_part(batch, silent, parts[1], own=True, given=shared)
    yy = solve_part(batch.T, silent, parts[2], own=True, given=shared)
    return BatchDivergence(xy, xx, yy, same)


def equal_items(batch: Batch) -> np.ndarray:
    """Which items are a measure and itself: the divergence of these is exactly zero.  -> (B,)"""
    geometry, xp = batch.geometry, batch.place.xp
    found: np.ndarray = (batch.rho_a == batch.rho_b).reshape(-1) & (geometry.sizes[0] == geometry.sizes[1]).reshape(-1)
    if geometry.clouds is not None and found.any():
        x, y = (
            xp.take(rows.values, xp.asarray(rows.first.reshape(-1), device=batch.place.device), axis=0)
            for rows in geometry.clouds
        )
        found = found & to_numpy(xp.all(x == y, axis=1))  # of the first points
    for k in np.flatnonzero(found).tolist():
        found[k] = geometry.item(k).is_self() and bool(xp.all(batch.a.item(k) == batch.b.item(k)))
    return found
