"""What a solve returns: potentials, and everything derived from them on first use.

Inside, all is float64; what is handed out has the namespace, device and dtype of the points or the cost matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from array_api_compat import is_numpy_namespace

from epsot.arrays import Place
from epsot.communicator import ALONE
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.geometry import Geometry
from epsot.geometry.grid import points_of, support_of
from epsot.kernels import PlanKernel
from epsot.lazy import cached_property
from epsot.problems.instance import Instance
from epsot.problems.problem import SEEN, UNSEEN, Problem, is_hidden
from epsot.results import certificates, stored
from epsot.results.certificates import Certificate
from epsot.results.curvature import Curvature, Effort
from epsot.results.outcome import Result, over
from epsot.results.plan import Plan
from epsot.results.potential import Potential
from epsot.results.self_curvature import SelfCurvature
from epsot.results.whole import WholeKernel
from epsot.solver.loop import Check
from epsot.solver.updates import Dual
from epsot.status import STATUSES, Status

MANY_PAIRS = 2**20  # from which a sweep in float32 takes less time than asking for it


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class SinkhornResult(Result):
    """The solution of one entropic transport problem. Derived quantities are computed on first use.

    Attributes
    ----------
    value : 0-d array
        The dual objective, mass terms included; at convergence it equals the primal
        ``<P, C> + eps KL(P | a b^T) + rho_a KL(P 1 | a) + rho_b KL(P^T 1 | b)``.
    transport_cost : 0-d array
        ``<P, C>``, the part of `value` without entropy and penalties.
    f, g : (n,) and (m,) arrays
        Dual potentials, balanced in the gauge ``<a, f> = <b, g>``; at points of weight zero their extension. Infinite
        where no partner has mass. Over a Grid these, and all that follow, have its shape in place of the axis of n.
    grad_x, grad_y : (n, d) and (m, d) arrays
        Derivatives of `value` in the points.
    grad_a, grad_b : (n,) and (m,) arrays
        Derivatives of `value` in the weights; balanced, up to a constant.
    displacement : (n, d) array
        ``-grad_x / a``, with its limit at points of weight zero.
    plan : Plan
        The coupling as an operator.
    marginal_error : float
        The largest over the two sides of the L1 distance between a marginal of the plan and the one that the
        potentials call for (balanced: the weights), relative to the larger of the two masses.
    dual, primal, gap : 0-d arrays
        A lower bound on the optimal value, the cost of a feasible plan, and their difference, in float64 whatever the
        data: of float32 points they need a copy. Where float64 does not resolve the exponents of the plan (then the
        status is STALLED) they are -inf, inf and inf. The difference is taken before what every plan pays is added,
        and may be smaller than the rounding of the bounds. `primal` costs two to four sweeps over the pairs; with
        forbidden pairs it is infinite unless the marginals are met to rounding.
    success, status, message, nit, history : bool, Status, str, int, tuple
        The outcome; `history` holds a record (nit, eps, marginal_error) for every measurement, of a solve from coarse
        to fine those on the points.
    eps, rho, tol : float
        What was solved, in the units of the cost, and the marginal error that was asked for.
    """

    instance: Instance
    dual_pair: Dual = field(repr=False)
    status: Status
    nit: int
    history: tuple[Check, ...]
    tol: float | None = None

    def _written(self) -> dict[str, Any]:
        return {"instance": stored.instance_parts(self.instance), **self._solution()}

    def _solution(self) -> dict[str, Any]:
        """What a file holds beside the instance."""
        return {
            **stored.dual_parts(self.dual_pair), "status": int(self.status), "nit": self.nit, "tol": self.tol,
            "history": np.array(self.history, np.float64).reshape(-1, 3),
        }  # fmt: skip

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> SinkhornResult:
        return cls._solved(stored.instance_of(parts["instance"], place), parts)

    @classmethod
    def _solved(cls, instance: Instance, parts: dict[str, Any]) -> SinkhornResult:
        """Of an instance and what a file holds beside it."""
        history = tuple(Check(int(nit), eps, error) for nit, eps, error in parts["history"].tolist())
        dual, status = stored.dual_of(parts, instance), STATUSES[parts["status"]]
        return cls(instance, dual, status, int(parts["nit"]), history, parts["tol"])

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self.instance.place

    @property
    def _reached(self) -> float | None:
        return None if self.dual_pair.error is None else float(self.dual_pair.error)

    @property
    def _free_value(self) -> float | None:
        known = "value64" in vars(self) or self.dual_pair.mass is not None
        return float(self.value64) if known and is_numpy_namespace(self.place.xp) else None

    @cached_property
    def source(self) -> Potential:
        """The side of x and a, in float64."""
        return Potential.source(self.instance, self.dual_pair)

    @cached_property
    def target(self) -> Potential:
        """The side of y and b, in float64."""
        return Potential.target(self.instance, self.dual_pair)

    @cached_property
    def _sweeping(self) -> Problem:
        """The problem whose kernels see what is asked of the plan: in float64, where float32 would see its rounding."""
        return self.instance.problem if is_hidden(self._rounding, self.dual_pair.error) else self.instance.exact

    @cached_property
    def _rounding(self) -> float:
        """The relative error of the plan that the kernels of the solve may make by rounding."""
        return self.instance.problem.rounding(self.dual_pair.f, self.dual_pair.g, self.eps)

    @cached_property
    def _next_pair(self) -> tuple[Array, Array]:
        return self._sweeping.next_pair(self.dual_pair.f, self.dual_pair.g, self.eps)

    @cached_property
    def _mass(self) -> Array:
        """sum(P), 0-d: known from the last update, or from one sweep."""
        if self.dual_pair.mass is not None:
            return self.dual_pair.mass
        sums = self._sweeping.a.sums(self.dual_pair.f, self._next_pair[0], self.eps)
        return self.instance.place.xp.sum(sums)

    @cached_property
    def value64(self) -> Array:
        """`value` in float64."""
        problem, pair = self.instance.problem, self.dual_pair
        return certificates.dual_value(problem, pair.f, pair.g, self._mass, self.eps) + self.instance.lost

    @cached_property
    def certificate(self) -> Certificate:
        """The bounds behind `dual`, `primal` and `gap`."""
        pair = self.dual_pair
        next_g = pair.g_map[0] if pair.f_map is None and pair.g_map is not None else None  # f is next_f(g)
        return Certificate.of(self.instance, pair.f, pair.g, pair.mass, next_g, pair.logit_error)

    @property
    def dual64(self) -> Array:
        """`dual` in float64."""
        return self.certificate.common + self.certificate.dual + self.instance.lost

    @property
    def primal64(self) -> Array:
        """`primal` in float64."""
        return self.certificate.common + self.certificate.primal + self.instance.lost

    @property
    def gap64(self) -> Array:
        """`gap` in float64."""
        return self.certificate.primal - self.certificate.dual

    @cached_property
    def marginal_error(self) -> float:
        """Measured, not estimated: by the last update, or by one sweep."""
        pair, problem = self.dual_pair, self._sweeping
        if pair.error is not None:
            return float(pair.error)
        next_f, next_g = self._next_pair
        error = max(
            float(problem.a.violation(pair.f, next_f, self.eps)), float(problem.b.violation(pair.g, next_g, self.eps))
        )
        if problem.rounding(pair.f, pair.g, self.eps) <= error:
            return error
        exact = self.instance.exact
        unseen = UNSEEN * exact.exponent_error(exact.logit_error(pair.f, pair.g, self.eps), self.eps)
        return exact.measured(pair.f, pair.g, self.eps) + unseen

    @cached_property
    def transport_cost64(self) -> Array:
        """`transport_cost` in float64."""
        pair, problem, eps = self.dual_pair, self._sweeping, self.eps
        k, h = problem.a.log_weights + pair.f / eps, problem.b.log_weights + pair.g / eps
        return self.instance.core.transported(problem.kernel, k, h, eps)

    @property
    def value(self) -> Array:
        return self._cast(self.value64)

    @property
    def transport_cost(self) -> Array:
        return self._cast(self.transport_cost64)

    @property
    def dual(self) -> Array:
        return self._cast(self.dual64)

    @property
    def primal(self) -> Array:
        return self._cast(self.primal64)

    @property
    def gap(self) -> Array:
        return self._cast(self.gap64)

    @property
    def f(self) -> Array:
        return self._cast(self._given(self.source.potential, 0))

    @property
    def g(self) -> Array:
        return self._cast(self._given(self.target.potential, 1))

    @property
    def grad_x(self) -> Array:
        return self._cast(self._given(self.source.gradient, 0))

    @property
    def grad_y(self) -> Array:
        return self._cast(self._given(self.target.gradient, 1))

    @property
    def grad_a(self) -> Array:
        return self._cast(self._given(self.source.weight_gradient, 0))

    @property
    def grad_b(self) -> Array:
        return self._cast(self._given(self.target.weight_gradient, 1))

    @property
    def displacement(self) -> Array:
        return self._cast(self._given(-self.source.slope, 0))

    def prepare(self) -> None:
        """Compute what each rank may ask for by itself: the others are products of all."""
        potentials = self.source.potential, self.target.potential
        self.comm.totals(potentials[0], int(self.status), self.nit)
        _ = self.value64, self.marginal_error

    @cached_property
    def plan(self) -> Plan:
        rows = self.instance.side_a.here
        return self._whole_plan if rows is None else self._plan_of(rows)

    def _plan_of(self, rows: slice) -> Plan:
        """The rows of this rank, with all columns, as an operator of this process alone."""
        whole, geometry, xp = self._whole_plan, self.instance.geometry, self.instance.place.xp
        if self._sweeping.precision < geometry.precision:
            geometry = geometry.in_float64()
        geometry = geometry.part(rows)
        workers = ALONE.workers(int(self.instance.problem.kernel.workers or -1))
        return replace(
            whole, kernel=geometry.kernel(workers), k=whole.k[rows], f=whole.f[rows],
            points=(None if whole.points[0] is None else xp.asarray(whole.points[0])[rows, ...], whole.points[1]),
        )  # fmt: skip

    @property
    def _whole_plan(self) -> Plan:
        instance, problem, eps = self.instance, self.instance.problem, self.eps
        geometry, core = instance.geometry, self._sweeping.kernel
        kernel: PlanKernel = core if instance.core is geometry else WholeKernel(instance, core)
        xp = instance.place.xp
        f, g = (xp.where(xp.isfinite(z), z, xp.zeros_like(z)) for z in (self.source.potential, self.target.potential))
        none = -xp.inf
        k = instance.side_a.scatter(problem.a.log_weights + self.dual_pair.f / eps, none, none)
        h = instance.side_b.scatter(problem.b.log_weights + self.dual_pair.g / eps, none, none)
        return Plan(kernel, k, h, f, g, eps, geometry.dtype, instance.place, geometry.points or (None, None))

    def _curved(self, kind: type[Curvature]) -> Curvature:
        instance = self.instance
        problem = instance.problem if self._rounding < SEEN else instance.exact
        core = instance.core if problem is instance.problem else instance.exact_core
        potentials = self.source, self.target
        curved = kind(instance, problem, core, potentials)
        if self._in_float32 is not None:
            curved.coarse = kind(instance, *self._in_float32, potentials)
        return curved

    @cached_property
    def _in_float32(self) -> tuple[Problem, Geometry] | None:
        """The problem in float32, and its geometry, where that is worth it and sees what float64 does."""
        instance, problem, (n, m) = self.instance, self.instance.problem, self.instance.core.shape
        core = instance.core.in_float32() if n * m >= MANY_PAIRS else instance.core
        if core is instance.core:
            return None
        kernel = core.kernel(problem.kernel.workers)
        single = replace(problem, kernel=kernel, precision=core.precision, rounded=core.rounded)
        return (single, core) if single.rounding(self.dual_pair.f, self.dual_pair.g, self.eps) < SEEN else None

    @cached_property
    def curvature(self) -> Curvature:
        """What second derivatives are made of."""
        return self._curved(Curvature)

    @cached_property
    def self_curvature(self) -> Curvature:
        """That of half of the value, of one measure on both sides."""
        return self._curved(SelfCurvature)

    def second_product(self, of: str, along: str, V: Array, effort: Effort) -> Array:
        return effort.enough(self.curvature).product(of, along, V, effort)

    def potential(self, points: Any) -> Array:
        """f at other points, (r, d) -> (r,): the softmin of g, the extension that is optimal for the dual.

        Of a result between grids the points may be another Grid, and what is found has its shape.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> result = epsot.sinkhorn(x, x + 1.0, blur=0.1, tol=1e-9)
        >>> bool(np.allclose(result.potential(x), result.f, atol=1e-9))
        True
        """
        points, share = self._joined(self.source.taken(points))
        found = share.own(self.source.potential_at(points))
        return self._cast(over(support_of(points), found, self.place.xp))

    def transport(self, points: Any) -> Array:
        """Move other points, (r, d) -> (r, d): the extension of ``x + displacement``.

        ``z - sum_j exp((f(z) + g[j] - C(z, y[j])) / eps) b[j] grad_1 C(z, y[j])`` with f(z) from `potential`; balanced,
        this is ``z - grad f(z)``, for p = 2 the mean target of z. Points may be a Grid as in `potential`.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> result = epsot.sinkhorn(x, x + [1.0, 0.0], blur=0.01, tol=1e-6)
        >>> result.transport([[0.5, 0.5]]).shape  # a point that was not in the cloud
        (1, 2)
        >>> bool(np.allclose(result.transport(x), x + result.displacement, atol=1e-5))
        True
        """
        points, share = self._joined(self.source.taken(points))
        moved = share.own(points_of(points, self.place) - self.source.slope_at(points))
        return self._cast(over(support_of(points), moved, self.place.xp))
