"""Costs of the user's own where the user has another library than the one that computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import Place
from epsot.costs import Array, Cost
from epsot.libraries import view
from epsot.status import warn


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
