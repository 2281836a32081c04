"""A regular lattice that stands for its nodes without storing them, and what the two sides of a problem may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.arrays import Place, as_count, as_number, as_positive, as_real, common_place
from epsot.communicator import Communicator, Share, as_shared
from epsot.costs import Array
from epsot.lists import is_batch_of, is_ragged, rows_of

Number = TypeVar("Number")
Shape = tuple[int, ...]
Periods = tuple[float | None, ...]

LARGEST = 2**31  # nodes: what vectors of them should not exceed
ONE_PERIOD = 1e-9  # relative: numbers of nodes times their spacing, that differ by so little, are one


@dataclass(frozen=True, init=False)
class Grid:
    """A regular lattice of points, such as the pixels of an image, that does not store them.

    A grid stands wherever a cloud of points may. Weights and potentials have its shape, gradients and displacements
    one axis more, for the coordinates. Between two grids, squared distances and ``cost="cityblock"`` are sums over the
    axes, and a sweep over all pairs takes little more time than one over the nodes; whatever else meets a grid goes
    through its `points`.

    Parameters
    ----------
    shape : int or tuple of int
        The number of nodes along each axis.
    spacing : float or sequence of float, optional
        The distance between neighbours, one or one for each axis, positive.
    origin : float or sequence of float, optional
        The first node, one coordinate or one for each axis.
    periodic : bool or sequence of bool, optional
        Whether an axis closes: n nodes then have the period ``n * spacing``, and the cost is that of the nearest image.

    Attributes
    ----------
    shape : tuple of int
    spacing, origin : tuple of float
    periodic : tuple of bool
    points : (n, d) array
        All nodes, the last axis fastest, as ``weights.ravel()`` goes.

    Raises
    ------
    ValueError
        For an axis without nodes, a spacing that is not positive, or not one value for each axis.
    TypeError
        For anything but numbers.

    See Also
    --------
    PointCloud : Points that are listed.

    Notes
    -----
    Axis 0 of the weights is axis 0 of the coordinates. The library, the device and the dtype of a problem between two
    grids are those of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> pixels = epsot.Grid((32, 48), spacing=1 / 48)
    >>> pixels.points.shape
    (1536, 2)
    >>> image = np.zeros((32, 48))
    >>> image[8:12, 6:20] = 1 / 56
    >>> moved = np.roll(image, (10, 20), axis=(0, 1))
    >>> result = epsot.sinkhorn_divergence(pixels, pixels, image, moved, blur=1 / 48)
    >>> result.displacement[10, 10].round(3)
    array([0.208, 0.417])
    """

    shape: Shape
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    periodic: tuple[bool, ...]

    def __init__(self, shape: Any, *, spacing: Any = 1.0, origin: Any = 0.0, periodic: Any = False) -> None:
        sizes = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
        if not sizes:
            raise ValueError("`shape` must have at least one axis, got ()")
        counts = tuple(as_count("shape", size, 1) for size in sizes)
        if math.prod(counts) > LARGEST:
            raise ValueError(f"`shape` must hold at most {LARGEST} nodes, got {counts}")
        one_each: dict[str, tuple[Any, ...]] = {
            "shape": counts,
            "spacing": each("spacing", spacing, len(counts), as_positive),
            "origin": each("origin", origin, len(counts), as_coordinate),
            "periodic": each("periodic", periodic, len(counts), as_flag),
        }
        for name, values in one_each.items():
            object.__setattr__(self, name, values)

    @property
    def size(self) -> int:
        """The number of nodes."""
        return math.prod(self.shape)

    @property
    def dimension(self) -> int:
        """The number of coordinates of a node."""
        return len(self.shape)

    @property
    def periods(self) -> Periods:
        """The length after which an axis closes, for each; None where it does not."""
        sides = zip(self.shape, self.spacing, self.periodic, strict=True)
        return tuple(n * step if closed else None for n, step, closed in sides)

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """The coordinates along each axis: ``numpy.meshgrid(*grid.axes, indexing="ij")`` has those of all nodes."""
        sides = zip(self.shape, self.spacing, self.origin, strict=True)
        return tuple(first + step * np.arange(n) for n, step, first in sides)

    @property
    def points(self) -> np.ndarray:
        """All nodes, (n, d) in float64: the last axis runs fastest, as in ``weights.ravel()``."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, self.dimension)

    def share(self, comm: Communicator, weights: Any) -> Share:
        """The nodes of a rank that has such weights, rows of axis 0; without weights they are shared out evenly."""
        inner, given = math.prod(self.shape[1:]), weights is not None
        rows = comm.share(rows_of(weights)) if given else comm.even(self.shape[0])
        if comm.size > 1 and rows.total != self.shape[0]:
            raise as_shared(
                ValueError(f"weights must have {self.shape[0]} rows of a grid of shape {self.shape} on all ranks "
                           f"together, got {rows.counts}")
            )  # fmt: skip
        return Share(comm, tuple(count * inner for count in rows.counts))

    def rows(self, nodes: slice) -> Grid:
        """The part of some of the nodes, which are rows of axis 0."""
        inner = math.prod(self.shape[1:])
        begin, end = nodes.start // inner, nodes.stop // inner
        first = self.origin[0] + self.spacing[0] * begin
        shape = (end - begin, *self.shape[1:])
        new = object.__new__(Grid)  # without rows it is none that a user may make
        vars(new).update(
            shape=shape, spacing=self.spacing, origin=(first, *self.origin[1:]), periodic=(False, *self.periodic[1:])
        )
        return new

    def points_in(self, place: Place, dtype: Any) -> Array:
        """All nodes as an array of a library.  -> (n, d)"""
        xp = place.xp
        return xp.astype(xp.asarray(self.points, device=place.device), dtype)


