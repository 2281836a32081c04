"""What an observer of a solve is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from epsot.arrays import Place
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.problems.batch import Batch
from epsot.problems.instance import Instance
from epsot.results.flat import given
from epsot.results.result import SinkhornResult, over
from epsot.solver.many.loop import Snapshot
from epsot.solver.updates import Dual, Update
from epsot.status import Status


@device_aware
class Intermediate:
    """The record that a callback gets after each iteration: `nit`, `eps`, and on demand `marginal_error`, `f`, `g`."""

    def __init__(
        self,
        nit: int,
        eps: float,
        state: Any,
        update: Update,
        stage: Instance,
        instance: Instance,
        *,
        cells: bool,
        turned: bool = False,
    ) -> None:
        self.nit, self.eps, self._cells, self._turned = nit, eps, cells, turned
        self._state, self._update, self._stage, self._instance = state, update, stage, instance

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self._instance.place

    @property
    def marginal_error(self) -> float:
        """Of the potentials before this iteration (tol=None) or of those it gives, on the cells or points at hand."""
        return float(self._update.error(self._state, self.eps))

    @property
    def T(self) -> Intermediate:
        """Seen from the other side."""
        return Intermediate(
            self.nit, self.eps, self._state, self._update, self._stage, self._instance, cells=self._cells,
            turned=not self._turned,
        )  # fmt: skip

    def _potential(self, of_target: bool) -> Array:
        """The potential of the source or of the target of the problem that is being solved."""
        stage = replace(self._stage, eps=self.eps)
        result = SinkhornResult(stage, Dual(*self._update.pair(self._state)), Status.STOPPED, self.nit, ())
        if not self._cells:
            return result.g if of_target else result.f
        x, y = self._instance.geometry.nodes  # type: ignore[misc]  # those of which the cells are made
        found = result.target.potential_at(y) if of_target else result.source.potential_at(x)
        return result._cast(over(self._instance.geometry.supports[of_target], found, self.place.xp))

    @property
    def f(self) -> Array:
        """The potential of the source, (n,); from cells, its extension to the points."""
        return self._potential(self._turned)

    @property
    def g(self) -> Array:
        """The potential of the target, (m,); from cells, its extension to the points."""
        return self._potential(not self._turned)

    def __repr__(self) -> str:
        return f"Intermediate(nit={self.nit}, eps={self.eps:.4g})"


class BatchIntermediate:
    """The record that the callback of a batch gets after each iteration: `Intermediate` with batch axes first."""

    def __init__(
        self, batch: Batch, nit: np.ndarray, eps: np.ndarray, snapshot: Snapshot, sides: tuple[Any, Any]
    ) -> None:
        self.nit, self.eps = nit.reshape(batch.shape), eps.reshape(batch.shape)
        self._batch, self._snapshot, self._sides = batch, snapshot, sides

    @property
    def marginal_error(self) -> np.ndarray:
        """Of the potentials of each item."""
        return self._snapshot.errors.reshape(self._batch.shape)

    def _potential(self, side: int) -> Any:
        batch, flat = self._batch, self._sides[side].flat(self._snapshot.pair[side])
        return given(batch, flat, side)

    @property
    def f(self) -> Any:
        """The potentials of the sources; zero where there is no weight."""
        return self._potential(0)

    @property
    def g(self) -> Any:
        """The potentials of the targets, likewise."""
        return self._potential(1)

    def __repr__(self) -> str:
        return f"BatchIntermediate(shape={self._batch.shape}, nit up to {int(self.nit.max(initial=0))})"
