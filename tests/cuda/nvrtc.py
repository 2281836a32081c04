"""NVRTC by ctypes: compiles CUDA kernels for any architecture on a machine without a GPU or a driver."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.cuda.kept import kept

OPTIONS = (b"--std=c++17", b"-ftz=true", b"--device-as-default-execution-space")  # the last two are CuPy's own
MISSING = "NVRTC is not installed: pip install nvidia-cuda-nvrtc, which needs no GPU"


class Usage(NamedTuple):
    """What ptxas says of a kernel."""

    registers: int  # of a thread
    shared: int  # bytes of a block
    spilled: int  # bytes of a thread
    stack: int  # bytes of a thread: local arrays that are indexed by variables


@cache
def library() -> Any:
    """The compiler of the wheel, or None."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec and spec.submodule_search_locations else ():
        for path in sorted(Path(folder).rglob("*nvrtc*")):
            if re.fullmatch(r"libnvrtc\.so\.\d+|nvrtc64_\w+\.dll", path.name):
                return ctypes.CDLL(str(path))
    return None


def architectures() -> set[int]:
    """What this version compiles for."""
    count = ctypes.c_int()
    library().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    supported = (ctypes.c_int * count.value)()
    library().nvrtcGetSupportedArchs(supported)
    return set(supported)


def _text(program: Any, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library(), f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()


def _compiled(architecture: str, code: str, names: Sequence[str]) -> Any:
    """A program, compiled without a warning."""
    nvrtc, program = library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    for name in names:
        nvrtc.nvrtcAddNameExpression(program, name.encode())
    options = [*OPTIONS, f"--gpu-architecture={architecture}".encode(), b"--ptxas-options=-v"]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = _text(program, "ProgramLog")
    assert status == 0, log
    assert "warning" not in log, log
    return program


@cache
def version() -> str:
    """Of NVRTC: its number, and the size of its library, for what the number does not tell apart."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value} {Path(library()._name).stat().st_size}"


def assembly(code: str, name: str) -> str:
    """The PTX of a kernel."""

    def write(file: Path) -> None:
        program = _compiled("compute_90", code, [name])
        file.write_text(_text(program, "PTX"))
        library().nvrtcDestroyProgram(ctypes.byref(program))

    return kept(".ptx", [version(), *map(str, OPTIONS), code, name], write).read_text()


def instructions(code: str, name: str) -> Counter[str]:
    """The PTX instructions of the basic block that has most exponentials: the inner loop."""
    blocks = re.split(r"\n\$L\w+:", assembly(code, name))
    inner = max(blocks, key=lambda block: block.count("ex2.approx"))
    return Counter(re.findall(r"^\s+(?:@\S+ )?([a-z][\w.]+)", inner, re.MULTILINE))


PATTERNS = (r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes spill", r"(\d+) bytes stack frame")


def compile_for(architecture: int, code: str, names: Sequence[str]) -> dict[str, Usage]:
    """What the kernels of these names use on sm_<architecture>."""
    origin = [version(), *map(str, OPTIONS), *PATTERNS, str(architecture), code, *names]

    def write(file: Path) -> None:
        file.write_text(json.dumps(_usage(architecture, code, names)))

    file = kept(".json", origin, write)
    return {name: Usage(*numbers) for name, numbers in json.loads(file.read_text()).items()}


def _usage(architecture: int, code: str, names: Sequence[str]) -> dict[str, Usage]:
    nvrtc, program = library(), _compiled(f"sm_{architecture}", code, names)
    log = _text(program, "ProgramLog")
    usage = {}
    for name in names:
        lowered = ctypes.c_char_p()
        nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered))
        assert lowered.value is not None
        part = log.split(f"Compiling entry function '{lowered.value.decode()}'")[1].split("Compiling entry")[0]
        usage[name] = Usage(*(_total(pattern, part) for pattern in PATTERNS))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return usage


def _total(pattern: str, text: str) -> int:
    return sum(map(int, re.findall(pattern, text)))
