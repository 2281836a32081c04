"""One small problem whose costs are kept: what a solve does with them and with its kernel matrix, as intrinsics.

K[i, j] = 2^(F[i] + G[j] - scale C[i, j]) around references F and G, in the type of the points, stays in a near cache.
A sweep over it costs two multiply-adds a pair, an exponential ten times as much. Costs and exponents are float64 until
their power is taken. Lines are padded to a multiple of `WIDTH`: what pads them must not count.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from epsot.kernels.cpu.lines import ABREAST, LINE, joint, slots, stretches
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, SQUARE, Arrays, accumulate, steps
from epsot.kernels.cpu.vectors import INDEX, INT32, VECTOR_BYTES, Value, Vectors, constant, intrinsic

WIDTH = LINE  # numbers: one vector of float32, or two of float64
ABREAST_NUMBERS = 32  # of a row, and of a line of either type
ROWS_OF_PRODUCTS = VECTOR_BYTES // 8  # whose sums are a vector
COLUMNS_OF_PRODUCTS = 4  # vectors, each a chain of additions
ROWS_OF_COSTS = 2
ABREAST_ROWS = 4  # rows whose products share what is loaded of the other side


@intrinsic(prefer_literal=True)
def costs_of(typing: Any, kind: Any, x: Any, count: Any, lines: Any, factor: Any, width: Any, costs: Any) -> Any:
    """costs[i, j] = C(x[i], y[j]), x and `lines` (d, width) holding the coordinates of both; all float64.

    Of the first `count` rows and one behind them where that is odd: two rows share what is loaded of the columns.
    """
    metric = constant(kind)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        d, factor = builder.extract_value(a.values[3].shape, 0), v.splat(a.values[4])
        sums = [slots(v, ABREAST) for _ in range(ROWS_OF_COSTS)]
        with steps(builder, a.values[2], ROWS_OF_COSTS) as first:
            rows = [builder.add(first, INDEX(ahead)) for ahead in range(ROWS_OF_COSTS)]

            @stretches(v, a.values[5])
            def sum_up(places: list[Value], rows: list[Value] = rows) -> None:
                for slot in itertools.chain(*sums):
                    builder.store(v.constant(0.0), slot)
                with steps(builder, d, 1) as k:
                    line, other = (builder.mul(k, a.width(side)) for side in (1, 3))
                    here = [v.splat(a.item(1, line, row)) for row in rows]
                    for part, j in enumerate(places):
                        there = v.load(a.at(3, other, j))
                        for own, found in zip(here, sums, strict=True):
                            how = CITYBLOCK if metric == CITYBLOCK else EUCLIDEAN
                            builder.store(accumulate(v, how, builder.load(found[part]), own, there), found[part])
                for row, found in zip(rows, sums, strict=True):
                    for slot, j in zip(found, places, strict=False):
                        value = builder.load(slot)
                        value = builder.fmul(v.sqrt(value) if metric == EUCLIDEAN else value, factor)
                        v.store(value, a.at(6, builder.mul(row, a.width(6)), j))

        return context.get_dummy_value()

    assert metric in (SQUARE, EUCLIDEAN, CITYBLOCK)
    return types.void(kind, x, count, lines, factor, width, costs), codegen


@intrinsic
def powers_of_rows(
    typing: Any, costs: Any, r: Any, last: Any, scale: Any, heights: Any, g: Any, weights: Any, width: Any, matrix: Any,
    sums: Any,
) -> Any:  # fmt: skip
    """matrix[i, j] = 2^(heights[i] + g[j] - scale costs[i, j]), sums[i] = sum_j matrix[i, j] weights[j], of four rows.

    Behind `last` that row is made again. Clamped to the largest finite number: a sum with such a term is one that
    nobody trusts. Two rows at a time fill the registers.
    """
    real = matrix.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        narrow = Vectors(builder, real)
        v = Vectors(builder, types.float64, narrow.lanes)
        end, factor = a.values[2], v.splat(builder.fneg(a.values[3]))
        ahead = [builder.add(a.values[1], INDEX(i)) for i in range(ABREAST_ROWS)]
        rows = [builder.select(builder.icmp_signed("<", row, end), row, end) for row in ahead]
        lines, outs = ([builder.mul(row, a.width(side)) for row in rows] for side in (0, 8))
        lifts = [v.splat(a.item(4, row)) for row in rows]
        sums = [slots(narrow, ABREAST_NUMBERS // narrow.lanes) for _ in rows]

        @stretches(narrow, a.values[7], ABREAST_NUMBERS // narrow.lanes)
        def take(places: list[Value]) -> None:
            for pair in (range(k, k + 2) for k in range(0, ABREAST_ROWS, 2)):
                at = [(i, k, place) for i in pair for k, place in enumerate(places)]
                exponents = []
                for i, _, place in at:
                    top = builder.fadd(v.load(a.at(5, place)), lifts[i])
                    exponents.append(narrow.narrowed(v.fma(v.load(a.at(0, lines[i], place)), factor, top)))
                for (i, k, place), value in zip(at, narrow.exp2(exponents, True), strict=True):
                    narrow.store(value, a.at(8, outs[i], place))
                    grown = narrow.fma(value, narrow.load(a.at(6, place)), builder.load(sums[i][k]))
                    builder.store(grown, sums[i][k])

        found = narrow.totals([joint(narrow, each) for each in sums])
        found = Vectors(builder, types.float64, len(rows)).widened(found)
        for i, row in enumerate(rows):
            builder.store(builder.extract_element(found, INT32(i)), a.at(9, row))
        return context.get_dummy_value()

    return types.void(costs, r, last, scale, heights, g, weights, width, matrix, sums), codegen


@intrinsic
def largest_of_row(typing: Any, costs: Any, i: Any, scale: Any, g: Any, width: Any) -> Any:
    """max_j g[j] - scale costs[i, j]"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        line, factor = builder.mul(a.values[1], a.width(0)), v.splat(builder.fneg(a.values[2]))
        best = slots(v, ABREAST, float("-inf"))

        @stretches(v, a.values[4])
        def compare(places: list[Value]) -> None:
            for slot, j in zip(best, places, strict=False):
                value = v.fma(v.load(a.at(0, line, j)), factor, v.load(a.at(3, j)))
                builder.store(v.maximum(value, builder.load(slot)), slot)

        return v.largest(functools.reduce(v.maximum, [builder.load(slot) for slot in best]))

    return types.float64(costs, i, scale, g, width), codegen


