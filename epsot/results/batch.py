"""What a batch of solves returns: the names of a single result, batch axes first, and each item as a single result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.devices import device_aware
from epsot.kernels.batches import Solved
from epsot.lazy import cached_property
from epsot.problems.batch import Batch
from epsot.results.flat import batch_masses, flat_weights, gradient, spread
from epsot.results.items import Results
from epsot.results.result import SinkhornResult
from epsot.results.solved import Engine, checks_of, dual_of
from epsot.status import STATUSES


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class BatchResult(Results):
    """The solutions of many transport problems: the names of `SinkhornResult`, batch axes first.

    What was given as a list of arrays comes back as one. ``result[k]``, of two axes ``result[i, j]``, is the
    `SinkhornResult` of one problem, with its plan.

    Attributes
    ----------
    value, transport_cost, marginal_error, dual, primal, gap : arrays of the shape of the batch
    f, g : (..., n) and (..., m) arrays, or lists
    grad_x, grad_y, displacement : (..., n, d) and (..., m, d) arrays, or lists
        Of a support that problems share, one for each of them.
    grad_a, grad_b : (..., n) and (..., m) arrays, or lists
    plan, history : lists, or arrays of objects
    success, status, nit : arrays of the shape of the batch
        `status` has the numbers of `Status`.
    eps, rho : arrays
    message, shape : str and tuple of int
        How many items have ended how, and the shape of the batch.
    """

    batch: Batch
    engine: Engine | None
    solved: Solved
    singles: dict[int, SinkhornResult] = field(default_factory=dict)
    tol: float | None = None
    own: bool = False  # each is a measure with itself

    def _written(self) -> dict[str, Any]:
        return {"batch": self.batch.written(), **self._solution()}

    def _solution(self) -> dict[str, Any]:
        """What a file holds beside the problems."""
        alone = {str(k): {"own": (z := self.singles[k]).instance.problem.own, **z._solution()} for k in self._alone}
        how = None if self.engine is None else self.engine.kind
        return {"engine": how, "solved": self.solved._asdict(), "singles": alone, "tol": self.tol, "own": self.own}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "singles": {k: self.singles[k] for k in self._alone}}

    def __getitem__(self, index: Any) -> SinkhornResult:
        return self._item(self._number(index))

    def _item(self, k: int) -> SinkhornResult:
        found = self.singles.get(k)
        if found is None:
            found = self.singles[k] = self._made(k)
        return found

    def _made(self, k: int) -> SinkhornResult:
        """The result of an item that was solved with the others."""
        solved, xp, place = self.solved, self.place.xp, self.place
        instance = self.batch.instance(k)
        if self.own:
            instance = instance.source()
        assert self.engine is not None
        rows, columns = self.engine.rows, self.engine.columns
        a, here, there = instance.side_a.restrict, rows.of(k), columns.of(k)
        f, more_f = a(solved.f[here]), a(solved.f_more[here])
        if self.own:
            g, more_g = f, more_f
        else:
            b = instance.side_b.restrict
            g, more_g = b(solved.g[there]), b(solved.g_more[there])
        error, mass = (
            xp.asarray(float(z[k]), dtype=xp.float64, device=place.device) for z in (solved.error, solved.mass)
        )
        dual = dual_of((f, g, more_f, more_g), error, mass, solved.logit_error[k], self.tol, own=self.own)
        status, history = STATUSES[int(solved.status[k])], checks_of(solved, k, self.tol)
        return SinkhornResult(instance, dual, status, int(solved.nit[k]), history, self.tol)

    def _filled(self, flat: Array, side: int, name: str, potential: str) -> Array:
        """With the numbers of the items that were solved one by one."""
        if not self._alone:
            return flat
        sizes = self.batch.geometry.sizes[0 if self.own else side].reshape(-1)
        ends, xp = np.cumsum(sizes), self.place.xp
        parts, last = [], 0
        for k in sorted(self._alone):
            begin, end = int(ends[k] - sizes[k]), int(ends[k])
            parts += [flat[last:begin, ...], getattr(getattr(self.singles[k], potential), name)]
            last = end
        return xp.concat([*parts, flat[last:, ...]], axis=0)

    @cached_property
    def _alone(self) -> list[int]:
        """The items that were solved one by one."""
        return np.flatnonzero(self.solved.status < 0).tolist()

    def _number_of(self, numbers: np.ndarray, name: str) -> np.ndarray:
        """One number an item, those solved one by one included."""
        if self._alone:
            numbers = numbers.copy()
            for k in self._alone:
                numbers[k] = getattr(self.singles[k], name)
        return numbers.reshape(self.shape)

    @cached_property
    def status(self) -> np.ndarray:
        return self._number_of(self.solved.status, "status")

    @cached_property
    def nit(self) -> np.ndarray:
        return self._number_of(self.solved.nit, "nit")

    @cached_property
    def marginal_error(self) -> np.ndarray:
        return self._number_of(self.solved.error, "marginal_error")

    @cached_property
    def value64(self) -> np.ndarray:
        """`value` in float64, on the host."""
        return self._number_of(self.solved.value, "value64")

    @property
    def value(self) -> Array:
        return self._numbers(self.value64)

    @cached_property
    def _bases(self) -> tuple[Array, Array, Array, Array]:
        """What extends f, and f so extended; the same of g."""
        s = self.solved
        if self.own:
            base, extension = (s.f_more, s.f) if self.tol is None else (s.f, s.f_more)
            return base, extension, base, extension
        if self.tol is None:
            return s.g_more, s.f, s.f_more, s.g
        return s.g, s.f, s.f, s.g_more

    @cached_property
    def source_potential(self) -> Array:
        """f in float64, flat, extended to the points of weight zero."""
        flat = (
            self.solved.f if self.engine is None else self.engine.extended(self.solved.f, self._bases[0], own=self.own)
        )
        return self._filled(flat, 0, "potential", "source")

    @cached_property
    def target_potential(self) -> Array:
        """g, likewise."""
        if self.own:
            return self.source_potential
        flat = self.solved.g if self.engine is None else self.engine.T.extended(self.solved.g, self._bases[2])
        return self._filled(flat, 1, "potential", "target")

    @cached_property
    def source_slope(self) -> Array:
        """-displacement in float64, flat."""
        base, extension = self._bases[:2]
        return self._slope(self.engine, base, extension, 0, "source", self.solved.f_slope)

    @cached_property
    def target_slope(self) -> Array:
        """The same of the other side."""
        if self.own:
            return self.source_slope
        base, extension = self._bases[2:]
        engine = None if self.engine is None else self.engine.T
        return self._slope(engine, base, extension, 1, "target", self.solved.g_slope)

    def _slope(
        self, engine: Engine | None, base: Array, extension: Array, side: int, potential: str, made: Array | None
    ) -> Array:
        xp, geometry = self.place.xp, self.batch.geometry
        d = geometry.dimension
        if d is None:
            raise TypeError("a CostMatrix has no points to differentiate in; use PointCloud, or `plan`: dOT / dC = P")
        if engine is None or len(self._alone) == math.prod(self.shape):
            flat = xp.zeros((extension.shape[0], d), dtype=xp.float64, device=self.place.device)
        else:
            if made is None:
                made = engine.slopes(engine.extended(extension, base, own=self.own), base, own=self.own)
            flat = made
            flat = geometry.pull_back(flat, 0 if self.own else side)
        return self._filled(flat, side, "slope", potential)

    @cached_property
    def weights(self) -> tuple[Array, Array]:
        """The weights of all items in float64, flat."""
        return tuple(flat_weights(self.batch, side) for side in ((0, 0) if self.own else (0, 1)))

    def weight_gradient(self, side: int) -> Array:
        """rho + eps m - (rho + eps) exp(-f / rho), with the mass of the other side; balanced: f + eps (m - 1)."""
        xp, sizes = self.place.xp, self.batch.geometry.sizes[0 if self.own else side]
        strengths = (self.batch.rho_a, self.batch.rho_b)[0 if self.own else side]
        masses = batch_masses(self.batch)[0 if self.own else 1 - side]
        f = self.source_potential if side == 0 else self.target_potential
        eps, rho, mass = (spread(z, sizes, self.place) for z in (self.batch.eps, strengths, masses))
        with np.errstate(over="ignore", invalid="ignore"):
            bound = xp.isinf(rho)
            finite = xp.where(bound, xp.ones_like(rho), rho)
            return xp.where(bound, f, -(finite + eps) * xp.expm1(-f / finite)) + eps * (mass - 1)

    @property
    def f(self) -> Any:
        return self._given(self.source_potential, 0)

    @property
    def g(self) -> Any:
        return self._given(self.target_potential, 0 if self.own else 1)

    @property
    def grad_x(self) -> Any:
        return gradient(self.batch, self.weights[0], self.source_slope, None, 0)

    @property
    def grad_y(self) -> Any:
        return gradient(self.batch, self.weights[1], self.target_slope, None, 0 if self.own else 1)

    @property
    def grad_a(self) -> Any:
        return self._given(self.weight_gradient(0), 0)

    @property
    def grad_b(self) -> Any:
        return self._given(self.weight_gradient(1), 0 if self.own else 1)

    @property
    def displacement(self) -> Any:
        return self._given(-self.source_slope, 0)
