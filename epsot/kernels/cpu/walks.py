"""The inner loops of `cones`, as intrinsics: a step of a walk, and the sums that meet in a row."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from epsot.kernels.cpu.exponents import HALF_ROOT_64, Lanes
from epsot.kernels.cpu.sweeps import steps
from epsot.kernels.cpu.vectors import INDEX, MANTISSA, Value, intrinsic


def seen(a: Lanes, exponents: int, number: Value, move: Value) -> tuple[Value, Value]:
    """Which sum is meant, and its exponent after a move; a negative number is the sum of nothing."""
    b = a.builder
    some = b.icmp_signed(">=", number, INDEX(0))
    number = b.select(some, number, INDEX(0))
    moved = b.add(a.load_integers(exponents, number), a.splat(move))
    return number, b.select(some, moved, a.every(2 * a.empty))


@intrinsic
def extend(
    typing: Any, sums: Any, exponents: Any, before: Any, factor: Any, move: Any, column: Any, own: Any, own_move: Any,
    to: Any, scales: Any,
) -> Any:  # fmt: skip
    """sums[to] = factor 2^move sums[before] + own 2^own_move sums[column], near 1 by the exponents; all are float64.

    scales[0] and scales[1] are what the two count in it.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, types.float64)
        pairs = [seen(a, 1, a.values[2], a.values[4]), seen(a, 1, a.values[5], a.values[7])]
        top = a.maximum(pairs[0][1], pairs[1][1])
        scales = [
            builder.fmul(a.power(builder.sub(exponent, top)), a.v.splat(a.values[k]))
            for (_, exponent), k in zip(pairs, (3, 6), strict=True)
        ]
        total = builder.fmul(scales[1], a.load(0, pairs[1][0]))
        total = a.v.fma(scales[0], a.load(0, pairs[0][0]), total)
        bits = builder.sub(builder.bitcast(total, a.integers), a.every(HALF_ROOT_64))
        more = builder.ashr(bits, a.every(MANTISSA[types.float64]))
        shrink = a.power(builder.sub(a.every(0), more))
        a.v.store(builder.fmul(total, shrink), a.at(0, a.values[8]))
        a.store_integers(builder.add(top, more), 1, a.values[8])
        for k, scale in enumerate(scales):
            a.v.store(builder.fmul(scale, shrink), a.at(9, INDEX(k)))
        return context.get_dummy_value()

    return types.void(sums, exponents, before, factor, move, column, own, own_move, to, scales), codegen


@intrinsic
def meet(
    typing: Any, sums: Any, exponents: Any, terms: Any, factors: Any, moves: Any, row: Any, scales: Any, top: Any,
    total: Any,
) -> Any:  # fmt: skip
    """total[0] 2^top[0] = sum_t factors[row, t] 2^moves[row, t] sums[terms[row, t]]; scales[t] is what each counts."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Lanes(context, builder, signature, arguments, types.float64)
        count, best = a.arrays.width(2), cgutils.alloca_once(builder, a.integers)
        start, slot = builder.mul(a.values[5], count), a.v.variable()
        builder.store(a.every(2 * a.empty), best)
        builder.store(a.v.constant(0.0), slot)
        with steps(builder, count, 1) as t:
            _, exponent = seen(a, 1, a.arrays.item(2, start, t), a.arrays.item(4, start, t))
            builder.store(a.maximum(exponent, builder.load(best)), best)
        highest = builder.load(best)
        with steps(builder, count, 1) as t:
            number, exponent = seen(a, 1, a.arrays.item(2, start, t), a.arrays.item(4, start, t))
            scale = builder.fmul(a.power(builder.sub(exponent, highest)), a.v.splat(a.arrays.item(3, start, t)))
            a.v.store(scale, a.at(6, t))
            builder.store(a.v.fma(scale, a.load(0, number), builder.load(slot)), slot)
        a.store_integers(highest, 7, INDEX(0))
        a.v.store(builder.load(slot), a.at(8, INDEX(0)))
        return context.get_dummy_value()

    return types.void(sums, exponents, terms, factors, moves, row, scales, top, total), codegen
