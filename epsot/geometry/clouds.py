"""Many pairs of clouds: points with leading axes, or lists of clouds, which lie one after the other in one array."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from epsot.arrays import (
    Place,
    as_points,
    as_real,
    check_finite,
    check_some,
    common_place,
    dtype_of_name,
    name_of_dtype,
    row_by_row,
)
from epsot.costs import Array, Cost, ground_cost
from epsot.devices import device_aware
from epsot.geometry.batches import Geometries
from epsot.geometry.grid import Grid, check_dimensions, common_periods, without_grids
from epsot.geometry.guests import as_guest, check_cost
from epsot.geometry.periodic import cost_of_parts, cost_parts, with_periods
from epsot.geometry.points import PointCloud
from epsot.geometry.rows import Rows, Shape, name_of, reduced, shape_of
from epsot.lists import Listed, is_ragged, named


@device_aware
class PointClouds(Geometries):
    """Many pairs of clouds with one cost: what `PointCloud` is for points with leading axes, or lists of clouds.

    Unless they are `paired`, the clouds of `x` and of `y` stand for themselves, and `pairs` says which belong together.
    """

    stored_as = "many clouds"

    def __init__(self, x: Any, y: Any, *, p: float = 2, cost: str | Cost | None = None, paired: bool = True) -> None:
        given, same = ground_cost(p, cost), x is y
        self.place = common_place(**named(**without_grids(x=x, y=y)))
        periods = common_periods(*(z if isinstance(z, Grid) else None for z in (x, y)))
        self.cost = as_guest(with_periods(given, periods), self.place)
        first = self._rows("x", x)
        second = first if same else self._rows("y", y)
        check_dimensions(first.values.shape[1], second.values.shape[1])
        listed = [rows.values.dtype for rows in (first, second) if rows.grid is None]
        self.dtype = self.place.xp.result_type(*listed) if listed else self.place.xp.float64
        self.x = self._copied(first)
        self.y = self.x if same else self._copied(second)
        self._check("x", self.x)
        self._check("y", self.y)
        if paired:
            self._broadcast(shape_of(self.x, self.y))
        if self.x.first.size and self.y.first.size:
            check_cost(self.cost, self._few)

    def _few(self) -> tuple[Array, Array]:
        """The first points of the first clouds in float64."""
        x, y = (self.place.xp.astype(rows.item(0)[:4, :], self.place.xp.float64) for rows in (self.x, self.y))
        return x, y

    def _broadcast(self, shape: Shape) -> None:
        self.x, self.y, self.shape = self.x.over(shape), self.y.over(shape), shape
        self.sizes = self.x.sizes, self.y.sizes
        self.ragged = self.x.ragged, self.y.ragged

    def _rows(self, name: str, points: Any) -> Rows:
        """The clouds of one argument, checked but for their coordinates."""
        if isinstance(points, Grid):
            return Rows.of_grid(points, points.points_in(self.place, self.place.xp.float64))
        if is_ragged(points):
            clouds, sizes = Listed(name, points).points(self.place)
            return Rows.listed(clouds, self.place.xp, sizes)
        array = as_real(name, points, self.place)
        if array.ndim < 2:
            array = as_points(name, array, self.place)
        if 0 in array.shape[-2:]:  # no item is allowed, but none without points
            check_some(name, array)
        return Rows.stacked(array, 2)

    def _copied(self, rows: Rows) -> Rows:
        values = row_by_row(rows.values, self.dtype, self.place.xp)  # a copy: results outlive changes of the inputs
        return replace(rows, values=values)

    def _check(self, name: str, rows: Rows) -> None:
        """Raise where a coordinate is not finite, or the cost not defined, with the name of the item."""
        try:
            check_finite(name, rows.values, "coordinates", self.place)
            self.cost.check(name, rows.values)
        except ValueError:
            for k in range(rows.first.size):
                item = name_of(name, rows.shape, k)
                check_finite(item, rows.item(k), "coordinates", self.place)
                self.cost.check(item, rows.item(k))
            raise

    def written(self) -> dict[str, Any]:
        x, y = ({**rows.written(), **({} if rows.grid is None else {"values": None})} for rows in (self.x, self.y))
        return {
            "x": x, "y": None if self.y is self.x else y, "dtype": name_of_dtype(self.dtype),
            "cost": cost_parts(self.cost),
        }  # fmt: skip

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> PointClouds:
        new = object.__new__(cls)
        new.place, new.cost, dtype = place, cost_of_parts(parts["cost"]), dtype_of_name(parts["dtype"], place)
        new.x = Rows.read(parts["x"], place, dtype)
        new.y = new.x if parts["y"] is None else Rows.read(parts["y"], place, dtype)
        new.dtype, xp = new.x.values.dtype, place.xp
        if new.y.values.dtype != new.dtype or new.dtype not in (xp.float32, xp.float64):
            raise ValueError(f"clouds of {new.dtype} and {new.y.values.dtype}")
        if new.x.values.ndim != 2 or new.x.values.shape[1:] != new.y.values.shape[1:] or new.x.shape != new.y.shape:
            raise ValueError("clouds that do not fit one another")
        new._check("x", new.x)
        new._check("y", new.y)
        new._broadcast(new.x.shape)
        return new

    def over(self, shape: Shape) -> PointClouds:
        new = self._derived()
        new._broadcast(shape)
        return new

    @property
    def lengths(self) -> tuple[int, int]:
        return self.x.length, self.y.length

    @property
    def degree(self) -> float:
        return self.cost.degree

    def item(self, k: int) -> PointCloud:
        x = self.x.item(k)
        y = x if self.y is self.x else self.y.item(k)
        return PointCloud._checked(x, y, self.cost, self.place, self.dtype)._over(*self.grids)

    @property
    def grids(self) -> tuple[Grid | None, Grid | None]:
        return self.x.grid, self.y.grid

    @property
    def T(self) -> PointClouds:
        new = self._derived()
        new.x, new.y = self.y, self.x
        new._broadcast(self.shape)
        return new

    def sides(self, x: Rows, y: Rows) -> PointClouds:
        """The same cost between other clouds."""
        new = self._derived()
        new.x, new.y = x, y
        return new

    def widest(self) -> float:
        """The diagonal of the bounding box of all clouds of both sides."""
        low = np.minimum(*(reduced(rows, np.minimum, self.place).min(axis=0) for rows in (self.x, self.y)))
        high = np.maximum(*(reduced(rows, np.maximum, self.place).max(axis=0) for rows in (self.x, self.y)))
        return float(np.linalg.norm(high - low))

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> PointClouds:
        """The first cloud of some items with the second of others."""
        new = self._derived()
        new.x, new.y = self.x.at(rows), self.y.at(columns)
        new._broadcast(rows.shape)
        return new

    def diameters(self) -> np.ndarray:
        """The diagonals of the joint bounding boxes, of the shape of the batch."""
        x_low, y_low = (reduced(rows, np.minimum, self.place) / 2 for rows in (self.x, self.y))
        x_high, y_high = (reduced(rows, np.maximum, self.place) / 2 for rows in (self.x, self.y))
        with np.errstate(invalid="ignore"):
            extent = np.maximum(x_high, y_high) - np.minimum(x_low, y_low)
        largest = extent.max(axis=-1, initial=0.0, keepdims=True)
        ratio = extent / np.where(largest > 0, largest, 1.0)
        diameters: np.ndarray = 2 * largest[..., 0] * np.sqrt((ratio**2).sum(axis=-1))
        return diameters

    @classmethod
    def of(cls, geometry: PointCloud) -> PointClouds:
        """The batch of one pair of clouds, of the shape ()."""
        new = object.__new__(cls)
        new.place, new.cost, new.dtype = geometry.place, geometry.cost, geometry.dtype
        first, second = geometry.grids
        new.x = replace(Rows.stacked(geometry.x, 2), grid=first)
        new.y = new.x if geometry.y is geometry.x else replace(Rows.stacked(geometry.y, 2), grid=second)
        new._broadcast(())
        return new

    @property
    def clouds(self) -> tuple[Rows, Rows]:
        return self.x, self.y

    @property
    def family(self) -> Cost:
        return self.cost.family

    def embeds(self) -> bool:
        return self.cost.family is not self.cost

    def embedded(self) -> tuple[Array, Array]:
        """The points between which `cost.family` is the cost, flat; in float64, where they are others."""
        x, y = self.x.values, self.y.values
        if self.cost.family is self.cost:
            return x, y
        u, v = (self.cost.embed(self.place.xp.astype(z, self.place.xp.float64)) for z in (x, y))
        return u, u if y is x else v

    def pull_back(self, slopes: Array, side: int) -> Array:
        if self.cost.family is self.cost:
            return slopes
        return self.cost.pull_back((self.x, self.y)[side].in_order(self.place), slopes)

    def rounded(self) -> np.ndarray:
        kind, spans = self.cost.family.kind, self.diameters()
        if kind is None:
            return np.zeros(self.shape)
        largest = spans * spans / 4 if kind == "square" else spans * math.sqrt(self.x.values.shape[1])
        return np.asarray(self.cost.family.factor * (largest + self.cost.magnitude * (1 + spans)))

    def scale(self) -> np.ndarray:
        if self.cost.span(1.0) is None:
            return super().scale()  # of each
        spans = [self.cost.span(float(z)) for z in self.diameters().flat]
        return np.array(spans, float).reshape(self.shape)

    def __repr__(self) -> str:
        return f"PointClouds(shape={self.shape}, d={self.x.values.shape[1]}, cost={self.cost!r}, dtype={self.dtype})"


PointCloud.many = PointClouds
