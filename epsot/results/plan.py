"""The transport plan P[i, j] = exp(k[i] + h[j] - C[i, j] / eps) as an operator: never stored unless asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from epsot.arrays import Place, as_real, in_dtype
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.kernels import PlanKernel
from epsot.kernels.reference import bounded_exp
from epsot.libraries import is_sparse
from epsot.results import sparse
from epsot.results.operators import linear_operator


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class Plan:
    """A coupling of two measures: rows are the source, columns the target.

    Products, sums and maps run over the pairs and need memory of order n + m. Only `to_dense`, and `rows` or an index
    for the rows asked for, make the numbers themselves. NumPy functions that take a plan for an array get all of it.

    Attributes
    ----------
    shape : tuple of int
        (n, m).
    dtype : dtype
        That of the points or the cost matrix; everything returned has it.
    T : Plan
        The plan from the target to the source.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x, y = np.asarray([[0.0], [1.0]]), np.asarray([[0.1], [1.1], [0.9]])
    >>> plan = epsot.sinkhorn(x, y, blur=0.3, tol=1e-6).plan
    >>> plan[1].round(2)
    array([0.  , 0.31, 0.19])
    >>> plan[0, 1] == np.asarray(plan)[0, 1]
    np.True_
    >>> len(plan), (plan @ np.ones(3)).round(2)
    (2, array([0.5, 0.5]))
    """

    kernel: PlanKernel
    k: Array  # (n,) log a + f / eps
    h: Array  # (m,) log b + g / eps
    f: Array  # (n,) the potentials: softmins close to those of the plan
    g: Array  # (m,)
    eps: float
    real: Any  # the dtype, of `place.xp`
    place: Place
    points: tuple[Array | None, Array | None]  # x and y, for the barycentric maps

    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        return self.kernel.shape

    @property
    def dtype(self) -> Any:
        home = self.place.home
        return self.real if home is None else home.given(np.empty(0, self.real)).dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def T(self) -> Plan:
        """The plan from the target to the source."""
        return Plan(
            self.kernel.T, self.h, self.k, self.g, self.f,
            self.eps, self.real, self.place, self.points[::-1],
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Plan(shape={self.shape}, eps={self.eps:.4g}, dtype={self.dtype})"

    def __matmul__(self, v: Any) -> Array:
        """P v for a vector (m,) or a matrix (m, q), dense or sparse.  -> (n,) or (n, q)"""
        if is_sparse(v):
            return sparse.times(self, v)
        return self._cast(self._apply(self.k, self._operand("v", self._taken("v", v))))

    __array_ufunc__ = None  # NumPy leaves `v @ plan` to the plan

    def __rmatmul__(self, v: Any) -> Array:
        """v P for a vector (n,) or a matrix (q, n).  -> (m,) or (q, m)"""
        if is_sparse(v):
            return (self.T @ v.T).T
        v = self._taken("v", v)
        out = self.T._apply(self.h, self._operand("v", v.T if v.ndim == 2 else v, self.shape[0]))
        return self._cast(out.T if v.ndim == 2 else out)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of the plan as a NumPy array."""
        if copy is False:
            raise ValueError("a plan has no numbers in memory: np.asarray(plan) makes them")
        return np.asarray(self.to_dense(), dtype=dtype)

    def __getitem__(self, index: Any) -> Array:
        """What ``to_dense()[index]`` would be, made from the rows or the column needed.

        ``plan[i]`` is ``plan.rows(i)``, ``plan[i, j]`` one number, a part of some rows, or for two vectors of integers
        a number for each pair.
        """
        if not isinstance(index, tuple):
            return self.rows(index)
        if len(index) != 2:
            raise IndexError(f"a plan has two indices, got {len(index)}")
        return sparse.part(self, *index)

    def sum(self, axis: int | None = None, out: None = None) -> Array:
        """Marginals: axis 1 sums every row, (n,); axis 0 every column, (m,); None everything, 0-d.

        `out` is None, as ``np.sum(plan, axis=1)`` passes it.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> plan.sum(axis=1).round(3), plan.sum(axis=0).round(3)
        (array([0.5, 0.5]), array([0.333, 0.333, 0.333]))
        """
        if out is not None:
            raise TypeError("`out` must be None: a plan returns new arrays")
        axis = None if axis is None else as_axis(axis, "0, 1 or None")
        if axis == 0:
            return self.T.sum(axis=1)
        xp = self.place.xp
        sums = bounded_exp(self.k - self.kernel.softmin(self.h, self.eps, None) / self.eps, xp)
        return self._cast(sums if axis is not None else xp.sum(sums))

    def argmax(self, axis: int = 1) -> Array:
        """The best partner: axis 1 the column with the largest entry of every row, (n,); axis 0 the row, (m,).

        Rows of weight zero get that of their limit; of equal entries the first counts. Memory is that of a few rows.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> plan.argmax(), plan.argmax(axis=0)
        (array([0, 1]), array([0, 1, 1]))
        """
        if as_axis(axis, "0 or 1") == 0:
            return self.T.argmax(axis=1)
        return self.place.handed_out(self._best_partners(), copy=False)

    def _best_partners(self) -> Array:
        """The column of the largest entry of every row: exponents tell entries apart that are all zero as numbers."""
        xp = self.place.xp
        parts = [xp.argmax(self.h[None, :] - self.kernel.cost_rows(i) / self.eps, axis=1) for i in self.row_blocks()]
        return xp.concat(parts)

    def barycentric_map(self, values: Any = None) -> Array:
        """The mean target of each source point: (P y)[i] / (P 1)[i].

        Parameters
        ----------
        values : (m,) or (m, q) array, optional
            What to average; by default the target points, which not every geometry has.

        Returns
        -------
        (n,) or (n, q) array
            Rows of weight zero get their limit. NaN where all pairs of a row are forbidden.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> plan.barycentric_map().round(2)  # the mean target of both points
        array([[0.38],
               [1.02]])
        >>> plan.T.barycentric_map(np.eye(2)).round(2)  # of each target, from which of the two its mass comes
        array([[1.  , 0.  ],
               [0.07, 0.93],
               [0.43, 0.57]])
        """
        values = self.points[1] if values is None else self._taken("values", values)
        if values is None:
            raise TypeError("the geometry has no points; pass the `values` to average, one row for each column of C")
        v = self._operand("values", values)
        xp = self.place.xp
        ones = xp.ones((self.shape[1], 1), dtype=xp.float64, device=self.place.device)
        columns = v if v.ndim == 2 else v[:, None]
        centre = xp.mean(columns, axis=0, keepdims=True)  # an offset of the values costs no digits
        # Rows sum to 1, whatever their mass in P is; without a guess, so that both sums round alike.
        k = self.kernel.softmin(self.h, self.eps) / self.eps
        reached = xp.isfinite(k)
        moments = self._apply(xp.where(reached, k, xp.zeros_like(k)), xp.concat([ones, columns - centre], axis=1))
        mass = xp.where(reached, moments[:, 0], xp.asarray(xp.nan, dtype=k.dtype, device=self.place.device))
        means = centre + moments[:, 1:] / mass[:, None]
        if bool(xp.any(mass <= 0)):  # the exponents are all rounding: so cold, the best partner has the whole row
            best = xp.take(columns, self._best_partners(), axis=0)
            means = xp.where((mass <= 0)[:, None], best, means)
        return self._cast(means if v.ndim == 2 else means[:, 0])

    def rows(self, i: Any) -> Array:
        """Rows of the plan as numbers: (m,) for an integer, (r, m) for a slice or an array of r integers.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> plan.rows(1).round(3)
        array([0.   , 0.309, 0.191])
        >>> plan.rows([1, 0]).shape
        (2, 3)
        """
        index = sparse.as_index("i", self.place.taken("i", i), self.shape[0], "row", self.place)
        if isinstance(index, int):
            return self.rows(slice(index, index + 1))[0, :]
        return self._cast(self.kernel.plan_rows(index, self.k, self.h, self.eps))

    def to_dense(self) -> Array:
        """All of the plan, (n, m).

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> plan.to_dense().sum().round(3)
        np.float64(1.0)
        """
        return self.rows(slice(None))

    def to_sparse(self, mass: float = 0.99, max_per_row: int | None = None) -> Any:
        """The largest entries of every row, as a SciPy (or CuPy) CSR array; SciPy's for libraries on the CPU, too.

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

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> plan.to_sparse(mass=0.9).nnz, plan.to_sparse(max_per_row=1).nnz
        (4, 2)
        """
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

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> i, j = plan.sample(1000, rng=0)
        >>> bool(abs(np.mean((i == 1) & (j == 1)) - plan[1, 1]) < 0.05)
        True
        >>> plan.sample(rng=0, mode="stratified")[0]  # each source point once
        array([0, 1])
        """
        return sparse.sample_pairs(self, size, rng, mode)

    def as_linear_operator(self) -> Any:
        """The plan as a `scipy.sparse.linalg.LinearOperator` (CuPy's for CuPy arrays), which takes NumPy's vectors.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> plan = epsot.sinkhorn([[0.0], [1.0]], [[0.1], [1.1], [0.9]], blur=0.3, tol=1e-6).plan
        >>> from scipy.sparse.linalg import svds
        >>> operator = plan.as_linear_operator()
        >>> operator.shape, operator.rmatvec(np.ones(2)).round(3)
        ((2, 3), array([0.333, 0.333, 0.333]))
        >>> svds(operator, k=1, return_singular_vectors=False, rng=0).shape
        (1,)
        """
        if self.place.home is not None:
            return self.inside.as_linear_operator()
        found = linear_operator(self.k, self.shape, self.dtype, self.__matmul__, self.T.__matmul__)
        if found is None:
            raise TypeError("linear operators need NumPy or CuPy arrays; use `plan @ v` and `plan.T @ v` directly")
        return found

    def row_blocks(self) -> Iterator[slice]:
        """Slices of rows that together cover the plan, each of bounded memory."""
        n, m = self.shape
        step = max(1, sparse.BLOCK_ELEMENTS // max(1, m))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))

    @property
    def inside(self) -> Plan:
        """The plan that takes and returns the arrays that it works on."""
        return replace(self, place=self.place._replace(home=None))

    def _taken(self, name: str, v: Any) -> Array:
        """A real array of the user."""
        self.place.admit("the plan", **{name: v})
        return as_real(name, v, self.place)

    def _operand(self, name: str, v: Array, size: int | None = None) -> Array:
        """A vector or matrix to multiply, of m rows or of `size`, in float64."""
        size = self.shape[1] if size is None else size
        if v.ndim not in (1, 2) or v.shape[0] != size:
            raise ValueError(
                f"`{name}` must have shape ({size},) or ({size}, q) for a plan of shape {self.shape}, "
                f"got {tuple(v.shape)}"
            )
        return self.place.xp.astype(v, self.place.xp.float64, copy=False)

    def _apply(self, k: Array, v: Array) -> Array:
        """sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j] in float64, for a vector or a matrix."""
        out = self.kernel.apply(k, self.h, self.eps, v if v.ndim == 2 else v[:, None])
        return out if v.ndim == 2 else out[:, 0]

    def _cast(self, array: Array) -> Array:
        return in_dtype(array, self.real, self.place, copy=False)


def as_axis(axis: Any, allowed: str) -> int:
    """0 or 1, also from behind."""
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or not -2 <= axis < 2:
        raise ValueError(f"`axis` must be {allowed}, got {axis!r}")
    return int(axis) % 2
