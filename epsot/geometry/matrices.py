"""Many cost matrices: one with leading axes, or a list of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsot.arrays import Place, as_real, common_place, to_numpy
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.geometry.batches import Geometries
from epsot.geometry.matrix import CostMatrix
from epsot.geometry.rows import Shape, name_of
from epsot.lists import Listed, is_ragged, named


@dataclass(frozen=True, eq=False)
class Stack:
    """The matrices of one argument, and which of them belongs to each item of a batch."""

    values: Any  # (count, n, m), or a list of (n, m)
    shape: Shape  # of the batch, as the user has them
    numbers: np.ndarray  # (B,) int64

    @classmethod
    def of(cls, name: str, given: Any, place: Place) -> Stack:
        """Of what the user has given: one matrix, one with leading axes, or a list."""
        if is_ragged(given):
            values: Any = Listed(name, given).real(place)
            for k, matrix in enumerate(values):
                if matrix.ndim != 2:
                    raise ValueError(f"`{name}[{k}]` must be an (n, m) matrix, got shape {tuple(matrix.shape)}")
            shape: Shape = (len(values),)
        else:
            array = as_real(name, given, place)
            if array.ndim < 2:
                raise ValueError(f"`{name}` must be a matrix, or have leading axes, got shape {tuple(array.shape)}")
            shape = tuple(array.shape[:-2])
            values = place.xp.reshape(array, (-1, *array.shape[-2:])) if array.ndim > 2 else array[None, :, :]
        return cls(values, shape, np.arange(math.prod(shape)))

    @property
    def listed(self) -> bool:
        """Whether they are a list."""
        return isinstance(self.values, list)

    def over(self, shape: Shape) -> Stack:
        """Of the items of another shape, which may share them."""
        own = np.arange(math.prod(self.shape)).reshape(self.shape)
        return Stack(self.values, self.shape, np.broadcast_to(own, shape).reshape(-1))

    def item(self, k: int) -> Array:
        number = int(self.numbers[k])
        return self.values[number] if self.listed else self.values[number, :, :]

    def sizes(self) -> np.ndarray:
        """Rows and columns of each item.  -> (B, 2)"""
        if self.listed:
            return np.array([self.values[k].shape for k in self.numbers.tolist()], np.int64).reshape(-1, 2)
        return np.tile(np.array(self.values.shape[1:], np.int64), (len(self.numbers), 1))

    def transposed(self, xp: Any) -> Stack:
        """Each of them."""
        turned = [xp.matrix_transpose(z) for z in self.values] if self.listed else xp.matrix_transpose(self.values)
        return Stack(turned, self.shape, self.numbers)

    def given(self, xp: Any) -> Any:
        """As the user has them."""
        return self.values if self.listed else xp.reshape(self.values, (*self.shape, *self.values.shape[1:]))


@device_aware
class CostMatrices(Geometries):
    """Many cost matrices: what `CostMatrix` is for a matrix with leading axes, or a list of matrices."""

    stored_as = "many matrices"
    degree = 1.0
    lengths = 0, 0

    def __init__(self, C: Any, *, C_xx: Any = None, C_yy: Any = None) -> None:
        given = {name: z for name, z in (("C", C), ("C_xx", C_xx), ("C_yy", C_yy)) if z is not None}
        self.place = common_place(**named(**given))
        self._stacks = {name: Stack.of(name, z, self.place) for name, z in given.items()}
        try:
            self._broadcast(np.broadcast_shapes(*(stack.shape for stack in self._stacks.values())))
        except ValueError:
            listed = ", ".join(f"{stack.shape} of `{name}`" for name, stack in self._stacks.items())
            raise ValueError(f"there must be as many matrices of each kind, or one, got {listed}") from None
        self._checked = [self._make(k) for k in range(len(self))]
        costs = self._stacks["C"]
        self.dtype = self._checked[0].dtype if self._checked else costs.values.dtype
        self.ragged = costs.listed, costs.listed
        if not costs.listed:
            self.lengths = int(costs.values.shape[1]), int(costs.values.shape[2])

    @classmethod
    def of(cls, geometry: CostMatrix) -> CostMatrices:
        """The batch of one matrix, of the shape ()."""
        return cls(geometry.C, C_xx=geometry.C_xx, C_yy=geometry.C_yy)

    def _broadcast(self, shape: Shape) -> None:
        self.shape = shape
        self._stacks = {name: stack.over(shape) for name, stack in self._stacks.items()}
        sizes = self._stacks["C"].sizes().reshape(*shape, 2)
        self.sizes = sizes[..., 0], sizes[..., 1]

    def _make(self, k: int) -> CostMatrix:
        found = {name: stack.item(k) for name, stack in self._stacks.items()}
        try:
            return CostMatrix(found.pop("C"), **found)
        except ValueError as error:
            message = str(error)
            for name in self._stacks:
                message = message.replace(f"`{name}` must", f"`{name_of(name, self.shape, k)}` must")
            raise ValueError(message) from None

    def written(self) -> dict[str, Any]:
        parts = {name: stack.given(self.place.xp) for name, stack in self._stacks.items()}
        return {"shape": list(self.shape), "matrices": parts}

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> CostMatrices:
        found = {
            name: [place.received(C) for C in given] if isinstance(given, list) else place.received(given)
            for name, given in parts["matrices"].items()
        }
        return cls(found.pop("C"), **found).over(tuple(parts["shape"]))

    def over(self, shape: Shape) -> CostMatrices:
        new = self._derived()
        new._broadcast(shape)
        numbers = np.broadcast_to(np.arange(len(self)).reshape(self.shape), shape).reshape(-1)
        new._checked = [self._checked[int(k)] for k in numbers]
        return new

    @property
    def T(self) -> CostMatrices:
        new, stacks = self._derived(), self._stacks
        turned = {"C": stacks["C"].transposed(self.place.xp)}
        new._stacks = turned | {name: stacks[n] for name, n in (("C_xx", "C_yy"), ("C_yy", "C_xx")) if n in stacks}
        new.ragged, new.lengths = self.ragged[::-1], self.lengths[::-1]
        new._broadcast(self.shape)
        new._checked = [matrix.T for matrix in self._checked]
        return new

    def stored(self, name: str) -> tuple[Array, np.ndarray] | None:
        stack = self._stacks.get(name)
        if stack is None or stack.listed:
            return None
        _, n, m = stack.values.shape
        return self.place.xp.reshape(stack.values, (-1, m)), stack.numbers.astype(np.int64) * n

    def forbidding(self) -> list[int]:
        xp, costs = self.place.xp, self._stacks["C"]
        if costs.listed:
            forbid = np.array([bool(xp.any(xp.isinf(matrix))) for matrix in costs.values], bool)
        else:
            forbid = to_numpy(xp.any(xp.isinf(costs.values), axis=(1, 2)))
        return np.flatnonzero(forbid[costs.numbers]).tolist()

    def matrices(self, name: str) -> Array:
        """Those of that name, in float64: (B, n, m), or (1, n, m) where all items share one."""
        xp, stack = self.place.xp, self._stacks[name]
        found = stack.values
        if found.shape[0] > 1:
            found = xp.take(found, xp.asarray(stack.numbers.astype(np.int64), device=self.place.device), axis=0)
        return xp.astype(found, xp.float64)

    def item(self, k: int) -> CostMatrix:
        return self._checked[k]

    def __repr__(self) -> str:
        return f"CostMatrices(shape={self.shape}, dtype={self.dtype})"


CostMatrix.many = CostMatrices
