"""Barycenters over a fixed support: `barycenter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epsot.arguments import as_options, as_shares
from epsot.arrays import as_flag, as_points, common_place
from epsot.devices import on_array_device
from epsot.drivers.barycenter import solve_barycenter
from epsot.drivers.barycenter_records import BarycenterIntermediate
from epsot.drivers.options import until_the_end
from epsot.geometry.grid import Grid, axes_of_weights
from epsot.libraries import as_numpy
from epsot.lists import axes_of
from epsot.problems.barycenter import pose_barycenter
from epsot.results.barycenter import BarycenterResult
from epsot.scales import by_length
from epsot.status import ConvergenceWarning, Status, warn


@on_array_device
def barycenter(
    support: Any,
    a: Any,
    t: Any = None,
    *,
    blur: float,
    debias: bool = True,
    p: float = 2,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    init: BarycenterResult | BarycenterIntermediate | None = None,
    callback: Callable[[BarycenterIntermediate], object] | None = None,
    workers: int | None = None,
) -> BarycenterResult:
    r"""The weights over a fixed support that are, on the whole, nearest to several measures on it.

    Parameters
    ----------
    support : (n, d) array or Grid
        The points that carry all measures, and the barycenter.
    a : (K, n) array, (K, ...) array over a Grid, or list of K arrays
        Non-negative weights of the measures, of equal mass; some may be zero.
    t : (K,) array, optional
        Their shares in the mean, non-negative, which are normalised to sum one; by default all equal.
    blur : float
        The scale below which details do not count, in the units of the points: ``eps = blur**p``.
    debias : bool
        Whether the Sinkhorn divergence is minimised, or the transport cost with an entropy, whose barycenters are
        blurred.
    p : {2, 1}
        The cost is ``|x - y|**p / p``.
    scaling : float
        The factor, in (0, 1), by which the scale falls from one temperature to the next.
    tol : float or None
        The marginal error to reach at the target scale: what the plans miss of the weights, and the weights of being
        optimal. None makes one plain step at each temperature.
    max_iter : int
        The largest number of iterations, annealing included; one takes two sweeps a measure, and one.
    init : BarycenterResult, or record of a callback, optional
        An earlier result on the same support to start from, loaded or not, of as many measures, as in a walk through
        shares. It never changes what is converged to.
    callback : callable, optional
        ``callback(intermediate)`` after every iteration, with ``nit``, ``eps``, ``marginal_error``, ``weights``, and a
        method ``save``; raising StopIteration stops the solve.
    workers : int, optional
        Threads of the CPU kernels: None or -1 is all usable cores, 1 is serial. Results do not depend on it.

    Returns
    -------
    BarycenterResult
        ``weights``, ``value``, ``gap``, potentials, derivatives in t and in the measures, and the outcome.

    Raises
    ------
    ValueError
        For shares that are negative, or all zero, or not one for each measure; for measures that do not fit the
        support, are negative, not finite, empty, or of different masses; for a `blur` that is not positive.
    TypeError
        For arrays of different libraries or devices, or that are not real.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached.

    See Also
    --------
    free_barycenter : The points move, in place of the weights.

    Notes
    -----
    With `debias` it is the minimiser of

    .. math::

        J(a) = \sum_k t_k S_\varepsilon(a, a_k),

    which is convex [1]_: a share of one gives that measure back, and Gaussians keep their width. Without, it is that of
    :math:`\sum_k t_k \mathrm{OT}_\varepsilon(a, a_k) + \varepsilon \mathrm{KL}(a \,|\, u)`, with the uniform measure
    u of the same mass [2]_: a Gaussian gets wider by about `blur`.

    At a blur that is not small beside their details, a debiased barycenter of sharp images is a deconvolution: very
    different weights have nearly equal values. ``value`` and ``gap`` then say how good the weights are, and more
    iterations change them visibly and the value hardly.

    Weights and potentials are iterated in the log domain from high to low temperatures, and mixed as in `sinkhorn`.

    References
    ----------
    .. [1] Janati, Cuturi and Gramfort (2020), Debiased Sinkhorn barycenters, ICML. https://arxiv.org/abs/2006.02575
    .. [2] Benamou, Carlier, Cuturi, Nenna and Peyre (2015), Iterative Bregman projections for regularized
       transportation problems, SIAM J. Sci. Comput. 37. https://doi.org/10.1137/141000439

    Examples
    --------
    Halfway between two Gaussians is one of the same width:

    >>> import numpy as np
    >>> import epsot
    >>> grid = epsot.Grid(64)
    >>> (x,) = grid.axes
    >>> a = np.stack([np.exp(-((x - c) ** 2) / 32) for c in (16.0, 40.0)])
    >>> a /= a.sum(axis=1, keepdims=True)
    >>> middle = epsot.barycenter(grid, a, blur=2.0).weights
    >>> mean = middle @ x
    >>> mean.round(2), np.sqrt(middle @ (x - mean) ** 2).round(2)
    (np.float64(28.0), np.float64(4.0))
    """
    debias = as_flag("debias", debias)
    if not isinstance(support, Grid):  # what is wrong with points is said of the support
        as_points("support", support, common_place(support=support))
    geometry, scales = by_length(support, support, blur, p, None, None)
    options = as_options(scales.start, scaling, tol, max_iter, callback, None)
    if init is not None and not isinstance(init, BarycenterResult | BarycenterIntermediate):
        raise TypeError(f"`init` must be an earlier barycenter, got {type(init).__name__}")
    a = measures(a, axes_of_weights(support))
    shares = as_shares(t, a.shape[0] if hasattr(a, "shape") else len(a))
    instance = pose_barycenter(geometry, a, shares, eps=scales.eps, debias=debias, workers=workers)
    with until_the_end(callback):
        result = solve_barycenter(instance, options, init)
    if Status.MAX_ITER <= result.status <= Status.DIVERGED:
        warn(f"{result.status.name}: {result.message}", ConvergenceWarning)
    return result


def measures(a: Any, axes: int) -> Any:
    """The measures as an array with one axis more, or a list of arrays."""
    if a is None:
        raise TypeError("`a` must be an array of K measures, or a list of them, got None")
    if axes_of(a) != axes + 1:
        shape = tuple(getattr(a, "shape", ())) or f"{axes_of(a)} axes"
        raise ValueError(
            f"`a` must have one axis for the measures and {axes} for their weights, got {shape}; "
            "one measure is `a[None, ...]`"
        )
    if hasattr(a, "shape"):
        return a
    a = list(a)
    if not a or any(hasattr(z, "shape") for z in a):
        return a
    return as_numpy("a", a)
