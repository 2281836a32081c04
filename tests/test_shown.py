"""What people see while they wait, and of what they get: bars, lines and tables, without a computation."""

from __future__ import annotations

import builtins
import io
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.drivers.intermediate import cooled, settled
from epsot.results.shown import Shown
from epsot.solver import loop
from epsot.solver.loop import Course
from epsot.solver.schedule import Level

RNG = np.random.default_rng(0)
X, Y = RNG.random((30, 2)), RNG.random((25, 2))
XS = RNG.random((3, 20, 2))
GRID, IMAGES = epsot.Grid((8, 6)), RNG.dirichlet(np.ones(48), 2).reshape(2, 8, 6)


# Lines and tables


def all_results() -> list[Any]:
    C = np.abs(X[:, :1] - Y[:, 0])
    return [
        epsot.sinkhorn(X, Y, blur=0.1),
        epsot.sinkhorn(X, Y, blur=0.1, tol=None),
        epsot.sinkhorn_divergence(X, Y, blur=0.1),
        epsot.solve(epsot.CostMatrix(C), eps=0.1),
        epsot.sinkhorn(XS, Y, blur=0.1),
        epsot.sinkhorn_divergence(XS, Y, blur=0.1),
        epsot.pairwise(XS, blur=0.1),
        epsot.permutation_test(X, Y, blur=0.5, n_resamples=5, rng=0),
        epsot.sinkhorn_divergence(GRID, GRID, *IMAGES, blur=1.0),
        epsot.barycenter(GRID, IMAGES, blur=1.0),
        epsot.barycenter(GRID, IMAGES, blur=1.0, debias=False),
        epsot.free_barycenter(XS, init=Y, blur=0.3),
    ]


def test_value_and_blur_are_shown() -> None:
    plain, schedule, divergence, matrix = all_results()[:4]
    for result in (plain, divergence):
        assert f"value: {float(result.value64):.6g}" in repr(result)
        assert "blur: 0.1\n" in repr(result)
        assert "eps: 0.01\n" in repr(result)
    dear = replace(schedule, dual_pair=replace(schedule.dual_pair, mass=None))
    assert "value:" not in repr(dear)  # which would take a sweep
    np.testing.assert_allclose(dear.value, schedule.value)
    assert f"value: {float(schedule.value64):.6g}" in repr(dear)  # until it is known
    assert "value:" in repr(matrix)
    assert "blur" not in repr(matrix)
    *_, images, middle, blurred, free = all_results()
    assert f"value: {float(images.value64):.6g}" in repr(images)
    assert f"value: {float(blurred.value64):.6g}" in repr(blurred)
    assert "value:" not in repr(middle)  # which would take the transports of the measures with themselves
    assert f"value: {float(middle.value64):.6g}" in repr(middle)  # until it is known
    assert f"value: {float(free.value):.6g}" in repr(free)
    assert "blur: 1\n" in repr(middle)
    assert "blur: 0.3\n" in repr(free)


def test_nothing_is_read_from_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of a device would be a synchronisation: the value is shown of NumPy's arrays, and of views of these."""
    strict = pytest.importorskip("array_api_strict")
    result = epsot.sinkhorn_divergence(strict.asarray(X), strict.asarray(Y), blur=0.3)
    _ = result.value
    assert "value:" not in repr(result)
    assert "blur: 0.3" in repr(result)


def test_tables_for_notebooks() -> None:
    for result in all_results():
        table = result._repr_html_()
        assert table.startswith(f"<table><caption>{type(result).__name__}</caption>")
        assert table.count("<tr ") == table.count("</tr>") >= 2
        assert len(table) < 1500
        assert "array" not in table
        assert "array" not in repr(result)
    assert "P &lt; 1" in Odd()._repr_html_()


class Odd(Shown):
    def _lines(self) -> dict[str, object]:
        return {"P < 1": "<script>"}


