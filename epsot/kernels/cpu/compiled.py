"""Compilation at the first call, kept on disk where a folder can be written."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

Kernel = Callable[..., Any]


@cache
def sources_stamp() -> str:
    """A checksum of this package: Numba's cache sees changes in the file of a kernel, not in the files it uses."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


def inlined(function: Kernel) -> Kernel:
    """The function as a part of kernels, which Python cannot call: what is spared need not be compiled."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
    }
    part: Kernel = numba.njit(**options)(function)
    return part


def compiled(function: Kernel) -> Kernel:
    """The function as a kernel that releases the GIL. Nothing is compiled before it is called.

    It fills arrays that it is given, and returns numbers: to return an array Numba runs Python after the kernel, in
    which an interrupt that came meanwhile is raised, and Numba makes a SystemError of that.

    Numba refuses at once to cache where neither the package nor the home folder can be written: then every process
    compiles for itself.
    """
    function.__qualname__ += "_" + sources_stamp()  # the name of the cache file
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        kernel: Kernel = numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):
        kernel = numba.njit(**options)(function)
    return kernel
