"""What an observer of a batch sees whose items are solved one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from epsot.archives import Observed
from epsot.costs import Array
from epsot.drivers.intermediate import Intermediate
from epsot.drivers.records import BatchRecord
from epsot.geometry.rows import Rows, offsets
from epsot.problems.batch import Batch
from epsot.results.flat import given


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
                self.callback(BatchSoFar(self.batch, tuple(self.records)))
            except StopIteration:
                self.stopped = True
                raise

        return observe


class BatchSoFar(Observed):
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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the batch."""
        return self._batch.shape

    @property
    def progress(self) -> float:
        """How far the solves have come, in [0, 1]: the mean of all, those to come at 0."""
        return sum(0.0 if z is None else z.progress for z in self._records) / max(1, len(self._records))

    def record(self) -> BatchRecord:
        """What of this outlives the solves."""
        batch = self._batch
        sides = [
            Rows(self._flat(side), offsets(sizes).reshape(sizes.shape), sizes, ragged, length, grid)
            for side, sizes, ragged, length, grid in zip(
                (0, 1),
                batch.geometry.sizes,
                batch.geometry.ragged,
                batch.geometry.lengths,
                batch.geometry.grids,
                strict=True,
            )
        ]
        eps = np.where(np.isnan(self.eps), np.inf, self.eps)  # what is to come anneals from the beginning
        return BatchRecord(self.nit, eps, self.marginal_error, (sides[0], sides[1]), batch.geometry.dtype, batch.place)

    def _flat(self, side: int) -> Array:
        """The potentials of one side of all items, one after the other, in float64."""
        batch, sizes = self._batch, self._batch.geometry.sizes[side].reshape(-1)
        xp, device = batch.place.xp, batch.place.device
        parts = [
            xp.zeros(int(size), dtype=xp.float64, device=device) if record is None else record.flat("fg"[side])
            for record, size in zip(self._records, sizes, strict=True)
        ]
        return xp.concat(parts)

    @property
    def f(self) -> Any:
        """The potentials of the sources."""
        return given(self._batch, self._flat(0), 0)

    @property
    def g(self) -> Any:
        """The potentials of the targets."""
        return given(self._batch, self._flat(1), 1)

    def __repr__(self) -> str:
        return f"BatchSoFar(shape={self._batch.shape}, nit up to {int(self.nit.max(initial=0))})"
