"""What the public functions are given beside measures and scales, checked before any work."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from epsot.arrays import as_count, as_number
from epsot.drivers.options import Options
from epsot.drivers.starts import is_start
from epsot.lists import axes_of, is_batch_of
from epsot.problems.instance import check_workers
from epsot.scales import as_numbers, by_length


def is_batch(axes: tuple[int, ...], a: Any, b: Any, scales: tuple[Any, ...], strengths: Any) -> bool:
    """Whether weights or scales stand for many problems: those of one have so many axes, or none.

    A tuple or a list of two strengths is a pair.
    """
    if any(is_batch_of(weights, count) for weights, count in zip((a, b), axes, strict=True)):
        return True
    sides = strengths if isinstance(strengths, tuple | list) else (strengths,)
    return any(axes_of(scale) > 0 for scale in (*scales, *sides))


def check_options(
    y: Any, *, blur: Any, p: Any, reach: Any, diameter: Any, scaling: Any, tol: Any, max_iter: Any, workers: Any
) -> None:
    """Raise what `sinkhorn` would raise of its options, given some of the points of one side."""
    _, scales = by_length(y, y, blur, p, reach, diameter)
    as_options(scales.start, scaling, tol, max_iter, None, None)
    check_workers(workers)


def as_options(start: float, scaling: Any, tol: Any, max_iter: Any, callback: Any, init: Any) -> Options:
    """What the solver is to do: where annealing starts, how it goes on, when it ends."""
    scaling = as_number("scaling", scaling)
    if not 0 < scaling < 1:
        raise ValueError(f"`scaling` must be between 0 and 1, both excluded, got {scaling!r}; 0.5 is a good start")
    if tol is not None:
        tol = as_number("tol", tol)
        if not tol >= 0:
            raise ValueError(f"`tol` must be None or a marginal error >= 0, got {tol!r}")
    max_iter = as_count("max_iter", max_iter, 1)
    if not start < math.inf:
        raise ValueError(
            f"the costs must span a finite range, got {start}; rescale the points, the matrix or `diameter`"
        )
    if callback is not None:
        check_callback(callback)
    if init is not None and not is_start(init):
        raise TypeError(
            "`init` must be an earlier result, a pair of potentials (f, g), or a record of a callback, got "
            f"{type(init).__name__}"
        )
    return Options(start, scaling, tol, max_iter, callback)


def as_shares(t: Any, count: int, measures: str = "a") -> tuple[float, ...]:
    """Shares of so many measures in a mean, of sum one; None: all equal."""
    if count < 1:
        raise ValueError(f"`{measures}` must hold at least one measure, got none")
    if t is None:
        return (1 / count,) * count
    numbers = as_numbers("t", t)
    if numbers.shape != (count,):
        raise ValueError(f"`t` must have shape ({count},), one share a measure, got {numbers.shape}")
    bad = np.flatnonzero(~((numbers >= 0) & (numbers < math.inf)))
    if len(bad):
        raise ValueError(f"`t[{bad[0]}]` must be finite and not negative, got {float(numbers[bad[0]])!r}")
    if not numbers.any():
        raise ValueError("`t` must have a positive share, got only zeros")
    numbers = numbers / numbers.max()  # sums of these do not overflow
    return tuple((numbers / math.fsum(numbers.tolist())).tolist())


def check_callback(callback: Any) -> None:
    """Raise where it cannot be called with one argument."""
    if not callable(callback):
        raise TypeError(f"`callback` must be callable, got {callback!r}")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"`callback` is called with one argument, `intermediate`: got {callback!r}, {error}") from None
