"""The kernels compiled on first use, one by one, by NVRTC through CuPy, which keeps them on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from epsot.kernels.bursts import Refused

logger = logging.getLogger("epsot")
kernels_logger = logging.getLogger("epsot.kernels")
refusals: set[int] = set()  # devices whose driver has refused to run all blocks of a grid at once
FILES = (
    "numbers.cu", "forms.cu", "near.cu", "tiled.cu", "stored.cu", "product.cu", "reduce.cu", "pair.cu", "order.cu",
    "vectors.cu", "burst.cu", "items.cu", "lattice.cu",
)  # fmt: skip
OPTIONS = ("--std=c++17",)


@cache
def unproven() -> bool:
    """Whether code that no device has run yet may run: EPSOT_UNPROVEN=1 in the environment, which is read once."""
    return os.environ.get("EPSOT_UNPROVEN") == "1"


@cache
def source() -> str:
    """All files as one: CuPy's cache looks at the text it compiles, not at what that includes."""
    folder = Path(__file__).parent
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}' for name in FILES)


@cache
def function(cupy: Any, name: str) -> Any:
    """The kernel of a C++ name, for any device: CuPy loads it where it is launched."""
    if function.cache_info().currsize == 0:
        kernels_logger.info("CUDA kernels: compiling those that CuPy has not kept, once per machine")
    try:
        return cupy.RawModule(code=source(), options=OPTIONS, name_expressions=(name,)).get_function(name)
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ImportError) or "nvrtc" in str(error).lower():
            raise RuntimeError(
                "CuPy found no compiler, NVRTC, for the CUDA kernels; install the extra of your CUDA version, "
                "`epsot[cuda13x]` or `epsot[cuda12x]`, which is CuPy with its `[ctk]` components"
            ) from error
        raise


def launch(cupy: Any, name: str, grid: Sequence[int], threads: int, arguments: Sequence[Any]) -> None:
    """Start a kernel on the current stream of the current device. Scalars are NumPy's, of a definite size."""
    function(cupy, name)(tuple(grid), (threads,), tuple(arguments))


def launch_together(cupy: Any, name: str, blocks: int, threads: int, arguments: Sequence[Any]) -> None:
    """The same for a kernel whose blocks wait for each other: the device runs all of them at once, or none.

    If the driver refuses, `Refused` is raised, and `refusals` has the device from then on.
    """
    # CuPy's own switch would also link the device runtime, a library that its wheels lack.
    kernel = function(cupy, name).kernel
    try:
        kernel((blocks,), (threads,), tuple(arguments), enable_cooperative_groups=True)
    except cupy.cuda.driver.CUDADriverError as error:
        device = cupy.cuda.Device().id
        if device not in refusals:
            refusals.add(device)
            logger.warning("CUDA device %d refuses a cooperative launch (%s): steps are made one by one", device, error)
        raise Refused(str(error)) from error
