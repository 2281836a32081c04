"""Every kernel compiled by NVRTC, without a GPU, and what it uses held against `budget.json`: nothing spills.

Of each form those of one cost are compiled for sm_90, of floats. `pytest -m guard` adds all the others there, and those
of one cost for the other architectures, because all for all takes minutes. EPSOT_ALL_KERNELS=1 does that. After a
change that is meant to use more:

    EPSOT_ALL_KERNELS=1 python -m tests.cuda.test_nvrtc
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.modules import source
from tests.cuda import nvrtc
from tests.cuda.instantiations import REALS, groups

BUDGET = Path(__file__).with_name("budget.json")
MAIN, OTHERS = 90, (75, 80, 100, 120)
TYPICAL = ("square, d = 3", "square, any d", "in memory", "order", "vectors", "lattices")
FEWER = ("bursts, square, any d", "items, square, any d")  # left to `guard`, as doubles are
GRANULARITY = 8  # registers are dealt out in eights


def chosen(architecture: int) -> list[str]:
    """The groups to be compiled for an architecture."""
    whole = architecture == MAIN or os.environ.get("EPSOT_ALL_KERNELS")
    return [label for label in groups() if whole or label.endswith(TYPICAL)]


def marks(label: str) -> Any:
    """Of a group that is compiled for the main architecture."""
    usual = label.endswith(TYPICAL) and not label.startswith("double") and not label.endswith(FEWER)
    return () if usual else pytest.mark.guard


def usage(architecture: int, label: str) -> dict[str, nvrtc.Usage]:
    return nvrtc.compile_for(architecture, source(), groups()[label])


PROGRAMS = [pytest.param(MAIN, label, id=label, marks=marks(label)) for label in chosen(MAIN)]
PROGRAMS += [
    pytest.param(architecture, label, id=f"sm_{architecture}, {label}", marks=pytest.mark.guard)
    for architecture in OTHERS
    for label in chosen(architecture)
]


@pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)
@pytest.mark.parametrize(("architecture", "label"), PROGRAMS)
def test_registers_and_shared_memory(architecture: int, label: str) -> None:
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not know sm_{architecture}")
    budget = json.loads(BUDGET.read_text())
    found = usage(architecture, label)
    assert list(found) == groups()[label]
    for name, used in found.items():
        assert used.spilled == 0, f"{name} spills {used.spilled} bytes on sm_{architecture}"
        assert used.stack == 0, f"{name} keeps {used.stack} bytes of arrays in memory on sm_{architecture}"
        registers, shared = budget[name]
        assert used.registers <= registers, f"{name} uses {used.registers} registers on sm_{architecture}"
        assert used.shared <= shared, f"{name} uses {used.shared} bytes of shared memory on sm_{architecture}"


RESIDENT = {f"{real}, square, d = {d}": shapes.near(real, 0, d, 4) for real in REALS for d in (1, 2, 3)}
RESIDENT |= {f"{real}, square, any d": shapes.tiled(real, 0, 8) for real in REALS}
RESIDENT |= {f"{real}, matrix, rows in memory": shapes.stored(real, True) for real in REALS}


@pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)
@pytest.mark.parametrize("label", [pytest.param(label, marks=marks(label)) for label in RESIDENT])
def test_so_many_blocks_fit_on_a_multiprocessor(label: str) -> None:
    """As the table says. Each of four schedulers has 16384 registers for whole warps."""
    shape = RESIDENT[label]
    used = usage(MAIN, label)[f"reduce<{shape.name}, SUMS>"]
    warps = 4 * (16384 // (32 * -(-used.registers // GRANULARITY) * GRANULARITY))
    assert warps // (shape.threads // 32) == shape.resident, shape.name


@pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_pair_costs_what_the_bound_counts(d: int) -> None:
    """d multiply-adds, two additions and one exponential, and a 16-byte vector for every 4 columns and coordinate."""
    shape = shapes.near("float", 0, d, 4)
    found = nvrtc.instructions(source(), f"reduce<{shape.name}, SUMS>")
    pairs = 2 * 4 * 4  # of two steps
    assert found["ex2.approx.ftz.f32"] == pairs
    assert found["fma.rn.ftz.f32"] == d * pairs
    assert found["add.ftz.f32"] == 2 * pairs
    assert found["ld.shared.v4.f32"] == 2 * (d + 1)
    assert found.total() <= (d + 3) * pairs + 2 * (d + 1) + 6  # and the loop itself


@pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)
@pytest.mark.parametrize("kind", [1, 2])
def test_points_that_coincide_are_at_distance_zero(kind: int) -> None:
    """Coordinates are rounded before they are subtracted, rows as columns: `mul.f64` would become part of an fma."""
    form = shapes.near("double", kind, 2, 2)
    products = re.findall(r"mul\.rn\.f64", nvrtc.assembly(source(), f"reduce<{form.name}, SLOPES>"))
    assert len(products) >= 2 * 2 + 2  # of two rows a thread and of a column


def test_the_budget_is_of_the_kernels_there_are() -> None:
    assert set(json.loads(BUDGET.read_text())) == {name for names in groups().values() for name in names}


def main() -> None:
    """Write the largest use over the architectures."""
    budget: dict[str, list[int]] = {}
    programs = [(architecture, label) for architecture in (MAIN, *OTHERS) for label in chosen(architecture)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC does not hold Python's lock
        usages = list(pool.map(lambda program: usage(*program), programs))
    for (architecture, _), found in zip(programs, usages, strict=True):
        for name, used in found.items():
            registers, shared = budget.get(name, (0, 0))
            rounded = -(-used.registers // GRANULARITY) * GRANULARITY
            budget[name] = [max(registers, rounded), max(shared, used.shared)]
            if used.spilled or used.stack:
                print(f"sm_{architecture}: {name} {used}")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in sorted(budget.items()))
    BUDGET.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
