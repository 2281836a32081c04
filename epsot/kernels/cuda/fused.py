"""What points and matrices share: from log-densities to launches, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np

from epsot.communicator import ALONE, Communicator, cuts, ranks_of
from epsot.costs import Array
from epsot.kernels.bursts import Marginal
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import LOG2_E, Bursts, Pairs
from epsot.kernels.cuda.modules import launch, refusals, unproven
from epsot.kernels.cuda.shapes import CHUNK, FRAME, NEAR_TILE, PLAIN_THREADS, WIDTH, Shape
from epsot.kernels.reference import Dense
from epsot.lazy import cached_property

COOPERATIVE, DOUBLE_RATIO = "CooperativeLaunch", "SingleToDoublePrecisionPerfRatio"
MOST_CHUNKS = 2**14  # the third axis of a grid ends at 2^16
ALL, MARKED, PEAKS = (np.int32(mode) for mode in range(3))  # as in reduce.cu
# log2 of what the tiles left out of a sum may carry of it: a hundredth of a unit in the last place, as on the CPU.
ROUNDING_32, ROUNDING_64 = -31.0, -60.0

Method = TypeVar("Method", bound=Callable[..., Any])


@cache
def attribute(cupy: Any, device: int, name: str) -> int:
    """What a device is like; asked for once."""
    value: int = cupy.cuda.Device(device).attributes[name]
    return value


def multiprocessors(cupy: Any, device: int) -> int:
    """How many a device has."""
    return attribute(cupy, device, "MultiProcessorCount")


def on_device(method: Method) -> Method:
    """The method on the device of its arrays, whichever is current."""

    @wraps(method)
    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        with self.device:
            return method(self, *arguments, **options)

    return run  # type: ignore[return-value]


class Operands(NamedTuple):
    """What a form reads of rows and columns."""

    x: Array
    y: Array
    x_extra: Array
    y_extra: Array
    x_order: Array
    y_order: Array
    n: int
    m: int
    d: int
    down: int = 0
    right: int = 0
    groups: int = 0  # of tiles that have boxes
    frame: int = 0  # rows that share what is in x_extra; 0: there is nothing

    def arguments(self, h: Array, prepared: Array, scale: float, limit: float) -> tuple[Any, ...]:
        """The first arguments of every kernel."""
        return (*self[:6], h, prepared, *map(np.int64, self[6:12]), np.float64(scale), np.float64(limit))

    def within(self, begin: int, end: int) -> Operands:
        """The same of the rows of some frames, in their order: all that a block reads of rows is its frame."""
        if end - begin == self.n:
            return self
        x_extra, frame = self.x_extra, self.frame
        return self._replace(
            x=self.x[begin:end], x_extra=x_extra[begin // frame : -(-end // frame)] if frame else x_extra,
            x_order=self.x_order[begin:end], n=end - begin,
        )  # fmt: skip


class Fused(Dense):
    """Reductions over blocks of rows. A subclass says what the kernels read and in which shapes they run.

    Attributes
    ----------
    device : where everything lies
    factor : the cost is `factor` times its family
    dim : the coordinates of a point; 0: the cost is stored
    wide : whether there are kernels for WIDTH columns of values at once
    """

    factor: float = 1.0
    dim: int = 0
    wide: bool = False

    @property
    def cupy(self) -> Any:
        """The library. Not kept: modules cannot be pickled, nor copied."""
        import cupy

        return cupy

    @property
    def device(self) -> Any:
        raise TypeError("the arrays belong to the subclass")

    @property
    def operands(self) -> Operands:
        raise TypeError("the operands belong to the subclass")

    @cached_property
    def comm(self) -> Communicator:
        """The ranks, a device each, that share the rows; where these are few, each does all of them."""
        comm, here = ranks_of(self.workers), self.device.id
        if comm is ALONE:
            return ALONE
        fits, ratio = multiprocessors(self.cupy, here), attribute(self.cupy, here, DOUBLE_RATIO)
        return ALONE if shapes.few(*self.shape, self.dim, self.real, fits, ratio) else comm

    @cached_property
    def edges(self) -> list[int]:
        """Where rows in order are cut for the ranks: between frames, so that a block does not know whose it is."""
        n = self.shape[0]
        return [min(n, FRAME * cut) for cut in cuts(-(-n // FRAME), self.comm.size)]

    def own(self, operands: Operands) -> Operands:
        """With the rows of this rank."""
        rank = self.comm.rank
        return operands.within(self.edges[rank], self.edges[rank + 1])

    @cached_property
    def here(self) -> Operands:
        return self.own(self.operands)

    def complete(self, seen: Any, out: Array) -> Array:
        """What each rank has found for its rows, with that of all others."""
        return self.comm.complete(seen, out, self.operands.x_order, self.edges)

    def form(self, operation: str) -> Shape:
        """The shape of the kernels of an operation of reduce.cu."""
        raise TypeError("the shapes belong to the subclass")

    def vector(self, array: Array) -> Array:
        return self.cupy.ascontiguousarray(array, dtype=np.float64)

    def empty_sum(self, value: float, *shape: int) -> Array:
        return self.cupy.full(shape, value, dtype=np.float64)

    @cached_property
    def limit(self) -> float:
        """log2 of the part of a sum that may be left out."""
        return ROUNDING_32 if self.real == "float" else ROUNDING_64

    def prepare(self, h: Array, scale: float, operands: Operands) -> Array:
        """The weights of the columns in order, the largest of tiles and groups, and the images of frames of rows."""
        if operands.groups == 0 or operands.n == 0:
            return h  # which nobody reads
        cupy, n, m = self.cupy, operands.n, operands.m
        frames = -(-n // FRAME)
        out = cupy.empty(m - (-m // NEAR_TILE) + operands.groups + 2 * frames, dtype=np.float64)
        arguments = (h, operands.y_order, np.int64(m), out)
        launch(cupy, f"prepare<{PLAIN_THREADS}, {NEAR_TILE}>", (operands.groups,), PLAIN_THREADS, arguments)
        form = self.form("SUMS")
        launch(cupy, f"images<{form.name}>", (frames,), form.threads, operands.arguments(h, out, scale, 0.0))
        return out

    def reduce(
        self, operation: str, h: Array, eps: float, k: Array, out: Array, *, prepared: Array | None = None,
        mode: np.int32 = ALL, k_scale: float = LOG2_E, values: Array | None = None,
        columns: int = 1, chunks: int = 1, width: int = 1,
        operands: Operands | None = None, form: Shape | None = None, scale: float | None = None,
    ) -> Array:  # fmt: skip
        """One launch of a kernel of reduce.cu: `chunks` of the `columns` of `out`, `width` sums a row in each.

        The rows are those of this rank, if no `operands` say otherwise; the parts of the columns are those of all rows.
        """
        cupy, operands = self.cupy, operands or self.here
        form = form or self.form(operation)
        blocks = -(-operands.n // form.rows)
        if blocks == 0:
            return out
        parts = 1
        if mode != MARKED:
            parts = shapes.parts(form, self.shape[0], operands.m, chunks, multiprocessors(cupy, self.device.id))
        partial = cupy.empty(chunks * parts * (operands.n * width + blocks) if parts > 1 else 1, dtype=np.float64)
        arrived = cupy.zeros(chunks * blocks if parts > 1 else 1, dtype=np.int32)
        scale = LOG2_E * self.factor / eps if scale is None else scale
        prepared = self.prepare(h, scale, operands) if prepared is None else prepared
        factor = 1.0 if operation in ("VALUES", "WIDE") else self.factor  # of the cost, and of its gradient
        launch(
            cupy, f"reduce<{form.name}, {operation}>", (blocks, parts, chunks), form.threads,
            (
                *operands.arguments(h, prepared, scale, self.limit),
                k, np.float64(k_scale), np.float64(eps), np.float64(factor),
                h if values is None else values, np.int64(columns), mode, partial, arrived, out,
            ),
        )  # fmt: skip
        return out

    @property
    def real(self) -> str:
        """The C++ type of logits and exponentials."""
        raise TypeError("the cost belongs to the subclass")

    def pairs(self) -> Pairs:
        """What bursts read of the cost; of points copies in float64."""
        raise TypeError("the cost belongs to the subclass")

    @on_device
    def bursts(self, a: Marginal, b: Marginal) -> Bursts | None:
        cupy, here = self.cupy, self.device.id
        if not unproven() or here in refusals:
            return None
        fits, ratio = multiprocessors(cupy, here), attribute(cupy, here, DOUBLE_RATIO)
        few = shapes.bursts(*self.shape, self.dim, self.real, fits, ratio)
        if not few or not attribute(cupy, here, COOPERATIVE):
            return None
        return Bursts(self.pairs(), shapes.burst_blocks(*self.shape, fits), a, b)

    @on_device
    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        n = self.shape[0]
        if 0 in self.shape:
            return self.empty_sum(math.inf, n)
        h, out = self.vector(h), self.cupy.empty(n, dtype=np.float64)
        seen, prepared = self.comm.seen(h), self.prepare(h, LOG2_E * self.factor / eps, self.here)
        if guess is None:
            guess = self.cupy.empty(n, dtype=np.float64)
            self.reduce("SUMS", h, eps, h, guess, prepared=prepared, mode=PEAKS)
        self.reduce("SUMS", h, eps, self.vector(guess), out, prepared=prepared, k_scale=LOG2_E / eps)
        return self.complete(seen, out)

    @on_device
    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        (n, m), q = self.shape, v.shape[1]
        if 0 in (n, m, q):
            return self.empty_sum(0.0, n, q)
        cupy, operands = self.cupy, self.operands
        k, h, v = self.vector(k), self.vector(h), v.astype(np.float64)
        seen = self.comm.seen(h)
        # A power of two for each column: float32 has no room for values like 1e-40, which float64 problems may hold.
        exponent = cupy.frexp(cupy.abs(v).max(axis=0))[1]
        dtype = np.float32 if self.real == "float" else np.float64
        values = cupy.ascontiguousarray(cupy.ldexp(v, -exponent)[operands.y_order].astype(dtype))
        out = cupy.empty((n, q), dtype=np.float64)
        operation, width = ("WIDE", WIDTH) if self.wide and q > 2 * CHUNK else ("VALUES", CHUNK)
        most = MOST_CHUNKS * width
        for begin in range(0, q, most):
            part = cupy.ascontiguousarray(values[:, begin : begin + most])
            columns = part.shape[1]
            result = out if columns == q else cupy.empty((n, columns), dtype=np.float64)
            self.reduce(
                operation, h, eps, k, result,
                values=part, columns=columns, chunks=-(-columns // width), width=1 + width,
            )  # fmt: skip
            if result is not out:
                out[:, begin : begin + columns] = result
        return cupy.ldexp(self.complete(seen, out), exponent)
