"""Arguments of a wrong kind: whatever is put in the place of an argument of any public call, the error names it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epsot

pytestmark = pytest.mark.filterwarnings("ignore")  # few iterations are allowed; what is refused is refused before

X = np.random.default_rng(0).random((6, 2))
Y = X[:5] + 1
RESULT = epsot.sinkhorn(X, Y, blur=0.3)
DEBIASED = epsot.sinkhorn_divergence(X, Y, blur=0.3)
BATCH = epsot.sinkhorn(X, [Y, Y], blur=0.3)
CLOUD, MATRIX = epsot.PointCloud(X, Y), epsot.CostMatrix(np.ones((6, 5)))
OBJECTIVE = epsot.Objective(Y, blur=0.3)

WRONG: dict[str, Any] = {
    "None": None, "text": "abc", "result": RESULT, "divergence": DEBIASED, "batch": BATCH, "plan": RESULT.plan,
    "cloud": CLOUD, "matrix": MATRIX, "grid": epsot.Grid((3, 3)), "dict": {"a": 1}, "function": len,
    "object": object(), "complex": 1j, "texts": ["a", "b"], "set": {1.5, 2.5}, "bool": True, "nested": [[1, 2], [3]],
    "negative": -1, "nan": float("nan"), "four axes": np.ones((2, 2, 2, 2)),
}  # fmt: skip
KINDS = ["text", "result", "divergence", "cloud", "dict", "function", "object", "complex", "texts"]  # never right
TEXT = [kind for kind in KINDS if kind != "text"]
ARRAYS = [*KINDS, "matrix", "batch", "set", "bool", "negative", "nan", "four axes"]
NUMBERS = [*KINDS, "matrix", "batch", "set", "plan", "grid", "negative"]

BY_LENGTH = {"x": X, "y": Y, "blur": 0.3, "tol": 0.1}
BY_TEMPERATURE = {"geometry": CLOUD, "eps": 0.1, "tol": 0.1}
OPTIONS = {
    "a": ARRAYS, "b": ARRAYS, "scaling": [*NUMBERS, "None", "bool", "nan"], "tol": [*NUMBERS, "nan", "bool"],
    "max_iter": [*NUMBERS, "None", "nan", "bool"], "workers": [kind for kind in NUMBERS if kind != "negative"],
    "init": [kind for kind in KINDS if kind not in ("result", "divergence")],
    "callback": [kind for kind in KINDS if kind != "function"],
}  # fmt: skip
LENGTHS = {name: [*NUMBERS, *more] for name, more in {"blur": ["None", "nan"], "reach": [], "diameter": []}.items()}
POINTS = [*(kind for kind in ARRAYS if kind != "four axes"), "None"]  # of which four axes are a batch
SIDES = {"x": POINTS, "y": POINTS}

Calls = dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, list[str]]]]
CALLS: Calls = {
    "sinkhorn": (epsot.sinkhorn, BY_LENGTH, SIDES | LENGTHS | OPTIONS | {"p": [*NUMBERS, "nested"]}),
    "sinkhorn_divergence": (epsot.sinkhorn_divergence, BY_LENGTH, SIDES | LENGTHS | OPTIONS),
    "solve": (
        epsot.solve, BY_TEMPERATURE,
        OPTIONS | {"geometry": [k for k in ARRAYS if k not in ("cloud", "matrix")], "eps": NUMBERS, "rho": NUMBERS},
    ),
    "divergence": (epsot.divergence, BY_TEMPERATURE, OPTIONS | {"eps": NUMBERS, "rho": NUMBERS}),
    "PointCloud": (epsot.PointCloud, {"x": X, "y": Y}, SIDES | {"p": [*NUMBERS, "nested"], "cost": [*KINDS, "nan"]}),
    "CostMatrix": (epsot.CostMatrix, {"C": np.ones((6, 5))}, {"C": POINTS, "C_xx": ARRAYS, "C_yy": ARRAYS}),
    "Grid": (epsot.Grid, {"shape": (3, 3)}, {"shape": KINDS, "spacing": KINDS, "origin": KINDS, "periodic": ["text"]}),
    "Multiscale": (epsot.geometry.Multiscale, {"x": X, "y": Y}, SIDES),
    "pairwise": (
        epsot.pairwise, {"x": [X, Y], "blur": 0.3, "tol": 0.1},
        {"x": KINDS, "a": KINDS, "blur": NUMBERS, "debias": KINDS, "tol": NUMBERS, "reach": NUMBERS},
    ),
    "permutation_test": (
        epsot.permutation_test, {"x": X, "y": Y, "blur": 0.3, "n_resamples": 3},
        {"x": KINDS, "y": KINDS, "blur": NUMBERS, "n_resamples": NUMBERS, "rng": KINDS},
    ),
    "barycenter": (
        epsot.barycenter, {"support": X, "a": np.ones((2, 6)) / 6, "blur": 0.3},
        {"support": ARRAYS, "a": [*KINDS, "matrix", "grid"], "t": NUMBERS, "blur": NUMBERS, "debias": KINDS,
         "tol": NUMBERS},
    ),
    "free_barycenter": (
        epsot.free_barycenter, {"x": [X, Y], "init": X, "blur": 0.3, "tol": 0.5},
        {"x": KINDS, "a": [*KINDS, "matrix", "grid"], "t": NUMBERS, "init": ARRAYS, "blur": NUMBERS, "tol": NUMBERS},
    ),
    "Objective": (
        epsot.Objective, {"y": Y, "blur": 0.3},
        {"y": ARRAYS, "b": ARRAYS, "wrt": KINDS, "parametrization": KINDS, "debias": KINDS, "blur": NUMBERS,
         "tol": NUMBERS, "hessian_tol": NUMBERS, "max_iter": NUMBERS, "reach": NUMBERS},
    ),
    "extent": (epsot.extent, {"x": X, "y": Y}, SIDES),
    "load": (epsot.load, {"path": "nothing"}, {"path": [*TEXT, "None", "nan", "four axes"]}),
    "result.save": (RESULT.save, {"path": "nothing"}, {"path": [*TEXT, "None", "nan", "four axes"]}),
    "result.potential": (RESULT.potential, {"points": X}, {"points": ARRAYS}),
    "divergence.transport": (DEBIASED.transport, {"points": X}, {"points": ARRAYS}),
    "result.hessian": (
        RESULT.hessian, {"of": "x"}, {"of": [*KINDS, "four axes"], "along": KINDS, "tol": NUMBERS, "max_iter": NUMBERS}
    ),
    "plan.sum": (RESULT.plan.sum, {}, {"axis": [*NUMBERS[:-1], "four axes"]}),
    "plan.argmax": (RESULT.plan.argmax, {"axis": 1}, {"axis": [*NUMBERS[:-1], "four axes"]}),
    "plan.barycentric_map": (RESULT.plan.barycentric_map, {}, {"values": ARRAYS}),
    "plan.rows": (RESULT.plan.rows, {"i": 0}, {"i": [*KINDS, "nested", "nan", "set", "None"]}),
    "plan.to_sparse": (RESULT.plan.to_sparse, {}, {"mass": NUMBERS, "max_per_row": NUMBERS}),
    "plan.sample": (RESULT.plan.sample, {}, {"size": [*NUMBERS, "bool"], "rng": KINDS, "mode": [*KINDS, "four axes"]}),
    "objective.variable": (OBJECTIVE.variable, {"z": X.ravel()}, {"z": KINDS}),
    "objective": (OBJECTIVE, {"z": X.ravel()}, {"z": KINDS}),
    "objective.hessp": (OBJECTIVE.hessp, {"z": X.ravel(), "p": X.ravel()}, {"z": KINDS, "p": KINDS}),
    "ProgressBar": (epsot.ProgressBar, {}, {"callback": [kind for kind in KINDS if kind != "function"]}),
}  # fmt: skip


def cases(calls: Calls) -> Iterator[Any]:
    for name, (call, good, wrong) in calls.items():
        for argument in wrong:
            yield pytest.param(call, good, argument, wrong[argument], id=f"{name}-{argument}")


def refused(call: Callable[..., Any], good: dict[str, Any], argument: str, kinds: list[str]) -> None:
    """Every kind is refused by an error that begins with the argument, and does nothing."""
    for kind in kinds:
        with pytest.raises((TypeError, ValueError)) as raised:
            call(**{**good, argument: WRONG[kind]})
        assert re.match(rf"`{argument}[`\[]", str(raised.value)), (kind, str(raised.value))


@pytest.mark.parametrize(("call", "good", "argument", "kinds"), list(cases(CALLS)))
def test_errors_name_the_argument(
    call: Callable[..., Any], good: dict[str, Any], argument: str, kinds: list[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    refused(call, good, argument, kinds)
    assert not list(tmp_path.iterdir())


def test_every_public_call_is_here() -> None:
    """What needs no such test: results, which nobody makes, and what is a class of a user or a word."""
    others = {name for name in epsot.__all__ if name.endswith(("Result", "Warning"))}
    others |= {"BatchDivergence", "Cost", "Plan", "Status", "plot"}
    assert set(epsot.__all__) - others <= set(CALLS)


def plots() -> Calls:
    plot = pytest.importorskip("matplotlib") and epsot.plot
    axes, colours = [*KINDS, "bool"], [kind for kind in KINDS if kind != "None"]
    frame = {"levels": KINDS, "extent": ARRAYS, "area": NUMBERS, "arrows": NUMBERS}
    return {
        "samples": (
            plot.samples, {"x": X},
            {"x": ARRAYS, "weights": ARRAYS, "ax": axes, "color": colours, "area": NUMBERS, "displacement": ARRAYS,
             "arrows": NUMBERS},
        ),
        "potential": (
            plot.potential, {"points": X, "values": X[:, 0]},
            {"points": ARRAYS, "values": ARRAYS, "ax": axes, "color": colours, "levels": KINDS},
        ),
        "displacement": (
            plot.displacement, {"x": X, "v": X},
            {"x": ARRAYS, "v": ARRAYS, "ax": axes, "color": colours, "arrows": NUMBERS},
        ),
        "transport": (
            plot.transport, {"result": RESULT},
            {"result": [k for k in ARRAYS if k not in ("result", "divergence")], "ax": axes, "title": TEXT, **frame},
        ),
        "sweep": (
            plot.sweep, {"results": [RESULT]},
            {"results": [*KINDS, "matrix", "nested", "four axes"], "columns": NUMBERS, "panel": NUMBERS,
             "titles": [k for k in KINDS if k != "dict"], **frame},
        ),
        "convergence": (
            plot.convergence, {"result": RESULT},
            {"result": [k for k in ARRAYS if k not in ("result", "divergence")], "ax": axes, "label": TEXT,
             "color": colours},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["samples", "potential", "displacement", "transport", "sweep", "convergence"])
def test_plots_name_the_argument(name: str) -> None:
    """And leave no figure behind."""
    call, good, wrong = plots()[name]
    from matplotlib import pyplot

    for argument, kinds in wrong.items():
        refused(call, good, argument, kinds)
    assert not pyplot.get_fignums()
    call(**good)
    pyplot.close("all")


def test_a_result_in_place_of_points_says_what_draws_it() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(TypeError, match=r"^`x` must be an array, got a DivergenceResult; `plot.transport\(result\)`"):
        epsot.plot.samples(DEBIASED)
