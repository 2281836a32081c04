"""A cost given pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsot import kernels
from epsot.arrays import Place, as_real, common_place
from epsot.communicator import Communicator, Share
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.geometry.base import Geometry
from epsot.geometry.components import components
from epsot.kernels import Kernel
from epsot.lists import is_batch_of, rows_of

ROUNDING = 256  # units in the last place of the largest entry by which sums in another order may differ


@device_aware
class CostMatrix(Geometry):
    """A cost matrix of the user's own; +inf forbids a pair.

    Parameters
    ----------
    C : (n, m) array
        The cost of moving one unit of mass from i to j. ``+inf`` forbids the pair, NaN and ``-inf`` are refused. It is
        not copied: do not change it while results are in use. Leading axes, (..., n, m), or a list of matrices make
        many geometries, for `solve` and `divergence`; so they do of the other two.
    C_xx, C_yy : (n, n) and (m, m) arrays, optional
        The symmetric costs within each side, made exactly so where they are up to rounding of their dtype. Only
        `divergence` needs them.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is NaN or ``-inf``; by `solve` and `divergence`, if
        forbidden pairs leave no plan: balanced, where the rows and columns that allowed pairs connect differ in mass.
    TypeError
        If the matrices are not real or come from different libraries or devices.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> C = np.asarray([[0.0, 1.0, np.inf], [1.0, 0.0, 1.0]])
    >>> result = epsot.solve(epsot.CostMatrix(C), eps=0.1)
    >>> result.plan.to_dense().round(2)
    array([[0.33, 0.17, 0.  ],
           [0.  , 0.17, 0.33]])
    """

    stored_as = "matrix"

    def __new__(cls, C: Any = None, **parts: Any) -> Any:
        """Of a matrix with leading axes, or of a list of matrices, many geometries: a `CostMatrices`."""
        if cls is CostMatrix and is_batch_of(C, 2):
            return cls.many(C, **parts)
        return object.__new__(cls)

    def __init__(self, C: Any, *, C_xx: Any = None, C_yy: Any = None) -> None:
        self.place: Place = common_place(C=C, C_xx=C_xx, C_yy=C_yy)
        self.C = self._checked("C", C)
        n, m = self.C.shape
        self.C_xx = None if C_xx is None else self._checked("C_xx", C_xx, n)
        self.C_yy = None if C_yy is None else self._checked("C_yy", C_yy, m)
        self.shape: tuple[int, int] = (n, m)
        self.dtype = self.C.dtype

    def __repr__(self) -> str:
        return f"CostMatrix(shape={self.shape}, dtype={self.dtype})"

    def written(self) -> dict[str, Any]:
        return {"C": self.C, "C_xx": self.C_xx, "C_yy": self.C_yy}

    @classmethod
    def read(cls, parts: dict[str, Any], place: Place) -> CostMatrix:
        found = {name: None if (C := parts[name]) is None else place.received(C) for name in ("C", "C_xx", "C_yy")}
        return cls(found.pop("C"), **found)

    def _checked(self, name: str, matrix: Any, size: int | None = None) -> Array:
        """A cost matrix, (n, m), or (size, size) and symmetric; of the rows of a rank, with more columns."""
        xp = self.place.xp
        C = as_real(name, matrix, self.place)
        if C.ndim != 2 or C.shape[1] == 0:
            self._check_some(name, C)
        if size == 0 and C.shape[0]:
            self._check_some("C", self.C)
        if size is not None and not self._is_part(name, C, size):
            self._check_square(name, C, size)
        if bool(xp.any(xp.isnan(C))) or bool(xp.any(C == -xp.inf)):
            raise ValueError(f"`{name}` must not have NaN or -inf entries; use +inf to forbid a pair")
        return self._symmetric(name, C) if C.shape == (size, size) else C

    @staticmethod
    def _is_part(name: str, C: Array, size: int) -> bool:
        """Whether this may be the rows of a rank, of more columns than it has rows of `C`, or fewer than columns."""
        n, m = C.shape
        return bool(n == size < m if name == "C_xx" else n < m == size)

    @staticmethod
    def _check_some(name: str, C: Array) -> None:
        if C.ndim != 2 or 0 in C.shape:
            raise ValueError(f"`{name}` must be a non-empty (n, m) matrix, got shape {tuple(C.shape)}")

    @staticmethod
    def _check_square(name: str, C: Array, size: int) -> None:
        if C.shape != (size, size):
            raise ValueError(f"`{name}` must have shape {(size, size)}, to fit `C`, got {tuple(C.shape)}")

    def check_whole(self) -> None:
        self._check_some("C", self.C)
        for name, C, size in zip(("C_xx", "C_yy"), (self.C_xx, self.C_yy), self.shape, strict=True):
            if C is not None:
                self._check_square(name, C, size)

    def shares(self, comm: Communicator, a: Any, b: Any) -> tuple[Share, Share]:
        """A rank has its rows, and all columns: those of `C_yy`, or weights, say which it gets back."""
        n, m = self.shape
        if self.C_yy is not None:
            return comm.share(n), comm.share(self.C_yy.shape[0])
        return comm.share(n), comm.even(m) if b is None else comm.share(rows_of(b))

    def joined(self, first: Share, second: Share) -> CostMatrix:
        """The matrix of all ranks, of the rows of one, and the costs within the sides."""
        comm, parts = first.comm, (self.C_xx, self.C_yy)
        comm.check_equal(columns=self.shape[1], dtype=str(self.dtype), parts=[C is None for C in parts])
        C, shares = first.joined(self.C), (first, second)
        if C is self.C:
            return self
        for name, part, share in zip(("C_xx", "C_yy"), parts, shares, strict=True):
            if part is not None and part.shape[1] != share.total:
                shape = part.shape[0], share.total
                raise ValueError(f"`{name}` must have shape {shape}, the rows of this rank, got {tuple(part.shape)}")
        C_xx, C_yy = (None if z is None else share.joined(z) for z, share in zip(parts, shares, strict=True))
        return CostMatrix(C, C_xx=C_xx, C_yy=C_yy)

    def _symmetric(self, name: str, C: Array) -> Array:
        """The matrix, or where it is symmetric to rounding of its dtype, the mean of it and its transpose."""
        xp = self.place.xp
        equal = C == C.T
        if bool(xp.all(equal)):
            return C
        if not self._alike(C, C.T):
            raise ValueError(f"`{name}` must be symmetric; take the mean of it and its transpose")
        return xp.where(equal, C, C / 2 + C.T / 2)

    def _alike(self, C: Array, other: Array) -> bool:
        """Whether two matrices of one shape differ by no more than rounding, and forbid the same pairs."""
        xp = self.place.xp
        equal = C == other
        if bool(xp.all(equal)):
            return True
        zeros = xp.zeros_like(C)
        difference = xp.abs(xp.where(equal, zeros, C) - xp.where(equal, zeros, other))  # inf where one forbids
        largest = xp.max(xp.where(xp.isfinite(C), xp.abs(C), zeros))
        return float(xp.max(difference)) <= ROUNDING * float(xp.finfo(C.dtype).eps) * float(largest)

    def scale(self) -> float:
        """The temperature at which annealing starts: the range of the finite costs."""
        if 0 in self.shape:
            return 0.0
        xp = self.place.xp
        finite = xp.isfinite(self.C)
        low = xp.min(xp.where(finite, self.C, xp.asarray(xp.inf, dtype=self.dtype, device=self.place.device)))
        high = xp.max(xp.where(finite, self.C, xp.asarray(-xp.inf, dtype=self.dtype, device=self.place.device)))
        return max(0.0, float(high) - float(low))  # inf where the range overflows, which is refused; 0 of nothing

    def rounded(self) -> float:
        """The size of the costs that the kernels round to their dtype."""
        if 0 in self.shape:
            return 0.0
        xp = self.place.xp
        return float(xp.max(xp.where(xp.isfinite(self.C), xp.abs(self.C), xp.zeros_like(self.C))))

    def forbids(self) -> bool:
        """Whether there are forbidden pairs."""
        xp = self.place.xp
        return bool(xp.any(xp.isinf(self.C)))

    def kernel(self, workers: int | None = None) -> Kernel:
        """The reductions over all pairs."""
        kernel: Kernel = kernels.matrix(self.C, workers)
        return kernel

    def take(self, rows: Array | None, columns: Array | None) -> CostMatrix:
        """The geometry of some rows and columns, given by index arrays; None takes all."""
        C, C_xx, C_yy = self.C, self.C_xx, self.C_yy
        take = self.place.xp.take
        if rows is not None:
            C = take(C, rows, axis=0)
            C_xx = None if C_xx is None else take(take(C_xx, rows, axis=0), rows, axis=1)
        if columns is not None:
            C = take(C, columns, axis=1)
            C_yy = None if C_yy is None else take(take(C_yy, columns, axis=0), columns, axis=1)
        return self._derived(C, C_xx, C_yy)

    @property
    def T(self) -> CostMatrix:
        return self._derived(self.C.T, self.C_yy, self.C_xx)

    def _derived(self, C: Array, C_xx: Array | None, C_yy: Array | None) -> CostMatrix:
        """A geometry of parts that are checked already."""
        new = object.__new__(CostMatrix)
        new.place, new.dtype, new.shape = self.place, self.dtype, (C.shape[0], C.shape[1])
        new.C, new.C_xx, new.C_yy = C, C_xx, C_yy
        return new

    def source(self) -> CostMatrix:
        """The cost of the first side with itself, for the debiasing term."""
        if self.C_xx is None or self.C_yy is None:
            raise ValueError("a divergence needs the costs within each side; pass `C_xx` and `C_yy` to CostMatrix")
        return self._derived(self.C_xx, self.C_xx, self.C_xx)

    def alone(self) -> tuple[Array | None, Array | None]:
        """Masks of the rows and of the columns without an allowed pair; None: there are none."""
        xp = self.place.xp
        finite = xp.isfinite(self.C)
        rows, columns = (~xp.any(finite, axis=axis) for axis in (1, 0))
        return rows if bool(xp.any(rows)) else None, columns if bool(xp.any(columns)) else None

    def components(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels of the rows and the columns, equal where allowed pairs connect them; None: all are one."""
        return components(self.C, self.place.xp) if self.forbids() else None

    def is_self(self) -> bool:
        """Whether the two sides are one: then the divergence of equal weights is zero."""
        return (
            self.C_xx is not None
            and self.C_yy is not None
            and self.C.shape == self.C_xx.shape == self.C_yy.shape
            and self._alike(self.C, self.C_xx)
            and self._alike(self.C, self.C_yy)
        )
