"""Weights between several measures: one step at one temperature, and its mixing with the last ones.

Debiased, sum_k t_k S(a, a_k) is, up to a constant, the least over d of

    sum_k t_k OT(a, a_k) + eps <a, log(a / d)> + (eps / 2) (<d, K d> - 1),     K[i, j] = exp(-C[i, j] / eps),

which is convex in (a, d) together where K is positive (Janati, Cuturi and Gramfort 2020). For one d it is the classical
problem, which alternating updates solve; for one a the best d is that of the self-transport, d (K d) = a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from epsot.arrays import as_number
from epsot.costs import Array
from epsot.kernels.vectors import Directions
from epsot.problems.barycenter import BarycenterProblem
from epsot.solver.acceleration import STILL, AcceleratedState, Mixing
from epsot.solver.schedule import Level
from epsot.solver.updates import Iteration
from epsot.status import Status

SETTLING = 3  # steps of d alone at another temperature: each halves what is wrong with it


@dataclass(frozen=True)
class BarycenterDual:
    """Weights, the potentials of their plans, and what is known about them. All of mass one.

    Columns of the plans are exact, g_k is optimal for f_k; what the rows miss is the error.
    """

    log_a: Array  # (n,)
    log_d: Array  # (n,) debiased, of the self-transport; else that of uniform weights
    f: Array  # (K, n)
    g: Array  # (K, n)
    updated: Array  # (K, n): the f that is optimal for g
    log_blurred: Array | None  # (n,) log K d; None where d is fixed
    error: float  # sum_k t_k |P_k 1 - a|_1
    self_error: float  # |d (K d) - a|_1

    @property
    def marginal_error(self) -> float:
        return max(self.error, self.self_error)

    def written(self) -> dict[str, Any]:
        """What a file holds of it."""
        arrays = {name: getattr(self, name) for name in ("log_a", "log_d", "f", "g", "updated", "log_blurred")}
        return {**arrays, "error": self.error, "self_error": self.self_error}

    @classmethod
    def read(cls, parts: dict[str, Any], problem: BarycenterProblem) -> BarycenterDual:
        """The same of a problem; ValueError where an array is of another size."""
        place, n, many = problem.place, problem.size, len(problem.measures)
        shapes = {"log_a": (n,), "log_d": (n,), "f": (many, n), "g": (many, n), "updated": (many, n)}
        found: dict[str, Any] = {"log_blurred": None}
        for name, shape in {**shapes, **({"log_blurred": (n,)} if problem.debias else {})}.items():
            found[name] = place.xp.astype(place.received(parts[name]), place.xp.float64)
            if tuple(found[name].shape) != shape:
                raise ValueError(f"`{name}` of shape {found[name].shape}, not {shape}")
        return cls(**found, **{name: as_number(name, parts[name]) for name in ("error", "self_error")})


@dataclass(frozen=True)
class BarycenterState:
    """The last step, and from where the next one starts: all f_k and, debiased, eps log d, one after the other."""

    dual: BarycenterDual
    start: Array  # ((K + 1) n,) or (K n,)
    eps: float


@dataclass(frozen=True)
class Barycentric(Iteration[BarycenterDual]):
    """a from d and all f, g <- next_g(f) and f <- next_f(g) of each plan, then d halfway to where d (K d) = a.

    Two softmins a measure and one for d (Janati et al. 2020, algorithm 1, in the log domain). The new f serve in the
    step of d: from the old ones it would not come to rest where all is smooth.
    """

    problem: BarycenterProblem

    def init(self, eps: float) -> BarycenterState:
        """From potentials g = 0: a is the normalised product of the blurred measures to the powers t_k."""
        problem = self.problem
        zeros = problem.place.xp.stack([problem.full(0.0)] * len(problem.measures))
        log_d = problem.full(-math.log(problem.size))
        return self.going_on(log_d, problem.next_f(zeros, eps), eps)

    def going_on(self, log_d: Array, f: Array, eps: float, past: BarycenterDual | None = None) -> BarycenterState:
        """A state from which the next step starts with d and f; `past` holds guesses of its potentials."""
        problem, xp = self.problem, self.problem.place.xp
        log_a, f = problem.called_for(log_d, f, eps)
        if past is None:
            past = BarycenterDual(log_a, log_d, f, xp.zeros_like(f), f, None, math.inf, math.inf)
        return BarycenterState(replace(past, log_a=log_a, log_d=log_d, f=f), self.joined(f, log_d, eps), eps)

    def from_weights(self, log_a: Array, f: Array, log_d: Array, eps: float) -> BarycenterState:
        """The state at a temperature from weights and potentials of another one.

        The weights stay, d settles at them, and what the mean of the f_k has to be, the potential of the self-transport
        up to its sign, is made so by the same function added to all. d is nearly the root of a at any temperature,
        where that mean over eps would be raised to a power.
        """
        problem, xp = self.problem, self.problem.place.xp
        if problem.debias:
            for _ in range(SETTLING):
                log_d = (log_d + log_a - problem.log_blurred(log_d, eps)) / 2
        missing = xp.where(log_a > -xp.inf, eps * (log_d - log_a), xp.zeros_like(log_a)) - problem.mean(f)
        return self.going_on(log_d, f + missing[None, :], eps)

    def joined(self, f: Array, log_d: Array, eps: float) -> Array:
        xp = self.problem.place.xp
        parts = [f[k, ...] for k in range(f.shape[0])]
        return xp.concat([*parts, eps * log_d] if self.problem.debias else parts)

    def parted(self, start: Array, log_d: Array, eps: float) -> tuple[Array, Array]:
        """(f, log d); where d is fixed, it is the one given.  -> (K, n), (n,)"""
        xp, n, count = self.problem.place.xp, self.problem.size, len(self.problem.measures)
        f = xp.reshape(start[: count * n], (count, n))
        return f, start[count * n :] / eps if self.problem.debias else log_d

    def step(self, state: BarycenterState, eps: float) -> BarycenterState:
        problem, past = self.problem, state.dual
        if eps != state.eps:
            state = self.from_weights(past.log_a, past.updated, past.log_d, eps)
        f, log_d = self.parted(state.start, past.log_d, eps)
        log_a, f = problem.called_for(log_d, f, eps)
        g = problem.next_g(log_a, f, eps, past.g)
        updated = problem.next_f(g, eps, f)
        error, self_error, log_blurred, next_d = problem.error(log_a, f, updated, eps), 0.0, None, log_d
        if problem.debias:
            log_blurred = problem.log_blurred(log_d, eps, past.log_blurred)
            self_error = problem.self_error(log_a, log_d, log_blurred, eps)
            next_d = log_d - (problem.mean(updated) / eps + log_blurred) / 2
        dual = BarycenterDual(log_a, log_d, f, g, updated, log_blurred, error, self_error)
        return BarycenterState(dual, self.joined(updated, next_d, eps), eps)

    def error(self, state: BarycenterState, eps: float) -> float:
        return state.dual.marginal_error

    def verdict(self, state: BarycenterState, errors: Sequence[float], level: Level) -> Status | None:
        """STALLED where errors rest at what rounding leaves of the plans."""
        dual = state.dual
        hidden = STILL.found(errors) and errors[-1] <= self.problem.rounding(dual.f, dual.log_d, level.eps)
        return Status.STALLED if hidden else None

    def finish(self, state: BarycenterState, eps: float) -> BarycenterDual:
        return state.dual


@dataclass(frozen=True)
class MixedBarycenter(Mixing[BarycenterDual]):
    """Mixes steps in the weights of the plans, those at the point from which they start.

    The problem is one of a saddle, least in (a, d) and largest in the potentials: the derivative of a step is
    symmetric in no positive weights, and the short memory serves as what it is. With the residual of d turned around it
    would be symmetric, but goes as readily to where no mass is left that could tell.
    """

    update: Barycentric

    def init(self, state: BarycenterState, memory: Directions | None = None) -> AcceleratedState:
        """The state that goes on from one of the plain update, in the memory of another one."""
        return AcceleratedState(state, self.update.problem.directions(state.dual.log_a, memory), state.eps)

    def step(self, state: AcceleratedState, eps: float) -> AcceleratedState:
        if eps != state.eps:
            past = state.plain.dual
            warm = self.update.from_weights(past.log_a, past.updated, past.log_d, eps)
            state = self.init(warm, state.directions)
        begin = state.plain
        plain = self.update.step(begin, eps)
        if state.plain_steps:
            return self.after_plain(state, plain, plain.dual.marginal_error)
        if not math.isfinite(plain.dual.marginal_error):
            return self.measured(state, plain, math.inf)
        f, log_d = plain.dual.f, plain.dual.log_d  # of the start, with the constant of its weights
        advance = state.directions.advance(self.update.joined(f, log_d, eps), plain.start, plain.start, eps)
        state = self.measured(state, plain, plain.dual.marginal_error)
        return self.mixed(state, advance) if math.isfinite(advance.error) else state

    def restart_plain(self, state: AcceleratedState) -> AcceleratedState:
        """Go on from the best point, whose weights are those of the mixing to come."""
        state = super().restart_plain(state)
        return replace(state, directions=self.update.problem.directions(state.plain.dual.log_a, state.directions))

    def verdict(self, state: AcceleratedState, errors: Sequence[float], level: Level) -> Status | None:
        return self.update.verdict(state.plain, errors, level)

    def finish(self, state: AcceleratedState, eps: float) -> BarycenterDual:
        """The best that was measured at this temperature."""
        best: Any = state.plain if state.best is None else state.best
        return self.update.finish(best, eps)
