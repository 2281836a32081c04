"""Which rows and columns allowed pairs connect, and what follows for balanced problems."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import epsot
from epsot.geometry import components as module
from epsot.geometry.components import components


def connected(allowed: np.ndarray) -> list[tuple[frozenset[int], frozenset[int]]]:
    """The components by flooding, as sets of rows and of columns."""
    found, left = [], set(range(allowed.shape[0]))
    while left:
        rows, columns = {left.pop()}, set()
        while True:
            columns = set(np.flatnonzero(allowed[list(rows)].any(axis=0)))
            more = set(np.flatnonzero(allowed[:, list(columns)].any(axis=1)))
            if more == rows:
                break
            rows = more
        left -= rows
        found.append((frozenset(map(int, rows)), frozenset(map(int, columns))))
    return found


@pytest.mark.parametrize("block", [1, 20, 2**22])
@pytest.mark.parametrize("seed", range(20))
def test_labels(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the blocks in which the matrix is read."""
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", block)
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 30, 2)
    allowed = rng.random((n, m)) < rng.choice([0.03, 0.1, 0.5])
    allowed[np.arange(n), rng.integers(0, m, n)] = True
    allowed[rng.integers(0, n, m), np.arange(m)] = True
    C = np.where(allowed, 1.0, np.inf)
    for xp, matrix in ((np, C), (strict, strict.asarray(C))):
        rows, columns = components(matrix, xp)
        groups = [
            (frozenset(map(int, np.flatnonzero(rows == k))), frozenset(map(int, np.flatnonzero(columns == k))))
            for k in np.unique(rows)
        ]
        assert set(groups) == set(connected(allowed))
        assert len(groups) == len(connected(allowed))


inf = np.inf
BLOCKS = np.asarray([[0, 1, inf], [1, 2, inf], [inf, inf, 0]])


def test_masses_of_components() -> None:
    cost = epsot.CostMatrix(BLOCKS)
    assert epsot.solve(cost, [0.3, 0.3, 0.4], [0.5, 0.1, 0.4], eps=0.1).success
    assert epsot.solve(cost, [0.3, 0.3, 0.4], [0.5, 0.1, 0.4 * (1 + 1e-10)], eps=0.1).success  # rounding
    assert epsot.solve(cost, [0.3, 0.3, 0.4], [0.5, 0.2, 0.3], eps=0.1, rho=1).success
    assert epsot.solve(cost, [0.3, 0.3, 0.4], [0.5, 0.2, 0.3], eps=0.1, rho=(None, 1)).success
    assert epsot.solve(cost, [0.5, 0.5, 0], [0.5, 0.5, 0], eps=0.1).success
    with pytest.raises(ValueError, match=r"`C` must leave a plan, got . rows and . columns .* of masses .* set `rho`"):
        epsot.solve(cost, [0.3, 0.3, 0.4], [0.5, 0.2, 0.3], eps=0.1)
    with pytest.raises(ValueError, match=r"got 1 rows and 1 columns .* of masses 0\.4 and 0\.3;"):
        epsot.solve(cost, [0.6, 0, 0.4], [0.5, 0.2, 0.3], eps=0.1, tol=None)
    with pytest.raises(ValueError, match="`C` must leave a plan"):
        epsot.divergence(epsot.CostMatrix(BLOCKS, C_xx=BLOCKS, C_yy=BLOCKS), [0.3, 0.3, 0.4], [0.5, 0.2, 0.3], eps=0.1)


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, 1e-6), (np.float64, 1e-11)])
def test_small_components_are_summed_with_rounding(dtype: Any, rounding: float) -> None:
    """Groups of few and of many points, whose masses agree as far as their dtype goes."""
    rng = np.random.default_rng(0)
    C, a = np.full((300, 300), inf), rng.random(300)
    C[:299, :299], C[299, 299] = rng.random((299, 299)), 0
    a[299] = 1e-6
    b = np.append(np.full(299, a[:299].sum() / 299), 1e-6 * (1 + rounding))
    a, b = (z / z.sum() for z in (a, b))
    assert epsot.solve(epsot.CostMatrix(C), a.astype(dtype), b.astype(dtype), eps=0.1).success


def test_what_only_a_flow_would_show() -> None:
    """Column 0 is all that row 0 may serve, and too little: it takes the solve to see, and the message names it."""
    with pytest.warns(epsot.ConvergenceWarning, match="MAX_ITER.*check that forbidden pairs leave a plan"):
        epsot.solve(epsot.CostMatrix([[0.0, inf], [0.0, 0.0]]), [0.7, 0.3], [0.5, 0.5], eps=0.1)


def test_self_costs_without_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the diagonal is forbidden a measure may not be able to stay where it is. It is said before any work."""
    swap = np.asarray([[inf, 1.0], [1.0, inf]])
    plain = np.ones((2, 2))
    a, b = [0.3, 0.7], [0.5, 0.5]
    assert epsot.divergence(epsot.CostMatrix(plain, C_xx=plain, C_yy=swap), a, b, eps=0.1).success
    monkeypatch.setattr("epsot.drivers.stages.anneal", lambda *_: pytest.fail("work began before the error"))
    with pytest.raises(ValueError, match="`C_xx` must leave a plan"):
        epsot.divergence(epsot.CostMatrix(plain, C_xx=swap, C_yy=plain), a, b, eps=0.1)
    with pytest.raises(ValueError, match="`C_yy` must leave a plan"):
        epsot.divergence(epsot.CostMatrix(plain, C_xx=plain, C_yy=swap), b, a, eps=0.1)
