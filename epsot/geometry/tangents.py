"""What the sums of a plan become as points move: the geometry's share of second derivatives.

P[i, j] = exp(k[i] + h[j] - C[i, j] / eps) between points x[i] and y[j], grad_1 and grad_2 the gradients of C in the
first and in the second. A direction moves x along v and y along w, and so C by

    dC[i, j] = <grad_1 C[i, j], v[i]> + <grad_2 C[i, j], w[j]>.

Directions have a last axis, of as many as are asked for at a time: v (n, d, q), w (m, d, q), and numbers t (m, q); None
stands for zeros. Everything is float64, and made for one plan: what depends on it alone is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from epsot.arrays import Place
from epsot.costs import Array, Cost, check_shape
from epsot.kernels import PointsKernel
from epsot.lazy import cached_property

MOMENTS = 6  # coordinates up to which second moments of the plan are kept, 28 columns at most
BLOCK_ELEMENTS = 2**20  # numbers of a block of rows, and of all coordinates, that are held at a time
LINE_ELEMENTS = 2**16  # of one coordinate, where all fit into a cache


class Tangents(Protocol):
    """As the module says, for one plan."""

    @property
    def gradient(self) -> Array:
        """sum_j P[i, j] grad_1 C[i, j].  (n, d)"""

    def strain(self, w: Array, t: Array) -> tuple[Array, Array]:
        """sum_j P[i, j] <grad_2 C[i, j], w[j]>, and P t.  (m, d, q), (m, q) -> (n, q), (n, q)"""

    def change(self, t: Array, v: Array | None, w: Array | None) -> tuple[Array, Array]:
        """sum_j P[i, j] ((t[j] - dC[i, j]) grad_1 C[i, j] / eps + d grad_1 C[i, j]), and P t.  -> (n, d, q), (n, q)"""


class Sums:
    """What is common: a kernel, the plan, the points in float64, and a guess of softmin(h, eps) or None."""

    def __init__(
        self, kernel: PointsKernel, plan: tuple[Array, Array, float], x: Array, y: Array, place: Place,
        guess: Array | None,
    ) -> None:  # fmt: skip
        self.kernel, (self.k, self.h, self.eps) = kernel, plan
        self.x, self.y, self.place, self.guess = x, y, place, guess


class SquareTangents(Sums):
    """Of half of factor |x - y|^2, by moments of the plan: products of it with few columns.

    Points are taken from the middle of all, so that no digits are lost to an offset.
    """

    def __init__(self, factor: float, exact: PointsKernel, *arguments: Any) -> None:
        super().__init__(*arguments)
        xp, self.factor, self.exact = self.place.xp, factor, exact  # `exact` computes in float64
        low, high = (
            extreme(xp.stack([extreme(z, axis=0) for z in (self.x, self.y)]), axis=0) for extreme in (xp.min, xp.max)
        )
        middle = low / 2 + high / 2
        self.x, self.y = self.x - middle, self.y - middle

    def _times(self, *columns: Array, kernel: PointsKernel | None = None) -> list[Array]:
        """P times columns (m, ..., q), in one sweep.  -> (n, ..., q) each"""
        xp, kernel = self.place.xp, kernel or self.kernel
        widths = [self._width(c) for c in columns]
        flat = xp.concat([xp.reshape(c, (c.shape[0], width)) for c, width in zip(columns, widths, strict=True)], axis=1)
        out, begin, parts = kernel.apply(self.k, self.h, self.eps, flat, self.guess), 0, []
        for c, width in zip(columns, widths, strict=True):
            parts.append(xp.reshape(out[:, begin : begin + width], (out.shape[0], *c.shape[1:])))
            begin += width
        return parts

    @staticmethod
    def _width(columns: Array) -> int:
        width = 1
        for size in columns.shape[1:]:
            width *= int(size)
        return width

    @cached_property
    def _moments(self) -> tuple[Array, Array, Array]:
        """P on 1, y and y y', the last as the sum over j of P z z' with z = x[i] - y[j].  (n,), (n, d), (n, d, d)"""
        xp, x, y, d = self.place.xp, self.x, self.y, self.y.shape[1]
        pairs = [(i, j) for i in range(d) for j in range(i, d)]
        products = xp.stack([y[:, i] * y[:, j] for i, j in pairs], axis=1)
        mass, first, second = self._times(xp.ones_like(y[:, :1]), y, products, kernel=self.exact)
        number = {pair: c for c, pair in enumerate(pairs)}
        lines = [[second[:, number[min(i, j), max(i, j)]] for j in range(d)] for i in range(d)]
        whole = xp.stack([xp.stack(line, axis=-1) for line in lines], axis=-2)
        cross = x[:, :, None] * first[:, None, :]
        turned = xp.matrix_transpose(cross)
        return mass[:, 0], first, mass[:, :, None] * x[:, :, None] * x[:, None, :] - cross - turned + whole

    @cached_property
    def gradient(self) -> Array:
        mass, first, _ = self._moments
        return self.factor * (mass[:, None] * self.x - first)

    def strain(self, w: Array, t: Array) -> tuple[Array, Array]:
        xp = self.place.xp
        along, moved, sums = self._times(xp.sum(self.y[:, :, None] * w, axis=1), w, t)
        return self.factor * (along - xp.sum(self.x[:, :, None] * moved, axis=1)), sums

    def change(self, t: Array, v: Array | None, w: Array | None) -> tuple[Array, Array]:
        xp, x, y, factor = self.place.xp, self.x[:, :, None], self.y[:, :, None], self.factor
        columns, mass = [t, y * t[:, None, :]], self._moments[0][:, None, None]
        if w is not None:
            along = xp.sum(y * w, axis=1)  # <y, w>
            columns += [w, along, y[:, :, None, :] * w[:, None, :, :], y * along[:, None, :]]
        sums, sums_y, *more = self._times(*columns)
        out = x * sums[:, None, :] - sums_y
        straight = 0.0
        if v is not None:
            out = out - factor * xp.sum(self._moments[2][:, :, :, None] * v[:, None, :, :], axis=2)
            straight = mass * v
        if w is not None:
            moved, along, products, along_y = more
            out = out + factor * (
                x * xp.sum(x * moved, axis=1, keepdims=True)
                - x * along[:, None, :]
                - xp.sum(products * self.x[:, None, :, None], axis=2)
                + along_y
            )
            straight = straight - moved
        return factor * (out / self.eps + straight), sums


def pairwise_tangents(cost: Cost, kernel: PointsKernel, *arguments: Any) -> Tangents:
    """By what the kernel offers, for a cost that is no sum of few products."""
    if cost.kind is None or 0 in kernel.shape:
        return PairTangents(cost, kernel, *arguments)
    return (FusedTangents if hasattr(kernel, "cost_tangents") else LineTangents)(cost, kernel, *arguments)


class PairTangents(Sums):
    """Of any cost with a gradient, pair by pair in blocks of rows."""

    def __init__(self, cost: Cost, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cost = cost

    @cached_property
    def gradient(self) -> Array:
        return self.kernel.cost_gradient(self.k, self.h, self.eps)

    def _by_rows(self, compute: Callable[[slice], Array], *trailing: int) -> Array:
        (n, m), d, xp = self.kernel.shape, self.x.shape[1], self.place.xp
        step = max(1, BLOCK_ELEMENTS // max(1, m * d))
        parts = [compute(slice(begin, min(begin + step, n))) for begin in range(0, n if m else 0, step)]
        if parts:
            return xp.concat(parts, axis=0)
        return xp.zeros((n, *trailing), dtype=xp.float64, device=self.place.device)

    def _slopes(self, rows: slice) -> tuple[Array, Array, Array]:
        """P and the gradients in the first point and in the second, of some rows.  (r, m), (r, m, d), (r, m, d)"""
        x, y = self.x[rows, :][:, None, :], self.y[None, :, :]
        P = self.kernel.plan_rows(rows, self.k, self.h, self.eps)
        first, second = self.cost.gradient(x, y), self.cost.gradient(y, x)
        for gradient in (first, second):
            check_shape("gradient", gradient, (*P.shape, self.x.shape[1]), f"{tuple(x.shape)} and {tuple(y.shape)}")
        return P, first, second

    def strain(self, w: Array, t: Array) -> tuple[Array, Array]:
        xp, q = self.place.xp, t.shape[1]

        def compute(rows: slice) -> Array:
            P, _, second = self._slopes(rows)
            lines = [xp.sum(P * xp.sum(second * w[None, :, :, c], axis=2), axis=1) for c in range(q)]
            return xp.stack([*lines, *(xp.sum(P * t[None, :, c], axis=1) for c in range(q))], axis=1)

        out = self._by_rows(compute, 2 * q)
        return out[:, :q], out[:, q:]

    def change(self, t: Array, v: Array | None, w: Array | None) -> tuple[Array, Array]:
        xp, (q, d) = self.place.xp, (t.shape[1], self.x.shape[1])
        none = xp.zeros_like(self.x[:1, :])

        def compute(rows: slice) -> Array:
            P, first, second = self._slopes(rows)
            lines = []
            for c in range(q):
                weights = t[None, :, c]
                v_c = none[None, :, :] if v is None else v[rows, :, c][:, None, :]
                w_c = none[None, :, :] if w is None else w[None, :, :, c]
                if v is not None:
                    weights = weights - xp.sum(first * v_c, axis=2)
                if w is not None:
                    weights = weights - xp.sum(second * w_c, axis=2)
                line = xp.sum((P * weights / self.eps)[:, :, None] * first, axis=1)
                if v is not None or w is not None:
                    line = line + self._turn(rows, P, v_c, w_c)
                lines.append(xp.concat([line, xp.sum(P * t[None, :, c], axis=1)[:, None]], axis=1))
            return xp.stack(lines, axis=2)

        out = self._by_rows(compute, d + 1, q)
        return out[:, :d, :], out[:, d, :]

    def _turn(self, rows: slice, P: Array, v: Array, w: Array) -> Array:
        """sum_j P[i, j] d grad_1 C[i, j].  -> (r, d)"""
        xp, x, y = self.place.xp, self.x[rows, :][:, None, :], self.y[None, :, :]
        turn = self.cost.hessian_product(x, y, v, w)
        shapes = f"{tuple(x.shape)}, {tuple(y.shape)}, {tuple(v.shape)} and {tuple(w.shape)}"
        check_shape("hessian_product", turn, (*P.shape, self.x.shape[1]), shapes)
        return xp.sum(P[:, :, None] * turn, axis=1)


class FusedTangents(PairTangents):
    """Of the costs of a `kind`, by a kernel that has `cost_tangents`: no numbers of a pair are stored."""

    def strain(self, w: Array, t: Array) -> tuple[Array, Array]:
        out = self._sums(t, None, w, turning=False)
        return out[:, -1, :], out[:, -2, :]

    def change(self, t: Array, v: Array | None, w: Array | None) -> tuple[Array, Array]:
        out = self._sums(t, v, w, turning=True)
        return out[:, :-2, :], out[:, -2, :]

    def _sums(self, t: Array, v: Array | None, w: Array | None, *, turning: bool) -> Array:
        kernel: Any = self.kernel
        out: Array = kernel.cost_tangents(self.k, self.h, self.eps, t, v, w, turning=turning)
        return out


class LineTangents(PairTangents):
    """Of the costs of a `kind`, which see differences z = x[i] - y[j]: a coordinate of all pairs of a block at a time.

    Reductions over a last axis of two or three coordinates take NumPy ten times as long.
    """

    def _by_rows(self, compute: Callable[[slice], Array], *trailing: int) -> Array:
        (n, m), xp = self.kernel.shape, self.place.xp
        step = max(1, LINE_ELEMENTS // max(1, m))
        return xp.concat([compute(slice(begin, min(begin + step, n))) for begin in range(0, n, step)], axis=0)

    def _lines(self, rows: slice) -> tuple[Array, list[Array], Array | None]:
        """P, the gradient by coordinates, and 1 / |z| where the cost is that distance, 0 for coincident points."""
        xp, factor = self.place.xp, self.cost.factor
        P = self.kernel.plan_rows(rows, self.k, self.h, self.eps)
        z = [self.x[rows, c][:, None] - self.y[None, :, c] for c in range(self.x.shape[1])]
        if self.cost.kind == "square":
            return P, [factor * line for line in z], None
        if self.cost.kind == "cityblock":
            return P, [xp.sign(line) for line in z], None
        square = z[0] * z[0]
        for line in z[1:]:
            square = square + line * line
        inverse = xp.where(square > 0, 1 / xp.sqrt(xp.where(square > 0, square, 1.0)), 0.0)
        return P, [line * inverse for line in z], inverse

    def strain(self, w: Array, t: Array) -> tuple[Array, Array]:
        xp, (d, q) = self.place.xp, w.shape[1:]

        def compute(rows: slice) -> Array:
            P, slope, _ = self._lines(rows)
            weighed = [P * line for line in slope]
            strains = [-sum(xp.sum(weighed[i] * w[None, :, i, c], axis=1) for i in range(d)) for c in range(q)]
            return xp.stack([*strains, *(xp.sum(P * t[None, :, c], axis=1) for c in range(q))], axis=1)

        out = self._by_rows(compute)
        return out[:, :q], out[:, q:]

    def change(self, t: Array, v: Array | None, w: Array | None) -> tuple[Array, Array]:
        xp, d, q = self.place.xp, self.x.shape[1], t.shape[1]

        def compute(rows: slice) -> Array:
            P, slope, inverse = self._lines(rows)
            columns = []
            for c in range(q):
                move = [self._move(v, w, rows, i, c) for i in range(d)] if v is not None or w is not None else []
                along = sum(line * u for line, u in zip(slope, move, strict=True)) if move else 0.0  # dC
                weights = P * (t[None, :, c] - along) / self.eps
                turn = P if self.cost.kind == "square" else None if inverse is None else P * inverse
                out = []
                for i in range(d):
                    terms = weights * slope[i]
                    if move and turn is not None:
                        straight = self.cost.factor * move[i] if inverse is None else move[i] - slope[i] * along
                        terms = terms + turn * straight
                    out.append(xp.sum(terms, axis=1))
                columns.append(xp.stack([*out, xp.sum(P * t[None, :, c], axis=1)], axis=1))
            return xp.stack(columns, axis=2)

        out = self._by_rows(compute)
        return out[:, :d, :], out[:, d, :]

    @staticmethod
    def _move(v: Array | None, w: Array | None, rows: slice, i: int, c: int) -> Array:
        """v - w, one coordinate of one direction, for pairs."""
        if w is None:
            assert v is not None
            return v[rows, i, c][:, None]
        return -w[None, :, i, c] if v is None else v[rows, i, c][:, None] - w[None, :, i, c]


class EmbeddedTangents:
    """Of a cost that is another one between embedded points, from the tangents there."""

    def __init__(self, cost: Cost, x: Array, y: Array, inner: Tangents, xp: Any) -> None:
        self.cost, self.x, self.y, self.inner, self.xp = cost, x, y, inner, xp

    def _each(self, function: Callable[..., Array], x: Array, *directions: Array) -> Array:
        """function(x, direction, ...) for every number of the last axis.  (n, d, q) -> (n, d, q)"""
        columns = [function(x, *(z[:, :, c] for z in directions)) for c in range(directions[-1].shape[2])]
        return self.xp.stack(columns, axis=2)

    @cached_property
    def gradient(self) -> Array:
        return self.cost.pull_back(self.x, self.inner.gradient)

    def strain(self, w: Array, t: Array) -> tuple[Array, Array]:
        return self.inner.strain(self._each(self.cost.push_forward, self.y, w), t)

    def change(self, t: Array, v: Array | None, w: Array | None) -> tuple[Array, Array]:
        moved_v = None if v is None else self._each(self.cost.push_forward, self.x, v)
        moved_w = None if w is None else self._each(self.cost.push_forward, self.y, w)
        change, sums = self.inner.change(t, moved_v, moved_w)
        out = self._each(self.cost.pull_back, self.x, change)
        if v is None:
            return out, sums
        inner = self.inner.gradient
        return out + self._each(lambda x, u: self.cost.pull_back_change(x, inner, u), self.x, v), sums
