"""All pairs of many measures: `pairwise`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from array_api_compat import is_array_api_obj

from epsot.archives import Savable
from epsot.arguments import as_options, check_callback
from epsot.arrays import Place, as_flag, dtype_of_name, in_dtype, name_of_dtype, to_numpy
from epsot.communicator import Communicator, as_communicator
from epsot.costs import Array
from epsot.devices import device_aware, on_array_device
from epsot.drivers.many import ManyOptions
from epsot.drivers.options import until_the_end
from epsot.drivers.pairs import Measures, Question, Sides, Table, all_pairs, common_start
from epsot.geometry.clouds import PointClouds
from epsot.geometry.grid import Grid
from epsot.geometry.rows import Rows, name_of
from epsot.geometry.separables import flat_weights, many_of
from epsot.lists import is_batch_of, is_ragged
from epsot.pictures import warn_of_pictures
from epsot.problems.batch import balancing_factors, checked_masses, masses_of, rounding_of_any, scaled, weights_of
from epsot.problems.instance import check_workers
from epsot.results.shown import Shown
from epsot.scales import as_diameter, scales_of_all
from epsot.status import STATUSES, ConvergenceWarning, Status, warn


class Block(NamedTuple):
    """What an observer of `pairwise` is given after each block."""

    done: int  # pairs
    total: int
    value: np.ndarray  # (K, L), nan where a pair is still to come

    @property
    def progress(self) -> float:
        """The part of the pairs that is done."""
        return self.done / max(1, self.total)


@device_aware
@dataclass(frozen=True, repr=False, eq=False)
class PairwiseResult(Savable, Shown):
    """The values of all pairs, and how each has ended.

    Attributes
    ----------
    value : (K, L) array
        In the library and dtype of the points. Of one list of measures it is symmetric; of divergences its diagonal is
        zero, so that scikit-learn takes it for ``metric="precomputed"``, and `scipy.spatial.distance.squareform`.
    marginal_error : (K, L) array
        The worst of the parts of a divergence.
    success : (K, L) array of bool
    status : (K, L) array of int
        Numbers of `Status`; STOPPED where a callback has ended the work before.
    """

    place: Place
    dtype: Any
    table: Table

    def _written(self) -> dict[str, Any]:
        return {"dtype": name_of_dtype(self.dtype), **vars(self.table)}

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> PairwiseResult:
        tables = [parts[name] for name in ("value", "marginal_error", "status")]
        if len({table.shape for table in tables}) > 1:
            raise ValueError("tables of different shapes")
        return cls(place, dtype_of_name(parts["dtype"], place), Table(*tables))

    @property
    def value(self) -> Array:
        xp = self.place.xp
        array = xp.asarray(self.table.value, device=self.place.device)
        return in_dtype(array, self.dtype, self.place)

    @property
    def marginal_error(self) -> np.ndarray:
        return self.table.marginal_error

    @property
    def status(self) -> np.ndarray:
        return self.table.status

    @property
    def success(self) -> np.ndarray:
        found: np.ndarray = self.status == Status.CONVERGED
        return found

    def _lines(self) -> dict[str, object]:
        n, m = self.status.shape
        return {"shape": f"{n} x {m}", "converged": int(self.success.sum())}

    def __repr__(self) -> str:
        n, m = self.status.shape
        return f"PairwiseResult(shape={n} x {m}, {int(self.success.sum())} converged)"


@on_array_device
def pairwise(
    x: Any,
    y: Any = None,
    a: Any = None,
    b: Any = None,
    *,
    blur: float,
    debias: bool = True,
    p: float = 2,
    reach: Any = None,
    diameter: float | None = None,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    callback: Callable[[Block], object] | None = None,
    workers: int | None = None,
    comm: Any = None,
) -> PairwiseResult:
    r"""The divergences, or transport costs, between all pairs of many measures.

    Parameters
    ----------
    x : (K, n, d) array, list of (n_k, d) arrays, (n, d) array, or Grid
        The points of the measures; one cloud or grid, where they share it and differ in their weights.
    y : the same, optional
        Those of L other measures. None: the pairs within `x`.
    a : (K, n) array, list of (n_k,) arrays, or (n,) array, optional
        Non-negative weights; by default uniform. Over a Grid they have its shape in place of the axis of n.
    b : the same, optional
        Weights of the measures of `y`.
    blur : float
        As in `sinkhorn`.
    debias : bool
        Whether values are Sinkhorn divergences, or the transport costs with their entropy.
    p, reach, diameter, scaling, tol, max_iter, workers
        As in `sinkhorn`, one for all pairs. With ``tol=None`` all pairs start at the diameter of all points.
    callback : callable, optional
        ``callback(block)`` after each block of pairs, with ``done``, ``total`` and ``value``, the matrix as far as it
        is known; raising StopIteration ends the work.
    comm : mpi4py.MPI.Intracomm, optional
        Processes that share the pairs. Each has all measures, does its part of the pairs without a word to the others,
        and is given all of them at the end; its `callback` sees its own.

    Returns
    -------
    PairwiseResult
        ``value`` (K, L), and for each pair `marginal_error`, `status` and `success`.

    Raises
    ------
    ValueError, TypeError
        As in `sinkhorn`; the message names the measure.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached for some of the pairs.

    See Also
    --------
    sinkhorn_divergence : One pair, or many that are given one by one.

    Notes
    -----
    Self terms are solved once for each measure: K (K - 1) / 2 + K solves for K measures, on all cores. Memory beside
    the points and the matrices is that of one block.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> rng = np.random.default_rng(0)
    >>> clouds = [rng.normal(k, 1.0, (20 + k, 2)) for k in range(4)]
    >>> distances = epsot.pairwise(clouds, blur=0.3).value
    >>> distances.shape, bool(np.all(np.diag(distances) == 0))
    ((4, 4), True)
    >>> from scipy.spatial.distance import squareform
    >>> squareform(distances).shape
    (6,)
    """
    ranks = as_communicator(comm)
    with ranks.together():
        table, geometry = _table(
            ranks, x, y, a, b, blur, debias, p, reach, diameter, callback, workers,
            scaling=scaling, tol=tol, max_iter=max_iter,
        )  # fmt: skip
    missed = (table.status >= Status.MAX_ITER) & (table.status <= Status.DIVERGED)
    if missed.any():
        worst = np.unravel_index(int(np.argmax(np.where(missed, table.marginal_error, -1.0))), missed.shape)
        ended = STATUSES[int(table.status[worst])]
        warn(
            f"{int(missed.sum())} of {missed.size} pairs have missed `tol`; the worst, "
            f"({int(worst[0])}, {int(worst[1])}), is {ended.name} with a marginal error of "
            f"{table.marginal_error[worst]:.2e}; {ended.cure}",
            ConvergenceWarning,
        )
    return PairwiseResult(geometry.place, geometry.dtype, table)


def _table(
    ranks: Communicator, x: Any, y: Any, a: Any, b: Any, blur: Any, debias: bool, p: Any, reach: Any, diameter: Any,
    callback: Any, workers: Any, **rules: Any,
) -> tuple[Table, Sides]:  # fmt: skip
    """The table of all pairs, and the clouds that they are made of."""
    symmetric, debias = y is None, as_flag("debias", debias)
    if symmetric and b is not None:
        raise ValueError("`b` are weights of `y`, which is not given; pass those of `x` as `a`")
    diameter = as_diameter(diameter)
    warn_of_pictures(x=x) if symmetric else warn_of_pictures(x=x, y=y)
    geometry = clouds_of(x, x if symmetric else y, a, b, p)
    a, b = flat_weights("a", a, geometry.x.grid), flat_weights("b", b, geometry.y.grid)
    eps, rhos = scales_of_all(blur, reach, geometry.degree)
    if symmetric and rhos[0] != rhos[1]:
        raise ValueError(f"`reach` must be one number for pairs within `x`, got {reach!r}; pass `y` for two sides")
    asked = as_options(0.0 if diameter is None else diameter, **rules, init=None, callback=None)
    ranks.check_equal(blur=blur, debias=debias, p=p, reach=reach, diameter=diameter, **rules)
    ranks.check_bits("measures", lambda: bits_of(geometry.x, geometry.y, a, b))
    check_workers(workers)
    if callback is not None:
        check_callback(callback)
    left = measures("a", a, geometry.x, rhos[0], geometry.place)
    right = left if symmetric else measures("b", b, geometry.y, rhos[1], geometry.place)
    left, right = balanced(left, right, a, b, geometry.place, symmetric=symmetric)
    start = common_start(geometry, diameter, asked.tol)
    question = Question(geometry, eps, ManyOptions(asked, None), start, workers)
    observe = None if callback is None else lambda done, total, table: callback(Block(done, total, table.value.copy()))
    with until_the_end(callback):
        table = all_pairs(question, left, right, symmetric=symmetric, debias=debias, observe=observe, comm=ranks)
    return table, geometry


def bits_of(x: Rows, y: Rows, a: Any, b: Any) -> list[Any]:
    """The arrays of which every rank should have the same."""
    parts = [z for weights in (a, b) if weights is not None for z in (weights if is_ragged(weights) else [weights])]
    points = [rows.values for rows in (x, y) if rows.grid is None]
    return [to_numpy(z) if is_array_api_obj(z) else np.asarray(z) for z in points + parts]


def clouds_of(x: Any, y: Any, a: Any, b: Any, p: float) -> Sides:
    """The clouds of both sides, each a batch of one axis or a single one."""
    for name, points in (("x", x), ("y", y)):
        if hasattr(points, "ndim") and points.ndim > 3:
            raise ValueError(f"`{name}` must be (K, n, d), a list of clouds, or one cloud, got {points.ndim} axes")
    if isinstance(x, Grid) and isinstance(y, Grid):
        return cast(Sides, many_of(x, y, a, b, p=p))
    return PointClouds(x, y, p=p, paired=False)


def measures(name: str, weights: Any, points: Rows, rho: float, place: Place) -> Measures:
    """The measures of one side: as many as there are clouds, or weights on one."""
    count = points.shape
    if weights is not None and is_batch_of(weights, 1):
        try:
            count = np.broadcast_shapes(count, (len(weights),))
        except ValueError:
            raise ValueError(
                f"`{name}` must have as many vectors of weights as there are clouds, {count[0]}, got {len(weights)}"
            ) from None
    points = points.over(count if count else (1,))
    rows = weights_of(name, weights, points.sizes, place)
    checked_masses(name, weights, rows, np.full(rows.shape, rho), "reach", place)
    return Measures(points, rows, weights is None, rho)


def balanced(
    left: Measures, right: Measures, a: Any, b: Any, place: Place, *, symmetric: bool
) -> tuple[Measures, Measures]:
    """With the masses of all made equal, where they differ by rounding and nothing says what mass is worth."""
    if not (math.isinf(left.rho) and math.isinf(right.rho)):
        return left, right
    rounding = max(rounding_of_any(a), rounding_of_any(b))
    whole = 1.0 if left.uniform else float(masses_of(left.weights, place).flat[0])
    first = of_mass("a", left, whole, rounding, place)
    return first, first if symmetric else of_mass("b", right, whole, rounding, place)


def of_mass(name: str, side: Measures, whole: float, rounding: float, place: Place) -> Measures:
    """The measures of one side scaled to a mass, from which theirs differ by rounding."""
    masses = np.ones(side.points.first.shape) if side.uniform else masses_of(side.weights, place)
    unequal = masses != whole
    if not np.any(unequal):
        return side
    names = (lambda _: "a[0]"), partial(name_of, name, masses.shape)
    factors = balancing_factors(np.full(masses.shape, whole), masses, unequal, rounding, "reach", names)
    return side._replace(weights=scaled(side.weights, factors, place), uniform=False)
