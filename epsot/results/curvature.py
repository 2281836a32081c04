"""How the gradients of OT change as points and weights of the first side move: the optimum, differentiated.

P = a b exp((f + g - C) / eps), p_a = P 1 and p_b = P' 1 its own marginals, A = p_a (1 + eps / rho_a), B likewise. Along
v (points) and alpha (weights) of the first side, with dC = <grad_1 C, v> and u = df + eps alpha / a,

    A df + P dg = (P dC) 1,    P' u + B dg = (P dC)' 1,                            the optimality of f and g
    d grad_x = sum_j P ((u + dg - dC) grad_1 C / eps + d grad_1 C),    d grad_a = A df / a,
    d grad_y = sum_i P ((u + dg - dC) grad_2 C / eps + d grad_2 C),    d grad_b = B dg / b + eps sum(alpha).

df is eliminated, and (B - P' A^-1 P) dg solved by conjugate gradients. Constants are an eigenvector beside B, because
p_a is P 1: their part is known, and of a balanced problem none.

Marginals other than the plan's own, the weights, are wrong by the marginal error: the system would have no solution
where it is balanced, and the iterates drift along constants.

A point of weight zero moves nothing, but its potential, the extension, does change, and weight that comes to it moves
all. So P / a stands for P there: `unseen` rows of density exp((f + g - C) / eps) b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epsot.costs import Array
from epsot.geometry import Geometry
from epsot.geometry.tangents import Tangents
from epsot.kernels import carrying
from epsot.lazy import cached_property
from epsot.problems.instance import Instance
from epsot.problems.problem import Problem
from epsot.results.potential import Potential
from epsot.results.sides import Block, Side
from epsot.solver.linear import conjugate_gradients

ULPS = 16  # of the terms of a residual, that rounding may leave of it
COARSE = 1e-3  # a tolerance that all of a product in float32 is good for
SLOW = 0.5  # of a diagonal, on average: below, columns are slow by themselves
RESOLVED = 1e-3  # of a diagonal, which float32 gives two digits
ROUNDED = 64  # units of rounding, that a difference of diagonals is sure to have


@dataclass(frozen=True)
class Effort:
    """What is spent on a linear system, and who is told what came of it."""

    tol: float
    most: int
    report: Callable[[Array, Array, int], None]  # is told the residuals, those to end at, and the steps

    def enough(self, curvature: Curvature) -> Curvature:
        """What is precise enough."""
        return curvature.rough if self.tol >= COARSE else curvature


@dataclass(frozen=True, eq=False)
class Move:
    """A direction of the first side, and what the potentials do."""

    v: Array | None  # (kept, d, q) of points that are seen
    alpha: Array | None  # (unseen, q) weights that come to points of weight zero
    v_unseen: Array | None
    u: Array  # (kept, q) df + eps alpha / a
    df: Array
    dg: Array  # (kept, q) of the other side
    mass: Array  # (q,) sum(alpha)
    turn: Array | None  # (kept, d, q) of the points asked for, the change of the gradient but for its own potential


class Curvature:
    """Of one solved problem; the first side moves, and `T` is for the second."""

    def __init__(self, instance: Instance, problem: Problem, core: Geometry, potentials: tuple[Potential, Potential]):
        self.instance, self.problem, self.eps, self.place = instance, problem, instance.eps, instance.place
        self.a = Side(instance.side_a, problem.a, potentials[0], self.eps)
        self.b = Side(instance.side_b, problem.b, potentials[1], self.eps)
        self.potentials = potentials
        guesses = self.a.guess, self.b.guess
        self.plan = Block(core, problem.kernel, self.a.density, self.b.density, self.eps, guesses)

    coarse: Curvature | None = None  # the same in float32, where that is faster
    last: tuple[tuple[Array, Array, int, Array], ...] = ()  # right side, goal, most steps, solution
    steps = 0  # of the last system

    @cached_property
    def T(self) -> Curvature:
        """Seen from the other side."""
        other = object.__new__(type(self))
        other.coarse = None if self.coarse is None else self.coarse.T
        other.instance, other.problem, other.eps, other.place = self.instance.T, self.problem.T, self.eps, self.place
        other.a, other.b, other.plan = self.b, self.a, self.plan.T
        other.potentials = self.potentials[::-1]
        vars(other)["T"] = self
        return other

    @property
    def singular(self) -> bool:
        """Whether constants are free: the potentials of a balanced problem are known up to one."""
        return self.problem.balanced

    @cached_property
    def mass(self) -> Array:
        """P 1.  (kept,)"""
        xp = self.place.xp
        return (self.plan @ xp.ones_like(self.b.density)[:, None])[:, 0]

    @cached_property
    def diagonal(self) -> Array:
        """A = P 1 (1 + eps / rho).  (kept,)"""
        return self.mass * (1 + self.a.softness)

    @cached_property
    def inverse(self) -> Array:
        """1 / A, zero where nothing is."""
        xp, A = self.place.xp, self.diagonal
        return xp.where(A > 0, 1 / xp.where(A > 0, A, xp.ones_like(A)), xp.zeros_like(A))

    @cached_property
    def unseen(self) -> Block:
        """The rows of weight zero, and the columns that are seen."""
        h = self.b.density
        if self.a.support.dropped is None:
            return Block(self.plan.geometry, self.plan.kernel, self.a.density_unseen, h, self.eps)
        return Block(*self.instance.outside, self.a.density_unseen, h, self.eps)

    @cached_property
    def corner(self) -> Block:
        """The rows and the columns of weight zero."""
        densities = self.a.density_unseen, self.b.density_unseen
        if self.a.support.dropped is None:
            return Block(self.plan.geometry, self.plan.kernel, *densities, self.eps)
        geometry = self.instance.geometry.scattered(self.a.support.dropped, self.b.support.dropped)
        assert geometry is not None  # points were set aside
        geometry = geometry.in_float64()
        return Block(geometry, geometry.kernel(self.problem.kernel.workers), *densities, self.eps)

    # The change of the potentials

    def parts(self, along: str, V: Array) -> tuple[Array | None, Array | None, Array | None, Array | None, Array]:
        """A direction (size, q): v and alpha / a of what is seen, v and alpha of what is not, sum(alpha)."""
        xp, side, n, q = self.place.xp, self.a, self.instance.geometry.shape[0], V.shape[1]
        if along == "x":
            v = xp.reshape(V, (n, -1, q))
            return side.seen(v), None, side.unseen(v) if side.zeros else None, None, xp.zeros_like(V[0, :])
        alpha = side.unseen(V) if side.zeros else None
        return None, side.per_weight[:, None] * side.seen(V), None, alpha, xp.sum(V, axis=0)

    def moved(self, of: str, along: str, V: Array, effort: Effort) -> Move:
        """What the potentials do along a direction of "x" or "a", (size, q), and how `of` turns by itself."""
        v, share, v_unseen, alpha, mass = self.parts(along, V)
        xp, zero = self.place.xp, self.a.none(V)
        weight = zero if share is None else self.eps * share
        if v is None:
            pull, back, forth = zero, self.b.none(V), self.plan.T @ weight
        else:
            pull = along_gradient(self.plan.tangents, v, xp)  # (P dC) 1
            back, forth = self.plan.T.tangents.strain(v, self.inverse[:, None] * pull)  # (P dC)' 1, P' A^-1 pull
        if alpha is not None:
            back = back - self.eps * (self.unseen.T @ alpha)
        dg = self.solved(back, forth, effort)
        turn, sums = self.plan.tangents.change(dg, v, None) if of == "x" else (None, self.plan @ dg)
        df = self.inverse[:, None] * (pull - sums)
        u = df + weight
        turn, sums = self.plan.T.tangents.change(u, None, v) if of == "y" else (turn, self.plan.T @ u)
        self.check(back, sums, dg, effort)
        return Move(v, alpha, v_unseen, u, df, dg, mass, turn)

    def solved(self, back: Array, forth: Array, effort: Effort) -> Array:
        """dg with (B - P' A^-1 P) dg = back - forth.  (m, q)"""
        xp, other, right = self.place.xp, self.T, back - forth
        if right.shape[0] == 0:  # no pair is left, and no system
            return right
        mean = xp.sum(right, axis=0) / xp.sum(other.mass)
        stiffness = other.a.softness + self.a.softness / (1 + self.a.softness)  # the eigenvalue of the constants
        found = self.descended(right - other.mass[:, None] * mean, self.goal(back, forth, effort), effort)
        return found if stiffness == 0 else found + mean / stiffness

    def operator(self, g: Array) -> Array:
        """(B - P' A^-1 P) g.  (m, q)"""
        return self.T.diagonal[:, None] * g - self.plan.T @ (self.inverse[:, None] * (self.plan @ g))

    @property
    def kernel_weights(self) -> Array | None:
        """The weights of a mean that iterates do not have."""
        return self.T.mass

    def descended(self, right: Array, goal: Array, effort: Effort) -> Array:
        """The solution of a right side without constants: sweeps in float32, where that is faster, residuals here."""
        for known, end, most, x in self.last:  # all gradients change with one system, along the same direction
            if most == effort.most and known.shape == right.shape and self._equal((known, end), (right, goal)):
                return x
        rough = self.rough
        exact = None if rough is self else self.operator
        found = conjugate_gradients(
            rough.operator, right, rough.preconditioner, goal, effort.most, self.norm, self.place.xp,
            weights=self.kernel_weights, exact=exact,
        )  # fmt: skip
        self.steps, self.last = found.steps, (*self.last[-1:], (right, goal, effort.most, found.x))
        return found.x

    def _equal(self, some: tuple[Array, Array], others: tuple[Array, Array]) -> bool:
        """Whether two pairs of arrays of the same shapes are equal."""
        xp = self.place.xp
        return all(bool(xp.all(z == other)) for z, other in zip(some, others, strict=True))

    @cached_property
    def replaced(self) -> Array:
        """1 - sum_i P^2 / (A B), the diagonal of the operator as a part of B.  (m,)

        Where a column has one row almost alone, that is nearly nothing. The squares are a plan at half the temperature.
        """
        xp, B, plan = self.place.xp, self.T.inverse, self.plan
        row = xp.where(self.inverse > 0, self.inverse, xp.ones_like(self.inverse))
        k = xp.where(self.inverse > 0, 2 * plan.k + xp.log(row), -xp.inf)
        squares = plan.kernel.T.apply(2 * plan.h, k, self.eps / 2, xp.ones_like(k)[:, None])[:, 0]
        return xp.maximum(1 - squares * B, xp.full_like(B, ROUNDED * self.problem.precision))

    @cached_property
    def preconditioner(self) -> Array:
        """1 / B, or where columns are slow by themselves 1 over the diagonal.  (m,)

        At a high temperature the two bring the same, between 1 / B is a tenth better. (2000 points in 3-D, to 1e-6: 78
        steps either way at a blur of 0.02, 842 and 250 at 0.01; 5000 points, 74 and 81 at 0.02.)
        """
        part = self.replaced
        return self.T.inverse / part if float(self.place.xp.mean(part)) < SLOW else self.T.inverse

    @cached_property
    def rough(self) -> Curvature:
        """The same in float32, where that is faster, and has digits for the diagonal; else this."""
        coarse = self.coarse
        return self if coarse is None or float(self.place.xp.min(coarse.replaced)) < RESOLVED else coarse

    def norm(self, z: Array) -> Array:
        """Of residuals, of the order of the mass, whose square may be no number of float64.  (m, q) -> (q,)"""
        xp = self.place.xp
        return xp.sqrt(xp.sum((self.T.inverse[:, None] * z) * z, axis=0))

    def rounding(self, *terms: Array) -> Array:
        """What rounding may leave of their sum.  -> (q,)"""
        return ULPS * self.problem.precision * sum(self.norm(z) for z in terms)

    def goal(self, back: Array, forth: Array, effort: Effort) -> Array:
        """The size of a residual to end at.  (q,)"""
        return self.place.xp.maximum(effort.tol * self.norm(back - forth), self.rounding(back, forth))

    def check(self, back: Array, forth: Array, dg: Array, effort: Effort) -> None:
        """Report the residual of the second equation, but for its mean where no dg changes that."""
        xp, other = self.place.xp, self.T
        image = other.diagonal[:, None] * dg
        left = back - forth - image
        if self.singular:
            left = left - other.mass[:, None] * (xp.sum(left, axis=0) / xp.sum(other.mass))
        effort.report(self.norm(left), self.goal(back, forth, effort) + self.rounding(image), self.steps)

    # The change of the gradients

    def product(self, of: str, along: str, V: Array, effort: Effort) -> Array:
        """The change of the gradient in `of` along directions (size, q).  -> (size, q)"""
        if along in ("y", "b"):
            return self.T.product(SWAPPED[of], SWAPPED[along], V, effort)
        with carrying(self.plan.kernel):
            move = self.moved(of, along, V, effort)
        change: Callable[[Move], Array] = {"x": self.d_x, "a": self.d_a, "y": self.d_y, "b": self.d_b}[of]
        out, xp = change(move), self.place.xp
        return xp.reshape(out, (-1, V.shape[1]))

    def d_x(self, move: Move) -> Array:
        """That of grad_x.  (n, d, q)"""
        change = self.turned(self.plan, move.u, move)
        if move.alpha is None:
            return self.a.whole(change)
        return self.a.whole(change, self.unseen.tangents.gradient[:, :, None] * move.alpha[:, None, :])

    def turned(self, plan: Block, u: Array, move: Move) -> Array:
        """The change of a gradient of the plan, with its own potential.  (kept, d, q)"""
        change: Array = move.turn + u[:, None, :] * plan.tangents.gradient[:, :, None] / self.eps
        return change

    def d_a(self, move: Move) -> Array:
        """That of grad_a.  (n, q)"""
        change = (self.a.per_weight * self.diagonal)[:, None] * move.df
        if not self.a.zeros:
            return self.a.whole(change)
        unseen = -(self.unseen @ move.dg)
        if move.v_unseen is not None:
            unseen = unseen + along_gradient(self.unseen.tangents, move.v_unseen, self.place.xp)
        return self.a.whole(change, unseen)

    def d_y(self, move: Move) -> Array:
        """That of grad_y.  (m, d, q)"""
        change = self.turned(self.plan.T, move.dg, move)
        if move.alpha is not None:
            change = change + self.unseen.T.tangents.change(self.eps * move.alpha, None, None)[0]
        return self.b.whole(change)

    def d_b(self, move: Move) -> Array:
        """That of grad_b.  (m, q)"""
        change = (self.b.per_weight * self.T.diagonal)[:, None] * move.dg
        unseen = self.pushed(move, self.T.unseen) if self.b.zeros else None
        return self.b.whole(change, unseen) + self.eps * move.mass

    def pushed(self, move: Move, block: Block) -> Array:
        """The push on potentials of weight zero: (P dC)' 1 - P' u, of densities."""
        if move.v is None:
            out = -(block @ move.u)
        else:
            strain, sums = block.tangents.strain(move.v, move.u)
            out = strain - sums
        return out if move.alpha is None else out - self.eps * (self.corner.T @ move.alpha)


SWAPPED = {"x": "y", "y": "x", "a": "b", "b": "a"}


def along_gradient(tangents: Tangents, v: Array, xp: Any) -> Array:
    """sum_j P[i, j] <grad_1 C[i, j], v[i]>.  (n, d, q) -> (n, q)"""
    return xp.sum(tangents.gradient[:, :, None] * v, axis=1)
