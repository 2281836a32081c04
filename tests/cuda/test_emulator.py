"""The emulator finds what it is there to find, and finds nothing in the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.modules import source
from tests.cuda import emulation

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

ROOT = Path(__file__).parents[2]


def run(command: list[str], sanitizer: str, flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Python with a sanitizer of g++, which has to be loaded before it."""
    library = subprocess.check_output(["g++", f"-print-file-name=lib{sanitizer}.so"], text=True).strip()
    if not Path(library).is_absolute():
        pytest.skip(f"g++ has no lib{sanitizer}")
    environment = {**os.environ, "LD_PRELOAD": library, "EPSOT_EMULATION_FLAGS": f"{flags} -g1", **settings}
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def run_racing(command: list[str]) -> subprocess.CompletedProcess[str]:
    flags = "-fsanitize=thread --param tsan-distinguish-volatile=1 -Wno-tsan"
    found = run(command, "tsan", flags, TSAN_OPTIONS="history_size=0", OMP_NUM_THREADS="2")
    if "unexpected memory mapping" in found.stderr:
        pytest.skip("the thread sanitizer has no place in the memory of this system: sysctl vm.mmap_rnd_bits=28")
    return found


@pytest.mark.guard
def test_no_access_out_of_bounds() -> None:
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
    options = "detect_leaks=0:detect_stack_use_after_return=0"
    found = run(["-m", "tests.cuda.sanitized"], "asan", flags, ASAN_OPTIONS=options, OMP_NUM_THREADS="1")
    assert found.returncode == 0, found.stderr[-4000:]
    assert "launches" in found.stdout


@pytest.mark.guard
def test_no_races() -> None:
    found = run_racing(["-m", "tests.cuda.sanitized", "races"])
    assert found.returncode == 0, found.stderr[-4000:]
    assert "launches" in found.stdout


STEP = "blocks.meet();\n    }\n}"  # after a step of a descent
WARP = "__syncwarp();  // all lanes have read the guesses"  # and its results may come, which lie in the same place
FENCE = "__threadfence();  // ... and what they wrote by this one, whose"  # when blocks have met
STRIPS = "__syncwarp();  // the tests of the strip read it"
LAST = "__threadfence();  // ... and what they wrote by this one\n        }"  # before the last block joins the parts


@pytest.mark.guard
@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("bursts", STEP, "}\n}"),
        ("bursts", WARP, "//"),
        ("bursts", FENCE, "//"),
        ("rows", LAST, "}"),
        ("lattices", STRIPS, ""),
    ],
    ids=["step", "warp", "fence", "last", "strips"],
)
def test_a_race_is_seen(what: str, old: str, new: str) -> None:
    found = run_racing(["-m", "tests.cuda.racing", what, old, new])
    assert "done" in found.stdout, found.stderr[-4000:]
    assert "data race" in found.stderr


def softmin(kernels: emulation.Kernels, name: str, shape: shapes.Shape, order: int) -> np.ndarray:
    """One launch on points of the line, as the driver does it."""
    n = m = 4 * shape.tile
    x = np.linspace(0, 1, n)[:, None]
    frames = np.array([[part.min() + np.ptp(part) / 2, np.ptp(part) / 2] for part in np.split(x, n // shapes.FRAME)])
    order_of_points, h, out = np.arange(n), np.sin(np.arange(m)), np.empty(n)
    kernels.set_order(order)
    integers = [np.int64(number) for number in (n, m, 1, 0, 0, 0)]
    numbers = [*integers, np.float64(10), np.float64(-60)]
    operands = [x, x, frames, frames, order_of_points, order_of_points, h, h, *numbers]
    rest = [np.zeros(n), *map(np.float64, (1, 1, 1)), h, np.int64(1), np.int32(0), np.zeros(1), np.zeros(1, np.int32)]
    kernels[name]((n // shape.rows, 1, 1), (shape.threads,), [*operands, *rest, out])
    return out


def test_a_missing_barrier_is_seen() -> None:
    """Without the barrier before a tile is filled, or after it, the result depends on the order of the lanes."""
    shape, code = shapes.near("double", 0, 1, 4), source()
    name = f"reduce<{shape.name}, SUMS>"
    before = "__syncthreads();  // everybody is done with the tile before\n            const T bound"
    after = "bound;\n            __syncthreads();\n            const double top"
    unguarded = "bound;\n            const double top"
    found = []
    for barrier, without in (("", ""), (before, "const T bound"), (after, unguarded)):
        assert barrier in code
        kernels = emulation.Kernels(code.replace(barrier, without) if barrier else code, [name])
        forward, backward = (softmin(kernels, name, shape, order) for order in (0, 1))
        found.append(forward.tobytes() == backward.tobytes())
    assert found == [True, False, False]
