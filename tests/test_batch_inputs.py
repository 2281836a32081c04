"""What may be given for many problems, of any library, and what is refused: errors name the argument and the item."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import epsot
from tests.batches import ARRAYS, ENDS, NUMBERS, called, ragged, stacked
from tests.checks import close

rng = np.random.default_rng(1)
X, Y = rng.random((4, 6, 2)), rng.random((4, 5, 2))
A, B = np.ones((4, 6)) / 6, np.ones((4, 5)) / 5
XS, YS = [rng.random((n, 2)) for n in (3, 4, 5)], [rng.random((n, 2)) for n in (2, 6, 5)]
C = rng.random((4, 6, 5))
nan, inf = float("nan"), float("inf")


def put(array: np.ndarray, value: float, *index: int) -> np.ndarray:
    out = array.copy()
    out[index] = value
    return out


def swap(items: list[Any], k: int, item: Any) -> list[Any]:
    return [*items[:k], item, *items[k + 1 :]]


POINTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": put(X, nan, 2, 1, 0)}, ValueError, r"`x\[2\]` must have finite coordinates, got 1"),
    ({"y": swap(YS, 1, YS[1] * inf), "x": XS}, ValueError, r"`y\[1\]` must have finite coordinates"),
    ({"y": Y[:3]}, ValueError, r"`x` and `y` must hold as many clouds.*\(4,\) and \(3,\).*`pairwise`"),
    ({"x": XS, "y": YS[:2]}, ValueError, r"`x` and `y` must hold as many clouds"),
    ({"y": np.ones((4, 5, 3))}, ValueError, "`x` and `y` must have points of the same dimension, got 2 and 3"),
    (
        {"x": swap(XS, 1, np.ones((4, 3))), "y": YS},
        ValueError,
        r"`x\[1\]` must have points of the dimension of `x\[0\]`",
    ),
    ({"x": swap(XS, 1, np.ones(4)), "y": YS}, ValueError, r"`x\[1\]` must be an \(n, d\) array.*`x\[1\]\[:, None\]`"),
    ({"x": swap(XS, 1, np.ones((0, 2))), "y": YS}, ValueError, r"`x\[1\]` must hold at least one point"),
    ({"x": swap(XS, 1, None), "y": YS}, TypeError, r"`x\[1\]` must be an array of real numbers, got None"),
    (
        {"x": [z.tolist() for z in XS], "y": YS},
        ValueError,
        "`x` must be .*; where lengths differ, pass a list of arrays",
    ),
    ({"x": X * 1j}, TypeError, "`x` must be real"),
]
WEIGHTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"a": put(A, -1, 2, 3)}, ValueError, r"`a\[2\]` must not be negative, got a smallest weight of -1"),
    ({"a": put(A, nan, 2, 3)}, ValueError, r"`a\[2\]` must have finite weights"),
    ({"a": A * [[1], [1], [0], [1]]}, ValueError, r"`a\[2\]` must have positive mass"),
    ({"b": B * [[1], [1], [1], [2]]}, ValueError, r"`a\[3\]` and `b\[3\]` must have equal mass .* 1 and 2; normalise"),
    ({"a": B}, ValueError, r"`a` must have shape \(6,\), one weight a point, .*got \(4, 5\)"),
    ({"a": A[:3]}, ValueError, r"axes must broadcast, got \(4,\) of the geometry, \(3,\) of `a`; weights have"),
    ({"a": A[..., None]}, ValueError, r"axes must broadcast, .*\(4, 6\) of `a`"),
    ({"a": 1.0}, ValueError, "`a` must have one weight a point"),
    ({"a": "uniform"}, TypeError, "`a` must be an array of real numbers"),
    ({"x": XS, "y": YS, "a": [np.ones(3) / 3, np.ones(3) / 3, np.ones(5) / 5]}, ValueError, r"`a\[1\]` must .*\(4,\)"),
    ({"x": XS, "y": YS, "a": [np.ones(3) / 3, np.ones(4) / 4]}, ValueError, r"\(3,\) of the geometry, \(2,\) of `a`"),
    ({"x": XS, "y": YS, "a": [np.ones(3), None, np.ones(5)]}, TypeError, r"`a\[1\]` must be an array"),
    (
        {"x": XS, "y": YS, "a": [[0.5] * 2, [1.0]]},
        ValueError,
        "`a` must be .*; where lengths differ, pass a list of arrays",
    ),
    ({"x": XS, "y": YS, "a": [np.ones((3, 1)), *XS[1:]]}, ValueError, r"`a\[0\]` must be a vector of weights"),
]
SCALES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"blur": [0.1, 0.2, -0.3, 0.4]}, ValueError, r"`blur\[2\]` must be positive and finite, got -0.3"),
    ({"blur": np.full((2, 1), nan)}, ValueError, r"`blur\[0, 0\]` must be positive and finite, got nan"),
    ({"blur": np.ones(3)}, ValueError, r"\(4,\) of the geometry, \(3,\) of `blur`$"),
    ({"blur": ["a"] * 4}, TypeError, "`blur` must be an array of real numbers"),
    ({"blur": [1e200, 1, 1, 1]}, ValueError, r"`blur` must be lengths whose squares are float64, got 1e\+200"),
    ({"reach": np.asarray([1, 2, 0, 1.0])}, ValueError, r"`reach\[2\]` must be positive, or inf for balanced"),
    ({"reach": [1, 2, 3, 4]}, ValueError, "`reach` must be None, one number, a pair for the two sides, or an array"),
    ({"reach": (np.ones(3), 1)}, ValueError, r"\(3,\) of `reach`"),
    ({"diameter": [1, -1, 1, 1]}, ValueError, r"`diameter\[1\]` must be a finite length .*, got -1"),
    ({"diameter": np.ones(3)}, ValueError, r"\(3,\) of `diameter`"),
    ({"tol": np.ones(4)}, TypeError, "`tol` must be one number"),
    ({"max_iter": np.ones(4, int)}, TypeError, "`max_iter` must be an integer"),
    ({"workers": 0}, ValueError, "`workers` must be"),
    ({"callback": 3}, TypeError, "`callback` must be callable"),
]


TABLE = POINTS + WEIGHTS + SCALES


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence], ids=lambda entry: entry.__name__)
@pytest.mark.parametrize(("changes", "error", "message"), TABLE, ids=[message[:40] for *_, message in TABLE])
def test_errors(changes: dict[str, Any], error: type[Exception], message: str, entry: Any) -> None:
    with pytest.raises(error, match=message):
        called(entry, {"x": X, "y": Y} | changes)


MATRICES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"C": put(C, nan, 2, 0, 0)}, ValueError, r"`C\[2\]` must not have NaN"),
    ({"C": np.where(np.arange(6)[:, None] == put(np.zeros((4, 1, 1)) - 1, 3, 2), inf, C)}, ValueError,
     r"`C\[2\]` must allow a pair in every row"),
    ({"C": [C[0], C[1, 0]]}, ValueError, r"`C\[1\]` must be an \(n, m\) matrix, got shape \(5,\)"),
    ({"C": C, "C_xx": np.ones((3, 6, 6))}, ValueError, r"as many matrices .*\(4,\) of `C`, \(3,\) of `C_xx`"),
    ({"C": C, "C_xx": np.ones((5, 5))}, ValueError, r"`C_xx\[0\]` must have shape \(6, 6\)"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "error", "message"), MATRICES, ids=[message[:30] for *_, message in MATRICES])
def test_errors_of_matrices(parts: dict[str, Any], error: type[Exception], message: str) -> None:
    def no_work(_: Any) -> None:
        pytest.fail("work began before the error")

    with pytest.raises(error, match=message):
        epsot.solve(epsot.CostMatrix(**parts), eps=0.1, callback=no_work)


def test_masses_of_parts_are_compared_as_in_a_single_call() -> None:
    """Two parts that exchange nothing, whose masses differ by a percent: no plan."""
    matrix = np.where(np.eye(2) > 0, 0.0, inf)
    geometry, a, b = epsot.CostMatrix(np.stack([np.zeros((2, 2)), matrix])), np.asarray([0.5, 0.5]), [0.505, 0.495]
    with pytest.raises(ValueError, match=r"`C\[1\]` must leave a plan"):
        epsot.solve(geometry, a, b, eps=0.1)
    with pytest.raises(ValueError, match="`C` must leave a plan"):
        epsot.solve(geometry.item(1), a, b, eps=0.1)


# Libraries


def to_numpy(array: Any) -> np.ndarray:
    return np.from_dlpack(array) if isinstance(array, type(strict.ones(1))) else np.asarray(array)


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
@pytest.mark.parametrize("make", [stacked, ragged], ids=lambda make: make.__name__)
@pytest.mark.parametrize("options", [{}, {"tol": None}, {"reach": 1.0}], ids=str)
def test_libraries(library: str, make: Any, options: dict[str, Any]) -> None:
    """What comes in as lists and arrays of a library goes out as such, with the numbers of NumPy."""
    xp = pytest.importorskip(library)
    given = make(np.random.default_rng(3)).together
    with pytest.importorskip("jax").enable_x64(True) if library == "jax.numpy" else warnings.catch_warnings():
        theirs = {
            name: [xp.asarray(item) for item in z] if isinstance(z, list) else xp.asarray(z)
            for name, z in given.items()
        }
        expected = called(epsot.sinkhorn_divergence, given, **options)
        result = called(epsot.sinkhorn_divergence, theirs, **options)
        kind = type(theirs["x"][0] if isinstance(theirs["x"], list) else theirs["x"])
        for name in ENDS:
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)
        for name in ARRAYS + NUMBERS[:1]:
            found, desired = getattr(result, name), getattr(expected, name)
            assert isinstance(found, list) == isinstance(desired, list)
            for one, other in zip(found, desired, strict=True) if isinstance(found, list) else [(found, desired)]:
                assert isinstance(one, kind), name
                close(to_numpy(one), other, 1e-8)


def test_a_blur_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    result = epsot.sinkhorn(X, Y, blur=torch.full((4,), 0.5))
    close(result.value, epsot.sinkhorn(X, Y, blur=0.5).value, 1e-12)


def test_lists_of_tensors_that_require_grad() -> None:
    """One warning, that names the arguments, of the caller; nothing is recorded."""
    torch = pytest.importorskip("torch")
    x = [torch.tensor(z, requires_grad=True) for z in XS]
    y = tuple(torch.tensor(z, requires_grad=k == 1) for k, z in enumerate(YS))
    with pytest.warns(UserWarning, match="`x` and `y` requires grad") as caught:
        result = epsot.sinkhorn_divergence(x, y, blur=0.5)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not result.value.requires_grad and not result.grad_x[1].requires_grad
    close(result.value, epsot.sinkhorn_divergence(XS, YS, blur=0.5).value, 1e-12)
    with torch.no_grad():
        epsot.sinkhorn_divergence(x, y, blur=0.5)


def test_mixed_libraries_in_a_list() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"`x\[1\]` is a torch Tensor"):
        epsot.sinkhorn(swap(XS, 1, torch.tensor(XS[1])), YS, blur=0.5)


# Pictures


@pytest.mark.parametrize(
    ("shape", "told"), [((32, 32, 3), True), ((2, 32, 32), True), ((32, 32), True), ((50, 3), False), ((6, 2), False)],
    ids=str,
)  # fmt: skip
def test_pictures(shape: tuple[int, ...], told: bool) -> None:
    """Bytes in the shape of a picture make a warning; the same floats, and colours as points, do not."""
    picture = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    epsot.sinkhorn(picture.astype(float), picture.astype(float) + 1, blur=200.0)
    if not told:
        epsot.sinkhorn(picture, picture, blur=200.0)
        return
    with pytest.warns(UserWarning, match=r"`x` of shape .* looks like a picture.*`x.reshape\(-1, \d+\)`") as caught:
        epsot.sinkhorn(picture, picture.astype(float), blur=200.0)
    assert len(caught) == 1 and caught[0].filename == __file__
    if len(shape) == 2:
        with pytest.warns(UserWarning, match="looks like a picture"):
            epsot.pairwise([picture, picture], blur=200.0)
