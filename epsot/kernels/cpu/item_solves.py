"""Many small problems, one after the other: the solve of each, and what is left of it.

Every kernel runs over the items begin, begin + 1, ... < end of a batch, in memory that one thread has for all of them.
What it writes of an item depends on this item alone.
"""

from __future__ import annotations

import math

import numpy as np

from epsot.kernels.batches import UNSETTLED
from epsot.kernels.cpu.compiled import compiled, spliced, uncounted
from epsot.kernels.cpu.item_slopes import column_slopes, row_slopes, spread_out
from epsot.kernels.cpu.items import (
    ERROR,
    FIRST,
    LOGIT_ERROR,
    MASS,
    NIT,
    START,
    STATUS,
    VALUE,
    open_item,
    start_from,
)
from epsot.kernels.cpu.levels import schedule
from epsot.kernels.cpu.lines import product
from epsot.kernels.cpu.resident import damping, update_both, update_self
from epsot.kernels.cpu.solves import (
    CONVERGED,
    SCHEDULE_ENDED,
    anneal,
    logit_error,
    mass_called_for,
    settle_self,
    shift,
    violation_of,
)


def _descend(room, a, b, own, levels, count, f, g, new_f, new_g):
    """The schedule run once: `Symmetric`, or `SelfTransport` with a last plain update.

    (f, g) becomes the last mean, (new_f, new_g) the update of it.
    """
    n, m = a.size, 0 if own else b.size
    for i in range(n):
        f[i] = 0.0
    for j in range(m):
        g[j] = 0.0
    for number in range(-1, count + 1):  # the first step starts from a plain update
        eps = levels.eps[min(max(number, 0), count - 1)]
        if own:
            update_self(room, a, f, new_f, eps)
        else:
            update_both(room, a, b, f, g, new_f, new_g, eps)
        part = 1.0 if number < 0 else 0.5
        for i in range(n if number < count else 0):
            f[i] += part * (new_f[i] - f[i])
        for j in range(m if number < count else 0):
            g[j] += part * (new_g[j] - g[j])


descend = uncounted(_descend)


def _mass_of_plan(a, f, next_f, eps):
    """sum(P), of potentials and the next f."""
    mass = 0.0
    for i in range(a.size):
        mass += a.weights[i] * math.exp((f[i] - next_f[i] * damping(a, eps)) / eps)
    return mass


mass_of_plan = uncounted(_mass_of_plan)


def _share_of_value(side, f):
    """<a, f>, or rho <a, 1 - exp(-f / rho)>"""
    if side.rho == np.inf:
        return product(side.weights, f, side.width)
    total = 0.0
    for i in range(side.size):
        total += side.weights[i] * math.expm1(-f[i] / side.rho)
    return -side.rho * total


share_of_value = spliced(_share_of_value)


def _representable(side, f):
    """Whether the mass that f calls for is one to compute with."""
    if side.rho == np.inf:
        return True
    least = np.inf
    for i in range(side.size):
        least = min(least, f[i])
    return -least / side.rho < 300.0


representable = spliced(_representable)


def _resolved(status, error, f, g, a, b, rules, tol):
    """Whether the solver would leave it at this error of the exponents: `verification.verified` finds nothing."""
    if not (math.isfinite(error) and representable(a, f) and representable(b, g)):
        return False
    if status != CONVERGED and rules.precision + error > rules.unresolved:
        return False
    return tol < 0.0 or rules.ulps * (rules.precision + error) <= tol


resolved = spliced(_resolved)


def _left(count, kept, z, first, out):
    """out[first + kept[i]] = z[i]"""
    for i in range(count):
        out[first + kept[i]] = z[i]


left = spliced(_left)


def _conclude(numbers, p, status, nit, error, rounding, mass, value):
    numbers[p, STATUS], numbers[p, NIT], numbers[p, ERROR], numbers[p, LOGIT_ERROR] = status, nit, error, rounding
    numbers[p, MASS], numbers[p, VALUE] = mass, value


conclude = spliced(_conclude)


def _transport_items(
    items, asked, rules, room, place, memory, ends, levels, begin, end, out, numbers, errors, eps_of, slopes
):  # fmt: skip
    """Each item to its tolerance. -> how many errors were measured

    out: f, g, nothing, and next_g(f). slopes: of both sides, where they are asked for. errors, eps_of: one item after
    the other, from numbers[p, FIRST] on.
    """
    cursor, tol, max_iter = 0, asked.tol, asked.max_iter
    for p in range(begin, end):
        eps = items.eps[p]
        a, b, fine, start = open_item(items, p, asked, room, place, memory, ends, False)
        numbers[p, STATUS], numbers[p, FIRST], numbers[p, START] = UNSETTLED, cursor, start
        if not fine:
            continue
        first = start_from(items, p, a, b, place, ends.f[0], ends.start, start)
        count = schedule(rules, first, start, eps, asked.degree, asked.scaling, tol, max_iter, levels)
        if count == 0:
            continue
        status, nit, chosen, error = anneal(
            room, memory, rules, a, b, levels, count, max_iter, ends, errors[cursor:], eps_of[cursor:]
        )
        f, g, updated = ends.f[chosen], ends.g[chosen], ends.updated[chosen]
        rounding = 2.0 * logit_error(f, g, a, b, eps, room.ends)
        if status == UNSETTLED or not resolved(status, rounding, f, g, a, b, rules, tol):
            continue
        cursor += nit
        c = shift(a, b, f, g) if a.rho == np.inf and b.rho == np.inf else 0.0
        for i in range(a.size):
            f[i] += c
        for j in range(b.size):
            g[j] -= c
            updated[j] -= c
        mass = mass_called_for(a, f)
        value = share_of_value(a, f) + share_of_value(b, g) - eps * (mass - a.mass * b.mass)
        conclude(numbers, p, status, nit, error, rounding, mass, value)
        left(a.size, place.kept_a, f, items.first[4, p], out[0])
        left(b.size, place.kept_b, g, items.first[5, p], out[1])
        left(b.size, place.kept_b, updated, items.first[5, p], out[3])
        if asked.slopes:
            spread_out(place, items, a, b)
            row_slopes(items, p, room, place, a, b, f, g, f, eps, slopes[0])
            column_slopes(items, p, room, place, a, b, f, updated, eps, slopes[1])
    return cursor


