"""``python -m epsot info``: versions, processor, GPU and backends, for a bug report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import epsot
from epsot import kernels

SIMD = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "neon": "NEON"}  # the widest first
CUPY_WHEELS = ("cupy", "cupy-cuda13x", "cupy-cuda12x")  # CuPy is published under several names


def info() -> dict[str, Any]:
    """What epsot runs on, and how it will.

    Returns
    -------
    dict
        Versions ("not installed" for what is missing), `platform`, usable `cores`, `processor` and its `simd` level,
        `gpu` ("none" if no device answers), the backend of NumPy, CuPy and other arrays, and the folder in which
        compiled kernels are kept, with whether it can be written (None if Numba finds none).

    Examples
    --------
    >>> from epsot.info import info
    >>> info()["numpy_arrays"]
    'cpu'
    """
    from llvmlite import binding

    from epsot.kernels.cpu.threads import usable_workers

    features = binding.get_host_cpu_features()
    folder = cache_folder()
    cupy, gpu = cupy_and_device()
    return {
        "epsot": epsot.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "scipy", "numba", "llvmlite", "matplotlib")},
        "cupy": next((found for name in CUPY_WHEELS if (found := _version(name)) != "not installed"), "not installed"),
        "platform": platform.platform(),
        "cores": usable_workers(None),
        "processor": binding.get_host_cpu_name(),
        "simd": next((label for name, label in SIMD.items() if features.get(name)), "none"),
        "gpu": gpu,
        "numpy_arrays": kernels.backend_of(np.empty(0)),
        "cupy_arrays": "none" if cupy is None else kernels.backend_of(cupy.empty(0)),
        "other_arrays": kernels.backend_of(object()),
        "kernel_cache": None if folder is None else str(folder),
        "kernel_cache_writable": folder is not None and _writable(folder),
    }


def cache_folder() -> Path | None:
    """Where Numba keeps the compiled kernels: a folder that it chooses by the file they are defined in."""
    import numba

    from epsot.kernels.cpu import threads

    try:
        probe: Any = numba.njit(cache=True)(threads.run)  # a neighbour of the kernels; nothing is compiled
    except (RuntimeError, OSError):  # no folder can be written: every process compiles for itself
        return None
    return Path(probe.stats.cache_path)


def report(found: dict[str, Any]) -> str:
    """The dictionary as lines for people."""
    width = max(map(len, found))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {value}" for name, value in found.items())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def cupy_and_device() -> tuple[Any, str]:
    """CuPy, if it works, and the name of its first device."""
    try:
        import cupy

        name = cupy.cuda.runtime.getDeviceProperties(0)["name"]
    except Exception:  # CuPy is missing, or its driver or device does not answer: all are "none" here
        return None, "none"
    return cupy, name.decode() if isinstance(name, bytes) else str(name)


def _writable(folder: Path) -> bool:
    """Whether the folder can be written, or made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
