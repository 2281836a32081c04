"""CUDA kernels as functions of the CPU: compiled by g++ with `emulator.h`, loaded by ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.cuda.kept import kept

HEADER = Path(__file__).with_name("emulator.h")
COMPILER = shutil.which("g++") if sys.platform == "linux" else None
MISSING = None if COMPILER else "no g++ on Linux: the CUDA kernels cannot be run on the CPU"
FLAGS = ("-O1", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-Wno-unknown-pragmas")
STACK = 64 * 1024  # bytes for each CUDA thread
# OpenMP's threads sleep between launches: those of every program spin otherwise, which doubles the work of the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@cache
def compiler_version() -> str:
    return subprocess.check_output([str(COMPILER), "-dumpfullversion", "-dumpmachine"], text=True)


def build(code: str, names: Sequence[str], options: Sequence[str] = ()) -> Path:
    """A shared library with the kernels of the given names as kernel_0, kernel_1, ...; compiled once."""
    exports = "".join(f"EMULATOR_EXPORT(kernel_{k}, &{name})\n" for k, name in enumerate(names))
    unit = f"{code}\n{exports}"
    flags = (*FLAGS, *options, *os.environ.get("EPSOT_EMULATION_FLAGS", "").split())

    def compile_to(library: Path) -> None:
        source = library.with_suffix(".cpp")
        source.write_text(unit)
        subprocess.run([str(COMPILER), *flags, "-include", str(HEADER), str(source), "-o", str(library)], check=True)
        source.unlink()

    return kept(".so", [compiler_version(), HEADER.read_text(), unit, *flags], compile_to)


class Kernels:
    """The kernels of some names in a source."""

    def __init__(self, code: str, names: Sequence[str], options: Sequence[str] = ()) -> None:
        self.library = ctypes.CDLL(str(build(code, names, options)))
        self.symbols = {name: f"kernel_{k}" for k, name in enumerate(names)}
        self.used = False

    def set_order(self, order: int) -> None:
        """The order in which blocks, warps and lanes run: 0 ascending, 1 descending."""
        self.library.emulator_set_order(order)

    def forget(self) -> None:
        """Give back the memory of the last launches."""
        if self.used:
            self.library.emulator_forget()
        self.used = False

    def counted(self) -> tuple[int, ...]:
        """What the kernels have counted since the last call, if they were changed to count."""
        self.library.emulator_count.restype = ctypes.c_longlong
        return tuple(self.library.emulator_count(counter) for counter in range(3))

    def __getitem__(self, name: str) -> Callable[..., None]:
        function = getattr(self.library, self.symbols[name])

        def launch(
            grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], *, together: bool = False
        ) -> None:
            # Arrays by address, sized scalars by value. Anything else would be a guess about its size.
            values: list[Any] = []
            for argument in arguments:
                if isinstance(argument, np.ndarray) and argument.dtype.kind == "V":  # a struct, by value
                    assert argument.size == 1
                    values.append(argument)
                elif isinstance(argument, np.ndarray):
                    assert argument.flags.c_contiguous or argument.ndim == 2
                    values.append(np.array(argument.ctypes.data, np.uintp))
                else:
                    assert isinstance(argument, np.generic), f"{argument!r} has no size"
                    values.append(np.array(argument))
            shapes = [(ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size))) for size in (grid, block)]
            places = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
            self.used = True
            function(*shapes, places, ctypes.c_size_t(STACK), ctypes.c_int(together))

        return launch
