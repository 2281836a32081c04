"""Records of a callback that outlive the solve: saved, loaded, and to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from epsot.archives import Savable
from epsot.arrays import Place, dtype_of_name, in_dtype, name_of_dtype
from epsot.costs import Array
from epsot.geometry.rows import Rows


@dataclass(frozen=True, repr=False, eq=False)
class Record(Savable):
    """What a callback has seen of a solve after an iteration, and `init=` of one that goes on.

    Attributes
    ----------
    nit : int
    eps : float
        The temperature of the iteration.
    marginal_error : float
    f, g : (n,) and (m,) arrays
        The potentials over the points, also where the solve was on cells; over a Grid in its shape.
    """

    nit: int
    eps: float
    marginal_error: float
    pair: tuple[Array, Array]  # in float64, of the shapes of the weights
    dtype: Any  # of what is handed out
    place: Place

    @property
    def f(self) -> Array:
        return in_dtype(self.pair[0], self.dtype, self.place)

    @property
    def g(self) -> Array:
        return in_dtype(self.pair[1], self.dtype, self.place)

    def _written(self) -> dict[str, Any]:
        return {
            "nit": self.nit, "eps": self.eps, "marginal_error": self.marginal_error, "f": self.pair[0],
            "g": self.pair[1], "dtype": name_of_dtype(self.dtype),
        }  # fmt: skip

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> Record:
        xp, nit, eps, error = place.xp, int(parts["nit"]), float(parts["eps"]), float(parts["marginal_error"])
        f, g = (xp.astype(place.received(parts[name]), xp.float64) for name in ("f", "g"))
        if f.ndim == 0 or g.ndim == 0:
            raise ValueError(f"potentials of shapes {f.shape} and {g.shape}")
        return cls(nit, eps, error, (f, g), dtype_of_name(parts["dtype"], place), place)

    def __repr__(self) -> str:
        return f"Record(nit={self.nit}, eps={self.eps:.4g})"


@dataclass(frozen=True, repr=False, eq=False)
class BatchRecord(Savable):
    """`Record` of a batch: axes of the batch first; what came as a list is one."""

    nit: np.ndarray
    eps: np.ndarray
    marginal_error: np.ndarray
    sides: tuple[Rows, Rows]  # in float64
    dtype: Any
    place: Place

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the batch."""
        return self.nit.shape

    def _potential(self, side: int) -> Any:
        rows, count = self.sides[side], self.nit.size
        whole = in_dtype(rows.values, self.dtype, self.place)
        support = (rows.length if count == 0 else int(rows.sizes.flat[0]),) if rows.grid is None else rows.grid.shape
        if rows.ragged:
            return [whole[int(b) : int(b) + int(n)] for b, n in zip(rows.first.flat, rows.sizes.flat, strict=True)]
        return self.place.user.xp.reshape(whole, (*self.shape, *support))

    @property
    def f(self) -> Any:
        return self._potential(0)

    @property
    def g(self) -> Any:
        return self._potential(1)

    def _written(self) -> dict[str, Any]:
        return {
            "nit": self.nit, "eps": self.eps, "marginal_error": self.marginal_error, "f": self.sides[0].written(),
            "g": self.sides[1].written(), "dtype": name_of_dtype(self.dtype),
        }  # fmt: skip

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> BatchRecord:
        nit, eps, error = (parts[name] for name in ("nit", "eps", "marginal_error"))
        f, g = (Rows.read(parts[name], place) for name in ("f", "g"))
        if len({f.shape, g.shape, nit.shape, eps.shape, error.shape}) > 1:
            raise ValueError("a record of a batch whose parts have different shapes")
        return cls(nit, eps, error, (f, g), dtype_of_name(parts["dtype"], place), place)

    def __repr__(self) -> str:
        return f"BatchRecord(shape={self.shape}, nit up to {int(self.nit.max(initial=0))})"
