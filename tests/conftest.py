"""Fixtures: awkward problems, none of them uniform, centred, square or of mass one. What is compiled is kept."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
import pytest

from epsot import kernels
from epsot.kernels.cpu.compiled import sources_stamp
from epsot.kernels.cuda import modules
from tests.libraries import large_first

M_ARENA_MAX = -8  # of glibc's mallopt
MUCH = 2**26  # bytes


def pytest_configure(config: pytest.Config) -> None:
    """What `tests/cuda` and JAX compile is kept in pytest's cache, which `pytest --cache-clear` empties."""
    with_allocator(lambda library: library.mallopt(M_ARENA_MAX, 2))  # each thread's own would keep what it has freed
    if config.pluginmanager.hasplugin("cacheprovider"):
        os.environ.setdefault("EPSOT_EMULATION", str(config.cache.mkdir("epsot-compiled")))  # type: ignore[union-attr]
        keep_programs_of_jax(config)
        if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput"):
            compile_ahead(config)


def keep_programs_of_jax(config: pytest.Config) -> None:
    """All of them, by the processor that they are for: by default JAX keeps none that took less than a second."""
    processor = llvmlite.binding.get_host_cpu_name() + llvmlite.binding.get_host_cpu_features().flatten()
    folder = config.cache.mkdir(f"epsot-jax-{zlib.crc32(processor.encode()):08x}")  # type: ignore[union-attr]
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    large_first(items)


def pytest_collection_finish() -> None:
    """Thousands of tests are in memory until the end: no collection need look at them."""
    gc.collect()
    gc.freeze()


def compile_ahead(config: pytest.Config) -> None:
    """Before all tests the usual kernels are compiled, in processes that give back what memory that takes.

    Two processes of tests would each compile them, and keep a gigabyte.
    """
    cache, stamp = config.cache, [sources_stamp(), numba.__version__, sys.version]
    if cache is None or kernels.jit_is_off() or config.option.collectonly or cache.get("epsot/compiled", None) == stamp:
        return
    command = [sys.executable, "-m", "epsot", "compile", "--processes", "2"]
    if subprocess.run(command, cwd=config.rootpath, check=False).returncode == 0:  # it says why
        cache.set("epsot/compiled", stamp)


def give_memory_back() -> None:
    """That of programs which JAX has compiled, hundreds of small ones, and what the allocator holds for later."""
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
    with_allocator(lambda library: library.malloc_trim(0))


def with_allocator(call: Callable[[Any], object]) -> None:
    """Where the allocator is that of glibc."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            call(ctypes.CDLL("libc.so.6"))


def resident() -> int:
    """Bytes of memory that this process holds; 0 where nobody says so."""
    with suppress(OSError), open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Memory:
    """What this process held when some was given back last."""

    held = 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After each file, and whenever tests have taken much: a process of tests runs thousands of them."""
    if nextitem is None or nextitem.path != item.path or resident() > Memory.held + MUCH:
        give_memory_back()
        Memory.held = resident()


class Measures(NamedTuple):
    """Two weighted clouds."""

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray

    @property
    def balanced(self) -> Measures:
        """The same with b scaled to the mass of a."""
        return self._replace(b=self.b * (self.a.sum() / self.b.sum()))


def measures(n: int, m: int, d: int, *, seed: int = 0, offset: float = 0.0, zeros: bool = True) -> Measures:
    """Random weights with a zero on each side, masses that are not 1 and differ."""
    rng = np.random.default_rng([seed, n, m, d])
    x = rng.normal(size=(n, d)) / np.sqrt(d) + offset
    y = 0.7 * rng.normal(size=(m, d)) / np.sqrt(d) + 0.4 + offset
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    if zeros:
        a[n // 2] = b[1] = 0
    return Measures(x, y, 2.3 * a / a.sum(), 1.7 * b / b.sum())


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process with EPSOT_UNPROVEN=1: code for a GPU that no device has run yet may run."""
    monkeypatch.setenv("EPSOT_UNPROVEN", "1")
    modules.unproven.cache_clear()
    yield
    modules.unproven.cache_clear()


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy arrays take the portable path, as without Numba: what is compared with it need compile nothing for them."""
    monkeypatch.setattr(kernels, "jit_is_off", lambda: True)


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small problems are solved as large ones are, one sweep at a time."""
    monkeypatch.setattr("epsot.drivers.choice.solve_at_once", lambda instance, options, *start: None)
    monkeypatch.setattr("epsot.drivers.choice.selves_at_once", lambda *sources: (None, None))


@pytest.fixture(params=["portable", pytest.param("fused", marks=pytest.mark.every)])
def any_path(request: pytest.FixtureRequest) -> None:
    """For what is true of every cost, dimension and type whatever computes it: the fused kernels of all take minutes.

    Those of most solves, and each in `tests/kernels`, are met without.
    """
    if request.param == "portable":
        request.getfixturevalue("portable")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


SIZES = [(13, 9, 1, 0.0), (12, 17, 2, 50.0), (15, 8, 3, -7.0), (9, 14, 17, 3.0)]


@pytest.fixture(params=SIZES, ids=lambda size: f"d{size[2]}")
def awkward(request: pytest.FixtureRequest) -> Measures:
    n, m, d, offset = request.param
    return measures(n, m, d, offset=offset)
