"""The CUDA kernels for tensors of PyTorch: exchanged by DLPack, without a copy, on the stream that PyTorch uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from epsot.costs import Array, Cost
from epsot.kernels import vectors
from epsot.kernels.bursts import Averages, Descent, Iterate, Iterates, Marginal, Progress, StopRule
from epsot.kernels.cuda import bursts as cuda
from epsot.kernels.cuda import vectors as fused
from epsot.kernels.vectors import MixedStep


class Foreign:
    """A stream by its address, as the CUDA stream protocol wants it."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@contextmanager
def stream_of(tensor: Any) -> Iterator[None]:
    """CuPy's current stream is that of PyTorch on the device of the tensor: nothing has to wait."""
    import cupy
    import torch

    if tensor.device.type != "cuda":
        yield
        return
    address = torch.cuda.current_stream(tensor.device).cuda_stream
    with cupy.cuda.Device(tensor.device.index):
        if hasattr(cupy.cuda.Stream, "from_external"):
            stream = cupy.cuda.Stream.from_external(Foreign(address))
        else:  # before CuPy 14
            stream = cupy.cuda.ExternalStream(address, tensor.device.index)
        with stream:
            yield


def to_cupy(tensor: Any) -> Any:
    """The same memory as a CuPy array; slices and None as they are."""
    import cupy

    return cupy.from_dlpack(tensor.detach()) if hasattr(tensor, "detach") else tensor


def to_torch(array: Any) -> Any:
    """The same memory as a tensor."""
    import torch

    return torch.utils.dlpack.from_dlpack(array)


def in_cupy(side: Any) -> Marginal:
    """One side of a problem, a record of dataclasses, with its weights as CuPy arrays."""
    weights: Marginal = replace(side, weights=to_cupy(side.weights), log_weights=to_cupy(side.log_weights))
    return weights


