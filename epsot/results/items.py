"""What the results of many problems have in common: single results as items, and arrays of what these have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from epsot.archives import Savable
from epsot.arrays import Place, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.lazy import Lean
from epsot.problems.batch import Batch
from epsot.results.flat import at_points, given
from epsot.results.shown import Shown
from epsot.status import Status


@device_aware
class Results(Lean, Savable, Shown):
    """A batch of single results."""

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

    def potential(self, points: Any) -> Any:
        """`potential` of every item at other points, (r, d), or at one cloud for each.

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
