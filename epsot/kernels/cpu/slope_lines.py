"""What the slopes of a small problem are put together from: lines of coordinates, weights and sums, as intrinsics.

Lines are padded as in `dense`: what pads them must not count.
"""

from __future__ import annotations

from typing import Any

from numba import types

from epsot.kernels.cpu.lines import stretches
from epsot.kernels.cpu.sweeps import Arrays, steps
from epsot.kernels.cpu.vectors import Value, Vectors, intrinsic


@intrinsic
def powers_around(typing: Any, z: Any, scale: Any, reference: Any, width: Any, out: Any) -> Any:
    """out[j] = 2^(z[j] scale - reference[j]) in float64, at most 2^1023."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        scale = v.splat(a.values[1])

        @stretches(v, a.values[3])
        def take(places: list[Value]) -> None:
            exponents = [builder.fsub(builder.fmul(v.load(a.at(0, j)), scale), v.load(a.at(2, j))) for j in places]
            for j, value in zip(places, v.exp2(exponents, True), strict=True):
                v.store(value, a.at(4, j))

        return context.get_dummy_value()

    return types.void(z, scale, reference, width, out), codegen


@intrinsic
def scaled_line(typing: Any, factors: Any, z: Any, width: Any, out: Any) -> Any:
    """out[j] = factors[j] z[j] by way of float64, in the type of out."""
    real, kind = out.dtype, factors.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        given, narrow = Vectors(builder, kind, v.lanes), Vectors(builder, real, v.lanes)
        with steps(builder, a.values[2], v.lanes) as j:
            value = builder.fmul(v.widened(given.load(a.at(0, j))), v.load(a.at(1, j)))
            narrow.store(narrow.narrowed(value), a.at(3, j))
        return context.get_dummy_value()

    return types.void(factors, z, width, out), codegen


@intrinsic
def slope_line(typing: Any, x: Any, sums: Any, moments: Any, factor: Any, powers: Any, width: Any, out: Any) -> Any:
    """out[i] = factor powers[i] (x[i] sums[i] - moments[i]) in float64, of sums and moments in either type."""
    kinds = sums.dtype, moments.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a, v = Arrays(context, builder, signature, arguments), Vectors(builder, types.float64)
        of_sums, of_moments = (Vectors(builder, kind, v.lanes) for kind in kinds)
        factor = v.splat(a.values[3])
        with steps(builder, a.values[5], v.lanes) as i:
            whole = builder.fmul(v.load(a.at(0, i)), v.widened(of_sums.load(a.at(1, i))))
            rest = builder.fsub(whole, v.widened(of_moments.load(a.at(2, i))))
            v.store(builder.fmul(builder.fmul(factor, v.load(a.at(4, i))), rest), a.at(6, i))
        return context.get_dummy_value()

    return types.void(x, sums, moments, factor, powers, width, out), codegen
