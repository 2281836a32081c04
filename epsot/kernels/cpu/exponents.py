"""Numbers as a mantissa and an integer exponent, many lines side by side, as intrinsics for Numba kernels.

A power 2^u of any size is m 2^e with m between sqrt(1/2) and sqrt(2). To multiply it by 2^t, the same for all lines, is
to add an integer and to multiply by a number near 1: one exponential for each number, however often it is moved.

The lines are lanes of vectors, the last axis of every array: float32 with int32 exponents, or float64 with int64.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from epsot.kernels.cpu.sweeps import Arrays, steps
from epsot.kernels.cpu.vectors import COEFFICIENTS, HIGHEST, INDEX, MANTISSA, VECTOR_BYTES, Value, Vectors, intrinsic
from epsot.kernels.cpu.vectors import constant as literal

LANES = {types.float32: 16, types.float64: 8}  # lines side by side: a cache line of mantissas
EMPTY = {types.float32: -(2**29), types.float64: -(2**50)}  # the exponent of 0
SIDE = 8 if VECTOR_BYTES == 64 else 4  # rows whose sums stay in registers
ROUNDING = 1.5 * 2.0**52  # what is added to it is rounded to an integer, which then stands in its low bits


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
def powers_of_two(
    typing: Any, offsets: Any, start: Any, slope: Any, curve: Any, factors: Any, exponents: Any, line: Any
) -> Any:
    """factors[line, i] 2^exponents[line, i] = 2^(start + slope o + curve o^2) for all offsets o, of a multiple of 8."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(factors))
        a.lanes = 8
        a.v, a.wide = Vectors(builder, a.real, 8), Vectors(builder, types.float64, 8)
        a.integers = ir.VectorType(a.integer, 8)
        begin, slope, curve = (a.wide.splat(a.values[k]) for k in (1, 2, 3))
        width = builder.extract_value(a.values[0].shape, 0)
        first = builder.mul(a.values[6], width)
        with steps(builder, width, 8) as i:
            offset = a.wide.load(a.arrays.at(0, i))
            exponent = a.wide.fma(a.wide.fma(curve, offset, slope), offset, begin)
            power, integers = a.split(exponent)
            a.v.store(power, a.arrays.at(4, first, i))
            out = builder.bitcast(a.arrays.at(5, first, i), a.integers.as_pointer())
            builder.store(integers, out, align=a.v.size)
        return context.get_dummy_value()

    return types.void(offsets, start, slope, curve, factors, exponents, line), codegen


def highest_sum(a: Lanes, exponents: int, first: Value, count: Value, moves: int, line: Value) -> Value:
    """max_j exponents[first + j] + moves[line, j]"""
    b, best = a.builder, cgutils.alloca_once(a.builder, a.integers)
    b.store(a.every(2 * a.empty), best)
    with steps(b, count, 1) as j:
        moved = b.add(a.load_integers(exponents, b.add(first, j)), a.splat(a.arrays.item(moves, line, j)))
        b.store(a.maximum(moved, b.load(best)), best)
    return b.load(best)


