"""What an observer of a solve is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from epsot.arrays import Place
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.problems.instance import Instance
from epsot.results.result import SinkhornResult
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
        x, y = self._instance.geometry.points  # type: ignore[misc]  # those of which the cells are made
        return result._cast(result.target.potential_at(y) if of_target else result.source.potential_at(x))

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
