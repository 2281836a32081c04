"""The inner loops of `tilted` and `windows`, as intrinsics: lines of mantissas and exponents, moved and added."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from epsot.kernels.cpu.exponents import Lanes, real_of
from epsot.kernels.cpu.sweeps import steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, constant, intrinsic


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


def highest_sum(a: Lanes, exponents: int, first: Value, count: Value, moves: int, start: Value) -> Value:
    """max_j exponents[first + j] + moves[start + j]"""
    b, best = a.builder, cgutils.alloca_once(a.builder, a.integers)
    b.store(a.every(2 * a.empty), best)

    with steps(b, count, 1) as j:
        moved = b.add(a.load_integers(exponents, b.add(first, j)), a.splat(a.arrays.item(moves, start, j)))
        b.store(a.maximum(moved, b.load(best)), best)
    return b.load(best)


@intrinsic
def top_of(typing: Any, exponents: Any, first: Any, count: Any, moves: Any, start: Any, tops: Any, to: Any) -> Any:
    """tops[to] = max_j exponents[first + j] + moves.flat[start + j], j < count."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(exponents))
        a.store_integers(highest_sum(a, 0, a.values[1], a.values[2], 3, a.values[4]), 5, a.values[6])
        return context.get_dummy_value()

    return types.void(exponents, first, count, moves, start, tops, to), codegen


@intrinsic
def exceeds(
    typing: Any, exponents: Any, first: Any, count: Any, moves: Any, start: Any, sums: Any, row: Any, bits: Any
) -> Any:
    """Whether max_j exponents[first + j] + moves[start + j] + bits >= sums[row] in any lane that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(exponents))
        top = highest_sum(a, 0, a.values[1], a.values[2], 3, a.values[4])
        number = builder.fadd(builder.sitofp(top, a.wide.type), a.wide.splat(a.values[7]))
        more = builder.fcmp_unordered(">=", number, a.load_wide(5, a.values[6]))
        some = builder.and_(more, builder.icmp_signed(">", top, a.every(a.empty // 2)))
        bits_of = builder.bitcast(some, ir.IntType(a.lanes))
        return builder.icmp_unsigned("!=", bits_of, ir.IntType(a.lanes)(0))

    return types.boolean(exponents, first, count, moves, start, sums, row, bits), codegen


@intrinsic
def raise_tops(typing: Any, tops: Any, highest: Any, of: Any, moves: Any, line: Any, count: Any) -> Any:
    """tops[i] = max(tops[i], highest[of] + moves[line, i])"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(tops))
        own, start = a.load_integers(1, a.values[2]), builder.mul(a.values[4], a.arrays.width(3))

        with steps(builder, a.values[5], 1) as i:
            moved = builder.add(own, a.splat(a.arrays.item(3, start, i)))
            a.store_integers(a.maximum(moved, a.load_integers(0, i)), 0, i)
        return context.get_dummy_value()

    return types.void(tops, highest, of, moves, line, count), codegen


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
def fades(
    typing: Any, highest: Any, of: Any, factors: Any, moves: Any, line: Any, tops: Any, count: Any, out: Any
) -> Any:  # fmt: skip
    """out[i] = factors[line, i] 2^(highest[of] + moves[line, i] - tops[i])"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, real_of(factors))
        own, start = a.load_integers(0, a.values[1]), builder.mul(a.values[4], a.arrays.width(2))

        with steps(builder, a.values[6], 1) as i:
            moved = builder.add(own, a.splat(a.arrays.item(3, start, i)))
            size = a.power(builder.sub(moved, a.load_integers(5, i)))
            a.v.store(builder.fmul(size, a.v.splat(a.arrays.item(2, start, i))), a.at(7, i))
        return context.get_dummy_value()

    return types.void(highest, of, factors, moves, line, tops, count, out), codegen


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
    abreast = constant(side)

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