transport_items = compiled(_transport_items, _nrt=False)


def _self_items(
    items, asked, rules, room, place, memory, ends, levels, begin, end, out, numbers, errors, eps_of, slopes
):  # fmt: skip
    """Each first measure with itself to its tolerance. -> as `transport_items`; out: f, nothing, and next_f(f)."""
    cursor = 0
    for p in range(begin, end):
        eps = items.eps[p]
        a, _, fine, start = open_item(items, p, asked, room, place, memory, ends, True)
        numbers[p, STATUS], numbers[p, FIRST], numbers[p, START] = UNSETTLED, cursor, start
        if not fine:
            continue
        f, updated = ends.f[0], ends.f[1]
        start_from(items, p, a, a, place, ends.f[2], ends.start, start)
        status, nit, error = settle_self(
            room, memory, rules, a, eps, asked.tol, asked.max_iter, items.warm[p], f, updated, ends.f[2],
            errors[cursor:], eps_of[cursor:],
        )  # fmt: skip
        rounding = 2.0 * logit_error(f, f, a, a, eps, room.ends)
        if status == UNSETTLED or not resolved(status, rounding, f, f, a, a, rules, asked.tol):
            continue
        cursor += nit
        mass = memory.numbers[1]
        value = 2.0 * share_of_value(a, f) - eps * (mass - a.mass * a.mass)
        conclude(numbers, p, status, nit, error, rounding, mass, value)
        left(a.size, place.kept_a, f, items.first[4, p], out[0])
        left(a.size, place.kept_a, updated, items.first[4, p], out[2])
        if asked.slopes:
            spread_out(place, items, a, a)
            row_slopes(items, p, room, place, a, a, f, f, updated, eps, slopes[0])
    return cursor


self_items = compiled(_self_items, _nrt=False)


def _schedule_items(
    items, asked, rules, room, place, memory, ends, levels, begin, end, out, numbers, errors, eps_of, slopes
):  # fmt: skip
    """Each item down its schedule once. -> 0; out: f, g, and the pair of which these are the update."""
    own = items.own
    for p in range(begin, end):
        eps = items.eps[p]
        a, b, fine, start = open_item(items, p, asked, room, place, memory, ends, own)
        numbers[p, STATUS], numbers[p, START] = UNSETTLED, start
        if not fine:
            continue
        f, g, past_f, past_g = ends.f[0], ends.g[0], ends.f[1], ends.g[1]
        next_f, next_g = ends.f[2], ends.g[2]
        count = schedule(rules, start, start, eps, asked.degree, asked.scaling, -1.0, asked.max_iter, levels)
        if count == 0:
            continue
        descend(room, a, b, own, levels, count, past_f, past_g, f, g)
        if own:
            update_self(room, a, f, next_f, eps)
            g, next_g = f, next_f
        else:
            update_both(room, a, b, f, g, next_f, next_g, eps)
        mass = mass_of_plan(a, f, next_f, eps)
        error = max(violation_of(a, f, next_f, eps, room, memory), violation_of(b, g, next_g, eps, room, memory))
        rounding = 2.0 * logit_error(f, g, a, b, eps, room.ends)
        if not math.isfinite(error) or not resolved(SCHEDULE_ENDED, rounding, f, g, a, b, rules, -1.0):
            continue
        c = shift(a, b, f, g) if a.rho == np.inf and b.rho == np.inf and not own else 0.0
        for i in range(a.size if c != 0.0 else 0):
            f[i] += c
            past_f[i] += c
        for j in range(b.size if c != 0.0 else 0):
            g[j] -= c
            past_g[j] -= c
        value = share_of_value(a, f) + share_of_value(b, g) - eps * (mass - a.mass * b.mass)
        conclude(numbers, p, SCHEDULE_ENDED, count, error, rounding, mass, value)
        left(a.size, place.kept_a, f, items.first[4, p], out[0])
        left(a.size, place.kept_a, past_f, items.first[4, p], out[2])
        if not own:
            left(b.size, place.kept_b, g, items.first[5, p], out[1])
            left(b.size, place.kept_b, past_g, items.first[5, p], out[3])
    return 0


schedule_items = compiled(_schedule_items, _nrt=False)
