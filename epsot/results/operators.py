"""Products with arrays as linear operators of the library that the arrays belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import is_cupy_array, is_numpy_array

from epsot.costs import Array


def linear_operator(
    like: Array,
    shape: tuple[int, int],
    dtype: Any,
    product: Callable[[Array], Array],
    transposed: Callable[[Array], Array],
) -> Any | None:
    """One of SciPy for NumPy's arrays, one of CuPy for its own; None where no library has any for such arrays.

    `product` takes one vector or some columns, and so does `transposed`.
    """
    if is_numpy_array(like):
        from scipy.sparse.linalg import LinearOperator
    elif is_cupy_array(like):
        from cupyx.scipy.sparse.linalg import LinearOperator
    else:
        return None
    return LinearOperator(
        shape=shape, matvec=product, rmatvec=transposed, matmat=product, rmatmat=transposed, dtype=dtype
    )
