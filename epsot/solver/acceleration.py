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

from epsot.costs import Array
from epsot.problem import Problem
from epsot.solver.updates import PATIENCE, Alternating, AlternatingState, Dual

MEMORY = 10  # steps that are mixed; 6 needs up to 1.5 times the passes to 1e-7, 15 few less
RIDGE = 1e-10  # relative to the trace; 1e-2 makes it worse than plain steps
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
        products = self.residuals @ (self.problem.b * residual)  # in the norm of the weights
        self.gram[slot, :] = self.gram[:, slot] = products.tolist()

    def mix(self) -> Array | None:
        """sum_k c_k result_k with the c, of sum 1, that minimises |sum_k c_k residual_k|; None where there is none."""
        size = min(self.count, MEMORY)
        gram = self.gram[:size, :size]
        trace = float(gram.trace())
        if size < 2 or not 0 < trace < math.inf:
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
    waited: int = 0  # steps since then: PATIENCE mixed ones, then as many plain ones, which never raise the error
    levels: tuple[tuple[float, Array], ...] = ()  # (eps, g) at the end of the last two temperatures


@dataclass(frozen=True)
class Anderson:
    """Mixes the last steps so that the mixed residual is smallest (Walker and Ni 2011).

    At a new temperature the potential is first extrapolated linearly in eps from the two before.
    """

    update: Alternating

    def init(self, eps: float, f: Array | None, g: Array | None) -> AcceleratedState:
        return AcceleratedState(self.update.init(eps, f, g), Memory(self.update.problem), eps)

    def step(self, state: AcceleratedState, eps: float) -> AcceleratedState:
        if eps != state.eps:
            state = self.descend(state, eps)
        memory = state.memory
        plain = self.update.step(state.plain, eps)
        error = float(self.update.error(plain, eps))
        waited = 0 if error < state.lowest or state.waited == 2 * PATIENCE else state.waited + 1
        if error > GROWTH * state.error or waited >= PATIENCE:
            memory.forget()
        if waited < PATIENCE and math.isfinite(error):
            memory.push(plain.start, plain.start - plain.g)
            mixed = memory.mix()
            plain = plain if mixed is None else replace(plain, start=mixed)
        return AcceleratedState(plain, memory, eps, error, min(error, state.lowest), waited, state.levels)

    def pair(self, state: AcceleratedState) -> tuple[Array, Array]:
        return self.update.pair(state.plain)

    def error(self, state: AcceleratedState, eps: float) -> Any:
        return state.error

    def stalled(self, state: AcceleratedState, errors: Sequence[float]) -> bool:
        """Only plain steps can tell, at the end of a series of them."""
        return state.waited == 2 * PATIENCE and self.update.stalled(state.plain, errors)

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
