"""The choice of a backend, the only one.

NumPy arrays go to the fused Numba kernels, and so do PyTorch tensors and JAX arrays on the CPU, of which only views
come this far. CuPy arrays go to the fused CUDA kernels, tensors of PyTorch on a CUDA device to these too where CuPy is
installed, and everything else, like every cost without a `kind`, to `tiled`.

A backend is imported when it is first chosen. Each offers `Points` and `Matrix` with the meaning of `reference`,
and may offer `Vectors` with that of `vectors`, and `Bursts` with that of `bursts`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from array_api_compat import is_cupy_array, is_cupy_namespace, is_numpy_array, is_numpy_namespace, is_torch_array

from epsot.arrays import Place
from epsot.costs import Array, Cost
from epsot.kernels.batches import Floats, Layout, WholeSolve
from epsot.kernels.bursts import Bursts, Marginal
from epsot.kernels.vectors import Vectors


class PlanKernel(Protocol):
    """What a plan is computed from, over the pairs of two supports, as defined in `epsot.kernels.reference`."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def T(self) -> PlanKernel: ...

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array: ...
    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array: ...
    def cost_rows(self, rows: slice | Array) -> Array: ...
    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array: ...


class Kernel(PlanKernel, Protocol):
    """All the reductions that a solve may ask for."""

    stored: bool
    window: int | None
    workers: int | None

    @property
    def T(self) -> Kernel: ...

    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]: ...
    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array: ...
    def bursts(self, a: Marginal, b: Marginal) -> Bursts | None: ...
    def at_once(self, a: Marginal, b: Marginal, eps: float) -> WholeSolve | None: ...
    def both_at_once(self, a: Marginal, other: Any, b: Marginal, eps: float) -> WholeSolve | None: ...
    def cost_apply(self, v: Array) -> Array: ...


class PointsKernel(Kernel, Protocol):
    """A kernel of points also knows the gradient of its cost, and the kernels of other first points."""

    @property
    def T(self) -> PointsKernel: ...

    def source(self) -> PointsKernel: ...
    def at(self, points: Array) -> PointsKernel: ...
    def rows_of(self, other: PointsKernel) -> PointsKernel: ...

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array: ...


def carrying(kernel: Kernel) -> AbstractContextManager[None]:
    """While this lasts, calls of a kernel may begin with what the last one has found; then all of it is forgotten."""
    remembering = getattr(kernel, "carrying", None)
    return nullcontext() if remembering is None else remembering()


def is_cuda_tensor(array: Array) -> bool:
    """Whether this is a tensor of PyTorch that CuPy can read where it is."""
    return is_torch_array(array) and array.device.type == "cuda" and find_spec("cupy") is not None


@cache
def jit_is_off() -> bool:
    """Whether NUMBA_DISABLE_JIT is set, as for a debugger: the fused kernels exist as machine code only."""
    import numba

    config: Any = numba.config
    return bool(config.DISABLE_JIT)


def backend_of(array: Array, cost: Cost | None = None) -> str:
    """The backend that will serve such arrays: "cpu" (Numba), "cuda", "cuda by DLPack" or "tiled"."""
    if cost is not None and cost.kind is None:
        return "tiled"
    if type(array) is np.ndarray or is_numpy_array(array):
        return "tiled" if jit_is_off() else "cpu"
    if is_cupy_array(array):
        return "cuda"
    return "cuda by DLPack" if is_cuda_tensor(array) else "tiled"


def _serving(array: Array, cost: Cost | None = None) -> str:
    """That backend, or the portable one where there is nothing to fuse: no fused kernel has to know of empty arrays."""
    return "tiled" if 0 in array.shape else backend_of(array, cost)


def points(x: Array, y: Array, cost: Cost, workers: int | None = None) -> Any:
    """The kernel of two clouds, (n, d) and (m, d)."""
    match _serving(x, cost):
        case "cpu":
            from epsot.kernels import cpu

            return cpu.Points(x, y, cost, workers)
        case "cuda":
            from epsot.kernels import cuda

            return cuda.Points(x, y, cost, workers)
        case "cuda by DLPack":
            from epsot.kernels.cuda import exchange

            return exchange.points(x, y, cost)
    from epsot.kernels import tiled

    kernel = tiled.Points(x, y, cost)
    kernel.workers = workers
    return kernel


