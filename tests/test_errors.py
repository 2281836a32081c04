"""Bad input is an exception, raised before any work, that names the argument, what was got and the cure."""

from __future__ import annotations

import functools
import re
import sys
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import epsot

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2)) + 1
A, B = np.asarray([1, 2, 3, 4, 0, 6]) / 16, np.asarray([5, 1, 2, 1, 1]) / 10
C, C_XX, C_YY = rng.random((6, 5)), np.ones((6, 6)), np.ones((5, 5))

nan, inf = float("nan"), float("inf")


def with_entry(array: Any, value: float, *index: int) -> np.ndarray:
    """A copy of the array with one entry set."""
    out = np.asarray(array, dtype=float).copy()
    out[index] = value
    return out


def by_length(entry: Any, **changes: Any) -> Any:
    arguments = {"x": X, "y": Y, "a": A, "b": B, "blur": 0.5} | changes
    return entry(arguments.pop("x"), arguments.pop("y"), **arguments)


def by_temperature(entry: Any, **changes: Any) -> Any:
    arguments = {"x": X, "y": Y, "p": 2, "cost": None, "a": A, "b": B, "eps": 0.25} | changes
    points = {name: arguments.pop(name) for name in ("x", "y", "p", "cost")}
    return entry(epsot.PointCloud(**points), **arguments)


def by_matrix(entry: Any, **changes: Any) -> Any:
    arguments = {"C": C, "C_xx": C_XX, "C_yy": C_YY, "a": A, "b": B, "eps": 0.25} | changes
    parts = {name: arguments.pop(name) for name in ("C", "C_xx", "C_yy")}
    return entry(epsot.CostMatrix(**parts), **arguments)


LENGTH = [functools.partial(by_length, entry) for entry in (epsot.sinkhorn, epsot.sinkhorn_divergence)]
TEMPERATURE = [functools.partial(by_temperature, entry) for entry in (epsot.solve, epsot.divergence)]
MATRIX = [functools.partial(by_matrix, entry) for entry in (epsot.solve, epsot.divergence)]
POINTS, ALL = LENGTH + TEMPERATURE, LENGTH + TEMPERATURE + MATRIX


def entry_name(call: Any) -> str:
    return f"{call.func.__name__}-{call.args[0].__name__}" if isinstance(call, functools.partial) else ""


def no_work(*_: Any) -> None:
    pytest.fail("work began before the error")


@functools.cache
def modules_that_anneal(_: int) -> list[Any]:
    """Of the package, by how many modules there are."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("epsot")]
    return [module for module in modules if hasattr(module, "anneal")]


def expect(error: Any, fragments: tuple[str, ...], call: Any, **changes: Any) -> None:
    """The call raises this error before it enters the loop, with a message that holds every fragment."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules_that_anneal(len(sys.modules)):
            patch.setattr(module, "anneal", no_work)
        with pytest.raises(error) as caught:
            call(**changes)
    assert caught.type in (ValueError, TypeError)
    for fragment in fragments:
        assert fragment in str(caught.value)


def rows(*table: tuple[Any, ...]) -> list[Any]:
    """(id, changes, error, fragments) -> parametrisations over the table."""
    return [pytest.param(changes, error, fragments, id=name) for name, changes, error, *fragments in table]


UNREAL = [
    ("complex", lambda z: z + 0j, "complex128"),
    ("object", lambda z: z.astype(object), "object"),
    ("string", lambda z: z.astype(str), "real"),
    ("datetime", lambda z: z.astype("datetime64[s]"), "datetime64"),
    ("timedelta", lambda z: z.astype("timedelta64[s]"), "timedelta64"),
    ("structured", lambda z: z.astype([("value", float)]), "value"),
    ("masked", lambda z: np.ma.masked_array(z, z > 0), "masked"),
    ("objects", lambda z: [[object()]], "object"),
    ("none", lambda z: [[None]], "object"),
    ("words", lambda z: [["one", "two"]], "<U3"),
    ("generator", lambda z: (row for row in z), "object"),
    ("set", lambda z: {1.0, 2.0}, "object"),
    ("mapping", lambda z: {"x": z}, "object"),
    ("scipy-sparse", lambda z: __import__("scipy.sparse").sparse.csr_array(z), "toarray()"),
]


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("call", POINTS, ids=entry_name)
@pytest.mark.parametrize(("make", "got"), [pytest.param(*row[1:], id=row[0]) for row in UNREAL])
def test_points_that_are_not_real_numbers(call: Any, name: str, make: Any, got: str) -> None:
    cure = "fill it" if got == "masked" else "real"
    expect(TypeError, (f"`{name}`", cure, got), call, **{name: make(X)})


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("call", [LENGTH[0], MATRIX[1]], ids=entry_name)
@pytest.mark.parametrize(("make", "got"), [pytest.param(*row[1:], id=row[0]) for row in UNREAL])
def test_weights_that_are_not_real_numbers(call: Any, name: str, make: Any, got: str) -> None:
    cure = "fill it" if got == "masked" else "real"
    expect(TypeError, (f"`{name}`", cure, got), call, **{name: make({"a": A, "b": B}[name])})


