"""The kernels of `between`: sums over vectors of any length, by chunks of fixed length, and what follows from them.

A kernel runs over the chunks begin, begin + 1, ... < end, and leaves a line of `partial` for each; to settle is to add
these up in their order. So no bit depends on how chunks are dealt to threads. `advance` makes a step in several stages.
"""

from __future__ import annotations

import math

import numpy as np

from epsot.kernels.cpu.compiled import compiled, spliced, uncounted
from epsot.kernels.cpu.lines import (
    LINE,
    largest,
    misses,
    misses_of_step,
    misses_of_weights,
    sum_of_exponentials,
)
from epsot.kernels.cpu.passes import exponents, mean
from epsot.kernels.reference import MAX_EXPONENT

CHUNK = 1024  # points: the three lines that a kernel needs stay in the L1 cache
TOP, MISSED, OF_PLAN, CALLED_FOR, MEAN = range(5)  # of a comparison of p and m, and of the residual of a step
ERROR, MASS = range(2)  # what follows from these
MODERATE, HEAVIEST = 100.0, 1e200  # exponents and masses whose powers and products are float64


def _density(log_b, g, eps, out, begin, end):
    """out = log b + g / eps, over the numbers begin, ... < end."""
    log_b, g, out = log_b[begin:end], g[begin:end], out[begin:end]
    for j in range(len(out)):
        out[j] = log_b[j] + g[j] / eps


density = compiled(_density)


def _extent(chunk, n):
    """The first number of a chunk, how many it has, and how many there are with the padding."""
    first = chunk * CHUNK
    count = min(CHUNK, n - first)
    return first, count, -(-count // LINE) * LINE


extent = uncounted(_extent)


def _put_aside(z, first, count, width, fill, line):
    """line = z[first : first + count], padded."""
    for j in range(count):
        line[j] = z[first + j]
    for j in range(count, width):
        line[j] = fill


put_aside = uncounted(_put_aside)


def _compare(log_a, f, next_f, slope, rho, first, width, exponent, larger, line):
    """How p differs from m: TOP, MISSED, OF_PLAN and CALLED_FOR, over the largest of their terms.

    Over numbers that are padded, log_a by -inf and potentials by 0.
    """
    top = exponents(log_a, f, next_f, slope, rho, first, width, exponent, larger)
    line[TOP] = top
    misses(exponent, larger, width, top if top > -np.inf else 0.0, line, MISSED)


compare = spliced(_compare)


def _moderate(furthest, line):
    """Whether sums of weights and their products are right: of exponents at most so large, and masses in the range."""
    return furthest <= MODERATE and 1.0 / HEAVIEST < line[CALLED_FOR] < HEAVIEST


moderate = spliced(_moderate)


def _compare_weights(weights, log_a, f, next_f, slope, rho, width, exponent, larger, line):
    """`compare` of one chunk whose weights are at hand: in balanced transport one exponential then serves both."""
    furthest = np.inf
    if rho == np.inf:
        furthest = misses_of_weights(weights, f, next_f, slope, width, line, TOP)
    if not moderate(furthest, line):
        compare(log_a, f, next_f, slope, rho, 0, width, exponent, larger, line)


compare_weights = spliced(_compare_weights)


def _compare_step(weights, log_a, f, next_f, result, slope, rho, eps, width, exponent, larger, change, line):
    """The same, and of a step to `result`: change = (result - f) / eps and line[MEAN] = sum weights change."""
    furthest = np.inf
    if rho == np.inf:
        furthest = misses_of_step(weights, f, next_f, result, slope, eps, width, change, line, TOP)
    if not moderate(furthest, line):
        compare(log_a, f, next_f, slope, rho, 0, width, exponent, larger, line)
        line[MEAN] = mean(weights, f, result, eps, 0, width, change)


compare_step = spliced(_compare_step)


def _settle_comparison(partial, out):
    """ERROR and MASS from all chunks."""
    top = -np.inf
    for chunk in range(len(partial)):
        top = max(top, partial[chunk, TOP])
    top = top if top > -np.inf else 0.0
    missed = of_plan = called_for = 0.0
    for chunk in range(len(partial)):
        share = 1.0 if partial[chunk, TOP] == top else math.exp(partial[chunk, TOP] - top)
        missed += share * partial[chunk, MISSED]
        of_plan += share * partial[chunk, OF_PLAN]
        called_for += share * partial[chunk, CALLED_FOR]
    most = max(of_plan, called_for)
    out[ERROR] = missed / (most if most != 0.0 else 1.0)
    out[MASS] = of_plan if top == 0.0 else math.exp(min(top, MAX_EXPONENT)) * of_plan


settle_comparison = compiled(_settle_comparison, _nrt=False, forceinline=True)


def _violation(log_a, f, next_f, slope, rho, partial, out, begin, end):
    """The lines of `partial` and, where these are all chunks, out[ERROR] and out[MASS]."""
    lines = np.empty((5, CHUNK))
    for chunk in range(begin, end):
        first, count, width = extent(chunk, len(f))
        logs, here, there = log_a, f, next_f
        if width > count:
            put_aside(log_a, first, count, width, -np.inf, lines[2])
            put_aside(f, first, count, width, 0.0, lines[3])
            put_aside(next_f, first, count, width, 0.0, lines[4])
            first, logs, here, there = 0, lines[2], lines[3], lines[4]
        compare(logs, here, there, slope, rho, first, width, lines[0], lines[1], partial[chunk])
    if end - begin == len(partial):
        settle_comparison(partial, out)


violation = compiled(_violation)


def _settle_log_mass(partial, out):
    """out[0] = log of the sum of all chunks."""
    top, mass = -np.inf, 0.0
    for chunk in range(len(partial)):
        top = max(top, partial[chunk, 0])
    top = top if top > -np.inf else 0.0
    for chunk in range(len(partial)):
        mass += math.exp(partial[chunk, 0] - top) * partial[chunk, 1]
    out[0] = top + math.log(mass)


settle_log_mass = compiled(_settle_log_mass)


def _log_marginal(log_a, f, rho, count, width, out):
    """log a - f / rho, padded by -inf."""
    if rho < np.inf:
        for j in range(count):
            out[j] = log_a[j] - f[j] / rho
    else:
        for j in range(count):
            out[j] = log_a[j]
    for j in range(count, width):
        out[j] = -np.inf


log_marginal = uncounted(_log_marginal)


def _log_mass(log_a, f, rho, partial, out, begin, end):
    """out[0] = log sum_i a[i] exp(-f[i] / rho), where these are all chunks."""
    line = np.empty(CHUNK)
    for chunk in range(begin, end):
        first, count, width = extent(chunk, len(f))
        log_marginal(log_a[first : first + count], f[first : first + count], rho, count, width, line)
        top = largest(line, width)
        partial[chunk, 0] = top
        partial[chunk, 1] = sum_of_exponentials(line, width, top if top > -np.inf else 0.0)
    if end - begin == len(partial):
        settle_log_mass(partial, out)


log_mass = compiled(_log_mass)