def matrix(C: Array, workers: int | None = None) -> Any:
    """The kernel of a cost matrix, (n, m)."""
    match _serving(C):
        case "cpu":
            from epsot.kernels import cpu

            return cpu.Matrix(C, workers)
        case "cuda":
            from epsot.kernels import cuda

            return cuda.Matrix(C, workers)
        case "cuda by DLPack":
            from epsot.kernels.cuda import exchange

            return exchange.matrix(C)
    from epsot.kernels import tiled

    matrix = tiled.Matrix(C)
    matrix.workers = workers
    return matrix


def separable(axes: Any, kind: str, factor: float, place: Place, dtype: Any, workers: int | None = None) -> Any:
    """The kernel of two lattices, as `lattice.Lattice`."""
    kernel: Any
    match _serving_lattices(place):
        case "cpu":
            from epsot.kernels.cpu.lattice import LatticeKernel

            return LatticeKernel(axes, kind, factor, place, dtype, workers)
        case "cuda":
            from epsot.kernels.cuda import lattice

            kernel = lattice.LatticeKernel(axes, kind, factor, place, dtype)
        case _:
            from epsot.kernels.lattice import Lattice

            kernel = Lattice(axes, kind, factor, place, dtype)
    kernel.workers = workers
    return kernel


def _serving_lattices(place: Place) -> str:
    """The backend that will serve lattices of such arrays; on a device it is the portable one if not asked for."""
    if is_numpy_namespace(place.xp) and not jit_is_off():
        return "cpu"
    if is_cupy_namespace(place.xp):
        from epsot.kernels.cuda.modules import unproven

        return "cuda" if unproven() else "tiled"
    return "tiled"


def separable_is_fused(place: Place) -> bool:
    """Whether lattices of such arrays have a kernel that computes what is near zero in the dtype of the user."""
    return _serving_lattices(place) != "tiled"


def padded_points(x: Array, y: Array, cost: Cost) -> Any:
    """The kernel of many problems between clouds (B, n, d) and (B, m, d), as `batched.Points`."""
    if _serving(x, cost) == "cuda":
        from epsot.kernels.cuda import batches

        return batches.Points(x, y, cost)
    from epsot.kernels import batched

    return batched.Points(x, y, cost)


def padded_matrices(C: Array) -> Any:
    """The kernel of many problems of matrices (B, n, m), as `batched.Matrix`."""
    if _serving(C) == "cuda":
        from epsot.kernels.cuda import batches

        return batches.Matrix(C)
    from epsot.kernels import batched

    return batched.Matrix(C)


def point_batch(
    x: Array, y: Array, cost: Cost, rows: Layout, columns: Layout, a: Array, b: Array, eps: Floats, rho_a: Floats,
    rho_b: Floats, workers: int | None = None,
) -> Any:  # fmt: skip
    """What solves many problems between clouds that lie one after the other; None where each is solved on its own."""
    if _serving(x, cost) != "cpu":
        return None
    from epsot.kernels.cpu import batches

    return batches.Batch(x, y, cost, rows, columns, a, b, eps, rho_a, rho_b, workers)


def matrix_batch(
    C: Array, rows: Layout, columns: Layout, a: Array, b: Array, eps: Floats, rho_a: Floats, rho_b: Floats,
    workers: int | None = None,
) -> Any:  # fmt: skip
    """The same of matrices that lie one below the other."""
    if _serving(C) != "cpu":
        return None
    from epsot.kernels.cpu import batches

    return batches.Batch(C, None, None, rows, columns, a, b, eps, rho_a, rho_b, workers)


def vectors_of(array: Array, workers: int | None = None) -> Vectors:
    """What works on the vectors between two sweeps, (n,) and (m,), chosen by one of them."""
    match _serving(array):
        case "cpu":
            from epsot.kernels.cpu import between

            return between.Vectors(workers)
        case "cuda":
            from epsot.kernels.cuda import vectors

            return vectors.Vectors()
        case "cuda by DLPack":
            from epsot.kernels.cuda import exchange

            return exchange.Vectors()
    return Vectors()
