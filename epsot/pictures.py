"""What looks like a picture where points are expected, of which its rows would be taken for clouds."""

from __future__ import annotations

from typing import Any

from epsot.lists import Listed
from epsot.status import warn

BYTES, LEAST_PICTURE = ("uint8", "uint16", "bool"), 16  # data types of pictures, and pixels of a side


def may_be_bytes(dtype: Any) -> bool:
    """Whether a data type is that of pictures, by its size alone: a name takes microseconds to make."""
    return bool(getattr(dtype, "itemsize", 1) <= 2)


def is_picture(array: Any) -> bool:
    """Whether this is an array of bytes of the shape of a picture, or of many."""
    dtype = getattr(array, "dtype", "")
    if not may_be_bytes(dtype):
        return False
    if str(dtype).rpartition(".")[2] not in BYTES or array.ndim < 2:
        return False
    shape = tuple(array.shape)
    *_, height, width = shape[:-1] if array.ndim > 2 and shape[-1] <= 4 else shape
    return bool(min(height, width) >= LEAST_PICTURE)


def first_picture(given: Any) -> Any:
    """The picture that was given, or the first one of a list; None where there is none."""
    if not isinstance(given, list | tuple):
        return given if is_picture(given) else None
    return next(filter(is_picture, given), None) if any(map(may_be_bytes, Listed("", given).dtypes())) else None


def warn_of_pictures(**points: Any) -> None:
    """Say what to write where points look like a picture: its rows would be taken for clouds."""
    for name, given in points.items():
        array = first_picture(given)
        if array is not None:
            warn(
                f"`{name}` of shape {tuple(array.shape)} and dtype {array.dtype} looks like a picture, but is taken "
                "for points, one a row of its last axis: the colours as one cloud are "
                f"`{name}.reshape(-1, {array.shape[-1]})`, the brightness is the weights of pixels over their "
                "positions; pass floats to say that these are coordinates",
                UserWarning,
            )
