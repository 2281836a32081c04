"""Accelerated alternating updates of many problems: `ConjugateResiduals` with a batch axis and masks for branches.

Every rule and safeguard is that of `epsot.solver.acceleration`, for each problem by itself. What decides is a `Ledger`
on the host; of each step the host reads two numbers a problem, at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from epsot.arrays import Place, to_numpy
from epsot.costs import Array
from epsot.kernels.item_bursts import ManyIterates, Measured, Records
from epsot.kernels.mixing import Memory, Weighed, advance, no_memory
from epsot.problems.many import Chosen, Problems, Record, merged
from epsot.solver.acceleration import LARGE, LEAST, LONG, SLOW, STILL, TIED
from epsot.solver.many.courses import GO_ON, Courses, Levels
from epsot.solver.many.updates import Duals, Update, begun
from epsot.solver.updates import PATIENCE, Pair
from epsot.status import Status


class Step(NamedTuple):
    """Alternating steps: f = next_f(g), updated = next_g(f), and the g of the next step."""

    f: Array
    g: Array
    updated: Array
    start: Array


class Ledger(NamedTuple):
    """Where each problem stands, arrays (B,) on the host; as in `AcceleratedState`."""

    eps: np.ndarray
    steps: np.ndarray  # at this temperature
    error: np.ndarray
    lowest_error: np.ndarray  # at this temperature; inf: there is no best step yet
    lowest_norm: np.ndarray
    waited: np.ndarray  # mixed steps that lowered neither
    plain_steps: np.ndarray  # of the plain series under way, 0: mixing
    plain_length: np.ndarray
    next_check: np.ndarray
    eased: np.ndarray  # whether columns are
    forgotten: np.ndarray  # whether the next step starts without a memory
    levels: np.ndarray  # temperatures whose last potentials are known, 0 to 2
    past_eps: np.ndarray  # (B, 2) these
    coldest_eps: np.ndarray  # of the best step before a reheating, NaN: there was none
    coldest_error: np.ndarray

    @classmethod
    def at(cls, eps: np.ndarray) -> Ledger:
        """At a new temperature, of a problem of which nothing else is known."""
        none, never, infinite = np.zeros(len(eps), int), np.zeros(len(eps), bool), np.full(len(eps), np.inf)
        return cls(
            eps, none, infinite, infinite, infinite, none, none, none + 2 * PATIENCE, none + LONG, never, ~never, none,
            np.ones((len(eps), 2)), infinite * np.nan, infinite,
        )  # fmt: skip

    def where(self, mask: np.ndarray, other: Ledger) -> Ledger:
        """The entries of another where a mask is true."""
        lifted = (mask[:, None] if column.ndim == 2 else mask for column in self)
        return Ledger(*(np.where(here, new, old) for here, new, old in zip(lifted, other, self, strict=True)))


class State(NamedTuple):
    plain: Step  # the last one
    best: Step  # of the lowest error at this temperature, where there is one
    memory: Memory
    ledger: Ledger
    past: Pair  # g at the ends of the last two temperatures
    scale: Array | None  # (B, m) of eased columns
    coldest: Step | None  # the best before a reheating


@dataclass(frozen=True)
class ConjugateResiduals(Update):
    """Mixes the last steps of each problem so that the residual is smallest, as if it were linear in g."""

    def init(self, problems: Problems, eps: np.ndarray, f: Array | None, g: Array | None, warm: np.ndarray) -> State:
        f, g = begun(problems, f, g, warm)
        plain = Step(f, g, g, g)
        return State(plain, plain, no_memory(g), Ledger.at(eps), (g, g), None, None)

    def step(self, problems: Problems, state: State, eps: np.ndarray) -> State:
        if (eps != state.ledger.eps).any():
            state = self.new_levels(problems, state, eps)
        cold = problems.a.on_device(eps)
        plain, ledger = alternate(problems, state.plain.start, cold), state.ledger
        mixing = ledger.plain_steps == 0
        checked = mixing & (ledger.steps + 1 == ledger.next_check)
        if checked.any():
            state = self.check_columns(problems, state, plain, checked)
        error = problems.b.violation(plain.g, plain.updated, cold)
        if not mixing.any():
            return self.measured(problems, state, plain, None, to_numpy(error), np.full(problems.count, np.inf))
        memory, forgotten = state.memory, state.ledger.forgotten
        if forgotten.any():
            memory = memory._replace(known=memory.known & problems.a.on_device(~forgotten))
        mixed = advance(weighed(problems, state), memory, plain.g, plain.start, cold)
        errors, norms = to_numpy(problems.place.xp.stack([error, mixed.norm]))  # the one reading of the step
        state = state._replace(memory=mixed.memory)
        return self.measured(problems, state, plain, mixed.start, errors, norms)

    def run(self, problems: Problems, state: State, levels: Levels) -> tuple[State, Measured]:
        """Several mixed steps of each problem where the backend has them; of others one that is not of that kind."""
        bursts = problems.bursts
        if bursts is None:
            return self.one(problems, state, levels)
        if (levels.eps != state.ledger.eps).any():
            state = self.new_levels(problems, state, levels.eps)
        ledger, place = state.ledger, problems.place
        usual = np.where(ledger.plain_steps > 0, 0, np.minimum(levels.left, ledger.next_check - ledger.steps - 1))
        others = (levels.left > 0) & (usual < 1)
        errors, counts = np.full((problems.count, 1), np.nan), np.zeros(problems.count, int)
        if (usual > 0).any():
            memory = state.memory._replace(known=state.memory.known & problems.a.on_device(~ledger.forgotten))
            made = bursts.alternate(
                weighed(problems, state), memory, state.plain, state.best,
                Records(ledger.lowest_error, ledger.lowest_norm, ledger.waited), PATIENCE,
                levels.rules(usual, STILL, SLOW),
            )  # fmt: skip
            state, (errors, counts) = self.absorb(problems, state, made), made.measured
        if others.any():
            numbers = np.flatnonzero(others)
            chosen, rows = Chosen.of(numbers, place), np.zeros(problems.count, int)
            rows[numbers] = np.arange(len(numbers))
            if state.scale is None:  # they may be the first whose columns are eased
                state = state._replace(scale=place.xp.ones_like(state.plain.g))
            part = self.step(problems.take(chosen), chosen.of_record(state), levels.eps[numbers])
            state = spread(others, Chosen.of(rows, place).of_record(part), state, place)
            errors[numbers, 0], counts[numbers] = part.ledger.error, 1
        return state, Measured(errors, counts)

    @staticmethod
    def absorb(problems: Problems, state: State, made: ManyIterates) -> State:
        """After steps that the backend has made."""
        ledger, record, retreats = state.ledger, made.record, made.retreats
        ran, best = made.measured.made, Step(*made.best)
        plain = merged(retreats & (record.error < np.inf), best, Step(*made.last), problems.place)
        ledger = ledger._replace(
            steps=ledger.steps + made.measured.counts, error=np.where(ran, made.measured.last, ledger.error),
            lowest_error=record.error, lowest_norm=np.where(retreats, np.inf, record.norm),
            waited=np.where(retreats, 0, record.waited).astype(int),
            plain_steps=np.where(retreats, 1, ledger.plain_steps),
            plain_length=np.where(retreats, 2, 1) * ledger.plain_length,
            eased=ledger.eased & ~retreats, forgotten=np.where(ran, retreats, ledger.forgotten),
        )  # fmt: skip
        return state._replace(plain=plain, best=best, memory=made.memory, ledger=ledger)

    @staticmethod
    def measured(
        problems: Problems, state: State, plain: Step, start: Array | None, error: np.ndarray, norm: np.ndarray
    ) -> State:
        """After one more plain step, which may be the best yet: go on from `start`, the mixed one, or retreat."""
        ledger, place = state.ledger, problems.place
        mixing = ledger.plain_steps == 0
        better = error < ledger.lowest_error
        best, lowest_error = merged(better, plain, state.best, place), np.where(better, error, ledger.lowest_error)
        waited = np.where(better, -1, ledger.waited)
        waited = np.where(mixing & ~(norm < ledger.lowest_norm), waited + 1, 0)
        took = mixing & np.isfinite(error)
        retreats = took & (waited >= PATIENCE)
        if start is not None:
            plain = plain._replace(start=merged(took & ~retreats, start, plain.start, place))
        plain = merged(retreats & (lowest_error < np.inf), best, plain, place)
        lowest_norm = np.where(took & ~(ledger.lowest_norm < norm), norm, ledger.lowest_norm)
        series = (ledger.plain_steps + 1) % (ledger.plain_length // 2 + 1)
        ledger = ledger._replace(
            steps=ledger.steps + 1, error=error, lowest_error=lowest_error,
            lowest_norm=np.where(retreats, np.inf, lowest_norm), waited=np.where(retreats, 0, waited),
            plain_steps=np.where(mixing, retreats, series),
            plain_length=np.where(retreats, 2, 1) * ledger.plain_length,
            eased=ledger.eased & ~retreats, forgotten=~mixing | retreats,
        )  # fmt: skip
        return state._replace(plain=plain, best=best, ledger=ledger)

    @staticmethod
    def check_columns(problems: Problems, state: State, plain: Step, checked: np.ndarray) -> State:
        """Ease the columns that nearly belong to one row, in the problems whose turn it is: a sweep over these."""
        place, ledger, xp = problems.place, state.ledger, problems.place.xp
        numbers = np.flatnonzero(checked)
        chosen = Chosen.of(numbers, place)
        part, step = problems.take(chosen), chosen.of_record(plain)
        leaving = part.leaving(step.f, step.g, step.updated, part.a.on_device(ledger.eps[numbers])) / TIED
        found = to_numpy(xp.any(leaving < 1, axis=-1))
        ledger = ledger._replace(next_check=np.where(checked, 3 * ledger.next_check, ledger.next_check))
        if not found.any():
            return state._replace(ledger=ledger)
        slow = checked.copy()
        slow[numbers] = found
        ones = xp.ones_like(leaving)
        leaving = xp.where(leaving < 1, leaving, ones)
        leaving = xp.where(leaving > LEAST, leaving, LEAST * ones)
        rows = np.zeros(problems.count, int)
        rows[numbers] = np.arange(len(numbers))
        spread = xp.take(leaving, problems.a.on_device(rows), axis=0)
        scale = merged(slow, spread, xp.ones_like(plain.g) if state.scale is None else state.scale, place)
        ledger = ledger._replace(
            lowest_norm=np.where(slow, np.inf, ledger.lowest_norm), eased=ledger.eased | slow,
            forgotten=ledger.forgotten | slow,
        )  # fmt: skip
        return state._replace(ledger=ledger, scale=scale)

    def new_levels(self, problems: Problems, state: State, eps: np.ndarray) -> State:
        """Where a temperature is new: a state without directions, and if it is lower, the potential extrapolated."""
        ledger, place, (g_0, g_1) = state.ledger, problems.place, state.past
        turned, hotter = eps != ledger.eps, eps > ledger.eps
        colder = turned & ~hotter
        start = centred(problems, state.plain.start, ledger.eps, np.where(turned, eps, np.inf))
        kept, coldest = hotter & (ledger.lowest_error < np.inf), state.coldest
        if kept.any():
            coldest = merged(kept, state.best, state.best if coldest is None else coldest, place)
        new = Ledger.at(eps)._replace(
            coldest_eps=np.where(kept, ledger.eps, ledger.coldest_eps),
            coldest_error=np.where(kept, ledger.lowest_error, ledger.coldest_error),
            levels=np.where(colder, np.minimum(ledger.levels + 1, 2), 0),
            past_eps=np.where(colder[:, None], np.stack([ledger.past_eps[:, 1], ledger.eps], axis=1), 1.0),
        )
        past = merged(colder, (g_1, start), (g_0, g_1), place)
        two = colder & (new.levels == 2)
        if two.any():
            (eps_0, eps_1), ones = np.where(two[:, None], new.past_eps, [2.0, 1.0]).T, np.ones_like(eps)
            ratio = problems.a.on_device(np.where(two, (eps - eps_1) / (eps_1 - eps_0), ones))[:, None]
            start = merged(two, past[1] + (past[1] - past[0]) * ratio, start, place)
        ledger = ledger.where(turned, new)
        return state._replace(plain=state.plain._replace(start=start), ledger=ledger, past=past, coldest=coldest)

    def errors(self, problems: Problems, state: State, eps: np.ndarray) -> np.ndarray:
        return state.ledger.error

    def verdict(self, problems: Problems, state: State, courses: Courses, ids: np.ndarray) -> np.ndarray:
        """STALLED where only rounding can be the reason; MAX_ITER where plain steps have taken over, or might."""
        error, eps = courses.errors[ids, -1], courses.eps[ids]
        stuck = (state.ledger.plain_steps > 0) | courses.found(SLOW, ids)
        verdict = np.where(stuck & (error > courses.give_up_above[ids]), int(Status.MAX_ITER), GO_ON)
        still = courses.found(STILL, ids)
        if still.any():
            still &= error <= problems.rounding(state.plain.f, state.plain.g, eps)
        return np.where(still, int(Status.STALLED), verdict)

    def pair(self, state: State) -> Pair:
        return state.plain.f, state.plain.g

    def kept(self, problems: Problems, state: State, eps: np.ndarray) -> tuple[tuple[Array, ...], np.ndarray]:
        """The best pairs that were measured at their temperatures."""
        ledger, place = state.ledger, problems.place
        measured = ledger.lowest_error < np.inf
        best, error = (
            merged(measured, state.best, state.plain, place),
            np.where(measured, ledger.lowest_error, ledger.error),
        )
        if state.coldest is not None:
            colder = (ledger.coldest_eps == eps) & (ledger.coldest_error < ledger.lowest_error)
            best, error = merged(colder, state.coldest, best, place), np.where(colder, ledger.coldest_error, error)
        return best[:3], error

    def finish(self, problems: Problems, kept: tuple[Array, ...], eps: Array) -> Duals:
        f, g, updated = kept
        mass = problems.place.xp.sum(problems.a.called_for(f), axis=-1)
        return Duals(f, g, g_map=(updated, f), mass=mass)


def alternate(problems: Problems, g: Array, eps: Array) -> Step:
    """A plain step; unbalanced problems then move along the best constant shift."""
    f = problems.next_f(g, eps)
    updated = problems.next_g(f, eps)
    if problems.balanced.all():
        return Step(f, g, updated, updated)
    return Step(f, g, updated, problems.b.counted(updated - problems.mass_shift(f, updated)[:, None]))


def weighed(problems: Problems, state: State) -> Weighed:
    """The side that is mixed, and where its columns are eased."""
    b, balanced, eased = problems.b, problems.balanced, state.ledger.eased
    return Weighed(
        b.weights,
        b.masses,
        b.on_device(balanced)[:, None] if balanced.any() else None,
        state.scale,
        b.on_device(eased)[:, None] if eased.any() else None,
    )


def spread(mask: np.ndarray, part: State, state: State, place: Place) -> State:
    """The entries of another state where a mask is true, both after the temperatures were new."""

    def of(new: Record, old: Record) -> Record:
        return merged(mask, new, old, place)

    return state._replace(
        plain=of(part.plain, state.plain), best=of(part.best, state.best), memory=of(part.memory, state.memory),
        ledger=state.ledger.where(mask, part.ledger), scale=of(part.scale, state.scale),
    )  # fmt: skip


def centred(problems: Problems, start: Array, past: np.ndarray, eps: np.ndarray) -> Array:
    """Potentials near zero again, where costs or temperatures may have left a constant that hides what matters at eps.

    No problem is centred at a temperature of inf.
    """
    large = LARGE * problems.scale
    hidden = problems.balanced & np.isfinite(eps) & ((problems.scale > LARGE * eps) | ((past > large) & (large > 0)))
    if not hidden.any():
        return start
    return problems.b.counted(start - problems.only(hidden, problems.b.median(start))[:, None])
