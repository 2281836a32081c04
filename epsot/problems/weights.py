"""What weights and marginal strengths may be, and masses that have to match."""

from __future__ import annotations

import math
from typing import Any

from epsot.arrays import Place, as_number, as_real, check_finite
from epsot.communicator import Share
from epsot.costs import Array

LARGEST_MASS = 1e150


def penalties(name: str, rho: Any) -> tuple[float | None, float | None]:
    """The two strengths from one number, a pair, or None (balanced); inf is None."""
    pair = tuple(rho) if isinstance(rho, tuple | list) else (rho, rho)
    if len(pair) != 2:
        raise ValueError(f"`{name}` must be None, one number, or a pair for the two sides, got {rho!r}")
    checked: list[float | None] = []
    for value in pair:
        number = None if value is None else as_number(name, value)
        if number is not None and not number > 0:
            raise ValueError(f"`{name}` must be positive, or None for balanced transport, got {rho!r}")
        checked.append(None if number is None or math.isinf(number) else number)
    return checked[0], checked[1]


def checked_weights(name: str, weights: Any, shape: tuple[int, ...], place: Place) -> Array:
    """Weights in float64, flat; None is uniform, 1 / size each."""
    xp, size = place.xp, math.prod(shape)
    if weights is None:
        return xp.full((size,), 1 / size, dtype=xp.float64, device=place.device)
    weights = as_real(name, weights, place)
    if tuple(weights.shape) != shape:
        what, cure = ("one weight a point", "") if len(shape) == 1 else ("that of its grid", "; reshape it")
        raise ValueError(f"`{name}` must have shape {shape}, {what}, got {tuple(weights.shape)}{cure}")
    weights = xp.reshape(weights, (-1,))
    check_finite(name, weights, "weights", place)
    if bool(xp.any(weights < 0)):
        raise ValueError(f"`{name}` must not be negative, got a smallest weight of {float(xp.min(weights)):g}")
    weights = xp.astype(weights, xp.float64)  # a copy: results outlive changes of the inputs
    mass = float(xp.sum(weights))
    if not mass < LARGEST_MASS:
        raise ValueError(f"`{name}` must have a mass whose square is a float64, got {mass:g}; rescale the weights")
    return weights


def joined_weights(name: str, weights: Any, share: Share, support: tuple[int, ...], place: Place) -> Any:
    """The weights of all ranks, of those of one; None, and what one process has, as they are."""
    if weights is None or share.here is None:
        return weights
    block, inner = as_real(name, weights, place), math.prod(support[1:])
    shape = ((share.here.stop - share.here.start) // inner, *support[1:])
    if tuple(block.shape) != shape:
        raise ValueError(f"`{name}` must have shape {shape}, one weight a point of this rank, got {tuple(block.shape)}")
    share.comm.check_equal(**{name: str(block.dtype)})
    whole = share.joined(place.xp.reshape(block, (-1,)))
    return place.handed_out(place.xp.reshape(whole, support), copy=False)


def mass_of(given: Any, weights: Array, xp: Any) -> float:
    """Their sum; that of uniform weights, given or not, is 1."""
    if given is None or bool(xp.all(weights == 1 / max(1, weights.shape[0]))):
        return 1.0
    return float(xp.sum(weights))


def balancing(mass_a: float, mass_b: float, precision: float, name: str) -> float:
    """The factor by which a mass is scaled to that of a, from which it differs by rounding; otherwise an error."""
    if abs(mass_a - mass_b) > precision * max(mass_a, mass_b):
        shown = (f"{mass_a:g}", f"{mass_b:g}")
        got_a, got_b = shown if shown[0] != shown[1] else (repr(mass_a), repr(mass_b))
        raise ValueError(
            f"`a` and `b` must have equal mass in balanced transport, got {got_a} and {got_b}; "
            f"normalise them or set `{name}`"
        )
    return mass_a / mass_b


def check_mass(name: str, weights: Array, other_rho: float | None, rho_name: str, place: Place) -> None:
    """Raise where there is no mass though that of the other side has to go somewhere."""
    if other_rho is None and not bool(place.xp.any(weights > 0)):
        raise ValueError(f"`{name}` must have positive mass, got only zeros; or set `{rho_name}`")