@intrinsic
def row_products(typing: Any, matrix: Any, begin: Any, end: Any, weights: Any, width: Any, sums: Any) -> Any:
    """sums[i] = sum_j matrix[i, j] weights[j] for the rows begin, ... < end, and to a multiple of eight; in float64."""
    real = matrix.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v, sums = Vectors(builder, real), Vectors(builder, types.float64, ROWS_OF_PRODUCTS)
        found = [[v.variable() for _ in range(2)] for _ in range(ROWS_OF_PRODUCTS)]
        with steps(builder, builder.sub(a.values[2], a.values[1]), ROWS_OF_PRODUCTS) as r:
            first = builder.add(a.values[1], r)
            rows = [builder.mul(builder.add(first, INDEX(i)), a.width(0)) for i in range(ROWS_OF_PRODUCTS)]
            for slot in (slot for pair in found for slot in pair):
                builder.store(v.constant(0.0), slot)

            @stretches(v, a.values[4], 2)
            def add(places: list[Value], rows: list[Value] = rows) -> None:
                for k, place in enumerate(places):
                    weight = v.load(a.at(3, place))
                    for row, pair in zip(rows, found, strict=True):
                        grown = v.fma(v.load(a.at(0, row, place)), weight, builder.load(pair[k]))
                        builder.store(grown, pair[k])

            sums.store(sums.widened(v.totals([joint(v, pair) for pair in found])), a.at(5, first))
        return context.get_dummy_value()

    return types.void(matrix, begin, end, weights, width, sums), codegen


