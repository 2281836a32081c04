"""A module of the shape of CuPy over NumPy, whose kernels run on the CPU: for tests of what drives them.

Its arrays are no NumPy arrays. NumPy cannot read them (the real ones refuse, too), they mix with none, and each way for
a number to reach the host is counted in `transfers`, each function of arrays that starts a kernel of CuPy's own in
`operations`. Devices are labels: a launch, or an operation, on an array that is not on the current device is an error.
Threads have a current device each, and launches of all of them come one after the other. A copy to the host that does
not block is done when an event that was recorded later is waited for, and not before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from tests.cuda.emulation import Kernels, build
from tests.cuda.instantiations import groups

transfers: Counter[str] = Counter()  # to the host, by the way they took
sizes: list[int] = []  # of the arrays that went to the host, and came from it
launches: list[tuple[str, tuple[int, ...], int]] = []  # name, grid, device
operations: Counter[str] = Counter()  # of CuPy's own, by name; each is a launch or more
allocated = {"now": 0, "peak": 0}
COMPILED: dict[str, Kernels] = {}  # by the name of a kernel; all of a group are one library
MULTIPROCESSORS = 2  # of every device; few, so that small problems have several blocks
RESIDENT = 1  # blocks that a multiprocessor is sure to run at once
TOGETHER = 8  # groups of kernels in a program
refused: list[str] = []  # beginnings of the names of kernels whose blocks the driver does not run all at once
# Functions that look at an array, or make one that nothing is written to.
FREE = {
    "broadcast_to", "can_cast", "expand_dims", "finfo", "iinfo", "isdtype", "moveaxis", "ndim",
    "ravel", "reshape", "result_type", "shape", "squeeze", "swapaxes", "transpose",
}  # fmt: skip


class Here(threading.local):
    """What a thread is at: the devices it has made current, and copies that it has begun."""

    def __init__(self) -> None:
        self.devices, self.begun = [0], list[Callable[[], None]]()


here = Here()
launching = threading.Lock()


class Device:
    """A label that is current inside `with`."""

    def __init__(self, device: Any = None) -> None:
        self.id = here.devices[-1] if device is None else int(getattr(device, "id", device))
        self.attributes = {
            "MultiProcessorCount": MULTIPROCESSORS, "ClockRate": 1_000_000,  # in kHz
            "CooperativeLaunch": 1, "SingleToDoublePrecisionPerfRatio": 2,
        }  # fmt: skip
        self.compute_capability = "90"
        self.pci_bus_id = f"0000:{self.id:02x}:00.0"

    def __enter__(self) -> Device:
        here.devices.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        here.devices.pop()

    def synchronize(self) -> None:
        transfers["synchronize"] += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


def unwrap(value: Any) -> Any:
    """The NumPy array behind an array of this module."""
    if isinstance(value, ndarray):
        if value.device.id != here.devices[-1]:
            raise RuntimeError(
                f"an array on device {value.device.id} is used while device {here.devices[-1]} is current"
            )
        return value.data_
    if isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind != "V":  # which is a struct
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, list | tuple):
        return type(value)(map(unwrap, value)) if not hasattr(value, "_fields") else value
    return value


def wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(map(wrap, value))
    return [wrap(part) for part in value] if isinstance(value, list) else value


def lifted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy as one of arrays of this module."""
    name = getattr(function, "__name__", "call")

    def call(*arguments: Any, **options: Any) -> Any:
        if name not in FREE:
            operations[name] += 1
        options = {name: unwrap(value) for name, value in options.items()}
        return wrap(function(*map(unwrap, arguments), **options))

    call.__name__ = name
    return call


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that NumPy cannot read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data_ = data
        self.device = Device()
        if data.base is None:
            allocated["now"] += data.nbytes
            allocated["peak"] = max(allocated["peak"], allocated["now"])
            self.owned = data.nbytes

    def __del__(self) -> None:
        allocated["now"] -= getattr(self, "owned", 0)

    shape = property(lambda self: self.data_.shape)
    ndim = property(lambda self: self.data_.ndim)
    size = property(lambda self: self.data_.size)
    dtype = property(lambda self: self.data_.dtype)
    strides = property(lambda self: self.data_.strides)
    itemsize = property(lambda self: self.data_.itemsize)
    nbytes = property(lambda self: self.data_.nbytes)
    T = property(lambda self: self._on_own(self.data_.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self.data_.ctypes.data))
    flags = property(lambda self: self.data_.flags)

    def _on_own(self, data: np.ndarray) -> ndarray:
        with self.device:
            return ndarray(data)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        assert method == "__call__"
        operations[ufunc.__name__] += 1
        out = options.pop("out", None)
        if out is not None:
            options["out"] = tuple(map(unwrap, out))
        result = ufunc(*map(unwrap, inputs), **options)
        return out[0] if out is not None else wrap(result)

    def __len__(self) -> int:
        return len(self.data_)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> ndarray:
        index = unwrap(index)
        part = np.asarray(unwrap(self)[(index, ...) if isinstance(index, int) else index])
        operations["take"] += not np.may_share_memory(part, self.data_)
        return wrap(part)

    def __setitem__(self, index: Any, value: Any) -> None:
        operations["put"] += 1
        unwrap(self)[unwrap(index)] = unwrap(value)

    def __repr__(self) -> str:
        transfers["repr"] += 1
        return repr(self.data_)

    def get(self, *, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        transfers["get"] += 1
        sizes.append(self.size)
        if blocking:
            return self.data_.copy()
        assert out is not None
        data = self.data_.copy()
        here.begun.append(lambda: np.copyto(out, data))
        return out

    def _to_host(name: str) -> Any:  # type: ignore[misc]
        def convert(self: Any, *arguments: Any) -> Any:
            transfers[name] += 1
            sizes.append(self.size)
            return getattr(self.data_, name)(*arguments)

        return convert

    __float__, __int__, __bool__, __complex__ = map(_to_host, ("__float__", "__int__", "__bool__", "__complex__"))
    item, tolist, __index__ = map(_to_host, ("item", "tolist", "__index__"))

    def _method(name: str) -> Any:  # type: ignore[misc]
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            return lifted(getattr(np.ndarray, name))(self, *arguments, **options)

        return call

    astype, sum, min, max, mean, any, all, reshape, copy, ravel = map(
        _method, ("astype", "sum", "min", "max", "mean", "any", "all", "reshape", "copy", "ravel")
    )

    def __dlpack__(self, **_: Any) -> Any:
        return self.data_.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.data_.__dlpack_device__()


@cache
def programs() -> list[list[str]]:
    """The names of kernels that are compiled at once: to read what all share takes half as long as a group of them."""
    several = list(groups().values())
    return [list(chain(*several[k : k + TOGETHER])) for k in range(0, len(several), TOGETHER)]


@cache
def build_all(code: str) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda names: build(code, names), programs()))


