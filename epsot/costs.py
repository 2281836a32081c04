"""Ground costs between points: the values and the gradients that every kernel and formula rests on.

A cost is symmetric, C(x, y) = C(y, x), and is written in array-API code that broadcasts over all axes but the last,
which holds the coordinates. The fused kernels know the costs that carry a `kind`; any other cost runs on the portable
tiled path.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

Array = Any  # an array of any namespace that follows the array API standard

STEP = 6e-6  # of a central difference, relative: the third root of the rounding of float64


def step_along(x: Array, v: Array, xp: Any) -> float:
    """Of a difference along v, for points with vectors as long as x between them; 0 where there is no direction."""
    if 0 in (*x.shape, *v.shape):
        return 0.0
    length, move = (float(xp.max(xp.sum(z**2, axis=-1))) ** 0.5 for z in (x, v))
    return STEP * (length or 1.0) / move if 0 < move < math.inf else 0.0


class Cost(ABC):
    """A symmetric ground cost between points.

    Subclass it, write `value` in array-API code, and pass an instance as ``PointCloud(x, y, cost=...)``. `gradient` is
    needed only by what differentiates in the points: `grad_x`, `grad_y`, `displacement` and `transport`, and `hessian`,
    which takes differences of it where there is no `hessian_product`.

    Attributes
    ----------
    degree : float
        The power with which the cost grows when all lengths are scaled: 2 for a squared distance, 1 for a distance.
        The annealing schedule multiplies the temperature by ``scaling ** degree`` at each step.

    Examples
    --------
    A Huber-like cost, quadratic near zero and linear far away:

    >>> import numpy as np
    >>> import epsot
    >>> class PseudoHuber(epsot.Cost):
    ...     degree = 1
    ...     def value(self, x, y):
    ...         return np.sqrt(1 + np.sum((x - y) ** 2, axis=-1)) - 1
    ...     def gradient(self, x, y):
    ...         return (x - y) / (self.value(x, y) + 1)[..., None]
    >>> x, y = np.asarray([[0.0], [1.0]]), np.asarray([[3.0], [5.0]])
    >>> result = epsot.solve(epsot.PointCloud(x, y, cost=PseudoHuber()), eps=0.1)
    >>> result.success
    True
    """

    degree: float = 1.0
    kind: ClassVar[str | None] = None  # the family the fused kernels know, None: the portable path
    factor: ClassVar[float] = 1.0  # the cost is `factor` times its family
    magnitude: ClassVar[float] = 0.0  # of the points that `embed` makes, which are rounded; 0 where it makes none

    @abstractmethod
    def value(self, x: Array, y: Array) -> Array:
        """C(x, y) along the last axis.  (..., d), (..., d) -> (...)"""

    def gradient(self, x: Array, y: Array) -> Array:
        """The gradient of C(x, y) in x, zero where it does not exist.  (..., d), (..., d) -> (..., d)"""
        raise TypeError(
            f"`cost` has no `gradient`, which derivatives in the points, displacements and maps need; "
            f"define `gradient(x, y)` in {type(self).__name__}"
        )

    def hessian_product(self, x: Array, y: Array, v: Array, w: Array) -> Array:
        """The change of `gradient` as x moves along v and y along w, zero where it does not exist.

        Four arrays (..., d) -> (..., d), of shapes that broadcast. Unless a subclass has the formula, a central
        difference of `gradient`, whose step is 6e-6 times the largest distance of a pair: right to about 1e-9 of a cost
        that is smooth at such lengths, and wrong near a kink.
        """
        xp = array_namespace(x, y)
        step = step_along(x - y, xp.abs(v) + xp.abs(w), xp)
        if step == 0:
            return xp.zeros_like(x - y) * (v - w)
        ahead, behind = (self.gradient(x + s * v, y + s * w) for s in (step, -step))
        return (ahead - behind) / (2 * step)

    @property
    def family(self) -> Cost:
        """The cost that the kernel computes between embedded points: this one, unless a subclass says otherwise."""
        return self

    def embed(self, x: Array) -> Array:
        """The points between which `family` is this cost.  (n, d) -> (n, d)"""
        return x

    def pull_back(self, x: Array, gradient: Array) -> Array:
        """The gradient in x from that in embed(x): the transposed Jacobian of `embed`.  (n, d), (n, d) -> (n, d)"""
        return gradient

    def push_forward(self, x: Array, v: Array) -> Array:
        """How embed(x) moves as x moves along v: the Jacobian of `embed`.  (n, d), (n, d) -> (n, d)"""
        return v if self.family is self else self._change(self.embed, x, v)

    def pull_back_change(self, x: Array, gradient: Array, v: Array) -> Array:
        """The change of pull_back(x, gradient) as x moves along v.  (n, d), (n, d), (n, d) -> (n, d)"""
        if self.family is self:
            return array_namespace(x).zeros_like(gradient)
        return self._change(lambda z: self.pull_back(z, gradient), x, v)

    @staticmethod
    def _change(function: Callable[[Array], Array], x: Array, v: Array) -> Array:
        """That of function(x) as x moves along v, by a central difference."""
        step = step_along(x, v, array_namespace(x))
        return 0 * function(x) if step == 0 else (function(x + step * v) - function(x - step * v)) / (2 * step)

    def check(self, name: str, x: Array) -> None:  # noqa: B027 - most costs are defined everywhere
        """Raise a ValueError that names the points where the cost is not defined at some of them, (n, d)."""

    def span(self, diameter: float) -> float | None:
        """The largest cost between points within a diameter, roughly; None where it does not follow from that."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class HalfSquare(Cost):
    """|x - y|^2 / 2, the default: p = 2."""

    degree = 2.0
    kind = "square"

    def value(self, x: Array, y: Array) -> Array:
        xp = array_namespace(x, y)
        return self.factor * 0.5 * xp.sum((x - y) ** 2, axis=-1)

    def gradient(self, x: Array, y: Array) -> Array:
        return self.factor * (x - y)

    def hessian_product(self, x: Array, y: Array, v: Array, w: Array) -> Array:
        xp = array_namespace(x, y)
        return xp.zeros_like(x - y) + self.factor * (v - w)

    def span(self, diameter: float) -> float:
        return diameter * diameter


