"""The columns of a block of rows in low dimension: moved to local origins, or left out on a bound."""

from __future__ import annotations

from typing import Any

from numba import types

from epsot.kernels.cpu.sweeps import CITYBLOCK, EUCLIDEAN, GROUP, SQUARE, Arrays, steps
from epsot.kernels.cpu.vectors import INDEX, Value, Vectors, constant, intrinsic


@intrinsic(prefer_literal=True)
def place(
    typing: Any, kind: Any, dim: Any, lines: Any, weights: Any, first: Any, frame: Any, columns: Any, column: Any
) -> Any:
    """Put 64 columns into the buffer lines u, y_1 to y_dim; returns an upper bound of their logits in the block.

    `frame` is [scale, reference, centre (dim), image (dim), extent (dim), bend, half], float64 as all arithmetic here:
    square:     u[j] = weights[j] - scale |y[j] - centre|^2 / 2 - reference, and y[j] - image;
    a distance: u[j] = weights[j] - reference, and scale (y[j] - centre).
    The rows are within `extent` of the origin in every coordinate, which gives the bound; for a square it is that of
    move (y - image) - half move^2 over all |move| <= extent, as `tree.level_of` says.
    """
    metric, d, real = constant(kind), constant(dim), columns.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Value:
        a = Arrays(context, builder, signature, arguments)
        narrow = Vectors(builder, real)
        v = Vectors(builder, types.float64, narrow.lanes)
        start, at = a.values[4], a.values[7]
        scale, reference, *rest = (v.splat(a.item(5, INDEX(i))) for i in range(4 + 3 * d))
        centre, image, extent, (bend, lift) = rest[:d], rest[d : 2 * d], rest[2 * d : 3 * d], rest[3 * d :]
        bound = v.variable()
        builder.store(v.constant(float("-inf")), bound)
        zero, half = v.constant(0.0), builder.fmul(scale, v.constant(-0.5))
        with steps(builder, INDEX(GROUP), v.lanes) as j:
            u = builder.fsub(v.load(a.at(3, start, j)), reference)
            far = zero
            for k in range(d):
                y = v.load(a.at(2, builder.mul(a.width(2), INDEX(k)), start, j))
                if metric == SQUARE:
                    move = builder.fsub(y, centre[k])
                    u = v.fma(builder.fmul(half, move), move, u)
                    y = builder.fsub(y, image[k])
                    length = v.abs(y)
                    slope = v.minimum(builder.fmul(bend, length), extent[k])
                    far = v.fma(slope, builder.fsub(length, builder.fmul(lift, slope)), far)
                else:
                    y = builder.fmul(scale, builder.fsub(y, centre[k]))
                    gap = v.maximum(builder.fsub(v.abs(y), extent[k]), zero)
                    far = v.fma(gap, gap, far) if metric == EUCLIDEAN else builder.fadd(far, gap)
                out = a.at(6, builder.mul(a.width(6), INDEX(k + 1)), at, j)
                narrow.store(narrow.narrowed(y), out)
            narrow.store(narrow.narrowed(u), a.at(6, at, j))
            if metric == SQUARE:
                top = builder.fadd(u, far)
            else:
                top = builder.fsub(u, v.sqrt(far) if metric == EUCLIDEAN else far)
            builder.store(v.maximum(top, builder.load(bound)), bound)
        return v.largest(builder.load(bound))

    assert metric in (SQUARE, EUCLIDEAN, CITYBLOCK)
    return types.float64(kind, dim, lines, weights, first, frame, columns, column), codegen
