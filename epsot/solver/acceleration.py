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
from epsot.solver.updates import PATIENCE, Alternating, AlternatingState, Dual

MEMORY = 10  # steps that are mixed; 6 needs up to 1.5 times the passes to 1e-7, 15 few less
RIDGE = 1e-10  # relative to the trace; 1e-2 makes it worse than plain steps
LARGEST_MIX = 1e4  # sum |c|: beyond it the residuals are dependent and the mix is noise
GROWTH = 2.0  # an error that grows by more was a bad mix: forget it all


@dataclass(frozen=True)
class AcceleratedState:
    """The last plain step, and what was learned at this temperature and before."""

    plain: AlternatingState
    eps: float
    error: float = math.inf  # marginal error of the pair of `plain`
    lowest: float = math.inf  # at this temperature
    waited: int = 0  # steps since then: PATIENCE mixed ones, then as many plain ones, which never raise the error
    starts: tuple[Array, ...] = ()  # results of the last steps, oldest first
    residuals: tuple[Array, ...] = ()  # result minus origin of each
    levels: tuple[tuple[float, Array], ...] = ()  # (eps, g) at the end of the last two temperatures


@dataclass(frozen=True)
class Anderson:
    """Mixes the last steps so that the mixed residual is smallest, in the norm of the weights (Walker and Ni 2011).

    At a new temperature the potential is first extrapolated linearly in eps from the two before.
    """

    update: Alternating

    def init(self, eps: float, f: Array | None, g: Array | None) -> AcceleratedState:
        return AcceleratedState(self.update.init(eps, f, g), eps)

    def step(self, state: AcceleratedState, eps: float) -> AcceleratedState:
        if eps != state.eps:
            state = self.descend(state, eps)
        plain = self.update.step(state.plain, eps)
        error = float(self.update.error(plain, eps))
        waited = 0 if error < state.lowest or state.waited == 2 * PATIENCE else state.waited + 1
        keep = error <= GROWTH * state.error and waited < PATIENCE
        starts = (*(state.starts[1 - MEMORY :] if keep else ()), plain.start)
        residuals = (*(state.residuals[1 - MEMORY :] if keep else ()), self.residual(plain))
        if waited < PATIENCE and math.isfinite(error):
            plain = replace(plain, start=self.mix(starts, residuals))
        return AcceleratedState(plain, eps, error, min(error, state.lowest), waited, starts, residuals, state.levels)

    def pair(self, state: AcceleratedState) -> tuple[Array, Array]:
        return self.update.pair(state.plain)

    def error(self, state: AcceleratedState, eps: float) -> Any:
        return state.error

    def stalled(self, state: AcceleratedState, errors: Sequence[float]) -> bool:
        """Only plain steps can tell, at the end of a series of them."""
        return state.waited == 2 * PATIENCE and self.update.stalled(state.plain, errors)

    def finish(self, state: AcceleratedState, eps: float) -> Dual:
        return self.update.finish(state.plain, eps)

    def residual(self, plain: AlternatingState) -> Array:
        """G(g) - g for the step G, without its mean where constants do not matter.  (m,)"""
        problem, xp = self.update.problem, self.update.problem.place.xp
        residual = plain.start - plain.g
        return residual - xp.sum(problem.b * residual) / problem.mass_b if problem.balanced else residual

    def mix(self, starts: tuple[Array, ...], residuals: tuple[Array, ...]) -> Array:
        """sum_k c_k start_k with the c, of sum 1, that minimises |sum_k c_k residual_k|.  (m,)"""
        if len(starts) == 1:
            return starts[-1]
        problem, xp = self.update.problem, self.update.problem.place.xp
        stacked = xp.stack(residuals)  # (k, m)
        gram = np.asarray(((stacked * problem.b) @ stacked.T).tolist())
        trace = np.trace(gram)
        if not (trace > 0 and math.isfinite(trace)):
            return starts[-1]
        c = np.linalg.solve(gram / trace + RIDGE * np.eye(len(gram)), np.ones(len(gram)))
        c /= c.sum()
        if not np.abs(c).sum() < LARGEST_MIX:
            return starts[-1]
        return xp.asarray(c.tolist(), dtype=xp.float64, device=problem.place.device) @ xp.stack(starts)

    @staticmethod
    def descend(state: AcceleratedState, eps: float) -> AcceleratedState:
        """The state at a new temperature: memory cleared, the potential extrapolated."""
        levels = (*state.levels, (state.eps, state.plain.start))[-2:]
        plain = state.plain
        if len(levels) == 2 and levels[0][0] != levels[1][0]:
            (eps_0, g_0), (eps_1, g_1) = levels
            plain = replace(plain, start=g_1 + (g_1 - g_0) * ((eps - eps_1) / (eps_1 - eps_0)))
        return AcceleratedState(plain, eps, levels=levels)