class Square(HalfSquare):
    """|x - y|^2, SciPy's "sqeuclidean": twice the half square."""

    factor = 2.0


class Euclidean(Cost):
    """|x - y|, p = 1 and SciPy's "euclidean". The gradient is the unit vector, zero at coincident points."""

    kind = "euclidean"

    def value(self, x: Array, y: Array) -> Array:
        xp = array_namespace(x, y)
        return xp.sqrt(xp.sum((x - y) ** 2, axis=-1))

    def gradient(self, x: Array, y: Array) -> Array:
        xp = array_namespace(x, y)
        distance = self.value(x, y)[..., None]
        return (x - y) / xp.where(distance > 0, distance, xp.ones_like(distance))

    def hessian_product(self, x: Array, y: Array, v: Array, w: Array) -> Array:
        """What is across the unit vector e, over the distance: (u - <e, u> e) / |x - y|, u = v - w."""
        xp = array_namespace(x, y)
        distance = self.value(x, y)[..., None]
        apart, u = distance > 0, v - w
        inverse = xp.where(apart, 1 / xp.where(apart, distance, xp.ones_like(distance)), xp.zeros_like(distance))
        e = (x - y) * inverse
        return (u - e * xp.sum(e * u, axis=-1, keepdims=True)) * inverse

    def span(self, diameter: float) -> float:
        return diameter


class Cityblock(Cost):
    """sum_k |x_k - y_k|, SciPy's "cityblock". The gradient is the sign, zero where coordinates agree."""

    kind = "cityblock"

    def value(self, x: Array, y: Array) -> Array:
        xp = array_namespace(x, y)
        return xp.sum(xp.abs(x - y), axis=-1)

    def gradient(self, x: Array, y: Array) -> Array:
        xp = array_namespace(x, y)
        return xp.sign(x - y)

    def hessian_product(self, x: Array, y: Array, v: Array, w: Array) -> Array:
        xp = array_namespace(x, y)
        return xp.zeros_like(x - y) * (v - w)