class Exchanged:
    """A kernel of CuPy arrays that takes and returns tensors on the same device."""

    workers = None

    def __init__(self, kernel: Any, like: Any) -> None:
        self.kernel, self.like = kernel, like  # `like` names the device

    @property
    def shape(self) -> tuple[int, int]:
        shape: tuple[int, int] = self.kernel.shape
        return shape

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        with stream_of(self.like):
            result = method(*(to_cupy(argument) for argument in arguments))
            if isinstance(result, tuple):
                return tuple(to_torch(part) for part in result)
            return to_torch(result)

    @property
    def stored(self) -> bool:
        return bool(self.kernel.stored)

    @property
    def window(self) -> int | None:
        window: int | None = self.kernel.window
        return window

    @property
    def T(self) -> Exchanged:
        return Exchanged(self.kernel.T, self.like)

    def source(self) -> Exchanged:
        return Exchanged(self.kernel.source(), self.like)

    def at(self, points: Array) -> Exchanged:
        with stream_of(self.like):
            return Exchanged(self.kernel.at(to_cupy(points)), self.like)

    def rows_of(self, other: Exchanged) -> Exchanged:
        with stream_of(self.like):
            return Exchanged(self.kernel.rows_of(other.kernel), self.like)

    def softmin(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        return self._call(self.kernel.softmin, h, eps, guess)

    def softmin_pair(self, k: Array, h: Array, eps: float) -> tuple[Array, Array]:
        pair: tuple[Array, Array] = self._call(self.kernel.softmin_pair, k, h, eps)
        return pair

    def softmin_self(self, h: Array, eps: float, guess: Array | None = None) -> Array:
        return self._call(self.kernel.softmin_self, h, eps, guess)

    def bursts(self, a: Marginal, b: Marginal) -> Bursts | None:
        with stream_of(self.like):
            found = self.kernel.bursts(*(in_cupy(side) for side in (a, b)))
            return None if found is None else Bursts(found, self.like)

    def at_once(self, a: Marginal, b: Marginal, eps: float) -> None:
        """No whole solves, on a device: many steps are a burst."""

    def both_at_once(self, a: Marginal, other: Any, b: Marginal, eps: float) -> None:
        """Nor of two."""

    def apply(self, k: Array, h: Array, eps: float, v: Array, guess: Array | None = None) -> Array:
        return self._call(self.kernel.apply, k, h, eps, v, guess)

    def cost_gradient(self, k: Array, h: Array, eps: float) -> Array:
        return self._call(self.kernel.cost_gradient, k, h, eps)

    def cost_apply(self, v: Array) -> Array:
        return self._call(self.kernel.cost_apply, v)

    def cost_rows(self, rows: slice | Array) -> Array:
        return self._call(self.kernel.cost_rows, rows)

    def plan_rows(self, rows: slice | Array, k: Array, h: Array, eps: float) -> Array:
        return self._call(self.kernel.plan_rows, rows, k, h, eps)


class Bursts:
    """Many steps at once for tensors."""

    def __init__(self, bursts: cuda.Bursts, like: Any) -> None:
        self.bursts, self.like = bursts, like

    def alternate(
        self, directions: Directions, f: Array, start: Array, record: Progress, patience: int, terms: StopRule
    ) -> Iterates:
        with stream_of(self.like):
            made = self.bursts.alternate(directions, to_cupy(f), to_cupy(start), record, patience, terms)
            last, best = (None if step is None else Iterate(*map(to_torch, step)) for step in made[:2])
            assert last is not None
            return made._replace(last=last, best=best, start=to_torch(made.start))

    def average(self, mean: Array, fresh: bool, terms: StopRule) -> Averages:
        with stream_of(self.like):
            f, updated, mean, errors = self.bursts.average(to_cupy(mean), fresh, terms)
            return Averages(to_torch(f), to_torch(updated), to_torch(mean), errors)

    def descend(self, f: Array, g: Array, fresh: bool, temperatures: Sequence[float]) -> Descent:
        with stream_of(self.like):
            f, g, *pairs = self.bursts.descend(to_cupy(f), to_cupy(g), fresh, temperatures)
            past, updated = ((to_torch(one), to_torch(other)) for one, other in pairs)
            return Descent(to_torch(f), to_torch(g), past, updated)

    def descend_self(self, mean: Array, fresh: bool, temperatures: Sequence[float]) -> Averages:
        with stream_of(self.like):
            f, updated, mean, errors = self.bursts.descend_self(to_cupy(mean), fresh, temperatures)
            return Averages(to_torch(f), to_torch(updated), to_torch(mean), errors)


def points(x: Array, y: Array, cost: Cost) -> Exchanged:
    """The kernel of two clouds of tensors."""
    from epsot.kernels.cuda.points import Points

    with stream_of(x):
        ours = to_cupy(x)
        return Exchanged(Points(ours, ours if y is x else to_cupy(y), cost), x)


def matrix(C: Array) -> Exchanged:
    """The kernel of a cost matrix that is a tensor."""
    from epsot.kernels.cuda.matrix import Matrix

    with stream_of(C):
        return Exchanged(Matrix(to_cupy(C)), C)


class Directions(fused.Directions):
    """The memory of the acceleration for tensors: kept as CuPy arrays."""

    def __init__(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> None:
        self.like = b
        with stream_of(b):
            super().__init__(to_cupy(b), to_cupy(log_b), mass, rho, balanced=balanced)

    def rescale(self, scale: Array | None) -> None:
        with stream_of(self.like):
            super().rescale(to_cupy(scale))

    def advance(self, g: Array, updated: Array, result: Array, eps: float) -> MixedStep:
        with stream_of(self.like):
            advance = super().advance(to_cupy(g), to_cupy(updated), to_cupy(result), eps)
            return advance._replace(start=to_torch(advance.start))


class Vectors(vectors.Vectors):
    """The fused operations on tensors where they replace many; of two, PyTorch makes as little work as the exchange."""

    def marginals(self, log_a: Array, f: Array, next_f: Array, eps: float, rho: float) -> tuple[Array, Array]:
        with stream_of(log_a):
            error, total = fused.Vectors().marginals(to_cupy(log_a), to_cupy(f), to_cupy(next_f), eps, rho)
            return to_torch(error), to_torch(total)

    def log_mass(self, log_a: Array, f: Array, rho: float) -> Array:
        with stream_of(log_a):
            return to_torch(fused.Vectors().log_mass(to_cupy(log_a), to_cupy(f), rho))

    def directions(self, b: Array, log_b: Array, mass: float, rho: float, *, balanced: bool) -> Directions:
        return Directions(b, log_b, mass, rho, balanced=balanced)