class RawModule:
    """Kernels of a source, run by the emulator."""

    def __init__(self, code: str, options: tuple[str, ...] = (), name_expressions: tuple[str, ...] = ()) -> None:
        assert options == ("--std=c++17",)
        (name,) = name_expressions
        if name not in COMPILED:
            build_all(code)  # on all cores, before the tests ask for them one by one
            names = next(names for names in programs() if name in names)
            COMPILED.update(dict.fromkeys(names, Kernels(code, names)))

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(name)


class CUDADriverError(RuntimeError):
    """What the driver says, in CuPy's words."""


class RawKernel:
    """A kernel; `kernel` is what CuPy has loaded for the current device, which can be started in more ways."""

    def __init__(self, name: str) -> None:
        self.name, self.compiled = name, COMPILED[name][name]

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        self.kernel(grid, block, arguments)

    @property
    def kernel(self) -> Callable[..., None]:
        return self.start

    def start(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple[Any, ...],
        *,
        enable_cooperative_groups: bool = False,
    ) -> None:
        assert all(0 < size <= limit for size, limit in zip(grid, (2**31 - 1, 65535, 65535), strict=False)), grid
        assert not enable_cooperative_groups or np.prod(grid) <= MULTIPROCESSORS * RESIDENT
        if enable_cooperative_groups and self.name.startswith(tuple(refused)):
            raise CUDADriverError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks in cooperative launch")
        launches.append((self.name, grid, here.devices[-1]))
        values = [unwrap(argument) for argument in arguments]
        with launching:
            self.compiled(grid, block, values, together=enable_cooperative_groups)


class Stream:
    """Streams that were made current, by address."""

    used: list[int] = []  # noqa: RUF012

    def __init__(self, address: int) -> None:
        self.address = address

    @classmethod
    def from_external(cls, stream: Any) -> Stream:
        return cls(stream.__cuda_stream__()[1])

    def __enter__(self) -> Stream:
        Stream.used.append(self.address)
        return self

    def __exit__(self, *_: object) -> None:
        pass


def get_current_stream() -> types.SimpleNamespace:
    """That of the current device."""
    return types.SimpleNamespace(ptr=1 + here.devices[-1])


