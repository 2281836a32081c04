"""A ground cost of the nearest image, where axes close."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from epsot.costs import Array, Cityblock, Cost, Euclidean, HalfSquare, Square, cost_of_name, name_of_cost
from epsot.geometry.grid import Periods, as_coordinate

OF_DIFFERENCES = (HalfSquare, Square, Euclidean, Cityblock)  # costs that see no more of two points than x - y


class Periodic(Cost):
    """A cost of x - y, less the multiple of each period that makes its coordinate smallest.

    Parameters
    ----------
    cost : HalfSquare, Square, Euclidean or Cityblock
    periods : tuple
        A length for each coordinate, None where it does not close.
    """

    def __init__(self, cost: Cost, periods: Periods) -> None:
        if type(cost) not in OF_DIFFERENCES:
            raise ValueError(
                "`cost` must be one of differences on a periodic grid: p = 1 or 2, or one of "
                f'"sqeuclidean", "euclidean" and "cityblock", got {cost!r}'
            )
        self.cost, self.periods = cost, periods
        self.degree, self.factor = cost.degree, cost.factor  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Periodic({self.cost!r}, {self.periods})"

    def apart(self, x: Array, y: Array) -> Array:
        """x - y of the nearest image.  (..., d), (..., d) -> (..., d)"""
        xp: Any = array_namespace(x, y)
        z = x - y
        wrapped = [
            z[..., k] if period is None else z[..., k] - period * xp.round(z[..., k] / period)
            for k, period in enumerate(self.periods)
        ]
        return xp.stack(wrapped, axis=-1)

    def value(self, x: Array, y: Array) -> Array:
        z = self.apart(x, y)
        return self.cost.value(z, array_namespace(z).zeros_like(z))

    def gradient(self, x: Array, y: Array) -> Array:
        z = self.apart(x, y)
        return self.cost.gradient(z, array_namespace(z).zeros_like(z))

    def span(self, diameter: float) -> float | None:
        return self.cost.span(diameter)


def with_periods(cost: Cost, periods: Periods) -> Cost:
    """The cost where some axes close; itself where none does."""
    return cost if all(period is None for period in periods) else Periodic(cost, periods)


def cost_parts(cost: Cost) -> Any:
    """What a file holds of a cost: its name, and the lengths after which axes close; TypeError of a user's own."""
    if isinstance(cost, Periodic):
        return {"of": name_of_cost(cost.cost), "periods": list(cost.periods)}
    return name_of_cost(cost)


def cost_of_parts(parts: Any) -> Cost:
    """The cost that a file holds."""
    if not isinstance(parts, dict):
        return cost_of_name(parts)
    return Periodic(cost_of_name(parts["of"]), periods_of_parts(parts["periods"]))


def periods_of_parts(parts: Any) -> Periods:
    """Lengths, or None, of a file; ValueError where one is no length."""
    periods = tuple(None if period is None else as_coordinate("period", period) for period in parts)
    if any(period is not None and period <= 0 for period in periods):
        raise ValueError(f"axes that close after {periods}")
    return periods
