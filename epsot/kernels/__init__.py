"""The choice of a backend, the only one: NumPy arrays go to the fused Numba kernels, everything else to `tiled`.

A backend is imported when it is first chosen. Each offers `Points` and `Matrix` with the meaning of `reference`.
"""

from __future__ import annotations

from typing import Any, Protocol

from array_api_compat import is_numpy_array

from epsot.costs import Array, Cost


class Kernel(Protocol):
    """Reductions over the pairs of two supports, as defined in `epsot.kernels.reference`."""

    shape: tuple[int, int]
    workers: int | None

    @property
    def T(self) -> Kernel: ...

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array: ...
    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]: ...
    def softmin_self(self, h: Array, eps: float) -> Array: ...
    def apply(self, k: Array, h: Array, eps: float, v: Array) -> Array: ...
    def cost_apply(self, v: Array) -> Array: ...
    def cost_rows(self, rows: slice | Array) -> Array: ...
    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array: ...


class PointsKernel(Kernel, Protocol):
    """A kernel of points also knows the gradient of its cost, and the kernels of other first points."""

    @property
    def T(self) -> PointsKernel: ...

    def source(self) -> PointsKernel: ...
    def at(self, points: Array) -> PointsKernel: ...

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array: ...


def backend_of(array: Array, cost: Cost | None = None) -> str:
    """The backend that will serve such arrays: "cpu" (Numba) or "tiled"."""
    return "cpu" if is_numpy_array(array) and (cost is None or cost.kind is not None) else "tiled"


def points(x: Array, y: Array, cost: Cost, workers: int | None = None) -> Any:
    """The kernel of two clouds, (n, d) and (m, d)."""
    if backend_of(x, cost) == "cpu":
        from epsot.kernels import cpu

        return cpu.Points(x, y, cost, workers)
    from epsot.kernels import tiled

    return tiled.Points(x, y, cost)


def matrix(C: Array, workers: int | None = None) -> Any:
    """The kernel of a cost matrix, (n, m)."""
    if backend_of(C) == "cpu":
        from epsot.kernels import cpu

        return cpu.Matrix(C, workers)
    from epsot.kernels import tiled

    return tiled.Matrix(C)
