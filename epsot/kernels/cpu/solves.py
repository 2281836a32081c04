"""Whole solves of one small problem in compiled code, with the schedule and all decisions of the solver.

`anneal` is `solver.loop.anneal` over `ConjugateResiduals(Alternating)`, `settle_self` over `SelfTransport`. Where the
solver would look closer than here, they say so, and the solver does the solve.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.batches import UNSETTLED
from epsot.kernels.cpu.chunks import compare_weights, settle_comparison
from epsot.kernels.cpu.compiled import spliced, uncounted
from epsot.kernels.cpu.dense import add_columns
from epsot.kernels.cpu.lines import bounds, logarithms, product
from epsot.kernels.cpu.mixing import begin_anew, mix, rescale
from epsot.kernels.cpu.resident import LOG_2, alternate, damping, update_self

CONVERGED, SCHEDULE_ENDED, MAX_ITER = range(3)  # as in `epsot.status`


class Ends(NamedTuple):
    """Potentials that are kept: the step at hand and the best one in turn, and the best of a lower temperature.

    They are padded by 0.
    """

    f: Any  # (3, n)
    g: Any  # (3, m)
    updated: Any  # (3, m)
    result: Any  # (3, m)
    start: Any  # (m,)
    past: Any  # (2, m): the ends of the last two temperatures
    past_eps: Any  # (2,)


def _rests(errors, begin, end, steps, factor):
    """Whether none of the last `steps` errors[begin:end] is below `factor` times the one before them."""
    if end - begin <= steps:
        return False
    least = errors[end - 1]
    for k in range(end - steps, end - 1):
        least = min(least, errors[k])
    return least >= factor * errors[end - steps - 1]


rests = spliced(_rests)


def _logit_error(f, g, a, b, eps, ends):
    """Of exponents by the rounding of f and g to float64."""
    bounds(f, a.width, ends)
    largest_f = max(-ends[0], ends[1])
    bounds(g, b.width, ends)
    largest_g = max(-ends[0], ends[1])
    return 2.0**-53 * (largest_f * (1.0 / eps + 1.0 / a.rho) + largest_g * (1.0 / eps + 1.0 / b.rho))


logit_error = uncounted(_logit_error)


def _mass_called_for(side, f):
    """sum a exp(-f / rho)"""
    if side.rho == np.inf:
        return side.mass
    mass = 0.0
    for i in range(side.size):
        mass += side.weights[i] * math.exp(-f[i] / side.rho)
    return mass


mass_called_for = uncounted(_mass_called_for)


def _shift(a, b, f, g):
    """The best constant: `Problem.dual_shift`."""
    if a.rho == np.inf and b.rho == np.inf:
        return (product(b.weights, g, b.width) - product(a.weights, f, a.width)) / (a.mass + b.mass)
    low_f, low_g, of_f, of_g = np.inf, np.inf, 0.0, 0.0
    for i in range(a.size):
        low_f = min(low_f, f[i])
    for j in range(b.size):
        low_g = min(low_g, g[j])
    for i in range(a.size):
        of_f += a.weights[i] * math.exp((low_f - f[i]) / a.rho)
    for j in range(b.size):
        of_g += b.weights[j] * math.exp((low_g - g[j]) / b.rho)
    rho = 1.0 / (1.0 / a.rho + 1.0 / b.rho)
    top_f = 0.0 if a.rho == np.inf else low_f / a.rho
    top_g = 0.0 if b.rho == np.inf else low_g / b.rho
    return rho * (math.log(of_f) - top_f - math.log(of_g) + top_g)


shift = uncounted(_shift)


def _ease(room, memory, rules, a, b, f, g, updated, eps):
    """`ConjugateResiduals.check_columns`: the scale of columns that nearly belong to one row.  -> whether there are any

    1 - sum_i P[i, j]^2 / (rows[i] columns[j]): the squares are those of the entries of the matrix.
    """
    scale, damp, damps = 1.0 / (LOG_2 * eps), damping(b, eps), damping(a, eps) * damping(b, eps)
    sums, factors, z, logs = room.column_sums, room.row_weights, room.lines[2], room.lines[3]
    for j in range(b.width):
        sums[j] = 0.0
    for i in range(a.size, a.width):
        factors[i] = 0.0
    for i in range(a.size):
        power = 2.0 * (f[i] * scale - room.row_reference[i]) + f[i] / (a.rho * LOG_2)
        factors[i] = a.weights[i] * 2.0 ** min(power, 100.0)
    add_columns(True, room.matrix, 0, a.size, factors, b.width, sums)
    for j in range(b.width):
        z[j] = sums[j] if j < b.size and sums[j] > 2.0**-120 else 1.0
    logarithms(z, b.width, logs)
    found, free = False, math.log(damps * (1.0 - rules.tied)) - 1e-9
    for j in range(b.size):
        share = logs[j] - 2.0 * room.column_reference[j] * LOG_2
        exponent = b.logs[j] + (g[j] + updated[j] * damp) / eps + share
        memory.scale[j] = 1.0
        if sums[j] <= 2.0**-120 or exponent < free:  # most columns: their exponential would say no more
            continue
        left = max(1.0 - math.exp(min(exponent, 1.0)) / damps, 0.0) / rules.tied
        found |= left < 1.0
        memory.scale[j] = max(min(left, 1.0), rules.least)
    return found


ease = uncounted(_ease)


def _violation_of(side, f, next_f, eps, room, memory):
    """The marginal error of one side; the mass of the plan is left in numbers[1]."""
    line, slope = memory.partial[0, 0], 1.0 / eps + 1.0 / side.rho
    compare_weights(side.weights, side.logs, f, next_f, slope, side.rho, side.width, room.lines[0], room.lines[1], line)
    settle_comparison(memory.partial[0, :1], memory.numbers)
    return memory.numbers[0]


violation_of = spliced(_violation_of)


def _copy(z, count, out):
    for j in range(count):
        out[j] = z[j]


copy = uncounted(_copy)


def _new_start(ends, b, eps, past_eps, known):
    """The g at a lower temperature, extrapolated linearly from the ends of two others.  -> how many ends are known"""
    past, at, start = ends.past, ends.past_eps, ends.start
    if known == 2:
        copy(past[1], b.size, past[0])
        at[0] = at[1]
        known = 1
    copy(start, b.size, past[known])
    at[known] = past_eps
    known += 1
    if known == 2:
        part = (eps - at[1]) / (at[1] - at[0])
        for j in range(b.size):
            start[j] = past[1, j] + (past[1, j] - past[0, j]) * part
    return known


new_start = uncounted(_new_start)


def _anneal(room, memory, rules, a, b, levels, count, max_iter, ends, errors, temperatures):
    """From ends.f[0] and ends.start down the schedule.

    -> status, iterations, which of `ends` is to be returned, its error; UNSETTLED where the solver has to look
    """
    n, m, balanced = a.size, b.size, a.rho == np.inf and b.rho == np.inf
    nit, status, eps, known = 0, MAX_ITER, levels.eps[0], 0
    best, cold, cold_eps, cold_error = -1, -1, 0.0, np.inf
    steps, waited, plain, length, check = 0, 0, 0, 2 * rules.patience, rules.long
    lowest, norm_of_lowest, error = np.inf, np.inf, np.inf
    last = count - 1
    target = levels.eps[last]
    rescale(memory, b, False)
    f_of = 0  # which holds the last f
    for number in range(count):
        left = min(levels.steps[number], max_iter - nit - (0 if number == last else 1))
        if left <= 0:
            continue
        begin, status = nit, MAX_ITER
        if levels.eps[number] != eps:
            begin_anew(memory, b)
            if levels.eps[number] > eps:
                if best >= 0:
                    cold, cold_eps, cold_error = best, eps, lowest
                known = 0
            else:
                known = new_start(ends, b, levels.eps[number], eps, known)
            eps, best, steps, waited, plain, length, check = (
                levels.eps[number], -1, 0, 0, 0, 2 * rules.patience, rules.long,
            )  # fmt: skip
            lowest = norm_of_lowest = np.inf
        while left > 0:
            if nit == len(errors):
                return UNSETTLED, nit, 0, error
            set_ = 0
            while set_ == best or set_ == cold:  # noqa: SIM109 - a tuple of integers is slow to compile
                set_ += 1
            f, g, updated, result = ends.f[set_], ends.g[set_], ends.updated[set_], ends.result[set_]
            if set_ != f_of:
                copy(ends.f[f_of], n, f)
            f_of = set_
            copy(ends.start, m, g)
            alternate(room, a, b, f, g, updated, eps)
            moved = 0.0 if balanced else shift(a, b, f, updated)
            for j in range(m):
                result[j] = updated[j] - moved
            if plain == 0 and steps + 1 == check:
                check *= 3
                if ease(room, memory, rules, a, b, f, g, updated, eps):
                    rescale(memory, b, True)
                    norm_of_lowest = np.inf
            if plain > 0:
                error, norm = violation_of(b, g, updated, eps, room, memory), 0.0
                copy(result, m, ends.start)
            else:
                error, norm = mix(memory, b, g, updated, result, eps, balanced, ends.start)
            if error < lowest:
                best, lowest, waited = set_, error, -1
            steps += 1
            if plain > 0:
                waited, plain = 0, (plain + 1) % (length // 2 + 1)
            elif math.isfinite(error):
                waited = 0 if norm < norm_of_lowest else waited + 1
                if waited >= rules.patience:
                    begin_anew(memory, b)
                    chosen = set_ if best < 0 else best
                    copy(ends.result[chosen], m, ends.start)
                    f_of, norm_of_lowest, waited, plain, length = chosen, np.inf, 0, 1, 2 * length
                else:
                    norm_of_lowest = min(norm, norm_of_lowest)
            errors[nit], temperatures[nit] = error, eps
            nit += 1
            left -= 1
            if not math.isfinite(error):
                return UNSETTLED, nit, set_, error
            if error <= levels.tol[number]:
                status = CONVERGED
                break
            if rests(errors, begin, nit, rules.still_steps, rules.still_factor):
                rounding = rules.precision + logit_error(f, g, a, b, eps, room.ends)
                if error <= rules.ulps * rounding:
                    return UNSETTLED, nit, set_, error
            stuck = plain > 0 or rests(errors, begin, nit, rules.slow_steps, rules.slow_factor)
            if stuck and error > levels.give_up_above[number]:
                status = MAX_ITER
                break
        if eps == target and status == CONVERGED:
            break
    chosen = set_ if best < 0 else best
    if cold >= 0 and cold_eps == eps and cold_error < lowest:
        chosen, lowest = cold, cold_error
    return status, nit, chosen, lowest


anneal = uncounted(_anneal, inline="always")


def _settle_self(room, memory, rules, a, eps, tol, max_iter, warm, f, updated, mean, errors, temperatures):
    """A measure with itself from `mean`, or if that is nothing, from its update: `SelfTransport`.

    -> status, iterations, error
    """
    n, error = a.size, np.inf
    for nit in range(0 if warm else -1, max_iter):
        if nit == len(errors):
            return UNSETTLED, nit, error
        copy(mean, n, f)
        update_self(room, a, f, updated, eps)
        if nit < 0:
            copy(updated, n, mean)
            continue
        error = violation_of(a, f, updated, eps, room, memory)
        for i in range(n):
            mean[i] = (f[i] + updated[i]) / 2.0
        errors[nit], temperatures[nit] = error, eps
        if not math.isfinite(error):
            return UNSETTLED, nit + 1, error
        if error <= tol:
            return CONVERGED, nit + 1, error
        resting = rests(errors, 0, nit + 1, rules.halving_steps, rules.halving_factor)
        if resting and error <= rules.ulps * (rules.precision + logit_error(f, f, a, a, eps, room.ends)):
            return UNSETTLED, nit + 1, error
    return MAX_ITER, max_iter, error


settle_self = uncounted(_settle_self, inline="always")