@pytest.mark.parametrize("name", ["C", "C_xx", "C_yy"])
@pytest.mark.parametrize(("make", "got"), [pytest.param(*row[1:], id=row[0]) for row in UNREAL])
def test_costs_that_are_not_real_numbers(name: str, make: Any, got: str) -> None:
    matrix = {"C": C, "C_xx": C_XX, "C_yy": C_YY}[name]
    expect(TypeError, (f"`{name}`", got), MATRIX[1], **{name: make(matrix)})


POINTS_TABLE = rows(
    ("x-nan", {"x": with_entry(X, nan, 1, 0)}, ValueError, "`x`", "finite", "1 NaN or infinite", "remove"),
    ("y-inf", {"y": with_entry(Y, -inf, 4, 1)}, ValueError, "`y`", "finite", "1 NaN or infinite", "remove"),
    ("x-nan-list", {"x": [[0, 1], [nan, nan]]}, ValueError, "`x`", "finite", "2 NaN or infinite"),
    ("x-nan-weight-zero", {"x": with_entry(X, nan, 4, 0)}, ValueError, "`x`", "finite"),
    ("x-1d", {"x": X[:, 0]}, ValueError, "`x`", "(n, d)", "(6,)", "x[:, None]"),
    ("y-1d", {"y": [1.0, 2.0]}, ValueError, "`y`", "(n, d)", "(2,)", "y[:, None]"),
    ("x-0d", {"x": 1.0}, ValueError, "`x`", "(n, d)", "()"),
    ("x-empty", {"x": X[:0]}, ValueError, "`x`", "at least one point", "(0, 2)"),
    ("y-empty", {"y": Y[:0]}, ValueError, "`y`", "at least one point", "(0, 2)"),
    ("x-empty-list", {"x": []}, ValueError, "`x`", "(0,)"),
    ("y-empty-row", {"y": [[]]}, ValueError, "`y`", "(1, 0)"),
    ("d-0", {"x": X[:, :0], "y": Y[:, :0]}, ValueError, "`x`", "one coordinate", "(6, 0)"),
    ("d-differs", {"x": X[:, :1]}, ValueError, "`x` and `y`", "same dimension", "(6, 1)", "(5, 2)"),
    ("x-ragged", {"x": [[1, 2], [3]]}, ValueError, "`x`", "inhomogeneous"),
    ("p-3", {"p": 3}, ValueError, "`p`", "1 or 2", "got 3", "Cost"),
    ("p-0", {"p": 0}, ValueError, "`p`", "1 or 2", "got 0"),
    ("p-nan", {"p": nan}, ValueError, "`p`", "1 or 2", "got nan"),
    ("p-string", {"p": "2"}, ValueError, "`p`", "1 or 2", "got '2'"),
    ("p-none", {"p": None}, ValueError, "`p`", "1 or 2", "got None"),
    ("p-array", {"p": np.asarray([2, 2])}, ValueError, "`p`", "1 or 2", "array([2, 2])"),
)


@pytest.mark.parametrize("call", POINTS, ids=entry_name)
@pytest.mark.parametrize(("changes", "error", "fragments"), POINTS_TABLE)
def test_points(call: Any, changes: dict[str, Any], error: Any, fragments: Any) -> None:
    expect(error, fragments, call, **changes)


WEIGHTS_TABLE = rows(
    ("a-nan", {"a": with_entry(A, nan, 1)}, ValueError, "`a`", "finite weights", "1 NaN or infinite", "repair"),
    ("b-inf", {"b": with_entry(B, inf, 1)}, ValueError, "`b`", "finite weights", "1 NaN or infinite", "repair"),
    ("a-negative", {"a": with_entry(A, -0.25, 1)}, ValueError, "`a`", "negative", "-0.25"),
    ("b-negative", {"b": -B}, ValueError, "`b`", "negative", "-0.5"),
    ("a-zero", {"a": 0 * A}, ValueError, "`a`", "positive mass", "zeros"),
    ("b-zero", {"b": [0, 0, 0, 0, 0]}, ValueError, "`b`", "positive mass", "zeros"),
    ("a-short", {"a": A[1:]}, ValueError, "`a`", "(6,)", "(5,)", "one weight a point"),
    ("b-swapped", {"a": B, "b": A}, ValueError, "`a`", "(6,)", "(5,)"),
    ("a-column", {"a": A[:, None]}, ValueError, "`a`", "(6,)", "(6, 1)"),
    ("a-scalar", {"a": 1.0}, ValueError, "`a`", "(6,)", "()"),
    ("b-0d", {"b": np.asarray(1.0)}, ValueError, "`b`", "(5,)", "()"),
    ("a-empty", {"a": []}, ValueError, "`a`", "(6,)", "(0,)"),
    ("a-ragged", {"a": [[1, 2], [3]]}, ValueError, "`a`", "inhomogeneous"),
)