class Cosine(Cost):
    """1 - <x, y> / (|x| |y|), SciPy's "cosine": half the squared distance of the unit vectors x / |x| and y / |y|."""

    degree = 2.0
    magnitude = 1.0

    @property
    def family(self) -> Cost:
        return HalfSquare()

    def check(self, name: str, x: Array) -> None:
        xp = array_namespace(x)
        if bool(xp.any(xp.all(x == 0, axis=-1))):
            raise ValueError(f"`{name}` must not hold the zero vector with the cosine cost: it has no direction")

    def embed(self, x: Array) -> Array:
        xp = array_namespace(x)
        wide = xp.astype(x, xp.float64)
        return xp.astype(wide / self._norm(wide), x.dtype)

    def pull_back(self, x: Array, gradient: Array) -> Array:
        xp = array_namespace(x)
        wide = xp.astype(x, xp.float64)
        norm = self._norm(wide)
        unit = wide / norm
        return (gradient - unit * xp.sum(unit * gradient, axis=-1, keepdims=True)) / norm

    def push_forward(self, x: Array, v: Array) -> Array:
        return self.pull_back(x, v)  # the Jacobian is symmetric

    def pull_back_change(self, x: Array, gradient: Array, v: Array) -> Array:
        """With u = x / |x|, u' = push_forward(x, v): -(<u, v> pull_back(x, g) + u' <u, g> + u <u', g>) / |x|."""
        xp = array_namespace(x)
        norm, turned, pulled = self._norm(x), self.push_forward(x, v), self.pull_back(x, gradient)
        unit = x / norm
        along, slope, turn = (xp.sum(p * q, axis=-1, keepdims=True) for p, q in (
            (unit, v), (unit, gradient), (turned, gradient)
        ))  # fmt: skip
        return -(along * pulled + turned * slope + unit * turn) / norm

    def value(self, x: Array, y: Array) -> Array:
        return self.family.value(self.embed(x), self.embed(y))

    def gradient(self, x: Array, y: Array) -> Array:
        return self.pull_back(x, self.embed(x) - self.embed(y))

    def hessian_product(self, x: Array, y: Array, v: Array, w: Array) -> Array:
        moved = self.push_forward(x, v) - self.push_forward(y, w)
        return self.pull_back(x, moved) + self.pull_back_change(x, self.embed(x) - self.embed(y), v)

    @staticmethod
    def _norm(x: Array) -> Array:
        """|x| along the last axis, kept; scaled by the largest coordinate, so that no square overflows.

        1 for the zero vector: the user has none, but the centroid of opposite directions is one.
        """
        xp = array_namespace(x)
        top = xp.max(xp.abs(x), axis=-1, keepdims=True)
        zero = top == 0
        top = xp.where(zero, xp.ones_like(top), top)
        return xp.where(zero, top, top * xp.sqrt(xp.sum((x / top) ** 2, axis=-1, keepdims=True)))


NAMED_COSTS: dict[str, type[Cost]] = {
    "sqeuclidean": Square,
    "euclidean": Euclidean,
    "cityblock": Cityblock,
    "cosine": Cosine,
}


def ground_cost(p: Any, cost: str | Cost | None) -> Cost:
    """The cost that `p` and `cost` name: |x - y|^p / p, a name of scipy.spatial.distance, or a Cost."""
    if cost is None:
        scalar = not isinstance(p, list | tuple | dict | set) and np.ndim(p) == 0
        if scalar and p == 2:
            return HalfSquare()
        if scalar and p == 1:
            return Euclidean()
        raise ValueError(f"`p` must be 1 or 2, got {p!r}; for another cost pass a Cost to PointCloud(x, y, cost=...)")
    if isinstance(cost, Cost):
        if not cost.degree > 0:
            raise ValueError(f"`cost` must have a positive `degree`, got {cost.degree!r}")
        return cost
    if isinstance(cost, str) and cost in NAMED_COSTS:
        return NAMED_COSTS[cost]()
    names = ", ".join(f'"{name}"' for name in NAMED_COSTS)
    raise ValueError(f"`cost` must be one of {names} or an instance of epsot.Cost, got {cost!r}")


WRITTEN_COSTS: dict[str, type[Cost]] = {"half square": HalfSquare, **NAMED_COSTS}


def name_of_cost(cost: Cost) -> str:
    """Its name in files; TypeError where it has none."""
    for name, known in WRITTEN_COSTS.items():
        if type(cost) is known:
            return name
    raise TypeError(
        f"a cost of your own, {cost!r}, cannot be saved: a file holds no code; keep `f` and `g`, and solve again with "
        "`init=(f, g)`, or pickle the result"
    )


def cost_of_name(name: Any) -> Cost:
    """The cost of a name in files."""
    if name not in WRITTEN_COSTS:
        raise ValueError(f"there is no cost of the name {name!r}")
    return WRITTEN_COSTS[name]()


def check_shape(name: str, out: Array, shape: tuple[int, ...], shapes: str) -> None:
    """Raise where a method of a cost has reduced too little or too much."""
    if tuple(out.shape) != shape:
        raise ValueError(
            f"`cost`: {name}(x, y) must return an array of shape {shape} for arrays of shapes {shapes}, "
            f"got shape {tuple(out.shape)}; all axes but the last broadcast"
        )
