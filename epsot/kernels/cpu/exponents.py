"""Numbers as a mantissa and an integer exponent, many lines side by side, and what lines are read and written by.

A power 2^u of any size is m 2^e with m between sqrt(1/2) and sqrt(2). To multiply it by 2^t, the same for all lines, is
to add an integer and to multiply by a number near 1: one exponential for each number, however often it is moved.

The lines are lanes of vectors, the last axis of every array: float32 with int32 exponents, or float64 with int64.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types

from epsot.kernels.cpu.sweeps import Arrays, steps
from epsot.kernels.cpu.vectors import COEFFICIENTS, HIGHEST, INDEX, MANTISSA, VECTOR_BYTES, Value, Vectors, intrinsic

LANES = {types.float32: 16, types.float64: 8}  # lines side by side: a cache line of mantissas
EMPTY = {types.float32: -(2**29), types.float64: -(2**50)}  # the exponent of 0
SIDE = 8 if VECTOR_BYTES == 64 else 4  # rows whose sums stay in registers
SQUARE = 8  # numbers of float64 a side that are transposed at a time
ROUNDING = 1.5 * 2.0**52  # what is added to it is rounded to an integer, which then stands in its low bits


# log2(1 + x) / x for sqrt(1/2) <= 1 + x <= sqrt(2) in float32, right to 3e-9 of log2: its own rounding is 5e-8.
LOGARITHM = (
    *(1.4426950399991887, -0.7213473544788891, 0.48089852032399294, -0.36069654180928473, 0.28855256144406716),
    *(-0.23960812186897062, 0.20485764762951025, -0.1913883767553834, 0.18476033472311207, -0.10749789501271874),
)
HALF_ROOT, HALF_ROOT_64 = 0x3F3504F3, 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)


class Lanes:
    """What the intrinsics below have in common: vectors of one line a lane, in three types."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, real: Any) -> None:
        self.builder, self.real, self.lanes = builder, real, LANES[real]
        self.arrays = Arrays(context, builder, signature, arguments)
        self.values = self.arrays.values
        self.v, self.wide = Vectors(builder, real, self.lanes), Vectors(builder, types.float64, self.lanes)
        self.integer = ir.IntType(32 if real == types.float32 else 64)
        self.integers = ir.VectorType(self.integer, self.lanes)
        self.empty = EMPTY[real]

    def at(self, position: int, row: Value) -> Value:
        """A pointer to a row of lanes."""
        return self.arrays.at(position, self.builder.mul(row, INDEX(self.lanes)))

    def load(self, position: int, row: Value) -> Value:
        return self.v.load(self.at(position, row))

    def load_wide(self, position: int, row: Value) -> Value:
        return self.wide.load(self.at(position, row))

    def load_integers(self, position: int, row: Value) -> Value:
        pointer = self.builder.bitcast(self.at(position, row), self.integers.as_pointer())
        return self.builder.load(pointer, align=self.v.size)

    def store_integers(self, vector: Value, position: int, row: Value) -> None:
        pointer = self.builder.bitcast(self.at(position, row), self.integers.as_pointer())
        self.builder.store(vector, pointer, align=self.v.size)

    def every(self, number: int) -> Value:
        return ir.Constant(self.integers, [self.integer(number)] * self.lanes)

    def splat(self, scalar: Value) -> Value:
        """An integer in every lane."""
        one = self.builder.insert_element(ir.Constant(self.integers, ir.Undefined), scalar, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [ir.IntType(32)(0)] * self.lanes)
        return self.builder.shuffle_vector(one, one, mask)

    def maximum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def integer_of(self, raised: Value) -> Value:
        """The integers in numbers that have been added to ROUNDING."""
        long = ir.VectorType(ir.IntType(64), self.lanes)
        low = self.builder.sub(
            self.builder.bitcast(raised, long), self.builder.bitcast(self.wide.constant(ROUNDING), long)
        )
        return low if self.integer.width == 64 else self.builder.trunc(low, self.integers)

    def split(self, exponent: Value) -> tuple[Value, Value]:
        """The mantissa and the exponent of 2^t, t in float64, at least that of 0."""
        bounded = self.wide.maximum(exponent, self.wide.constant(float(self.empty)))
        raised = self.builder.fadd(bounded, self.wide.constant(ROUNDING))
        rest = self.builder.fsub(bounded, self.builder.fsub(raised, self.wide.constant(ROUNDING)))
        rest, coefficients = self.v.narrowed(rest), COEFFICIENTS[self.real]
        power = self.v.constant(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            power = self.v.fma(power, rest, self.v.constant(coefficient))
        return power, self.integer_of(raised)

    def power(self, exponent: Value) -> Value:
        """2^k for integers k that are at most 1, 0 below the normal numbers."""
        bias, shift = int(HIGHEST[self.real]), MANTISSA[self.real]
        field = self.maximum(self.builder.add(exponent, self.every(bias)), self.every(0))
        return self.builder.bitcast(self.builder.shl(field, self.every(shift)), self.v.type)

    def log2(self, number: Value, exponent: Value) -> Value:
        """log2(number 2^exponent) in float64, of normal numbers above 0; of others it is anything finite."""
        b, v, wide = self.builder, self.v, self.wide
        if self.real == types.float64:
            (log,) = wide.logarithms([number])
            return wide.fma(log, wide.constant(1 / math.log(2.0)), b.sitofp(exponent, wide.type))
        bits, shift = b.bitcast(number, self.integers), self.every(MANTISSA[self.real])
        power = b.ashr(b.sub(bits, self.every(HALF_ROOT)), shift)
        rest = b.fsub(b.bitcast(b.sub(bits, b.shl(power, shift)), v.type), v.constant(1.0))
        log = v.constant(LOGARITHM[-1])
        for coefficient in LOGARITHM[-2::-1]:
            log = v.fma(log, rest, v.constant(coefficient))
        return b.fadd(b.sitofp(b.add(exponent, power), wide.type), wide.widened(b.fmul(log, rest)))


def real_of(kind: Any) -> Any:
    """The type of mantissas beside an array of these or of their exponents."""
    return types.float32 if kind.dtype in (types.float32, types.int32) else types.float64


@intrinsic
def convert(typing: Any, lines: Any, row: Any, unit: Any, base: Any, mantissas: Any, exponents: Any, to: Any) -> Any:
    """mantissas[to] 2^exponents[to] = 2^(unit lines[row] - base); what is not a number is 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(mantissas))
        lowered = builder.fsub(a.wide.constant(0.0), a.load_wide(3, INDEX(0)))
        exponent = a.wide.fma(a.load_wide(0, a.values[1]), a.wide.splat(a.values[2]), lowered)
        power, integers = a.split(exponent)
        a.v.store(power, a.at(4, a.values[6]))
        a.store_integers(integers, 5, a.values[6])
        return context.get_dummy_value()

    return types.void(lines, row, unit, base, mantissas, exponents, to), codegen


@intrinsic
def logarithms_of(typing: Any, tops: Any, sums: Any, count: Any, out: Any, to: Any) -> Any:
    """out[to + i] = tops[i] + log2(sums[i]) in float64, -inf of 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(sums))
        with steps(builder, a.values[2], 1) as i:
            top, row = a.load_integers(0, i), builder.add(a.values[4], i)
            value = a.log2(a.load(1, i), top)
            some = builder.icmp_signed(">", top, a.every(a.empty // 2))
            a.wide.store(builder.select(some, value, a.wide.constant(-math.inf)), a.at(3, row))
        return context.get_dummy_value()

    return types.void(tops, sums, count, out, to), codegen


@intrinsic
def load_rows(typing: Any, flat: Any, start: Any, stride: Any, count: Any, lines: Any, like: Any) -> Any:
    """lines[j, w] = flat[start + j stride + w]: lines side by side."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(like))
        with steps(builder, a.values[3], 1) as j:
            number = a.wide.load(a.arrays.at(0, a.values[1], builder.mul(j, a.values[2])))
            a.wide.store(number, a.at(4, j))
        return context.get_dummy_value()

    return types.void(flat, start, stride, count, lines, like), codegen


@intrinsic
def store_rows(
    typing: Any, lines: Any, base: Any, scale: Any, flat: Any, start: Any, stride: Any, count: Any, like: Any
) -> Any:
    """flat[start + i stride + w] = scale (lines[i, w] + base[0, w])"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(like))
        base, scale = a.load_wide(1, INDEX(0)), a.wide.splat(a.values[2])
        with steps(builder, a.values[6], 1) as i:
            number = builder.fmul(builder.fadd(a.load_wide(0, i), base), scale)
            a.wide.store(number, a.arrays.at(3, a.values[4], builder.mul(i, a.values[5])))
        return context.get_dummy_value()

    return types.void(lines, base, scale, flat, start, stride, count, like), codegen


@intrinsic
def load_columns(typing: Any, flat: Any, start: Any, stride: Any, count: Any, lines: Any, like: Any) -> Any:
    """lines[j, w] = flat[start + w stride + j], for a multiple of 8: lines one below the other."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Lanes(context, builder, signature, arguments, real_of(like)), Vectors(builder, types.float64, SQUARE)
        with steps(builder, a.values[3], SQUARE) as j:
            for half in range(0, a.lanes, SQUARE):
                far = [builder.mul(a.values[2], INDEX(half + w)) for w in range(SQUARE)]
                rows = v.transpose([v.load(a.arrays.at(0, a.values[1], w, j)) for w in far])
                for k, row in enumerate(rows):
                    place = builder.mul(builder.add(j, INDEX(k)), INDEX(a.lanes))
                    v.store(row, a.arrays.at(4, place, INDEX(half)))
        return context.get_dummy_value()

    return types.void(flat, start, stride, count, lines, like), codegen


@intrinsic
def store_columns(
    typing: Any, lines: Any, base: Any, scale: Any, flat: Any, start: Any, stride: Any, count: Any, like: Any
) -> Any:
    """flat[start + w stride + i] = scale (lines[i, w] + base[0, w]), for a multiple of 8."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Lanes(context, builder, signature, arguments, real_of(like)), Vectors(builder, types.float64, SQUARE)
        scale = v.splat(a.values[2])
        with steps(builder, a.values[6], SQUARE) as i:
            for half in range(0, a.lanes, SQUARE):
                base, rows = v.load(a.arrays.at(1, INDEX(half))), []
                for k in range(SQUARE):
                    place = builder.mul(builder.add(i, INDEX(k)), INDEX(a.lanes))
                    rows.append(builder.fmul(builder.fadd(v.load(a.arrays.at(0, place, INDEX(half))), base), scale))
                for w, line in enumerate(v.transpose(rows)):
                    v.store(line, a.arrays.at(3, a.values[4], builder.mul(a.values[5], INDEX(half + w)), i))
        return context.get_dummy_value()

    return types.void(lines, base, scale, flat, start, stride, count, like), codegen
