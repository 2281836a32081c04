"""The result of a debiased problem: three solutions, and the differences between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epsot.arrays import Place
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.geometry.grid import points_of, support_of
from epsot.problems.instance import Instance
from epsot.results.curvature import SWAPPED, Effort
from epsot.results.outcome import Result, over
from epsot.results.plan import Plan
from epsot.results.result import SinkhornResult
from epsot.solver.loop import Check
from epsot.status import Status


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class DivergenceResult(Result):
    """The Sinkhorn divergence: the same names as `SinkhornResult`, debiased, and the three solves behind them.

    ``S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 + (eps / 2) (mass(a) - mass(b))^2``

    Attributes
    ----------
    xy, xx, yy : SinkhornResult
        The three parts.
    value : 0-d array
        S, not below ``-gap``.
    transport_cost : 0-d array
        ``<P, C>`` of `xy` less the mean of those of `xx` and `yy`.
    f, g : (n,) and (m,) arrays
        The debiased potentials, F = f_xy - f_xx and G = g_xy - f_yy.
    grad_x, grad_y, grad_a, grad_b : arrays
        Derivatives of `value`.
    displacement : (n, d) array
        ``-grad_x / a``: ``x + displacement`` is the blurred transport map.
    plan : Plan
        The coupling of the two measures, that of `xy`.
    marginal_error : float
        The worst of the three.
    dual, primal, gap : 0-d arrays
        Bounds on S from those of the parts.
    success, status, message, nit, history : bool, Status, str, int, tuple
        The worst status of the three; `nit` and `history` are those of `xy`.
    """

    xy: SinkhornResult
    xx: SinkhornResult
    yy: SinkhornResult

    def _written(self) -> dict[str, Any]:
        if self.xx is self.xy:  # one solve for all three
            return {"xy": self.xy._written(), "xx": None, "yy": None}
        return {"xy": self.xy._written(), "xx": self.xx._solution(), "yy": self.yy._solution()}

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> DivergenceResult:
        xy = SinkhornResult._read(parts["xy"], place)
        if parts["xx"] is None:
            return cls(xy, xy, xy)
        xx, yy = xy.instance.source(), xy.instance.T.source()
        return cls(xy, SinkhornResult._solved(xx, parts["xx"]), SinkhornResult._solved(yy, parts["yy"]))

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self.xy.place

    @property
    def parts(self) -> tuple[SinkhornResult, SinkhornResult, SinkhornResult]:
        return self.xy, self.xx, self.yy

    @property
    def worst(self) -> SinkhornResult:
        """The part with the worst status, of several that with the largest error, which has to be read."""
        return max(self.parts, key=lambda part: (part.status, part._reached or 0.0))

    @property
    def instance(self) -> Instance:  # type: ignore[override]
        return self.xy.instance

    @property
    def status(self) -> Status:  # type: ignore[override]
        return max(part.status for part in self.parts)

    @property
    def _reached(self) -> float | None:
        errors = [part._reached for part in self.parts]
        return None if None in errors else max(errors)  # type: ignore[type-var]

    @property
    def _free_value(self) -> float | None:
        return None if None in (part._free_value for part in self.parts) else float(self.value64)

    @property
    def _iterations(self) -> str:
        return ", ".join(str(part.nit) for part in self.parts) + " (xy, xx, yy)"

    @property
    def message(self) -> str:
        return self.worst.message

    @property
    def nit(self) -> int:  # type: ignore[override]
        return self.xy.nit

    @property
    def tol(self) -> float | None:  # type: ignore[override]
        return self.xy.tol

    @property
    def history(self) -> tuple[Check, ...]:  # type: ignore[override]
        return self.xy.history

    @property
    def marginal_error(self) -> float:
        return max(part.marginal_error for part in self.parts)

    @property
    def _mass_difference(self) -> float:
        mass_a, mass_b = self.instance.masses
        return mass_a - mass_b

    def _beyond(self, xy: Array, own: Array) -> Array:
        """xy - own, where equal terms cancel, infinite ones too."""
        xp = self.place.xp
        equal, zeros = xy == own, xp.zeros_like(xy)
        return xp.where(equal, zeros, xy) - xp.where(equal, zeros, own)

    def _debias(self, xy: Array, xx: Array, yy: Array) -> Array:
        return xy - (xx + yy) / 2 + self.eps / 2 * self._mass_difference**2

    @property
    def value64(self) -> Array:
        """`value` in float64; of one solve for both measures 0, also where that has led nowhere."""
        if self.xy is self.yy:
            return self.place.xp.zeros_like(self.xy.value64)
        return self._debias(*(part.value64 for part in self.parts))

    @property
    def value(self) -> Array:
        return self._cast(self.value64)

    @property
    def transport_cost(self) -> Array:
        costs = [part.transport_cost64 for part in self.parts]
        return self._cast(costs[0] - (costs[1] + costs[2]) / 2)

    @property
    def dual(self) -> Array:
        return self._cast(self._debias(self.xy.dual64, self.xx.primal64, self.yy.primal64))

    @property
    def primal(self) -> Array:
        return self._cast(self._debias(self.xy.primal64, self.xx.dual64, self.yy.dual64))

    @property
    def gap(self) -> Array:
        xy, xx, yy = (part.gap64 for part in self.parts)
        return self._cast(xy + (xx + yy) / 2)

    @property
    def f(self) -> Array:
        return self._cast(self._given(self._beyond(self.xy.source.potential, self.xx.source.potential), 0))

    @property
    def g(self) -> Array:
        return self._cast(self._given(self._beyond(self.xy.target.potential, self.yy.source.potential), 1))

    @property
    def grad_x(self) -> Array:
        return self._cast(self._given(self.xy.source.gradient - self.xx.source.gradient, 0))

    @property
    def grad_y(self) -> Array:
        return self._cast(self._given(self.xy.target.gradient - self.yy.source.gradient, 1))

    @property
    def grad_a(self) -> Array:
        shift = self.eps * self._mass_difference
        slope = self._beyond(self.xy.source.weight_gradient, self.xx.source.weight_gradient) + shift
        return self._cast(self._given(slope, 0))

    @property
    def grad_b(self) -> Array:
        shift = -self.eps * self._mass_difference
        slope = self._beyond(self.xy.target.weight_gradient, self.yy.source.weight_gradient) + shift
        return self._cast(self._given(slope, 1))

    @property
    def displacement(self) -> Array:
        return self._cast(self._given(self.xx.source.slope - self.xy.source.slope, 0))

    def prepare(self) -> None:
        """Compute what each rank may ask for by itself."""
        for part in self.parts:
            part.prepare()

    @property
    def plan(self) -> Plan:
        return self.xy.plan

    def second_product(self, of: str, along: str, V: Array, effort: Effort) -> Array:
        out = self.xy.second_product(of, along, V, effort)
        same = (of in ("x", "a")) == (along in ("x", "a"))
        if same:
            own, names = (self.xx, (of, along)) if of in ("x", "a") else (self.yy, (SWAPPED[of], SWAPPED[along]))
            out = out - effort.enough(own.self_curvature).product(*names, V, effort)
        if of in ("a", "b") and along in ("a", "b"):  # (eps / 2) (mass(a) - mass(b))^2
            out = out + (self.eps if same else -self.eps) * self.place.xp.sum(V, axis=0)
        return out

    def potential(self, points: Any) -> Array:
        """F at other points, (r, d) -> (r,); of a result between grids, those may be another Grid.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> result = epsot.sinkhorn_divergence(x, x + 1.0, blur=0.1, tol=1e-9)
        >>> bool(np.allclose(result.potential(x), result.f, atol=1e-9))
        True
        """
        points, share = self._joined(self.xy.source.taken(points))
        found = self._beyond(self.xy.source.potential_at(points), self.xx.source.potential_at(points))
        found = share.own(found)
        return self._cast(over(support_of(points), found, self.place.xp))

    def transport(self, points: Any) -> Array:
        """Move other points, (r, d) -> (r, d): the extension of ``x + displacement``; balanced, ``z - grad F(z)``.

        Examples
        --------
        A translation is found again at points that were not in the clouds:

        >>> import numpy as np
        >>> import epsot
        >>> x = np.random.default_rng(0).random((50, 2))
        >>> result = epsot.sinkhorn_divergence(x, x + [1.0, 0.0], blur=0.1, tol=1e-9)
        >>> result.transport([[0.5, 0.5], [0.2, 0.7]]).round(3)
        array([[1.5, 0.5],
               [1.2, 0.7]])
        """
        points, share = self._joined(self.xy.source.taken(points))
        moved = points_of(points, self.place) - (self.xy.source.slope_at(points) - self.xx.source.slope_at(points))
        moved = share.own(moved)
        return self._cast(over(support_of(points), moved, self.place.xp))