class Event:
    """A moment."""

    def __init__(self, *, disable_timing: bool = False) -> None:
        self.begun: list[Callable[[], None]] = []

    def record(self) -> None:
        self.moment = time.perf_counter()
        self.begun, here.begun = here.begun, []

    def synchronize(self) -> None:
        transfers["synchronize"] += 1
        for copy in self.begun:
            copy()
        self.begun = []


def get_elapsed_time(start: Event, end: Event) -> float:
    """In milliseconds."""
    return 1e3 * (end.moment - start.moment)


def from_dlpack(array: Any) -> ndarray:
    return ndarray(np.from_dlpack(array))


def asarray(obj: Any, dtype: Any = None, **_: Any) -> ndarray:
    if isinstance(obj, ndarray):
        return obj if dtype is None or obj.dtype == dtype else obj.astype(dtype)
    array = np.array(unwrap(obj) if isinstance(obj, list | tuple) else obj, dtype=dtype)
    sizes.append(array.size)
    return ndarray(array)


def ascontiguousarray(array: Any, dtype: Any = None) -> ndarray:
    array = asarray(array, dtype)
    return array if array.flags.c_contiguous else array.copy()


def unwritten(array: np.ndarray) -> ndarray:
    """Not what some memory happened to hold, but what is seen where it is read before it is written."""
    array.reshape(-1).view(np.uint8)[...] = 0xFF  # nan, or -1
    return ndarray(array)


def empty(shape: Any, dtype: Any = float, **_: Any) -> ndarray:
    return unwritten(np.empty(shape, dtype))


def empty_like(prototype: Any, dtype: Any = None, **_: Any) -> ndarray:
    return unwritten(np.empty_like(unwrap(prototype), dtype, order="C"))


def make() -> dict[str, types.ModuleType]:
    """The modules by name."""
    names = ("cupy", "cupy.linalg", "cupy.fft", "cupy.cuda", "cupy.cuda.device", "cupy.cuda.driver")
    cupy, linalg, fft, cuda, device, driver = map(types.ModuleType, names)
    for module, origin in ((cupy, np), (linalg, np.linalg), (fft, np.fft)):
        for name in dir(origin):
            value = getattr(origin, name)
            if not name.startswith("_") and not isinstance(value, types.ModuleType):
                plain = isinstance(value, type) or not callable(value)
                setattr(module, name, value if plain else lifted(value))
    ours = {
        "ndarray": ndarray, "RawModule": RawModule, "from_dlpack": from_dlpack, "asarray": asarray,
        "ascontiguousarray": ascontiguousarray, "empty": empty, "empty_like": empty_like,
        "array": lambda obj, dtype=None, copy=True: asarray(obj, dtype).copy(),
        "linalg": linalg, "fft": fft, "cuda": cuda, "__version__": "0",
    }  # fmt: skip
    for name, value in ours.items():
        setattr(cupy, name, value)
    cupy.__path__, cuda.__path__ = [], []
    cuda.Device, cuda.Stream, device.Device = Device, Stream, Device  # type: ignore[attr-defined]
    cuda.driver, driver.CUDADriverError = driver, CUDADriverError  # type: ignore[attr-defined]
    cuda.Event, cuda.get_elapsed_time = Event, get_elapsed_time  # type: ignore[attr-defined]
    cuda.get_current_stream, cuda.alloc_pinned_memory = get_current_stream, bytearray  # type: ignore[attr-defined]
    cuda.runtime = types.SimpleNamespace(  # type: ignore[attr-defined]
        getDeviceProperties=lambda _: {"name": b"an emulated device"}, driverGetVersion=lambda: 0
    )
    return {module.__name__: module for module in (cupy, linalg, fft, cuda, device, driver)}


ndarray.__module__ = "cupy"
MODULES = make()
COMPATIBLE: dict[str, types.ModuleType] = {}  # array_api_compat.cupy over this module, kept between uses


def _names() -> list[str]:
    prefixes = ("cupy", "array_api_compat.cupy")
    return [name for name in sys.modules if name in prefixes or name.startswith(tuple(f"{p}." for p in prefixes))]


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """`import cupy` gives this module; a real one comes back afterwards."""
    aside = {name: sys.modules.pop(name) for name in _names()}
    sys.modules.update(MODULES)
    sys.modules.update(COMPATIBLE)
    try:
        yield MODULES["cupy"]
    finally:
        for kernels in set(COMPILED.values()):
            kernels.forget()
        COMPATIBLE.update({name: sys.modules[name] for name in _names() if name not in MODULES})
        for name in _names():
            del sys.modules[name]
        sys.modules.update(aside)
