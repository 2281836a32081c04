"""Work is done on the device of the arrays that come in, and without floating-point warnings of NumPy.

CuPy computes on its current device, and refuses arrays of another; other libraries go where their arrays are. The
current device is therefore changed at the door, here, and nowhere below: by public functions, and by what public
classes compute later. There NumPy is told to be silent, too: what is not finite is judged by a status, or named by a
`PrecisionWarning`, while a RuntimeWarning would name a line that no user has written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from array_api_compat import is_cupy_array, is_cupy_namespace

from epsot.arrays import Place
from epsot.lazy import cached_property

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)

OPERATORS = ("__init__", "__call__", "__matmul__", "__rmatmul__")


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


def at_home(function: Callable[P, R]) -> Callable[P, R]:
    """The function on the device of its arguments, of a method on that of the object; silent about infinite numbers."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with device_of((*args, *kwargs.values())), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return function(*args, **kwargs)

    return run


def resident(cls: Class) -> Class:
    """A class with a `place`, there whenever a public method, property or operator of it runs."""
    for name, member in list(vars(cls).items()):
        if name == "place" or (name.startswith("_") and name not in OPERATORS):
            continue
        if isinstance(member, FunctionType):
            setattr(cls, name, at_home(member))
        elif isinstance(member, property) and member.fget is not None:
            setattr(cls, name, member.getter(at_home(member.fget)))
        elif isinstance(member, cached_property):
            member.function = at_home(member.function)
    return cls
