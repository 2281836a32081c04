"""Many problems in one call: what solves them at once, and the single solver for what is large or unusual."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from epsot import kernels
from epsot.arrays import to_numpy
from epsot.drivers import choice
from epsot.drivers.at_once import RULES
from epsot.drivers.intermediate import BatchIntermediate
from epsot.drivers.options import Options
from epsot.drivers.padded import LARGEST, PaddedBatch, Side
from epsot.geometry.batches import PointClouds
from epsot.kernels.batches import UNSETTLED, Asked, Layout, Solved
from epsot.problems.batch import Batch
from epsot.problems.instance import Instance
from epsot.results.batch import BatchResult, Engine
from epsot.results.batch_debiased import BatchDivergence
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult


@dataclass(frozen=True)
class ManyOptions:
    """What is asked of all items, checked: `options.start` stands for none of them."""

    options: Options
    start: np.ndarray  # of the shape of the batch: the temperature at which annealing starts
    fixed: bool  # whether that was given

    def of(self, k: int, instance: Instance) -> Options:
        """The options of one item: annealing starts at the scale of what has weight."""
        start = float(self.start.flat[k])
        if not self.fixed and instance.core is not instance.geometry:
            start = min(start, instance.core.scale())
        return replace(self.options, start=start)

    def asked(self, batch: Batch) -> Asked:
        options = self.options
        return Asked(batch.geometry.degree, options.scaling, options.tol, options.max_iter, self.fixed)


Init = Any


def item_of(init: Init, k: int) -> Any:
    """The earlier result from which an item starts."""
    if init is None or isinstance(init, SinkhornResult | DivergenceResult):
        return init
    return init._item(k)


def nothing(batch: Batch, rows: Layout, columns: Layout) -> Solved:
    """All items left to the single solver."""
    xp, device, count = batch.place.xp, batch.place.device, math.prod(batch.shape)
    empty = [xp.zeros(z.total, dtype=xp.float64, device=device) for z in (rows, columns) * 2]
    none = np.full(count, UNSETTLED, np.int64)
    zero = np.zeros(count)
    f, g, f_more, g_more = empty
    return Solved(f, g, f_more, g_more, none, none * 0, zero, zero, zero, zero, none * 0, np.empty(0), np.empty(0))


def engine_of(batch: Batch, *, own: bool, callback: Callable[[Any], object] | None = None) -> Engine | None:
    """What solves the items at once, or each first measure with itself; None where only the single solver can."""
    geometry, eps = batch.geometry, batch.eps.reshape(-1)
    rows, columns = batch.layouts()
    common = (batch.a.values, batch.b.values, eps, batch.rho_a.reshape(-1), batch.rho_b.reshape(-1))
    x = y = cost = matrix = engine = None
    if isinstance(geometry, PointClouds):
        cost = geometry.cost.family
        x = geometry.cost.embed(geometry.x.values)
        y = x if geometry.y.values is geometry.x.values else geometry.cost.embed(geometry.y.values)
        if callback is None:
            engine = kernels.point_batch(x, y, cost, rows, columns, *common, batch.workers)
    else:
        stored = geometry.stored("C_xx" if own else "C")
        if stored is None:
            return None
        matrix, first = stored
        if callback is None:
            placed = rows._replace(points=first)
            engine = kernels.matrix_batch(matrix, placed, rows if own else columns, *common, batch.workers)
    if engine is None:
        pairs = int(rows.sizes.max(initial=0)) * int(rows.sizes.max(initial=0) if own else columns.sizes.max(initial=0))
        if callback is None and pairs > LARGEST:
            return None
        a = Side(x, batch.a.values, rows, batch.rho_a.reshape(-1), batch.place)
        b = Side(y, batch.b.values, columns, batch.rho_b.reshape(-1), batch.place)
        matrices = None if matrix is None else geometry.matrices("C_xx" if own else "C")
        scale = geometry.rounded().reshape(-1)
        engine = PaddedBatch(a, b, cost, matrices, eps, scale, lambda k: batch.instance(k).core.scale())
        if callback is not None:
            engine.observe = lambda nit, at, shot: callback(BatchIntermediate(batch, nit, at, shot, (a, b)))
    return engine.source() if own and matrix is None else engine


def solve_part(
    batch: Batch, asked: ManyOptions, init: Init, *, own: bool, given: dict[int, SinkhornResult] | None = None
) -> BatchResult:
    """The transports of all items, or each first measure with itself, but for those whose results are given."""
    options, singles = asked.options, dict(given or {})
    rows, columns = batch.layouts()
    engine = None if init is not None else engine_of(batch, own=own, callback=options.callback)
    solved = nothing(batch, rows, rows if own else columns)
    if engine is not None:
        start = np.zeros(len(rows.sizes)) if own and options.tol is not None else asked.start.reshape(-1).copy()
        start[list(singles)] = math.inf  # not usual
        solved = engine.solve(asked.asked(batch), start, RULES, own=own)
    solve = choice.solve_self if own else choice.solve_transport
    for k in np.flatnonzero(solved.status == UNSETTLED).tolist():
        if k not in singles:
            instance = batch.instance(k)
            told = asked.of(k, instance)
            if engine is not None:  # what looks on has seen it
                told = replace(told, callback=None)
            singles[k] = solve(instance.source() if own else instance, told, item_of(init, k))
    return BatchResult(batch, engine, solved, singles, options.tol, own)


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
    if not asked.fixed:  # all three start where the transport does
        known = np.where(xy.solved.status == UNSETTLED, math.inf, xy.solved.start).reshape(batch.shape)
        silent = replace(silent, start=np.minimum(silent.start, known))
    xx = solve_part(batch, silent, parts[1], own=True, given=shared)
    yy = solve_part(batch.T, silent, parts[2], own=True, given=shared)
    return BatchDivergence(xy, xx, yy, same)


def equal_items(batch: Batch) -> np.ndarray:
    """Which items are a measure and itself: the divergence of these is exactly zero.  -> (B,)"""
    geometry, xp = batch.geometry, batch.place.xp
    found: np.ndarray = (batch.rho_a == batch.rho_b).reshape(-1) & (geometry.sizes[0] == geometry.sizes[1]).reshape(-1)
    if isinstance(geometry, PointClouds) and found.any():
        x, y = (
            xp.take(rows.values, xp.asarray(rows.first.reshape(-1), device=batch.place.device), axis=0)
            for rows in (geometry.x, geometry.y)
        )
        found = found & to_numpy(xp.all(x == y, axis=1))  # of the first points
    for k in np.flatnonzero(found).tolist():
        found[k] = geometry.item(k).is_self() and bool(xp.all(batch.a.item(k) == batch.b.item(k)))
    return found
