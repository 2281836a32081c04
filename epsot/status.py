"""How a solve ended, and what to do about it; warnings, at the line of the user."""

from __future__ import annotations

import sys
import warnings
from enum import IntEnum

THROUGH = ("epsot", "scipy", "sklearn", "torch", "jax")  # that call this package for somebody


class ConvergenceWarning(UserWarning):
    """A solve stopped before it reached `tol`; the message names the error reached and the cure."""


class PrecisionWarning(UserWarning):
    """A result that float64 holds is beyond the range of the dtype asked for, and infinite there."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's code that has called this package, maybe by SciPy or another library."""
    frame, depth = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in THROUGH:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth)


class Status(IntEnum):
    """The outcome of a solve. Each member carries a `meaning` and a `cure`; a divergence has the largest of its parts.

    The `message` of a result has the cure that fits what was solved.

    Examples
    --------
    >>> import epsot
    >>> epsot.Status.MAX_ITER.cure
    'raise `max_iter`, `tol` or the temperature (`blur`, `eps`)'
    """

    meaning: str
    cure: str

    def __new__(cls, value: int, meaning: str, cure: str) -> Status:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.cure = cure
        return member

    CONVERGED = 0, "the marginal error is below `tol`", ""
    SCHEDULE_ENDED = (
        1,
        "the annealing schedule ran once, as `tol=None` asks, and its error was not measured",
        "set `tol` to converge, or `scaling` closer to 1 for a slower decay",
    )
    MAX_ITER = (
        2,
        "`max_iter` iterations were not enough to reach `tol`",
        "raise `max_iter`, `tol` or the temperature (`blur`, `eps`)",
    )
    STALLED = (
        3,
        "the marginal error no longer falls: the precision of the data type is reached",
        "raise `tol`, use float64, or raise the temperature (`blur`, `eps`)",
    )
    DIVERGED = (
        4,
        "the iterations left the range of finite numbers",
        "rescale the problem, or raise the temperature (`blur`, `eps`)",
    )
    STOPPED = 5, "the callback stopped the solve", "continue with `init=result`"


STATUSES = {int(status): status for status in Status}
