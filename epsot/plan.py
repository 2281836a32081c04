"""The transport plan P[i, j] = exp(k[i] + h[j] - C[i, j] / eps) as an operator: never stored unless asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from array_api_compat import is_cupy_array, is_numpy_array

from epsot.arrays import Place, as_count, as_real, common_place, in_dtype
from epsot.costs import Array
from epsot.devices import resident
from epsot.kernels import Kernel
from epsot.kernels.reference import bounded_exp


@resident
@dataclass(frozen=True, repr=False, eq=False)
class Plan:
    """A coupling of two measures: rows are the source, columns the target.

    Products, sums and maps run over the pairs and need memory of order n + m. Only `to_dense`, and `rows` for the rows
    asked for, make the numbers themselves.

    Attributes
    ----------
    shape : tuple of int
        (n, m).
    dtype : dtype
        That of the points or the cost matrix; everything returned has it.
    """

    kernel: Kernel
    k: Array  # (n,) log a + f / eps
    h: Array  # (m,) log b + g / eps
    f: Array  # (n,) the potentials: softmins close to those of the plan
    g: Array  # (m,)
    eps: float
    dtype: Any
    place: Place
    points: tuple[Array | None, Array | None]  # x and y, for the barycentric maps

    @property
    def shape(self) -> tuple[int, int]:
        return self.kernel.shape

    @property
    def T(self) -> Plan:
        """The plan from the target to the source."""
        return Plan(
            self.kernel.T, self.h, self.k, self.g, self.f,
            self.eps, self.dtype, self.place, self.points[::-1],
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Plan(shape={self.shape}, eps={self.eps:.4g}, dtype={self.dtype})"

    def __matmul__(self, v: Any) -> Array:
        """P v for a vector (m,) or a matrix (m, q).  -> (n,) or (n, q)"""
        return self._cast(self._apply(self.k, self._operand("v", v)))

    __array_ufunc__ = None  # NumPy leaves `v @ plan` to the plan

    def __rmatmul__(self, v: Any) -> Array:
        """v P for a vector (n,) or a matrix (q, n).  -> (m,) or (q, m)"""
        v = v if hasattr(v, "ndim") else self.place.xp.asarray(v)
        return (self.T @ v.T).T if v.ndim == 2 else self.T @ v

    def sum(self, axis: int | None = None) -> Array:
        """Marginals: axis 1 sums every row, (n,); axis 0 every column, (m,); None everything, 0-d."""
        if axis in (0, -2):
            return self.T.sum(axis=1)
        if axis not in (1, -1, None):
            raise ValueError(f"`axis` must be 0, 1 or None, got {axis!r}")
        xp = self.place.xp
        sums = bounded_exp(self.k - self.kernel.softmin(self.h, self.eps, None) / self.eps, xp)
        return self._cast(sums if axis is not None else xp.sum(sums))

    def argmax(self, axis: int = 1) -> Array:
        """The best partner: axis 1 the column with the largest entry of every row, (n,); axis 0 the row, (m,).

        Rows of weight zero get that of their limit; of equal entries the first counts. Memory is that of a few rows.
        """
        if axis in (0, -2):
            return self.T.argmax(axis=1)
        if axis not in (1, -1):
            raise ValueError(f"`axis` must be 0 or 1, got {axis!r}")
        xp = self.place.xp  # exponents tell entries apart that are all zero as numbers
        parts = [xp.argmax(self.h[None, :] - self.kernel.cost_rows(i) / self.eps, axis=1) for i in self.row_blocks()]
        return xp.concat(parts)

    def barycentric_map(self, values: Any = None) -> Array:
        """The mean target of each source point: (P y)[i] / (P 1)[i].

        Parameters
        ----------
        values : (m,) or (m, q) array, optional
            What to average; by default the target points. A CostMatrix has no points and needs it.

        Returns
        -------
        (n,) or (n, q) array
            Rows of weight zero get their limit. NaN where all pairs of a row are forbidden.
        """
        if values is None:
            values = self.points[1]
            if values is None:
                raise TypeError(
                    "a CostMatrix has no points; pass the `values` to average, one row for each column of C"
                )
        v = self._operand("values", values)
        xp = self.place.xp
        ones = xp.ones((self.shape[1], 1), dtype=xp.float64, device=self.place.device)
        columns = v if v.ndim == 2 else v[:, None]
        centre = xp.mean(columns, axis=0, keepdims=True)  # an offset of the values costs no digits
        k = self.kernel.softmin(self.h, self.eps, self.f) / self.eps  # rows sum to 1, whatever their mass in P is
        reached = xp.isfinite(k)
        moments = self._apply(xp.where(reached, k, xp.zeros_like(k)), xp.concat([ones, columns - centre], axis=1))
        mass = xp.where(reached, moments[:, 0], xp.asarray(xp.nan, dtype=k.dtype, device=self.place.device))
        means = centre + moments[:, 1:] / mass[:, None]
        return self._cast(means if v.ndim == 2 else means[:, 0])

    def rows(self, i: Any) -> Array:
        """Rows of the plan as numbers: (m,) for an integer, (r, m) for a slice or an array of r integers."""
        xp = self.place.xp
        n = self.shape[0]
        if isinstance(i, slice):
            return self._cast(self.kernel.plan_rows(i, self.k, self.h, self.eps))
        if not isinstance(i, list | tuple | range) and getattr(i, "ndim", 0) == 0:
            index = as_count("i", i)
            if not -n <= index < n:
                raise IndexError(f"row {index} is out of range for a plan with {n} rows")
            return self.rows(slice(index % n, index % n + 1))[0, :]
        index = xp.asarray(list(i) if isinstance(i, range) else i, device=self.place.device)
        if index.shape == (0,) and not hasattr(i, "dtype"):  # an empty list has no type of its own
            index = xp.astype(index, xp.int64)
        if index.ndim != 1 or not xp.isdtype(index.dtype, "integral"):
            raise TypeError(f"`i` must be an integer, a slice or a vector of integers, got {i!r}")
        if bool(xp.any((index < -n) | (index >= n))):
            raise IndexError(f"a row is out of range for a plan with {n} rows")
        return self._cast(self.kernel.plan_rows(xp.where(index < 0, index + n, index), self.k, self.h, self.eps))

    def to_dense(self) -> Array:
        """All of the plan, (n, m)."""
        return self.rows(slice(None))

    def to_sparse(self, mass: float = 0.99, max_per_row: int | None = None) -> Any:
        """The largest entries of every row, as a SciPy (or CuPy) CSR array.

        Parameters
        ----------
        mass : float
            The share of a row's mass to keep, in (0, 1]: the fewest entries that carry it.
        max_per_row : int, optional
            At most so many entries a row, whatever mass they carry.

        Returns
        -------
        (n, m) sparse array in CSR format
            Values are those of the plan, not rescaled. It is built in blocks of rows.
        """
        from epsot import sparse

        return sparse.largest_entries(self, mass, max_per_row)

    def sample(
        self, size: int | None = None, *, rng: Any = None, mode: Literal["independent", "stratified"] = "independent"
    ) -> tuple[Array, Array]:
        """Draw pairs (i, j) with probabilities P[i, j] / sum(P).

        Parameters
        ----------
        size : int, optional
            The number of pairs; by default n.
        rng : None, int or numpy.random.Generator
            As in SciPy.
        mode : {"independent", "stratified"}
            "independent": the pairs are independent, and a source point may come up several times or never.
            "stratified": row i comes up floor or ceil of ``size * (P 1)[i] / sum(P)`` times, so that with uniform
            weights and ``size=n`` every source point comes up exactly once; the targets are drawn given the rows.

        Returns
        -------
        i, j : (size,) integer arrays
            Indices of the source and target points, on the device of the plan, ordered by i in "stratified" mode.
        """
        from epsot import sparse

        return sparse.sample_pairs(self, size, rng, mode)

    def as_linear_operator(self) -> Any:
        """The plan as a `scipy.sparse.linalg.LinearOperator` (CuPy's for CuPy arrays)."""
        if is_numpy_array(self.k):
            from scipy.sparse.linalg import LinearOperator
        elif is_cupy_array(self.k):
            from cupyx.scipy.sparse.linalg import LinearOperator
        else:
            raise TypeError("linear operators need NumPy or CuPy arrays; use `plan @ v` and `plan.T @ v` directly")
        transposed = self.T
        return LinearOperator(
            shape=self.shape,
            matvec=self.__matmul__,
            rmatvec=transposed.__matmul__,
            matmat=self.__matmul__,
            rmatmat=transposed.__matmul__,
            dtype=self.dtype,
        )

    def row_blocks(self) -> Iterator[slice]:
        """Slices of rows that together cover the plan, each of bounded memory."""
        from epsot import sparse

        n, m = self.shape
        step = max(1, sparse.BLOCK_ELEMENTS // max(1, m))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))

    def _operand(self, name: str, v: Any) -> Array:
        """A vector or matrix to multiply, in float64."""
        common_place(**{name: v, "the plan": self.k})
        xp = self.place.xp
        v = as_real(name, v, self.place)
        if v.ndim not in (1, 2) or v.shape[0] != self.shape[1]:
            raise ValueError(
                f"`{name}` must have shape ({self.shape[1]},) or ({self.shape[1]}, q) for a plan of shape "
                f"{self.shape}, got {tuple(v.shape)}"
            )
        return xp.astype(v, xp.float64, copy=False)

    def _apply(self, k: Array, v: Array) -> Array:
        """sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j] in float64, for a vector or a matrix."""
        out = self.kernel.apply(k, self.h, self.eps, v if v.ndim == 2 else v[:, None])
        return out if v.ndim == 2 else out[:, 0]

    def _cast(self, array: Array) -> Array:
        return in_dtype(array, self.dtype, self.place, copy=False)
