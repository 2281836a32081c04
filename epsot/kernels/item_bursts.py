"""Many steps of many problems of one padded shape, asked for at once: `bursts` with a leading axis, the contract.

Each problem has a temperature, a tolerance, errors and directions of its own, and its steps end where the solver would
decide something else for it, whatever the others do. Problems with no steps to make are left as they are.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from epsot.costs import Array
from epsot.kernels.bursts import Rest
from epsot.kernels.mixing import Memory, Weighed

# f = next_f(g), updated = next_g(f), and the g from which to go on: (B, n), and (B, m) thrice
Steps = tuple[Array, Array, Array, Array]


class StopRules(NamedTuple):
    """`StopRule` of many problems, arrays (B,) on the host."""

    eps: np.ndarray
    steps: np.ndarray  # the last; 0: none is made
    tol: np.ndarray
    still: Rest
    slow: Rest
    give_up_above: np.ndarray
    errors: np.ndarray  # (B, any), the last ones at this temperature, the latest at the end, NaN where there were fewer


class Records(NamedTuple):
    """`Progress` of many problems, arrays (B,) on the host."""

    error: np.ndarray
    norm: np.ndarray
    waited: np.ndarray


class Measured(NamedTuple):
    """The errors of the steps that were made, on the host."""

    errors: np.ndarray  # (B, most), anything beyond those of a problem
    counts: np.ndarray  # (B,) how many a problem has

    @property
    def made(self) -> np.ndarray:
        """Which problems have made any."""
        return np.asarray(self.counts > 0)

    @property
    def last(self) -> np.ndarray:
        """The error after the last step, of problems that have made any.  (B,)"""
        return np.asarray(self.errors[np.arange(len(self.counts)), np.maximum(self.counts, 1) - 1])


class Sides(Protocol):
    """What is read of one side of all problems: weights (B, n), and masses and penalties (B,) on the host."""

    @property
    def log_weights(self) -> Array: ...
    @property
    def weights(self) -> Array: ...
    @property
    def mass(self) -> np.ndarray: ...
    @property
    def rho(self) -> np.ndarray: ...


class ManyIterates(NamedTuple):
    """Where accelerated alternating steps have led, and those before where none was made."""

    last: Steps
    best: Steps
    memory: Memory
    record: Records
    retreats: np.ndarray  # (B,) where mixing has brought nothing for too long: those may start from `best`
    measured: Measured


class ManyAverages(NamedTuple):
    """Where averaged steps of self-transports have led: the last f, next_f(f), and the mean of both.  (B, n)"""

    f: Array
    updated: Array
    mean: Array
    measured: Measured


class ItemBursts(Protocol):
    """What makes many steps of each of many problems."""

    def alternate(
        self, side: Weighed, memory: Memory, last: Steps, best: Steps, record: Records, patience: int, rules: StopRules
    ) -> ManyIterates:
        """Steps from where the last have led, mixed by the memory; to wait: `patience`."""

    def average(self, f: Array, updated: Array, mean: Array, fresh: np.ndarray, rules: StopRules) -> ManyAverages:
        """Steps of the first measures with themselves from `mean`, or where that is fresh, a guess, from its update."""