@pytest.mark.parametrize("call", ALL, ids=entry_name)
@pytest.mark.parametrize(("changes", "error", "fragments"), WEIGHTS_TABLE)
def test_weights(call: Any, changes: dict[str, Any], error: Any, fragments: Any) -> None:
    expect(error, fragments, call, **changes)


@pytest.mark.parametrize("call", ALL, ids=entry_name)
def test_masses_differ(call: Any) -> None:
    strength = "`reach`" if call in LENGTH else "`rho`"
    expect(
        ValueError,
        ("`a` and `b` must have equal mass in balanced transport, got 1 and 2; normalise them or set", strength),
        call,
        b=2 * B,
    )


@pytest.mark.parametrize("call", ALL, ids=entry_name)
def test_masses_that_differ_a_little_are_told_apart(call: Any) -> None:
    """The message must not say "got 1 and 1"."""
    with pytest.raises(ValueError, match="`a` and `b` must have equal mass") as caught:
        call(b=(1 + 1e-7) * B)
    got = re.search(r"got (\S+) and (\S+);", str(caught.value))
    assert got is not None
    assert got[1] != got[2]


@pytest.mark.parametrize("call", ALL, ids=entry_name)
def test_masses_counted_against_uniform_weights(call: Any) -> None:
    expect(ValueError, ("`a` and `b` must have equal mass", "got 6 and 1"), call, a=np.ones(6, dtype=int), b=None)


def scale_rows(name: str) -> list[tuple[Any, ...]]:
    """What is no positive number, as a scale of the user."""
    return [
        (f"{name}-zero", {name: 0}, ValueError, f"`{name}`", "positive", "got 0"),
        (f"{name}-negative", {name: -0.5}, ValueError, f"`{name}`", "positive", "-0.5"),
        (f"{name}-nan", {name: nan}, ValueError, f"`{name}`", "positive", "nan"),
        (f"{name}-inf", {name: inf}, ValueError, f"`{name}`", "finite", "inf"),
        (f"{name}-string", {name: "0.5"}, TypeError, f"`{name}`", "number", "'0.5'"),
        (f"{name}-bytes", {name: b"0.5"}, TypeError, f"`{name}`", "number"),
        (f"{name}-none", {name: None}, TypeError, f"`{name}`", "number", "None"),
        (f"{name}-empty", {name: []}, TypeError, f"`{name}`", "number", "[]"),
        (f"{name}-list", {name: [0.5, "1"]}, TypeError, f"`{name}`", "numbers"),
        (f"{name}-ragged", {name: [[0.5], [1, 2]]}, ValueError, f"`{name}`", "inhomogeneous"),
        (f"{name}-pair", {name: (0.5, -0.5)}, ValueError, f"`{name}[1]`", "positive", "-0.5"),
        (f"{name}-array", {name: np.asarray([0.5, 0.0])}, ValueError, f"`{name}[1]`", "positive", "0.0"),
        (f"{name}-array-1", {name: np.asarray([nan])}, ValueError, f"`{name}[0]`", "positive", "nan"),
        (f"{name}-flags", {name: np.asarray([True, True])}, TypeError, f"`{name}`", "numbers", "bool"),
        (f"{name}-complex", {name: 1j}, TypeError, f"`{name}`", "number", "1j"),
    ]


