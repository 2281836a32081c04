"""The kernels of many problems of one padded shape, for CuPy arrays: the sweeps of `batched`, and items' own steps."""

from __future__ import annotations

import numpy as np

from epsot.kernels import batched
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import MATRIX
from epsot.kernels.cuda.items import ItemBursts, Packed, packed_cloud, sizes_of
from epsot.kernels.cuda.modules import unproven
from epsot.kernels.cuda.points import kind_of
from epsot.kernels.item_bursts import Sides


class Points(batched.Points):
    """Clouds and a cost that has a `kind`."""

    def bursts(self, a: Sides, b: Sides) -> ItemBursts | None:
        import cupy

        d = int(self.x.shape[2])
        if not unproven() or d == 0 or not shapes.item_bursts(*self.shape):
            return None
        with self.x.device:
            sizes = [
                np.full(len(a.mass), cloud.shape[1]) if cloud.shape[0] == 1 else sizes_of(cupy, side.weights)
                for cloud, side in ((self.x, a), (self.y, b))
            ]
            (x, x_first), (y, y_first) = (
                packed_cloud(cupy, cloud, size) for cloud, size in zip((self.x, self.y), sizes, strict=True)
            )
            kind, factor = kind_of(self.cost_function, d), float(self.cost_function.factor)
            return ItemBursts(Packed(x, y, x_first, y_first, sizes[0], sizes[1], kind, factor, d), a, b)


class Matrix(batched.Matrix):
    """Matrices, read where they lie if they are float64."""

    def bursts(self, a: Sides, b: Sides) -> ItemBursts | None:
        import cupy

        if not unproven() or not shapes.item_bursts(*self.shape):
            return None
        with self.C.device:
            n, m = (sizes_of(cupy, side.weights) for side in (a, b))
            C = self.C.astype(np.float64, copy=False)
            step, down, right = (stride // C.itemsize for stride in C.strides)
            first = np.arange(len(a.mass)) * (step if C.shape[0] > 1 else 0)
            return ItemBursts(Packed(C, C, first, first, n, m, MATRIX, 1.0, 0, down, right), a, b)