def test_an_objective_says_what_it_is() -> None:
    obj = epsot.Objective(Y, blur=0.2)
    obj(X.ravel())
    assert repr(obj).startswith("Objective((25, 2), wrt='x', blur=0.2, p=2")
    assert "calls=1" in repr(obj)


# How far it has come


def test_progress_follows_logarithms() -> None:
    assert cooled(1.0, 1.0, 1e-4) == 0
    np.testing.assert_allclose(cooled(1e-2, 1.0, 1e-4), 0.5)
    assert cooled(1e-4, 1.0, 1e-4) == 1
    assert cooled(2.0, 1.0, 1e-4) == 0
    assert cooled(1.0, np.inf, 1e-4) == 0
    np.testing.assert_allclose(settled(1e-2, 1e-3), 0.5)
    assert settled(1e-3, 1e-3) == settled(0.0, 0.0) == settled(0.3, 0.5) == 1
    assert settled(0.2, 1e-3) == settled(np.nan, 1e-3) == settled(np.inf, 0.0) == 0


@pytest.mark.parametrize("tol", [None, 1e-6])
def test_progress_of_a_solve(tol: float | None) -> None:
    seen: list[float] = []
    epsot.sinkhorn(X, Y, blur=0.05, tol=tol, callback=lambda record: seen.append(record.progress))
    assert 0 <= seen[0] < 0.2
    assert seen[-1] == 1
    assert max(np.diff(seen)) <= 0.5
    if tol is None:
        np.testing.assert_allclose(np.diff(seen)[1:-1], np.diff(seen)[1])
    seen.clear()
    epsot.sinkhorn(XS, Y, blur=0.05, tol=tol, callback=lambda record: seen.append(record.progress))
    assert 0 <= seen[0] < 0.2
    assert seen[-1] == 1


WATCHED = {
    "grids": lambda **k: epsot.sinkhorn_divergence(GRID, GRID, *IMAGES, blur=0.5, **k),
    "many grids": lambda **k: epsot.sinkhorn(GRID, GRID, IMAGES, IMAGES[0], blur=0.5, **k),
    "barycenter": lambda **k: epsot.barycenter(GRID, IMAGES, blur=0.5, **k),
    "barycenter without a tolerance": lambda **k: epsot.barycenter(GRID, IMAGES, blur=0.5, tol=None, **k),
    "one measure": lambda **k: epsot.barycenter(GRID, IMAGES, [1, 0], blur=0.5, **k),
    "free": lambda **k: epsot.free_barycenter(XS, init=Y, blur=0.1, tol=0.05, **k),
}


@pytest.mark.parametrize("name", WATCHED)
def test_progress_of_images_and_barycenters(name: str) -> None:
    seen: list[float] = []
    WATCHED[name](callback=lambda record: seen.append(record.progress))
    assert 0 <= seen[0] <= (0.5 if name == "one measure" else 0.3)  # which begins at the target
    assert seen[-1] == 1
    assert all(0 <= share <= 1 for share in seen)


# Bars


@pytest.fixture
def tqdm() -> Any:
    return pytest.importorskip("tqdm")


def bar(out: io.StringIO, callback: Any = None, **options: Any) -> epsot.ProgressBar:
    return epsot.ProgressBar(callback, file=out, mininterval=0, **options)


