"""Many problems as the user posed them: checked weights of all items, and each of them as an `Instance` on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from epsot.arrays import Place, check_finite, rounding_of, rounding_of_dtype
from epsot.geometry.base import of_parts, parts_of
from epsot.geometry.batches import Geometries
from epsot.geometry.rows import Rows, Shape, fitted, name_of, offsets, reduced, vectors_of
from epsot.kernels.batches import Floats, Layout
from epsot.lists import Listed, is_ragged, named
from epsot.problems.instance import Instance, check_workers, posed
from epsot.problems.weights import balancing, check_mass, checked_weights

CHECKED = 0.1  # masses that are balanced already: what is left is rounding


@dataclass(frozen=True, eq=False)
class Batch:
    """Many problems of one kind.

    Attributes
    ----------
    geometry : Geometries
    a, b : Rows
        Weights in float64, of the shape of the batch.
    uniform : pair of bools or arrays of the shape of the batch
        Whether the user has left the weights of a side to us, and they are as they were.
    eps, rho_a, rho_b : arrays of the shape of the batch
        inf is balanced.
    rho_name : str
        Of the argument that stands for rho.
    workers : int or None
    """

    geometry: Geometries
    a: Rows
    b: Rows
    uniform: tuple[Any, Any]
    eps: Floats
    rho_a: Floats
    rho_b: Floats
    rho_name: str
    workers: int | None

    def written(self) -> dict[str, Any]:
        """What a file holds of them."""
        return {
            "geometry": parts_of(self.geometry), "a": self.a.written(), "b": self.b.written(),
            "uniform": list(self.uniform), "eps": self.eps, "rho_a": self.rho_a, "rho_b": self.rho_b,
            "rho_name": self.rho_name,
        }  # fmt: skip

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> Batch:
        """Of what a file holds; ValueError where it does not fit."""
        geometry = of_parts(parts["geometry"], place)
        a, b = (Rows.read(parts[name], place) for name in ("a", "b"))
        for name, rows, sizes in zip(("a", "b"), (a, b), geometry.sizes, strict=True):
            if not np.array_equal(rows.sizes, sizes) or rows.values.dtype != place.xp.float64 or rows.values.ndim != 1:
                raise ValueError(f"the weights `{name}` do not fit the points")
            check_weights(name, rows, place)
        eps, rho_a, rho_b = (parts[name] for name in ("eps", "rho_a", "rho_b"))
        if not eps.shape == rho_a.shape == rho_b.shape == geometry.shape:
            raise ValueError(f"a batch of shape {geometry.shape} with scales of {eps.shape}")
        uniform = tuple(z if isinstance(z, np.ndarray) else bool(z) for z in parts["uniform"])
        if any(np.shape(z) not in ((), geometry.shape) for z in uniform):
            raise ValueError(f"a batch of shape {geometry.shape} with weights for another")
        return cls(geometry, a, b, (uniform[0], uniform[1]), eps, rho_a, rho_b, str(parts["rho_name"]), None)

    @property
    def place(self) -> Place:
        return self.geometry.place

    @property
    def shape(self) -> Shape:
        return self.geometry.shape

    @property
    def T(self) -> Batch:
        """Seen from the other side."""
        return Batch(
            self.geometry.T, self.b, self.a, self.uniform[::-1], self.eps, self.rho_b, self.rho_a, self.rho_name,
            self.workers,
        )  # fmt: skip

    @property
    def rho(self) -> Any:
        """The marginal strength of each item; None where all are balanced, a pair where the sides differ."""
        if np.all(np.isinf(self.rho_a)) and np.all(np.isinf(self.rho_b)):
            return None
        return self.rho_a if np.array_equal(self.rho_a, self.rho_b) else (self.rho_a, self.rho_b)

    def instance(self, k: int, rounding: float = CHECKED) -> Instance:
        """The problem of one item, counted through all axes."""
        rho = tuple(None if math.isinf(z.flat[k]) else float(z.flat[k]) for z in (self.rho_a, self.rho_b))
        free = tuple(bool(np.broadcast_to(z, self.shape).flat[k]) for z in self.uniform)
        return posed(
            self.geometry.item(k), (self.a.item(k), self.b.item(k)), (not free[0], not free[1]),
            eps=float(self.eps.flat[k]), rho=(rho[0], rho[1]), rho_name=self.rho_name, workers=self.workers,
            rounding=rounding, equal=True,
        )  # fmt: skip

    def layouts(self) -> tuple[Layout, Layout]:
        """Where the items of both sides lie, counted through all axes."""
        return tuple(  # type: ignore[return-value]
            Layout(points.first.reshape(-1), weights.first.reshape(-1), offsets(points.sizes), points.sizes.reshape(-1))
            for points, weights in zip(self.rows, (self.a, self.b), strict=True)
        )

    @property
    def rows(self) -> tuple[Any, Any]:
        """What the layouts of points refer to."""
        n, m = self.geometry.sizes
        nowhere = np.zeros(self.shape, np.int64)
        none = Rows(None, nowhere, n, ragged=False), Rows(None, nowhere, m, ragged=False)
        return self.geometry.clouds or none


def weights_of(name: str, weights: Any, sizes: np.ndarray, place: Place) -> Rows:
    """The weights of one side in float64, of the shape of the batch; None: uniform ones."""
    if weights is None:
        return uniform_weights(sizes, place)
    rows = fitted(name, vectors_of(name, weights, place, "weight"), sizes, "weight")
    check_weights(name, rows, place)
    return rows


def uniform_weights(sizes: np.ndarray, place: Place) -> Rows:
    """Those that nobody has chosen, of sum one; items of one size share them."""
    distinct, where = np.unique(sizes, return_inverse=True)
    first = offsets(distinct)[where].reshape(sizes.shape) if len(distinct) else np.zeros(sizes.shape, np.int64)
    values = place.xp.asarray(np.repeat(1 / distinct, distinct), device=place.device)
    return Rows(values, first, sizes, ragged=len(distinct) > 1)


def check_weights(name: str, rows: Rows, place: Place) -> None:
    """Raise where a weight is not finite or negative, with the name of the item."""
    xp = place.xp
    if 0 in rows.values.shape or (bool(xp.all(xp.isfinite(rows.values))) and not bool(xp.any(rows.values < 0))):
        return
    for k in range(rows.first.size):
        checked_weights(name_of(name, rows.shape, k), rows.item(k), (int(rows.sizes.flat[k]),), place)
    check_finite(name, rows.values, "weights", place)


def masses_of(rows: Rows, place: Place) -> Floats:
    """The masses of all items, on the host: as `mass_of`, that of uniform weights is 1."""
    each = 1 / np.maximum(rows.sizes, 1)
    uniform = (reduced(rows, np.minimum, place) == each) & (reduced(rows, np.maximum, place) == each)
    return np.where(uniform, 1.0, reduced(rows, np.add, place))


def pose_batch(
    geometry: Geometries, a: Any, b: Any, *, eps: Floats, rho: tuple[Any, Any], rho_name: str, workers: int | None
) -> Batch:
    """Check the weights of all items. `eps` and the strengths `rho` have the shape of the batch; inf is balanced."""
    place = geometry.place
    check_workers(workers)
    place.admit("the geometry", **named(a=a))
    place.admit("the geometry", **named(b=b))
    n, m = geometry.sizes
    rows = weights_of("a", a, n, place), weights_of("b", b, m, place)
    shape = geometry.shape
    rho_a, rho_b = (np.broadcast_to(np.asarray(z, float), shape) for z in rho)
    mass_a = checked_masses("a", a, rows[0], rho_b, rho_name, place)
    mass_b = checked_masses("b", b, rows[1], rho_a, rho_name, place)
    rounding, uniform = max(rounding_of_any(a), rounding_of_any(b)), (a is None, b is None)
    unequal = np.isinf(rho_a) & np.isinf(rho_b) & (mass_a != mass_b)
    if bool(np.any(unequal)):
        names = partial(name_of, "a", shape), partial(name_of, "b", shape)
        factors = balancing_factors(mass_a, mass_b, unequal, rounding, rho_name, names)
        rows, uniform = (rows[0], scaled(rows[1], factors, place)), (a is None, ~unequal if b is None else False)
    batch = Batch(geometry, *rows, uniform, eps, rho_a, rho_b, rho_name, workers)
    for k in geometry.forbidding():
        try:
            batch.instance(k, rounding)
        except ValueError as error:
            raise ValueError(str(error).replace("`C`", f"`{name_of('C', shape, k)}`")) from None
    return batch


def checked_masses(name: str, given: Any, rows: Rows, other_rho: Floats, rho_name: str, place: Place) -> Floats:
    """The masses of one side; an error where there is none though that of the other side has to go somewhere."""
    if given is None:
        return np.ones(rows.shape)
    masses = masses_of(rows, place)
    for k in np.flatnonzero(((masses == 0) & np.isinf(other_rho)).reshape(-1))[:1].tolist():
        check_mass(name_of(name, rows.shape, k), rows.item(k), None, rho_name, place)
    return masses


def balancing_factors(
    mass_a: Floats, mass_b: Floats, unequal: np.ndarray, rounding: float, rho_name: str,
    names: tuple[Callable[[int], str], Callable[[int], str]],
) -> Floats:  # fmt: skip
    """What makes the second masses the first, from which they differ by rounding; 1 where they are not unequal.

    An error says how the user writes the two measures of an item.
    """
    factors = np.ones(unequal.shape)
    for k in np.flatnonzero(unequal).tolist():
        try:
            factors.flat[k] = balancing(float(mass_a.flat[k]), float(mass_b.flat[k]), rounding, rho_name)
        except ValueError as error:
            one, other = (name(k) for name in names)
            raise ValueError(str(error).replace("`a` and `b`", f"`{one}` and `{other}`")) from None
    return factors


def rounding_of_any(weights: Any) -> float:
    """The relative error that sums of weights may carry."""
    return max(map(rounding_of_dtype, Listed("", weights).dtypes())) if is_ragged(weights) else rounding_of(weights)


def scaled(rows: Rows, factors: Floats, place: Place) -> Rows:
    """Each item times a factor of its own, in memory of its own."""
    sizes = rows.sizes.reshape(-1)
    each = place.xp.asarray(np.repeat(factors.reshape(-1), sizes), device=place.device)
    values = rows.in_order(place) * each
    return Rows(values, offsets(sizes).reshape(rows.shape), rows.sizes, ragged=True)
