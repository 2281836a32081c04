"""Vector instructions for Numba kernels, emitted as LLVM IR: what the auto-vectoriser is too fragile for.

Numba has no vector math library, its loops stay scalar for reasons hard to see (a wraparound check, a maximum, more
than eight possible aliases), and its fast-math flags are wrong where log-weights are -inf. Explicit vectors need no
flags at all, and give the same bits wherever the vectors are equally long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils, errors

Value = Any  # an LLVM value
intrinsic: Any = extending.intrinsic  # typed as if the kernels called the function itself

VECTOR_BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32
INDEX, INT32 = ir.IntType(64), ir.IntType(32)

# 2^q on [-1/2, 1/2], minimax in relative error with the constant term 1: 1.9e-7 in float32, 3.8e-16 in float64.
# The constant 1 makes 2^-127 (2^-1023) come out as zero bits, so that a weight below the normal numbers is exactly 0.
COEFFICIENTS: dict[Any, tuple[float, ...]] = {
    types.float32: (
        *(1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341),
        *(0.009671512991189957, 0.001326472731307149),
    ),
    types.float64: (
        *(1.0, 0.6931471805599492, 0.240226506959091, 0.05550410866448185, 0.00961812910798324, 0.0013333558225795412),
        *(0.00015403529994120302, 1.5252659430404224e-05, 1.3215653656789105e-06, 1.0208322502263988e-07),
        7.038168938647436e-09,
    ),
}
# e^r - 1 = r + r^2 (1 / 2 + r / 6 + ...) for |r| <= log(2) / 2 in float64: what is left out is 1e-17 of it.
EXPM1 = tuple(1 / math.factorial(k) for k in range(2, 14))
LOG_2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)  # the first part times an exponent is exact
# log((1 + s) / (1 - s)) = s (2 + s^2 (2 / 3 + 2 s^2 / 5 + ...)) for |s| < 0.1716 in float64: the rest is 2e-17 of it.
LOGARITHM = tuple(2 / (2 * k + 1) for k in range(11))
HALF_ROOT = 0x3FE6A09E667F3BCD  # the bits of 1 / sqrt(2)
LEAST_EXPONENT = -708.0  # of e, for a normal number in float64
LOWEST: dict[Any, float] = {types.float32: -127.0, types.float64: -1023.0}
HIGHEST: dict[Any, float] = {types.float32: 127.0, types.float64: 1023.0}
MANTISSA: dict[Any, int] = {types.float32: 23, types.float64: 52}


def constant(argument: Any) -> Any:
    """The value of a compile-time constant. Numba tries again without it after any other error, which it then hides."""
    if not isinstance(argument, types.Literal):
        raise errors.TypingError(f"{argument} must be a compile-time constant")
    return argument.literal_value


class Vectors:
    """Emits instructions on vectors of `real`, `lanes` numbers each (default: as many as a register holds)."""

    def __init__(self, builder: Any, real: Any, lanes: int = 0) -> None:
        self.builder, self.real = builder, real
        self.item = ir.FloatType() if real == types.float32 else ir.DoubleType()
        self.size = 4 if real == types.float32 else 8
        self.lanes = lanes or VECTOR_BYTES // self.size
        self.type = ir.VectorType(self.item, self.lanes)
        self.bits = ir.VectorType(ir.IntType(8 * self.size), self.lanes)

    def constant(self, number: float) -> Value:
        return ir.Constant(self.type, [ir.Constant(self.item, number)] * self.lanes)

    def splat(self, scalar: Value) -> Value:
        """A scalar in every lane, rounded to the type of the vectors."""
        if scalar.type != self.item:
            scalar = self.builder.fptrunc(scalar, self.item)
        one = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), scalar, INT32(0))
        return self.shuffle(one, one, [0] * self.lanes)

    def widened(self, vector: Value) -> Value:
        """Numbers of either type as numbers of this one, which is at least as precise."""
        return vector if vector.type == self.type else self.builder.fpext(vector, self.type)

    def narrowed(self, vector: Value) -> Value:
        """Numbers of either type rounded to this one."""
        return vector if vector.type == self.type else self.builder.fptrunc(vector, self.type)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        mask = ir.Constant(ir.VectorType(INT32, len(lanes)), [INT32(lane) for lane in lanes])
        return self.builder.shuffle_vector(a, b, mask)

    def load(self, pointer: Value) -> Value:
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        return self.builder.load(pointer, align=self.size)

    def store(self, vector: Value, pointer: Value) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.size)

    def variable(self, start: float = 0.0) -> Value:
        """A stack slot, which LLVM turns into a register."""
        slot = cgutils.alloca_once(self.builder, self.type)
        self.builder.store(self.constant(start), slot)
        return slot

    def call(self, name: str, *arguments: Value) -> Value:
        name = f"llvm.{name}.v{self.lanes}f{8 * self.size}"
        signature = ir.FunctionType(self.type, [self.type] * len(arguments))
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), arguments)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a b + c, in one instruction where there is one."""
        return self.call("fmuladd", a, b, c)

    def divided_by(self, divisor: Value) -> Callable[[Value], Value]:
        """Division by a scalar, with the bits of one where nothing overflows or underflows; no number for infinities.

        The rest of a first quotient is exact, and what it adds rounds the quotient as a division does (Markstein 1990).
        Three operations on a vector, where a division takes as long as ten.
        """
        b, by, inverse = self.builder, self.splat(divisor), self.splat(self.builder.fdiv(self.item(1.0), divisor))

        def divide(number: Value) -> Value:
            first = b.fmul(number, inverse)
            return self.fma(self.fma(b.fneg(first), by, number), inverse, first)

        return divide

    def sqrt(self, a: Value) -> Value:
        return self.call("sqrt", a)

    def abs(self, a: Value) -> Value:
        return self.call("fabs", a)

    def sign(self, a: Value) -> Value:
        zero = self.constant(0.0)
        below = self.builder.select(self.builder.fcmp_ordered("<", a, zero), self.constant(-1.0), zero)
        return self.builder.select(self.builder.fcmp_ordered(">", a, zero), self.constant(1.0), below)

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger one, b where a is not a number: one instruction, unlike llvm.maxnum."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def fold(self, vector: Value, combine: Callable[[Vectors, Value, Value], Value]) -> Value:
        """The scalar that is left after combining halves."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            lower = self.shuffle(vector, vector, range(lanes))
            upper = self.shuffle(vector, vector, range(lanes, 2 * lanes))
            vector = combine(Vectors(self.builder, self.real, lanes), lower, upper)
        return self.builder.extract_element(vector, INT32(0))

    def total(self, vector: Value) -> Value:
        return self.fold(vector, lambda half, a, b: half.builder.fadd(a, b))

    def totals(self, vectors: list[Value]) -> Value:
        """The sums of all lanes of each, with the bits of `total`, as one vector. As many as a power of two <= lanes.

        Halves of two vectors are added at once: four sums take 5 additions in place of 16.
        """
        lanes, size = self.lanes, self.lanes
        while size > 1:
            size //= 2
            if len(vectors) == 1:
                pairs, lanes = [(vectors[0], vectors[0])], lanes // 2
            else:
                pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            lower = [lane % size + lane // size * 2 * size for lane in range(lanes)]
            upper = [lane + size for lane in lower]
            vectors = [self.builder.fadd(self.shuffle(a, b, lower), self.shuffle(a, b, upper)) for a, b in pairs]
        return vectors[0]

    def largest(self, vector: Value) -> Value:
        return self.fold(vector, lambda half, a, b: half.maximum(a, b))

    def exp2(self, exponents: list[Value], ceiling: bool) -> list[Value]:
        """2^t, side by side so that the latencies overlap; 0 below the normal numbers, -inf included.

        The range reduction rounds by adding 1.5 times 2 to the number of mantissa bits, which leaves the integer part
        in the low bits, ready to be shifted into the exponent. Past the largest exponent it would wrap into the sign
        and yield a plausible wrong number: `ceiling` clamps there.
        """
        b, shift = self.builder, MANTISSA[self.real]
        magic = self.constant(1.5 * 2.0**shift)
        if ceiling:
            exponents = [self.minimum(t, self.constant(HIGHEST[self.real])) for t in exponents]
        exponents = [self.maximum(t, self.constant(LOWEST[self.real])) for t in exponents]
        rounded = [b.fadd(t, magic) for t in exponents]
        rest = [b.fsub(t, b.fsub(r, magic)) for t, r in zip(exponents, rounded, strict=True)]
        coefficients = COEFFICIENTS[self.real]
        powers = [self.constant(coefficients[-1])] * len(rest)
        for coefficient in coefficients[-2::-1]:
            powers = [self.fma(p, q, self.constant(coefficient)) for p, q in zip(powers, rest, strict=True)]
        places = ir.Constant(self.bits, [ir.Constant(self.bits.element, shift)] * self.lanes)
        scales = [b.shl(b.bitcast(r, self.bits), places) for r in rounded]
        return [b.bitcast(b.add(b.bitcast(p, self.bits), s), self.type) for p, s in zip(powers, scales, strict=True)]

    def exponentials(self, exponents: list[Value]) -> tuple[list[Value], list[Value]]:
        """e^x and e^x - 1 for x < 709 in float64, both right to 1e-15 of themselves; what is not a number stays.

        e^x is 0 below the normal numbers, -inf included.
        """
        b, shift = self.builder, MANTISSA[self.real]
        magic, one = self.constant(1.5 * 2.0**shift), self.constant(1.0)
        bounded = [self.maximum(x, self.constant(LEAST_EXPONENT)) for x in exponents]
        rounded = [self.fma(x, self.constant(math.log2(math.e)), magic) for x in bounded]
        powers = [b.fsub(r, magic) for r in rounded]
        rest = [self.fma(n, self.constant(-LOG_2[0]), x) for n, x in zip(powers, bounded, strict=True)]
        rest = [self.fma(n, self.constant(-LOG_2[1]), r) for n, r in zip(powers, rest, strict=True)]
        excess = [self.constant(EXPM1[-1])] * len(rest)
        for coefficient in EXPM1[-2::-1]:
            excess = [self.fma(p, r, self.constant(coefficient)) for p, r in zip(excess, rest, strict=True)]
        excess = [self.fma(b.fmul(r, r), p, r) for p, r in zip(excess, rest, strict=True)]
        places = ir.Constant(self.bits, [ir.Constant(self.bits.element, shift)] * self.lanes)
        scales = [b.bitcast(b.add(b.shl(b.bitcast(r, self.bits), places), b.bitcast(one, self.bits)), self.type)
                  for r in rounded]  # fmt: skip
        values = [self.fma(s, p, s) for s, p in zip(scales, excess, strict=True)]
        less_one = [self.fma(s, p, b.fsub(s, one)) for s, p in zip(scales, excess, strict=True)]
        none = [b.fcmp_ordered("<", x, self.constant(LEAST_EXPONENT)) for x in exponents]
        values = [b.select(k, self.constant(0.0), z) for k, z in zip(none, values, strict=True)]
        unknown = [b.fcmp_unordered("uno", x, x) for x in exponents]
        return (
            [b.select(u, x, z) for u, x, z in zip(unknown, exponents, values, strict=True)],
            [b.select(u, x, z) for u, x, z in zip(unknown, exponents, less_one, strict=True)],
        )

    def logarithms(self, numbers: list[Value]) -> list[Value]:
        """log(x) of normal x > 0 in float64, right to 3e-16 of the larger of it and 1 / 2; others give anything finite.

        x = 2^n m with m from 1 / sqrt(2) to sqrt(2), found in the bits, and log(m) from s = (m - 1) / (m + 1).
        """
        b, shift, one, magic = self.builder, MANTISSA[self.real], self.constant(1.0), 1.5 * 2.0 ** MANTISSA[self.real]
        bias = 1 << 10

        def every(number: int) -> Value:
            return ir.Constant(self.bits, [ir.Constant(self.bits.element, number)] * self.lanes)

        bits = [b.bitcast(x, self.bits) for x in numbers]
        powers = [b.lshr(b.add(z, every((bias << shift) - HALF_ROOT)), every(shift)) for z in bits]  # n + bias
        parts = [b.bitcast(b.sub(z, b.shl(b.sub(n, every(bias)), every(shift))), self.type)
                 for z, n in zip(bits, powers, strict=True)]  # fmt: skip
        # An integer added to the bits of `magic` is added to its value.
        raised = [b.bitcast(b.add(n, b.bitcast(self.constant(magic), self.bits)), self.type) for n in powers]
        powers = [b.fsub(n, self.constant(magic + bias)) for n in raised]
        ratios = [b.fdiv(b.fsub(m, one), b.fadd(m, one)) for m in parts]
        squares = [b.fmul(s, s) for s in ratios]
        series = [self.constant(LOGARITHM[-1])] * len(squares)
        for coefficient in LOGARITHM[-2::-1]:
            series = [self.fma(p, z, self.constant(coefficient)) for p, z in zip(series, squares, strict=True)]
        logs = [b.fmul(s, p) for s, p in zip(ratios, series, strict=True)]
        logs = [self.fma(n, self.constant(LOG_2[1]), z) for n, z in zip(powers, logs, strict=True)]
        return [self.fma(n, self.constant(LOG_2[0]), z) for n, z in zip(powers, logs, strict=True)]

    def transpose(self, rows: list[Value]) -> list[Value]:
        """As many vectors as lanes, as a square matrix, transposed: swap one bit of the two indices after the other."""
        step = 1
        while step < self.lanes:
            for i in range(self.lanes):
                if i & step:
                    continue
                a, b = rows[i], rows[i + step]
                low = [lane if not lane & step else self.lanes + lane - step for lane in range(self.lanes)]
                high = [lane + step if not lane & step else self.lanes + lane for lane in range(self.lanes)]
                rows[i], rows[i + step] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            step *= 2
        return rows
