"""The logits of a stored cost matrix, read where it lies: by address and strides, whatever its order."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from epsot.kernels.cpu.sweeps import ROWS, Arrays, steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, intrinsic


@intrinsic
def logits_along(typing: Any, address: Any, scale: Any, columns: Any, width: Any, z: Any, i: Any, like: Any) -> Any:
    """z[i, j] = u[j] + scale * C[j], C consecutive in memory from the address; width is a multiple of the lanes.

    C has the type of the array `like`.
    """
    real = z.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v = Vectors(builder, real)
        entries = Vectors(builder, like.dtype, v.lanes)
        cost = builder.inttoptr(a.values[0], entries.item.as_pointer())
        factor, line = v.splat(a.values[1]), builder.mul(a.values[5], a.width(4))
        with steps(builder, a.values[3], v.lanes) as j:
            t = v.fma(v.widened(entries.load(builder.gep(cost, [j]))), factor, v.load(a.at(2, j)))
            v.store(t, a.at(4, line, j))
        return context.get_dummy_value()

    return types.void(address, scale, columns, width, z, i, like), codegen


@intrinsic
def logits_across(
    typing: Any, address: Any, stride: Any, scale: Any, columns: Any, width: Any, z: Any, like: Any
) -> Any:
    """z[i, j] = u[j] + scale * C[i, j], i < 4, where the four i are neighbours in memory and j is `stride` bytes apart.

    Squares of 4 x 4 are transposed in registers; width is a multiple of 4. C has the type of the array `like`.
    """
    real = z.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        v, entries = Vectors(builder, real, ROWS), Vectors(builder, like.dtype, ROWS)
        factor = v.splat(a.values[2])
        with steps(builder, a.values[4], ROWS) as j:
            square = []
            for part in range(ROWS):
                at = builder.add(a.values[0], builder.mul(builder.add(j, INDEX(part)), a.values[1]))
                square.append(v.widened(entries.load(builder.inttoptr(at, ir.IntType(8).as_pointer()))))
            u = v.load(a.at(3, j))
            for i, cost in enumerate(v.transpose(square)):
                v.store(v.fma(cost, factor, u), a.at(5, builder.mul(INDEX(i), a.width(5)), j))
        return context.get_dummy_value()

    return types.void(address, stride, scale, columns, width, z, like), codegen


@intrinsic
def item_at(typing: Any, address: Any, like: Any) -> Any:
    """The number at an address, of the type of the array `like`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        kind = ir.FloatType() if like.dtype == types.float32 else ir.DoubleType()
        return builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=like.dtype.bitwidth // 8)

    return like.dtype(address, like), codegen
