"""The inner loops: four rows of a block against a line of columns, as intrinsics for Numba kernels.

First the logits t of four rows go to a buffer in the L1 cache, then one of the second steps reads them. Split so, each
loop has a short chain of dependent instructions, which the processor overlaps better than one long chain: 10 to 20 %
faster than a fused loop. Compile-time constants (kind, dim, flags) are literal arguments.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, constant, intrinsic

SQUARE, EUCLIDEAN, CITYBLOCK = 0, 1, 2
ROWS = 4  # rows side by side
# How many of these share a loop of exponentials. In float32 the registers spill with 4, which costs 10 %; in float64
# the polynomial is longer, and 4 overlap better by 20 % where both sides are summed.
ROWS_OF_EXPONENTIALS = {types.float32: 2, types.float64: 4}
GROUP = 64  # columns are placed, skipped and stored in groups
DOUBLE = ir.DoubleType()


class Arrays:
    """The C-contiguous array arguments of an intrinsic, and pointers to their elements."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        pairs = zip(signature.args, arguments, strict=True)
        self.values = [
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
            for kind, value in pairs
        ]

    def width(self, position: int) -> Value:
        """The length of a line of the array: its last axis."""
        return self.builder.extract_value(self.values[position].shape, 1)

    def at(self, position: int, *terms: Value) -> Value:
        """A pointer to the element whose number is the sum of the terms."""
        number = terms[0]
        for term in terms[1:]:
            number = self.builder.add(number, term)
        return self.builder.gep(self.values[position].data, [number])

    def item(self, position: int, *terms: Value) -> Value:
        return self.builder.load(self.at(position, *terms))


@contextmanager
def steps(builder: Any, stop: Value, step: int) -> Iterator[Value]:
    """``for j in range(0, stop, step)``"""
    with cgutils.for_range_slice(builder, INDEX(0), stop, INDEX(step), intp=INDEX) as (j, _):
        yield j


def accumulate(v: Vectors, kind: int, total: Value, x: Value, y: Value) -> Value:
    """One coordinate's part of <x, y>, |x - y|^2 or sum |x_k - y_k|."""
    if kind == SQUARE:
        return v.fma(x, y, total)
    difference = v.builder.fsub(x, y)
    if kind == EUCLIDEAN:
        return v.fma(difference, difference, total)
    return v.builder.fadd(total, v.abs(difference))


@intrinsic(prefer_literal=True)
def logits_near(typing: Any, kind: Any, dim: Any, rows: Any, r: Any, columns: Any, width: Any, z: Any) -> Any:
    """z[i, j] = u[j] + <x[r + i], y[j]> or u[j] - distance, i < 4. `columns` holds the lines u, y_1 to y_dim."""
    metric, d, real = constant(kind), constant(dim), rows.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v, line = Vectors(builder, real), a.width(4)
        first_row, stop = a.values[3], a.values[5]
        x = [
            [v.splat(a.item(2, builder.mul(builder.add(first_row, INDEX(i)), INDEX(d)), INDEX(k))) for k in range(d)]
            for i in range(ROWS)
        ]
        with steps(builder, stop, v.lanes) as j:
            u, *y = (v.load(a.at(4, builder.mul(line, INDEX(k)), j)) for k in range(d + 1))
            for i in range(ROWS):
                t = u if metric == SQUARE else v.constant(0.0)
                for k in range(d):
                    t = accumulate(v, metric, t, x[i][k], y[k])
                if metric != SQUARE:
                    t = builder.fsub(u, v.sqrt(t) if metric == EUCLIDEAN else t)
                v.store(t, a.at(6, builder.mul(INDEX(i), a.width(6)), j))
        return context.get_dummy_value()

    return types.void(kind, dim, rows, r, columns, width, z), codegen


