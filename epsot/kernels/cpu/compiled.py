"""Compilation at the first call, kept on disk where a folder can be written."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

Kernel = Callable[..., Any]
FunctionCache: Any = caching.FunctionCache


@cache
def sources_stamp() -> str:
    """A checksum of this package and of the definitions beside it, whose constants are compiled in.

    Numba's cache sees changes in the file of a kernel, not in the files it uses.
    """
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), *sorted(here.parent.glob("*.py"))]
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


class Cache(FunctionCache):  # type: ignore[misc]
    """Numba's, which takes every file for a whole one: a truncated file would end each solve from then on."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for some types, None where there is none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling and linking make of damaged bytes
            with suppress(OSError):
                self.flush()  # what is saved next begins a new index
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep machine code, where there is room for it."""
        with suppress(OSError):
            super().save_overload(sig, data)


def inlined(function: Kernel, **more: Any) -> Kernel:
    """The function as a part of kernels, which Python cannot call: what is spared need not be compiled."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        **more,
    }
    part: Kernel = numba.njit(**options)(function)
    return part


def uncounted(function: Kernel, **more: Any) -> Kernel:
    """A part that allocates nothing: references to arrays are not counted, which takes longer than sums."""
    return inlined(function, _nrt=False, **more)


def woven(function: Kernel, **more: Any) -> Kernel:
    """A part that stands where it is called: to hand over records of many arrays takes longer than what it does."""
    return uncounted(function, forceinline=True, **more)


def compiled(function: Kernel, **more: Any) -> Kernel:
    """The function as a kernel that releases the GIL. Nothing is compiled before it is called.

    It fills arrays that it is given, and returns numbers: to return an array Numba runs Python after the kernel, in
    which an interrupt that came meanwhile is raised, and Numba makes a SystemError of that.

    Files that cannot be read are compiled anew.

    Numba refuses at once to cache where neither the package nor the home folder can be written: then every process
    compiles for itself.
    """
    function.__qualname__ += "_" + sources_stamp()  # the name of the cache file
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", **more}
    kernel: Any = numba.njit(**options)(function)
    with suppress(RuntimeError, OSError):
        kernel._cache = Cache(function)  # what `cache=True` does, with a class of our own
    compiled_kernel: Kernel = kernel
    return compiled_kernel
