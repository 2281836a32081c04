"""Costs of the user's own: tried on a few points, and called with the user's arrays where another library computes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from epsot.arrays import Place
from epsot.costs import WRITTEN_COSTS, Array, Cost, check_shape
from epsot.libraries import view
from epsot.status import warn

SYMMETRIC = 1e-8  # relative to the largest cost: far above the rounding of float64, far below what is meant


class Guest(Cost):
    """A cost written for the library of the user, between NumPy arrays.

    Parameters
    ----------
    cost : Cost
    place : Place
        One with a `home`.
    """

    def __init__(self, cost: Cost, place: Place) -> None:
        self.cost, self.place = cost, place
        self.degree = cost.degree
        self.told = False  # that nothing is recorded

    def __repr__(self) -> str:
        return repr(self.cost)

    @property
    def family(self) -> Cost:
        family = self.cost.family
        return self if family is self.cost else as_guest(family, self.place)

    def value(self, x: Array, y: Array) -> Array:
        return self._between(self.cost.value, x, y)

    def gradient(self, x: Array, y: Array) -> Array:
        return self._between(self.cost.gradient, x, y)

    def hessian_product(self, x: Array, y: Array, v: Array, w: Array) -> Array:
        return self._between(self.cost.hessian_product, x, y, v, w)

    def embed(self, x: Array) -> Array:
        return self._between(self.cost.embed, x)

    def pull_back(self, x: Array, gradient: Array) -> Array:
        return self._between(self.cost.pull_back, x, gradient)

    def push_forward(self, x: Array, v: Array) -> Array:
        return self._between(self.cost.push_forward, x, v)

    def pull_back_change(self, x: Array, gradient: Array, v: Array) -> Array:
        return self._between(self.cost.pull_back_change, x, gradient, v)

    def check(self, name: str, x: Array) -> None:
        self.cost.check(name, self.place.handed_out(x, copy=False))

    def span(self, diameter: float) -> float | None:
        return self.cost.span(diameter)

    def _between(self, function: Any, *arrays: np.ndarray) -> np.ndarray:
        out = function(*(self.place.handed_out(array, copy=False) for array in arrays))
        if getattr(out, "requires_grad", False) and not self.told:
            self.told = True
            warn(
                "what `cost` returns requires grad, but nothing is recorded: autograd sees a constant; compute under "
                "torch.no_grad() where no gradient in its parameters is needed",
                UserWarning,
            )
        out = view("cost", out) if is_array_api_obj(out) else np.asarray(out)
        return out.astype(arrays[0].dtype, copy=False)  # JAX may have float32 alone


def as_guest(cost: Cost, place: Place) -> Cost:
    """The cost for arrays of `place.xp`: those of the package are written for all libraries."""
    own = type(cost).__module__.startswith("epsot.")
    return cost if place.home is None or own or cost.kind is not None else Guest(cost, place)


def check_cost(cost: Cost, few: Callable[[], tuple[Array, Array]]) -> None:
    """Try a cost of the user's own on a few points, (r, d) and (s, d) in float64: an error names what it returns."""
    if type(cost) in WRITTEN_COSTS.values():
        return
    x, y = few()
    xp = array_namespace(x, y)
    r, s = x.shape[0], y.shape[0]
    across, back = (x[:, None, :], y[None, :, :]), (y[:, None, :], x[None, :, :])
    value, other = _tried(cost, *across, (r, s)), _tried(cost, *back, (s, r)).T
    largest = float(xp.max(xp.abs(value)))
    if largest < float("inf") and not bool(xp.all(xp.abs(value - other) <= SYMMETRIC * largest)):
        worst = float(xp.max(xp.abs(value - other)))
        raise ValueError(
            f"`cost` must be symmetric, value(x, y) = value(y, x), got values that differ by {worst:g} from {cost!r}"
        )


def _tried(cost: Cost, x: Array, y: Array, shape: tuple[int, int]) -> Array:
    """value(x, y), an array of this shape without NaN."""
    shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
    try:
        inspect.signature(cost.value).bind(x, y)
    except TypeError as error:
        raise TypeError(f"`cost` must have a method value(x, y), got one of another signature: {error}") from None
    try:
        value = cost.value(x, y)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"`cost`: value(x, y) failed for arrays of shapes {shapes}: {error}") from error
    if not is_array_api_obj(value):
        raise TypeError(f"`cost`: value(x, y) must return an array, got {type(value).__name__}")
    check_shape("value", value, shape, shapes)
    xp: Any = array_namespace(value)
    if not xp.isdtype(value.dtype, ("real floating", "integral")):
        raise TypeError(f"`cost`: value(x, y) must return real numbers, got {value.dtype}")
    value = xp.astype(value, xp.float64)
    if bool(xp.any(xp.isnan(value))):
        raise ValueError("`cost`: value(x, y) must return numbers, got NaN for some of the points")
    return value
