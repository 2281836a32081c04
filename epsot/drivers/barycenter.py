"""Barycenters: the temperatures of a solve, where it starts, and what holds of what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from epsot.archives import Savable
from epsot.arrays import Place, as_number, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.drivers.choice import solve_self, solve_transport
from epsot.drivers.intermediate import Intermediate, cooled, progress_of
from epsot.drivers.options import Options
from epsot.drivers.starts import is_of_numpy
from epsot.drivers.verification import LAST_STEPS
from epsot.kernels import carrying
from epsot.kernels.reference import logsumexp
from epsot.problems.barycenter import BarycenterInstance
from epsot.results.barycenter import BarycenterResult
from epsot.results.result import SinkhornResult, over
from epsot.solver.acceleration import AcceleratedState
from epsot.solver.barycenter import BarycenterDual, BarycenterState, Barycentric, MixedBarycenter
from epsot.solver.loop import Check, Ending, anneal
from epsot.solver.schedule import Level
from epsot.status import STATUSES, Status

FIRST = 1 / 8  # of the diameter: above, a debiased barycenter of compact shapes is nearly one point, which takes longer
HELD = 0.03  # marginal error at which a temperature above the target is left; from .1 on, the target took 4 times the
HELD_STEPS = 12  # steps of four images of 128 x 128 pixels at a blur of one or two, to 1e-3; after so many in any case
WARMER = 4.0  # times the blur of an earlier result: where a solve goes on from that, with other shares
PRECISE = 1e-4  # marginal error of the transport of a measure with itself, for the value: its square counts


@dataclass(frozen=True)
class Further:
    """What a result solves as it is asked for, and how."""

    instance: BarycenterInstance
    options: Options

    def own(self, k: int) -> SinkhornResult:
        """Measure k with itself, of mass one."""
        return self_transport(self.instance, self.options, k)

    def other(self, a: Array, k: int) -> SinkhornResult:
        """From weights of mass one to measure k, which had no share in them."""
        return solve_transport(self.instance.between(a, self.instance.weights[k]), self.options, None)

    def written(self) -> dict[str, Any]:
        """What a file holds of it."""
        options = self.options
        return {
            "start": options.start, "scaling": options.scaling, "tol": options.tol, "max_iter": options.max_iter,
        }  # fmt: skip


def read_barycenter(parts: dict[str, Any], place: Place) -> BarycenterResult:
    """The result that a file holds, in the library of a place."""
    instance, how = BarycenterInstance.read(parts["instance"], place), parts["further"]
    tol = None if how["tol"] is None else as_number("tol", how["tol"])
    options = Options(
        as_number("start", how["start"]), as_number("scaling", how["scaling"]), tol, int(how["max_iter"]), None,
    )  # fmt: skip
    return BarycenterResult(
        instance, BarycenterDual.read(parts["found"], instance.problem), STATUSES[parts["status"]], int(parts["nit"]),
        tuple(Check(int(nit), eps, error) for nit, eps, error in parts["history"].tolist()), parts["tol"],
        Further(instance, options),
    )  # fmt: skip


@device_aware
class BarycenterIntermediate(Savable):
    """The record that a callback gets after each iteration: `nit`, `eps`, `marginal_error`, and on demand `weights`.

    `save` writes what it is so far as a result, from which a solve goes on: ``init=epsot.load(path)``.
    """

    def __init__(
        self,
        nit: int,
        eps: float,
        marginal_error: float,
        log_a: Array,
        dual: Callable[[], BarycenterDual],
        instance: BarycenterInstance,
        options: Options,
    ) -> None:
        self.nit, self.eps, self.marginal_error = nit, eps, marginal_error
        self._log_a, self._dual, self._instance, self._options = log_a, dual, instance, options

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return self._instance.place

    @property
    def weights(self) -> Array:
        """The weights of this iteration, of the mass of the measures."""
        xp, geometry = self.place.xp, self._instance.geometry
        weights = over(geometry.supports[0], xp.exp(self._log_a) * self._instance.mass, xp)
        return in_dtype(weights, geometry.dtype, self.place)

    @property
    def progress(self) -> float:
        """How far the solve has come, in [0, 1], by logarithms: half are its temperatures, the other half its error."""
        start = self._options.start * FIRST**self._instance.geometry.degree
        share = cooled(self.eps, start, self._instance.eps)
        return progress_of(share, self._options.tol, lambda: self.marginal_error)

    def record(self) -> BarycenterResult:
        """A result that was stopped here: what of this outlives the solve."""
        instance, options = replace(self._instance, eps=self.eps), replace(self._options, callback=None)
        return BarycenterResult(
            instance, self._dual(), Status.STOPPED, self.nit, (), options.tol, Further(instance, options)
        )

    @property
    def _kind(self) -> str:
        return BarycenterResult.__name__

    def _written(self) -> dict[str, Any]:
        return self.record()._written()

    def __repr__(self) -> str:
        return f"BarycenterIntermediate(nit={self.nit}, eps={self.eps:.4g})"


BarycenterStart = BarycenterResult | BarycenterIntermediate | None


def solve_barycenter(instance: BarycenterInstance, options: Options, init: BarycenterStart) -> BarycenterResult:
    """Anneal from none, or from an earlier result; one measure alone is its own debiased barycenter."""
    if instance.problem.debias and len(instance.active) == 1:
        ending = alone(instance, options)
    else:
        with carrying(instance.problem.kernel):
            ending = verified(instance, annealed(instance, options, init), options)
    return BarycenterResult(
        instance, ending.dual, ending.status, ending.nit, ending.history, options.tol,
        Further(instance, replace(options, callback=None)),
    )  # fmt: skip


def as_result(init: BarycenterStart, place: Place) -> BarycenterResult | None:
    """What a solve starts from, in its library: a result of NumPy, as all are that come from files, serves any."""
    if isinstance(init, BarycenterIntermediate):
        init = init.record()
    if init is None or init.place.xp is place.xp:
        return init
    if not is_of_numpy(init.place):
        raise TypeError("`init` must be a barycenter of the same array library as the measures, or of NumPy")
    return read_barycenter(init._written(), place)


def levels(instance: BarycenterInstance, options: Options, warm_eps: float | None = None) -> Sequence[Level]:
    """The temperatures, each above the target held to HELD, or run once without a tolerance."""
    degree = instance.geometry.degree
    start = replace(options, start=options.start * FIRST**degree, tol=None)
    *hot, target = start.schedule(instance.eps, degree, warm_eps)
    if options.tol is None:
        return (*hot, target)
    held = [Level(level.eps, HELD_STEPS, max(HELD, options.tol)) for level in hot]
    return (*held, Level(target.eps, options.max_iter, options.tol))


def annealed(instance: BarycenterInstance, options: Options, init: BarycenterStart) -> Ending[BarycenterDual]:
    """Down the temperatures; without a tolerance by plain steps, one at each."""
    plain, past = Barycentric(instance.problem), as_result(init, instance.place)
    warm = None if past is None or options.tol is None else warm_start(instance, past, plain)
    schedule = levels(instance, options, None if warm is None else warm.eps)
    state = plain.init(schedule[0].eps) if warm is None else warm
    if options.tol is None:
        return anneal(plain, state, schedule, options.max_iter, watch(instance, options))
    update = MixedBarycenter(plain)
    return anneal(update, update.init(state), schedule, options.max_iter, watch(instance, options))


def warm_start(instance: BarycenterInstance, init: BarycenterResult, plain: Barycentric) -> BarycenterState | None:
    """The state of an earlier result, where that has a potential for every measure.

    At a higher temperature than its own, and from its weights beside those that come of none: where it has left hardly
    any mass, none would come in many steps, and no error would tell.
    """
    past = init.instance
    same, _ = instance.geometry.same_sides(past.geometry)
    if not same or len(past.weights) != len(instance.weights):
        raise ValueError(
            f"`init` must be a barycenter of {len(instance.weights)} measures on the same support, got one of "
            f"{len(past.weights)} on " + ("the same" if same else "another")
        )
    if not set(instance.active) <= set(past.active) or past.problem.debias != plain.problem.debias:
        return None
    xp, found = instance.place.xp, init.found
    f = xp.stack([found.updated[past.active.index(k), ...] for k in instance.active])
    if not bool(xp.all(xp.isfinite(f))) or not bool(xp.all(xp.isfinite(found.log_d))):
        return None
    eps = max(past.eps, instance.eps) * WARMER**instance.geometry.degree
    broad = plain.init(eps).dual.log_a
    log_a = logsumexp(xp.stack([found.log_a, broad], axis=1)) - math.log(2)
    return plain.from_weights(log_a, f, found.log_d, eps)


def alone(instance: BarycenterInstance, options: Options) -> Ending[BarycenterDual]:
    """The measure itself, with the potential of its self-transport."""
    (k,), asked, callback, xp = instance.active, options, options.callback, instance.place.xp
    if callback is not None:
        tell, log_a = callback, instance.problem.measures[0].log_weights

        def observe(record: Intermediate) -> object:
            dual = partial(dual_alone, instance, record.flat("f"), record.eps)
            return tell(
                BarycenterIntermediate(record.nit, record.eps, record.marginal_error, log_a, dual, instance, asked)
            )

        options = replace(options, callback=observe)
    result = self_transport(instance, options, k)
    f = result.source.potential
    status = result.status if bool(xp.all(xp.isfinite(f))) else Status.DIVERGED
    return Ending(dual_alone(instance, f, instance.eps), status, result.nit, result.history)


def dual_alone(instance: BarycenterInstance, f: Array, eps: float) -> BarycenterDual:
    """Of a measure alone and the potential of its self-transport, (n,)."""
    problem = instance.problem
    log_a = problem.measures[0].log_weights
    updated = problem.next_f(f[None, :], eps)
    error = problem.error(log_a, f[None, :], updated, eps)
    return BarycenterDual(log_a, log_a + f / eps, f[None, :], f[None, :], updated, -updated[0, ...] / eps, error, error)


def verified(instance: BarycenterInstance, ending: Ending[BarycenterDual], options: Options) -> Ending[BarycenterDual]:
    """The status that holds of what is returned: where rounding of the kernel may hide more, by steps in float64."""
    problem, dual, xp, eps = instance.problem, ending.dual, instance.place.xp, instance.eps
    if not (bool(xp.all(xp.isfinite(dual.f))) and bool(xp.all(xp.isfinite(dual.log_a)))):
        return replace(ending, status=Status.DIVERGED)
    exact, tol = instance.exact, options.tol
    if ending.status is not Status.CONVERGED or tol is None or problem.rounding(dual.f, dual.log_d, eps) <= tol:
        return ending
    if exact.rounding(dual.f, dual.log_d, eps) > max(tol, dual.marginal_error):
        return replace(ending, status=Status.STALLED)
    if exact is problem or ending.nit >= options.max_iter:
        return ending
    update = MixedBarycenter(Barycentric(exact))
    state = update.init(update.update.going_on(dual.log_d, dual.f, eps, dual))
    level = Level(eps, LAST_STEPS, tol)
    last = anneal(update, state, (level,), options.max_iter, watch(instance, options), ending.nit)
    status = last.status if last.status in (Status.CONVERGED, Status.STOPPED) else Status.STALLED
    return replace(last, status=status, history=(*ending.history, *last.history))


def watch(instance: BarycenterInstance, options: Options) -> Callable[[int, float, Any], object] | None:
    """What observes the steps, plain or mixed."""
    callback = options.callback
    if callback is None:
        return None

    def observe(nit: int, eps: float, state: AcceleratedState | BarycenterState) -> object:
        dual: BarycenterDual = (state.plain if isinstance(state, AcceleratedState) else state).dual
        return callback(
            BarycenterIntermediate(nit, eps, dual.marginal_error, dual.log_a, lambda: dual, instance, options)
        )

    return observe


def self_transport(instance: BarycenterInstance, options: Options, k: int) -> SinkhornResult:
    """Measure k with itself, of mass one."""
    mine, weights = replace(instance, mass=1.0), instance.weights[k]
    tol = PRECISE if options.tol is None else min(options.tol, PRECISE)
    return solve_self(mine.between(weights, weights).source(), replace(options, tol=tol), None)
