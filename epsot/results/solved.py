"""What has been solved at once, as the parts of single results."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from epsot.costs import Array
from epsot.kernels.batches import Asked, Floats, Layout, Rules, Solved, Warm
from epsot.solver.loop import Check
from epsot.solver.updates import Dual


class Engine(Protocol):
    """What has solved a batch, and computes what is asked of all items at once; all arrays are flat."""

    kind: str  # "compiled" or "padded"
    rows: Layout
    columns: Layout

    def solve(
        self, asked: Asked, start: Floats, rules: Rules, warm: Warm | None = None, *, own: bool = False
    ) -> Solved: ...

    @property
    def T(self) -> Engine: ...

    def source(self) -> Engine: ...
    def extended(self, z: Array, base: Array, *, own: bool = False) -> Array: ...
    def slopes(self, extension: Array, base: Array, *, own: bool = False) -> Array: ...


def dual_of(
    parts: tuple[Array, Array, Array, Array], error: Any, mass: Any, logit_error: Any, tol: float | None, *, own: bool
) -> Dual:
    """What a solve that was made at once has left: f, g, and what extends them, as in `Solved`."""
    f, g, more_f, more_g = parts
    logit_error = float(logit_error)
    if tol is None:
        base_f, base_g = (more_f, more_f) if own else (more_g, more_f)
        return Dual(f, g, mass=mass, f_map=(f, base_f), g_map=(g, base_g), logit_error=logit_error)
    if own:
        return Dual(f, g, error, mass, (more_f, f), (more_f, f), logit_error)
    return Dual(f, g, error, mass, g_map=(more_g, f), logit_error=logit_error)


def checks_of(solved: Solved, k: int, tol: float | None) -> tuple[Check, ...]:
    """The history of one item."""
    if tol is None:
        return ()
    first, nit = int(solved.first[k]), int(solved.nit[k])
    part = slice(first, first + nit)
    numbers = zip(range(1, nit + 1), solved.temperatures[part].tolist(), solved.errors[part].tolist(), strict=True)
    return tuple(map(partial(tuple.__new__, Check), numbers))  # Check(*z) takes a third of the time of an iteration
