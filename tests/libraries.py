"""Libraries that take a second and 200 MB to import: most processes of tests have no use for them."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

LARGE = re.compile(r"\b(torch|jax|sklearn)\b")


class Lazily:
    """A module, imported where it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # which pytest asks of whatever it meets in a file
            raise AttributeError(name)
        return getattr(importlib.import_module(self.name), name)


def needs(library: str) -> pytest.MarkDecorator:
    """The mark of tests that skip without a library, which is only looked for."""
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"could not import {library!r}: it is not installed")


def large_first(items: list[pytest.Item]) -> None:
    """Files that speak of such a library come first, which makes them the work of one process of two."""
    large = {path: bool(LARGE.search(path.read_text(encoding="utf-8"))) for path in {Path(item.path) for item in items}}
    items.sort(key=lambda item: not large[Path(item.path)])
