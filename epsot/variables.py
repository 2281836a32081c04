"""What an optimiser moves, as flat float64 vectors z: points, or weights that stay non-negative in one of three ways.

A variable u(z) of a loss, and what becomes of the derivatives of the loss in u, slope and turn = H du for du = u'(z) p:

    gradient  u'(z)^T slope,    its change along p  u'(z)^T turn + (d u'(z)[p])^T slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from epsot.arrays import Place, check_finite
from epsot.costs import Array

Slope = Callable[[], np.ndarray]  # the gradient of the loss in u, a sweep over all pairs if nobody has asked for it
Turn = Callable[[np.ndarray], np.ndarray]  # the product of the loss's own second derivatives with du


class Variable(Protocol):
    """As the module says. Vectors of derivatives are NumPy's, float64 and flat."""

    def at(self, z: Array) -> Array:
        """u(z), to keep."""

    def gradient(self, z: np.ndarray, u: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Of the loss in z."""

    def product(self, z: np.ndarray, p: np.ndarray, u: np.ndarray, slope: Slope, turn: Turn) -> np.ndarray:
        """The change of the gradient along p."""


class Itself:
    """u = z: derivatives are those of the loss."""

    def gradient(self, z: np.ndarray, u: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return slope

    def product(self, z: np.ndarray, p: np.ndarray, u: np.ndarray, slope: Slope, turn: Turn) -> np.ndarray:
        return turn(p)


@dataclass(frozen=True)
class Points(Itself):
    """z holds points of so many coordinates, row by row."""

    place: Place
    dimension: int
    dtype: Any

    def at(self, z: Array) -> Array:
        d = self.dimension
        if z.shape[0] == 0 or z.shape[0] % d:
            raise ValueError(f"`z` must hold n points of {d} coordinates, got {z.shape[0]} numbers")
        return self.place.handed_out(self.place.xp.reshape(z, (-1, d)), self.dtype)


@dataclass(frozen=True)
class Weights:
    """Over a support of some shape."""

    place: Place
    shape: tuple[int, ...]

    def checked(self, z: Array) -> Array:
        """z in the shape of the support."""
        if z.shape[0] != math.prod(self.shape):
            raise ValueError(f"`z` must hold one number for each point of `x`, got {z.shape[0]}")
        check_finite("z", z, "entries", self.place)
        return self.place.xp.reshape(z, self.shape)


class FreeWeights(Itself, Weights):
    """The weights themselves, of any mass."""

    def at(self, z: Array) -> Array:
        return self.place.handed_out(self.checked(z))


@dataclass(frozen=True)
class FixedMass(Weights):
    """Of weights of one mass, along which the gradient in them counts up to a constant."""

    mass: float

    def scaled(self, weights: Array) -> Array:
        return self.place.handed_out(weights * (self.mass / self.place.xp.sum(weights)), copy=False)


class ScaledWeights(FixedMass):
    """u = mass z / sum(z)."""

    def at(self, z: Array) -> Array:
        xp, z = self.place.xp, self.checked(z)
        if bool(xp.any(z < 0)):
            raise ValueError(
                f"`z` must not be negative, got a smallest weight of {float(xp.min(z)):g}; "
                "pass `bounds=objective.bounds` to the optimiser"
            )
        total = float(xp.sum(z))
        if not (total > 0 and self.mass / total < math.inf):
            raise ValueError(f"`z` must have a positive sum, got {total:g}")
        return self.scaled(z)

    def gradient(self, z: np.ndarray, u: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.asarray(centred(slope, u) * (u.sum() / z.sum()))

    def product(self, z: np.ndarray, p: np.ndarray, u: np.ndarray, slope: Slope, turn: Turn) -> np.ndarray:
        mass, total, known = u.sum(), z.sum(), slope()
        moved = (mass * p - u * p.sum()) / total
        change = change_of_centred(known, u, moved, turn(moved))
        return np.asarray((mass * change - p.sum() * (mass / total) * centred(known, u)) / total)


class Softmax(FixedMass):
    """u = mass exp(z) / sum(exp(z))."""

    def at(self, z: Array) -> Array:
        xp, z = self.place.xp, self.checked(z)
        return self.scaled(xp.exp(z - xp.max(z)))

    def gradient(self, z: np.ndarray, u: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.asarray(u * centred(slope, u))

    def product(self, z: np.ndarray, p: np.ndarray, u: np.ndarray, slope: Slope, turn: Turn) -> np.ndarray:
        moved, known = u * centred(p, u), slope()
        change = change_of_centred(known, u, moved, turn(moved))
        return np.asarray(moved * centred(known, u) + u * change)


def centred(slope: np.ndarray, u: np.ndarray) -> np.ndarray:
    """slope - <u, slope> / sum(u)."""
    return np.asarray(slope - np.sum(u * slope) / u.sum())


def change_of_centred(slope: np.ndarray, u: np.ndarray, moved: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """That of `centred`, as slope moves along turned and u along moved, which has a sum of zero."""
    return np.asarray(turned - (np.sum(moved * slope) + np.sum(u * turned)) / u.sum())
