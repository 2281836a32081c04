"""What a file holds of a problem and of its potentials, and both again of that."""

from __future__ import annotations

from typing import Any

from epsot.arrays import Place, as_number
from epsot.costs import Array
from epsot.geometry.base import of_parts, parts_of
from epsot.problems.instance import Instance, posed_again
from epsot.problems.weights import checked_weights
from epsot.solver.updates import Dual


def instance_parts(instance: Instance) -> dict[str, Any]:
    """The geometry, the weights of the user, and what was asked."""
    a, own = instance.a, instance.problem.own
    return {
        "geometry": parts_of(instance.geometry), "a": a, "b": a if own else instance.T.a,
        "masses": [instance.problem.a.mass, instance.problem.b.mass], "eps": instance.eps,
        "rho": list(instance.rho) if isinstance(instance.rho, tuple) else instance.rho, "own": own,
    }  # fmt: skip


def instance_of(parts: dict[str, Any], place: Place) -> Instance:
    """The same problem in the library of a place; ValueError where the parts do not fit."""
    geometry, own = of_parts(parts["geometry"], place), bool(parts["own"])
    n, m = geometry.shape
    a = checked_weights("a", place.received(parts["a"]), (n,), place)
    b = a if own else checked_weights("b", place.received(parts["b"]), (m,), place)
    rho = tuple(parts["rho"]) if isinstance(parts["rho"], list) else parts["rho"]
    mass_a, mass_b = (as_number("mass", mass) for mass in parts["masses"])
    return posed_again(geometry, (a, b), (mass_a, mass_b), as_number("eps", parts["eps"]), rho, own=own)


def dual_parts(dual: Dual) -> dict[str, Any]:
    """The potentials as the solver has left them, and what it knew about them."""
    number = {name: None if z is None else float(z) for name, z in (("error", dual.error), ("mass", dual.mass))}
    maps = {name: None if z is None else list(z) for name, z in (("f_map", dual.f_map), ("g_map", dual.g_map))}
    return {"f": dual.f, "g": dual.g, **number, **maps, "logit_error": dual.logit_error}


def dual_of(parts: dict[str, Any], instance: Instance) -> Dual:
    """The same for an instance; ValueError where a potential is of another size."""
    place, xp = instance.place, instance.place.xp
    n, m = instance.problem.a.size, instance.problem.b.size

    def potential(array: Any, size: int) -> Array:
        if array.shape != (size,):
            raise ValueError(f"a potential of shape {array.shape} for {size} points")
        return xp.astype(place.received(array), xp.float64, copy=False)

    def number(z: Any) -> Array | None:
        return None if z is None else xp.asarray(as_number("number", z), dtype=xp.float64, device=place.device)

    def extension(pair: Any, size: int, other: int) -> tuple[Array, Array] | None:
        return None if pair is None else (potential(pair[0], size), potential(pair[1], other))

    return Dual(
        potential(parts["f"], n), potential(parts["g"], m), number(parts["error"]), number(parts["mass"]),
        extension(parts["f_map"], n, m), extension(parts["g_map"], m, n), as_number("error", parts["logit_error"]),
    )  # fmt: skip
