"""Arrays at the door: one library, one device, real and finite, never copied without need."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epsot.arrays import Place, as_points, as_real, check_finite, common_place, to_numpy
from epsot.libraries import Library

NUMPY = common_place()
ELSEWHERE = strict.Device("device1")


def test_lists_and_numbers_are_numpy_s() -> None:
    assert common_place(x=[[1.0]], a=None, b=3) == NUMPY
    assert NUMPY.xp is array_namespace(np.empty(0))
    assert common_place(x=np.ones(2), a=[1, 2], b=None) == NUMPY
    assert common_place(x=np.float64(1.0)) == NUMPY


def test_the_array_among_lists_decides() -> None:
    array = strict.asarray([1.0], device=ELSEWHERE)
    assert common_place(x=[1.0], y=array, a=None) == Place(array_namespace(array), ELSEWHERE)


def test_one_library() -> None:
    with pytest.raises(
        TypeError, match=r"one library.*`x` is a numpy ndarray.*`y` is a array_api_strict Array.*convert"
    ):
        common_place(x=np.ones(2), y=strict.ones(2))


def test_one_device() -> None:
    with pytest.raises(TypeError, match=r"one device.*`x` on .*CPU_DEVICE.*`y` on .*device1.*move"):
        common_place(x=strict.ones(2), y=strict.ones(2, device=ELSEWHERE))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_arrays_pass_untouched(dtype: Any) -> None:
    """No copy: large clouds are not doubled at the door."""
    array = np.ones((3, 2), dtype=dtype)
    assert np.shares_memory(as_real("x", array, NUMPY), array)
    view = np.ones((6, 4), dtype=dtype)[::-2, ::3]
    assert np.shares_memory(as_real("x", view, NUMPY), view)
    frozen = array.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(as_real("x", frozen, NUMPY), frozen)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", ">i4", ">f8", ">f4", "<f8"])
def test_promotion(dtype: str) -> None:
    """Integers and booleans become float64; a foreign byte order becomes the native one."""
    array = np.asarray([[0, 1], [1, 0]]).astype(dtype)
    real = as_real("x", array, NUMPY)
    assert real.dtype == (np.float32 if dtype == ">f4" else np.float64)
    assert real.dtype.isnative
    np.testing.assert_array_equal(real, array)


def test_subclasses_become_plain() -> None:
    class Tagged(np.ndarray):
        pass

    assert type(as_real("x", np.ones(3).view(Tagged), NUMPY)) is np.ndarray


@pytest.mark.parametrize("name", ["float32", "float64", "int64", "bool"])
def test_other_libraries(name: str) -> None:
    place = common_place(x=strict.ones(1, device=ELSEWHERE))
    array = strict.ones((2, 2), dtype=getattr(strict, name), device=ELSEWHERE)
    real = as_real("x", array, place)
    assert real.dtype == (strict.float32 if name == "float32" else strict.float64)
    assert real.device == ELSEWHERE
    from_list = as_real("x", [[1, 2], [3, 4]], place)
    assert from_list.dtype == strict.float64
    assert from_list.device == ELSEWHERE
    assert bool(strict.all(from_list == strict.asarray([[1.0, 2], [3, 4]], device=ELSEWHERE)))


def test_torch_on_the_cpu_is_seen_by_numpy() -> None:
    """The same memory; a place that knows where results go."""
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, requires_grad=True)
    place = common_place(x=tensor, a=[1])
    real = as_real("x", tensor, place)
    assert type(real) is np.ndarray
    assert real.ctypes.data == tensor.data_ptr()
    assert (place.xp, place.device) == NUMPY[:2]
    assert place.user.device == torch.device("cpu")
    given = place.handed_out(real)
    assert isinstance(given, torch.Tensor)
    assert given.data_ptr() != tensor.data_ptr()
    assert place.handed_out(np.float64(2.5), np.float32).dtype == torch.float32
    assert common_place(x=torch.ones(2, device="meta")).home is None


def test_jax_on_the_cpu_is_seen_by_numpy() -> None:
    jax = pytest.importorskip("jax")
    array = jax.numpy.ones(3)
    place = common_place(x=array)
    real = as_real("x", array, place)
    assert type(real) is np.ndarray
    assert real.ctypes.data == array.unsafe_buffer_pointer()
    given = place.handed_out(np.arange(3.0), np.float64)
    assert isinstance(given, jax.Array)
    assert given.device == array.device
    other = Library(jax.numpy, next(iter(given.devices()))).given(np.ones(2))
    assert other.device == array.device
    for again in (pickle.loads(pickle.dumps(place)), copy.deepcopy(place)):
        assert again == place


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_becomes_single(name: str) -> None:
    dtype = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    array = np.asarray([[0.1, 2.0], [3.0, -1e-3]]).astype(dtype)
    for real in (as_real("x", array, NUMPY), as_real("x", array.T, NUMPY).T):
        assert real.dtype == np.float32
        np.testing.assert_array_equal(real, array.astype(np.float32))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int4"])
def test_narrower_types_are_refused(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TypeError, match=f"`x` must be real, float32 or float64, got {name}"):
        as_real("x", np.ones(2, getattr(ml_dtypes, name)), NUMPY)


@pytest.mark.parametrize("kind", ["Float64", "Int64", "boolean", "float32", "mixed"])
def test_frames_of_numbers(kind: str) -> None:
    """Nullable columns are read where they hold numbers; what they lack is NaN."""
    pandas = pytest.importorskip("pandas")
    numbers = pandas.DataFrame({"u": [1, 0, 1], "v": [0, 0, 1]})
    if kind == "mixed":
        frame = numbers.assign(u=numbers.u.astype(bool))
    else:
        frame = numbers.astype(kind)
    for part in (frame, frame.u):
        np.testing.assert_array_equal(as_real("x", part, NUMPY), np.asarray(part, float))
    if kind in ("Float64", "Int64"):
        frame.loc[1, "v"] = pandas.NA
        np.testing.assert_array_equal(as_real("x", frame, NUMPY), [[1, 0], [0, np.nan], [1, 1]])
        with pytest.raises(ValueError, match="`x` must have finite coordinates, got 1 NaN"):
            as_points("x", frame, NUMPY)
    with pytest.raises(TypeError, match=r"`x` must be .*columns of other types.*`x.to_numpy\(float\)`"):
        as_real("x", frame.assign(u=["1", "2", "3"]), NUMPY)


@pytest.mark.parametrize("make", ["csr_array", "coo_matrix"])
def test_sparse_arrays_are_refused(make: str) -> None:
    sparse = __import__("scipy.sparse").sparse
    with pytest.raises(TypeError, match=r"`C` must be a dense array.*got a sparse one; pass `C.toarray\(\)`"):
        as_real("C", getattr(sparse, make)(np.eye(2)), NUMPY)


def test_lazy_arrays_are_refused() -> None:
    dask = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match=r"`x` is a Dask array.*pass `x.compute\(\)`"):
        common_place(x=dask.ones((3, 2)))
    with pytest.raises(TypeError, match="`a` is a Dask array"):
        NUMPY.admit("x", a=dask.ones(3))


def test_a_list_of_tensors() -> None:
    """NumPy's array of them, unless they require grad, which would be lost in silence."""
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_real("x", [torch.ones(2), torch.zeros(2)], NUMPY), [[1, 1], [0, 0]])
    with pytest.raises(TypeError, match=r"`x` must be an array of real numbers.*requires grad"):
        as_real("x", [torch.ones(2, requires_grad=True)], NUMPY)


