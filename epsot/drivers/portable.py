"""Many problems of one padded shape, solved by batched arrays of any library, each as a solve of one would end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from epsot.arrays import to_numpy
from epsot.costs import Array
from epsot.kernels.reference import MAX_EXPONENT
from epsot.problems.many import Problems
from epsot.problems.problem import ULPS
from epsot.results.certificates import UNRESOLVED
from epsot.solver.loop import Check, Outcome
from epsot.solver.many.acceleration import ConjugateResiduals
from epsot.solver.many.courses import Courses
from epsot.solver.many.loop import Observer, anneal
from epsot.solver.many.updates import Duals, SelfTransport, Symmetric, Update
from epsot.solver.schedule import Level, annealing
from epsot.solver.updates import Dual, Pair
from epsot.status import STATUSES, Status


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How many problems ended. Potentials are those of each problem alone, in its gauge, to rounding.

    At points of weight zero f and g, and the first potentials of the maps, are the extension of the others there. The
    second ones, from which they follow by one softmin, are zero: no sum sees them.
    """

    f: Array  # (B, n)
    g: Array  # (B, m)
    f_map: Pair | None  # (next_f(z), z) for the z, near g, that extends f to other points; None: (f, g)
    g_map: Pair | None  # (next_g(z), z), likewise near f; None: (g, f)
    error: np.ndarray  # (B,) the marginal errors, NaN where they are not measured
    mass: np.ndarray  # (B,) sum(P), NaN likewise
    logit_error: np.ndarray  # (B,) as in `Dual`
    status: np.ndarray  # (B,) of integers
    nit: np.ndarray  # (B,)
    history: list[tuple[Check, ...]]
    settled: (
        np.ndarray
    )  # (B,) whether that is what one problem alone would get; those where it is not are to be solved so

    @property
    def extension(self) -> Array:
        """next_g of the f that is returned, or of what stands for it in `g_map`.  (B, m)"""
        return self.g if self.g_map is None else self.g_map[0]

    def outcome(self, k: int) -> Outcome:
        """How problem k ended, as a solve of one says it."""
        xp: Any = array_namespace(self.f)

        def number(values: np.ndarray) -> Array | None:
            value = float(values[k])
            return None if math.isnan(value) else xp.asarray(value, dtype=xp.float64, device=self.f.device)

        f_map, g_map = (None if pair is None else (pair[0][k, :], pair[1][k, :]) for pair in (self.f_map, self.g_map))
        dual = Dual(
            self.f[k, :], self.g[k, :], number(self.error), number(self.mass), f_map, g_map, float(self.logit_error[k])
        )
        return Outcome(dual, STATUSES[int(self.status[k])], int(self.nit[k]), self.history[k])


def solve(
    problems: Problems,
    start: np.ndarray | float,
    *,
    degree: float,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    restart: np.ndarray | float | None = None,
    f: Array | None = None,
    g: Array | None = None,
    warm: np.ndarray | None = None,
    observe: Observer | None = None,
) -> Outcomes:
    """Anneal every problem from its own `start` to its own temperature, for costs of one degree.

    `restart` (by default the same) is where a second descent begins. f and g, (B, n) and (B, m), are potentials to
    start from in the problems that a mask `warm` names, by default in all; their `start` is their own temperature then,
    if it is lower. `observe` is called with (nit, eps, snapshot) after every iteration.
    """
    update = update_for(problems, tol)
    begin = np.broadcast_to(np.asarray(start, float), (problems.count,))
    again = begin if restart is None else np.broadcast_to(np.asarray(restart, float), (problems.count,))
    if problems.own and tol is not None:  # it needs no annealing
        begin = again = np.zeros(problems.count)

    def schedule(begin: float, again: float, eps: float) -> tuple[Level, ...]:
        return annealing(begin, eps, degree=degree, scaling=scaling, tol=tol, max_iter=max_iter, restart=again)

    starts = zip(begin.tolist(), again.tolist(), problems.eps.tolist(), strict=True)
    courses = Courses([schedule(*one) for one in starts], max_iter)
    warm = np.full(problems.count, f is not None) if warm is None else warm
    with np.errstate(all="ignore"):
        state = update.init(problems, courses.first, f, g, warm)
    kept, errors = anneal(update, problems, state, courses, observe)
    with np.errstate(all="ignore"):
        return finished(update, problems, kept, errors, courses, tol)


