"""Work is done on the device of the arrays that come in, and without floating-point warnings of NumPy.

CuPy computes on its current device, and refuses arrays of another; other libraries go where their arrays are. The
current device is therefore changed at the door, here, and nowhere below: by public functions, and by what public
classes compute later. There, too, tensors of PyTorch leave behind how they came about, with a word where it is missed,
and NumPy is told to be silent: what is not finite is judged by a status, or named by a `PrecisionWarning`, while a
RuntimeWarning would name a line that no user has written.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from inspect import signature
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from array_api_compat import is_cupy_array, is_cupy_namespace, is_torch_array

from epsot.arrays import Place
from epsot.lazy import cached_property
from epsot.status import warn

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)


class Inside(threading.local):
    """Whether this thread is in a function of the package: NumPy is told to be silent once, not at each property."""

    now = False


inside = Inside()

OPERATORS = ("__init__", "__call__", "__matmul__", "__rmatmul__", "__getitem__", "__array__")


def device_of(things: Iterable[Any]) -> AbstractContextManager[Any]:
    """The device of the first CuPy array, or of the first thing with a `place`, as what makes it the current one."""
    for thing in things:
        if is_cupy_array(thing):
            device: AbstractContextManager[Any] = thing.device
            return device
        place = getattr(thing, "place", None)
        if isinstance(place, Place):
            return place.device if is_cupy_namespace(place.xp) else nullcontext()
    return nullcontext()


def on_array_device(function: Callable[P, R]) -> Callable[P, R]:
    """The function on the device of its arguments, of a method on that of the object; silent about infinite numbers."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> R:
        if (len(args) > 1 or kwargs) and "torch" in sys.modules and has_history((*args, *kwargs.values())):
            args, kwargs = without_history(function, args, kwargs)
        if inside.now and "cupy" not in sys.modules:  # all of it is done
            return function(*args, **kwargs)
        before, inside.now = inside.now, True
        try:
            with device_of((*args, *kwargs.values())), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return function(*args, **kwargs)
        finally:
            inside.now = before

    return run


def has_history(arguments: Iterable[Any]) -> bool:
    """Whether a tensor among them, or in a list of them, requires grad. PyTorch is there."""
    tensor = sys.modules["torch"].Tensor
    return any(isinstance(z, tensor) and z.requires_grad for given in arguments for z in parts_of(given))


def without_history(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with tensors that require grad detached, and a warning to the caller of the caller that they are.

    What is called from inside gets them detached: there is one warning for a call.
    """
    things = (thing for given in (*args, *kwargs.values()) for thing in parts_of(given))
    detached = {id(thing): thing.detach() for thing in things if is_torch_array(thing) and thing.requires_grad}

    def without(given: Any) -> Any:
        if isinstance(given, list | tuple) and any(id(thing) in detached for thing in given):
            return type(given)(detached.get(id(thing), thing) for thing in given)
        return detached.get(id(given), given)

    if sys.modules["torch"].is_grad_enabled():  # else nothing would be recorded
        bound = signature(function).bind(*args, **kwargs).arguments
        names = [name for name, given in bound.items() if without(given) is not given]
        listed = " and ".join(f"`{name}`" for name in names) or "a tensor"
        warn(
            f"{listed} requires grad, but what is returned has no graph: autograd sees a constant. "
            "The gradients of the result (`grad_x`, `grad_a`) are exact, for a torch.autograd.Function of your own; "
            "pass `.detach()` where none is needed",
            UserWarning,
        )
    return tuple(map(without, args)), {name: without(given) for name, given in kwargs.items()}


def parts_of(given: Any) -> Iterable[Any]:
    """The items of a list, or the one argument that it is."""
    return given if isinstance(given, list | tuple) else (given,)


def device_aware(cls: Class) -> Class:
    """A class with a `place`, there whenever a public method, property or operator of it runs."""
    for name, member in list(vars(cls).items()):
        if name == "place" or (name.startswith("_") and name not in OPERATORS):
            continue
        if isinstance(member, FunctionType):
            setattr(cls, name, on_array_device(member))
        elif isinstance(member, property) and member.fget is not None:
            setattr(cls, name, member.getter(on_array_device(member.fget)))
        elif isinstance(member, cached_property):
            member.function = on_array_device(member.function)
    return cls
