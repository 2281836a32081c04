"""What a batch of solves returns: the names of a single result, batch axes first, and each item as a single result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsot.archives import Savable
from epsot.arrays import Place, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.kernels.batches import Solved
from epsot.lazy import Lean, cached_property
from epsot.problems.batch import Batch
from epsot.results.flat import at_points, batch_masses, flat_weights, given, gradient, spread
from epsot.results.result import SinkhornResult
from epsot.results.shown import Shown
from epsot.results.solved import Engine, checks_of, dual_of
from epsot.status import STATUSES, Status


class Results(Lean, Savable, Shown):
    """What both kinds of batch results share."""

    batch: Batch
    status: np.ndarray
    nit: np.ndarray

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self.batch.place

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the batch."""
        return self.batch.shape

    def __len__(self) -> int:
        return self.shape[0]

    def _number(self, index: Any) -> int:
        index = index if isinstance(index, tuple) else (index,)
        if len(index) != len(self.shape):
            raise IndexError(f"a result of shape {self.shape} has {len(self.shape)} indices, got {len(index)}")
        if any(isinstance(k, slice | list) or not hasattr(k, "__index__") for k in index):
            raise IndexError(f"one item at a time, by integers, got {index}: slice the arrays of the result instead")
        return int(np.ravel_multi_index(tuple(range(n)[k] for k, n in zip(index, self.shape, strict=True)), self.shape))

    @property
    def success(self) -> np.ndarray:
        """Whether the marginal error of each item was measured and is at most `tol`."""
        found: np.ndarray = self.status == Status.CONVERGED
        return found

    @property
    def eps(self) -> np.ndarray:
        """The temperatures, in the units of the cost."""
        return self.batch.eps.copy()

    @property
    def rho(self) -> Any:
        """The marginal strengths, in the units of the cost; None is balanced, a pair has one for each side."""
        return self.batch.rho

    @property
    def message(self) -> str:
        """How many items have ended how."""
        parts = [f"{int((self.status == s).sum())} of {self.status.size} {s.name}" for s in Status if s in self.status]
        return ", ".join(parts) or "no items"

    def _lines(self) -> dict[str, object]:
        return {"shape": self.shape, "status": self.message}

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(shape={self.shape}, status: {self.message})"

    def _cast(self, flat: Array) -> Array:
        return in_dtype(flat, self.batch.geometry.dtype, self.place)

    def _given(self, flat: Array, side: int) -> Any:
        return given(self.batch, flat, side)

    def _numbers(self, numbers: np.ndarray) -> Array:
        """One number an item, in the library of the user."""
        xp = self.place.xp
        array = xp.asarray(np.reshape(numbers, self.shape), dtype=xp.float64, device=self.place.device)
        return self._cast(array)

    def _each(self, name: str) -> list[Any]:
        """An attribute of every item."""
        return [getattr(self._item(k), name) for k in range(math.prod(self.shape))]

    def _item(self, k: int) -> Any:
        raise TypeError("items belong to the subclass")

    def _stacked(self, name: str) -> Array:
        """A number of every item."""
        found = [float(z) for z in self._each(name)]
        return self._numbers(np.array(found, float))

    def _listed(self, name: str) -> Any:
        """Any object of every item: a list, or of several axes an array of objects."""
        return self._arranged(self._each(name))

    def _arranged(self, found: list[Any]) -> Any:
        if len(self.shape) == 1:
            return found
        out = np.empty(len(found), object)
        out[:] = found
        return out.reshape(self.shape)

    def __iter__(self) -> Iterator[Any]:
        if len(self.shape) != 1:
            raise TypeError("a result of several axes is indexed, result[i, j]")
        return (self._item(k) for k in range(len(self)))

    @property
    def transport_cost(self) -> Array:
        return self._stacked("transport_cost")

    @property
    def dual(self) -> Array:
        return self._stacked("dual")

    @property
    def primal(self) -> Array:
        return self._stacked("primal")

    @property
    def gap(self) -> Array:
        return self._stacked("gap")

    @property
    def plan(self) -> Any:
        return self._listed("plan")

    def hessian(self, of: Any = "x", along: Any = None, *, tol: float = 1e-10, max_iter: int = 1000) -> Any:
        """The second derivatives of every item, as `SinkhornResult.hessian`: a list, or an array of objects.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> batch = epsot.sinkhorn(x, np.stack([x + 1.0, x + 2.0]), blur=0.1)
        >>> [operator.shape for operator in batch.hessian("x")]
        [(100, 100), (100, 100)]
        """
        found = [self._item(k).hessian(of, along, tol=tol, max_iter=max_iter) for k in range(math.prod(self.shape))]
        return self._arranged(found)

    @property
    def history(self) -> Any:
        return self._listed("history")


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

    def potential(self, points: Any) -> Any:
        """f of every item at other points, (r, d), or one cloud for each: as `SinkhornResult.potential`.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> batch = epsot.sinkhorn(x, np.stack([x + 1.0, x + 2.0]), blur=0.1)
        >>> batch.potential([[0.5, 0.5]]).shape
        (2, 1)
        """
        return at_points(self, "potential", points)

    def transport(self, points: Any) -> Any:
        """Move other points, (r, d), or one cloud for each item, by the map of every item.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> batch = epsot.sinkhorn(x, np.stack([x + 1.0, x + 2.0]), blur=0.1)
        >>> batch.transport([[0.5, 0.5]]).shape
        (2, 1, 2)
        """
        return at_points(self, "transport", points)
