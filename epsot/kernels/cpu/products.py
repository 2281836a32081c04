"""What is summed with the weights of a tile: given values, or the gradients of the cost."""

from __future__ import annotations

import itertools
from typing import Any

from numba import types

from epsot.kernels.cpu.sweeps import (
    CITYBLOCK,
    EUCLIDEAN,
    GROUP,
    ROWS,
    ROWS_OF_EXPONENTIALS,
    Arrays,
    add_to,
    steps,
)
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, constant, intrinsic


@intrinsic
def weigh(typing: Any, z: Any, width: Any, starts: Any, values: Any, pair: Any, sums: Any, r: Any) -> Any:
    """sums[r + i, c] += sum_j z[i, j] v[j, c] for the columns c = 2 pair, 2 pair + 1, j below `width`.

    `values` holds v by groups of 64 points, one line of 64 for each c: (groups, q * 64). The number of the p-th group
    in z is starts[p].
    """
    real = z.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v, two = Vectors(builder, real), (0, 1)
        totals = [[v.variable() for _ in two] for _ in range(ROWS)]
        for slot in itertools.chain(*totals):
            builder.store(v.constant(0.0), slot)
        line = builder.mul(a.values[4], INDEX(2 * GROUP))
        groups = builder.udiv(builder.add(a.values[1], INDEX(GROUP - 1)), INDEX(GROUP))
        with steps(builder, groups, 1) as p:
            start = builder.add(builder.mul(a.item(2, p), a.width(3)), line)
            column = builder.mul(p, INDEX(GROUP))
            left = builder.sub(a.values[1], column)
            stop = builder.select(builder.icmp_signed("<", left, INDEX(GROUP)), left, INDEX(GROUP))
            with steps(builder, stop, v.lanes) as j:
                value = [v.load(a.at(3, start, INDEX(c * GROUP), j)) for c in two]
                for i in range(ROWS):
                    w = v.load(a.at(0, builder.mul(INDEX(i), a.width(0)), column, j))
                    for c in two:
                        builder.store(v.fma(w, value[c], builder.load(totals[i][c])), totals[i][c])
        for i in range(ROWS):
            row = builder.mul(builder.add(a.values[6], INDEX(i)), a.width(5))
            for c in two:
                out = a.at(5, row, builder.mul(a.values[4], INDEX(2)), INDEX(c))
                add_to(builder, out, v.total(builder.load(totals[i][c])))
        return context.get_dummy_value()

    return types.void(z, width, starts, values, pair, sums, r), codegen


@intrinsic(prefer_literal=True)
def weighed_exponentials(
    typing: Any, ceiling: Any, z: Any, width: Any, offset: Any, r: Any, count: Any, starts: Any, values: Any,
    sums: Any, totals: Any,
) -> Any:  # fmt: skip
    """sums[r + i] += sum_j w[i, j], totals[r + i, 0] += sum_j w[i, j] v[j, 0], w[i, j] = 2^(z[i, j] + offset[r + i]).

    What `exponentials` and `weigh` do for a single column of values, without a way through memory. Rows from `count` on
    are none.
    """
    flag, real = constant(ceiling), z.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v = Vectors(builder, real)
        stop, first_row = a.values[2], a.values[4]
        left = builder.sub(a.values[5], first_row)
        groups = builder.udiv(builder.add(stop, INDEX(GROUP - 1)), INDEX(GROUP))

        def side_by_side(rows: range) -> None:
            shift = [v.splat(a.item(3, first_row, INDEX(i))) for i in rows]
            lines = [builder.mul(INDEX(i), a.width(1)) for i in rows]
            weights, weighed = ([v.variable() for _ in rows] for _ in range(2))
            for slot in (*weights, *weighed):
                builder.store(v.constant(0.0), slot)
            with steps(builder, groups, 1) as p:
                start = builder.mul(a.item(6, p), a.width(7))
                column = builder.mul(p, INDEX(GROUP))
                rest = builder.sub(stop, column)
                end = builder.select(builder.icmp_signed("<", rest, INDEX(GROUP)), rest, INDEX(GROUP))
                with steps(builder, end, v.lanes) as j:
                    value = v.load(a.at(7, start, j))
                    logits = [v.load(a.at(1, line, column, j)) for line in lines]
                    t = [builder.fadd(logit, s) for logit, s in zip(logits, shift, strict=True)]
                    for w, one, other in zip(v.exp2(t, bool(flag)), weights, weighed, strict=True):
                        builder.store(builder.fadd(builder.load(one), w), one)
                        builder.store(v.fma(w, value, builder.load(other)), other)
            for i, one, other in zip(rows, weights, weighed, strict=True):
                row = builder.add(first_row, INDEX(i))
                add_to(builder, a.at(8, row), v.total(builder.load(one)))
                add_to(builder, a.at(9, builder.mul(row, a.width(9))), v.total(builder.load(other)))

        side = ROWS_OF_EXPONENTIALS[real]
        for begin in range(0, ROWS, side):
            with builder.if_then(builder.icmp_signed(">", left, INDEX(begin)), likely=True):
                side_by_side(range(begin, begin + side))
        return context.get_dummy_value()

    return types.void(ceiling, z, width, offset, r, count, starts, values, sums, totals), codegen


