"""What a problem gets in a batch is what it gets alone, to the last bit on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot


def same(found: Any, expected: Any) -> None:
    """The three parts of a divergence, or a solve."""
    for name in ("xy", "xx", "yy") if hasattr(expected, "xy") else ("",):
        part, other = (getattr(z, name) if name else z for z in (found, expected))
        assert (part.status, part.nit) == (other.status, other.nit)
        np.testing.assert_array_equal(part.source.potential, other.source.potential)
        np.testing.assert_array_equal(part.target.potential, other.target.potential)
        assert part.value64 == other.value64


def costs(rng: np.random.Generator, count: int, n: int, m: int) -> np.ndarray:
    z = rng.normal(size=(count, max(n, m), 2))
    found: np.ndarray = np.sum((z[:, :n, None] - z[:, None, :m]) ** 2, axis=-1)
    return found


@pytest.mark.parametrize("tol", [1e-3, None])
@pytest.mark.parametrize("shared", ["none", "C_xx", "C_yy"])
@pytest.mark.parametrize("listed", [False, True])
def test_matrices_have_self_costs_of_their_own(
    rng: np.random.Generator, tol: float | None, shared: str, listed: bool
) -> None:
    matrices: dict[str, Any] = {"C": costs(rng, 3, 4, 7), "C_xx": costs(rng, 3, 4, 4), "C_yy": costs(rng, 3, 7, 7)}
    a, b = rng.dirichlet(np.ones(4), 3), rng.dirichlet(np.ones(7), 3)
    alone = {name: [C[0 if name == shared else k] for k in range(3)] for name, C in matrices.items()}
    given = {name: C[0] if name == shared else list(C) if listed else C for name, C in matrices.items()}
    batch = epsot.divergence(epsot.CostMatrix(given.pop("C"), **given), a, b, eps=0.1, tol=tol)
    for k in range(3):
        one = {name: C[k] for name, C in alone.items()}
        same(batch[k], epsot.divergence(epsot.CostMatrix(one.pop("C"), **one), a[k], b[k], eps=0.1, tol=tol))
