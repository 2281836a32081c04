"""A transport loss for PyTorch's autograd: the value, its slopes, and their Hessian products.

Each is a function whose derivative is the next, computed from one solve when autograd asks for it. Products have a
derivative in their direction; that in the measures, a third one, is not known here, and raises. Where `torch.func.vmap`
maps, the mapped axis becomes one of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from importlib import import_module
from inspect import signature
from operator import add
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch
from torch._functorch import pyfunctorch
from torch.autograd import forward_ad

from epsot.bridges import AXES, MEASURES, Names, residual

Tensor: TypeAlias = Any  # of PyTorch, which need not be there when types are checked
Measures = Sequence[Tensor | None]  # x, y, a, b


class Transport:
    """One solve, which its value, its slopes and their derivatives share."""

    def __init__(self, solve: Callable[..., Any], options: dict[str, Any]) -> None:
        self.solve, self.options = solve, options
        self.result: Any = None

    def run(self, measures: Measures) -> Any:
        """The result, which is kept. It is of tensors with a leading axis for each `vmap` around."""
        self.result = self.solve(*(z if z is None else z.detach() for z in measures), **self.options)
        return self.result

    def products(self, of: Names, along: Names, directions: Sequence[Tensor], measures: Measures) -> Iterable[Tensor]:
        """H[of, along] directions, summed over `along`, of each problem; more leading axes are more directions."""
        refuse_old_vmap(directions)
        batch = tuple(self.result.value.shape)
        items = [self.result[k] for k in np.ndindex(batch)] if batch else [self.result]
        many = directions[0].shape[: directions[0].ndim - len(batch) - AXES[along[0]]]
        tol = residual(self.options, directions[0].dtype)
        flat = [z.reshape(math.prod(many), len(items), -1) for z in directions]
        for name, measure in zip(MEASURES, measures, strict=True):
            if name in of and measure is not None:
                parts = [
                    reduce(
                        add, (product(item, name, other, z[:, k], tol) for other, z in zip(along, flat, strict=True))
                    )
                    for k, item in enumerate(items)
                ]
                yield torch.stack(parts, dim=1).reshape(*many, *batch, *measure.shape[-AXES[name] :])


def product(item: Any, of: str, along: str, directions: Tensor, tol: float) -> Tensor:
    """H[of, along] of one problem, applied to each row.  (k, size) -> (k, size)"""
    hessian = item.hessian(of, along, tol=tol)
    library = type(hessian).__module__.partition(".")[0]
    if library == "scipy":
        return torch.from_numpy((hessian @ directions.numpy().T).T)
    if library == "cupyx":
        return torch.from_dlpack((hessian @ import_module("cupy").from_dlpack(directions).T).T)
    return (hessian @ directions.T).T


def chosen(wanted: Iterable[bool]) -> Names:
    """The names of the measures that are wanted."""
    return tuple(name for name, is_wanted in zip(MEASURES, wanted, strict=True) if is_wanted)


def present(names: Names, tensors: Measures) -> tuple[Names, list[Tensor]]:
    """The tensors that are not None, and their names."""
    pairs = [(name, z) for name, z in zip(names, tensors, strict=True) if z is not None]
    return tuple(name for name, _ in pairs), [z for _, z in pairs]


def gathered(names: Names, tensors: Iterable[Tensor], measures: Measures) -> list[Tensor | None]:
    """What belongs to the measures of these names, summed over the problems that share one."""
    found = dict(zip(names, tensors, strict=True))
    return [
        found[name].sum_to_size(z.shape).to(z.dtype) if z is not None and name in found else None
        for name, z in zip(MEASURES, measures, strict=True)
    ]


def refuse_old_vmap(tensors: Sequence[Tensor]) -> None:
    """Raise where `is_grads_batched` or `vectorize` map, which know no rules of functions."""
    if any(map(torch._C._functorch.is_legacy_batchedtensor, tensors)):
        raise RuntimeError("autograd's old vmap maps no second derivatives; use `torch.func.hessian`")


def refuse_nested_jvp() -> None:
    """Raise in a forward mode within another, where PyTorch takes what a function's `jvp` returns for a constant."""
    modes = [interpreter.key() for interpreter in pyfunctorch.retrieve_all_functorch_interpreters()]
    if modes.count(pyfunctorch.TransformType.Jvp) > 1:
        raise RuntimeError("forward mode over forward mode is not supported; use `torch.func.hessian` or `jacrev`")


