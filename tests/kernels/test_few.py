"""Few rows against many columns, and the other way round: the fused CPU kernels against the reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epsot.costs import Cityblock, Cost, Euclidean, HalfSquare
from epsot.kernels import cpu, reference
from epsot.kernels.cpu import parts
from epsot.kernels.cpu.blocks import FLAT, NEAR, STORED, TILED
from tests.kernels.test_cpu import CHECKS, clouds, make_case, within

f4, f8 = np.float32, np.float64
MANY = 9000  # columns: at least two parts
OF_POINTS = "softmin guess pair apply gradient cost_apply at plan_rows"
OF_MATRICES = "softmin guess pair apply transpose"


@pytest.mark.parametrize(
    ("checks", "form", "cost", "dtype", "d", "few", "eps", "offset"),
    [
        (OF_POINTS, FLAT, HalfSquare(), f8, 3, 8, 1e-2, 0.0),
        ("softmin guess pair gradient", FLAT, HalfSquare(), f8, 3, 2, 1e-4, 1000.0),
        ("softmin guess pair", FLAT, HalfSquare(), f8, 3, 1, 0.1, 0.0),
        pytest.param(OF_POINTS, FLAT, HalfSquare(), f4, 3, 8, 1e-2, 0.0, marks=pytest.mark.every),
        pytest.param(
            "softmin guess pair gradient", FLAT, HalfSquare(), f4, 3, 2, 1e-4, 1000.0, marks=pytest.mark.every
        ),
        pytest.param("softmin guess pair", FLAT, HalfSquare(), f4, 3, 64, 1e3, 0.0, marks=pytest.mark.every),
        pytest.param("softmin guess pair", FLAT, HalfSquare(), f4, 3, 1, 0.1, 0.0, marks=pytest.mark.every),
        pytest.param("guess gradient cost_apply", FLAT, Euclidean(), f8, 2, 5, 1e-2, 1000.0, marks=pytest.mark.every),
        pytest.param("guess", FLAT, Cityblock(), f8, 1, 33, 1e-3, 3.0, marks=pytest.mark.every),
        (OF_POINTS, NEAR, HalfSquare(), f4, 2, 65, 1e-2, 0.0),
        ("softmin guess pair gradient", NEAR, HalfSquare(), f4, 2, 200, 1e-4, 1000.0),
        (OF_POINTS, TILED, Euclidean(), f8, 17, 8, 1e-3, 1000.0),
        ("softmin guess pair", TILED, Euclidean(), f8, 17, 65, 0.3, 0.0),
    ],
)
@pytest.mark.parametrize("rows", ["few", "many"])
def test_points(
    checks: str, form: int, cost: Cost, dtype: Any, d: int, few: int, eps: float, offset: float, rows: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    n, m = (few, MANY) if rows == "few" else (MANY, few)
    x, y = clouds(n, m, d, dtype, rng, offset)
    case = make_case(cpu.Points(x, y, cost), reference.Points(x, y, cost), dtype, eps, rng)
    assert case.ours.form == form
    for name in checks.split():
        CHECKS[name](case)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("dtype", "few", "eps"), [(f4, 8, 0.1), (f8, 65, 1e-2)])
@pytest.mark.parametrize("rows", ["few", "many"])
def test_matrix(order: Any, dtype: Any, few: int, eps: float, rows: str, rng: np.random.Generator) -> None:
    C = rng.random((few, MANY) if rows == "few" else (MANY, few))
    C[rng.random(C.shape) < 0.1] = np.inf
    C = np.asarray(C, dtype, order=order)
    case = make_case(cpu.Matrix(C), reference.Matrix(C), dtype, eps, rng)
    assert case.ours.form == STORED
    for name in OF_MATRICES.split():
        CHECKS[name](case)


def test_float32_keeps_its_digits_without_an_order(rng: np.random.Generator) -> None:
    """Logits of hundreds of thousands, of points that nothing brings near: rounded only beside what is summed."""
    n, m, eps = 6, MANY, 1e-6
    x, y = clouds(n, m, 3, f4, rng, 100.0)
    ours, theirs = cpu.Points(x, y, HalfSquare()), reference.Points(x, y, HalfSquare())
    log_a, log_b = np.log(rng.dirichlet(np.ones(n))), np.log(rng.dirichlet(np.ones(m)))
    f = theirs.softmin(log_b, eps)
    g = theirs.T.softmin(log_a + f / eps, eps)
    h = log_b + g / eps
    wanted = theirs.softmin(h, eps)
    within(ours.softmin(h, eps, wanted + 0.1 * eps), wanted, 1e-5 * eps)
    within(ours.T.softmin(log_a + f / eps, eps, g), g, 1e-5 * eps)
    pair = ours.softmin_pair(log_a + f / eps, h, eps)
    within(pair[1], g, 1e-5 * eps)


@pytest.mark.parametrize("kind", ["few", "some", "high dimension", "matrix"])
def test_bits_do_not_depend_on_the_threads(kind: str, rng: np.random.Generator) -> None:
    """Parts of columns, and chunks of vectors, are the same for any number of workers."""
    n, m, eps = 100 if kind == "some" else 8, 150_000, 0.1
    d, dtype, cost = (
        (17, f8, Euclidean()) if kind == "high dimension" else (3 if kind == "few" else 2, f4, HalfSquare())
    )
    x, y = clouds(n, m, d, dtype, rng)
    k, h = (np.log(rng.dirichlet(np.ones(size))) for size in (n, m))
    u, v = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    C = rng.random((n, m)) if kind == "matrix" else None

    def results(workers: int) -> list[np.ndarray]:
        kernel = cpu.Points(x, y, cost, workers) if C is None else cpu.Matrix(C, workers)
        out = [kernel.softmin(h, eps), kernel.T.softmin(k, eps), *kernel.softmin_pair(k, h, eps)]
        out += [*kernel.T.softmin_pair(h, k, eps), kernel.apply(k, h, eps, v), kernel.T.apply(h, k, eps, u)]
        return [*out, kernel.softmin(h, eps, out[0] + 0.01 * k), kernel.T.softmin(k, eps, out[1] + 0.01 * h)]

    wanted = results(1)
    for workers in (2, 3, 5):
        for one, other in zip(results(workers), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_partition_leaves_no_group_out() -> None:
    for blocks in (0, 1, 2, 31, 32, 500):
        for groups in (0, 1, 127, 128, 15_625):
            count = parts.parts_of(blocks, groups)
            spans = [parts.span(part, count, groups) for part in range(count)]
            assert [least for least, _ in spans] == [0, *(most for _, most in spans[:-1])]
            assert spans[-1][1] == groups
            assert count == 1 or min(most - least for least, most in spans) >= parts.LEAST
            assert blocks * count >= parts.PIECES or blocks == 0 or groups < (count + 1) * parts.LEAST