@intrinsic(prefer_literal=True)
def slopes(
    typing: Any, kind: Any, rows: Any, r: Any, points: Any, start: Any, stride: Any, z: Any, column: Any, width: Any,
    sums: Any,
) -> Any:  # fmt: skip
    """sums[r + i, k] += sum_j z[i, column + j] grad_k C(x[r + i], y[j]) over `width` points j.

    Coordinate k of point j is points.flat[start + k stride + j]. Differences are taken before they are weighted, so
    that nothing cancels. For the distance, z is divided by |x - y| first: 0 at coincident points.
    """
    metric, real = constant(kind), rows.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v, d = Vectors(builder, real), a.width(1)
        first_row, first, step, position, stop = (a.values[i] for i in (2, 4, 5, 7, 8))
        x = [builder.mul(builder.add(first_row, INDEX(i)), d) for i in range(ROWS)]
        z_lines = [builder.add(builder.mul(INDEX(i), a.width(6)), position) for i in range(ROWS)]
        zero = v.constant(0.0)

        def coordinate(k: Value, j: Value) -> Value:
            return v.load(a.at(3, first, builder.mul(k, step), j))

        if metric == EUCLIDEAN:
            with steps(builder, stop, v.lanes) as j:
                squares = [v.variable() for _ in range(ROWS)]
                for slot in squares:
                    builder.store(zero, slot)
                with steps(builder, d, 1) as k:
                    y = coordinate(k, j)
                    for i in range(ROWS):
                        move = builder.fsub(v.splat(a.item(1, x[i], k)), y)
                        builder.store(v.fma(move, move, builder.load(squares[i])), squares[i])
                for i in range(ROWS):
                    square, at = builder.load(squares[i]), a.at(6, z_lines[i], j)
                    inverse = builder.fdiv(v.load(at), v.sqrt(square))
                    v.store(builder.select(builder.fcmp_ordered(">", square, zero), inverse, zero), at)
        with steps(builder, d, 1) as k:
            totals = [v.variable() for _ in range(ROWS)]
            for slot in totals:
                builder.store(zero, slot)
            xk = [v.splat(a.item(1, x[i], k)) for i in range(ROWS)]
            with steps(builder, stop, v.lanes) as j:
                y = coordinate(k, j)
                for i in range(ROWS):
                    move = builder.fsub(xk[i], y)
                    if metric == CITYBLOCK:
                        move = v.sign(move)
                    total = v.fma(v.load(a.at(6, z_lines[i], j)), move, builder.load(totals[i]))
                    builder.store(total, totals[i])
            for i in range(ROWS):
                out = a.at(9, builder.mul(builder.add(first_row, INDEX(i)), d), k)
                add_to(builder, out, v.total(builder.load(totals[i])))
        return context.get_dummy_value()

    return types.void(kind, rows, r, points, start, stride, z, column, width, sums), codegen
