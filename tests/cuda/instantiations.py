"""Every kernel that the driver may launch, by its C++ name, in groups that are compiled as one program."""

from __future__ import annotations

from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import MATRIX, pairs_name
from epsot.kernels.cuda.clouds import NEAR_DIMENSIONS
from epsot.kernels.cuda.lattice import LENGTHS
from epsot.kernels.cuda.points import KINDS
from epsot.kernels.cuda.vectors import ROWS

REALS = ("float", "double")


def near(real: str, kind: str, dim: int) -> list[str]:
    sums, values = (shapes.near(real, KINDS[kind], dim, rows).name for rows in (4, 2))
    return [f"reduce<{sums}, SUMS>", f"images<{sums}>", f"reduce<{values}, VALUES>", f"reduce<{values}, SLOPES>"]


def tiled(real: str, kind: str) -> list[str]:
    sums, values = (shapes.tiled(real, KINDS[kind], rows).name for rows in (8, 4))
    wide = sums if real == "float" else values
    names = [f"reduce<{sums}, SUMS>", f"pair<{sums}>", f"reduce<{values}, VALUES>"]
    names += [f"reduce<{wide}, WIDE>", f"reduce<{wide}, SLOPES>"]
    return names if kind == "square" else [*names, f"reduce<{values}, COSTS>"]


def stored(entry: str, along: bool) -> list[str]:
    form = shapes.stored(entry, along).name
    return [f"reduce<{form}, {operation}>" for operation in ("SUMS", "VALUES", "COSTS")] + [f"pair<{form}>"]


def bursts(real: str, kind: int, dim: int, place: str = "double") -> list[str]:
    name = pairs_name(real, kind, dim, place)
    return [f"alternate<{name}, {ROWS}>", f"average<{name}>", f"descend<{name}>"]


def items(kind: int, dim: int) -> list[str]:
    name = pairs_name("double", kind, dim)
    return [f"alternate_items<{name}, {ROWS}>", f"average_items<{name}>"]


def groups() -> dict[str, list[str]]:
    """The names, by what is special about them."""
    found = {}
    for real in REALS:
        for dim in range(1, NEAR_DIMENSIONS + 1):
            for kind in KINDS:
                if (kind, dim) != ("euclidean", 1):  # the driver takes cityblock
                    found[f"{real}, {kind}, d = {dim}"] = near(real, kind, dim)
        for kind in KINDS:
            found[f"{real}, {kind}, any d"] = tiled(real, kind)
        for along in (True, False):
            found[f"{real}, matrix, {'rows' if along else 'columns'} in memory"] = stored(real, along)
        for kind, number in KINDS.items():
            for dim in (2, 3, 0):
                found[f"{real}, bursts, {kind}, {f'd = {dim}' if dim else 'any d'}"] = bursts(real, number, dim)
        found[f"{real}, bursts, matrix"] = bursts("double", MATRIX, 0, real)
    for kind, number in KINDS.items():
        for dim in (2, 3, 0):
            found[f"items, {kind}, {f'd = {dim}' if dim else 'any d'}"] = items(number, dim)
    found["items, matrix"] = items(MATRIX, 0)
    for real in REALS:
        found[f"{real}, lattices"] = [f"lattice_squares<{real}, {side}>" for side in (*shapes.LATTICE_SIDES, 1)]
    found["lengths, lattices"] = [LENGTHS]
    threads = shapes.VECTOR_THREADS
    sums = [f"violation<{threads}>", f"log_mass<{threads}>", f"advance<{threads}, {ROWS}>"]
    found["vectors"] = [f"density<{shapes.PLAIN_THREADS}>", *sums]
    found["order"] = [f"{kernel}<{real}, {dim}>" for kernel in ("box", "hilbert") for real in REALS for dim in (2, 3)]
    found["order"] += [f"frames<{real}, {dim}>" for real in REALS for dim in range(1, NEAR_DIMENSIONS + 1)]
    found["order"] += ["finish", f"prepare<{shapes.PLAIN_THREADS}, {shapes.NEAR_TILE}>"]
    return found


NAMES = {name for names in groups().values() for name in names}
