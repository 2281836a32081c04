"""The passes of `advance` over lines of float64, as intrinsics for Numba kernels: each does as much as it can at once.

A step has about 25 operations on vectors. One by one, on 64 numbers, they cost more by beginning and ending than by
what they compute. `first` is where the numbers of the unsplit lines begin; the others are those of a chunk. All are
padded to `width`, a multiple of `LINE`: vectors by 0, logarithms by -inf, scales by 1. So is what is written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from epsot.kernels.cpu.lines import ABREAST, joint, slots, stretches, total
from epsot.kernels.cpu.sweeps import Arrays, steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, intrinsic
from epsot.kernels.vectors import LONGEST


class Lines:
    """The arguments of a pass, and vectors to work on them."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder, self.arrays = builder, Arrays(context, builder, signature, arguments)
        self.v = Vectors(builder, types.float64)
        self.nothing = context.get_dummy_value()

    def blocks(self, width: int) -> Callable[[Callable[[list[Value]], object]], None]:
        """Of what is done where the next vectors begin a loop over the lines, whose length is the argument named."""
        return stretches(self.v, self.arrays.values[width])

    def number(self, argument: int) -> Value:
        """A scalar in every lane."""
        return self.v.splat(self.arrays.values[argument])

    def load(self, argument: int, *place: Value) -> Value:
        return self.v.load(self.arrays.at(argument, *place))

    def store(self, vector: Value, argument: int, *place: Value) -> None:
        self.v.store(vector, self.arrays.at(argument, *place))

    def add_product(self, slot: Value, one: Value, other: Value) -> None:
        self.builder.store(self.v.fma(one, other, self.builder.load(slot)), slot)

    def positive(self, vector: Value) -> Value:
        """The vector, 0 where it is not above 0."""
        zero = self.v.constant(0.0)
        return self.builder.select(self.builder.fcmp_ordered(">", vector, zero), vector, zero)

    def inside(self, vector: Value, place: Value, count: Value) -> Value:
        """The vector, 0 from the number `count` of the line on."""
        v, lanes = self.v, range(self.v.lanes)
        numbers = ir.Constant(ir.VectorType(INDEX, v.lanes), [INDEX(lane) for lane in lanes])
        left = self.builder.sub(count, place)
        one = self.builder.insert_element(ir.Constant(numbers.type, ir.Undefined), left, ir.IntType(32)(0))
        below = self.builder.icmp_signed("<", numbers, v.shuffle(one, one, [0 for _ in lanes]))
        return self.builder.select(below, vector, v.constant(0.0))

    def peak(self, best: list[Value]) -> Value:
        return self.v.largest(functools.reduce(self.v.maximum, [self.builder.load(slot) for slot in best]))


@intrinsic
def exponents(
    typing: Any, log_a: Any, f: Any, next_f: Any, slope: Any, rho: Any, first: Any, width: Any, exponent: Any,
    larger: Any,
) -> Any:  # fmt: skip
    """exponent = (f - next_f) slope, larger = log a - f / rho + max(exponent, 0).  -> the largest of these"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        o = Lines(context, builder, signature, arguments)
        v, first, slope, rho = o.v, o.arrays.values[5], o.number(3), o.number(4)
        damped = builder.fcmp_ordered("<", o.arrays.values[4], v.item(float("inf")))
        best, logs = slots(v, ABREAST, float("-inf")), slots(v, ABREAST)

        @o.blocks(6)
        def compare(places: list[Value]) -> None:
            for slot, log, j in zip(best, logs, places, strict=False):
                here, there = o.load(1, first, j), o.load(2, first, j)
                builder.store(o.load(0, first, j), log)
                with builder.if_then(damped):
                    builder.store(builder.fsub(builder.load(log), builder.fdiv(here, rho)), log)
                equal = builder.fcmp_ordered("==", here, there)
                power = builder.fmul(builder.fsub(here, there), slope)
                power = builder.select(equal, v.constant(0.0), power)
                o.store(power, 7, j)
                top = builder.fadd(builder.load(log), o.positive(power))
                o.store(top, 8, j)
                builder.store(v.maximum(top, builder.load(slot)), slot)

        return o.peak(best)

    return types.float64(log_a, f, next_f, slope, rho, first, width, exponent, larger), codegen


@intrinsic
def mean(typing: Any, b: Any, g: Any, result: Any, eps: Any, first: Any, width: Any, out: Any) -> Any:
    """out = (result - g) / eps  -> sum_j b[j] out[j]"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        o = Lines(context, builder, signature, arguments)
        first, over_eps, sums = o.arrays.values[4], o.v.divided_by(o.arrays.values[3]), slots(o.v, ABREAST)

        @o.blocks(5)
        def add(places: list[Value]) -> None:
            for slot, j in zip(sums, places, strict=False):
                change = over_eps(builder.fsub(o.load(2, first, j), o.load(1, first, j)))
                o.store(change, 6, j)
                o.add_product(slot, change, o.load(0, first, j))

        return total(o.v, sums)

    return types.float64(b, g, result, eps, first, width, out), codegen


