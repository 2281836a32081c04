"""What a cost structure says of itself. Nothing above asks which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epsot.arrays import Place
from epsot.communicator import Communicator, Share
from epsot.costs import Array
from epsot.kernels import Kernel
from epsot.lazy import Lean

if TYPE_CHECKING:
    from epsot.geometry.resolutions import Resolutions
    from epsot.geometry.tangents import Tangents

SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # half a unit in the last place of 1
BLOCK_ELEMENTS = 2**20  # pairs whose costs are held at once


class Written:
    """What a file can hold of a geometry, or of many.

    A structure that can be saved has a name in files, `stored_as`, gives its parts by `written`, and is made of them
    again by `read`. A subclass has a name of its own or none: its parts may be more than those of its parent.
    """

    stored_as: ClassVar[str | None] = None
    known: ClassVar[dict[str, Any]] = {}  # the classes of all names

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        name = vars(cls).get("stored_as")
        if name is None:
            cls.stored_as = None
            return
        other = Written.known.setdefault(name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{other.__module__}.{other.__qualname__} is stored as {name!r} already")
        Written.known[name] = cls

    def written(self) -> dict[str, Any]:
        """The parts of which `read` makes it again: arrays, numbers, texts, None, lists and dictionaries of these."""
        raise TypeError(
            f"a {type(self).__name__} cannot be saved, for it has no `stored_as`, `written` and `read`; keep `f` and "
            "`g`, and solve again with `init=(f, g)`, or pickle the result"
        )

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> Any:
        """Of parts, arrays of any library, which may be damaged: ValueError where they do not fit."""
        raise TypeError(f"a {cls.__name__} is not read from files")


def parts_of(geometry: Written) -> dict[str, Any]:
    """What a file holds of a geometry, with its name; TypeError where it has none."""
    parts = geometry.written() if geometry.stored_as is not None else Written.written(geometry)
    return {"stored_as": geometry.stored_as, **parts}


def of_parts(parts: dict[str, Any], place: Place) -> Any:
    """The geometry that a file holds, in the library of a place."""
    name = parts["stored_as"]
    if name not in Written.known:
        raise ValueError(f"the geometry {name!r} is not known; import the module that defines it")
    return Written.known[name].read(parts, place)


class Geometry(Written, Lean, ABC):
    """The cost between two sets of points, or of whatever else carries mass. It stores no temperature.

    A structure of its own defines the five abstract members. The others have answers that hold of a cost that is known
    pair by pair, has no points to differentiate in, and cannot leave any row or column out.

    Attributes
    ----------
    place : Place
        The library and the device of the arrays.
    dtype : dtype
        Of what is handed out: float32 or float64.
    shape : (int, int)
        The sizes n and m of the two sides.
    """

    many: ClassVar[Any] = None  # the class of many of them, where there is one: `batches` names it
    place: Place
    dtype: Any
    shape: tuple[int, int]

    @abstractmethod
    def kernel(self, workers: int | None = None) -> Kernel:
        """The reductions over all pairs."""

    @property
    @abstractmethod
    def T(self) -> Geometry:
        """The same cost seen from the other side."""

    @abstractmethod
    def source(self) -> Geometry:
        """The cost of the first side with itself, for the debiasing term; ValueError where it is not known."""

    @abstractmethod
    def scale(self) -> float:
        """The temperature at which annealing starts: the range of the costs, or a bound."""

    @abstractmethod
    def is_self(self) -> bool:
        """Whether the two sides are one: then the divergence of equal weights is zero."""

    @property
    def supports(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of weights and potentials as the user has them: those of grids, else (n,) and (m,)."""
        return (self.shape[0],), (self.shape[1],)

    def suited(self, a: Any, b: Any) -> Geometry:
        """The geometry where such weights of the user are: another where it has no arrays of its own to say where."""
        return self

    def shares(self, comm: Communicator, a: Any, b: Any) -> tuple[Share, Share]:
        """Which of the rows of all ranks are those of this geometry, made of the blocks of one of them.

        Of a side that every rank has whole, weights say so; else it is shared out evenly.
        """
        return comm.share(self.shape[0]), comm.share(self.shape[1])

    def joined(self, first: Share, second: Share) -> Geometry:
        """The geometry of all ranks."""
        if first.comm.size > 1:
            raise TypeError(
                f"a {type(self).__name__} cannot be joined from the blocks of several ranks; use PointCloud or "
                "CostMatrix, or leave out `comm`"
            )
        return self

    def part(self, rows: slice) -> Geometry:
        """The cost between some of the points of the first side and all of the second."""
        n = self.shape[0]
        found = self.take(self.place.xp.arange(n)[rows], None)
        assert found is not None  # all that can be joined can be taken apart
        return found

    def check_whole(self) -> None:
        """Raise where it can be no more than the part of a rank: a side without points, costs of some rows."""

    @property
    def degree(self) -> float:
        """eps = factor length^degree: by its power the temperature falls when lengths do."""
        return 1.0

    @property
    def precision(self) -> float:
        """Of the arithmetic of the kernels: half a unit in the last place of 1."""
        return DOUBLE

    def rounded(self) -> float:
        """The size of the largest terms of a cost that the kernels round; 0 where they round the cost alone."""
        return 0.0

    def embeds(self) -> bool:
        """Whether the kernels compute between other points than the user's, which are rounded to their dtype."""
        return False

    def in_float64(self) -> Geometry:
        """The same costs, with kernels that compute in float64."""
        return self

    def in_float32(self) -> Geometry:
        """Nearly the same costs, with kernels that compute in float32, where these are faster; else this geometry."""
        return self

    def split(self) -> tuple[Geometry, Array, Array] | None:
        """A geometry of smaller costs C' and u, v with C[i, j] = C'[i, j] + u[i] + v[j]; None where none is known."""
        return None

    def take(self, rows: Array | None, columns: Array | None) -> Geometry | None:
        """The geometry of some rows and columns, by index arrays (None: all); None where none can be left out."""
        return None

    def scattered(self, rows: Array | None, columns: Array | None) -> Geometry | None:
        """What `take` is, where pairs are few and may be visited one by one: of sides without mass, of other points."""
        return self.take(rows, columns)

    def source_kernel(self, kernel: Any) -> Kernel:
        """The kernel of `source()`, which may share what the kernel of this geometry has prepared."""
        return self.source().kernel(kernel.workers)

    def rows_kernel(self, kernel: Any) -> Kernel:
        """The kernel of these rows, which may share what a kernel with the same columns has prepared."""
        return self.kernel(kernel.workers)

    def alone(self) -> tuple[Array | None, Array | None]:
        """Masks of the rows and columns without an allowed pair (None: there are none): all, of an empty other side."""
        xp, (n, m) = self.place.xp, self.shape
        if n and m:
            return None, None
        rows, columns = (xp.ones(size, dtype=xp.bool, device=self.place.device) for size in (n, m))
        return rows if n else None, columns if m else None

    def forbids(self) -> bool:
        """Whether there are forbidden pairs, of a cost of +inf."""
        return False

    def components(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels of the rows and the columns, equal where allowed pairs connect them; None: all are one."""
        return None

    def same_sides(self, past: Geometry) -> tuple[bool, bool]:
        """Of which sides potentials of another geometry are potentials of this one; ValueError if they do not fit."""
        if past.shape != self.shape:
            raise ValueError(f"`init` must have shape {self.shape}, as the problem, got {past.shape}")
        return True, True

    def resolutions(self, a: Array, b: Array, *, own: bool = False) -> Resolutions | None:
        """Coarser geometries for weights (n,) and (m,), of which `own` says that they are one; None: there are none."""
        return None

    def blur(self, eps: float) -> float | None:
        """The length that a temperature is the power of, where the user's name for it is `blur`."""
        return None

    @property
    def points(self) -> tuple[Array, Array] | None:
        """The points of both sides, (n, d) and (m, d); None where there are none."""
        return None

    @property
    def nodes(self) -> tuple[Any, Any] | None:
        """The points of both sides as `at` takes them; None where there are none."""
        return self.points

    def taken(self, points: Any, *, some: bool = True) -> Any:
        """Other points of the user, (r, d), checked; or of a grid, where the geometry takes one for its nodes."""
        raise TypeError(f"a {type(self).__name__} has no points, so that potentials and maps do not extend; "
                        "use PointCloud")  # fmt: skip

    def at(self, points: Any) -> Geometry:
        """The cost between other points, (r, d), and those of the second side."""
        raise TypeError(f"a {type(self).__name__} has no points")

    def across(self, kernel: Any, other: Any) -> Kernel:
        """The kernel of the first points of another kernel with the second ones of a kernel of this geometry."""
        raise TypeError(f"a {type(self).__name__} has no points")

    def cost_gradient(self, kernel: Any, k: Array, h: Array, eps: float) -> Array:
        """sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_1 C(x[i], y[j]), in the points of the user.  -> (n, d)"""
        raise TypeError(f"a {type(self).__name__} has no points to differentiate in; use PointCloud, or `plan`: "
                        "dOT / dC = P")  # fmt: skip

    def tangents(self, kernel: Any, k: Array, h: Array, eps: float, guess: Array | None = None) -> Tangents:
        """What becomes of the sums of P[i, j] = exp(k[i] + h[j] - C[i, j] / eps) as points move.

        `guess`: of softmin(h, eps), as a kernel takes it.
        """
        raise TypeError(f"a {type(self).__name__} has no points to differentiate in; use PointCloud, or the blocks of "
                        "`a` and `b`")  # fmt: skip

    def transported(self, kernel: Any, k: Array, h: Array, eps: float) -> Array:
        """<P, C> of P[i, j] = exp(k[i] + h[j] - C[i, j] / eps), 0-d: over all pairs, in blocks of rows."""
        (n, m), xp, parts = self.shape, self.place.xp, []
        step = max(1, BLOCK_ELEMENTS // max(1, m))
        for start in range(0, n if m else 0, step):
            rows = slice(start, min(start + step, n))
            P, C = kernel.plan_rows(rows, k, h, eps), kernel.cost_rows(rows)
            parts.append(xp.sum(P * xp.where(P > 0, C, xp.zeros_like(C))))  # nothing moves at a cost of +inf
        zero = xp.asarray(0.0, dtype=xp.float64, device=self.place.device)
        return xp.sum(xp.stack(parts)) if parts else zero
