"""Preconditioned conjugate gradients, of several right sides at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from epsot.costs import Array

SEEN = 1e-4  # of a residual, to which a rougher operator may lead before a look at the exact one
WORTH = 0.5  # of a residual, that a look must not find, for the rougher operator to go on
PATIENCE = 100  # steps without a smaller residual until rounding is taken for the reason


class Solution(NamedTuple):
    """What was found for each right side."""

    x: Array  # (m, q)
    steps: int


def conjugate_gradients(
    operator: Callable[[Array], Array],
    b: Array,
    inverse: Array,
    goal: Array,
    most: int,
    norm: Callable[[Array], Array],
    xp: Any,
    *,
    weights: Array | None = None,
    exact: Callable[[Array], Array] | None = None,
) -> Solution:
    """x with operator(x) = b, of a symmetric operator without negative eigenvalues; `inverse` is near its inverse.

    b (m, q), inverse (m,), the diagonal of a preconditioner. Each of the q ends where the norm of its residual is at
    most its goal (q,), or where it no longer falls. `weights` (m,): the operator makes multiples of them of constants,
    and b has a sum of zero. Iterates are held at a weighted mean of zero, from which rounding would lead them away.

    `exact`, where `operator` is a rougher and faster one: now and then, and at the end, residuals are computed by it
    and the directions go on (van der Vorst and Ye 2000); where that brings no more, they begin anew with `exact` alone.
    """
    total = None if weights is None else xp.sum(weights)

    def conditioned(r: Array) -> Array:
        z = inverse[:, None] * r
        return z if weights is None else z - xp.sum(weights[:, None] * z, axis=0) / total

    x, r, z = xp.zeros_like(b), b, conditioned(b)
    p, size, length_of = z, xp.sum(r * z, axis=0), norm(r)
    least, waited, steps, last = size, xp.zeros_like(size), 0, length_of
    active = length_of > goal
    while steps < most and bool(xp.any(active)):
        image = operator(p)
        curvature = xp.sum(p * image, axis=0)
        active = active & (curvature > 0)  # else it is rounding
        x, r = x + (step := quotient(size, curvature, active, xp)) * p, r - step * image
        length_of, onwards = norm(r), active
        if exact is not None and bool(xp.any(active & (length_of <= xp.maximum(goal, SEEN * last)))):
            r = b - exact(x)
            length_of = norm(r)
            if bool(xp.any(active & (length_of > xp.maximum(goal, WORTH * last)))):
                operator, exact, onwards = exact, None, active & False
            last, least = length_of, xp.full_like(size, xp.inf)
        z = conditioned(r)
        next_size = xp.sum(r * z, axis=0)
        p = z + quotient(next_size, size, onwards, xp) * p
        waited = xp.where(next_size < least, xp.zeros_like(size), waited + 1)
        least, size, steps = xp.minimum(least, next_size), next_size, steps + 1
        active = active & (length_of > goal) & (waited < PATIENCE)
    return Solution(x, steps)


def quotient(over: Array, under: Array, where: Array, xp: Any) -> Array:
    """over / under, and zero elsewhere."""
    return xp.where(where, over / xp.where(where, under, xp.ones_like(under)), xp.zeros_like(over))
