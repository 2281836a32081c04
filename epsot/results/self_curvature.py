"""How the gradients of a self term change: one measure, on both sides of its plan."""

from __future__ import annotations

from epsot.costs import Array
from epsot.results.curvature import Curvature, Effort, Move, along_gradient


class SelfCurvature(Curvature):
    """Of half of OT(a, a), whose two sides move together: of its gradients, those of the first side.

    df = dg, and there is one equation: (A + P) df = (P dC) 1 - eps P (alpha / a).
    """

    def moved(self, of: str, along: str, V: Array, effort: Effort) -> Move:
        v, share, v_unseen, alpha, mass = self.parts(along, V)
        zero, plan = self.a.none(V), self.plan
        weight = zero if share is None else self.eps * share
        pull, forth = zero, zero if share is None else plan @ weight
        if v is not None:
            pull = along_gradient(plan.tangents, v, self.place.xp) + plan.tangents.strain(v, zero)[0]
        if alpha is not None:
            pull = pull - self.eps * (self.unseen.T @ alpha)
        df = self.descended(pull - forth, self.goal(pull, forth, effort), effort)
        u = df + weight
        turn, sums = plan.tangents.change(u, v, v) if of == "x" else (None, plan @ u)
        self.check(pull, sums, df, effort)
        return Move(v, alpha, v_unseen, u, df, df, mass, turn)

    @property
    def T(self) -> Curvature:
        """The same: one side."""
        return self

    @property
    def singular(self) -> bool:
        return False

    @property
    def kernel_weights(self) -> Array | None:
        return None

    @property
    def preconditioner(self) -> Array:
        return self.inverse

    @property
    def rough(self) -> Curvature:
        return self if self.coarse is None else self.coarse

    def operator(self, g: Array) -> Array:
        """(A + P) g."""
        return self.diagonal[:, None] * g + self.plan @ g

    def d_x(self, move: Move) -> Array:
        change = self.turned(self.plan, move.u, move)
        if move.alpha is None:
            return self.a.whole(change)
        change = change + self.unseen.T.tangents.change(self.eps * move.alpha, None, None)[0]
        return self.a.whole(change, self.unseen.tangents.gradient[:, :, None] * move.alpha[:, None, :])

    def d_a(self, move: Move) -> Array:
        change = (self.a.per_weight * self.diagonal)[:, None] * move.df
        unseen = None
        if self.a.zeros:
            unseen = self.pushed(move, self.unseen)
            if move.v_unseen is not None:
                unseen = unseen + along_gradient(self.unseen.tangents, move.v_unseen, self.place.xp)
        return self.a.whole(change, unseen) + self.eps * move.mass
