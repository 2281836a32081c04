"""Kernels of fake CuPy arrays with NumPy arrays in and out: the checks of the CPU kernels can be run on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cuda import fake_cupy


class Bridge:
    """A kernel whose methods take and return NumPy arrays."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.shape = kernel, kernel.shape

    @property
    def x(self) -> np.ndarray:
        return self.kernel.x.data_

    @property
    def y(self) -> np.ndarray:
        return self.kernel.y.data_

    @property
    def T(self) -> Bridge:
        return Bridge(self.kernel.T)

    def source(self) -> Bridge:
        return Bridge(self.kernel.source())

    def at(self, points: np.ndarray) -> Bridge:
        return Bridge(self.kernel.at(fake_cupy.asarray(points)))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.kernel, name)

        def call(*arguments: Any) -> Any:
            lifted = [fake_cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
            result = method(*lifted)
            parts = result if isinstance(result, tuple) else (result,)
            assert all(isinstance(part, fake_cupy.ndarray) for part in parts)
            plain = tuple(part.data_ for part in parts)
            return plain if isinstance(result, tuple) else plain[0]

        return call


def points(x: np.ndarray, y: np.ndarray, cost: Any) -> Bridge:
    from epsot.kernels import cuda

    ours = fake_cupy.asarray(x)
    return Bridge(cuda.Points(ours, ours if y is x else fake_cupy.asarray(y), cost))


def matrix(C: np.ndarray) -> Bridge:
    from epsot.kernels import cuda

    return Bridge(cuda.Matrix(fake_cupy.ndarray(C)))