def test_what_is_admitted() -> None:
    """Arrays of the library and the device that are there; lists follow."""
    NUMPY.admit("the plan", v=np.ones(2), w=[1, 2], z=None)
    with pytest.raises(TypeError, match=r"one library.*`v` is a array_api_strict Array, `the plan` is a numpy ndarray"):
        NUMPY.admit("the plan", v=strict.ones(2))
    place = common_place(x=strict.ones(1, device=ELSEWHERE))
    place.admit("the plan", v=strict.ones(2, device=ELSEWHERE))
    with pytest.raises(TypeError, match=r"one device.*`v` on .*CPU_DEVICE.*`the plan` on .*device1"):
        place.admit("the plan", v=strict.ones(2))


@pytest.mark.parametrize(
    "array",
    [
        np.ones(2, dtype=complex),
        np.ones(2, dtype=np.longdouble),
        np.ones(2, dtype=object),
        np.asarray(["1"]),
        np.asarray([b"1"]),
        np.zeros(1, dtype="M8[s]"),
        np.zeros(1, dtype=[("value", float)]),
        ["1", "2"],
        [None],
        None,
        [1j],
        object(),
        "12",
        {1.0},
        (number for number in range(3)),
        [2**80],
    ],
    ids=lambda array: f"{type(array).__name__}-{getattr(array, 'dtype', '')}",
)
def test_what_is_not_real(array: Any) -> None:
    if getattr(array, "dtype", None) == np.float64:
        pytest.skip("long double is float64 here")
    with pytest.raises(TypeError, match="`weights` must be"):
        as_real("weights", array, NUMPY)


def test_masked_arrays_are_refused() -> None:
    """Their mask would be lost in silence; masked matrices, too."""
    with pytest.raises(TypeError, match=r"`x` is a masked array.*weight zero"):
        as_real("x", np.ma.masked_array([1.0, 2.0], [False, True]), NUMPY)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite(bad: float) -> None:
    array = np.asarray([0.0, bad, 1.0, bad])
    with pytest.raises(ValueError, match="`a` must have finite weights, got 2 NaN or infinite entries; remove"):
        check_finite("a", array, "weights", NUMPY)
    check_finite("a", array[::2], "weights", NUMPY)
    check_finite("a", np.asarray([1.7e308, 5e-324, -0.0]), "weights", NUMPY)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, min_side=0), elements=st.floats(allow_nan=True)))
def test_points_are_two_dimensional_and_finite(array: np.ndarray) -> None:
    """Exactly the finite, non-empty (n, d) arrays pass, as they are."""
    if array.ndim == 2 and array.size and np.isfinite(array).all():
        assert as_points("x", array, NUMPY) is array
    else:
        with pytest.raises(ValueError, match="`x` must"):
            as_points("x", array, NUMPY)


@given(
    hnp.arrays(
        hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?") | hnp.boolean_dtypes(),
        hnp.array_shapes(max_dims=3, min_side=0),
    )
)
def test_integers_keep_their_values(array: np.ndarray) -> None:
    """As float64 has them."""
    real = as_real("x", array, NUMPY)
    assert real.dtype == np.float64
    np.testing.assert_array_equal(real, array.astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_to_numpy(dtype: str) -> None:
    numbers = [[1, 2], [3, 4]]
    array = np.asarray(numbers, dtype=dtype)
    assert to_numpy(array) is array
    for device in (None, ELSEWHERE):
        found = to_numpy(strict.asarray(numbers, dtype=getattr(strict, dtype), device=device))
        assert isinstance(found, np.ndarray)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, array)


def test_to_numpy_from_torch() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.asarray([1.0, 2.0], requires_grad=True)
    np.testing.assert_array_equal(to_numpy(tensor), [1.0, 2.0])
