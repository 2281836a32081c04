"""A cost structure that the package does not know: half of the squared distance between the nodes of two lattices."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot.arrays import common_place
from epsot.geometry import Geometry
from epsot.kernels import reference

Axes = tuple[np.ndarray, ...]


class Separable(reference.Dense):
    """Its reductions, one axis after the other."""

    def __init__(self, x: Axes, y: Axes, workers: int | None = None) -> None:
        self.x, self.y, self.workers = x, y, workers
        self.shape = int(np.prod([len(t) for t in x])), int(np.prod([len(t) for t in y]))

    @property
    def T(self) -> Separable:
        return Separable(self.y, self.x, self.workers)

    def softmin(self, h: np.ndarray, eps: float, guess: np.ndarray | None = None) -> np.ndarray:
        z = h.reshape([len(t) for t in self.y])
        for axis, (s, t) in enumerate(zip(self.x, self.y, strict=True)):
            lines = np.moveaxis(z, axis, -1)  # (..., m_axis)
            logits = lines[..., None, :] - (s[:, None] - t) ** 2 / (2 * eps)
            top = logits.max(axis=-1)
            safe = np.where(top > -np.inf, top, 0.0)
            with np.errstate(divide="ignore"):
                z = np.moveaxis(safe + np.log(np.exp(logits - safe[..., None]).sum(axis=-1)), -1, axis)
        return -eps * z.reshape(-1)

    def cost_rows(self, rows: Any) -> np.ndarray:
        x, y = (
            np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)) for axes in (self.x, self.y)
        )
        return 0.5 * ((x[rows][:, None] - y) ** 2).sum(axis=-1)


class Lattice(Geometry):
    """Two lattices by their axes; no node can be left out, so that weights of zero stay where they are."""

    def __init__(self, x: Axes, y: Axes) -> None:
        self.x, self.y = x, y
        self.place, self.dtype = common_place(x=x[0], y=y[0]), np.dtype(np.float64)
        self.shape = Separable(x, y).shape

    @property
    def degree(self) -> float:
        return 2.0

    @property
    def T(self) -> Lattice:
        return Lattice(self.y, self.x)

    def source(self) -> Lattice:
        return Lattice(self.x, self.x)

    def kernel(self, workers: int | None = None) -> Separable:
        return Separable(self.x, self.y, workers)

    def scale(self) -> float:
        return float(
            sum((max(s.max(), t.max()) - min(s.min(), t.min())) ** 2 for s, t in zip(self.x, self.y, strict=True))
        )

    def is_self(self) -> bool:
        return all(s.shape == t.shape and bool((s == t).all()) for s, t in zip(self.x, self.y, strict=True))
