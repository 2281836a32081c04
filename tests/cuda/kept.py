"""What was compiled for the tests, kept between runs, by a checksum of all that it was made of."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(os.environ.get("EPSOT_EMULATION", "") or tempfile.mkdtemp(prefix="epsot-emulation-"))  # set: kept
if not os.environ.get("EPSOT_EMULATION"):
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
MONTH = 30 * 24 * 3600  # seconds


def kept(suffix: str, origin: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The file that `make` writes to the path it is given, once for all processes and runs with the same origin."""
    stamp = hashlib.sha256("\0".join(origin).encode()).hexdigest()[:24]
    file = FOLDER / f"{stamp}{suffix}"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with alone(FOLDER / f"{stamp}.lock"):
            if not file.exists():
                forget(FOLDER)
                unfinished = FOLDER / f"{stamp}-{os.getpid()}{suffix}"
                make(unfinished)
                unfinished.replace(file)
    file.touch()
    return file


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process, or thread, at a time; on Windows each works for itself.

    The file can go before those who wait for it: they see what has been made meanwhile, as everybody who comes later.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """What no run has used for a month."""
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - MONTH:
                path.unlink()
        except FileNotFoundError:  # by another process
            pass
