"""What is kept between runs is what was made, once, and goes when it is not used."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.cuda import kept


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    return tmp_path / "kept"


def test_made_once_for_an_origin(folder: Path) -> None:
    made = []

    def make(file: Path) -> None:
        made.append(file)
        time.sleep(0.01)  # others come meanwhile
        file.write_text(f"number {len(made)}")

    def ask() -> None:
        assert kept.kept(".txt", ["code", "option"], make).read_text() == "number 1"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask()
    assert len(made) == 1
    assert kept.kept(".txt", ["code", "other option"], make).read_text() == "number 2"
    assert sorted(path.suffix for path in folder.iterdir()) == [".txt", ".txt"]


def test_nothing_is_kept_of_a_failure(folder: Path) -> None:
    def fail(file: Path) -> None:
        file.write_text("half of it")
        raise OSError("no space")

    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            kept.kept(".txt", ["code"], fail)

    def succeed(file: Path) -> None:
        file.write_text("all of it")

    assert kept.kept(".txt", ["code"], succeed).read_text() == "all of it"


def test_what_is_not_used_is_forgotten(folder: Path) -> None:
    old, used = (kept.kept(".txt", [name], lambda file: file.touch()) for name in ("old", "used"))
    for file in (old, used):
        os.utime(file, (0, 0))
    kept.kept(".txt", ["used"], lambda file: file.touch())
    kept.kept(".txt", ["another"], lambda file: file.touch())
    assert used.exists()
    assert not old.exists()
