"""What results of transports and of divergences share: their outcome in words, and the arrays that they hand out."""

from __future__ import annotations

from typing import Any

from epsot.archives import Savable
from epsot.arrays import in_dtype
from epsot.communicator import ALONE, Communicator, Share
from epsot.costs import Array
from epsot.geometry.base import DOUBLE
from epsot.geometry.grid import Grid
from epsot.lazy import Lean
from epsot.problems.instance import Instance
from epsot.results.hessian import TwiceDifferentiable
from epsot.results.shown import Shown, as_lines
from epsot.solver.loop import Check
from epsot.status import Status

HUGE = 1e6  # temperatures that finite costs may span before they look like a way to forbid pairs


def told_apart(error: float, tol: float | None, digits: int) -> str:
    """The error with so many decimals, or as many as show on which side of the tolerance it is."""
    if tol is not None and error != tol:
        while digits < 17 and f"{error:.{digits}e}" == f"{tol:.{digits}e}":
            digits += 1
    return f"{error:.{digits}e}"


class Result(TwiceDifferentiable, Lean, Savable, Shown):
    """What both kinds of result share: casting, the outcome in words, and a short `repr`."""

    instance: Instance
    status: Status
    nit: int
    history: tuple[Check, ...]
    tol: float | None  # that was asked for

    @property
    def eps(self) -> float:
        """The temperature that was solved, in the units of the cost."""
        return self.instance.eps

    @property
    def rho(self) -> float | tuple[float | None, float | None] | None:
        """The marginal strength, in the units of the cost; None is balanced, a pair has one for each side."""
        return self.instance.rho

    @property
    def success(self) -> bool:
        """Whether the marginal error was measured and is at most `tol`."""
        return self.status is Status.CONVERGED

    @property
    def _reached(self) -> float | None:
        """The marginal error, if the solve has measured it."""
        raise TypeError("the error belongs to the subclass")

    @property
    def _iterations(self) -> str:
        return str(self.nit)

    @property
    def message(self) -> str:
        """The status in words: what was reached, and the cure."""
        measured = "" if self._reached is None else f"; marginal error {told_apart(self._reached, self.tol, 2)}"
        cure = f"; {self._cure}" if self._cure else ""
        return f"{self.status.meaning}{measured} after {self.nit} iterations{cure}"

    @property
    def _cure(self) -> str:
        """That of the status, as far as it fits what was solved."""
        instance, status = self.instance, self.status
        cure = status.cure
        if status is Status.STALLED:
            single = instance.problem.precision > DOUBLE  # else kernels compute in float64 already
            cure = (
                cure.replace("float64", "float64 points")
                if single
                else "raise `tol` or the temperature (`blur`, `eps`)"
            )
        if not Status.MAX_ITER <= status <= Status.DIVERGED:
            return cure
        if instance.geometry.forbids():
            cure += ", and check that forbidden pairs leave a plan"
        if instance.problem.kernel.stored and instance.core.scale() > HUGE * self.eps:
            cure += "; if the largest costs stand for forbidden pairs, make them `+inf`"
        return cure

    @property
    def _free_value(self) -> float | None:
        """The value, where it costs nothing: no sweep, and no reading from a device."""
        raise TypeError("the value belongs to the subclass")

    def _lines(self) -> dict[str, object]:
        (n, m), value = self.instance.geometry.shape, self._free_value
        blur = self.instance.geometry.blur(self.eps)
        return {
            "shape": f"{n} x {m}",
            "status": f"{self.status.name} ({self.status.meaning})",
            **({} if value is None else {"value": f"{value:.6g}"}),
            "marginal error": "not measured" if self._reached is None else told_apart(self._reached, self.tol, 3),
            "nit": self._iterations,
            **({} if blur is None else {"blur": f"{blur:.6g}"}),
            "eps": f"{self.eps:.6g}",
            "rho": "balanced" if self.rho is None else self.rho,
        }

    def __repr__(self) -> str:
        return as_lines(type(self).__name__, self._lines())

    def _cast(self, array: Array) -> Array:
        return in_dtype(array, self.instance.geometry.dtype, self.instance.place)  # a copy, the user's own

    def _given(self, array: Array, side: int) -> Array:
        """What belongs to the points of a side, (n, ...), as the user has them: over a grid (*shape, ...).

        Of several ranks, the points of this one, over a grid its rows of axis 0.
        """
        own = (self.instance.side_b if side else self.instance.side_a).own(array)
        return over(self.instance.geometry.supports[side], own, self.instance.place.xp)

    @property
    def comm(self) -> Communicator:
        """The ranks that have solved it together."""
        return self.instance.comm

    def _joined(self, points: Any) -> tuple[Any, Share]:
        """Other points of all ranks, of those of this one; a grid is all of it on each."""
        if isinstance(points, Grid):
            return points, Share(ALONE, ())
        self.comm.check_equal(points=str(points.dtype))
        share = self.comm.share(points.shape[0])
        return share.joined(points), share


def over(support: tuple[int, ...], array: Array, xp: Any) -> Array:
    """Numbers of the points of a support, or of some rows of it, in its shape.  (n, ...) -> (*support, ...)"""
    return array if len(support) == 1 else xp.reshape(array, (-1, *support[1:], *array.shape[1:]))
