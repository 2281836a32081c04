"""Softmins between two lattices of CuPy arrays: one launch for each axis, a block of threads for each line.

Everything else that is asked of lattices is made of sums along lines and goes through them too, as the portable passes
do. What the kernels have no room for is summed by those: costs beyond the exponents, circles in which a row sees no
regular line, and lengths on any circle.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epsot.costs import Array
from epsot.kernels.cuda.bursts import LOG2_E, Fields
from epsot.kernels.cuda.fused import ROUNDING_32, ROUNDING_64, on_device
from epsot.kernels.cuda.modules import launch
from epsot.kernels.cuda.shapes import LATTICE_ROOM, LATTICE_SIDES, LATTICE_WARPS, STRIP
from epsot.kernels.lattice import Axis, Lattice
from epsot.lazy import cached_property

AXIS = Fields("n m inner places first turn around", "x0 dx dy c half tie bits unit scale", "")  # LatticeAxis
LENGTHS = f"lattice_lengths<{2 * STRIP}>"  # a warp for each direction
LIMIT = {"float": ROUNDING_32, "double": ROUNDING_64}  # log2 of the part of any sum that may be missing
RANGE = {"float": 126.0, "double": 1022.0}  # log2 of the largest number: what is smaller than its inverse is 0
SPAN = {"float": 2.0**27, "double": 2.0**47}  # the largest cost in bits that integers leave room for
REALS: dict[str, tuple[Any, Any]] = {"float": (np.float32, np.int32), "double": (np.float64, np.int64)}


class LatticeKernel(Lattice):
    """`lattice.Lattice` for CuPy arrays."""

    @property
    def cupy(self) -> Any:
        """The library. Not kept: modules cannot be pickled, nor copied."""
        import cupy

        return cupy

    @property
    def device(self) -> Any:
        return self.place.device

    @cached_property
    def single(self) -> bool:
        return bool(np.dtype(self.dtype).itemsize <= 4)

    @cached_property
    def order(self) -> list[int]:
        """Axes one after the other: those first that leave less to do."""
        return sorted(range(len(self.axes)), key=lambda number: self.rows[number] / self.columns[number])

    def real(self, number: int, eps: float) -> str | None:
        """The C++ type in which an axis is summed: the user's, unless costs need longer exponents; None: in neither."""
        span = self.axes[number].span(STRIP)
        if 0 in self.shape or (self.kind == "lengths" and self.axes[number].period is not None):
            return None
        bits = LOG2_E * self.factor / eps * (span * span if self.kind == "squares" else span)
        if self.single and self.kind == "squares" and bits <= SPAN["float"]:
            return "float"
        return "double" if bits <= SPAN["double"] else None

    @on_device
    def log_sums(self, h: Array, eps: float) -> Array:
        z = self.cupy.reshape(h, self.columns)
        for number in self.order:
            z = self._along(z, number, eps)
        return self.cupy.reshape(z, (-1,))

    def _along(self, z: Array, number: int, eps: float, values: Array | None = None) -> Array:
        real = None if values is not None else self.real(number, eps)
        return super()._along(z, number, eps, values) if real is None else self._summed(z, number, eps, real)

    @on_device
    def _summed(self, z: Array, number: int, eps: float, real: str) -> Array:
        """log sum_j exp(z[j] - cost[i, j] / eps) along one axis."""
        cupy, axis, c = self.cupy, self.axes[number], LOG2_E * self.factor / eps
        shape = z.shape[:number] + (axis.n,) + z.shape[number + 1 :]
        inner, lines = math.prod(z.shape[number + 1 :]), z.size // axis.m
        first, places, turn = axis.places
        bits = 3.0 - LIMIT[real] + math.log2(len(self.axes) * (places + STRIP))
        fields = AXIS(
            n=axis.n, m=axis.m, inner=inner, places=places, first=first, turn=turn,
            around=min(places, math.ceil(math.sqrt(bits / c) / (STRIP * axis.dy))),
            x0=axis.x - axis.y, dx=axis.dx, dy=axis.dy, c=c, half=axis.half,
            tie=axis.tie, bits=bits, unit=LOG2_E, scale=1 / LOG2_E,
        )  # fmt: skip
        z, out = cupy.ascontiguousarray(z, dtype=np.float64), cupy.empty(shape, dtype=np.float64)
        number_type, integer = REALS[real]
        if self.kind == "lengths":
            work, whole = (self._room(lines * 2 * axis.m, axis.m, kind) for kind in (number_type, integer))
            launch(cupy, LENGTHS, (lines,), 2 * STRIP, (z, fields, work, whole, out))
            return out
        rows, columns = (-(-count // STRIP) for count in (axis.n, places))
        width = columns * STRIP
        work, whole = (self._room(lines * width, width, kind) for kind in (number_type, integer))
        windows = self._room(lines * 4 * rows, rows * STRIP, np.int32)
        threads = STRIP * min(LATTICE_WARPS, 1 << (rows - 1).bit_length())
        name = f"lattice_squares<{real}, {side_of(axis, c, bits, real)}>"
        launch(cupy, name, (lines,), threads, (z, fields, work, whole, windows, out))
        return out

    def _room(self, count: int, of_line: int, kind: Any) -> Array:
        """Working memory for all lines, where one line needs more than there is shared memory."""
        return self.cupy.empty(count if of_line > LATTICE_ROOM else 1, dtype=kind)


def side_of(axis: Axis, c: float, bits: float, real: str) -> int:
    """Rows and columns of a block: no cost in it is so large that a column that counts could be lost."""
    most = RANGE[real] - 5.0 - bits
    fitting = (side for side in LATTICE_SIDES if c * (0.5 * (side - 1) * (axis.dx + axis.dy)) ** 2 <= most)
    return next(fitting, 1)
