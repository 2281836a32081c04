"""Many cost matrices: one with leading axes, or a list of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epsot.arrays import Place, as_real, common_place, to_numpy
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.geometry.batches import Geometries
from epsot.geometry.matrix import CostMatrix
from epsot.geometry.rows import Shape, name_of
from epsot.lists import is_ragged


@device_aware
class CostMatrices(Geometries):
    """Many cost matrices: what `CostMatrix` is for a matrix with leading axes, or a list of matrices."""

    stored_as = "many matrices"
    degree = 1.0
    lengths = 0, 0

    def __init__(self, C: Any, *, C_xx: Any = None, C_yy: Any = None) -> None:
        parts = {"C": C, "C_xx": C_xx, "C_yy": C_yy}
        listed = {name: is_ragged(z) for name, z in parts.items()}
        self.place = common_place(
            **{f"{name}[{k}]" if listed[name] else name: item for name, z in parts.items() if z is not None
               for k, item in enumerate(z if listed[name] else [z])}
        )  # fmt: skip
        self._items: dict[str, tuple[Shape, Any]] = {}
        shapes: list[Shape] = []
        for name, matrices in parts.items():
            if matrices is None:
                continue
            if listed[name]:
                arrays = [as_real(f"{name}[{k}]", item, self.place) for k, item in enumerate(matrices)]
                for k, array in enumerate(arrays):
                    if array.ndim != 2:
                        raise ValueError(f"`{name}[{k}]` must be an (n, m) matrix, got shape {tuple(array.shape)}")
                shapes.append((len(arrays),))
                self._items[name] = (shapes[-1], arrays)
            else:
                array = as_real(name, matrices, self.place)
                if array.ndim < 2:
                    raise ValueError(f"`{name}` must be a matrix, or have leading axes, got shape {tuple(array.shape)}")
                shapes.append(tuple(array.shape[:-2]))
                flat = self.place.xp.reshape(array, (-1, *array.shape[-2:])) if array.ndim > 2 else array[None, :, :]
                self._items[name] = (shapes[-1], flat)
        self.C = None if listed["C"] else self._items["C"][1]  # (count, n, m)
        try:
            self._broadcast(np.broadcast_shapes(*shapes))
        except ValueError:
            listed_shapes = ", ".join(f"{shape} of `{name}`" for name, shape in zip(self._items, shapes, strict=True))
            raise ValueError(f"there must be as many matrices of each kind, or one, got {listed_shapes}") from None
        self._checked = [self._make(k) for k in range(len(self))]
        self.dtype = self._checked[0].dtype if self._checked else self._items["C"][1].dtype
        self.ragged = listed["C"], listed["C"]
        self.lengths = (0, 0) if self.C is None else (int(self.C.shape[1]), int(self.C.shape[2]))

    @classmethod
    def of(cls, geometry: CostMatrix) -> CostMatrices:
        """The batch of one matrix, of the shape ()."""
        return cls(geometry.C, C_xx=geometry.C_xx, C_yy=geometry.C_yy)

    def _broadcast(self, shape: Shape) -> None:
        self.shape = shape
        self._numbers = {
            name: np.broadcast_to(np.arange(math.prod(own)).reshape(own), shape).reshape(-1)
            for name, (own, _) in self._items.items()
        }
        matrices, numbers = self._items["C"][1], self._numbers["C"]
        shapes = [tuple(matrices[int(k)].shape if isinstance(matrices, list) else matrices.shape[1:]) for k in numbers]
        sizes = np.array(shapes, np.int64).reshape(*shape, 2)
        self.sizes = sizes[..., 0], sizes[..., 1]

    def _make(self, k: int) -> CostMatrix:
        numbers = {name: int(of[k]) for name, of in self._numbers.items()}
        found = {
            name: matrices[numbers[name]] if isinstance(matrices, list) else matrices[numbers[name], :, :]
            for name, (_, matrices) in self._items.items()
        }
        try:
            return CostMatrix(found.pop("C"), **found)
        except ValueError as error:
            message = str(error)
            for name in self._items:
                message = message.replace(f"`{name}` must", f"`{name_of(name, self.shape, k)}` must")
            raise ValueError(message) from None

    def written(self) -> dict[str, Any]:
        xp, parts = self.place.xp, {}
        for name, (own, matrices) in self._items.items():
            stacked = not isinstance(matrices, list)
            parts[name] = xp.reshape(matrices, (*own, *matrices.shape[1:])) if stacked else matrices
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
        new = self._derived()
        (shape, matrices), transpose = self._items["C"], self.place.xp.matrix_transpose
        turned = [transpose(C) for C in matrices] if self.C is None else transpose(matrices)
        new.C, new.ragged, new.lengths = None if self.C is None else turned, self.ragged[::-1], self.lengths[::-1]
        new._items = {"C": (shape, turned), **{
            name: self._items[other] for name, other in (("C_xx", "C_yy"), ("C_yy", "C_xx")) if other in self._items
        }}  # fmt: skip
        new._broadcast(self.shape)
        new._checked = [matrix.T for matrix in self._checked]
        return new

    def stored(self, name: str) -> tuple[Array, np.ndarray] | None:
        _, matrices = self._items.get(name, ((), None))
        if matrices is None or isinstance(matrices, list):
            return None
        n = matrices.shape[1]
        return self.place.xp.reshape(matrices, (-1, matrices.shape[2])), self._numbers[name].astype(np.int64) * n

    def forbidding(self) -> list[int]:
        xp, matrices = self.place.xp, self._items["C"][1]
        if isinstance(matrices, list):
            forbid = np.array([bool(xp.any(xp.isinf(matrix))) for matrix in matrices], bool)
        else:
            forbid = to_numpy(xp.any(xp.isinf(matrices), axis=(1, 2)))
        return np.flatnonzero(forbid[self._numbers["C"]]).tolist()

    def matrices(self, name: str) -> Array:
        """Those of that name, in float64: (B, n, m), or (1, n, m) where all items share one."""
        xp, found, numbers = self.place.xp, self._items[name][1], self._numbers[name]
        if found.shape[0] > 1:
            found = xp.take(found, xp.asarray(numbers.astype(np.int64), device=self.place.device), axis=0)
        return xp.astype(found, xp.float64)

    def item(self, k: int) -> CostMatrix:
        return self._checked[k]

    def __repr__(self) -> str:
        return f"CostMatrices(shape={self.shape}, dtype={self.dtype})"


CostMatrix.many = CostMatrices
