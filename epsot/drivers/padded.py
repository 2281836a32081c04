"""Batches in any array-API library: items padded to one shape, and solved by batched operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsot import kernels
from epsot.arrays import Place, to_numpy
from epsot.costs import Array, Cost
from epsot.drivers import portable
from epsot.kernels import batched
from epsot.kernels.batches import UNSETTLED, Asked, Layout, Rules, Solved, Warm
from epsot.problems.many import Measures, Problems
from epsot.solver.many.loop import Observer
from epsot.status import Status

LARGEST = 2**22  # pairs of an item: larger ones are solved one after the other


@dataclass(frozen=True, eq=False)
class Side:
    """The points and weights of one side of all items, flat, and where they lie."""

    points: Array | None  # (N, d); None of stored costs
    weights: Array
    layout: Layout
    rho: np.ndarray  # (B,)
    place: Place

    @property
    def width(self) -> int:
        return int(self.layout.sizes.max(initial=0))

    def places(self, first: np.ndarray) -> tuple[Array, np.ndarray]:
        """The flat number of each place of the padded array, and which places are padding.  (B, n)"""
        ahead = np.arange(self.width)[None, :]
        beyond = ahead >= self.layout.sizes[:, None]
        return first[:, None] + np.where(beyond, 0, ahead), beyond

    def padded(self, flat: Array, first: np.ndarray, padding: float | None = None) -> Array:
        """Flat numbers, or points, as (B, n, ...); without a number of its own, padding repeats the first."""
        xp, (index, beyond) = self.place.xp, self.places(first)
        found = xp.take(flat, xp.asarray(index.reshape(-1), device=self.place.device), axis=0)
        found = xp.reshape(found, (*index.shape, *flat.shape[1:]))
        if padding is None or not beyond.any():
            return found
        return xp.where(xp.asarray(beyond, device=self.place.device), xp.full_like(found, padding), found)

    def flat(self, padded: Array) -> Array:
        """Back from (B, n, ...) to one item after the other."""
        xp, sizes = self.place.xp, self.layout.sizes
        whole = xp.reshape(padded, (padded.shape[0] * padded.shape[1], *padded.shape[2:]))
        if (sizes == self.width).all():
            return whole
        index = np.flatnonzero(~self.places(self.layout.values)[1].reshape(-1))
        return xp.take(whole, xp.asarray(index, device=self.place.device), axis=0)

    @property
    def cloud(self) -> Array:
        """(B, n, d), or (1, n, d) where all items share their points."""
        assert self.points is not None
        first = self.layout.points
        shared = len(first) > 0 and (first == first[0]).all() and (self.layout.sizes == self.width).all()
        if shared:
            return self.points[int(first[0]) : int(first[0]) + self.width, :][None, :, :]
        return self.padded(self.points, first)


class PaddedBatch:
    """What solves a batch in the library of its arrays, as the compiled batches do for NumPy."""

    kind = "padded"

    def __init__(
        self, a: Side, b: Side, cost: Cost | None, matrices: Array | None, eps: np.ndarray, scale: np.ndarray,
        scales: Callable[[], np.ndarray], core_scale: Callable[[int], float],
    ) -> None:  # fmt: skip
        self.a, self.b, self.cost, self.matrices, self.eps, self.scale = a, b, cost, matrices, eps, scale
        self.scales = scales  # where annealing starts if all points count
        self.core_scale = core_scale  # of an item: where annealing starts if only the points with weight count
        self.observe: Observer | None = None
        self.rows, self.columns, self.place = a.layout, b.layout, a.place

    def __getstate__(self) -> dict[str, Any]:
        """Without what only a solve needs, and what belongs to one process."""
        return {**vars(self), "scales": None, "core_scale": None, "observe": None}

    @property
    def T(self) -> PaddedBatch:
        xp = self.place.xp
        matrices = None if self.matrices is None else xp.matrix_transpose(self.matrices)
        return PaddedBatch(self.b, self.a, self.cost, matrices, self.eps, self.scale, self.scales, self.core_scale)

    def source(self) -> PaddedBatch:
        return PaddedBatch(self.a, self.a, self.cost, self.matrices, self.eps, self.scale, self.scales, self.core_scale)

    @property
    def kernel(self) -> Any:
        """The reductions over the pairs of all items."""
        if self.cost is None:
            return kernels.padded_matrices(self.matrices)
        return kernels.padded_points(self.a.cloud, self.b.cloud, self.cost)

    def problems(self, *, own: bool) -> Problems:
        sides = [
            Measures.of(side.padded(side.weights, side.layout.weights, 0.0), None, side.rho, side.place)
            for side in ((self.a,) if own else (self.a, self.b))
        ]
        return Problems(self.kernel, sides[0], sides[-1], self.eps, self.scale, own=own)

    def solve(
        self, asked: Asked, start: np.ndarray, rules: Rules, warm: Warm | None = None, *, own: bool = False
    ) -> Solved:
        """All items that have a start, by the decisions of the solver."""
        problems, known = self.problems(own=own), np.isfinite(start)
        if not asked.fixed:
            start = self.started(start)
        start = np.where(known, start, self.eps)
        more: dict[str, Any] = {}
        if warm is not None:
            a, b = self.a, self.a if own else self.b
            more = {
                "f": a.padded(warm.f, a.layout.values, 0.0), "g": b.padded(warm.g, b.layout.values, 0.0),
                "warm": warm.known, "restart": start,
            }  # fmt: skip
        begin = start if warm is None else np.where(warm.known, np.minimum(start, warm.eps), start)
        found = portable.solve(
            problems, begin, degree=asked.degree, scaling=asked.scaling, tol=asked.tol, max_iter=asked.max_iter,
            observe=self.observe, **more,
        )  # fmt: skip
        fine = known & (found.settled | (found.status == int(Status.STOPPED)))
        error, mass, value = measured(problems, found)
        lengths = np.array([len(history) for history in found.history], np.int64)
        checks = [check for history in found.history for check in history]
        return Solved(
            *self.potentials(found, asked.tol, own=own), np.where(fine, found.status, UNSETTLED), found.nit, error,
            found.logit_error, mass, value, start, np.cumsum(lengths) - lengths,
            np.array([check.marginal_error for check in checks]), np.array([check.eps for check in checks]),
        )  # fmt: skip

    def started(self, start: np.ndarray) -> np.ndarray:
        """Where annealing starts: at the scale of what has weight, inf of items that are not to be solved."""
        xp, zeros = self.place.xp, np.zeros(len(start), bool)
        for side in (self.a, self.b):
            weights = side.padded(side.weights, side.layout.weights, 1.0)
            zeros |= to_numpy(xp.any(weights == 0, axis=1))
        found = np.where(np.isfinite(start), self.scales().reshape(-1), math.inf)
        for k in np.flatnonzero(zeros & np.isfinite(start)).tolist():
            found[k] = min(found[k], self.core_scale(k))
        return found

    def potentials(
        self, found: portable.Outcomes, tol: float | None, *, own: bool
    ) -> tuple[Array, Array, Array, Array]:
        """f, g, and what extends them, flat, as in `Solved`."""
        a, b, none = self.a, self.a if own else self.b, found.f * 0.0
        f_map, g_map = found.f_map or (found.f, found.g), found.g_map or (found.g, found.f)
        if own:
            nothing = b.flat(none)
            return a.flat(found.f), nothing, a.flat(f_map[1] if tol is None else f_map[0]), nothing
        if tol is None:
            return a.flat(found.f), b.flat(found.g), a.flat(g_map[1]), b.flat(f_map[1])
        return a.flat(found.f), b.flat(found.g), a.flat(none), b.flat(g_map[0])

    def extended(self, z: Array, base: Array, *, own: bool = False) -> Array:
        """z: it is extended already."""
        return z

    def slopes(self, extension: Array, base: Array, *, own: bool = False) -> Array:
        """sum_j exp((extension[i] + base[j] - C[i, j]) / eps) b[j] grad_1 C(x[i], y[j]) of every point."""
        xp, device = self.place.xp, self.place.device
        a, b = self.a, self.a if own else self.b
        eps = xp.asarray(np.array(self.eps), device=device)
        with np.errstate(divide="ignore"):
            logs = xp.log(b.padded(b.weights, b.layout.weights, 0.0))
        k = a.padded(extension, a.layout.values, 0.0) / eps[:, None]
        h = logs + b.padded(base, b.layout.values, 0.0) / eps[:, None]
        assert self.cost is not None
        return a.flat(batched.Points(a.cloud, b.cloud, self.cost).cost_gradient(k, h, eps))


def measured(problems: Problems, found: portable.Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The marginal errors, the masses of the plans, and the values of all problems, on the host."""
    a, b, xp = problems.a, problems.b, problems.place.xp
    eps = a.on_device(problems.eps)
    error, mass = found.error, found.mass
    if np.isnan(mass).any() and problems.count:
        f, g = a.counted(found.f), b.counted(found.g)
        with np.errstate(all="ignore"):
            next_f, next_g = problems.next_pair(f, g, eps)
            (of_f, of_plan), (of_g, _) = a.marginals(f, next_f, eps), b.marginals(g, next_g, eps)
        error, mass = to_numpy(xp.maximum(of_f, of_g)), to_numpy(of_plan)
    shares = [share_of_value(side, z) for side, z in ((a, found.f), (b, found.g))]
    return error, mass, shares[0] + shares[1] - problems.eps * (mass - a.mass * b.mass)


def share_of_value(side: Measures, f: Array) -> np.ndarray:
    """<a, f>, or rho <a, 1 - exp(-f / rho)>, on the host.  -> (B,)"""
    xp, f = side.place.xp, side.counted(f)
    if side.all_balanced:
        return to_numpy(side.dot(f))
    with np.errstate(all="ignore"):
        bound, rho = xp.isinf(side.strengths), side.strengths
        rho = xp.where(bound, xp.ones_like(rho), rho)
        return to_numpy(side.dot(xp.where(bound, f, -rho * xp.expm1(-f / rho))))
