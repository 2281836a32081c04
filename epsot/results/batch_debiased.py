"""The results of many debiased problems: three batches, and the differences between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsot.arrays import Place
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.problems.batch import Batch
from epsot.results.batch import BatchResult
from epsot.results.debiased import DivergenceResult
from epsot.results.flat import batch_masses, beyond, gradient, spread
from epsot.results.items import Results


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class BatchDivergence(Results):
    """Many Sinkhorn divergences: the names of `DivergenceResult`, batch axes first; see `BatchResult`.

    Attributes
    ----------
    xy, xx, yy : BatchResult
        The three parts.
    """

    xy: BatchResult
    xx: BatchResult
    yy: BatchResult
    same: np.ndarray  # items whose two measures are one
    singles: dict[int, DivergenceResult] = field(default_factory=dict)

    def _written(self) -> dict[str, Any]:
        xx, yy = self.xx._solution(), self.yy._solution()
        return {"xy": self.xy._written(), "xx": xx, "yy": yy, "same": self.same}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "singles": {}}

    def __getitem__(self, index: Any) -> DivergenceResult:
        return self._item(self._number(index))

    def _item(self, k: int) -> DivergenceResult:
        found = self.singles.get(k)
        if found is None:
            parts = (self.xy,) * 3 if self.same[k] else (self.xy, self.xx, self.yy)
            found = self.singles[k] = DivergenceResult(*(part._item(k) for part in parts))
        return found

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self.xy.batch.place

    @property
    def batch(self) -> Batch:  # type: ignore[override]
        return self.xy.batch

    @property
    def tol(self) -> float | None:
        return self.xy.tol

    @property
    def status(self) -> np.ndarray:  # type: ignore[override]
        found: np.ndarray = np.maximum(np.maximum(self.xy.status, self.xx.status), self.yy.status)
        return found

    @property
    def nit(self) -> np.ndarray:  # type: ignore[override]
        return self.xy.nit

    @property
    def marginal_error(self) -> np.ndarray:
        own = np.maximum(self.xx.marginal_error, self.yy.marginal_error)
        found: np.ndarray = np.maximum(self.xy.marginal_error, own)
        return found

    @property
    def value64(self) -> np.ndarray:
        """`value` in float64, on the host."""
        mass_a, mass_b = batch_masses(self.batch)
        own = (self.xx.value64 + self.yy.value64) / 2
        value = self.xy.value64 - own + self.batch.eps / 2 * (mass_a - mass_b) ** 2
        return np.where(self.same.reshape(self.shape), 0.0, value)

    @property
    def value(self) -> Array:
        return self._numbers(self.value64)

    @property
    def f(self) -> Any:
        return self._given(beyond(self.xy.source_potential, self.xx.source_potential, self.place.xp), 0)

    @property
    def g(self) -> Any:
        return self._given(beyond(self.xy.target_potential, self.yy.source_potential, self.place.xp), 1)

    @property
    def grad_x(self) -> Any:
        return gradient(self.batch, self.xy.weights[0], self.xy.source_slope, self.xx.source_slope, 0)

    @property
    def grad_y(self) -> Any:
        return gradient(self.batch, self.xy.weights[1], self.xy.target_slope, self.yy.source_slope, 1)

    @property
    def displacement(self) -> Any:
        return self._given(self.xx.source_slope - self.xy.source_slope, 0)

    def _weight_gradient(self, own: BatchResult, side: int) -> Any:
        """The difference of those of the parts, and eps times the difference of the masses."""
        xp, batch = self.place.xp, self.batch
        masses = batch_masses(batch)
        shift = spread(self.eps * (masses[side] - masses[1 - side]), batch.geometry.sizes[side], self.place)
        return self._given(beyond(self.xy.weight_gradient(side), own.weight_gradient(0), xp) + shift, side)

    @property
    def grad_a(self) -> Any:
        return self._weight_gradient(self.xx, 0)

    @property
    def grad_b(self) -> Any:
        return self._weight_gradient(self.yy, 1)
