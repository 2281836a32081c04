"""A test of whether two samples come from one distribution, by permutations of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from epsot.archives import Savable
from epsot.arguments import as_options
from epsot.arrays import Place, as_count, start_of, to_numpy
from epsot.devices import on_array_device
from epsot.drivers.many import ManyOptions, solve_divergences
from epsot.drivers.pairs import BLOCK_NUMBERS
from epsot.geometry.clouds import PointClouds
from epsot.geometry.grid import Grid
from epsot.geometry.points import PointCloud
from epsot.geometry.rows import Rows
from epsot.lists import is_batch_of
from epsot.problems.batch import Batch
from epsot.problems.instance import check_workers
from epsot.results.shown import Shown
from epsot.scales import as_diameter, scales_of_all
from epsot.status import ConvergenceWarning, Status, warn

EQUAL = 1e-9  # of the statistic: values that differ by less are one


@dataclass(frozen=True, repr=False)
class PermutationTestResult(Savable, Shown):
    """The outcome of a permutation test, with the names of `scipy.stats.permutation_test`.

    Attributes
    ----------
    statistic : float
        The Sinkhorn divergence of the two samples.
    pvalue : float
        ``(1 + #{null >= statistic}) / (n_resamples + 1)``.
    null_distribution : (n_resamples,) array
        The divergences of the permuted samples.
    success : bool
        Whether all of them, and the statistic, have reached `tol`.
    """

    statistic: float
    pvalue: float
    null_distribution: np.ndarray
    success: bool

    def _written(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def _read(cls, parts: dict[str, Any], place: Place) -> PermutationTestResult:
        return cls(*(parts[name] for name in ("statistic", "pvalue", "null_distribution", "success")))

    def _lines(self) -> dict[str, object]:
        return {
            "statistic": f"{self.statistic:.6g}",
            "p-value": f"{self.pvalue:.6g}",
            "permutations": len(self.null_distribution),
            "success": self.success,
        }

    def __repr__(self) -> str:
        return (
            f"PermutationTestResult(statistic={self.statistic:.6g}, pvalue={self.pvalue:.6g}, "
            f"{len(self.null_distribution)} permutations)"
        )


@on_array_device
def permutation_test(
    x: Any,
    y: Any,
    *,
    blur: float,
    n_resamples: int = 999,
    rng: Any = None,
    p: float = 2,
    reach: Any = None,
    diameter: float | None = None,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    workers: int | None = None,
) -> PermutationTestResult:
    """Test whether two samples come from one distribution: is their divergence large for random labels?

    Parameters
    ----------
    x, y : (n, d) and (m, d) arrays
        The two samples.
    blur : float
        As in `sinkhorn_divergence`: differences at a smaller scale do not count. A tenth of the diameter is a good
        start.
    n_resamples : int
        How many random permutations of the labels are compared.
    rng : int, numpy.random.Generator, or None
        What the permutations are drawn with, as everywhere in SciPy.
    p, reach, diameter, scaling, tol, max_iter, workers
        As in `sinkhorn_divergence`.

    Returns
    -------
    PermutationTestResult
        ``statistic``, ``pvalue`` and ``null_distribution``.

    Raises
    ------
    ValueError, TypeError
        As in `sinkhorn_divergence`, and for `n_resamples` below 1.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached for some of the divergences.

    Notes
    -----
    Under the hypothesis of one distribution the labels are exchangeable, and the probability of ``pvalue <= alpha`` is
    at most alpha, whatever the distribution and `blur` are [1]_ [2]_. Each permutation is a pair of weight vectors over
    the pooled points.

    References
    ----------
    .. [1] Phipson and Smyth (2010), Permutation p-values should never be zero, Statistical Applications in Genetics and
       Molecular Biology 9. https://doi.org/10.2202/1544-6115.1585
    .. [2] Ramdas, Garcia Trillos and Cuturi (2017), On Wasserstein two-sample testing and related families of
       nonparametric tests, Entropy 19. https://doi.org/10.3390/e19020047

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(0.0, 1.0, (40, 2)), rng.normal(1.0, 1.0, (40, 2))
    >>> bool(epsot.permutation_test(x, y, blur=0.5, n_resamples=199, rng=1).pvalue < 0.02)
    True
    """
    for name, points in (("x", x), ("y", y)):
        if isinstance(points, Grid):
            raise TypeError(f"`{name}` must be one sample, (n, d) points that were drawn, got a Grid of given nodes")
        if is_batch_of(points, 2):
            raise ValueError(f"`{name}` must be one sample, (n, d)")
    n_resamples, generator = as_count("n_resamples", n_resamples, 1), as_generator(rng)
    check_workers(workers)
    geometry = PointCloud(x, y, p=p)
    geometry.check_whole()
    eps, rhos = scales_of_all(blur, reach, geometry.degree)
    length = as_diameter(diameter)
    hottest = start_of(geometry.diameter() if length is None else length, geometry.degree)
    asked = as_options(hottest, scaling, tol, max_iter, None, None)
    pooled, which = pool(geometry)
    (n, m), labels = geometry.shape, np.arange(sum(geometry.shape))
    values, missed, step = [], 0, max(1, BLOCK_NUMBERS // (2 * len(labels)))
    orders = [labels, *(generator.permutation(labels) for _ in range(n_resamples))]
    scale = geometry.scale()
    for begin in range(0, len(orders), step):
        some = orders[begin : begin + step]
        batch = relabelled(pooled, which[np.stack(some)], n, m, eps, rhos, workers)
        start, costs = (np.full(batch.shape, z) for z in (hottest, scale))
        options = ManyOptions(asked, start, slopes=False, scale=costs)
        found = solve_divergences(batch, options, None)
        values.append(found.value64)
        missed += int((found.status >= Status.MAX_ITER).sum())
    statistic, null = float(values[0][0]), np.concatenate(values)[1:]
    reached = int((null >= statistic - EQUAL * abs(statistic)).sum())
    if missed:
        warn(
            f"{missed} of {len(orders)} divergences have missed `tol`; raise `max_iter`, `tol` or `blur`",
            ConvergenceWarning,
        )
    return PermutationTestResult(statistic, (1 + reached) / (n_resamples + 1), null, missed == 0)


def as_generator(rng: Any) -> np.random.Generator:
    """What permutations are drawn with."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`rng` must be None, a seed >= 0, or a numpy.random.Generator, got {rng!r}") from None


