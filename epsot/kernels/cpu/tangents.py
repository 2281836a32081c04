"""What is summed with the weights of a tile as points move: the first and second derivatives of the cost."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from epsot.kernels.cpu.blocks import FLAT, NEAR
from epsot.kernels.cpu.compiled import Kernel
from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, GROUP, ROWS, SQUARE, Arrays, add_to, steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, constant, intrinsic

LN_2 = float(np.log(2.0))


def add_tangents(*arguments: Any) -> None:
    """For every direction c, what `turn` adds, over the buffer: to sums[r + i, c (d + 2) + ...]."""


@overload(add_tangents, prefer_literal=True, strict=False)
def _add_tangents(
    form: Any, kind: Any, rows: Any, r: Any, first: Any, lines: Any, starts: Any, width: Any, columns: Any, z: Any,
    scale: Any, moves: Any, parts: Any, sums: Any,
) -> Kernel:  # fmt: skip
    metric, shape = constant(kind), constant(form)
    scaled = shape == NEAR and metric != SQUARE

    def none(form, kind, rows, r, first, lines, starts, width, columns, z, scale, moves, parts, sums):
        pass

    def some(form, kind, rows, r, first, lines, starts, width, columns, z, scale, moves, parts, sums):
        own, others, turning = moves
        d, steepness, unit = rows.shape[1], scale * LN_2, scale if scaled else 1.0
        for p in range(-(-width // GROUP)):
            stop = min(GROUP, width - p * GROUP)
            for c in range(own.shape[1] // d):
                line = starts[p] * others.shape[1] + c * (d + 1) * GROUP
                if shape == NEAR:
                    turn(
                        metric, rows, r, columns, columns.shape[1] + p * GROUP, columns.shape[1], z, p * GROUP, stop,
                        own, first + r, c, others, line, steepness, unit, turning, parts, sums,
                    )  # fmt: skip
                elif shape == FLAT:
                    turn(
                        metric, rows, r, lines, starts[p] * GROUP, lines.shape[1], z, p * GROUP, stop,
                        own, first + r, c, others, line, steepness, unit, turning, parts, sums,
                    )  # fmt: skip
                else:
                    turn(
                        metric, rows, r, lines, starts[p] * lines.shape[1], GROUP, z, p * GROUP, stop,
                        own, first + r, c, others, line, steepness, unit, turning, parts, sums,
                    )  # fmt: skip

    return some if isinstance(moves, types.BaseTuple) else none


@intrinsic(prefer_literal=True)
def turn(
    typing: Any, kind: Any, rows: Any, r: Any, points: Any, start: Any, stride: Any, z: Any, column: Any, width: Any,
    own: Any, row: Any, direction: Any, others: Any, line: Any, steepness: Any, unit: Any, turning: Any, parts: Any,
    sums: Any,
) -> Any:  # fmt: skip
    """Four rows i and `width` points j, weights P = z[i, column + j], one direction: points move by v[i] and w[j].

    With g the gradient of C in the first point, u = v[i] - w[j] and c = <g, u>, up to the factor of the cost,
    sums[r + i, :] += sum_j P ((t[j] - c) g steepness + dg), sum_j P t[j], sum_j P c, the first where `turning`; dg is u
    for the square, (u - c g) / |x - y| for the distance, and 0 for coincident points and for the sum of coordinates.

    Coordinate k of point j is points.flat[start + k stride + j], of w others.flat[line + k GROUP + j]; of that k = d is
    t. v is own[row + i, direction d : (direction + 1) d]. Coordinates are `unit` times those of the cost. Differences
    are taken before they are weighted, so that nothing cancels. What multiplies x - y, and u, goes to `parts`.
    """
    metric, real = constant(kind), rows.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        tile = Tile(context, builder, signature, arguments, metric, real)
        with steps(builder, tile.width, tile.v.lanes) as j:
            tile.weigh(j)
        tile.add_scalars()
        turning = builder.trunc(tile.turning, ir.IntType(1))
        with builder.if_then(turning, likely=True), steps(builder, tile.d, 1) as k:
            tile.add_coordinate(k)
        return context.get_dummy_value()

    return types.void(
        kind, rows, r, points, start, stride, z, column, width, own, row, direction, others, line, steepness, unit,
        turning, parts, sums,
    ), codegen  # fmt: skip


class Tile:
    """The code of `turn`."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, metric: int, real: Any) -> None:
        a = Arrays(context, builder, signature, arguments)
        self.builder, self.metric, self.a, self.v = builder, metric, a, Vectors(builder, real)
        self.d, values = a.width(1), a.values
        self.width, self.turning = values[8], values[16]
        self.steepness, self.unit = self.v.splat(values[14]), self.v.splat(values[15])
        first_row, self.start, self.stride, column = values[2], values[4], values[5], values[7]
        shift = builder.mul(values[11], self.d)
        self.x, self.own, self.z, self.parts, self.sums = [], [], [], [], []
        for i in range(ROWS):
            row = builder.add(first_row, INDEX(i))
            self.x.append(builder.mul(row, self.d))
            own = builder.mul(builder.add(values[10], INDEX(i)), a.width(9))
            self.own.append(builder.add(own, shift))
            self.z.append(builder.add(builder.mul(INDEX(i), a.width(6)), column))
            self.parts.append(INDEX(i * 2 * GROUP))
            out = builder.mul(row, a.width(18))
            out = builder.add(out, builder.mul(values[11], builder.add(self.d, INDEX(2))))
            self.sums.append(out)
        self.carried, self.strained = ([self.v.variable() for _ in range(ROWS)] for _ in range(2))
        for slot in (*self.carried, *self.strained):
            builder.store(self.v.constant(0.0), slot)

    def move(self, k: Value, j: Value) -> tuple[Value, Value]:
        """Coordinate k of y and of w."""
        line = self.builder.mul(k, INDEX(GROUP))
        y = self.v.load(self.a.at(3, self.start, self.builder.mul(k, self.stride), j))
        return y, self.v.load(self.a.at(12, self.a.values[13], line, j))

    def own_move(self, i: int, k: Value) -> tuple[Value, Value]:
        """Coordinate k of x and of v."""
        return self.v.splat(self.a.item(1, self.x[i], k)), self.v.splat(self.a.item(9, self.own[i], k))

    def weigh(self, j: Value) -> None:
        """P t and P c are summed; the weights of x - y and of u go to `parts`."""
        b, v, zero = self.builder, self.v, self.v.constant(0.0)
        along, squares = ([v.variable() for _ in range(ROWS)] for _ in range(2))
        for slot in (*along, *squares):
            b.store(zero, slot)
        with steps(b, self.d, 1) as k:
            y, w = self.move(k, j)
            for i in range(ROWS):
                x, own = self.own_move(i, k)
                move, u = b.fsub(x, y), b.fsub(own, w)
                if self.metric == EUCLIDEAN:
                    b.store(v.fma(move, move, b.load(squares[i])), squares[i])
                slope = v.sign(move) if self.metric == CITYBLOCK else move
                b.store(v.fma(slope, u, b.load(along[i])), along[i])
        t = v.load(self.a.at(12, self.a.values[13], b.mul(self.d, INDEX(GROUP)), j))
        for i in range(ROWS):
            P, c = v.load(self.a.at(6, self.z[i], j)), b.load(along[i])
            b.store(v.fma(P, t, b.load(self.carried[i])), self.carried[i])
            steep = self.steepness
            if self.metric == EUCLIDEAN:
                square = b.load(squares[i])
                apart = b.fcmp_ordered(">", square, zero)
                inverse = b.select(apart, b.fdiv(v.constant(1.0), v.sqrt(square)), zero)
                c, bend = b.fmul(c, inverse), b.fmul(inverse, self.unit)
                weight = b.fsub(b.fmul(b.fsub(t, c), steep), b.fmul(c, bend))
                v.store(b.fmul(P, bend), self.a.at(17, self.parts[i], INDEX(GROUP), j))
                weight = b.fmul(b.fmul(P, inverse), weight)
            else:
                weight = b.fmul(b.fmul(P, steep), b.fsub(t, c))
            v.store(weight, self.a.at(17, self.parts[i], j))
            b.store(v.fma(P, c, b.load(self.strained[i])), self.strained[i])

    def add_scalars(self) -> None:
        """sum_j P t and sum_j P c."""
        for i in range(ROWS):
            for slots, place in ((self.carried, 0), (self.strained, 1)):
                out = self.a.at(18, self.sums[i], self.d, INDEX(place))
                add_to(self.builder, out, self.v.total(self.builder.load(slots[i])))

    def add_coordinate(self, k: Value) -> None:
        """sum_j of what `weigh` has left, times x - y and u."""
        b, v = self.builder, self.v
        totals = [v.variable() for _ in range(ROWS)]
        for slot in totals:
            b.store(v.constant(0.0), slot)
        mine = [self.own_move(i, k) for i in range(ROWS)]
        with steps(b, self.width, v.lanes) as j:
            y, w = self.move(k, j)
            for i, (x, own) in enumerate(mine):
                move = b.fsub(x, y)
                if self.metric == CITYBLOCK:
                    move = v.sign(move)
                total = v.fma(v.load(self.a.at(17, self.parts[i], j)), move, b.load(totals[i]))
                if self.metric != CITYBLOCK:
                    bend = (
                        v.load(self.a.at(6, self.z[i], j))
                        if self.metric == SQUARE
                        else v.load(self.a.at(17, self.parts[i], INDEX(GROUP), j))
                    )
                    total = v.fma(bend, b.fsub(own, w), total)
                b.store(total, totals[i])
        for i in range(ROWS):
            add_to(b, self.a.at(18, self.sums[i], k), v.total(b.load(totals[i])))