@intrinsic
def residues(
    typing: Any, weights: Any, scale: Any, g: Any, result: Any, eps: Any, shift: Any, eased: Any, moved: Any, past: Any,
    first: Any, count: Any, width: Any, to: Any, residual: Any, weighted: Any, change: Any,
) -> Any:  # fmt: skip
    """The plain step `to` and its residual r = (result - g) / eps - shift, which `eased` divides by the scale.

    `residual` holds (result - g) / eps before.

    weighted = weights r, change = weights (r - past) or 0.  -> <r, weighted>
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        o = Lines(context, builder, signature, arguments)
        v, (first, count) = o.v, o.arrays.values[9:11]
        eps, shift, longest = o.number(4), o.number(5), v.constant(LONGEST)
        eased, moved = o.arrays.values[6:8]
        sums, ends, found = slots(v, ABREAST), slots(v, ABREAST), slots(v, ABREAST)

        @o.blocks(11)
        def part(places: list[Value]) -> None:
            for slot, end, r, j in zip(sums, ends, found, places, strict=False):
                here, there, weight = o.load(2, first, j), o.load(3, first, j), o.load(0, first, j)
                plain = builder.fsub(o.load(13, j), shift)
                builder.store(there, end)
                builder.store(plain, r)
                with builder.if_then(eased):
                    wide, size = builder.fdiv(plain, o.load(1, first, j)), v.abs(plain)
                    most = builder.select(builder.fcmp_ordered(">", size, longest), size, longest)
                    bounded = v.call("copysign", most, wide)
                    wide = builder.select(builder.fcmp_ordered("<=", v.abs(wide), most), wide, bounded)
                    builder.store(wide, r)
                    builder.store(builder.fadd(here, builder.fmul(eps, wide)), end)
                value = o.inside(builder.load(r), j, count)
                heavy = builder.fmul(weight, value)
                o.store(builder.load(end), 12, j)
                o.store(value, 13, j)
                o.store(heavy, 14, j)
                o.store(v.constant(0.0), 15, j)
                with builder.if_then(moved):
                    o.store(builder.fmul(weight, builder.fsub(value, o.load(8, j))), 15, j)
                o.add_product(slot, value, heavy)

        return total(v, sums)

    return types.float64(
        weights, scale, g, result, eps, shift, eased, moved, past, first, count, width, to, residual, weighted, change
    ), codegen


@intrinsic
def new_direction(
    typing: Any, weights: Any, pair: Any, past: Any, moves: Any, changes: Any, order: Any, shares: Any, known: Any,
    slot: Any, first: Any, width: Any, start: Any, out: Any,
) -> Any:  # fmt: skip
    """move = pair[0] - past[0], change = pair[1] - past[1], and of the `known` directions of `order` shares[0] times.

    They go to `slot`; out = <change, change>, <change, pair[1]>, weighted; start = shares[1] times the moves.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        o = Lines(context, builder, signature, arguments)
        a, v, first = o.arrays, o.v, o.arrays.values[9]
        length, size = a.width(3), a.width(6)
        row, other = builder.mul(a.values[8], length), a.width(1)
        sums = [slots(v, ABREAST) for _ in range(2)]
        ways, moves, changes = (slots(v, ABREAST) for _ in range(3))

        @o.blocks(10)
        def combine(places: list[Value]) -> None:
            for way, move, change, j in zip(ways, moves, changes, places, strict=False):
                builder.store(v.constant(0.0), way)
                builder.store(builder.fsub(o.load(1, j), o.load(2, j)), move)
                builder.store(builder.fsub(o.load(1, other, j), o.load(2, a.width(2), j)), change)
            with steps(builder, a.values[7], 1) as k:
                line = builder.mul(a.item(5, k), length)
                part, share = v.splat(a.item(6, k)), v.splat(a.item(6, size, k))
                for way, move, change, j in zip(ways, moves, changes, places, strict=False):
                    there = o.load(3, line, j)
                    o.add_product(move, part, there)
                    o.add_product(way, share, there)
                    o.add_product(change, part, o.load(4, line, j))
            for k, j in enumerate(places):
                value = builder.load(changes[k])
                o.store(builder.load(moves[k]), 3, row, j)
                o.store(value, 4, row, j)
                heavy = builder.fmul(o.load(0, first, j), value)
                o.add_product(sums[0][k], heavy, value)
                o.add_product(sums[1][k], heavy, o.load(1, other, j))
                o.store(builder.load(ways[k]), 11, first, j)

        Vectors(builder, types.float64, 2).store(v.totals([joint(v, found) for found in sums]), a.at(12, INDEX(0)))
        return o.nothing

    return types.void(
        weights, pair, past, moves, changes, order, shares, known, slot, first, width, start, out
    ), codegen


