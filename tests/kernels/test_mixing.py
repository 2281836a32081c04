"""The mixing of steps of many problems against that of one, as each goes its own way."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from epsot.kernels.mixing import Weighed, advance, no_memory
from epsot.kernels.vectors import LONGEST, WINDOW, Directions
from tests.checks import close

B, M = 7, 300


def residuals(rng: np.random.Generator, part: np.ndarray, past: np.ndarray) -> np.ndarray:
    """A part that no mix removes, and another of any direction, so that rounding does not grow; some as the last ones.

    Those of two problems mislead.
    """
    out = part + 0.1 * rng.normal(size=past.shape)
    out[2:4] *= 10.0 ** rng.uniform(-1, 0.5, (2, 1))
    return np.where(rng.random((len(past), 1)) < 0.1, past, out)


@pytest.mark.parametrize("library", ["numpy", "strict"])
@pytest.mark.parametrize("weightless", [False, True])
@pytest.mark.parametrize("eased", [False, True])
def test_each_problem_is_mixed_as_alone(library: str, weightless: bool, eased: bool, rng: np.random.Generator) -> None:
    """Balanced or not, eased or not, forgotten at different times, and with far more steps than are remembered."""
    to: Any = np.asarray if library == "numpy" else strict.asarray
    b = rng.random((B, M)) + 0.1
    if weightless:
        b[:, 4] = 0
    kept = b[0] > 0
    mass, balanced, eps = b.sum(axis=1), np.arange(B) % 2 == 0, np.geomspace(0.02, 3, B)
    ease, scale = np.asarray([eased and k % 3 == 0 for k in range(B)]), rng.uniform(0.1, 1, (B, M))
    alone = [
        Directions(b[k][kept], np.log(b[k][kept]), mass[k], math.inf, balanced=bool(balanced[k])) for k in range(B)
    ]
    for k in np.flatnonzero(ease):
        alone[k].rescale(scale[k][kept])
    side = Weighed(
        to(b), to(mass[:, None]), to(balanced[:, None]), to(scale) if eased else None,
        to(ease[:, None]) if eased else None,
    )  # fmt: skip
    part = residual = rng.normal(size=(B, M))
    g = np.where(kept, rng.normal(size=(B, M)), 0)
    memory, longest = no_memory(to(g)), 0
    for step in range(3 * WINDOW):
        residual = residuals(rng, part, residual)
        result = np.where(kept, g + eps[:, None] * residual, 0)
        forgets = (step + np.arange(B)) % 23 == 0
        memory = memory._replace(known=memory.known & to(~forgets))
        mixed = advance(side, memory, to(g), to(result), to(eps))
        memory, start = mixed.memory, np.asarray(mixed.start)
        for k in range(B):
            if forgets[k]:
                alone[k].forget()
            close(np.asarray(mixed.norm)[k], alone[k].push(g[k][kept], result[k][kept], eps[k]), 1e-9)
            close(start[k][kept], alone[k].mix(eps[k]), 1e-9)
            close(np.asarray(memory.expected)[k] ** 2, alone[k].expected ** 2, 1e-9)  # a difference of squares
            assert int(memory.count[k]) == alone[k].count
            longest = max(longest, alone[k].count)
        assert np.all(start[:, ~kept] == 0)
        g = start
    assert longest > WINDOW


def test_no_column_that_is_eased_moves_far() -> None:
    b, scale = np.ones((1, 3)), np.asarray([[0.1, 0.5, 1.0]])
    side = Weighed(b, np.full((1, 1), 3.0), None, scale, np.asarray([[True]]))
    g, eps = np.zeros((1, 3)), np.asarray([0.5])
    mixed = advance(side, no_memory(g), g, eps * np.asarray([[0.4, 0.1, 3.0]]), eps)
    close(mixed.start, 0.5 * np.asarray([[LONGEST, 0.2, 3.0]]), 1e-15)