def strength_rows(name: str) -> list[tuple[Any, ...]]:
    """What is neither None nor a positive number nor a pair of these."""
    return [
        (f"{name}-zero", {name: 0}, ValueError, f"`{name}`", "positive", "got 0", "None for balanced"),
        (f"{name}-negative", {name: -1.0}, ValueError, f"`{name}`", "positive", "-1.0"),
        (f"{name}-nan", {name: nan}, ValueError, f"`{name}`", "positive", "nan"),
        (f"{name}-pair-zero", {name: (1.0, 0.0)}, ValueError, f"`{name}`", "positive", "(1.0, 0.0)"),
        (f"{name}-pair-negative", {name: [None, -1.0]}, ValueError, f"`{name}`", "positive", "[None, -1.0]"),
        (f"{name}-triple", {name: (1, 2, 3)}, ValueError, f"`{name}`", "pair", "(1, 2, 3)"),
        (f"{name}-none-at-all", {name: ()}, ValueError, f"`{name}`", "pair", "()"),
        (f"{name}-string", {name: "1"}, TypeError, f"`{name}`", "number", "'1'"),
        (f"{name}-string-of-two", {name: "12"}, TypeError, f"`{name}`", "number", "'12'"),
        (f"{name}-pair-string", {name: ("1", 2)}, TypeError, f"`{name}`", "number", "'1'"),
        (f"{name}-set", {name: {1.0, 2.0}}, TypeError, f"`{name}`", "number"),
        (f"{name}-array-3", {name: np.asarray([1.0, nan, 1])}, ValueError, f"`{name}[1]`", "positive", "inf"),
        (f"{name}-pair-array", {name: (1.0, np.asarray([1.0, 0.0]))}, ValueError, f"`{name}[1]`", "positive"),
        (f"{name}-array-string", {name: np.asarray(["1"])}, TypeError, f"`{name}`", "numbers"),
    ]


LENGTHS_TABLE = rows(
    *scale_rows("blur"),
    *strength_rows("reach"),
    ("blur-underflow", {"blur": 1e-200}, ValueError, "`blur`", "1e-200", "rescale"),
    ("blur-overflow", {"blur": 1e200}, ValueError, "`blur`", "1e+200", "rescale"),
    ("reach-underflow", {"reach": 1e-200}, ValueError, "`reach`", "1e-200"),
    ("diameter-negative", {"diameter": -1.0}, ValueError, "`diameter`", "-1.0"),
    ("diameter-nan", {"diameter": nan}, ValueError, "`diameter`", "nan"),
    ("diameter-inf", {"diameter": inf}, ValueError, "`diameter`", "finite", "inf"),
    ("diameter-overflow", {"diameter": 1e200}, ValueError, "`diameter`", "1e+200"),
    ("diameter-string", {"diameter": "1"}, TypeError, "`diameter`", "number", "'1'"),
    ("diameter-array", {"diameter": np.asarray([1.0, -1.0])}, ValueError, "`diameter[1]`", "finite", "-1.0"),
    ("diameter-list", {"diameter": [1.0, None]}, TypeError, "`diameter`", "number"),
)


@pytest.mark.parametrize("call", LENGTH, ids=entry_name)
@pytest.mark.parametrize(("changes", "error", "fragments"), LENGTHS_TABLE)
def test_lengths(call: Any, changes: dict[str, Any], error: Any, fragments: Any) -> None:
    expect(error, fragments, call, **changes)


@pytest.mark.parametrize("call", LENGTH, ids=entry_name)
def test_a_reach_beyond_all_numbers_is_balanced(call: Any) -> None:
    """reach**p overflows to inf, which is None: the masses must then be equal."""
    expect(ValueError, ("equal mass",), call, reach=1e200, b=2 * B)


@pytest.mark.parametrize("call", TEMPERATURE + MATRIX, ids=entry_name)
@pytest.mark.parametrize(("changes", "error", "fragments"), rows(*scale_rows("eps"), *strength_rows("rho")))
def test_temperatures(call: Any, changes: dict[str, Any], error: Any, fragments: Any) -> None:
    expect(error, fragments, call, **changes)