def update_for(problems: Problems, tol: float | None) -> Update:
    """The tutorial's algorithm without a tolerance, accelerated alternating updates with one."""
    if problems.own:
        return SelfTransport(extrapolate=tol is None)
    return Symmetric() if tol is None else ConjugateResiduals()


def finished(
    update: Update, problems: Problems, kept: tuple[Array, ...], errors: np.ndarray, courses: Courses, tol: float | None
) -> Outcomes:
    """The outcomes in the symmetric gauge, and where rounding leaves nothing to look at more closely."""
    eps, xp = problems.a.on_device(problems.eps), problems.place.xp
    found = update.finish(problems, kept, eps)
    duals = found if problems.own else shifted(found, problems.gauge(found.f, found.g))
    masses = [problems.a.log_mass(found.f), problems.b.log_mass(found.g)]
    mass = xp.full_like(masses[0], xp.nan) if found.mass is None else found.mass
    largest = problems.largest(found.f, found.g), problems.largest(duals.f, duals.g)
    numbers = to_numpy(xp.concat([*largest, xp.stack([*masses, mass])]))
    return Outcomes(
        *extended(problems, duals, eps), errors, numbers[6], 2 * problems.logit_error(numbers[:2], problems.eps),
        courses.status, courses.nit, courses.history(), settled(problems, errors, courses.status, numbers, tol),
    )  # fmt: skip


def shifted(duals: Duals, c: Array) -> Duals:
    """The pairs (f + c, g - c), as `Dual.shifted`."""
    c = c[:, None]
    f_map = None if duals.f_map is None else (duals.f_map[0] + c, duals.f_map[1] - c)
    g_map = None if duals.g_map is None else (duals.g_map[0] - c, duals.g_map[1] + c)
    return duals._replace(f=duals.f + c, g=duals.g - c, f_map=f_map, g_map=g_map)


def extended(problems: Problems, duals: Duals, eps: Array) -> tuple[Array, Array, Pair | None, Pair | None]:
    """f, g and their maps with the values that extend them to points of weight zero."""
    f, g, f_map, g_map = duals.f, duals.g, duals.f_map, duals.g_map
    a, b, xp = problems.a, problems.b, problems.place.xp
    to_f = problems.b.counted(g if f_map is None else f_map[1])
    to_g = problems.a.counted(f if g_map is None else g_map[1])
    if a.zeros:
        there = problems.extended_f(to_f, eps)
        f = xp.where(a.weights > 0, f, there)
        f_map = None if f_map is None else (xp.where(a.weights > 0, f_map[0], there), to_f)
    if b.zeros:
        there = problems.extended_g(to_g, eps)
        g = xp.where(b.weights > 0, g, there)
        g_map = None if g_map is None else (xp.where(b.weights > 0, g_map[0], there), to_g)
    return f, g, f_map, g_map


def settled(
    problems: Problems, errors: np.ndarray, status: np.ndarray, numbers: np.ndarray, tol: float | None
) -> np.ndarray:
    """Where a solve of one problem would end here, too. `verification` looks closer where rounding may count."""
    eps, limit = problems.eps, tol or 0.0
    logit_error = 2 * problems.logit_error(numbers[:2], eps)
    representable = np.isfinite(logit_error) & (problems.balanced | (numbers[4:6].max(axis=0) < MAX_EXPONENT))
    hidden = ULPS * problems.exponent_error(logit_error, eps)
    hides = ~np.isnan(errors) & (hidden > limit) & (hidden > errors)
    ended = np.isin(status, (int(Status.MAX_ITER), int(Status.SCHEDULE_ENDED)))
    exhausted = ended & (problems.exponent_error(logit_error, eps) > UNRESOLVED)
    exhausted &= problems.exponent_error(problems.logit_error(numbers[2:4], eps), eps) > UNRESOLVED
    failed = np.isin(status, (int(Status.STALLED), int(Status.DIVERGED)))
    return np.asarray(representable & ~hides & ~exhausted & ~failed & ~problems.empty)
