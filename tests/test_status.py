"""Outcomes: their order, their words, and how they travel."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import ConvergenceWarning, PrecisionWarning, Status
from epsot.results.outcome import told_apart


def test_larger_is_worse() -> None:
    """The status of a divergence is the largest of three."""
    names = ["CONVERGED", "SCHEDULE_ENDED", "MAX_ITER", "STALLED", "DIVERGED", "STOPPED"]
    assert [status.name for status in Status] == names
    assert [int(status) for status in Status] == list(range(6))
    assert max(Status.CONVERGED, Status.DIVERGED, Status.MAX_ITER) is Status.DIVERGED


def test_success_is_zero() -> None:
    """As an exit code, and as SciPy's `status`."""
    assert Status.CONVERGED == 0
    assert not Status.CONVERGED
    assert all(Status(number) for number in range(1, 6))


@pytest.mark.parametrize("status", Status)
def test_words(status: Status) -> None:
    """A meaning each, and a cure for all but success; both start small and fit into a longer sentence."""
    assert status.meaning
    assert status.meaning[-1] not in ".;"
    assert bool(status.cure) is (status is not Status.CONVERGED)
    assert "\n" not in status.meaning + status.cure
    assert not (status.meaning + status.cure).endswith(".")


@pytest.mark.parametrize("status", Status)
def test_copies_are_the_member_itself(status: Status) -> None:
    assert pickle.loads(pickle.dumps(status)) is status
    assert Status(int(status)) is status
    assert Status[status.name] is status


def test_no_other_status() -> None:
    with pytest.raises(ValueError, match="6"):
        Status(6)


@pytest.mark.parametrize("kind", [ConvergenceWarning, PrecisionWarning])
def test_the_warnings_are_user_warnings(kind: type) -> None:
    """So that they show by default, and can be filtered by their own names."""
    assert issubclass(kind, UserWarning)
    assert getattr(epsot, kind.__name__) is kind


def test_messages_name_what_was_reached_and_the_cure() -> None:
    result = epsot.sinkhorn([[0.0], [1.0]], [[2.0], [5.0]], blur=1.0)
    assert result.message.startswith(Status.CONVERGED.meaning)
    assert f"after {result.nit} iterations" in result.message
    assert f"{result.history[-1].marginal_error:.2e}" in result.message
    result = epsot.sinkhorn([[0.0], [1.0]], [[2.0], [5.0]], blur=1.0, tol=None)
    assert result.status is Status.SCHEDULE_ENDED
    assert not result.success
    assert "not measured" in result.message
    assert Status.SCHEDULE_ENDED.cure in result.message


def ended(geometry: Any, status: Status) -> str:
    """The message of a solve of such costs that ended so."""
    return dataclasses.replace(epsot.solve(geometry, eps=1, tol=None), status=status).message


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_cure_fits_what_was_solved(dtype: Any) -> None:
    """No float64 for what is float64 already, and no points for a matrix."""
    C = np.random.default_rng(0).random((4, 5)).astype(dtype)
    for kind, geometry in (("points", epsot.PointCloud(C, C)), ("costs", epsot.CostMatrix(C))):
        message = ended(geometry, Status.STALLED)
        assert "raise `tol`" in message
        assert "`eps`" in message
        helps = kind == "points" and dtype == np.float32  # sums over matrices are in float64 anyway
        assert ("use float64 points" in message) is helps
        assert ("float64" in message) is helps


@pytest.mark.parametrize("status", [Status.MAX_ITER, Status.STALLED, Status.DIVERGED])
def test_messages_about_huge_costs_name_infinity(status: Status) -> None:
    C = np.random.default_rng(0).random((6, 5))
    C[:3, 3:] = 1e3
    assert "+inf" not in ended(epsot.CostMatrix(C), status)
    C[:3, 3:] = 1e12
    assert "make them `+inf`" in ended(epsot.CostMatrix(C), status)
    assert "+inf" not in ended(epsot.CostMatrix(C), Status.CONVERGED)
    assert "forbidden pairs leave a plan" not in ended(epsot.CostMatrix(C), status)
    C[:3, 3:] = np.inf
    assert "forbidden pairs leave a plan" in ended(epsot.CostMatrix(C), status)


def test_an_error_is_told_apart_from_the_tolerance() -> None:
    assert told_apart(1.004e-3, 1e-3, 2) == "1.004e-03"
    assert told_apart(1.5e-3, 1e-3, 2) == "1.50e-03"
    assert told_apart(1e-3, 1e-3, 2) == "1.00e-03"
    assert told_apart(np.nextafter(1e-3, 1), 1e-3, 2) not in ("1.00e-03", f"{1e-3:.15e}")
    assert told_apart(0.5, None, 2) == "5.00e-01"
    x, y = np.random.default_rng(0).random((2, 20, 2))
    (*_, reached), kept = epsot.sinkhorn(x, y, blur=0.1).history, epsot.sinkhorn(x, y, blur=0.1)
    tol = reached.marginal_error * (1 - 1e-5)
    with pytest.warns(ConvergenceWarning) as caught:
        result = epsot.sinkhorn(x, y, blur=0.1, tol=tol, max_iter=kept.nit)
    assert f"{tol:.2e} " not in str(caught[0].message)
    assert f"{tol:.3e}" not in repr(result)