OPTIONS_TABLE = rows(
    ("scaling-0", {"scaling": 0.0}, ValueError, "`scaling`", "between 0 and 1", "0.0"),
    ("scaling-1", {"scaling": 1.0}, ValueError, "`scaling`", "between 0 and 1", "1.0"),
    ("scaling-2", {"scaling": 2}, ValueError, "`scaling`", "between 0 and 1", "2"),
    ("scaling-negative", {"scaling": -0.5}, ValueError, "`scaling`", "between 0 and 1", "-0.5"),
    ("scaling-nan", {"scaling": nan}, ValueError, "`scaling`", "between 0 and 1", "nan"),
    ("scaling-none", {"scaling": None}, TypeError, "`scaling`", "number", "None"),
    ("scaling-string", {"scaling": "0.5"}, TypeError, "`scaling`", "number", "'0.5'"),
    ("tol-negative", {"tol": -1e-3}, ValueError, "`tol`", ">= 0", "-0.001", "None"),
    ("tol-nan", {"tol": nan}, ValueError, "`tol`", ">= 0", "nan"),
    ("tol-string", {"tol": "1e-3"}, TypeError, "`tol`", "number", "'1e-3'"),
    ("tol-array", {"tol": np.ones(2)}, TypeError, "`tol`", "number"),
    ("max_iter-0", {"max_iter": 0}, ValueError, "`max_iter`", "at least 1", "0"),
    ("max_iter-negative", {"max_iter": -3}, ValueError, "`max_iter`", "at least 1", "-3"),
    ("max_iter-float", {"max_iter": 10.0}, TypeError, "`max_iter`", "integer", "10.0"),
    ("max_iter-none", {"max_iter": None}, TypeError, "`max_iter`", "integer", "None"),
    ("max_iter-string", {"max_iter": "10"}, TypeError, "`max_iter`", "integer", "'10'"),
    ("max_iter-0d-float", {"max_iter": np.asarray(10.0)}, TypeError, "`max_iter`", "integer"),
    ("max_iter-array", {"max_iter": np.asarray([10])}, TypeError, "`max_iter`", "integer"),
    ("callback-number", {"callback": 3}, TypeError, "`callback`", "callable", "3"),
    ("callback-none", {"callback": lambda: None}, TypeError, "`callback`", "one argument", "too many positional"),
    ("callback-two", {"callback": lambda f, g: None}, TypeError, "`callback`", "one argument", "'g'"),
    ("callback-name", {"callback": lambda *, nit: None}, TypeError, "`callback`", "one argument"),
    ("callback-true", {"callback": True}, TypeError, "`callback`", "callable", "True"),
    ("init-number", {"init": 3}, TypeError, "`init`", "earlier result", "int"),
    ("init-potential", {"init": (0 * A,)}, TypeError, "`init`", "earlier result", "tuple"),
    ("init-array", {"init": 0 * A}, TypeError, "`init`", "earlier result", "ndarray"),
    ("init-class", {"init": epsot.SinkhornResult}, TypeError, "`init`", "earlier result"),
    ("workers-0", {"workers": 0}, ValueError, "`workers`", "0"),
    ("workers-below", {"workers": -2}, ValueError, "`workers`", "-2"),
    ("workers-word", {"workers": "two"}, (TypeError, ValueError), "`workers`", "two"),
    ("workers-float", {"workers": 1.5}, (TypeError, ValueError), "`workers`", "1.5"),
)


@pytest.mark.parametrize("call", ALL, ids=entry_name)
@pytest.mark.parametrize(("changes", "error", "fragments"), OPTIONS_TABLE)
def test_options(call: Any, changes: dict[str, Any], error: Any, fragments: Any) -> None:
    expect(error, fragments, call, **changes)


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [({"init": "warm"}, ("`init`", "str")), ({"workers": 0}, ("`workers`", "0"))],
    ids=["init", "workers"],
)
def test_equal_measures_are_no_excuse(changes: dict[str, Any], fragments: tuple[str, ...]) -> None:
    """A divergence that is zero at sight still checks its options."""
    expect((TypeError, ValueError), fragments, functools.partial(epsot.sinkhorn_divergence, X, X, blur=0.5), **changes)


@pytest.mark.parametrize("call", POINTS, ids=entry_name)
@pytest.mark.parametrize("workers", [0, "two"])
def test_workers_are_checked_on_every_backend(call: Any, workers: Any) -> None:
    x, y, a, b = (strict.asarray(array) for array in (X, Y, A, B))
    expect((TypeError, ValueError), ("`workers`",), call, x=x, y=y, a=a, b=b, workers=workers)


@pytest.mark.parametrize("call", TEMPERATURE, ids=entry_name)
@pytest.mark.parametrize(
    "cost", ["manhattan", "", epsot.Cost, len, ["cosine"], 2], ids=["name", "empty", "class", "callable", "list", "int"]
)
def test_unknown_costs(call: Any, cost: Any) -> None:
    expect(ValueError, ("`cost`", '"sqeuclidean"', "epsot.Cost", repr(cost)), call, cost=cost)


@pytest.mark.parametrize("call", TEMPERATURE, ids=entry_name)
@pytest.mark.parametrize("name", ["x", "y"])
def test_the_zero_vector_has_no_direction(call: Any, name: str) -> None:
    points = {"x": X, "y": Y}[name] * (np.arange(len({"x": X, "y": Y}[name])) > 0)[:, None]
    expect(ValueError, (f"`{name}`", "zero vector"), call, cost="cosine", **{name: points})


