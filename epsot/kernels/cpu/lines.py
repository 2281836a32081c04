"""Lines of numbers, as intrinsics for Numba kernels: their sums in a fixed order, products, exponentials, logarithms.

All lines are float64 and C-contiguous, and `width` is a multiple of `LINE`: what pads them must not count.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from numba import types

from epsot.kernels.cpu.sweeps import Arrays, steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, intrinsic

LINE = 16  # numbers
ABREAST = 4  # vectors side by side, so that their latencies overlap
PAIR = 2  # vectors of exponentials: each has a chain of its own, twice as long


def slots(v: Vectors, count: int, start: float = 0.0) -> list[Value]:
    """Variables that start anew whenever the kernel comes by."""
    found = [v.variable() for _ in range(count)]
    for slot in found:
        v.builder.store(v.constant(start), slot)
    return found


def stretches(v: Vectors, stop: Value, count: int = ABREAST) -> Callable[[Callable[[list[Value]], object]], None]:
    """Make a loop over `stop` numbers of what is done where the next `count` vectors begin.

    Where these are more than `LINE` numbers, and only so many are left at the end, half of the vectors are: what is
    done is written down twice.
    """
    builder, ahead = v.builder, [INDEX(k * v.lanes) for k in range(count)]

    def write(do: Callable[[list[Value]], object]) -> None:
        end = builder.and_(stop, INDEX(-count * v.lanes))
        with steps(builder, end, count * v.lanes) as j:
            do([builder.add(j, part) for part in ahead])
        if count * v.lanes > LINE:
            with builder.if_then(builder.icmp_signed("!=", end, stop)):
                do([builder.add(end, part) for part in ahead[: count // 2]])

    return write


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
def products(
    typing: Any, rows: Any, order: Any, known: Any, u: Any, v: Any, width: Any, out: Any, at: Any
) -> Any:  # fmt: skip
    """out[at + 2 k] = sum_j rows[k, j] u[j], out[at + 2 k + 1] = sum_j rows[k, j] v[j] for the `known` k of `order`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, w = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums = [[w.variable() for _ in range(ABREAST)] for _ in range(2)]
        with steps(builder, a.values[2], 1) as i:
            row = a.item(1, i)
            line = builder.mul(row, a.width(0))
            for slot in itertools.chain(*sums):
                builder.store(w.constant(0.0), slot)

            @stretches(w, a.values[5])
            def add(places: list[Value], line: Value = line) -> None:
                for part, j in enumerate(places):
                    number = w.load(a.at(0, line, j))
                    for side, found in zip((3, 4), sums, strict=True):
                        builder.store(w.fma(number, w.load(a.at(side, j)), builder.load(found[part])), found[part])

            pair = Vectors(builder, types.float64, 2)
            place = builder.add(a.values[7], builder.mul(INDEX(2), row))
            pair.store(w.totals([joint(w, found) for found in sums]), a.at(6, place))
        return context.get_dummy_value()

    return types.void(rows, order, known, u, v, width, out, at), codegen


@intrinsic
def product(typing: Any, u: Any, v: Any, width: Any) -> Any:
    """sum_j u[j] v[j]"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, w = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums = slots(w, ABREAST)

        @stretches(w, a.values[2])
        def add(places: list[Value]) -> None:
            for slot, j in zip(sums, places, strict=False):
                builder.store(w.fma(w.load(a.at(0, j)), w.load(a.at(1, j)), builder.load(slot)), slot)

        return total(w, sums)

    return types.float64(u, v, width), codegen


@intrinsic
def largest(typing: Any, z: Any, width: Any) -> Any:
    """max_j z[j], -inf where nothing is larger; what is not a number does not count."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        best = slots(v, ABREAST, float("-inf"))

        @stretches(v, a.values[1])
        def compare(places: list[Value]) -> None:
            for slot, j in zip(best, places, strict=False):
                builder.store(v.maximum(v.load(a.at(0, j)), builder.load(slot)), slot)

        return v.largest(functools.reduce(v.maximum, [builder.load(slot) for slot in best]))

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

        @stretches(v, a.values[1])
        def add(places: list[Value]) -> None:
            parts = [builder.fsub(v.load(a.at(0, j)), peak) for j in places]
            for slot, value in zip(sums, v.exponentials(parts)[0], strict=False):
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


