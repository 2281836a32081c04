"""A result as a few lines for a terminal, and as a small table for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


class Shown:
    """What has lines to show: `_lines` says which; nothing is computed for them, nor read from a device."""

    def _lines(self) -> Mapping[str, object]:
        raise TypeError(f"a {type(self).__name__} has no lines")

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        rows = "".join(
            f'<tr style="text-align:left"><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>'
            for name, value in self._lines().items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption><tbody>{rows}</tbody></table>"


def as_lines(name: str, lines: Mapping[str, object]) -> str:
    """The name and a line for each."""
    return "\n".join([name, *(f"{key:>15}: {value}" for key, value in lines.items())])
