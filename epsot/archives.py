"""Files that last: named arrays and plain numbers in one .npz, from which nothing is ever run.

What is saved gives its *parts*: dictionaries, lists, texts, numbers and arrays of any library. Arrays become members of
the file, each number of them once; all else is JSON, as the bytes of the member `epsot`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import as_path, to_numpy
from epsot.communicator import ALONE, Communicator

HEAD = "epsot"  # the member that says what the others are
VERSION = 1  # of the format: a change that an older reader would misunderstand counts it up
MARK = "$array"  # of a reference to a member
KINDS = "biuf"  # of NumPy data types that are numbers


class Savable:
    """What can be saved: `_written` gives the parts from which a reader makes it again."""

    @property
    def comm(self) -> Communicator:
        """The ranks that have it together, of which one writes."""
        return ALONE

    def _kept(self) -> Savable:
        """What of it is saved."""
        return self

    def _written(self) -> dict[str, Any]:
        """The parts: dictionaries, lists, texts, numbers and arrays."""
        raise TypeError(f"a {type(self).__name__} cannot be saved")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file of this very name, for `epsot.load`: one .npz without pickles.

        Parameters
        ----------
        path : path
            Nothing is appended to it. What was there is replaced once all is written: a process that is killed leaves
            the old file, or the new one. Of a solve with `comm` all ranks save together, and one of them writes.

        Raises
        ------
        TypeError
            If the cost, or the geometry, is one of your own, for which a file has no name.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import epsot
        >>> result = epsot.sinkhorn([[0.0], [1.0]], [[0.2], [0.9]], blur=0.3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(Path(folder) / "result.npz")
        ...     again = epsot.load(Path(folder) / "result.npz")
        >>> bool(again.value == result.value)
        True
        """
        target = as_path("path", path)
        with self.comm.together():
            kept = self._kept()
            parts = kept._written()
            self.comm.first(lambda: write(target, type(kept).__name__, parts))


class Observed(Savable, ABC):
    """What an observer is given of a solve under way, and saved as what of it outlives the solve."""

    @abstractmethod
    def record(self) -> Savable:
        """What that is."""

    def _kept(self) -> Savable:
        return self.record()


class Members:
    """The arrays of a file by name; what is equal is kept once."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[Any, str] = {}

    def encoded(self, part: Any, name: str) -> Any:
        """What JSON can hold of a part, which `name` leads to."""
        if isinstance(part, dict):
            return {key: self.encoded(value, f"{name}.{key}" if name else key) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [self.encoded(value, f"{name}.{k}") for k, value in enumerate(part)]
        if isinstance(part, np.generic):
            return part.item()
        return {MARK: self._member(to_numpy(part), name)} if is_array_api_obj(part) else part

    def _member(self, array: np.ndarray, name: str) -> str:
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous  # .npy files keep that order
        lines = np.ascontiguousarray(array.T if fortran else array).reshape(-1)
        key = array.dtype.str, array.shape, fortran, hashlib.blake2b(lines.view(np.uint8).data).digest()
        if key not in self._names:
            self._names[key], self.arrays[name] = name, array
        return self._names[key]


def written_by() -> str:
    """The version of this package."""
    try:
        return version("epsot")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


def write(path: str | os.PathLike[str], kind: str, parts: dict[str, Any]) -> None:
    """Replace the file by one of these parts, at once."""
    members = Members()
    head = {"version": VERSION, "kind": kind, "epsot": written_by(), "parts": members.encoded(parts, "")}
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    target = Path(os.path.realpath(path))  # where a link leads to
    scratch = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with scratch.open("xb") as file:
            arrays: dict[str, Any] = {HEAD: text, **members.arrays}
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


class DamagedError(ValueError):
    """What a file holds is not what was saved; the message does not name it yet."""


def read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The kind and the parts of what a file holds, arrays as NumPy's; ValueError where it is none of ours."""
    name = os.fspath(path)
    with Path(name).open("rb") as file:  # FileNotFoundError, as everywhere
        try:
            with zipfile.ZipFile(file) as archive:
                head = json.loads(member(archive, HEAD).tobytes().decode())
                check_head(head)
                found = Decoder(archive).decoded(head["parts"])
                return head["kind"], found
        except MemoryError:
            raise
        except DamagedError as error:
            raise ValueError(f"{name!r} {error}") from None
        except Exception as error:  # whatever zipfile, zlib, json and NumPy make of damaged bytes
            raise ValueError(f"{name!r} is damaged, or was not written by `save`: {error}") from error


def check_head(head: Any) -> None:
    """Raise unless this reader understands what follows."""
    ours = isinstance(head, dict) and isinstance(head.get("version"), int)
    if not ours or not isinstance(head.get("parts"), dict) or not isinstance(head.get("kind"), str):
        raise DamagedError("was not written by `save`")
    if head["version"] > VERSION:
        raise DamagedError(
            f"was written by epsot {head.get('epsot')} in format {head['version']}, and this one reads {VERSION}: "
            "update epsot"
        )


def member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of a file; nothing but numbers, and as many as its bytes are."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise DamagedError(f"has no {name!r}: it is damaged, or was not written by `save`") from None
    with archive.open(info) as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.kind not in KINDS:
            raise DamagedError(f"holds {dtype} in {name!r}, which are no numbers")
        if math.prod(shape) * dtype.itemsize != info.file_size - file.tell():  # before there is memory for them
            raise DamagedError(f"is damaged: {name!r} holds more or fewer numbers than it says")
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


class Decoder:
    """The parts of a file. What is kept once is one array."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.arrays: dict[str, np.ndarray] = {}

    def decoded(self, part: Any) -> Any:
        if isinstance(part, list):
            return [self.decoded(value) for value in part]
        if not isinstance(part, dict):
            return part
        if MARK not in part:
            return {key: self.decoded(value) for key, value in part.items()}
        name = part[MARK]
        if name not in self.arrays:
            self.arrays[name] = member(self.archive, name)
        return self.arrays[name]