@pytest.mark.parametrize("entry", [epsot.solve, epsot.divergence])
@pytest.mark.parametrize("geometry", [C, None, "cost", epsot.PointCloud, (X, Y)], ids=lambda g: type(g).__name__)
def test_no_geometry(entry: Any, geometry: Any) -> None:
    expect(
        TypeError,
        ("`geometry`", type(geometry).__name__, "PointCloud(x, y)", "CostMatrix(C)"),
        lambda: entry(geometry, eps=0.1),
    )


ASYMMETRIC = with_entry(C_XX, 2.0, 0, 1)
MATRIX_TABLE = rows(
    ("nan", {"C": with_entry(C, nan, 0, 0)}, ValueError, "`C`", "NaN", "+inf to forbid"),
    ("minus-inf", {"C": with_entry(C, -inf, 5, 4)}, ValueError, "`C`", "-inf", "+inf to forbid"),
    ("all-inf", {"C": np.full((6, 5), inf)}, ValueError, "`C`", "row of positive weight", "got 5 with +inf only"),
    ("row-inf", {"C": with_entry(C, inf, 0)}, ValueError, "`C`", "row of positive weight", "got 1", "weight zero"),
    ("column-inf", {"C": np.where(np.arange(5) < 2, inf, C)}, ValueError, "`C`", "column", "got 2", "weight zero"),
    ("1d", {"C": C[0]}, ValueError, "`C`", "(n, m)", "(5,)"),
    ("empty", {"C": C[:0]}, ValueError, "`C`", "non-empty", "(0, 5)"),
    ("ragged", {"C": [[1, 2], [3]]}, ValueError, "`C`", "inhomogeneous"),
    ("C_xx-shape", {"C_xx": C}, ValueError, "`C_xx`", "(6, 6)", "(6, 5)"),
    ("C_yy-shape", {"C_yy": C_XX}, ValueError, "`C_yy`", "(5, 5)", "(6, 6)"),
    ("C_xx-asymmetric", {"C_xx": ASYMMETRIC}, ValueError, "`C_xx`", "symmetric", "mean"),
    ("C_xx-nan", {"C_xx": with_entry(C_XX, nan, 0, 0)}, ValueError, "`C_xx`", "NaN"),
)


@pytest.mark.parametrize("call", MATRIX, ids=entry_name)
@pytest.mark.parametrize(("changes", "error", "fragments"), MATRIX_TABLE)
def test_cost_matrix(call: Any, changes: dict[str, Any], error: Any, fragments: Any) -> None:
    expect(error, fragments, call, **changes)


@pytest.mark.parametrize("changes", [{"C_xx": None}, {"C_yy": None}, {"C_xx": None, "C_yy": None}])
def test_divergence_needs_the_self_costs(changes: dict[str, Any]) -> None:
    expect(ValueError, ("`C_xx`", "`C_yy`"), MATRIX[1], **changes)


def test_divergence_needs_feasible_self_costs() -> None:
    """A point of positive weight that may not even stay where it is has no plan with itself."""
    blocked = C_XX.copy()
    blocked[0, :] = blocked[:, 0] = inf
    expect(ValueError, ("`C_xx`", "row"), MATRIX[1], C_xx=blocked)
    expect(ValueError, ("`C_yy`", "row", "got 5 with +inf only"), MATRIX[1], C_yy=inf * C_YY)


TORCH = "torch"


def foreign(kind: str, array: np.ndarray) -> Any:
    return strict.asarray(array) if kind == "strict" else pytest.importorskip(TORCH).asarray(array)


@pytest.mark.parametrize("kind", ["strict", TORCH])
@pytest.mark.parametrize("name", ["x", "y", "a", "b"])
@pytest.mark.parametrize("call", POINTS, ids=entry_name)
def test_mixed_libraries(call: Any, name: str, kind: str) -> None:
    array = {"x": X, "y": Y, "a": A, "b": B}[name]
    expect(TypeError, (f"`{name}`", "one library", "numpy", kind, "convert"), call, **{name: foreign(kind, array)})


@pytest.mark.parametrize("name", ["C_xx", "C_yy", "a", "b"])
def test_mixed_libraries_around_a_matrix(name: str) -> None:
    array = {"C_xx": C_XX, "C_yy": C_YY, "a": A, "b": B}[name]
    expect(TypeError, (f"`{name}`", "one library", "numpy"), MATRIX[1], **{name: strict.asarray(array)})


@pytest.mark.parametrize("name", ["x", "y", "a", "b"])
@pytest.mark.parametrize("call", POINTS, ids=entry_name)
def test_mixed_devices(call: Any, name: str) -> None:
    arrays = {"x": X, "y": Y, "a": A, "b": B}
    arrays = {key: strict.asarray(array) for key, array in arrays.items()}
    arrays[name] = strict.asarray(arrays[name], device=strict.Device("device1"))
    expect(TypeError, (f"`{name}`", "one device", "device1", "move"), call, **arrays)