def is_followed() -> bool:
    """Whether something may ask for derivatives of what is computed: backward, forward, or a transform around."""
    transformed = torch._C._are_functorch_transforms_active()
    return bool(torch.is_grad_enabled() or transformed or forward_ad._current_level >= 0)


class Loss(torch.autograd.Function):
    """What all functions here have in common: they keep the solve, and the measures for the functions that follow."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.forward.__signature__ = signature(cls.forward)  # PyTorch asks for it in each call, which takes 0.03 ms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.transport, ctx.names, measures = inputs[0], inputs[1:-4], inputs[-4:]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*measures)
        ctx.save_for_forward(*measures)


class Value(Loss):
    """The value of each problem."""

    @staticmethod
    def forward(transport: Transport, *measures: Tensor | None) -> Tensor:
        value: Tensor = transport.run(measures).value
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        measures, wrt = ctx.saved_tensors, chosen(ctx.needs_input_grad[-4:])
        if upstream is None:
            return (None,) * 5
        slopes: Iterable[Tensor] = Slopes.of(ctx.transport, wrt, measures)
        if upstream.ndim:
            slopes = tuple(upstream[(..., *(None,) * AXES[name])] * z for name, z in zip(wrt, slopes, strict=True))
        else:
            slopes = tuple(upstream * z for z in slopes)
        return None, *gathered(wrt, slopes, measures)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        along, moves = present(MEASURES, tangents[-4:])
        refuse_nested_jvp()
        slopes = Slopes.apply(ctx.transport, along, *ctx.saved_tensors)
        parts = (torch.sum(s * z, tuple(range(-AXES[n], 0))) for n, s, z in zip(along, slopes, moves, strict=True))
        return torch.stack(tuple(parts)).sum(dim=0)

    @staticmethod
    def vmap(info: Any, in_dims: Any, transport: Transport, *measures: Tensor | None) -> tuple[Tensor, int]:
        return Value.apply(transport, *mapped(measures, in_dims[-4:])[0]), 0


class Slopes(Loss):
    """The gradients in the measures of these names, of each problem, also in what problems share."""

    @classmethod
    def of(cls, transport: Transport, wrt: Names, measures: Measures) -> tuple[Tensor, ...]:
        """They, as a function of the measures where that is asked for: else PyTorch need not know of it."""
        found: tuple[Tensor, ...] = (cls.apply if is_followed() else cls.forward)(transport, wrt, *measures)
        return found

    @staticmethod
    def forward(transport: Transport, wrt: Names, *measures: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(getattr(transport.result, f"grad_{name}") for name in wrt)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        Loss.setup_context(ctx, inputs, output)
        ctx.batch = output[0].shape[: output[0].ndim - AXES[inputs[1][0]]]

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor | None) -> tuple[Tensor | None, ...]:
        measures, of = ctx.saved_tensors, chosen(ctx.needs_input_grad[-4:])
        along, directions = present(ctx.names[0], upstreams)
        if not along:
            return (None,) * 6
        products = Product.apply(ctx.transport, of, along, *directions, *guarded(measures))
        return None, None, *gathered(of, products, measures)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        refuse_nested_jvp()
        along, moves = present(MEASURES, tangents[-4:])
        directions = (z.expand(*ctx.batch, *z.shape[-AXES[n] :]) for n, z in zip(along, moves, strict=True))
        found: tuple[Tensor, ...] = Product.apply(
            ctx.transport, ctx.names[0], along, *directions, *guarded(ctx.saved_tensors)
        )
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Any, transport: Transport, wrt: Names, *measures: Tensor | None) -> Any:
        return Slopes.apply(transport, wrt, *mapped(measures, in_dims[-4:])[0]), (0,) * len(wrt)


class Product(Loss):
    """H[of, along] directions, summed over `along`. The measures come guarded."""

    @staticmethod
    def forward(transport: Transport, of: Names, along: Names, *tensors: Any) -> tuple[Tensor, ...]:
        return tuple(transport.products(of, along, tensors[:-4], tensors[-4:]))

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor | None) -> tuple[Tensor | None, ...]:
        of, along = ctx.names[:2]
        known, directions = present(of, upstreams)
        if not known:
            return (None,) * (len(along) + 7)
        products = Product.apply(ctx.transport, along, known, *directions, *ctx.saved_tensors)  # H is symmetric
        guards = (z if z is None else torch.zeros_like(z) for z in ctx.saved_tensors)  # which raise where one asks
        return None, None, None, *products, *guards

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        refuse_nested_jvp()
        of, along = ctx.names[:2]
        known, directions = present(along, tangents[3:-4])
        found: tuple[Tensor, ...] = Product.apply(ctx.transport, of, known, *directions, *ctx.saved_tensors)
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Any, transport: Transport, of: Names, along: Names, *tensors: Any) -> Any:
        """Problems that are mapped get an axis before those of the batch, directions alone one before all others."""
        measures, depth = mapped(tensors[-4:], in_dims[-4:])
        directions = []
        for name, z, dim in zip(along, tensors[:-4], in_dims[3:-4], strict=True):
            z = z.expand(info.batch_size, *z.shape) if dim is None else z.movedim(dim, 0)
            directions.append(z if depth is None else z.movedim(0, -1 - depth - AXES[name]))
        products = Product.apply(transport, of, along, *directions, *measures)
        dims = (0 if depth is None else z.ndim - 1 - depth - AXES[n] for n, z in zip(of, products, strict=True))
        return products, tuple(dims)


def mapped(measures: Measures, dims: Sequence[int | None]) -> tuple[list[Tensor | None], int | None]:
    """The mapped axis of each measure in front of those of the batch, and how many these are; None: none is mapped."""
    if all(dim is None for dim in dims):
        return list(measures), None
    depth = max(
        z.ndim - AXES[name] - (dim is not None)
        for name, z, dim in zip(MEASURES, measures, dims, strict=True)
        if z is not None
    )
    found: list[Tensor | None] = []
    for name, z, dim in zip(MEASURES, measures, dims, strict=True):
        if z is not None and dim is not None:
            z = z.movedim(dim, 0)
            z = z[(slice(None), *(None,) * (depth + 1 + AXES[name] - z.ndim))]
        found.append(z)
    return found, depth


class Guard(torch.autograd.Function):
    """The tensor as it is, whose derivative raises: what would be zero in silence otherwise."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, what: str) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.what = inputs[1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> NoReturn:
        raise RuntimeError(f"{ctx.what} here; `.detach()` what is to be a constant")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise RuntimeError(f"{ctx.what} here; `.detach()` what is to be a constant")


def guarded(measures: Measures) -> list[Tensor | None]:
    """For products: a derivative of these in a measure is a third one of the value."""
    return [z if z is None else Guard.apply(z, "a transport loss has no third derivative") for z in measures]


class Potentials(Loss):
    """The dual potentials of each problem, whose derivative raises."""

    @staticmethod
    def forward(transport: Transport, *measures: Tensor | None) -> tuple[Tensor, Tensor]:
        result = transport.run(measures)
        return result.f, result.g

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor | None) -> NoReturn:
        raise RuntimeError("potentials have no derivative here; differentiate the value, or `.detach()` them")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise RuntimeError("potentials have no derivative here; differentiate the value, or `.detach()` them")

    @staticmethod
    def vmap(info: Any, in_dims: Any, transport: Transport, *measures: Tensor | None) -> Any:
        return Potentials.apply(transport, *mapped(measures, in_dims[-4:])[0]), (0, 0)