@intrinsic(prefer_literal=True)
def add_columns(
    typing: Any, squared: Any, matrix: Any, begin: Any, end: Any, factors: Any, width: Any, sums: Any
) -> Any:
    """sums[j] += sum of matrix[i, j] factors[i] over the rows begin, ... < end, or of the squares of the entries.

    And over those to a multiple of four. The sums of a stretch of columns stay in registers, and all that are left
    behind the whole ones are one stretch: a column alone waits for itself.
    """
    real, of_squares = matrix.dtype, constant(squared)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v = Vectors(builder, real)
        found = [v.variable() for _ in range(COLUMNS_OF_PRODUCTS)]
        count, width = builder.sub(a.values[3], a.values[2]), a.values[5]

        def side_by_side(slots: list[Value], j: Value) -> None:
            places = [builder.add(j, INDEX(part * v.lanes)) for part in range(len(slots))]
            for slot, place in zip(slots, places, strict=True):
                builder.store(v.load(a.at(6, place)), slot)
            with steps(builder, count, ABREAST_ROWS) as r:
                for ahead in range(ABREAST_ROWS):
                    row = builder.add(builder.add(a.values[2], r), INDEX(ahead))
                    share, line = v.splat(a.item(4, row)), builder.mul(row, a.width(1))
                    for slot, place in zip(slots, places, strict=True):
                        entry = v.load(a.at(1, line, place))
                        entry = builder.fmul(entry, entry) if of_squares else entry
                        builder.store(v.fma(entry, share, builder.load(slot)), slot)
            for slot, place in zip(slots, places, strict=True):
                v.store(builder.load(slot), a.at(6, place))

        whole = builder.and_(width, INDEX(-COLUMNS_OF_PRODUCTS * v.lanes))
        with steps(builder, whole, COLUMNS_OF_PRODUCTS * v.lanes) as j:
            side_by_side(found, j)
        left = builder.sub(width, whole)
        for few in range(1, COLUMNS_OF_PRODUCTS):
            if few * v.lanes % WIDTH == 0:
                with builder.if_then(builder.icmp_signed("==", left, INDEX(few * v.lanes))):
                    side_by_side(found[:few], whole)
        return context.get_dummy_value()

    return types.void(squared, matrix, begin, end, factors, width, sums), codegen