@intrinsic
def top_of(typing: Any, exponents: Any, first: Any, count: Any, moves: Any, line: Any, tops: Any, to: Any) -> Any:
    """tops[to] = max_j exponents[first + j] + moves[line, j], j < count."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(exponents))
        start = builder.mul(a.values[4], a.arrays.width(3))
        a.store_integers(highest_sum(a, 0, a.values[1], a.values[2], 3, start), 5, a.values[6])
        return context.get_dummy_value()

    return types.void(exponents, first, count, moves, line, tops, to), codegen


@intrinsic
def exceeds(
    typing: Any, exponents: Any, first: Any, count: Any, moves: Any, line: Any, sums: Any, row: Any, bits: Any
) -> Any:
    """Whether max_j exponents[first + j] + moves[line, j] + bits >= sums[row] in any lane, of those that are not 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(exponents))
        start = builder.mul(a.values[4], a.arrays.width(3))
        top = highest_sum(a, 0, a.values[1], a.values[2], 3, start)
        number = builder.fadd(builder.sitofp(top, a.wide.type), a.wide.splat(a.values[7]))
        more = builder.fcmp_unordered(">=", number, a.load_wide(5, a.values[6]))
        some = builder.and_(more, builder.icmp_signed(">", top, a.every(a.empty // 2)))
        bits_of = builder.bitcast(some, ir.IntType(a.lanes))
        return builder.icmp_unsigned("!=", bits_of, ir.IntType(a.lanes)(0))

    return types.boolean(exponents, first, count, moves, line, sums, row, bits), codegen


@intrinsic
def raise_tops(typing: Any, tops: Any, highest: Any, of: Any, moves: Any, count: Any) -> Any:
    """tops[i] = max(tops[i], highest[of] + moves[of, i])"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(tops))
        own, start = a.load_integers(1, a.values[2]), builder.mul(a.values[2], a.arrays.width(3))
        with steps(builder, a.values[4], 1) as i:
            moved = builder.add(own, a.splat(a.arrays.item(3, start, i)))
            a.store_integers(a.maximum(moved, a.load_integers(0, i)), 0, i)
        return context.get_dummy_value()

    return types.void(tops, highest, of, moves, count), codegen


@intrinsic
def tilted(
    typing: Any, mantissas: Any, exponents: Any, first: Any, count: Any, factors: Any, moves: Any, line: Any,
    highest: Any, of: Any, out: Any, to: Any,
) -> Any:  # fmt: skip
    """out[to + j] = mantissas[first + j] factors[line, j] 2^(exponents[first + j] + moves[line, j] - highest[of])"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(mantissas))
        first, start = a.values[2], builder.mul(a.values[6], a.arrays.width(4))
        lowered = builder.sub(a.every(0), a.load_integers(7, a.values[8]))
        with steps(builder, a.values[3], 1) as j:
            row = builder.add(first, j)
            exponent = builder.add(a.load_integers(1, row), a.splat(a.arrays.item(5, start, j)))
            size = a.power(builder.add(exponent, lowered))
            number = builder.fmul(a.load(0, row), a.v.splat(a.arrays.item(4, start, j)))
            a.v.store(builder.fmul(number, size), a.at(9, builder.add(a.values[10], j)))
        return context.get_dummy_value()

    return types.void(mantissas, exponents, first, count, factors, moves, line, highest, of, out, to), codegen


@intrinsic
def fades(typing: Any, highest: Any, of: Any, factors: Any, moves: Any, tops: Any, count: Any, out: Any) -> Any:
    """out[i] = factors[of, i] 2^(highest[of] + moves[of, i] - tops[i])"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(factors))
        own, start = a.load_integers(0, a.values[1]), builder.mul(a.values[1], a.arrays.width(2))
        with steps(builder, a.values[5], 1) as i:
            moved = builder.add(own, a.splat(a.arrays.item(3, start, i)))
            size = a.power(builder.sub(moved, a.load_integers(4, i)))
            a.v.store(builder.fmul(size, a.v.splat(a.arrays.item(2, start, i))), a.at(6, i))
        return context.get_dummy_value()

    return types.void(highest, of, factors, moves, tops, count, out), codegen


@intrinsic
def weighed(typing: Any, numbers: Any, at: Any, values: Any, first: Any, count: Any, out: Any) -> Any:
    """out[j] = numbers[at + j] values[first + j]"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(numbers))
        with steps(builder, a.values[4], 1) as j:
            number, value = (a.load(k, builder.add(a.values[k + 1], j)) for k in (0, 2))
            a.v.store(builder.fmul(number, value), a.at(5, j))
        return context.get_dummy_value()

    return types.void(numbers, at, values, first, count, out), codegen


@intrinsic(prefer_literal=True)
def add_product(
    typing: Any, side: Any, matrix: Any, numbers: Any, at: Any, columns: Any, rows: Any, fades: Any, sums: Any, to: Any
) -> Any:  # fmt: skip
    """sums[to + i] += fades[i] sum_j matrix[j, i] numbers[at + j]; the sums of `side` rows stay in registers."""
    abreast = literal(side)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(numbers))
        width = a.arrays.width(1)
        slots = [a.v.variable() for _ in range(abreast)]
        with steps(builder, a.values[5], abreast) as first:
            for slot in slots:
                builder.store(a.v.constant(0.0), slot)
            with steps(builder, a.values[4], 1) as j:
                number, start = a.load(2, builder.add(a.values[3], j)), builder.mul(j, width)
                for i, slot in enumerate(slots):  # the numbers of a row of the matrix are neighbours
                    entry = a.v.splat(a.arrays.item(1, start, first, INDEX(i)))
                    builder.store(a.v.fma(entry, number, builder.load(slot)), slot)
            for i, slot in enumerate(slots):
                row = builder.add(first, INDEX(i))
                out = builder.add(a.values[8], row)
                a.v.store(a.v.fma(builder.load(slot), a.load(6, row), a.load(7, out)), a.at(7, out))
        return context.get_dummy_value()

    return types.void(side, matrix, numbers, at, columns, rows, fades, sums, to), codegen


@intrinsic
def logarithms_of(typing: Any, tops: Any, sums: Any, count: Any, out: Any, to: Any) -> Any:
    """out[to + i] = tops[i] + log2(sums[i]) in float64, -inf of 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(sums))
        with steps(builder, a.values[2], 1) as i:
            top, row = a.load_integers(0, i), builder.add(a.values[4], i)
            (log,) = a.wide.logarithms([a.wide.widened(a.load(1, i))])
            value = a.wide.fma(log, a.wide.constant(1 / math.log(2.0)), builder.sitofp(top, a.wide.type))
            some = builder.icmp_signed(">", top, a.every(a.empty // 2))
            a.wide.store(builder.select(some, value, a.wide.constant(-math.inf)), a.at(3, row))
        return context.get_dummy_value()

    return types.void(tops, sums, count, out, to), codegen
