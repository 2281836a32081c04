"""What an observer of a solve is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from epsot.archives import Observed
from epsot.arrays import Place, in_dtype
from epsot.communicator import Communicator
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.drivers.options import Options
from epsot.drivers.records import BatchRecord, Record
from epsot.geometry.rows import Rows, offsets
from epsot.problems.batch import Batch
from epsot.problems.instance import Instance
from epsot.results.flat import given
from epsot.results.outcome import over
from epsot.results.result import SinkhornResult
from epsot.solver.many.loop import Snapshot
from epsot.solver.schedule import QUICK
from epsot.solver.updates import Dual, Update
from epsot.status import Status

COOLING = 0.5  # the part of a solve that its temperatures are: about that of the iterations
LEAST = 2.0**-50  # an error below which nothing is asked for


def cooled(eps: float, start: float, target: float) -> float:
    """How far a temperature has come from the start to the target, in [0, 1], as its logarithm falls."""
    if eps <= target or not target < start < math.inf:
        return 1.0 if eps <= target else 0.0
    return min(1.0, max(0.0, math.log(start / eps) / math.log(start / target)))


def settled(error: float, tol: float) -> float:
    """How far an error has come at the target, in [0, 1], as its logarithm falls from that of a rough plan to `tol`."""
    tol = max(tol, LEAST)
    if error <= tol or not error < QUICK:
        return 1.0 if error <= tol else 0.0
    return math.log(QUICK / error) / math.log(QUICK / tol)


def progress_of(share: float, tol: float | None, error: Callable[[], float]) -> float:
    """Of a solve whose temperature has come so far, in [0, 1]; its error is asked for at the last one."""
    if tol is None:
        return share
    return COOLING * share if share < 1 else COOLING + (1 - COOLING) * settled(error(), tol)


@device_aware
class Intermediate(Observed):
    """The record that a callback gets after each iteration: `nit`, `eps`, and on demand `marginal_error`, `f`, `g`.

    `save` writes it to a file, from which a solve goes on: ``init=epsot.load(path)``.
    """

    def __init__(
        self,
        nit: int,
        eps: float,
        state: Any,
        update: Update,
        stage: Instance,
        instance: Instance,
        options: Options,
        *,
        cells: bool,
        turned: bool = False,
    ) -> None:
        self.nit, self.eps, self._options, self._cells, self._turned = nit, eps, options, cells, turned
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
            self.nit, self.eps, self._state, self._update, self._stage, self._instance, self._options,
            cells=self._cells, turned=not self._turned,
        )  # fmt: skip

    @property
    def progress(self) -> float:
        """How far the solve has come, in [0, 1], by logarithms: half are its temperatures, the other half its error.

        Without a tolerance there are only temperatures.
        """
        share = cooled(self.eps, self._options.start, self._instance.eps)
        return progress_of(share, self._options.tol, lambda: self.marginal_error)

    @property
    def comm(self) -> Communicator:
        """The ranks of the solve."""
        return self._instance.comm

    def record(self) -> Record:
        """What of this outlives the solve."""
        geometry = self._instance.geometry
        return Record(self.nit, self.eps, self.marginal_error, (self._whole("f"), self._whole("g")), geometry.dtype,
                      self.place)  # fmt: skip

    def _cast(self, array: Array) -> Array:
        return in_dtype(array, self._instance.geometry.dtype, self.place)

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

    def _whole(self, name: str) -> Array:
        """The same in the shape of the weights."""
        support = self._instance.geometry.supports[self._turned != (name == "g")]
        return over(support, self.flat(name), self.place.xp)

    def _given(self, name: str) -> Array:
        number = self._turned != (name == "g")
        side = self._instance.side_b if number else self._instance.side_a
        own = over(self._instance.geometry.supports[number], side.own(self.flat(name)), self.place.xp)
        return in_dtype(own, self._instance.geometry.dtype, self.place)

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


class BatchIntermediate(Observed):
    """The record that the callback of a batch gets after each iteration: `Intermediate` with batch axes first."""

    def __init__(
        self, batch: Batch, nit: np.ndarray, eps: np.ndarray, snapshot: Snapshot, sides: tuple[Any, Any],
        start: np.ndarray, tol: float | None,
    ) -> None:  # fmt: skip
        self.nit, self.eps = nit.reshape(batch.shape), eps.reshape(batch.shape)
        self._batch, self._snapshot, self._sides, self._start, self._tol = batch, snapshot, sides, start, tol

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the batch."""
        return self._batch.shape

    @property
    def progress(self) -> float:
        """How far the solves have come, in [0, 1]: the mean of what `Intermediate.progress` is of each."""
        scales = zip(self.eps.flat, self._start.flat, self._batch.eps.flat, strict=True)
        shares = [cooled(float(eps), float(start), float(target)) for eps, start, target in scales]
        if self._tol is None or not shares:
            return sum(shares) / max(1, len(shares))
        errors = self.marginal_error.flat if max(shares) == 1 else [math.inf] * len(shares)
        ends = [settled(float(e), self._tol) if z == 1 else 0.0 for e, z in zip(errors, shares, strict=True)]
        return (COOLING * sum(shares) + (1 - COOLING) * sum(ends)) / len(shares)

    def record(self) -> BatchRecord:
        """What of this outlives the solves."""
        batch, pair, sides = self._batch, self._snapshot.pair, []
        for side in (0, 1):
            sizes, ragged = batch.geometry.sizes[side], batch.geometry.ragged[side]
            first = offsets(sizes).reshape(sizes.shape)
            values = self._sides[side].flat(pair[side])
            sides.append(Rows(values, first, sizes, ragged, batch.geometry.lengths[side], batch.geometry.grids[side]))
        return BatchRecord(
            self.nit, self.eps.copy(), self.marginal_error, (sides[0], sides[1]), batch.geometry.dtype, batch.place,
        )  # fmt: skip

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
