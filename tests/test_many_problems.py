"""The formulas of many problems against those of one, with weights of zero that one problem has set aside."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from epsot.problems.many import Chosen, merged
from tests.checks import close
from tests.solver.batches import Batch, one_shape

RHO = np.asarray([[math.inf] * 2, [0.7, math.inf], [math.inf, 0.3], [2.0, 0.5], [math.inf] * 2, [1e-2, 1e-2]])


@pytest.fixture(params=["all", "none", "mixed"])
def batch(request: pytest.FixtureRequest) -> Batch:
    """Which problems are balanced."""
    given = one_shape(0)
    match request.param:
        case "all":
            return given
        case "none":
            return replace(given, rho=np.where(np.isinf(RHO), 1.5, RHO))
    return replace(given, rho=RHO)


@pytest.mark.parametrize("library", ["numpy", "strict"])
def test_formulas(batch: Batch, library: str, rng: np.random.Generator) -> None:
    to: Any = np.asarray if library == "numpy" else strict.asarray
    instances = [batch.instance(k) for k in range(6)]
    problems, eps = batch.problems(instances, to), to(batch.eps)
    rows, columns = batch.a[0] > 0, batch.b[0] > 0
    f, g = np.where(rows, rng.normal(size=batch.a.shape), 0), np.where(columns, rng.normal(size=batch.b.shape), 0)
    next_f, next_g = problems.next_f(to(g), eps), problems.next_g(to(f), eps)
    pair = problems.next_pair(to(f), to(g), eps)
    leaving = np.asarray(problems.leaving(to(f), next_g, next_g, eps))
    gauge, shift = (np.asarray(c) for c in (problems.gauge(to(f), to(g)), problems.mass_shift(to(f), to(g))))
    violation, mass = (np.asarray(z) for z in problems.a.marginals(to(f), next_f, eps))
    medians, rounding = np.asarray(problems.b.median(to(g))), problems.rounding(to(f), to(g), batch.eps)
    logs, called_for = np.asarray(problems.a.log_mass(to(f))), np.asarray(problems.a.called_for(to(f)))
    for k, instance in enumerate(instances):
        one, u, v, e = instance.problem, f[k][rows], g[k][columns], float(batch.eps[k])
        close(np.asarray(next_f)[k][rows], one.next_f(v, e), 1e-12)
        close(np.asarray(next_g)[k][columns], one.next_g(u, e), 1e-12)
        optimal = one.next_g(u, e)
        close(leaving[k][columns], one.T.leaving(optimal, u, optimal, e), 1e-9)
        close(one.balanced * gauge[k] + (not one.balanced) * shift[k], one.dual_shift(u, v), 1e-12)
        assert (shift[k] == 0) == one.balanced and (gauge[k] == 0) == (not one.balanced)
        close(violation[k], one.a.violation(u, one.next_f(v, e), e), 1e-12)
        close(mass[k] / float(one.a.marginals(u, one.next_f(v, e), e)[1]), 1.0, 1e-12)
        close(medians[k], one.b.median(v), 0)
        close(rounding[k], one.rounding(u, v, e), 1e-15)
        close(logs[k], one.a.log_mass(u), 1e-12)
        close(called_for[k][rows], one.a.called_for(u), 1e-12)
    for z, masked in ((next_f, rows), (next_g, columns), (pair[0], rows), (pair[1], columns)):
        assert np.all(np.asarray(z)[:, ~masked] == 0)
    close(pair[0], next_f, 1e-12)
    close(pair[1], next_g, 1e-12)


def test_points_of_weight_zero_have_an_extension(batch: Batch, rng: np.random.Generator) -> None:
    instances = [batch.instance(k) for k in range(6)]
    problems = batch.problems(instances)
    g = np.where(batch.b > 0, rng.normal(size=batch.b.shape), 0)
    f = problems.extended_f(g, batch.eps)
    for k in range(6):
        h = np.log(batch.b[k][1:]) + g[k, 1:] / batch.eps[k]  # the first column has no weight
        C = np.sum((batch.x[k][:, None] - batch.y[k][None, 1:]) ** 2, axis=-1) / 2
        softmin = -batch.eps[k] * np.logaddexp.reduce(h - C / batch.eps[k], axis=1)
        close(f[k], softmin / (1 + batch.eps[k] / batch.rho[k, 0]), 1e-12)


@pytest.mark.parametrize("order", [[], [3], [5, 1, 2]])
def test_some_problems(batch: Batch, order: list[int], rng: np.random.Generator) -> None:
    chosen = np.asarray(order, dtype=int)
    problems = batch.problems([batch.instance(k) for k in range(6)])
    part = problems.take(Chosen.of(chosen, problems.place))
    g = rng.normal(size=batch.b.shape)
    assert part.count == len(order)
    close(part.next_f(g[chosen], batch.eps[chosen]), problems.next_f(g, batch.eps)[chosen], 1e-14)
    np.testing.assert_array_equal(part.balanced, problems.balanced[chosen])
    np.testing.assert_array_equal(part.eps, problems.eps[chosen])


def test_records_are_chosen_and_merged_part_by_part() -> None:
    place = one_shape(0).problems([one_shape(0).instance(k) for k in range(6)]).place
    first, second = np.arange(6.0).reshape((3, 2)), np.arange(3)
    record = (first, None, (second,))
    whole = Chosen.of(np.asarray([2, 0]), place).of_record(record)
    np.testing.assert_array_equal(whole[0], first[[2, 0]])
    assert whole[1] is None and whole[2][0].tolist() == [2, 0]
    mask = np.asarray([True, False, True])
    new = merged(mask, (-first, -second), (first, second), place)
    np.testing.assert_array_equal(new[0], first * np.asarray([[-1], [1], [-1]]))
    assert new[1].tolist() == [0, 1, -2]
    assert merged(~mask & mask, -first, first, place) is first


def test_no_mass_is_nothing_to_iterate() -> None:
    batch = one_shape(0)
    problems = batch.problems([batch.instance(k) for k in range(6)])
    weights = batch.b * (np.arange(6) != 2)[:, None]
    b = problems.b.of(weights, None, 1.0, problems.place)
    assert replace(problems, b=b).empty.tolist() == [False, False, True, False, False, False]