@intrinsic(prefer_literal=True)
def logits_flat(
    typing: Any, kind: Any, dim: Any, rows: Any, r: Any, lines: Any, weights: Any, start: Any, width: Any, factor: Any,
    rho: Any, count: Any, z: Any,
) -> Any:  # fmt: skip
    """z[i, j] = weights[start + j] - rho[r + i] + factor * (square or distance), in float64 until it is stored.

    Differences of coordinates are taken in float64, of points as they are: nothing is lost to a common origin. Rows
    from `count` on are none: where no more than half of four are left, the others are spared.
    """
    metric, d, real = constant(kind), constant(dim), rows.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        narrow = Vectors(builder, real)
        v = Vectors(builder, types.float64, narrow.lanes)
        first_row, start, stop = a.values[3], a.values[6], a.values[7]
        factor = v.splat(a.values[8])

        def side_by_side(count: int) -> None:
            shift = [v.splat(a.item(9, first_row, INDEX(i))) for i in range(count)]
            x = [
                [
                    v.widened(
                        narrow.splat(a.item(2, builder.mul(builder.add(first_row, INDEX(i)), INDEX(d)), INDEX(k)))
                    )
                    for k in range(d)
                ]
                for i in range(count)
            ]
            with steps(builder, stop, v.lanes) as j:
                u = v.load(a.at(5, start, j))
                y = [v.widened(narrow.load(a.at(4, builder.mul(a.width(4), INDEX(k)), start, j))) for k in range(d)]
                for i in range(count):
                    cost = v.constant(0.0)
                    for k in range(d):
                        cost = accumulate(v, CITYBLOCK if metric == CITYBLOCK else EUCLIDEAN, cost, x[i][k], y[k])
                    if metric == EUCLIDEAN:
                        cost = v.sqrt(cost)
                    t = v.fma(cost, factor, builder.fsub(u, shift[i]))
                    narrow.store(narrow.narrowed(t), a.at(11, builder.mul(INDEX(i), a.width(11)), j))

        few = builder.icmp_signed("<=", builder.sub(a.values[10], first_row), INDEX(ROWS // 2))
        with builder.if_else(few) as (then, otherwise):
            with then:
                side_by_side(ROWS // 2)
            with otherwise:
                side_by_side(ROWS)
        return context.get_dummy_value()

    return types.void(kind, dim, rows, r, lines, weights, start, width, factor, rho, count, z), codegen


@intrinsic(prefer_literal=True)
def logits_tiled(
    typing: Any, kind: Any, rows: Any, r: Any, lines: Any, group: Any, scale: Any, columns: Any, column: Any, z: Any
) -> Any:
    """The same for 64 columns of any dimension: z[i, column + j] = u[column + j] + scale * (product or distance).

    4 rows x 2 vectors of sums stay in registers: 8 multiply-adds a coordinate cover their latency.
    """
    metric, real = constant(kind), rows.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v, d = Vectors(builder, real), a.width(1)
        first_row, number, factor, first = (a.values[i] for i in (2, 4, 5, 7))
        x = [builder.mul(builder.add(first_row, INDEX(i)), d) for i in range(ROWS)]
        start = builder.mul(number, builder.mul(d, INDEX(GROUP)))
        factor = v.splat(factor)
        with steps(builder, INDEX(GROUP), 2 * v.lanes) as j:
            sums = [[v.variable(), v.variable()] for _ in range(ROWS)]
            for slot in itertools.chain(*sums):
                builder.store(v.constant(0.0), slot)
            with steps(builder, d, 1) as k:
                y_line = builder.add(start, builder.mul(k, INDEX(GROUP)))
                y = [v.load(a.at(3, y_line, j, INDEX(half * v.lanes))) for half in (0, 1)]
                for i in range(ROWS):
                    xk = v.splat(a.item(1, x[i], k))
                    for slot, part in zip(sums[i], y, strict=True):
                        builder.store(accumulate(v, metric, builder.load(slot), xk, part), slot)
            for half in (0, 1):
                at = builder.add(builder.add(first, j), INDEX(half * v.lanes))
                u = v.load(a.at(6, at))
                for i in range(ROWS):
                    t = builder.load(sums[i][half])
                    t = v.fma(v.sqrt(t) if metric == EUCLIDEAN else t, factor, u)
                    v.store(t, a.at(8, builder.mul(INDEX(i), a.width(8)), at))
        return context.get_dummy_value()

    return types.void(kind, rows, r, lines, group, scale, columns, column, z), codegen


@intrinsic(prefer_literal=True)
def exponentials(
    typing: Any, ceiling: Any, two_sided: Any, keep: Any, z: Any, width: Any, offset: Any, r: Any, count: Any,
    sums: Any, other: Any,
) -> Any:  # fmt: skip
    """sums[r + i] += sum_j w[i, j], w[i, j] = 2^(z[i, j] + offset[r + i]).

    `two_sided`: other[j] += sum_i w[i, j] from the same exponentials. `keep`: w replaces z.
    Rows from `count` on are none, and not computed where that spares a loop.
    """
    real = z.dtype
    flags = [constant(flag) for flag in (ceiling, two_sided, keep)]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v = Vectors(builder, real)
        stop, first_row = a.values[4], a.values[6]
        left = builder.sub(a.values[7], first_row)

        def side_by_side(rows: range) -> None:
            shift = [v.splat(a.item(5, first_row, INDEX(i))) for i in rows]
            lines = [builder.mul(INDEX(i), a.width(3)) for i in rows]
            totals = [v.variable() for _ in rows]
            for slot in totals:
                builder.store(v.constant(0.0), slot)
            with steps(builder, stop, v.lanes) as j:
                t = [builder.fadd(v.load(a.at(3, line, j)), s) for line, s in zip(lines, shift, strict=True)]
                w = v.exp2(t, bool(flags[0]))
                for weights, line, slot in zip(w, lines, totals, strict=True):
                    builder.store(builder.fadd(builder.load(slot), weights), slot)
                    if flags[2]:
                        v.store(weights, a.at(3, line, j))
                if flags[1]:
                    v.store(builder.fadd(v.load(a.at(9, j)), functools.reduce(builder.fadd, w)), a.at(9, j))
            for i, slot in zip(rows, totals, strict=True):
                add_to(builder, a.at(8, first_row, INDEX(i)), v.total(builder.load(slot)))

        side = ROWS_OF_EXPONENTIALS[real]
        for start in range(0, ROWS, side):
            with builder.if_then(builder.icmp_signed(">", left, INDEX(start)), likely=True):
                side_by_side(range(start, start + side))
        return context.get_dummy_value()

    return types.void(ceiling, two_sided, keep, z, width, offset, r, count, sums, other), codegen


def add_to(builder: Any, pointer: Value, number: Value) -> None:
    """A float64 in memory grows by a number of either type."""
    if number.type != DOUBLE:
        number = builder.fpext(number, DOUBLE)
    builder.store(builder.fadd(builder.load(pointer), number), pointer)


@intrinsic
def peaks(typing: Any, z: Any, width: Any, top: Any) -> Any:
    """top[i] = max_j z[i, j], -inf where nothing is larger."""
    real = z.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v = Vectors(builder, real)
        lines = [builder.mul(INDEX(i), a.width(0)) for i in range(ROWS)]
        best = [v.variable() for _ in range(ROWS)]
        for slot in best:
            builder.store(v.constant(float("-inf")), slot)
        with steps(builder, a.values[1], v.lanes) as j:
            for line, slot in zip(lines, best, strict=True):
                builder.store(v.maximum(v.load(a.at(0, line, j)), builder.load(slot)), slot)
        for i, slot in enumerate(best):
            builder.store(v.largest(builder.load(slot)), a.at(2, INDEX(i)))
        return context.get_dummy_value()

    return types.void(z, width, top), codegen
