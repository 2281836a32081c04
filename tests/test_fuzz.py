"""Some random problems in the suite, and what examines them; `python -m tests.fuzz` draws any number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.solver.updates import Dual
from tests.checks import power_cost
from tests.closed_forms import dirac_value
from tests.fuzz import examine
from tests.fuzz_batches import draw_company, examine_company
from tests.fuzz_checks import check_result
from tests.fuzz_grids import draw_on_grids
from tests.fuzz_oracle import Posed, Truth
from tests.fuzz_problems import Problem, draw

SEED, PROBLEMS, CHUNK = 14, 300, 20
WITHOUT_MASS = 76  # of the problems on grids: one side of it has weights of zero alone


def common(problem: Problem) -> bool:
    """Whether its kernels are few: of matrices, of squares in the plane and in many dimensions, none of its own."""
    if problem.warm is not None and not common(problem.warm):
        return False
    if problem.cost == "matrix" or isinstance(problem.cost, epsot.Cost):
        return True
    x = problem.sides[0]
    return problem.cost in (2, "sqeuclidean") and (x.shape[1] == 2 or (x.shape[1] > 3 and x.dtype == np.float64))


def complaints_of(first: int, wanted: bool) -> str:
    drawn = ((index, draw(SEED, index)) for index in range(first, first + CHUNK))
    return "\n".join(
        f"{SEED}:{index} {text}"
        for index, problem in drawn
        if common(problem) is wanted
        for text in examine(problem)[1]
    )


@pytest.mark.parametrize("first", range(0, PROBLEMS, CHUNK))
def test_nothing_is_false(first: int) -> None:
    """A failure is replayed by `python -m tests.fuzz --only SEED:INDEX`."""
    assert not complaints_of(first, True)


@pytest.mark.every
@pytest.mark.parametrize("first", range(0, PROBLEMS, CHUNK))
def test_nothing_is_false_with_other_kernels(first: int) -> None:
    """Problems of the same draw whose kernels take minutes to compile."""
    assert not complaints_of(first, False)


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(first, marks=pytest.mark.every) for first in range(CHUNK, PROBLEMS // 2, CHUNK))]
)
def test_nothing_is_false_on_grids(first: int) -> None:
    """Two lattices, in one to four dimensions."""
    problems = ((k, draw_on_grids(SEED, k)) for k in range(first, first + CHUNK))
    found = "\n".join(f"{SEED}:{index} {text}" for index, problem in problems for text in examine(problem)[1])
    assert not found


def test_nothing_is_false_without_mass() -> None:
    """A lattice leaves no node out, but where one side has no mass."""
    assert not examine(draw_on_grids(SEED, WITHOUT_MASS))[1]


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(first, marks=pytest.mark.every) for first in range(CHUNK, PROBLEMS // 3, CHUNK))]
)
def test_nothing_is_false_beside_others(first: int) -> None:
    """Items of a batch, whatever stands beside them."""
    companies = ((index, draw_company(SEED, index)) for index in range(first, first + CHUNK))
    found = (
        f"{SEED}:{index} {text}"
        for index, company in companies
        if company is not None and common(company.problem)
        for text in examine_company(company)
    )
    assert not "\n".join(found)


@pytest.mark.parametrize(
    ("seed", "index"),
    [
        (3, 3921),  # a bound from what potentials with a large constant had shown
        (11, 383),  # a bound that did not see the rounding of what is missing
        (11, 7072),  # equal measures that diverge
        (11, 622),  # a start from which float32 steps come to rest, where from none they converge
        pytest.param(11, 78367, marks=pytest.mark.every),  # the same in float64
        # potentials as large as a `diameter` allows, whose constant takes the digits
        pytest.param(12, 8620, marks=pytest.mark.every),
        (11, 51386),  # exponents of 1e12 in float64, at a tolerance as large as their rounding
    ],
)
def test_what_was_false_once(seed: int, index: int) -> None:
    assert not examine(draw(seed, index))[1]


@pytest.mark.parametrize("rho", [None, 0.5, (0.5, 2.0), (None, 3.0)])
def test_the_oracle_between_two_diracs(rho: Any) -> None:
    mass_b = 2.0 if rho is None else 0.7
    strengths = tuple(np.inf if r is None else r for r in (rho if isinstance(rho, tuple) else (rho, rho)))
    posed = Posed(np.full((1, 1), 1.5), np.asarray([2.0]), np.asarray([mass_b]), 0.3, strengths)
    truth = Truth.of(posed, np.zeros(1), np.zeros(1)).improved(1000)
    assert truth.error < 1e-14
    np.testing.assert_allclose([truth.dual, truth.primal], dirac_value(1.5, 2.0, mass_b, 0.3, rho), rtol=1e-14)


def test_the_oracle_beyond_the_range_of_float64() -> None:
    """Logarithms alone: a plan of mass exp(-1e5) is relative to itself."""
    posed = Posed(np.full((1, 2), 1e5), np.ones(1), np.asarray([0.5, 0.5]), 1.0, (1.0, 1.0))
    truth = Truth.of(posed, np.full(1, 1e5), np.full(2, 1e5)).improved(100)
    assert truth.error < 1e-12
    assert Truth.of(posed, truth.f + 1, truth.g).error > 0.5


def test_what_is_false_is_found(rng: np.random.Generator) -> None:
    x, y = rng.random((20, 2)), rng.random((30, 2))
    options = {"tol": 1e-3, "max_iter": 1000, "scaling": 0.5}
    problem = Problem("sinkhorn", 2, (x, y), (None, None), 0.3, None, options)
    result = problem.solve(None, None)
    assert not list(check_result(problem, result, []))
    pair = result.dual_pair
    false = Dual(pair.f + 0.1 * power_cost(x, y[:1])[:, 0], pair.g, error=pair.error, mass=pair.mass)
    found = " ".join(check_result(problem, replace(result, dual_pair=false), []))
    assert all(f"{what}:" in found for what in ("error", "bounds")), found
    assert "outcome" in " ".join(check_result(problem, replace(result, status=epsot.Status.SCHEDULE_ENDED), []))