@intrinsic
def lengthened(
    typing: Any, moves: Any, changes: Any, slot: Any, gained: Any, norm: Any, order: Any, shares: Any, known: Any,
    first: Any, width: Any, start: Any,
) -> Any:  # fmt: skip
    """Divide the new direction by its norm if there is one; start += shares[0] times the moves.  -> its largest part"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        o = Lines(context, builder, signature, arguments)
        a, v, first = o.arrays, o.v, o.arrays.values[8]
        length, over_norm = a.width(0), v.divided_by(a.values[4])
        row = builder.mul(a.values[2], length)
        best, ways = slots(v, ABREAST, float("-inf")), slots(v, ABREAST)

        @o.blocks(9)
        def lengthen(places: list[Value]) -> None:
            with builder.if_then(a.values[3]):
                for j in places:
                    o.store(over_norm(o.load(0, row, j)), 0, row, j)
                    o.store(over_norm(o.load(1, row, j)), 1, row, j)
            for way, j in zip(ways, places, strict=False):
                builder.store(o.load(10, first, j), way)
            with steps(builder, a.values[7], 1) as k:
                line, share = builder.mul(a.item(5, k), length), v.splat(a.item(6, k))
                for way, j in zip(ways, places, strict=False):
                    o.add_product(way, share, o.load(0, line, j))
            for slot, way, j in zip(best, ways, places, strict=False):
                found = builder.load(way)
                o.store(found, 10, first, j)
                builder.store(v.maximum(v.abs(found), builder.load(slot)), slot)

        return o.peak(best)

    return types.float64(moves, changes, slot, gained, norm, order, shares, known, first, width, start), codegen


@intrinsic
def stepped(typing: Any, to: Any, part: Any, first: Any, width: Any, start: Any) -> Any:
    """start = to - start part"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        o = Lines(context, builder, signature, arguments)
        part, first = o.number(1), o.arrays.values[2]

        @o.blocks(3)
        def step(places: list[Value]) -> None:
            for j in places:
                value = builder.fsub(o.load(0, j), builder.fmul(o.load(4, first, j), part))
                o.store(value, 4, first, j)

        return o.nothing

    return types.void(to, part, first, width, start), codegen
