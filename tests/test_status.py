"""Outcomes: their order, their words, and how they travel."""

from __future__ import annotations

import pickle

import pytest

import epsot
from epsot import ConvergenceWarning, Status


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


def test_the_warning_is_a_user_warning() -> None:
    """So that it shows by default, and can be filtered by its own name."""
    assert issubclass(ConvergenceWarning, UserWarning)
    assert epsot.ConvergenceWarning is ConvergenceWarning


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
