"""The acceleration of a solve that is made in compiled code: what `solver.acceleration` decides, for one small problem.

The arithmetic is that of `advance`. All parts are inlined.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from epsot.kernels.cpu.advance import ROWS, STAGES, SUMS, advance
from epsot.kernels.cpu.compiled import uncounted
from epsot.kernels.vectors import WINDOW

COUNT, SLOT, MOVED, EASED, TURN = range(5)  # of `marks`
SIZE, EXPECTED = range(2)  # of `norms`


class Memory(NamedTuple):
    """The directions of a solve, as `between.Directions` holds them, in memory that serves many problems."""

    moves: Any  # (chunks, ROWS, length)
    changes: Any
    pairs: Any  # (2, chunks, 2, length): the last result and its residual, and the next, in turn
    weights: Any  # (m,) of the sums: b / mass, times the scale where columns are eased; padded by 0
    scale: Any  # (m,), padded by 1
    partial: Any
    totals: Any
    numbers: Any
    marks: Any  # (5,) int64
    norms: Any  # (2,)
    lines: Any  # (2, length)
    order: Any  # (ROWS,) int64
    shares: Any  # (2, ROWS)


def _forget(memory):
    """Start anew."""
    memory.marks[COUNT] = memory.marks[SLOT] = memory.marks[MOVED] = 0
    memory.norms[SIZE] = memory.norms[EXPECTED] = np.inf


forget = uncounted(_forget)


def _rescale(memory, b, eased):
    """Divide the residual by `memory.scale`, or by 1."""
    memory.marks[EASED] = eased
    for j in range(b.size):
        memory.weights[j] = b.weights[j] / b.mass
    if eased:
        for j in range(b.size):
            memory.weights[j] *= memory.scale[j]
    forget(memory)


rescale = uncounted(_rescale)


def _begin_anew(memory, b):
    """Start anew with the residual as it is. Its weights are there, unless columns were eased."""
    if memory.marks[EASED] != 0:
        rescale(memory, b, False)
    else:
        forget(memory)


begin_anew = uncounted(_begin_anew)


def _kept_of(marks):
    """The bits of the directions that count, and of the oldest where it has to go for a next one."""
    kept = 0
    for back in range(1, marks[COUNT] + 1):
        kept |= 1 << (marks[SLOT] - back + ROWS) % ROWS
    return kept, 1 << (marks[SLOT] + 1) % ROWS if marks[COUNT] == WINDOW else 0


kept_of = uncounted(_kept_of)


def _mix(memory, b, g, updated, result, eps, balanced, start):
    """Take in a plain step and mix it with the last.  -> the error of the pair before it, the norm of its residual"""
    marks, norms = memory.marks, memory.norms
    kept, oldest = kept_of(marks)
    turn = marks[TURN]
    advance(
        b.logs, b.weights, memory.weights, memory.scale, g, updated, result,
        memory.pairs[turn], memory.moves, memory.changes, eps, 1.0 / eps + 1.0 / b.rho, b.rho, b.mass, balanced,
        marks[EASED] != 0, marks[MOVED] != 0, kept, oldest, marks[SLOT], norms[SIZE], norms[EXPECTED],
        memory.pairs[1 - turn], start, memory.partial, memory.totals, memory.numbers, b.size,
        np.int64(SUMS), np.int64(STAGES), np.int64(0),  # as Python calls it: of numbers as they stand Numba makes types
        memory.partial.shape[1], memory.lines, memory.order, memory.shares,
    )  # fmt: skip
    error = memory.numbers[0]
    if not math.isfinite(error):
        for j in range(b.size):
            start[j] = result[j]
        return error, error
    norms[SIZE], norms[EXPECTED] = memory.numbers[1], memory.numbers[2]
    marks[MOVED], marks[TURN] = 1, 1 - turn
    if memory.numbers[3] != 0.0:
        marks[COUNT] = 0
    if memory.numbers[4] != 0.0:
        marks[COUNT] = min(marks[COUNT] + 1, WINDOW)
        marks[SLOT] = (marks[SLOT] + 1) % ROWS
    return error, memory.numbers[1]


mix = uncounted(_mix, inline="always")
