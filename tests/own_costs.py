"""Costs as a user would write them, for arrays of any library."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

import epsot


class PseudoHuber(epsot.Cost):
    """sqrt(1 + |x - y|^2) - 1, with its gradient; second derivatives are differences of that."""

    degree = 1.0

    def value(self, x: Any, y: Any) -> Any:
        xp = array_namespace(x, y)
        return xp.sqrt(1 + xp.sum((x - y) ** 2, axis=-1)) - 1

    def gradient(self, x: Any, y: Any) -> Any:
        return (x - y) / (self.value(x, y) + 1)[..., None]
