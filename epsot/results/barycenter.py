"""The barycenter of several measures on one support, and what follows from its potentials."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from array_api_compat import is_numpy_namespace

from epsot.archives import Savable
from epsot.arrays import Place, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.kernels.reference import logsumexp
from epsot.lazy import Lean, cached_property
from epsot.problems.barycenter import BarycenterInstance
from epsot.results.outcome import over, told_apart
from epsot.results.result import SinkhornResult
from epsot.results.shown import Shown, as_lines
from epsot.solver.barycenter import BarycenterDual
from epsot.solver.loop import Check
from epsot.solver.updates import Dual
from epsot.status import Status


class Further(Protocol):
    """The transports that are solved as they are asked for, and how."""

    def own(self, k: int) -> SinkhornResult: ...  # a measure with itself, of mass one
    def other(self, a: Array, k: int) -> SinkhornResult: ...  # from the weights, (n,) of mass one, to one of share zero
    def written(self) -> dict[str, Any]: ...  # what a file holds of it


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class BarycenterResult(Lean, Savable, Shown):
    """Weights between several measures, and the transports from them to each. Computed on first use.

    Attributes
    ----------
    weights : (n,) array, or of the shape of the grid
        The barycenter, of the mass of the measures.
    value : 0-d array
        What was minimised: ``sum_k t_k S(a, a_k)``, or without `debias` ``sum_k t_k OT(a, a_k) + eps KL(a | u)`` with
        the uniform measure u of the same mass.
    dual, primal, gap : 0-d arrays
        A lower bound on the least value that any weights have, an upper bound on that of `weights`, and their
        difference, taken before what both have in common is added. They cost a few sweeps for each measure.
    f : (K, n) array
        The potentials of `weights` in the transports to each measure, debiased. Their mean with the shares t is the
        derivative of the value in the weights: constant where these are, and no less anywhere at the optimum. Without
        `debias` the derivative has ``eps log(a / u)`` beside.
    g : (K, n) array
        Those of the measures, debiased likewise.
    grad_a : (K, n) array
        Derivatives of the least value in the measures, up to constants: ``t_k g_k``.
    grad_t : (K,) array
        Derivatives of the least value in t, up to a constant: S(a, a_k), or OT(a, a_k).
    parts : tuple of SinkhornResult
        The transports from the barycenter to each measure, with plans and displacements.
    marginal_error : float
        The larger of the mean error of the plans, sum_k t_k abs(P_k 1 - a) over the mass, and of that of the
        self-transport, which tells whether the weights are optimal.
    success, status, message, nit, history : bool, Status, str, int, tuple
        The outcome, as of a `SinkhornResult`.
    t : tuple of float
        The shares, of sum one.
    eps, debias, tol : float, bool, float
        What was solved, in the units of the cost, and the marginal error that was asked for.
    """

    instance: BarycenterInstance
    found: BarycenterDual = field(repr=False)
    status: Status
    nit: int
    history: tuple[Check, ...]
    tol: float | None
    further: Further = field(repr=False)

    def _written(self) -> dict[str, Any]:
        return {
            "instance": self.instance.written(), "found": self.found.written(), "status": int(self.status),
            "nit": self.nit, "tol": self.tol, "history": np.array(self.history, np.float64).reshape(-1, 3),
            "further": self.further.written(),
        }  # fmt: skip

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self.instance.place

    @property
    def eps(self) -> float:
        """The temperature that was solved, in the units of the cost."""
        return self.instance.eps

    @property
    def debias(self) -> bool:
        return self.instance.problem.debias

    @property
    def t(self) -> tuple[float, ...]:
        return self.instance.shares

    @property
    def success(self) -> bool:
        """Whether the marginal error is at most `tol`."""
        return self.status is Status.CONVERGED

    @property
    def marginal_error(self) -> float:
        return self.found.marginal_error

    @property
    def message(self) -> str:
        """The status in words: what was reached, and the cure."""
        cure = f"; {self.status.cure}" if self.status.cure else ""
        measured = self.status is not Status.SCHEDULE_ENDED
        reached = f"; marginal error {told_apart(self.marginal_error, self.tol, 2)}" if measured else ""
        return f"{self.status.meaning}{reached} after {self.nit} iterations{cure}"

    @property
    def _free_value(self) -> float | None:
        """The value, where it costs nothing: debiased it needs the transports of the measures with themselves."""
        known = "value64" in vars(self) or not self.debias
        return float(self.value64) if known and is_numpy_namespace(self.place.xp) else None

    def _lines(self) -> dict[str, object]:
        geometry, value = self.instance.geometry, self._free_value
        support, blur = geometry.supports[0], geometry.blur(self.eps)
        return {
            "measures": len(self.t),
            "support": " x ".join(map(str, support)),
            "status": f"{self.status.name} ({self.status.meaning})",
            **({} if value is None else {"value": f"{value:.6g}"}),
            "marginal error": told_apart(self.marginal_error, self.tol, 3),
            "nit": self.nit,
            **({} if blur is None else {"blur": f"{blur:.6g}"}),
            "eps": f"{self.eps:.6g}",
            "debias": self.debias,
        }

    def __repr__(self) -> str:
        return as_lines(type(self).__name__, self._lines())

    def _cast(self, array: Array) -> Array:
        return in_dtype(array, self.instance.geometry.dtype, self.place)

    def _over(self, rows: list[Array]) -> Array:
        """One row for each measure, in the shape of the support.  -> (K, *support)"""
        xp, support = self.place.xp, self.instance.geometry.supports[0]
        return self._cast(xp.stack([over(support, row, xp) for row in rows]))

    # Weights and transports

    @cached_property
    def weights64(self) -> Array:
        """`weights` in float64, flat and of mass one."""
        return self.place.xp.exp(self.found.log_a)

    @property
    def weights(self) -> Array:
        support = self.instance.geometry.supports[0]
        return self._cast(over(support, self.weights64 * self.instance.mass, self.place.xp))

    @cached_property
    def parts(self) -> tuple[SinkhornResult, ...]:
        active = self.instance.active
        return tuple(
            self._part(k, active.index(k)) if k in active else self.further.other(self.weights64, k)
            for k in range(len(self.t))
        )

    def _part(self, k: int, number: int) -> SinkhornResult:
        """The transport to measure k, the one of that number among those of positive shares."""
        mine, found, xp = self.instance, self.found, self.place.xp
        instance = mine.between(self.weights64, mine.weights[k])
        shift = mine.eps * math.log(mine.mass) / 2  # P has the mass of the measures, a b^T its square
        f, g, updated = (z[number, ...] - shift for z in (found.f, found.g, found.updated))
        error = mine.problem.vectors.violation(found.log_a, f, updated, mine.eps, math.inf)
        f, updated = instance.side_a.restrict(f), instance.side_a.restrict(updated)
        g = instance.side_b.restrict(g)
        mass = xp.asarray(mine.mass, dtype=xp.float64, device=self.place.device)
        dual = Dual(f, g, error, mass, (updated, g), logit_error=instance.problem.logit_error(f, g, mine.eps))
        dual = dual.shifted(instance.problem.dual_shift(f, g))
        return SinkhornResult(instance, dual, self.status, self.nit, self.history, self.tol)

    @cached_property
    def selves(self) -> tuple[SinkhornResult, ...]:
        """Each measure with itself, of mass one."""
        return tuple(map(self.further.own, range(len(self.t))))

    # The value and its bounds

    @cached_property
    def _own_terms(self) -> tuple[Array, Array]:
        """sum_k t_k OT(a_k, a_k) / 2 of mass one, and what its bounds are apart, 0-d."""
        zero = self.place.xp.sum(self.weights64) * 0.0
        if not self.debias:
            return zero, zero
        terms = [(self.t[k], self.selves[k]) for k in self.instance.active]
        half = sum((t / 2 * term.value64 for t, term in terms), start=zero)
        return half, sum((t / 2 * term.gap64 for t, term in terms), start=zero)

    @property
    def _mass_terms(self) -> float:
        """What a mass m adds to m times the value of mass one: debiased nothing, else the entropy of m^2 beside m."""
        m = self.instance.mass
        return 0.0 if self.debias else self.eps * (m * m - m - m * math.log(m))

    @cached_property
    def value64(self) -> Array:
        """`value` in float64.

        With sum_k t_k f_k the potential of the self-transport, which the weights are made of, <a, .> of both cancel.
        """
        value = self.instance.problem.value(self.found.g) - self._own_terms[0]
        return self.instance.mass * value + self._mass_terms

    @cached_property
    def slack64(self) -> Array:
        """How far below `value64`, of mass one, any weights may have theirs, 0-d: what f_k = next_f(g_k) and d prove.

        OT(b, a_k) >= <b, f_k> + <a_k, g_k> for any b, and -OT(b, b) / 2 >= eps <b, log K d> where <d, K d> = 1: what is
        left of b is linear, and no less than its minimum over the points. Without debiasing it is eps KL(b | u) beside.
        """
        found, eps, problem = self.found, self.eps, self.instance.exact
        updated, log_blurred = found.updated, found.log_blurred
        if problem is not self.instance.problem:
            updated = problem.next_f(found.g, eps)
            log_blurred = problem.log_blurred(found.log_d, eps) if self.debias else None
        mean = problem.mean(updated)
        if log_blurred is None:
            return eps * logsumexp((found.log_d - mean / eps)[None, :])[0]
        constant = logsumexp((found.log_d + log_blurred)[None, :])[0] / 2
        return -self.place.xp.min(mean + eps * (log_blurred - constant))

    @cached_property
    def gap64(self) -> Array:
        """`gap` in float64."""
        apart = sum((self.t[k] * self.parts[k].gap64 for k in self.instance.active), start=0.0 * self.slack64)
        return apart + self.instance.mass * self.slack64

    @property
    def value(self) -> Array:
        return self._cast(self.value64)

    @property
    def gap(self) -> Array:
        return self._cast(self.gap64)

    @property
    def dual(self) -> Array:
        return self._cast(self.value64 - self.instance.mass * (self.slack64 + self._own_terms[1]))

    @property
    def primal(self) -> Array:
        apart = sum((self.t[k] * self.parts[k].gap64 for k in self.instance.active), start=0.0 * self.slack64)
        return self._cast(self.value64 + apart)

    # Potentials and derivatives

    @cached_property
    def _own_potential(self) -> Array:
        """That of the weights with themselves, of mass one; zero where nothing is debiased.  (n,)"""
        if self.found.log_blurred is None:
            return self.place.xp.zeros_like(self.found.log_a)
        return -self.eps * self.found.log_blurred

    @property
    def f(self) -> Array:
        shift = self.eps * math.log(self.instance.mass) / 2 if self.debias else 0.0
        return self._over([part.source.potential + shift - self._own_potential for part in self.parts])

    def _target_potentials(self) -> list[Array]:
        shift = self.eps * math.log(self.instance.mass) / 2
        found = [part.target.potential for part in self.parts]
        if not self.debias:
            return found
        return [g + shift - own.source.potential for g, own in zip(found, self.selves, strict=True)]

    @property
    def g(self) -> Array:
        return self._over(self._target_potentials())

    @property
    def grad_a(self) -> Array:
        return self._over([t * g for t, g in zip(self.t, self._target_potentials(), strict=True)])

    @property
    def grad_t(self) -> Array:
        xp, values = self.place.xp, [part.value64 for part in self.parts]
        if self.debias:
            m, found = self.instance.mass, self.found
            inner = self.instance.problem.mean(found.f)
            own = xp.sum(xp.where(self.weights64 > 0, self.weights64 * inner, xp.zeros_like(inner)))
            constant = self.eps * (m * m - m - m * math.log(m))  # of mass m beside m times that of mass one
            values = [z - constant - m * (own + term.value64 / 2) for z, term in zip(values, self.selves, strict=True)]
        return self._cast(xp.stack(values))