def pool(geometry: PointCloud) -> tuple[PointClouds, np.ndarray]:
    """The different points of both samples against themselves, and which of these each point is."""
    place, xp = geometry.place, geometry.place.xp
    points = xp.concat([geometry.x, geometry.y], axis=0)
    _, first, which = np.unique(to_numpy(points), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as they come
    if len(first) < points.shape[0]:
        points = xp.take(points, xp.asarray(first[order], device=place.device), axis=0)
    return PointClouds.of(geometry._derived(points, points)), np.argsort(order)[which.reshape(-1)]


def relabelled(
    pooled: PointClouds, orders: np.ndarray, n: int, m: int, eps: float, rhos: tuple[float, float], workers: int | None
) -> Batch:
    """The batch of some permutations: the first n points of each are the first sample.

    What is one pair of measures is so to the bit, that ties are ties whatever the tolerance of the solves: points that
    coincide are one, and of two measures that may change places the one with more on the first points comes first.
    """
    place, count = pooled.place, len(orders)
    weights = np.zeros((2, count, pooled.x.length))
    rows = np.arange(count)[:, None]
    np.add.at(weights[0], (rows, orders[:, :n]), 1 / n)
    np.add.at(weights[1], (rows, orders[:, n:]), 1 / m)
    if n == m and rhos[0] == rhos[1]:
        excess = weights[0] - weights[1]
        later = excess[np.arange(count), (excess != 0).argmax(axis=1)] < 0
        weights[:, later] = weights[::-1, later]
    a, b = (Rows.stacked(place.xp.asarray(z, device=place.device), 1) for z in weights)
    shape = (count,)
    full, rho_a, rho_b = (np.full(shape, number) for number in (eps, *rhos))
    return Batch(pooled.over(shape), a, b, (False, False), full, rho_a, rho_b, "reach", workers)