class Misses:
    """The sums of p = m exp(x) and of weights m, x = (f - next_f) slope, where no x is large, vectors by vectors."""

    def __init__(self, a: Arrays, v: Vectors, slope: Value) -> None:
        self.a, self.v, self.slope = a, v, slope
        self.sums, self.best = [slots(v, ABREAST) for _ in range(3)], slots(v, ABREAST)

    def add(self, places: list[Value]) -> list[tuple[Value, Value]]:
        """What belongs to places in the arrays m, f and next_f, the first of all.  -> m and f there"""
        a, v, b = self.a, self.v, self.v.builder
        weights, here, there = ([v.load(a.at(k, j)) for j in places] for k in range(3))
        moves = [b.fmul(b.fsub(f, g), self.slope) for f, g in zip(here, there, strict=True)]
        equal = [b.fcmp_ordered("==", f, g) for f, g in zip(here, there, strict=True)]
        moves = [b.select(same, v.constant(0.0), x) for same, x in zip(equal, moves, strict=True)]
        missed, plan, whole = self.sums
        for k, (value, less_one) in enumerate(zip(*v.exponentials(moves), strict=True)):
            b.store(v.maximum(v.abs(moves[k]), b.load(self.best[k])), self.best[k])
            b.store(v.fma(weights[k], v.abs(less_one), b.load(missed[k])), missed[k])
            b.store(v.fma(weights[k], value, b.load(plan[k])), plan[k])
            grow(v, whole[k], weights[k])
        return list(zip(weights, here, strict=True))

    def finish(self, more: list[Value], out: int, at: Value) -> Value:
        """out[at] = 0, and behind it sum |p - m|, sum p, sum m and that of some more variables.  -> max |x|"""
        v, b = self.v, self.v.builder
        b.store(v.item(0.0), self.a.at(out, at))
        found = v.totals([joint(v, found) for found in (*self.sums, more)])
        Vectors(b, types.float64, 4).store(found, self.a.at(out, at, INDEX(1)))
        return v.largest(functools.reduce(v.maximum, [b.load(slot) for slot in self.best]))


@intrinsic
def misses_of_weights(
    typing: Any, weights: Any, f: Any, next_f: Any, slope: Any, width: Any, out: Any, at: Any
) -> Any:  # fmt: skip
    """Of p = m exp(x) and the weights m, x = (f - next_f) slope, where no x is large:

    out[at] = 0, out[at + 1] = sum |p - m|, out[at + 2] = sum p, out[at + 3] = sum m, out[at + 4] = 0.  -> max |x|
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums = Misses(a, v, v.splat(a.values[3]))
        stretches(v, a.values[4])(sums.add)
        return sums.finish(slots(v, ABREAST), 5, a.values[6])

    return types.float64(weights, f, next_f, slope, width, out, at), codegen


@intrinsic
def misses_of_step(
    typing: Any, weights: Any, f: Any, next_f: Any, result: Any, slope: Any, eps: Any, width: Any, change: Any,
    out: Any, at: Any,
) -> Any:  # fmt: skip
    """`misses_of_weights`, and in the same pass change = (result - f) / eps and out[at + 4] = sum m change."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        sums, over_eps, means = Misses(a, v, v.splat(a.values[4])), v.divided_by(a.values[5]), slots(v, ABREAST)

        @stretches(v, a.values[6])
        def add(places: list[Value]) -> None:
            for slot, j, (weight, here) in zip(means, places, sums.add(places), strict=False):
                part = over_eps(builder.fsub(v.load(a.at(3, j)), here))
                v.store(part, a.at(7, j))
                builder.store(v.fma(part, weight, builder.load(slot)), slot)

        return sums.finish(means, 8, a.values[9])

    return types.float64(weights, f, next_f, result, slope, eps, width, change, out, at), codegen


@intrinsic
def logarithms(typing: Any, z: Any, width: Any, out: Any) -> Any:
    """out[j] = log z[j] of normal numbers above 0; of others it is anything finite."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)

        @stretches(v, a.values[1])
        def take(places: list[Value]) -> None:
            for j, value in zip(places, v.logarithms([v.load(a.at(0, j)) for j in places]), strict=True):
                v.store(value, a.at(2, j))

        return context.get_dummy_value()

    return types.void(z, width, out), codegen