# Misuse of what a solve returns


@pytest.fixture(scope="module")
def solved() -> epsot.SinkhornResult:
    return epsot.sinkhorn(X, Y, A, B, blur=0.5)


@pytest.fixture(scope="module")
def solved_matrix() -> epsot.SinkhornResult:
    return epsot.solve(epsot.CostMatrix(C), A, B, eps=0.25)


def raises(error: Any, *fragments: str) -> Any:
    """As `pytest.raises`, for a message that holds all the fragments in this order."""
    return pytest.raises(error, match=".*".join(re.escape(fragment) for fragment in fragments))


@pytest.mark.parametrize("v", [np.ones(6), np.ones((6, 5)), np.ones((5, 2, 2)), 1.0], ids=["n", "n-m", "3d", "scalar"])
def test_plan_times_what_does_not_fit(solved: Any, v: Any) -> None:
    with raises(ValueError, "`v`", "(5,)", "(5, q)", str(np.shape(v))):
        solved.plan @ v
    with raises(ValueError, "`values`", "(5,)", str(np.shape(v))):
        solved.plan.barycentric_map(v)


def test_plan_times_what_is_not_real(solved: Any) -> None:
    with raises(TypeError, "`v`", "complex128"):
        solved.plan @ (1j * B)
    with raises(TypeError, "one library", "`v`", "convert"):
        solved.plan @ strict.asarray(B)


@pytest.mark.parametrize("axis", [2, -3, "rows", 0.5, (0, 1)])
def test_plan_sum_over_no_axis(solved: Any, axis: Any) -> None:
    with raises(ValueError, "`axis`", "0, 1 or None", repr(axis)):
        solved.plan.sum(axis=axis)


@pytest.mark.parametrize("i", [6, -7, [0, 6], [-7], np.asarray([99])], ids=str)
def test_plan_rows_out_of_range(solved: Any, i: Any) -> None:
    with pytest.raises(IndexError, match="out of range for a plan with 6 rows"):
        solved.plan.rows(i)


@pytest.mark.parametrize("i", [1.5, "1", None, [0.5], [[0]], [True] * 6, {0}], ids=str)
def test_plan_rows_of_no_index(solved: Any, i: Any) -> None:
    with raises(TypeError, "`i`", "integer"):
        solved.plan.rows(i)


@pytest.mark.parametrize("mass", [0, -1, 1.5, nan, "all", None], ids=str)
def test_sparse_share_of_mass(solved: Any, mass: Any) -> None:
    with raises((ValueError, TypeError), "`mass`", repr(mass)):
        solved.plan.to_sparse(mass=mass)


@pytest.mark.parametrize("cap", [0, -1, 1.5, "ten"], ids=str)
def test_sparse_cap(solved: Any, cap: Any) -> None:
    with raises((ValueError, TypeError), "`max_per_row`", "positive integer", repr(cap)):
        solved.plan.to_sparse(max_per_row=cap)


@pytest.mark.parametrize("size", [-1, 1.5, "ten"], ids=str)
def test_sample_size(solved: Any, size: Any) -> None:
    with raises((ValueError, TypeError), "`size`", "non-negative integer", repr(size)):
        solved.plan.sample(size)


def test_sample_mode(solved: Any) -> None:
    with raises(ValueError, "`mode`", "independent", "stratified", "'sorted'"):
        solved.plan.sample(3, mode="sorted")


@pytest.mark.parametrize("rng", [object(), "seed", -1, 0.5], ids=["object", "seed", "-1", "0.5"])
@pytest.mark.parametrize("mode", ["independent", "stratified"])
def test_sample_by_no_generator(solved: Any, rng: Any, mode: Any) -> None:
    with raises((ValueError, TypeError), "`rng`", "numpy.random.Generator", type(rng).__name__):
        solved.plan.sample(3, rng=rng, mode=mode)


@pytest.mark.parametrize("index", [(0, 1, 2), (0,), ()], ids=str)
def test_plan_has_two_indices(solved: Any, index: Any) -> None:
    with raises(IndexError, "two indices", f"got {len(index)}"):
        solved.plan[index]


@pytest.mark.parametrize(
    ("index", "error", "fragments"),
    [
        ((0, 5), IndexError, ("column 5", "5 columns")),
        ((slice(None), [0, -6]), IndexError, ("a column", "5 columns")),
        ((6, slice(None)), IndexError, ("row 6", "6 rows")),
        (([0, 1], [0, 1, 2]), IndexError, ("`i` and `j`", "2 and 3")),
        ((0, 0.5), TypeError, ("`j`", "integer")),
        (("a", 0), TypeError, ("`i`", "integer")),
        (None, TypeError, ("`i`", "integer")),
    ],
    ids=str,
)
def test_plan_indexed_by_no_index(solved: Any, index: Any, error: Any, fragments: Any) -> None:
    with raises(error, *fragments):
        solved.plan[index]


