"""Barycenters whose points move: `free_barycenter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epsot.arguments import as_options, as_shares
from epsot.arrays import Place, as_count, as_number, as_points, as_positive, common_place, power, rounding_of, start_of
from epsot.costs import Array
from epsot.devices import on_array_device
from epsot.drivers.free_barycenter import Clouds, FreeIntermediate, solve_free_barycenter
from epsot.drivers.options import until_the_end
from epsot.geometry import Grid, PointCloud
from epsot.lists import axes_of, is_ragged
from epsot.problems.barycenter import of_one_mass
from epsot.problems.instance import check_workers
from epsot.problems.weights import checked_weights
from epsot.results.free_barycenter import FreeBarycenterResult
from epsot.status import ConvergenceWarning, Status, warn


@on_array_device
def free_barycenter(
    x: Any,
    a: Any = None,
    t: Any = None,
    *,
    init: Any,
    blur: float,
    p: float = 2,
    scaling: float = 0.5,
    tol: float = 1e-2,
    max_iter: int = 300,
    callback: Callable[[FreeIntermediate], object] | None = None,
    workers: int | None = None,
) -> FreeBarycenterResult:
    r"""The positions of a cloud of equal weights that is, on the whole, nearest to several clouds.

    Parameters
    ----------
    x : (K, m, d) array, or list of K (m_k, d) arrays
        The clouds, float32 or float64 of any array-API library.
    a : (K, m) array, or list of K (m_k,) arrays, optional
        Their non-negative weights, of equal mass; by default uniform.
    t : (K,) array, optional
        Their shares in the mean, non-negative, which are normalised to sum one; by default all equal.
    init : (n, d) array
        Where the points start, apart from each other: points that coincide never part. A sample of the clouds will do.
    blur : float
        The scale below which details do not count, in the units of the points.
    p : {2}
        The cost is half the squared distance; no other has means for barycenters.
    scaling, workers
        As in `sinkhorn`, of the divergences.
    tol : float
        The points are at rest when a step moves them by at most ``tol * blur``, as the root of the mean square. What
        is finer than `blur` hardly pulls: smaller numbers take many steps and change the value little.
    max_iter : int
        The largest number of steps of the points.
    callback : callable, optional
        ``callback(intermediate)`` after every step, with ``nit``, ``eps``, ``movement``, ``points``, and a method
        ``save``; raising StopIteration ends the steps.

    Returns
    -------
    FreeBarycenterResult
        ``points`` in the library, device and dtype of `init`, ``value``, the divergences to each cloud, and the
        outcome.

    Raises
    ------
    ValueError
        As in `sinkhorn_divergence`, with the number of the cloud; for shares as in `barycenter`; for another `p`.
    TypeError
        For arrays of different libraries or devices, or that are not real.

    Warns
    -----
    ConvergenceWarning
        If the points have not come to rest, or the divergences between the last ones have not converged.

    See Also
    --------
    barycenter : The weights move, over a fixed support.

    Notes
    -----
    Steps of

    .. math::

        x \leftarrow x + \sum_k t_k \, v_k(x), \qquad v_k = -\frac{1}{a} \nabla_x S_\varepsilon(x, x_k),

    as of free-support Wasserstein barycenters [1]_, with the maps of the debiased divergence in place of those of the
    plan, which would shrink the cloud. Clouds that are translates of one another are averaged in one step. The value is
    not convex in the points: where they end depends on where they start.

    References
    ----------
    .. [1] Cuturi and Doucet (2014), Fast computation of Wasserstein barycenters, ICML.
       https://arxiv.org/abs/1310.4375

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> rng = np.random.default_rng(0)
    >>> cloud = rng.normal(size=(100, 2))
    >>> result = epsot.free_barycenter([cloud, cloud + [4.0, 2.0]], t=[3, 1], init=rng.normal(size=(80, 2)), blur=0.3)
    >>> result.success, result.points.shape
    (True, (80, 2))
    >>> (result.points.mean(axis=0) - cloud.mean(axis=0)).round(2)
    array([1. , 0.5])
    """
    if p != 2:
        raise ValueError(f"`p` must be 2 for barycenters with free points, got {p!r}")
    blur = as_positive("blur", blur)
    eps = power("blur", blur, 2)
    max_iter = as_count("max_iter", max_iter, 1)
    check_workers(workers)
    if tol is None or not as_number("tol", tol) > 0:
        raise ValueError(f"`tol` must be positive: the movement, beside `blur`, that counts as rest; got {tol!r}")
    clouds, points = pose(x, a, t, init, blur, eps, workers)
    widest = max(PointCloud(points, y).diameter() for y in clouds.points)
    options = as_options(start_of(widest, 2), scaling, tol, max_iter, callback, None)
    with until_the_end(callback):
        result = solve_free_barycenter(clouds, clouds.place.xp.astype(points, clouds.place.xp.float64), options)
    if Status.MAX_ITER <= result.status <= Status.DIVERGED:
        warn(f"{result.status.name}: {result.message}", ConvergenceWarning)
    return result


def listed(name: str, given: Any, axes: int) -> list[Any]:
    """The clouds, or the weights, one by one."""
    if isinstance(given, list | tuple) and any(isinstance(z, Grid) for z in given):
        raise TypeError(f"`{name}` must hold arrays of points, got a Grid; pass its `points`, and its image as weights")
    if axes_of(given) != axes + 1 and not is_ragged(given):
        what = "a (K, m, d) array, or a list of K clouds" if axes == 2 else "a (K, m) array, or a list of K vectors"
        raise ValueError(f"`{name}` must be {what}, got {axes_of(given)} axes; one of them is `[{name}]`")
    return [given[k, ...] if hasattr(given, "ndim") else given[k] for k in range(len(given))]


def pose(x: Any, a: Any, t: Any, init: Any, blur: float, eps: float, workers: int | None) -> tuple[Clouds, Array]:
    """The clouds and where the points start, checked."""
    given = listed("x", x, 2)
    count = len(given)
    shares = as_shares(t, count, "x")
    loads = [None] * count if a is None else listed("a", a, 1)
    if len(loads) != count:
        raise ValueError(f"`a` must hold one vector of weights a cloud, {count}, got {len(loads)}")
    named = {f"x[{k}]": z for k, z in enumerate(given)}
    named_weights = {f"a[{k}]": z for k, z in enumerate(loads)}
    place: Place = common_place(init=init, **named, **{name: z for name, z in named_weights.items() if z is not None})
    points = as_points("init", init, place)
    others = [as_points(name, z, place) for name, z in named.items()]
    d = points.shape[1]
    for (name, _), z in zip(named.items(), others, strict=True):
        if z.shape[1] != d:
            raise ValueError(f"`{name}` must have points of {d} coordinates, as `init`, got {z.shape[1]}")
    weights = [
        checked_weights(name, z, (other.shape[0],), place)
        for (name, z), other in zip(named_weights.items(), others, strict=True)
    ]
    rounding = max(map(rounding_of, loads))
    equal, mass = of_one_mass(dict(zip(named_weights, weights, strict=True)), rounding, place)
    dtype = points.dtype
    clouds = Clouds(
        place, dtype, tuple(place.xp.astype(z, dtype) for z in others), tuple(z * mass for z in equal), shares, mass,
        blur, eps, rounding, workers,
    )  # fmt: skip
    return clouds, points
