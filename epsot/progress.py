"""A progress bar for what takes a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

LINE = "{l_bar}{bar}| {elapsed}{postfix}"  # what remains is not known: logarithms do not fall evenly
OFTEN = 0.1  # seconds from one drawing to the next, at least


class ProgressBar:
    """A callback that shows how far a solve has come: ``callback=epsot.ProgressBar()``, by tqdm.

    The bar follows logarithms: its first half the temperatures, down to that of `blur` or `eps`, its second half the
    marginal error, down to `tol`. Of `pairwise` it follows the number of pairs. It closes itself when the call returns,
    is stopped or raises, and begins anew with the next call.

    Parameters
    ----------
    callback : callable, optional
        Another callback, which is called first: StopIteration in it stops the solve, as without the bar.
    **options
        Of `tqdm.tqdm`: `desc`, `file`, `leave`, `mininterval`, `disable` and so on.

    Raises
    ------
    ImportError
        If there is no tqdm; it comes with the extra ``epsot[progress]``.

    Notes
    -----
    Of a divergence the transport between the two measures is followed, which takes most of the time. Many problems in
    one call that are followed are solved by the portable path, which takes longer.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> import epsot
    >>> rng = np.random.default_rng(0)
    >>> out = io.StringIO()
    >>> x, y = rng.random((50, 2)), rng.random((60, 2))
    >>> result = epsot.sinkhorn(x, y, blur=0.1, callback=epsot.ProgressBar(file=out))
    >>> "100%" in out.getvalue()
    True
    """

    def __init__(self, callback: Callable[[Any], object] | None = None, **options: Any) -> None:
        try:
            self._tqdm = import_module("tqdm.auto").tqdm
        except ImportError as error:
            raise ImportError(
                'epsot.ProgressBar needs tqdm; install it with: pip install "epsot[progress]"', name="tqdm"
            ) from error
        if callback is not None and not callable(callback):
            raise TypeError(f"`callback` must be callable, got {callback!r}")
        self.callback, self.options = callback, options
        self._bar: Any = None
        self._last: Any = None  # the record that is not shown yet
        self._shown = 0.0  # when something was

    def __call__(self, record: Any) -> None:
        """What a solve calls after each iteration."""
        if self.callback is not None:
            self.callback(record)
        self._last = record
        if self._bar is None:
            self._bar = self._tqdm(**{"total": 100, "bar_format": LINE, **self.options})
        elif time.monotonic() - self._shown < self.options.get("mininterval", OFTEN):
            return  # what is shown may have to be computed, and read from a device
        self._show()

    def _show(self) -> None:
        """Draw the bar for the last record."""
        bar, record, self._last = self._bar, self._last, None
        if bar is None or record is None or bar.disable:
            return
        bar.n = max(bar.n, round(100 * record.progress))  # a schedule may go back to where it was
        bar.set_postfix_str(said_of(record), refresh=False)
        bar.refresh()
        self._shown = time.monotonic()

    def ended(self) -> None:
        """What is called once a solve is over, however it has ended."""
        try:
            with suppress(Exception):  # what has ended the solve says more than the last state of the bar
                self._show()
            if self._bar is not None:
                self._bar.close()
        finally:
            self._bar = self._last = None
            ended = getattr(self.callback, "ended", None)
            if callable(ended):
                ended()


def said_of(record: Any) -> str:
    """What stands behind the bar, without reading anything."""
    if hasattr(record, "total"):
        return f"{record.done} of {record.total} pairs"
    if np.ndim(record.nit):
        return f"iteration {int(record.nit.max(initial=0))}, eps {float(record.eps.max(initial=0.0)):.2g}"
    return f"iteration {record.nit}, eps {record.eps:.2g}"
