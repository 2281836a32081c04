"""What an observer of a solve is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from epsot.arrays import Place, in_dtype
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
        """The potential of the source or of the target of the problem that is being solved, flat and in float64."""
        stage = replace(self._stage, eps=self.eps)
        result = SinkhornResult(stage, Dual(*self._update.pair(self._state)), Status.STOPPED, self.nit, ())
        side = result.target if of_target else result.source
        nodes = self._instance.geometry.nodes  # of which the cells are made
        return side.potential_at(nodes[of_target]) if self._cells and nodes is not None else side.potential

    def flat(self, name: str) -> Array:
        """f or g in float64, without the shape that it has over a grid."""
        return self._potential(self._turned != (name == "g"))

    def _given(self, name: str) -> Array:
        geometry, found = self._instance.geometry, self.flat(name)
        support = geometry.supports[self._turned != (name == "g")]
        return in_dtype(over(support, found, self.place.xp), geometry.dtype, self.place)

    @property
    def f(self) -> Array:
        """The potential of the source, (n,); from cells, its extension to the points."""
        return self._given("f")

    @property
    def g(self) -> Array:
        """The potential of the target, (m,); from cells, its extension to the points."""
        return self._given("g")

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


class OneByOne:
    """What an observer of a batch is given whose items are solved one after the other: the records of all so far."""

    def __init__(self, batch: Batch, callback: Callable[[Any], object]) -> None:
        self.batch, self.callback, self.stopped = batch, callback, False
        self.records: list[Intermediate | None] = [None] * len(batch.geometry)

    def of(self, k: int) -> Callable[[Intermediate], None]:
        """The observer of one item. Once the callback has stopped one, it stops those that follow."""

        def observe(record: Intermediate) -> None:
            self.records[k] = record
            if self.stopped:
                raise StopIteration
            try:
                self.callback(BatchRecord(self.batch, tuple(self.records)))
            except StopIteration:
                self.stopped = True
                raise

        return observe


class BatchRecord:
    """As `BatchIntermediate`, of items of which some are to come: no iterations, an error of nan, potentials of 0."""

    def __init__(self, batch: Batch, records: tuple[Intermediate | None, ...]) -> None:
        self._batch, self._records = batch, records

    def _numbers(self, name: str, missing: float, dtype: Any = np.float64) -> np.ndarray:
        found = [missing if record is None else getattr(record, name) for record in self._records]
        return np.array(found, dtype).reshape(self._batch.shape)

    @property
    def nit(self) -> np.ndarray:
        return self._numbers("nit", 0, np.int64)

    @property
    def eps(self) -> np.ndarray:
        return self._numbers("eps", np.nan)

    @property
    def marginal_error(self) -> np.ndarray:
        """Of the potentials of each item."""
        return self._numbers("marginal_error", np.nan)

    def _potential(self, name: str, side: int) -> Any:
        batch, sizes = self._batch, self._batch.geometry.sizes[side].reshape(-1)
        xp, device = batch.place.xp, batch.place.device
        parts = [
            xp.zeros(int(size), dtype=xp.float64, device=device) if record is None else record.flat(name)
            for record, size in zip(self._records, sizes, strict=True)
        ]
        return given(batch, xp.concat(parts), side)

    @property
    def f(self) -> Any:
        """The potentials of the sources."""
        return self._potential("f", 0)

    @property
    def g(self) -> Any:
        """The potentials of the targets."""
        return self._potential("g", 1)

    def __repr__(self) -> str:
        return f"BatchRecord(shape={self._batch.shape}, nit up to {int(self.nit.max(initial=0))})"
