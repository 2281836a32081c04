"""`vectors.Directions` for many problems, as a function of a memory: to forget is a mask, an empty place counts zero.

No branch depends on a problem, and nothing is changed in place, so that any library and any device can do it, without
the host knowing what each problem does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace, is_numpy_array

from epsot.costs import Array
from epsot.kernels.batched import times
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, LONGEST, WINDOW


class Memory(NamedTuple):
    """Where the last steps at one temperature went, and what that did to the residual."""

    moves: Array  # (B, WINDOW, m)
    changes: Array  # (B, WINDOW, m), orthonormal in the weights
    count: Array  # (B,) directions taken in; those beyond WINDOW have replaced older ones
    result: Array  # (B, m) the last plain result ...
    residual: Array  # ... and its residual
    size: Array  # (B,) the norm of that residual
    expected: Array  # (B,) and of the next, were the map linear
    known: Array  # (B,) whether there is a last result


def no_memory(like: Array) -> Memory:
    """That of a start, for potentials like these, (B, m)."""
    xp: Any = array_namespace(like)
    count, m = like.shape
    device = like.device
    moves, changes = (xp.zeros((count, WINDOW, m), dtype=xp.float64, device=device) for _ in range(2))
    zeros = xp.zeros(count, dtype=xp.float64, device=device)
    none = xp.zeros(count, dtype=xp.int64, device=device)
    return Memory(moves, changes, none, like, like, zeros, zeros, xp.zeros(count, dtype=xp.bool, device=device))


class Weighed(NamedTuple):
    """The side whose potentials are mixed."""

    weights: Array  # (B, m)
    mass: Array  # (B, 1)
    balanced: Array | None  # (B, 1) in which problems constants do not matter; None: in none
    scale: Array | None  # (B, m) by which the residual is divided, where columns are eased
    eased: Array | None  # (B, 1) in which problems they are; None: in none


class Mixed(NamedTuple):
    """What plain steps lead to."""

    memory: Memory
    start: Array  # (B, m) the g from which to go on
    norm: Array  # (B,) of the residual of the step


def advance(side: Weighed, memory: Memory, g: Array, result: Array, eps: Array) -> Mixed:
    """Take in plain steps from g to `result` at temperatures (B,), and mix them with the last."""
    xp: Any = array_namespace(g)
    eps = eps[:, None]
    result, residual, weights = residual_of(side, g, result, eps)
    size = norm(weights, residual, xp)
    count = xp.where(memory.known & ~(size > BENT * memory.expected), memory.count, xp.zeros_like(memory.count))
    memory = memory._replace(count=count)
    moves, changes, gained = appended(memory, weights, result, residual, size)
    count = count + xp.astype(gained, count.dtype)
    places = xp.arange(WINDOW, device=g.device)[None, :]
    shares = xp.where(places < count[:, None], inner(changes, weights * residual), 0.0)
    left = size**2 - xp.sum(shares**2, axis=-1)
    expected = xp.where(count > 0, xp.sqrt(xp.where(left > 0, left, xp.zeros_like(left))), size)
    move = combined(shares, moves)
    furthest = xp.max(xp.abs(move), axis=-1, keepdims=True)
    near = furthest <= LEAP * eps
    start = result - move * xp.where(near, xp.ones_like(eps), LEAP * eps / xp.where(near, xp.ones_like(eps), furthest))
    known = xp.ones_like(memory.known)
    return Mixed(Memory(moves, changes, count, result, residual, size, expected, known), start, size)


def residual_of(side: Weighed, g: Array, result: Array, eps: Array) -> tuple[Array, Array, Array]:
    """The result of a step, its residual, and the weights of its norm: those of eased columns are scaled."""
    xp, b = array_namespace(g), side.weights
    residual = (result - g) / eps
    if side.balanced is not None:
        mean = xp.sum(b * residual, axis=-1, keepdims=True) / side.mass
        residual = residual - xp.where(side.balanced, mean, xp.zeros_like(mean))
    if side.eased is not None and side.scale is not None:
        eased, size = residual / side.scale, xp.abs(residual)
        longest = xp.where(size > LONGEST, size, LONGEST * xp.ones_like(size))
        eased = xp.where(xp.abs(eased) > longest, xp.sign(eased) * longest, eased)
        eased = xp.where(b > 0, eased, xp.zeros_like(eased))  # where there is no weight nothing moves
        residual = xp.where(side.eased, eased, residual)
        result = xp.where(side.eased, g + eps * residual, result)
    return result, residual, norm_weights(side)


def norm_weights(side: Weighed) -> Array:
    """The weights of the norm of a residual.  (B, m)"""
    weights = side.weights / side.mass
    if side.eased is None or side.scale is None:
        return weights
    return array_namespace(weights).where(side.eased, weights * side.scale, weights)


def appended(memory: Memory, weights: Array, result: Array, residual: Array, size: Array) -> tuple[Array, Array, Array]:
    """The directions with one more, made orthogonal to those kept, in place of the oldest, and where there is one."""
    xp = array_namespace(result)
    moves, changes, count = memory.moves, memory.changes, memory.count[:, None]
    move, change = result - memory.result, residual - memory.residual
    places = xp.arange(WINDOW, device=result.device)[None, :]
    shares = xp.where(places < count, inner(changes, weights * change), 0.0)
    change, move = change - combined(shares, changes), move - combined(shares, moves)
    length = norm(weights, change, xp)
    gained = memory.known & (length > DEPENDENT * (memory.size + size)) & (length < xp.inf)
    by = xp.where(gained, length, xp.ones_like(length))[:, None]
    here = ((places == count % WINDOW) & gained[:, None])[:, :, None]
    return (
        xp.where(here, (move / by)[:, None, :], moves),
        xp.where(here, (change / by)[:, None, :], changes),
        gained,
    )


def norm(weights: Array, z: Array, xp: Any) -> Array:
    """The root of the weighted mean square.  (B, m) -> (B,)"""
    return xp.sqrt(xp.sum(weights * z * z, axis=-1))


def inner(directions: Array, z: Array) -> Array:
    """The products of each direction with z.  (B, WINDOW, m), (B, m) -> (B, WINDOW)"""
    return times(directions, z[:, :, None])[:, :, 0]


def combined(shares: Array, directions: Array) -> Array:
    """sum_k shares[k] directions[k].  (B, WINDOW), (B, WINDOW, m) -> (B, m)"""
    xp = array_namespace(directions)
    if is_numpy_array(directions):
        return times(xp.matrix_transpose(directions), shares[:, :, None])[:, :, 0]
    return xp.matmul(shares[:, None, :], directions)[:, 0, :]
