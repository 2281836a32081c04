"""What outlives the solve of a barycenter: what its result still asks for, and what an observer is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from epsot.archives import Observed
from epsot.arrays import Place, as_number, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.drivers.choice import solve_self, solve_transport
from epsot.drivers.intermediate import cooled, progress_of
from epsot.drivers.options import Options
from epsot.problems.barycenter import BarycenterInstance
from epsot.results.barycenter import BarycenterResult
from epsot.results.outcome import over
from epsot.results.result import SinkhornResult
from epsot.solver.barycenter import BarycenterDual
from epsot.solver.loop import Check
from epsot.status import STATUSES, Status

FIRST = 1 / 8  # of the diameter: above, a debiased barycenter of compact shapes is nearly one point, which takes longer
PRECISE = 1e-4  # marginal error of the transport of a measure with itself, for the value: its square counts


def self_transport(instance: BarycenterInstance, options: Options, k: int) -> SinkhornResult:
    """Measure k with itself, of mass one."""
    mine, weights = replace(instance, mass=1.0), instance.weights[k]
    tol = PRECISE if options.tol is None else min(options.tol, PRECISE)
    return solve_self(mine.between(weights, weights).source(), replace(options, tol=tol), None)


@dataclass(frozen=True)
class Further:
    """What a result solves as it is asked for, and how."""

    instance: BarycenterInstance
    options: Options

    def own(self, k: int) -> SinkhornResult:
        """Measure k with itself, of mass one."""
        return self_transport(self.instance, self.options, k)

    def other(self, a: Array, k: int) -> SinkhornResult:
        """From weights of mass one to measure k, which had no share in them."""
        return solve_transport(self.instance.between(a, self.instance.weights[k]), self.options, None)

    def written(self) -> dict[str, Any]:
        """What a file holds of it."""
        options = self.options
        return {
            "start": options.start, "scaling": options.scaling, "tol": options.tol, "max_iter": options.max_iter,
        }  # fmt: skip


def read_barycenter(parts: dict[str, Any], place: Place) -> BarycenterResult:
    """The result that a file holds, in the library of a place."""
    instance, how = BarycenterInstance.read(parts["instance"], place), parts["further"]
    tol = None if how["tol"] is None else as_number("tol", how["tol"])
    options = Options(
        as_number("start", how["start"]), as_number("scaling", how["scaling"]), tol, int(how["max_iter"]), None,
    )  # fmt: skip
    return BarycenterResult(
        instance, BarycenterDual.read(parts["found"], instance.problem), STATUSES[parts["status"]], int(parts["nit"]),
        tuple(Check(int(nit), eps, error) for nit, eps, error in parts["history"].tolist()), parts["tol"],
        Further(instance, options),
    )  # fmt: skip


@device_aware
class BarycenterIntermediate(Observed):
    """The record that a callback gets after each iteration: `nit`, `eps`, `marginal_error`, and on demand `weights`.

    `save` writes what it is so far as a result, from which a solve goes on: ``init=epsot.load(path)``.
    """

    def __init__(
        self,
        nit: int,
        eps: float,
        marginal_error: float,
        log_a: Callable[[], Array],
        dual: Callable[[], BarycenterDual],
        instance: BarycenterInstance,
        options: Options,
    ) -> None:
        self.nit, self.eps, self.marginal_error = nit, eps, marginal_error
        self._log_a, self._dual, self._instance, self._options = log_a, dual, instance, options

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self._instance.place

    @property
    def weights(self) -> Array:
        """The weights of this iteration, of the mass of the measures; from a coarser grid between its nodes."""
        xp, geometry = self.place.xp, self._instance.geometry
        weights = over(geometry.supports[0], xp.exp(self._log_a()) * self._instance.mass, xp)
        return in_dtype(weights, geometry.dtype, self.place)

    @property
    def progress(self) -> float:
        """How far the solve has come, in [0, 1], by logarithms: half are its temperatures, the other half its error."""
        start = self._options.start * FIRST**self._instance.geometry.degree
        share = cooled(self.eps, start, self._instance.eps)
        return progress_of(share, self._options.tol, lambda: self.marginal_error)

    def record(self) -> BarycenterResult:
        """A result that was stopped here: what of this outlives the solve."""
        instance, options = replace(self._instance, eps=self.eps), replace(self._options, callback=None)
        return BarycenterResult(
            instance, self._dual(), Status.STOPPED, self.nit, (), options.tol, Further(instance, options)
        )

    def __repr__(self) -> str:
        return f"BarycenterIntermediate(nit={self.nit}, eps={self.eps:.4g})"


BarycenterStart = BarycenterResult | BarycenterIntermediate | None
