"""The dense reductions against loops of plain Python: the definition of the definition."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from epsot.costs import Cityblock, Euclidean, HalfSquare, Square
from epsot.kernels import reference
from tests.checks import close, power_cost

EPS = 0.3
COSTS = [HalfSquare(), Euclidean(), Square(), Cityblock()]


@pytest.fixture
def operands(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """x, y, k, h with a weight of zero on each side."""
    x, y, k, h = rng.normal(size=(5, 2)), rng.normal(size=(4, 2)), rng.normal(size=5), rng.normal(size=4)
    k[2] = h[0] = -np.inf
    return x, y, k, h


@pytest.mark.parametrize("cost", COSTS, ids=repr)
def test_points(operands: Any, cost: Any, rng: np.random.Generator) -> None:
    x, y, k, h = operands
    kernel = reference.Points(x, y, cost)
    n, m = kernel.shape
    C = [[float(cost.value(x[i], y[j])) for j in range(m)] for i in range(n)]
    P = [[math.exp(k[i] + h[j] - C[i][j] / EPS) for j in range(m)] for i in range(n)]
    softmin = [-EPS * math.log(sum(math.exp(h[j] - C[i][j] / EPS) for j in range(m))) for i in range(n)]
    columns = [-EPS * math.log(sum(math.exp(k[i] - C[i][j] / EPS) for i in range(n))) for j in range(m)]
    close(kernel.cost_rows(slice(None)), C, 1e-14)
    close(kernel.softmin(h, EPS), softmin, 1e-13)
    close(kernel.softmin(h, EPS, rng.normal(size=n)), softmin, 1e-13)
    close(kernel.T.softmin(k, EPS), columns, 1e-13)
    close(kernel.softmin_pair(k, h, EPS)[0], softmin, 1e-13)
    close(kernel.softmin_pair(k, h, EPS)[1], columns, 1e-13)
    close(kernel.plan_rows(slice(None), k, h, EPS), P, 1e-13)
    close(kernel.plan_rows(np.asarray([3, 0, 3]), k, h, EPS), [P[3], P[0], P[3]], 1e-13)
    v = rng.normal(size=(m, 3))
    close(kernel.apply(k, h, EPS, v), np.asarray(P) @ v, 1e-13)
    close(kernel.cost_apply(v[:, 0]), np.asarray(C) @ v[:, 0], 1e-13)
    gradient = [sum(P[i][j] * cost.gradient(x[i], y[j]) for j in range(m)) for i in range(n)]
    close(kernel.cost_gradient(k, h, EPS), gradient, 1e-13)


def test_one_cloud(operands: Any) -> None:
    x, _, k, _ = operands
    kernel = reference.Points(x, x + 1, HalfSquare()).source()
    close(kernel.cost_rows(slice(None)), power_cost(x, x), 1e-14)
    close(kernel.softmin_self(k, EPS), kernel.softmin(k, EPS), 1e-14)


def test_matrix_with_forbidden_pairs() -> None:
    C = np.asarray([[1.0, np.inf, 2.0], [np.inf, np.inf, np.inf]])
    h = np.asarray([0.1, 0.7, -np.inf])
    kernel = reference.Matrix(C)
    close(kernel.softmin(h, EPS), [1.0 - EPS * 0.1, np.inf], 1e-14)
    # column 1 is allowed to nobody
    close(kernel.T.softmin(np.zeros(2), EPS), [1.0, np.inf, 2.0], 1e-14)
    P = kernel.plan_rows(slice(None), np.zeros(2), h, EPS)
    close(P, [[math.exp(0.1 - 1 / EPS), 0, 0], [0, 0, 0]], 1e-15)
    close(kernel.apply(np.zeros(2), h, EPS, np.ones((3, 1))), P.sum(axis=1, keepdims=True), 1e-15)


def test_infinite_costs_of_no_mass_count_nothing() -> None:
    """inf * 0 = 0, without a warning."""
    kernel = reference.Matrix(np.asarray([[1.0, np.inf], [2.0, 3.0]]))
    close(kernel.cost_apply(np.asarray([2.0, 0.0])), [2.0, 4.0], 0)
    assert kernel.cost_apply(np.asarray([0.0, 1.0]))[0] == np.inf


def test_logsumexp_of_extremes() -> None:
    inf = np.inf
    logits = np.asarray([[0.0, -inf], [-inf, -inf], [1e300, 1e300], [-1e4, -1e4], [710.0, 0.0]])
    expected = [0.0, -inf, 1e300, -1e4 + math.log(2), 710.0]
    close(reference.logsumexp(logits), expected, 1e-15)
    close(reference.logsumexp(np.zeros((3, 0))), [-inf] * 3, 0)


def test_single_precision_points_are_computed_in_double(operands: Any) -> None:
    x, y, k, h = operands
    x, y = (x + 1000).astype(np.float32), (y + 1000).astype(np.float32)
    single = reference.Points(x, y, HalfSquare())
    double = reference.Points(x.astype(np.float64), y.astype(np.float64), HalfSquare())
    for name, arguments in (("softmin", (h, 1e-3)), ("cost_gradient", (k, h, 1.0))):
        result = getattr(single, name)(*arguments)
        assert result.dtype == np.float64
        close(result, getattr(double, name)(*arguments), 1e-14)


def test_strict_namespace(operands: Any) -> None:
    """Standard names only."""
    x, y, k, h = operands
    kernel = reference.Points(*(strict.asarray(array) for array in (x, y)), HalfSquare())
    plain = reference.Points(x, y, HalfSquare())
    K, H = strict.asarray(k), strict.asarray(h)
    close(kernel.softmin(H, EPS), plain.softmin(h, EPS), 1e-14)
    close(kernel.apply(K, H, EPS, strict.ones((4, 2), dtype=strict.float64)), plain.apply(k, h, EPS, np.ones((4, 2))))
    close(kernel.cost_gradient(K, H, EPS), plain.cost_gradient(k, h, EPS), 1e-14)
    close(kernel.cost_apply(strict.asarray(np.arange(4.0))), plain.cost_apply(np.arange(4.0)), 1e-14)