def test_plan_where_numpy_wants_more(solved: Any) -> None:
    with raises(ValueError, "no numbers in memory"):
        np.asarray(solved.plan, copy=False)
    with raises(TypeError, "`out`"):
        np.sum(solved.plan, axis=1, out=np.empty(6))


@pytest.mark.parametrize(
    "callback",
    [lambda: None, lambda nit, eps: None, (lambda *, record: None), 3],
    ids=["none", "two", "named", "number"],
)
@pytest.mark.parametrize("call", ALL, ids=entry_name)
def test_a_callback_takes_one_argument(call: Any, callback: Any) -> None:
    expect(TypeError, ("`callback`",), call, callback=callback)


@pytest.mark.parametrize("call", [LENGTH[0], MATRIX[1]], ids=entry_name)
@pytest.mark.parametrize("workers", [np.ones(2), [1, 2], np.asarray([-1]), 1.5, True], ids=str)
def test_workers_are_one_number(call: Any, workers: Any) -> None:
    expect(TypeError, ("`workers` must be an integer",), call, workers=workers)


def test_exports_that_only_some_libraries_have() -> None:
    plan = epsot.sinkhorn(strict.asarray(X), strict.asarray(Y), blur=0.5).plan
    with raises(TypeError, "NumPy or CuPy", "plan.rows"):
        plan.to_sparse()
    with raises(TypeError, "NumPy or CuPy", "plan @ v"):
        plan.as_linear_operator()


@pytest.mark.parametrize("method", ["transport", "potential"])
def test_points_off_the_cloud(solved: Any, method: str) -> None:
    move = getattr(solved, method)
    with raises(ValueError, "`points`", "2 coordinates", "(4, 3)"):
        move(np.ones((4, 3)))
    with raises(ValueError, "`points`", "(n, d)", "(2,)", "points[:, None]"):
        move(np.ones(2))
    with raises(ValueError, "`points`", "finite", "1 NaN"):
        move([[nan, 1.0]])
    with raises(ValueError, "`points`", "at least one point", "(0, 2)"):
        move(X[:0])
    with raises(TypeError, "`points`", "complex128"):
        move(1j * X)
    with raises(TypeError, "one library", "`points`", "convert"):
        move(strict.asarray(X))


@pytest.mark.parametrize("method", ["transport", "potential"])
def test_a_matrix_has_no_points(solved_matrix: Any, method: str) -> None:
    with raises(TypeError, "CostMatrix has no points", "PointCloud"):
        getattr(solved_matrix, method)(X)


@pytest.mark.parametrize("name", ["grad_x", "grad_y", "displacement"])
def test_a_matrix_has_no_gradient_in_points(solved_matrix: Any, name: str) -> None:
    with raises(TypeError, "CostMatrix has no points", "PointCloud"):
        getattr(solved_matrix, name)


def test_a_matrix_has_no_default_values(solved_matrix: Any) -> None:
    with raises(TypeError, "no points", "`values`"):
        solved_matrix.plan.barycentric_map()


def test_a_warm_start_that_does_not_fit(solved: Any, solved_matrix: Any) -> None:
    with raises(ValueError, "`init`", "(3, 5)", "(6, 5)"):
        epsot.solve(epsot.CostMatrix(C[:3]), eps=0.25, init=solved_matrix)
    with raises((TypeError, ValueError), "`init`", "coordinates"):
        epsot.sinkhorn(np.ones((3, 1)), np.ones((4, 1)), blur=0.5, init=solved)
    x, y = strict.asarray(X), strict.asarray(Y)
    with raises(TypeError, "`init`", "library"):
        epsot.sinkhorn(X, Y, blur=0.5, init=epsot.sinkhorn(x, y, blur=0.5))
    elsewhere = strict.Device("device1")
    there = epsot.sinkhorn(strict.asarray(X, device=elsewhere), strict.asarray(Y, device=elsewhere), blur=0.5)
    with raises(TypeError, "`init`", "device"):
        epsot.sinkhorn(x, y, blur=0.5, init=there)


def test_results_are_frozen(solved: Any) -> None:
    for name in ("nit", "status", "value"):
        with pytest.raises(AttributeError):
            setattr(solved, name, 3)
    with pytest.raises(AttributeError):
        solved.plan.eps = 1.0
