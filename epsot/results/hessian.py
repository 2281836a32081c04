"""Second derivatives of a value as linear operators between flat vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from epsot.arrays import Place, as_choice, as_count, as_number, as_real, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.problems.instance import Instance
from epsot.results.curvature import Effort
from epsot.results.operators import linear_operator
from epsot.status import ConvergenceWarning, warn

Name = Literal["x", "y", "a", "b"]
MISSED = 2.0  # times the residual asked for: what recurrence and rounding may make of it
LARGE = 1e100  # of directions that need no unit


class TwiceDifferentiable:
    """A result with second derivatives."""

    instance: Instance

    def second_product(self, of: str, along: str, V: Array, effort: Effort) -> Array:
        """The change of the gradient in `of` along float64 directions (size, q), but for what balance forbids."""
        raise TypeError("second derivatives belong to the subclass")

    def hessian(self, of: Name = "x", along: Name | None = None, *, tol: float = 1e-10, max_iter: int = 1000) -> Any:
        """The second derivatives of `value` between two of x, y, a and b, as a linear operator.

        ``result.hessian("x") @ v`` is the change of ``grad_x`` as the points of x move along v. No array of n times m
        or n times n numbers is made: a product solves a linear system by conjugate gradients, of two sweeps over the
        pairs a step, as an iteration of a solve has, and takes about as many steps to a residual of 1e-3 as the solve
        has taken iterations, twice as many to 1e-6.

        Parameters
        ----------
        of, along : {"x", "y", "a", "b"}
            The gradient that changes, and what moves; `along` is `of` by default. Points need a geometry that has them.
        tol : float
            The residual of the linear system, relative to its right side. The error of a product is about as large;
            1e-3 is good enough for the inner steps of an optimiser. Float32 points reach about 1e-5.
        max_iter : int
            Steps of conjugate gradients, at most.

        Returns
        -------
        (size of `of`, size of `along`) LinearOperator
            Of SciPy, for NumPy arrays, PyTorch tensors and JAX arrays on the CPU; of CuPy for its arrays; for others an
            object with ``@``, `matvec`, `rmatvec`, `matmat` and `T` in their library. Points are flattened row by row:
            ``(hessian @ v.ravel()).reshape(x.shape)``. The operator of (along, of) is the transpose. Columns of a
            matrix share their sweeps.

        Raises
        ------
        ValueError
            If a name or an option is none of these.
        TypeError
            For blocks of points of a geometry without points, like a `CostMatrix`, or of a cost without `gradient`.

        Warns
        -----
        ConvergenceWarning
            Where a product has not reached `tol`; the residual is computed, not estimated.

        Notes
        -----
        The potentials f and g solve the optimality conditions, whose derivative is a linear system for their own change
        (implicit differentiation); of a cost without `Cost.hessian_product` central differences of its gradient stand
        for second derivatives. At points where a cost has a kink, like the distance of coincident ones, these are zero.
        Weights without a partner, and all where one side has no mass, count with eps times the other mass alone.

        Balanced, only weights of one mass have a value: blocks of weights count along directions of sum zero, and up to
        constants. A direction v stands for ``v - a sum(v) / sum(a)``, and a product p for ``p - <a, p> / sum(a)``.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> rng = np.random.default_rng(0)
        >>> x, y, v = rng.random((40, 2)), rng.random((50, 2)), rng.normal(size=(40, 2))
        >>> result = epsot.sinkhorn_divergence(x, y, blur=0.2, tol=1e-9)
        >>> change = (result.hessian("x") @ v.ravel()).reshape(x.shape)
        >>> ahead = epsot.sinkhorn_divergence(x + 1e-5 * v, y, blur=0.2, tol=1e-9)
        >>> bool(abs((ahead.grad_x - result.grad_x) / 1e-5 - change).max() < 1e-4 * abs(change).max())
        True
        """
        along = of if along is None else along
        for name, value in (("of", of), ("along", along)):
            as_choice(name, value, ("x", "y", "a", "b"))
        if not (tol := as_number("tol", tol)) >= 0:
            raise ValueError(f"`tol` must be a number >= 0, got {tol!r}")
        geometry = self.instance.geometry
        if geometry.points is None and {of, along} & {"x", "y"}:
            raise TypeError(
                f"a {type(geometry).__name__} has no points to differentiate in; use PointCloud, "
                'or the blocks of "a" and "b"'
            )
        return Products(
            self, of, along, tol, as_count("max_iter", max_iter, 1), self.instance.place
        ).as_linear_operator()


@device_aware
@dataclass(frozen=True, eq=False)
class Products:
    """The second derivatives of a result as an operator in the library of its arrays."""

    result: TwiceDifferentiable
    of: str
    along: str
    tol: float
    most: int
    place: Place

    ndim: ClassVar[int] = 2
    __array_ufunc__ = None  # NumPy leaves products to the operator

    def _size(self, name: str) -> int:
        geometry = self.result.instance.geometry
        n = geometry.shape[name in ("y", "b")]
        return n if geometry.points is None or name in ("a", "b") else n * geometry.points[0].shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        return self._size(self.of), self._size(self.along)

    @property
    def dtype(self) -> Any:
        return self.result.instance.geometry.dtype

    @property
    def T(self) -> Products:
        """The derivatives in the other order, which are the same."""
        return replace(self, of=self.along, along=self.of)

    def __repr__(self) -> str:
        return f"Hessian(of={self.of!r}, along={self.along!r}, shape={self.shape}, dtype={self.dtype})"

    def matmat(self, V: Any) -> Array:
        """The products with some columns.  (size, q) -> (size, q)"""
        self.place.admit("the result", V=V)
        V = as_real("V", V, self.place)
        if V.ndim not in (1, 2) or V.shape[0] != self.shape[1]:
            raise ValueError(f"a direction must have {self.shape[1]} numbers, got shape {tuple(V.shape)}")
        xp = self.place.xp
        columns = xp.astype(V, xp.float64, copy=False)
        columns = columns if V.ndim == 2 else columns[:, None]
        out = self.product(columns) if columns.shape[1] else xp.zeros((self.shape[0], 0), dtype=xp.float64)
        return in_dtype(out if V.ndim == 2 else out[:, 0], self.dtype, self.place, copy=False)

    matvec = __matmul__ = matmat

    def rmatvec(self, V: Any) -> Array:
        """The products of the transpose."""
        return self.T.matmat(V)

    rmatmat = rmatvec

    def product(self, V: Array) -> Array:
        """In float64, of columns, where balance is kept.  (size, q) -> (size, q)"""
        unit = self._unit(V)
        out = self.result.second_product(
            self.of, self.along, self._kept(self.along, V / unit, 0), Effort(self.tol, self.most, self.report)
        )
        return self._kept(self.of, out * unit, 1)

    def _unit(self, V: Array) -> Array:
        """The size of columns whose squares are beyond float64, for residuals are squared; of others 1.  -> (q,)"""
        xp = self.place.xp
        size = xp.max(xp.abs(V), axis=0)
        usual = (size == 0) | ((size > 1 / LARGE) & (size < LARGE)) | ~xp.isfinite(size)
        return xp.where(usual, xp.ones_like(size), size)

    def _kept(self, name: str, V: Array, gradient: int) -> Array:
        """Directions of balanced weights without their mass, gradients without their mean; others as they are."""
        instance = self.result.instance
        if name in ("x", "y") or not instance.problem.balanced:
            return V
        xp, weights = self.place.xp, (instance if name == "a" else instance.T).a
        mass = xp.sum(weights)
        if gradient:
            return V - xp.sum(weights[:, None] * V, axis=0) / mass
        return V - weights[:, None] * (xp.sum(V, axis=0) / mass)

    def report(self, residual: Array, goal: Array, steps: int) -> None:
        """Warn where a residual is above what was asked for."""
        xp = self.place.xp
        worst = float(xp.max(residual / xp.where(goal > 0, goal, xp.ones_like(goal))))
        if not worst <= MISSED:
            warn(
                f"a product with the Hessian ended after {steps} steps at {worst:.1e} times the residual that "
                f"`tol`={self.tol:g} allows; raise `max_iter`, `tol` or the temperature (`blur`, `eps`)",
                ConvergenceWarning,
            )

    def as_linear_operator(self) -> Any:
        """As one of SciPy or CuPy, where these work with the arrays."""
        inside = replace(self, place=self.place._replace(home=None))
        like = self.result.instance.problem.a.weights
        found = linear_operator(like, self.shape, self.dtype, inside.matmat, inside.rmatvec)
        return self if found is None else found
