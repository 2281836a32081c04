"""Compilation at the first call, kept on disk where a folder can be written."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

Kernel = Callable[..., Any]
FunctionCache: Any = caching.FunctionCache
NullCache: Any = caching.NullCache

logger = logging.getLogger("epsot.kernels")  # of its own: who follows a solve at INFO has it made step by step


@cache
def sources_stamp() -> str:
    """A checksum of this package and of the definitions beside it, whose constants are compiled in.

    Numba's cache sees changes in the file of a kernel, not in the files it uses.
    """
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), *sorted(here.parent.glob("*.py"))]
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


class Files:
    """What is kept of a kernel: for each of its types an index and the machine code, in files with a name of their own.

    Numba has one index of all types, with a number for the machine code of each. Of two processes that save at once,
    one forgets what the other has kept, or finds the machine code of other types under its own.
    """

    def __init__(self, function: Any) -> None:
        self.folder, self.stamp = function.locator.get_cache_path(), function.locator.get_source_stamp()
        self.name = function.filename_base

    def of(self, key: Any) -> Any:
        """Those of one entry."""
        types = zlib.crc32(repr(key).encode())
        return caching.IndexDataCacheFile(self.folder, f"{self.name}-{types:08x}", self.stamp)

    def load(self, key: Any) -> Any:
        """An entry, None where there is none or where its files are damaged."""
        try:
            return self.of(key).load(key)
        except Exception:  # whatever unpickling makes of damaged bytes
            with suppress(OSError):
                self.of(key).flush()  # what is saved next begins a new index
            return None

    def save(self, key: Any, data: Any) -> None:
        """Keep an entry."""
        self.of(key).save(key, data)

    def flush(self) -> None:
        """Forget all entries, as for a kernel that is compiled anew."""
        for index in Path(self.folder).glob(f"{escape(self.name)}-*.nbi"):
            index.unlink(missing_ok=True)


class Cache(FunctionCache):  # type: ignore[misc]
    """Numba's, which takes every file for a whole one: a truncated file would end each solve from then on."""

    def __init__(self, function: Kernel) -> None:
        super().__init__(function)
        self._cache_file: Any = Files(self._impl)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for some types, None where there is none that can be read: then it is made."""
        found = None
        with suppress(Exception):  # whatever linking makes of damaged bytes
            found = super().load_overload(sig, target_context)
        if found is None:
            logger.info("compiling %s, once per machine", self._py_func.__name__.strip("_"))
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep machine code, where there is room for it."""
        with suppress(OSError):
            super().save_overload(sig, data)


class NoCache(NullCache):  # type: ignore[misc]
    """Where no folder can be written."""

    def __init__(self, function: Kernel) -> None:
        self.function = function

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Nothing is kept."""
        logger.info(
            "compiling %s, in every process: no folder can be written, set NUMBA_CACHE_DIR",
            self.function.__name__.strip("_"),
        )


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


def spliced(function: Kernel, **more: Any) -> Kernel:
    """A part that is copied to where it is called.

    An array is handed over as seven words, and some ten of these through the stack take longer than sums of 64 numbers.
    """
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
    try:
        kernel._cache = Cache(function)  # what `cache=True` does, with a class of our own
    except (RuntimeError, OSError):
        kernel._cache = NoCache(function)
    compiled_kernel: Kernel = kernel
    return compiled_kernel