@pytest.mark.parametrize("call", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize("x", [X, XS], ids=["one", "many"])
def test_a_bar(tqdm: Any, call: Any, x: np.ndarray) -> None:
    out = io.StringIO()
    shown = bar(out, desc="here")
    for _ in range(2):  # the same for another call
        result = call(x, Y, blur=0.05, callback=shown)
        text = out.getvalue()
        assert "here:   " in text
        assert "100%" in text
        assert f"iteration {np.max(getattr(result, 'xy', result).nit)}, eps 0.0025" in text
        assert text.endswith("\n")  # closed
        assert not tqdm.tqdm._instances
        out.truncate(0)


@pytest.mark.parametrize("name", WATCHED)
def test_a_bar_of_images_and_barycenters(tqdm: Any, name: str) -> None:
    out = io.StringIO()
    result = WATCHED[name](callback=bar(out))
    text = out.getvalue()
    assert "100%" in text
    assert f"iteration {np.max(getattr(result, 'xy', result).nit)}, eps 0." in text
    assert text.endswith("\n")
    assert not tqdm.tqdm._instances


def test_a_bar_of_pairs(tqdm: Any) -> None:
    out = io.StringIO()
    epsot.pairwise(XS, blur=0.2, callback=bar(out))
    assert "100%" in out.getvalue()
    assert "3 of 3 pairs" in out.getvalue()
    assert not tqdm.tqdm._instances


def test_a_bar_beside_a_callback(tqdm: Any) -> None:
    """What that raises ends the solve, and the bar."""

    class Other:
        nits: list[int] = []  # noqa: RUF012
        ends = 0

        def __call__(self, record: Any) -> None:
            self.nits.append(record.nit)
            if record.nit == 4:
                raise StopIteration
            if record.nit == 3 and self.ends:
                raise KeyError("three")

        def ended(self) -> None:
            self.ends += 1

    other, out = Other(), io.StringIO()
    result = epsot.sinkhorn(X, Y, blur=0.05, callback=bar(out, other))
    assert result.status is epsot.Status.STOPPED
    assert other.nits == [1, 2, 3, 4]
    assert "100%" not in out.getvalue()
    assert not tqdm.tqdm._instances
    with pytest.raises(KeyError, match="three"):
        epsot.sinkhorn(X, Y, blur=0.05, callback=bar(out, other))
    assert other.ends == 2
    assert not tqdm.tqdm._instances
    with pytest.raises(TypeError, match="`callback` must be callable"):
        epsot.ProgressBar(3)  # type: ignore[arg-type]


def test_a_bar_reads_little(tqdm: Any) -> None:
    """What it shows is computed as often as it is drawn, not at every iteration."""
    reads = []

    class Record:
        nit, eps = 1, 1.0

        @property
        def progress(self) -> float:
            reads.append(1)
            return 0.5

    shown = epsot.ProgressBar(file=io.StringIO(), mininterval=1000)
    for _ in range(100):
        shown(Record())
    shown.ended()
    assert len(reads) == 2
    hidden = epsot.ProgressBar(disable=True)
    hidden(Record())
    hidden.ended()
    assert len(reads) == 2


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("tqdm"):
            raise ModuleNotFoundError(name)
        return plain(name, *args, **options)

    monkeypatch.setattr("epsot.progress.import_module", without)
    with pytest.raises(ImportError, match=r'needs tqdm.*"epsot\[progress\]"') as caught:
        epsot.ProgressBar()
    assert caught.value.name == "tqdm"


# The log


def test_a_long_temperature_says_how_it_goes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    course = Course((Level(0.5, 100, 1e-3),), 100)
    with caplog.at_level(logging.INFO, logger="epsot"):
        for _ in range(30):
            now[0] += 1.0
            course.take([0.02])
            course.go_on(None)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"eps 5.000e-01: iteration {nit}, marginal error 2.0e-02, going on" for nit in (11, 22)]


def test_compilations_are_announced(caplog: pytest.LogCaptureFixture) -> None:
    from epsot.kernels.cpu.compiled import compiled

    def _doubled(x):  # type: ignore[no-untyped-def]
        return 2 * x

    kernel: Any = compiled(_doubled)
    kernel._cache.flush()  # of an earlier run
    with caplog.at_level(logging.INFO, logger="epsot"):
        assert kernel(2) == kernel(3) - 2 == 4
        assert kernel(2.5) == 5
    lines = [(record.name, record.getMessage().partition(",")[0]) for record in caplog.records]
    assert lines == [("epsot.kernels", "compiling doubled")] * 2
