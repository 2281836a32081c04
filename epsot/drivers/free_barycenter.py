"""Clouds between clouds: steps of all points towards where the divergences pull them, by the one loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from epsot.archives import Observed
from epsot.arrays import Place, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.drivers.choice import solve_self, solve_transport
from epsot.drivers.intermediate import cooled
from epsot.drivers.options import Options
from epsot.geometry import PointCloud
from epsot.geometry.multiscale import coarsened
from epsot.problems.instance import Instance, posed
from epsot.results.debiased import DivergenceResult
from epsot.results.free_barycenter import FreeBarycenterResult
from epsot.results.result import SinkhornResult
from epsot.solver.loop import Check, anneal
from epsot.solver.schedule import Level
from epsot.solver.updates import Iteration
from epsot.status import Status

INNER = 0.1  # marginal error of the divergences, beside the movement that ends the steps
INNER_STEPS = 1000  # of each of them


@dataclass(frozen=True, eq=False)
class Clouds:
    """The clouds between which one is sought, checked, with weights in float64 of one mass."""

    place: Place
    dtype: Any  # of what is handed out
    points: tuple[Array, ...]  # (m_k, d)
    weights: tuple[Array, ...]  # (m_k,)
    shares: tuple[float, ...]
    mass: float
    blur: float
    eps: float
    rounding: float
    workers: int | None

    def towards(self, x: Array, k: int) -> Instance:
        """The transport from points of equal weights, (n, d) in float64, to cloud k."""
        xp, n = self.place.xp, x.shape[0]
        geometry = coarsened(PointCloud(xp.astype(x, self.dtype), self.points[k]))
        a = xp.full((n,), self.mass / n, dtype=xp.float64, device=self.place.device)
        return posed(
            geometry, (a, self.weights[k]), (True, True), eps=self.eps, rho=(None, None), rho_name="reach",
            workers=self.workers, rounding=self.rounding, equal=True,
        )  # fmt: skip


@dataclass(frozen=True)
class FreeState:
    """Points, the divergences from them, and where these pull."""

    points: Array  # (n, d) in float64
    parts: tuple[DivergenceResult, ...]
    displacement: Array  # (n, d)
    movement: float  # the root of its mean square, over the blur


@dataclass(frozen=True)
class Moving(Iteration[FreeState]):
    """x <- x + sum_k t_k displacement_k: the step of length one of gradient descent in the Wasserstein metric.

    Exact where the maps are translations. Each solve starts where the last one ended; the self-transport of the moving
    cloud is one for all, those of the others are solved once. Mixing steps as elsewhere saved nothing.
    """

    clouds: Clouds
    options: Options  # of the divergences

    def init(self, points: Array) -> FreeState:
        return FreeState(points, (), self.clouds.place.xp.zeros_like(points), math.inf)

    def step(self, state: FreeState, eps: float) -> FreeState:
        clouds, xp = self.clouds, self.clouds.place.xp
        points = state.points + state.displacement
        instances = [clouds.towards(points, k) for k in range(len(clouds.shares))]
        past = state.parts
        own = self.solved(instances[0].source(), past[0].xx if past else None, solve_self)
        parts = []
        for k, instance in enumerate(instances):
            there = self.solved(instance, past[k].xy if past else None, solve_transport)
            other = past[k].yy if past else self.solved(instance.T.source(), None, solve_self)
            parts.append(DivergenceResult(there, own, other))
        move = xp.zeros_like(points)
        for share, part in zip(clouds.shares, parts, strict=True):
            if share > 0:
                move = move + share * (own.source.slope - part.xy.source.slope)
        movement = math.sqrt(float(xp.mean(xp.sum(move * move, axis=1)))) / clouds.blur
        return FreeState(points, tuple(parts), move, movement)

    def solved(
        self, instance: Instance, past: SinkhornResult | None, solve: Callable[..., SinkhornResult]
    ) -> SinkhornResult:
        """From the last solve of the same transport, between points that have moved since."""
        options = replace(self.options, start=min(self.options.start, instance.core.scale()))
        return solve(instance, options, past)

    def error(self, state: FreeState, eps: float) -> float:
        return state.movement

    def finish(self, state: FreeState, eps: float) -> FreeState:
        return state


@device_aware
class FreeIntermediate(Observed):
    """The record that a callback gets after each step: `nit`, `eps`, `movement`, and on demand `points`.

    `save` writes what it is so far as a result, whose points another solve begins with.
    """

    def __init__(self, nit: int, eps: float, state: FreeState, clouds: Clouds, tol: float, first: float) -> None:
        self.nit, self.eps, self.movement = nit, eps, state.movement
        self._state, self._clouds, self._tol, self._first = state, clouds, tol, first

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self._clouds.place

    @property
    def points(self) -> Array:
        """The points of this step, (n, d)."""
        return in_dtype(self._state.points, self._clouds.dtype, self.place)

    @property
    def progress(self) -> float:
        """How far the points have come to rest, in [0, 1], as the logarithm of the movement falls from the first."""
        return cooled(self.movement, self._first, self._tol)

    def record(self) -> FreeBarycenterResult:
        """A result that was stopped here: what of this outlives the solve."""
        return result_of(self._clouds, self._state, Status.STOPPED, self.nit, (), self._tol)

    def __repr__(self) -> str:
        return f"FreeIntermediate(nit={self.nit}, movement={self.movement:.2e})"


def solve_free_barycenter(clouds: Clouds, points: Array, options: Options) -> FreeBarycenterResult:
    """Step until the points rest; the status is the worst of that and of the last divergences."""
    tol, callback = options.tol, options.callback
    assert tol is not None
    inner = replace(options, tol=INNER * tol, callback=None, max_iter=INNER_STEPS)
    update = Moving(clouds, inner)
    observe: Callable[[int, float, FreeState], object] | None = None
    if callback is not None:
        tell, movements = callback, list[float]()

        def observe(nit: int, eps: float, state: FreeState) -> object:
            movements.append(state.movement)
            return tell(FreeIntermediate(nit, eps, state, clouds, tol, movements[0]))

    level = Level(clouds.eps, options.max_iter, tol)
    ending = anneal(update, update.init(points), (level,), options.max_iter, observe)
    state = ending.dual
    status: Status = max(ending.status, *(part.status for part in state.parts))
    return result_of(clouds, state, status, ending.nit, ending.history, tol)


def result_of(
    clouds: Clouds, state: FreeState, status: Status, nit: int, history: tuple[Check, ...], tol: float
) -> FreeBarycenterResult:
    """The points where they are."""
    return FreeBarycenterResult(
        clouds.place, clouds.dtype, state.points, state.displacement, state.movement, state.parts, clouds.shares,
        status, nit, history, tol,
    )  # fmt: skip
