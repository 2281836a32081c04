"""Values computed on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):
    """`functools.cached_property` as it is since Python 3.12, without a lock.

    The lock of Python 3.11 is one for all instances: threads would wait for the work of others, and a child forked in
    the meantime for ever. Two threads may here compute a value twice, and get the same.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> cached_property[T] | T:
        if instance is None:
            return self
        value = self.function(instance)
        instance.__dict__[self.name] = value  # the next look-up finds it there
        return value


class Lean:
    """What pickles and copies carry of an object: not the values computed on first use, which can be had again."""

    def __getstate__(self) -> dict[str, Any]:
        cls = type(self)
        return {name: z for name, z in vars(self).items() if not isinstance(getattr(cls, name, None), cached_property)}
