"""Lines of numbers, as intrinsics for Numba kernels: their sums in a fixed order, products, exponentials, logarithms.

All lines are float64 and C-contiguous, and `width` is a multiple of `LINE`: what pads them must not count.
"""

from __future__ import annotations

from typing import Any

from numba import types

from epsot.kernels.cpu.sweeps import Arrays, steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, intrinsic

LINE = 32  # numbers: four vectors of AVX-512, side by side so that the latencies overlap
ABREAST = 4  # vectors of products
PAIR = 2  # vectors of exponentials: each has a chain of its own, twice as long


def slots(v: Vectors, count: int, start: float = 0.0) -> list[Value]:
    """Variables that start anew whenever the kernel comes by."""
    found = [v.variable() for _ in range(count)]
    for slot in found:
        v.builder.store(v.constant(start), slot)
    return found


def grow(v: Vectors, slot: Value, part: Value) -> None:
    v.builder.store(v.builder.fadd(v.builder.load(slot), part), slot)


def total(v: Vectors, found: list[Value]) -> Value:
    """The sum of all lanes of some variables."""
    return v.total(joint(v, found))


def joint(v: Vectors, found: list[Value]) -> Value:
    """The sum of some variables, as many as a power of two."""
    parts = [v.builder.load(slot) for slot in found]
    while len(parts) > 1:
        parts = [v.builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@intrinsic
def products(typing: Any, row: Any, u: Any, v: Any, width: Any, out: Any, at: Any) -> Any:
    """out[at] = sum_j row[j] u[j], out[at + 1] = sum_j row[j] v[j]."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, w = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums = [slots(w, ABREAST) for _ in range(2)]
        with steps(builder, a.values[3], ABREAST * w.lanes) as j:
            for part in range(ABREAST):
                ahead = INDEX(part * w.lanes)
                number = w.load(a.at(0, j, ahead))
                for side, found in zip((1, 2), sums, strict=True):
                    grown = w.fma(number, w.load(a.at(side, j, ahead)), builder.load(found[part]))
                    builder.store(grown, found[part])
        for k, found in enumerate(sums):
            builder.store(total(w, found), a.at(4, a.values[5], INDEX(k)))
        return context.get_dummy_value()

    return types.void(row, u, v, width, out, at), codegen


@intrinsic
def product(typing: Any, u: Any, v: Any, width: Any) -> Any:
    """sum_j u[j] v[j]"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, w = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums = slots(w, ABREAST)
        with steps(builder, a.values[2], ABREAST * w.lanes) as j:
            for part, slot in enumerate(sums):
                ahead = INDEX(part * w.lanes)
                builder.store(w.fma(w.load(a.at(0, j, ahead)), w.load(a.at(1, j, ahead)), builder.load(slot)), slot)
        return total(w, sums)

    return types.float64(u, v, width), codegen


@intrinsic
def largest(typing: Any, z: Any, width: Any) -> Any:
    """max_j z[j], -inf where nothing is larger; what is not a number does not count."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        best = slots(v, ABREAST, float("-inf"))
        with steps(builder, a.values[1], ABREAST * v.lanes) as j:
            for part, slot in enumerate(best):
                number = v.load(a.at(0, j, INDEX(part * v.lanes)))
                builder.store(v.maximum(number, builder.load(slot)), slot)
        one, two, three, four = (builder.load(slot) for slot in best)
        return v.largest(v.maximum(v.maximum(one, two), v.maximum(three, four)))

    return types.float64(z, width), codegen


@intrinsic
def bounds(typing: Any, z: Any, width: Any, out: Any) -> Any:
    """out = min_j z[j], max_j z[j]; what is not a number does not count."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        ends = [slots(v, PAIR, start) for start in (float("-inf"), float("-inf"))]  # of -z and of z
        zero = v.constant(0.0)
        with steps(builder, a.values[1], PAIR * v.lanes) as j:
            for part in range(PAIR):
                number = v.load(a.at(0, j, INDEX(part * v.lanes)))
                for found, value in zip(ends, (builder.fsub(zero, number), number), strict=True):
                    builder.store(v.maximum(value, builder.load(found[part])), found[part])
        least, most = (v.largest(v.maximum(builder.load(one), builder.load(two))) for one, two in ends)
        builder.store(builder.fneg(least), a.at(2, INDEX(0)))
        builder.store(most, a.at(2, INDEX(1)))
        return context.get_dummy_value()

    return types.void(z, width, out), codegen


@intrinsic
def sum_of_exponentials(typing: Any, z: Any, width: Any, top: Any) -> Any:
    """sum_j exp(z[j] - top), no z larger than top."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums, peak = slots(v, ABREAST), v.splat(a.values[2])
        with steps(builder, a.values[1], ABREAST * v.lanes) as j:
            parts = [builder.fsub(v.load(a.at(0, j, INDEX(k * v.lanes))), peak) for k in range(ABREAST)]
            for slot, value in zip(sums, v.exponentials(parts)[0], strict=True):
                grow(v, slot, value)
        return total(v, sums)

    return types.float64(z, width, top), codegen


@intrinsic
def misses(typing: Any, exponent: Any, larger: Any, width: Any, top: Any, out: Any, at: Any) -> Any:
    """Of p and m, where exponent[j] = log p[j] - log m[j] and larger[j] is the larger logarithm, at most top:

    out[at] = sum |p - m| / exp(top), out[at + 1] = sum p / exp(top), out[at + 2] = sum m / exp(top).
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums, peak, zero = [slots(v, PAIR) for _ in range(3)], v.splat(a.values[3]), v.constant(0.0)
        with steps(builder, a.values[2], PAIR * v.lanes) as j:
            at = [INDEX(k * v.lanes) for k in range(PAIR)]
            exponents = [v.load(a.at(0, j, ahead)) for ahead in at]
            logs = [builder.fsub(v.load(a.at(1, j, ahead)), peak) for ahead in at]
            below = [builder.fsub(zero, v.abs(z)) for z in exponents]
            values, less_one = v.exponentials([*logs, *below])
            for k in range(PAIR):
                missed = builder.fmul(builder.fsub(zero, less_one[PAIR + k]), values[k])
                rest = builder.fsub(values[k], missed)
                over = builder.fcmp_ordered(">", exponents[k], zero)
                grow(v, sums[0][k], missed)
                grow(v, sums[1][k], builder.select(over, values[k], rest))
                grow(v, sums[2][k], builder.select(over, rest, values[k]))
        for k, found in enumerate(sums):
            builder.store(total(v, found), a.at(4, a.values[5], INDEX(k)))
        return context.get_dummy_value()

    return types.void(exponent, larger, width, top, out, at), codegen


@intrinsic
def logarithms(typing: Any, z: Any, width: Any, out: Any) -> Any:
    """out[j] = log z[j] of normal numbers above 0; of others it is anything finite."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        with steps(builder, a.values[1], ABREAST * v.lanes) as j:
            places = [INDEX(k * v.lanes) for k in range(ABREAST)]
            for place, value in zip(places, v.logarithms([v.load(a.at(0, j, k)) for k in places]), strict=True):
                v.store(value, a.at(2, j, place))
        return context.get_dummy_value()

    return types.void(z, width, out), codegen