@intrinsic
def factors_around(
    typing: Any, z: Any, scale: Any, reference: Any, weights: Any, first: Any, width: Any, ends: Any, out: Any
) -> Any:
    """out[j] = weights[j] 2^p[j], p[j] = z[j] scale - reference[j], 0 without weight; ends = max p, max -p, or 0.

    Over width numbers from `first` on. The powers are at most 2^1023.
    """
    real = out.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, narrow = Arrays(context, builder, signature, arguments), Vectors(builder, real)
        v = Vectors(builder, types.float64, narrow.lanes)
        first, factor, zero = a.values[4], v.splat(a.values[1]), v.constant(0.0)
        found = [slots(v, ABREAST_NUMBERS // v.lanes) for _ in range(2)]

        @stretches(v, a.values[5], ABREAST_NUMBERS // v.lanes)
        def take(places: list[Value]) -> None:
            places = [builder.add(first, place) for place in places]
            weights = [v.load(a.at(3, place)) for place in places]
            exponents = []
            for k, place in enumerate(places):
                value = builder.fsub(builder.fmul(v.load(a.at(0, place)), factor), v.load(a.at(2, place)))
                value = builder.select(builder.fcmp_ordered(">", weights[k], zero), value, zero)
                exponents.append(value)
                for slots_of, part in zip(found, (value, builder.fsub(zero, value)), strict=True):
                    builder.store(v.maximum(part, builder.load(slots_of[k])), slots_of[k])
            for place, weight, value in zip(places, weights, v.exp2(exponents, True), strict=True):
                narrow.store(narrow.narrowed(builder.fmul(weight, value)), a.at(7, place))

        for k, slots_of in enumerate(found):
            best = functools.reduce(v.maximum, [builder.load(slot) for slot in slots_of])
            builder.store(v.largest(best), a.at(6, INDEX(k)))
        return context.get_dummy_value()

    return types.void(z, scale, reference, weights, first, width, ends, out), codegen


@intrinsic
def trusted(typing: Any, sums: Any, weights: Any, least: Any, most: Any, first: Any, width: Any) -> Any:
    """Whether least < sums[j] <= most wherever there is weight, over width numbers from `first` on."""
    real = sums.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        narrow = Vectors(builder, real, v.lanes)
        low, high, zero = v.splat(a.values[2]), v.splat(a.values[3]), v.constant(0.0)
        bits = ir.IntType(v.lanes)
        doubtful = cgutils.alloca_once(builder, bits)
        builder.store(bits(0), doubtful)
        with steps(builder, a.values[5], v.lanes) as step:
            j = builder.add(a.values[4], step)
            value = v.widened(narrow.load(a.at(0, j)))
            fine = builder.and_(builder.fcmp_ordered("<", low, value), builder.fcmp_ordered("<=", value, high))
            counts = builder.fcmp_ordered(">", v.load(a.at(1, j)), zero)
            missed = builder.bitcast(builder.and_(counts, builder.not_(fine)), bits)
            builder.store(builder.or_(builder.load(doubtful), missed), doubtful)
        return builder.icmp_unsigned("==", builder.load(doubtful), bits(0))

    return types.boolean(sums, weights, least, most, first, width), codegen


@intrinsic
def inverses(typing: Any, sums: Any, weights: Any, first: Any, width: Any, out: Any) -> Any:
    """out[i] = weights[i] / sums[i], 0 without weight, over width numbers from `first` on.  -> max 1 / sums"""
    real = out.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, narrow = Arrays(context, builder, signature, arguments), Vectors(builder, real)
        v = Vectors(builder, types.float64, narrow.lanes)
        one, zero, best = v.constant(1.0), v.constant(0.0), slots(v, ABREAST_NUMBERS // v.lanes)

        @stretches(v, a.values[3], ABREAST_NUMBERS // v.lanes)
        def take(places: list[Value]) -> None:
            for slot, place in zip(best, places, strict=False):
                i = builder.add(a.values[2], place)
                weight = v.load(a.at(1, i))
                value = builder.fdiv(one, v.load(a.at(0, i)))
                value = builder.select(builder.fcmp_ordered(">", weight, zero), value, zero)
                builder.store(v.maximum(value, builder.load(slot)), slot)
                narrow.store(narrow.narrowed(builder.fmul(weight, value)), a.at(4, i))

        return v.largest(functools.reduce(v.maximum, [builder.load(slot) for slot in best]))

    return types.float64(sums, weights, first, width, out), codegen


@intrinsic
def softmins(typing: Any, sums: Any, reference: Any, weights: Any, unit: Any, first: Any, width: Any, out: Any) -> Any:
    """out[i] = (reference[i] - log2 sums[i]) unit, 0 without weight, over width numbers from `first` on."""
    real = sums.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        narrow = Vectors(builder, real, v.lanes)
        unit, zero = v.splat(a.values[3]), v.constant(0.0)
        bits = v.constant(-1.0 / math.log(2.0))

        @stretches(v, a.values[5], ABREAST_NUMBERS // v.lanes)
        def take(places: list[Value]) -> None:
            places = [builder.add(a.values[4], place) for place in places]
            logs = v.logarithms([v.widened(narrow.load(a.at(0, i))) for i in places])
            for i, log in zip(places, logs, strict=True):
                value = builder.fmul(v.fma(log, bits, v.load(a.at(1, i))), unit)
                counts = builder.fcmp_ordered(">", v.load(a.at(2, i)), zero)
                v.store(builder.select(counts, value, zero), a.at(6, i))

        return context.get_dummy_value()

    return types.void(sums, reference, weights, unit, first, width, out), codegen


@intrinsic
def powers(typing: Any, z: Any, width: Any, out: Any) -> Any:
    """out[j] = 2^z[j] in float64, at most 2^1023."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)

        @stretches(v, a.values[1])
        def take(places: list[Value]) -> None:
            for j, value in zip(places, v.exp2([v.load(a.at(0, j)) for j in places], True), strict=True):
                v.store(value, a.at(2, j))

        return context.get_dummy_value()

    return types.void(z, width, out), codegen
