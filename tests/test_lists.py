"""Lists of arrays: what is found of all items at once is what is found of each."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

import epsot
from epsot.arrays import as_points, common_place
from epsot.lists import Listed, is_batch_of, named

RNG = np.random.default_rng(0)
PLAIN = [RNG.random((n, 2)).astype(dtype) for n, dtype in ((3, "float32"), (1, "float64"), (4, "float32"))]
SWAPPED = [PLAIN[0], PLAIN[1].astype(">f8")]
COUNTS = [np.arange(6).reshape(3, 2), PLAIN[1]]
ROWS = [[[0.0, 1.0]], PLAIN[1]]
MASKED = [np.ma.masked_array(PLAIN[0]), PLAIN[1]]
STRICT = [array_api_strict.asarray(z) for z in PLAIN]


@pytest.mark.parametrize(
    "items", [PLAIN, SWAPPED, COUNTS, ROWS, STRICT], ids=["plain", "swapped", "counts", "rows", "strict"]
)
def test_all_at_once_is_one_by_one(items: list[Any]) -> None:
    place = common_place(**named(x=items))
    found, sizes = Listed("x", items).points(place)
    assert sizes.tolist() == [len(np.asarray(item)) for item in items]
    for array, item in zip(found, items, strict=True):
        wanted = as_points("x", item, place)
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(np.asarray(array), np.asarray(wanted))
    assert is_batch_of(items, 2)
    assert not is_batch_of(items, 3)


@pytest.mark.parametrize(
    ("items", "kind", "words"),
    [
        ([*PLAIN, np.zeros(3)], ValueError, r"`x\[3\]` must be an \(n, d\) array"),
        ([*PLAIN, np.zeros((0, 2))], ValueError, r"`x\[3\]` must hold at least one point"),
        (
            [*PLAIN, np.zeros((4, 3))],
            ValueError,
            r"`x\[3\]` must have points of the dimension of `x\[0\]`, got 3",
        ),
        ([*PLAIN, np.zeros((4, 2), complex)], TypeError, r"`x\[3\]` must be real"),
        (MASKED, TypeError, r"`x\[0\]` is a masked array"),
    ],
    ids=["one axis", "no points", "three coordinates", "complex", "masked"],
)
def test_an_error_names_the_item(items: list[Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        Listed("x", items).points(common_place(x=PLAIN[0]))


def test_libraries_that_are_mixed_are_named() -> None:
    with pytest.raises(TypeError, match=r"`x\[0\]` is a numpy ndarray, `x\[1\]` is a array_api_strict"):
        common_place(**named(x=[PLAIN[0], STRICT[1]]))


def test_potentials_of_a_list_are_vectors() -> None:
    clouds = [z.astype(float) for z in PLAIN]
    f = [np.zeros((len(z), 1)) for z in clouds]
    with pytest.raises(ValueError, match=r"`init\[0\]\[0\]` must be a vector of potentials, got shape \(3, 1\)"):
        epsot.sinkhorn(clouds, clouds, blur=0.5, init=(f, f))