def grid_parts(grid: Grid | None) -> dict[str, Any] | None:
    """What a file holds of a grid."""
    if grid is None:
        return None
    return {
        "shape": list(grid.shape), "spacing": list(grid.spacing), "origin": list(grid.origin),
        "periodic": list(grid.periodic),
    }  # fmt: skip


def grid_of(parts: dict[str, Any] | None) -> Grid | None:
    """The grid of a file, checked as one of the user."""
    if parts is None:
        return None
    return Grid(parts["shape"], spacing=parts["spacing"], origin=parts["origin"], periodic=parts["periodic"])


def each(name: str, given: Any, count: int, checked: Callable[[str, Any], Number]) -> tuple[Number, ...]:
    """One value for each axis, of one for all or of as many as there are."""
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__") or getattr(given, "ndim", 1) == 0:
        return (checked(name, given),) * count
    values = tuple(given)
    if len(values) != count:
        raise ValueError(f"`{name}` must be one value or one for each of the {count} axes, got {len(values)}")
    return tuple(checked(name, value) for value in values)


def as_coordinate(name: str, value: Any) -> float:
    number = as_number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite, got {value!r}")
    return number


def as_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False for each axis, got {value!r}")
    return bool(value)


def axes_of_weights(support: Any) -> int:
    """How many axes the weights of one measure have over such points."""
    return support.dimension if isinstance(support, Grid) else 1


def common_periods(*grids: Grid | None) -> Periods:
    """The lengths after which axes close; an error where one closes for a grid, and not, or later, for another."""
    some = [grid for grid in grids if grid is not None]
    if not some:
        return ()
    x, y = some[0], some[-1]
    check_dimensions(x.dimension, y.dimension)
    for number, (one, other) in enumerate(zip(x.periods, y.periods, strict=True)):
        if (one is None) != (other is None) or (one and other and abs(one - other) > ONE_PERIOD * one):
            raise ValueError(
                f"two grids must have equal periods, which are the numbers of nodes times `spacing` where `periodic`, "
                f"got {one} and {other} along axis {number}"
            )
    return x.periods


def check_dimensions(x: int, y: int) -> None:
    if x != y:
        raise ValueError(f"`x` and `y` must have points of the same dimension, got {x} and {y}")


def without_grids(**given: Any) -> dict[str, Any]:
    """The arguments that are no grids: those that say where a problem is."""
    return {name: z for name, z in given.items() if not isinstance(z, Grid)}


def are_many(points: Any) -> bool:
    """Whether an argument stands for many clouds: by leading axes, or as a list."""
    if isinstance(points, list | tuple) and any(issubclass(kind, Grid) for kind in set(map(type, points))):
        raise TypeError("a list of grids is no batch; many images over one Grid are weights with leading axes")
    return not isinstance(points, Grid) and is_batch_of(points, 2)


def support_of(points: Any) -> Shape:
    """The shape of one number for each point, of an array or of a grid."""
    return points.shape if isinstance(points, Grid) else (points.shape[0],)


def points_of(points: Any, place: Place) -> Array:
    """The points themselves.  -> (r, d)"""
    return points.points_in(place, place.xp.float64) if isinstance(points, Grid) else points


def home_of(**weights: Any) -> tuple[Place, Any]:
    """The place and the dtype of what is computed over grids: those of the weights, float64 where there are none."""
    listed: dict[str, Any] = {}
    for name, given in weights.items():
        listed |= {f"{name}[{k}]": item for k, item in enumerate(given)} if is_ragged(given) else {name: given}
    place = common_place(**listed)
    arrays = [as_real(name, item, place) for name, item in listed.items() if is_array_api_obj(item)]
    return place, place.xp.result_type(*(array.dtype for array in arrays)) if arrays else place.xp.float64
