"""What arrays of the libraries around NumPy need at the door: PyTorch and JAX, SciPy's sparse arrays, pandas, Dask.

PyTorch tensors and JAX arrays on the CPU are worked on by a view: for the kernels they are NumPy arrays, and what is
handed out goes back to the library they came from.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_dask_array,
    is_jax_array,
    is_pydata_sparse_array,
    is_torch_array,
)

Array = Any  # an array of any namespace that follows the array API standard


class Library(NamedTuple):
    """A library that the user's arrays came from, and the device they are on."""

    xp: Any  # the namespace, made compatible by array-api-compat
    device: Any

    def __reduce__(self) -> tuple[Any, ...]:
        """Modules travel by name, devices of JAX by number."""
        return _library, (self.xp.__name__, getattr(self.device, "id", self.device))

    def given(self, array: np.ndarray) -> Array:
        """A NumPy array as one of this library. PyTorch shares the memory."""
        if self.xp.__name__ == "jax.numpy":
            given = self.xp.asarray(array)  # on the default device, in half the time of device_put
            return given if given.device == self.device else import_module("jax").device_put(array, self.device)
        return self.xp.from_numpy(np.asarray(array))


def _library(name: str, device: Any) -> Library:
    if name == "jax.numpy":
        jax = import_module("jax")
        device = next((found for found in jax.local_devices(backend="cpu") if found.id == device), None)
    return Library(import_module(name), device)


def library_of(name: str, array: Array) -> Library:
    """The library and the device of an array, unless its numbers cannot be read."""
    if is_jax_array(array):
        jax = import_module("jax")
        if isinstance(array, jax.core.Tracer):
            raise TypeError(
                f"`{name}` is a JAX tracer, which has no numbers: epsot computes at once, not under jax.jit, "
                "jax.grad or jax.vmap; call it outside, or by jax.pure_callback with the gradients of the result"
            )
        where = min(array.devices(), key=lambda found: found.id)
        if where.platform != "cpu" and str(jax.numpy.result_type(float)) != "float64":
            raise TypeError(f'`{name}` is on {where}, where epsot needs `jax.config.update("jax_enable_x64", True)`')
        return Library(array_namespace(array), where)
    if is_dask_array(array):
        raise TypeError(f"`{name}` is a Dask array, which has no numbers yet; pass `{name}.compute()`")
    if is_pydata_sparse_array(array):
        raise TypeError(f"`{name}` is a sparse array, which is not supported; pass `{name}.todense()`")
    if is_torch_array(array) and str(array.layout) != "torch.strided":
        raise TypeError(f"`{name}` is a sparse tensor, which is not supported; pass `{name}.to_dense()`")
    return Library(array_namespace(array), device(array))


def works_by_view(library: Library) -> bool:
    """Whether NumPy sees the arrays of this library where they are."""
    match library.xp.__name__:
        case "array_api_compat.torch":
            return bool(library.device.type == "cpu")
        case "jax.numpy":
            return bool(library.device.platform == "cpu")
    return False


def view(name: str, array: Array) -> np.ndarray:
    """A PyTorch tensor or a JAX array on the CPU as a NumPy array over the same memory."""
    if not is_torch_array(array):
        return np.asarray(array)
    tensor = array.detach()  # gradients come from formulas: nothing is recorded
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none
        tensor = tensor.float()
    try:
        viewed: np.ndarray = tensor.numpy(force=True)
    except TypeError:
        raise TypeError(f"`{name}` must be real, float32 or float64, got {tensor.dtype}; convert it first") from None
    except RuntimeError:
        raise TypeError(
            f"`{name}` is a tensor without numbers of its own, as within torch.func; call epsot outside"
        ) from None
    return viewed


def is_sparse(array: Any) -> bool:
    """Whether this is a sparse array or matrix of SciPy or CuPy, which both need not be loaded."""
    return type(array).__module__.startswith(("scipy.sparse", "cupyx.scipy.sparse"))


def as_numpy(name: str, array: Any) -> np.ndarray:
    """Lists, numbers, frames and whatever else NumPy makes an array of; objects only if surely numbers."""
    if array is None:
        raise TypeError(f"`{name}` must be an array of real numbers, got None")
    if is_sparse(array):
        raise TypeError(f"`{name}` must be a dense array of real numbers, got a sparse one; pass `{name}.toarray()`")
    try:
        dense = np.asarray(array)
    except ValueError as error:
        cure = "; where lengths differ, pass a list of arrays" if "inhomogeneous" in str(error) else ""
        raise ValueError(f"`{name}` must be an array of numbers: {error}{cure}") from None
    except RuntimeError as error:  # a list of tensors that require grad, for one
        raise TypeError(f"`{name}` must be an array of real numbers: {error}") from None
    if dense.dtype == object and hasattr(array, "to_numpy"):
        dense = numbers_of_frame(name, array)
    if dense.dtype == object or dense.dtype.kind in "SUMm":
        raise TypeError(f"`{name}` must be an array of real numbers, got {dense.dtype}")
    return dense


def numbers_of_frame(name: str, frame: Any) -> np.ndarray:
    """Columns of pandas that may lack values, which become NaN."""
    types = getattr(frame, "dtypes", None)
    types = [frame.dtype] if types is None else list(np.atleast_1d(np.asarray(types, dtype=object)))
    if not all(getattr(dtype, "kind", "O") in "biuf" for dtype in types):
        raise TypeError(
            f"`{name}` must be an array of real numbers, got columns of other types; choose those of numbers, "
            f"and pass `{name}.to_numpy(float)`"
        )
    found: np.ndarray = frame.to_numpy(dtype=float)
    return found
