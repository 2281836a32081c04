"""The bounding boxes of two clouds: how wide these are, and how far apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from epsot.arrays import to_numpy
from epsot.costs import Array

LINE = 64  # points side by side in a reduction over all: lines of two or three numbers are 20 times as slow in NumPy


class Boxes:
    """Of x and of y.

    Attributes
    ----------
    corners : (4, d) float64 array of NumPy
        The lowest coordinates of x and of y, and the highest.
    """

    __slots__ = ("corners",)

    def __init__(self, corners: np.ndarray) -> None:
        self.corners = corners

    @classmethod
    def around(cls, x: Array, y: Array, xp: Any) -> Boxes:
        """Of two clouds, in one reading of the device."""
        corners = xp.concat([corner(extreme, z, xp) for extreme in (xp.min, xp.max) for z in (x, y)])
        return cls(to_numpy(corners).reshape(4, -1).astype(np.float64))

    def sides(self, first: int, second: int) -> Boxes:
        """Those of other pairs of these clouds, 0 and 1: (1, 0) is seen from the other side."""
        return Boxes(self.corners.take([first, second, 2 + first, 2 + second], axis=0))

    def are_finite(self) -> bool:
        """Whether all coordinates are."""
        return bool(np.all(np.isfinite(self.corners)))

    def largest(self) -> float:
        """The largest size of a coordinate."""
        return float(np.abs(self.corners).max())

    def diameter(self) -> float:
        """The diagonal of the box of both."""
        x_low, y_low, x_high, y_high = self.corners / 2  # halves do not overflow
        extent = np.maximum(x_high, y_high) - np.minimum(x_low, y_low)
        largest = float(extent.max())
        return 2 * largest * math.sqrt(float(((extent / largest) ** 2).sum())) if largest > 0 else 0.0

    def middle(self) -> np.ndarray:
        """The centre of the box of both.  (d,)"""
        low, high = self.corners[:2].min(axis=0), self.corners[2:].max(axis=0)
        return np.asarray((low + high) / 2)

    def centres(self) -> tuple[np.ndarray, np.ndarray, float]:
        """The centre of either box, (d,), and half of the longest edge of both."""
        x_low, y_low, x_high, y_high = self.corners / 2
        return x_low + x_high, y_low + y_high, float(max((x_high - x_low).max(), (y_high - y_low).max()))


def corner(extreme: Callable[..., Array], cloud: Array, xp: Any) -> Array:
    """extreme(cloud, axis=0), over lines of many points, then along the coordinates of one.  (n, d) -> (d,)"""
    if type(cloud) is not np.ndarray:
        return extreme(cloud, axis=0)
    n, d = cloud.shape
    lines = n // LINE
    if lines > 1:
        folded = extreme(xp.reshape(cloud[: lines * LINE, :], (lines, LINE * d)), axis=0)
        cloud = xp.concat([xp.reshape(folded, (LINE, d)), cloud[lines * LINE :, :]], axis=0)
    return extreme(np.ascontiguousarray(cloud.T), axis=1)
