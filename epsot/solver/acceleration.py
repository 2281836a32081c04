"""Anderson acceleration and extrapolation in the temperature, as a wrapper around the alternating update.

Neither the loop nor the update knows of it. Neither can lose accuracy: every pair is measured before it is returned,
whatever vector it was computed from. They can lose time; the safeguards below bound how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from epsot.arrays import to_numpy
from epsot.costs import Array
from epsot.problem import Problem
from epsot.solver.updates import PATIENCE, Alternating, AlternatingState, Dual

MEMORY = 10  # steps that are mixed; 6 needs up to 1.5 times the passes to 1e-7, 15 few less
RIDGE = 1e-10  # relative to the trace; 1e-2 makes it worse than plain steps
SMALLEST = 1e-250  # squared residuals, relative to eps: below, nothing is left to mix
LARGEST_MIX = 1e4  # sum |c|: beyond it the residuals are dependent and the mix is noise
GROWTH = 2.0  # an error that grows by more was a bad mix: forget it all


class Memory:
    """The last steps at one temperature, in arrays that are overwritten in turn, and the mix of them."""

    def __init__(self, problem: Problem) -> None:
        xp, m = problem.place.xp, problem.b.shape[0]
        self.problem = problem
        self.results, self.residuals = (
            xp.zeros((MEMORY, m), dtype=xp.float64, device=problem.place.device) for _ in range(2)
        )
        self.gram = np.zeros((MEMORY, MEMORY))  # on the host, where the small system is solved
        self.count = 0

    def forget(self) -> None:
        """Start anew."""
        self.count = 0

    def push(self, result: Array, residual: Array) -> None:
        """Take in a step, in place of the oldest."""
        if self.problem.balanced:  # constants do not matter
            xp = self.problem.place.xp
            residual = residual - xp.sum(self.problem.b * residual) / self.problem.mass_b
        slot = self.count % MEMORY
        self.results[slot, :], self.residuals[slot, :] = result, residual
        self.count += 1
        products = self.residuals @ (self.problem.b * residual / self.problem.mass_b)  # in the norm of the weights
        self.gram[slot, :] = self.gram[:, slot] = to_numpy(products)

    def mix(self) -> Array | None:
        """sum_k c_k result_k with the c, of sum 1, that minimises |sum_k c_k residual_k|; None where there is none."""
        size = min(self.count, MEMORY)
        gram = self.gram[:size, :size]
        trace = float(gram.trace())
        if size < 2 or not SMALLEST < trace < math.inf:
            return None
        c = np.linalg.solve(gram + RIDGE * trace * np.eye(size), np.ones(size))
        c /= c.sum()
        if not np.abs(c).sum() < LARGEST_MIX:
            return None
        place = self.problem.place
        return place.xp.asarray(c, dtype=place.xp.float64, device=place.device) @ self.results[:size, :]


@dataclass(frozen=True)
class AcceleratedState:
    """The last plain step, and what was learned at this temperature and before."""

    plain: AlternatingState
    memory: Memory
    eps: float
    error: float = math.inf  # marginal error of the pair of `plain`
    lowest: float = math.inf  # at this temperature
    best: Array | None = None  # where the step of the lowest error led to
    waited: int = 0  # mixed steps since then
    plain_steps: int = 0  # steps of the plain series under way, 0: mixing
    plain_length: int = 2 * PATIENCE  # of the next plain series
    levels: tuple[tuple[float, Array], ...] = ()  # (eps, g) at the end of the last two temperatures


@dataclass(frozen=True)
class Anderson:
    """Mixes the last steps so that the mixed residual is smallest (Walker and Ni 2011).

    There is no proof that this converges. Where PATIENCE mixed steps bring nothing, plain ones, which never raise the
    error, go on from the best point, in series that double in length: the worst case is near that of plain steps. At a
    new temperature the potential is first extrapolated linearly in eps from the two before.
    """

    update: Alternating

    def init(self, eps: float, f: Array | None, g: Array | None) -> AcceleratedState:
        return AcceleratedState(self.update.init(eps, f, g), Memory(self.update.problem), eps)

    def step(self, state: AcceleratedState, eps: float) -> AcceleratedState:
        if eps != state.eps:
            state = self.descend(state, eps)
        plain = self.update.step(state.plain, eps)
        error = float(self.update.error(plain, eps))
        better = error < state.lowest
        new = replace(
            state,
            plain=plain,
            error=error,
            lowest=error if better else state.lowest,
            best=plain.start if better else state.best,
            waited=0 if better else state.waited + 1,
        )
        if state.plain_steps:
            return replace(new, waited=0, plain_steps=(state.plain_steps + 1) % (state.plain_length // 2 + 1))
        if new.waited >= PATIENCE:
            return self.retreat(new)
        return self.advance(new, error > GROWTH * state.error)

    def advance(self, state: AcceleratedState, forget: bool) -> AcceleratedState:
        """Go on from the mix of the steps in memory."""
        plain = state.plain
        if forget:
            state.memory.forget()
        if not math.isfinite(state.error):
            return state
        state.memory.push(plain.start, (plain.start - plain.g) / state.eps)
        mixed = state.memory.mix()
        return state if mixed is None else replace(state, plain=replace(plain, start=mixed))

    @staticmethod
    def retreat(state: AcceleratedState) -> AcceleratedState:
        """Go on from the best point, with a series of plain steps."""
        state.memory.forget()
        plain = state.plain if state.best is None else replace(state.plain, start=state.best)
        return replace(state, plain=plain, waited=0, plain_steps=1, plain_length=2 * state.plain_length)

    def pair(self, state: AcceleratedState) -> tuple[Array, Array]:
        return self.update.pair(state.plain)

    def error(self, state: AcceleratedState, eps: float) -> Any:
        return state.error

    def stalled(self, state: AcceleratedState, errors: Sequence[float], eps: float) -> bool:
        """Only a series of plain steps can tell."""
        return state.plain_steps > PATIENCE + 1 and self.update.stalled(state.plain, errors, eps)

    def finish(self, state: AcceleratedState, eps: float) -> Dual:
        return self.update.finish(state.plain, eps)

    @staticmethod
    def descend(state: AcceleratedState, eps: float) -> AcceleratedState:
        """The state at a new temperature: memory cleared, the potential extrapolated."""
        state.memory.forget()
        levels = (*state.levels, (state.eps, state.plain.start))[-2:]
        plain = state.plain
        if len(levels) == 2 and levels[0][0] != levels[1][0]:
            (eps_0, g_0), (eps_1, g_1) = levels
            plain = replace(plain, start=g_1 + (g_1 - g_0) * ((eps - eps_1) / (eps_1 - eps_0)))
        return AcceleratedState(plain, state.memory, eps, levels=levels)
