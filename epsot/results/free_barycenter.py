"""A cloud between several clouds, and the divergences that pull at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsot.archives import Savable
from epsot.arrays import Place, as_number, dtype_of_name, in_dtype, name_of_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.lazy import Lean
from epsot.results.debiased import DivergenceResult
from epsot.results.outcome import told_apart
from epsot.results.shown import Shown, as_lines
from epsot.solver.loop import Check
from epsot.status import STATUSES, Status


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class FreeBarycenterResult(Lean, Savable, Shown):
    """The points of a cloud between several clouds.

    Attributes
    ----------
    points : (n, d) array
        Of equal weights, in the library, device and dtype of those it started from.
    value : 0-d array
        ``sum_k t_k S(points, x_k)``.
    displacement : (n, d) array
        ``sum_k t_k displacement_k``, where the next step would move the points: minus the gradient of the value over
        the weights.
    movement : float
        The root of the mean square of `displacement`, over the blur.
    grad_t : (K,) array
        Derivatives of the value in t, up to a constant: the divergences.
    parts : tuple of DivergenceResult
        Those to each cloud, with plans, maps and derivatives.
    marginal_error : float
        The worst of the parts.
    success, status, message, nit, history : bool, Status, str, int, tuple
        The outcome. `nit` counts steps of the points; `history` holds (nit, eps, movement) of each.
    t : tuple of float
        The shares, of sum one.
    eps, tol : float
        What was solved, in the units of the cost, and the movement that was asked for.
    """

    place: Place
    dtype: object
    points64: Array = field(repr=False)  # in float64
    displacement64: Array = field(repr=False)
    movement: float
    parts: tuple[DivergenceResult, ...] = field(repr=False)
    t: tuple[float, ...]
    status: Status
    nit: int
    history: tuple[Check, ...]
    tol: float

    def _written(self) -> dict[str, Any]:
        return {
            "dtype": name_of_dtype(self.dtype), "points": self.points64, "displacement": self.displacement64,
            "movement": self.movement, "parts": [part._written() for part in self.parts], "t": list(self.t),
            "status": int(self.status), "nit": self.nit, "tol": self.tol,
            "history": np.array(self.history, np.float64).reshape(-1, 3),
        }  # fmt: skip

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> FreeBarycenterResult:
        xp, shares = place.xp, tuple(as_number("t", share) for share in parts["t"])
        points, move = (xp.astype(place.received(parts[name]), xp.float64) for name in ("points", "displacement"))
        there = tuple(DivergenceResult._read(part, place) for part in parts["parts"])
        sizes = {part.xy.instance.geometry.shape[0] for part in there}
        if points.ndim != 2 or move.shape != points.shape or sizes != {points.shape[0]} or len(there) != len(shares):
            raise ValueError("clouds that do not fit one another")
        return cls(
            place, dtype_of_name(parts["dtype"], place), points, move, as_number("movement", parts["movement"]), there,
            shares, STATUSES[parts["status"]], int(parts["nit"]),
            tuple(Check(int(nit), eps, error) for nit, eps, error in parts["history"].tolist()),
            as_number("tol", parts["tol"]),
        )  # fmt: skip

    @property
    def eps(self) -> float:
        return self.parts[0].eps

    @property
    def success(self) -> bool:
        """Whether the points have come to rest, and the last divergences have converged."""
        return self.status is Status.CONVERGED

    @property
    def marginal_error(self) -> float:
        return max(part.marginal_error for part in self.parts)

    @property
    def message(self) -> str:
        """The status in words: how far the last step would go, and the cure."""
        moved = f"movement {told_apart(self.movement, self.tol, 2)} of the blur after {self.nit} steps"
        if self.status is Status.CONVERGED:
            return f"the points move by less than `tol` of the blur; {moved}"
        if self.status is Status.MAX_ITER and self.movement > self.tol:
            return f"`max_iter` steps did not bring the points to rest; {moved}; raise `max_iter`, `tol` or `blur`"
        return f"{self.status.meaning}; {moved}; {self.status.cure}"

    def _lines(self) -> dict[str, object]:
        (n, d), blur = self.points64.shape, self.parts[0].instance.geometry.blur(self.eps)
        known = all(part._free_value is not None for part in self.parts)
        return {
            "points": f"{n} x {d}",
            "clouds": len(self.t),
            "status": self.status.name,
            **({"value": f"{float(self.value):.6g}"} if known else {}),
            "movement": told_apart(self.movement, self.tol, 3),
            "nit": self.nit,
            **({} if blur is None else {"blur": f"{blur:.6g}"}),
            "eps": f"{self.eps:.6g}",
        }

    def __repr__(self) -> str:
        return as_lines(type(self).__name__, self._lines())

    def _cast(self, array: Array) -> Array:
        return in_dtype(array, self.dtype, self.place)

    @property
    def points(self) -> Array:
        return self._cast(self.points64)

    @property
    def displacement(self) -> Array:
        return self._cast(self.displacement64)

    @property
    def value(self) -> Array:
        total = sum((t * part.value64 for t, part in zip(self.t, self.parts, strict=True)))
        return self._cast(total)

    @property
    def grad_t(self) -> Array:
        return self._cast(self.place.xp.stack([part.value64 for part in self.parts]))
