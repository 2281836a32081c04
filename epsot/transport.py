"""The two ways in: by length (`sinkhorn`, `sinkhorn_divergence`) and by temperature (`solve`, `divergence`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from epsot.arguments import as_options, is_batch
from epsot.communicator import Communicator, as_communicator
from epsot.devices import on_array_device
from epsot.drivers.choice import Init, solve_divergence, solve_transport
from epsot.drivers.many import ManyOptions, solve_divergences, solve_transports
from epsot.drivers.options import Options, until_the_end
from epsot.drivers.starts import as_start, as_starts
from epsot.geometry import Geometry
from epsot.geometry.batches import Geometries
from epsot.geometry.grid import are_many, axes_of_weights
from epsot.joining import Joining
from epsot.pictures import warn_of_pictures
from epsot.problems.batch import pose_batch
from epsot.problems.instance import Instance, check_workers, pose
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult
from epsot.scales import ManyScales, Scales, by_length, by_temperature, many_by_length, many_by_temperature
from epsot.status import ConvergenceWarning, Status, warn

NAMED = 10  # items that a warning lists

AnyResult = TypeVar("AnyResult", SinkhornResult, DivergenceResult)


@on_array_device
def sinkhorn(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    blur: float,
    p: float = 2,
    reach: Any = None,
    diameter: float | None = None,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    init: Init = None,
    callback: Callable[[Any], object] | None = None,
    workers: int | None = None,
    comm: Any = None,
) -> SinkhornResult | Any:  # many problems: BatchResult
    r"""Entropic optimal transport between two weighted point clouds, with scales given as lengths.

    Parameters
    ----------
    x : (..., n, d) array, list of (n_k, d) arrays, or Grid
        Points of the source, float32 or float64 of any array-API library (lists and integers become float64, half
        precision float32). Leading axes of all arguments broadcast, and a list holds clouds of different sizes: many
        problems, each solved as it would be alone. A Grid stands for its nodes.
    y : (..., m, d) array, list of (m_k, d) arrays, or Grid
        Points of the target.
    a : (..., n) array, or list of (n_k,) arrays, optional
        Non-negative weights of the source; by default 1 / n each. All of them may be zero where `reach` says what the
        mass of the target is worth. Over a Grid they have its shape in place of the axis of n.
    b : (..., m) array, or list of (m_k,) arrays, optional
        Non-negative weights of the target; by default 1 / m each.
    blur : float, or array of the batch shape
        The scale below which details do not count, in the units of the points: ``eps = blur**p``.
    p : {2, 1}
        The cost is ``|x - y|**p / p``.
    reach : float, array of the batch shape, or pair of these, optional
        How far mass may travel before it is cheaper to lose it, ``rho = reach**p``; a tuple or list of two has one for
        each side; None, or inf in an array, is balanced.
    diameter : float, or array of the batch shape, optional
        The scale at which annealing starts; by default the diagonal of the joint bounding box.
    scaling : float
        The factor, in (0, 1), by which the scale falls from one temperature to the next.
    tol : float or None
        The marginal error to reach at the target scale. None runs the schedule once and stops, with one symmetric
        update a temperature: `scaling` alone then trades speed for accuracy.
    max_iter : int
        The largest number of iterations, annealing included; one iteration updates both sides.
    init : result of one of the four functions, pair of potentials (f, g), or record of a callback, optional
        What to start from, of one problem or of as many: an earlier result, loaded from a file or not, (n,) and (m,)
        arrays of any library over these points, or what a callback has saved. It never changes what is converged to.
    callback : callable, optional
        ``callback(intermediate)`` after every iteration, with ``nit``, ``eps``, ``marginal_error``, ``f`` and ``g``;
        raising StopIteration stops the solve. Its ``save(path)`` keeps it for ``init=epsot.load(path)``, its
        ``progress`` in [0, 1] says how far the solve has come. See `epsot.ProgressBar`.
    workers : int, optional
        Threads of the CPU kernels: None or -1 is all usable cores, 1 is serial. Results do not depend on it.
    comm : mpi4py.MPI.Intracomm, optional
        Processes that share the pairs, such as ``MPI.COMM_WORLD``; all of them make the same call. `x`, `y`, `a`, `b`
        are then the blocks of this process, of any sizes, none too, and so is what belongs to points in the result,
        which has the bits that one process finds. See :doc:`/processes`.

    Returns
    -------
    SinkhornResult
        Value, potentials, gradients, plan and certificate, in the library, device and dtype of the points, between two
        grids of the weights. Of many problems a `BatchResult`: the same names, batch axes first, and ``result[k]`` is
        one of them.

    Raises
    ------
    ValueError
        For a bad value: shapes that do not fit, non-finite points, negative weights, unequal masses without `reach`,
        a scale that is not positive.
    TypeError
        For arrays of different libraries or devices, or that are not real.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached; of many problems it names those that have missed it.
    UserWarning
        If a tensor requires grad: nothing is recorded, gradients come from the result. If points look like a picture,
        an array of bytes, whose rows would be taken for clouds.

    See Also
    --------
    sinkhorn_divergence : The debiased loss, which is zero for equal measures.
    solve : The same by temperature, for any cost.
    pairwise : All pairs of many measures.
    Grid : Images, volumes and histograms.

    Notes
    -----
    The value is that of

    .. math::

        \min_{P \ge 0} \langle P, C \rangle + \varepsilon \mathrm{KL}(P \,|\, a b^T)
        + \rho_a \mathrm{KL}(P 1 \,|\, a) + \rho_b \mathrm{KL}(P^T 1 \,|\, b),

    solved by annealed log-domain Sinkhorn iterations [1]_ [2]_. Several thousand points in at most three dimensions are
    solved from coarse to fine, see `epsot.geometry.Multiscale`: that changes the time, and the result by no more than
    `tol`. With ``tol=None`` every temperature sees all points.

    References
    ----------
    .. [1] Kosowsky and Yuille (1994), The invisible hand algorithm, Neural Networks 7.
       https://doi.org/10.1016/0893-6080(94)90081-7
    .. [2] Feydy (2020), Geometric data analysis, beyond convolutions, PhD thesis, chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.random((100, 2)), rng.random((120, 2)) + [1.0, 0.0]
    >>> result = epsot.sinkhorn(x, y, blur=0.05)
    >>> result.success
    True
    >>> result.plan.shape
    (100, 120)

    Many problems, here four clouds against one:

    >>> result = epsot.sinkhorn(rng.random((4, 30, 2)), y, blur=0.1)
    >>> result.value.shape, result.displacement.shape, result[0].plan.shape
    ((4,), (4, 30, 2), (30, 120))
    """
    return _by_length(
        solve_transport, x, y, a, b, blur, p, reach, diameter, init, workers, comm,
        scaling=scaling, tol=tol, max_iter=max_iter, callback=callback,
    )  # fmt: skip


@on_array_device
def sinkhorn_divergence(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    blur: float,
    p: float = 2,
    reach: Any = None,
    diameter: float | None = None,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    init: Init = None,
    callback: Callable[[Any], object] | None = None,
    workers: int | None = None,
    comm: Any = None,
) -> DivergenceResult | Any:  # many problems: BatchDivergence
    r"""The unbiased Sinkhorn divergence between two weighted point clouds, with scales given as lengths.

    Parameters
    ----------
    x, y, a, b, blur, p, reach, diameter, scaling, tol, max_iter, init, callback, workers, comm
        As in `sinkhorn`; `callback` follows the transport between the two measures.

    Returns
    -------
    DivergenceResult
        The debiased value, potentials and gradients, and the three solves behind them. Of many problems, as in
        `sinkhorn`, a `BatchDivergence`.

    Raises
    ------
    ValueError, TypeError
        As in `sinkhorn`.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached in one of the three solves.

    See Also
    --------
    pairwise : The divergences between all pairs of many measures.
    permutation_test : Whether two samples come from one distribution.

    Notes
    -----
    .. math::

        S(a, b) = \mathrm{OT}(a, b) - \tfrac12 \mathrm{OT}(a, a) - \tfrac12 \mathrm{OT}(b, b)
        + \tfrac{\varepsilon}{2} (m_a - m_b)^2

    is positive, zero only for equal measures, and convex in each (Feydy et al. 2019 [1]_, Sejourne et al. 2019 [2]_).
    Equal inputs give exactly zero.

    References
    ----------
    .. [1] Feydy, Sejourne, Vialard, Amari, Trouve and Peyre (2019), Interpolating between optimal transport and MMD
       using Sinkhorn divergences, AISTATS. https://arxiv.org/abs/1810.08278
    .. [2] Sejourne, Feydy, Vialard, Trouve and Peyre (2019), Sinkhorn divergences for unbalanced optimal transport.
       https://arxiv.org/abs/1910.12958

    Examples
    --------
    A translation is recovered exactly:

    >>> import numpy as np
    >>> import epsot
    >>> x = np.random.default_rng(0).random((100, 2))
    >>> result = epsot.sinkhorn_divergence(x, x + [2.0, 1.0], blur=0.1, tol=1e-6)
    >>> result.value.round(4)
    np.float64(2.5)
    >>> bool(np.allclose(result.displacement, [2.0, 1.0], atol=1e-4))
    True
    """
    return _by_length(
        solve_divergence, x, y, a, b, blur, p, reach, diameter, init, workers, comm,
        scaling=scaling, tol=tol, max_iter=max_iter, callback=callback,
    )  # fmt: skip


@on_array_device
def solve(
    geometry: Geometry,
    a: Any = None,
    b: Any = None,
    *,
    eps: float,
    rho: Any = None,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    init: Init = None,
    callback: Callable[[Any], object] | None = None,
    workers: int | None = None,
    comm: Any = None,
) -> SinkhornResult | Any:  # many problems: BatchResult
    """Entropic optimal transport for any cost, with scales given as temperatures.

    Parameters
    ----------
    geometry : PointCloud, Multiscale, CostMatrix or another Geometry
        The cost, of shape (n, m). `epsot.geometry.Multiscale` is a PointCloud that is solved from coarse to fine, and
        `epsot.geometry.Geometry` the base of a structure of your own. A PointCloud of clouds with leading axes or in
        lists, or a CostMatrix of (..., n, m), stands for many problems, as the arrays of `sinkhorn` do. A PointCloud of
        two grids is reduced along the axes, where its cost is a sum over these.
    a, b : (..., n) and (..., m) arrays, or lists of vectors, optional
        Non-negative weights; by default uniform. Leading axes make many problems of a PointCloud or a CostMatrix.
    eps : float, or array of the batch shape
        The temperature, in the units of the cost.
    rho : float, array of the batch shape, or pair of these, optional
        The marginal strength, in the units of the cost; None, or inf in an array, is balanced.
    scaling, tol, max_iter, init, callback, workers, comm
        As in `sinkhorn`. The temperature falls by ``scaling**degree`` with the degree of the cost: 2 for squared
        distances, 1 for distances and matrices.

    Returns
    -------
    SinkhornResult
        As from `sinkhorn`; of many problems a `BatchResult`.

    Raises
    ------
    ValueError, TypeError
        As in `sinkhorn`.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> epsot.solve(epsot.CostMatrix(C), eps=0.01).plan.to_dense().round(3)
    array([[0.5, 0. ],
           [0. , 0.5]])

    One matrix and three pairs of weights:

    >>> a = np.asarray([[0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])
    >>> epsot.solve(epsot.CostMatrix(C), a, [0.5, 0.5], eps=0.01).transport_cost.round(2)
    array([0. , 0.3, 0.5])
    """
    return _by_temperature(
        solve_transport, geometry, a, b, eps, rho, init, workers, comm,
        scaling=scaling, tol=tol, max_iter=max_iter, callback=callback,
    )  # fmt: skip


@on_array_device
def divergence(
    geometry: Geometry,
    a: Any = None,
    b: Any = None,
    *,
    eps: float,
    rho: Any = None,
    scaling: float = 0.5,
    tol: float | None = 1e-3,
    max_iter: int = 1000,
    init: Init = None,
    callback: Callable[[Any], object] | None = None,
    workers: int | None = None,
    comm: Any = None,
) -> DivergenceResult | Any:  # many problems: BatchDivergence
    """The unbiased Sinkhorn divergence for any cost, with scales given as temperatures.

    Parameters
    ----------
    geometry : PointCloud, Multiscale, CostMatrix or another Geometry
        The cost; a CostMatrix needs its `C_xx` and `C_yy`.
    a, b, eps, rho, scaling, tol, max_iter, init, callback, workers, comm
        As in `solve`.

    Returns
    -------
    DivergenceResult
        As from `sinkhorn_divergence`; of many problems a `BatchDivergence`. It is known to be positive for costs whose
        kernel ``exp(-C / eps)`` is positive definite, among them all the named ones.

    Raises
    ------
    ValueError, TypeError
        As in `solve`, and for a CostMatrix without its self costs.

    Warns
    -----
    ConvergenceWarning
        If `tol` was not reached in one of the three solves.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x = np.asarray([[0.0], [1.0]])
    >>> float(epsot.divergence(epsot.PointCloud(x, x), eps=0.1).value)
    0.0
    """
    return _by_temperature(
        solve_divergence, geometry, a, b, eps, rho, init, workers, comm,
        scaling=scaling, tol=tol, max_iter=max_iter, callback=callback,
    )  # fmt: skip


MANY: dict[Any, Any] = {solve_transport: solve_transports, solve_divergence: solve_divergences}


def _by_length(
    drive: Callable[[Instance, Options, Init], AnyResult], x: Any, y: Any, a: Any, b: Any, blur: Any, p: Any,
    reach: Any, diameter: Any, init: Any, workers: Any, comm: Any, **options: Any,
) -> AnyResult:  # fmt: skip
    """One problem or many, with scales as lengths."""
    axes, ranks = (axes_of_weights(x), axes_of_weights(y)), as_communicator(comm)
    with ranks.together():
        warn_of_pictures(x=x, y=y)
        if are_many(x) or are_many(y) or is_batch(axes, a, b, (blur, diameter), reach):
            check_alone(ranks)
            clouds, weights, scales = many_by_length(x, y, a, b, blur, p, reach, diameter)
            found: AnyResult = _run_many(MANY[drive], clouds, weights, scales, init, workers, **options)
            return found
        check_options_equal(ranks, drive, init, blur=blur, p=p, reach=reach, diameter=diameter, **options)
        joining = Joining(ranks, a, b)
        geometry, one = by_length(x, y, blur, p, reach, diameter, joining)
        return _run(drive, geometry, joining, one, init, workers, **options)


def _by_temperature(
    drive: Callable[[Instance, Options, Init], AnyResult], geometry: Any, a: Any, b: Any, eps: Any, rho: Any, init: Any,
    workers: Any, comm: Any, **options: Any,
) -> AnyResult:  # fmt: skip
    """One problem or many, with scales as temperatures."""
    axes, ranks = (
        tuple(map(len, geometry.supports)) if isinstance(geometry, Geometry) else (1, 1),
        as_communicator(comm),
    )
    with ranks.together():
        if isinstance(geometry, Geometries) or (isinstance(geometry, Geometry) and is_batch(axes, a, b, (eps,), rho)):
            check_alone(ranks)
            many, weights, scales = many_by_temperature(geometry, a, b, eps, rho)
            found: AnyResult = _run_many(MANY[drive], many, weights, scales, init, workers, **options)
            return found
        check_options_equal(ranks, drive, init, eps=eps, rho=rho, **options)
        joining = Joining(ranks, a, b)
        whole = joining(geometry) if isinstance(geometry, Geometry) else geometry
        return _run(drive, whole, joining, by_temperature(whole, eps, rho), init, workers, **options)


def check_alone(comm: Communicator) -> None:
    """Raise where ranks would share many problems."""
    if comm.size > 1:
        raise TypeError(
            "many problems need no `comm`: give each process some of them, and leave it out; all pairs of many "
            "measures are shared out by `epsot.pairwise(..., comm=comm)`"
        )


def check_options_equal(comm: Communicator, drive: Any, init: Any, *, callback: Any, **options: Any) -> None:
    """Raise where ranks do not ask for the same; a callback may be that of some of them."""
    comm.check_equal(function=drive.__name__, init=type(init).__name__, **options)


def _run_many(
    drive: Any, geometry: Geometries, weights: tuple[Any, Any], scales: ManyScales, init: Any, workers: Any,
    **options: Any,
) -> Any:  # fmt: skip
    """`_run` of many problems: one warning names those that have missed the tolerance."""
    asked = as_options(0.0, init=init, **options)
    batch = pose_batch(geometry, *weights, eps=scales.eps, rho=scales.rho, rho_name=scales.name, workers=workers)
    init = as_starts(init, batch)
    with until_the_end(asked.callback):
        result = drive(batch, ManyOptions(asked, scales.start), init)
    missed = np.flatnonzero(((result.status >= Status.MAX_ITER) & (result.status <= Status.DIVERGED)).reshape(-1))
    if len(missed):
        warn(missed_message(result, missed), ConvergenceWarning)
    return result


def missed_message(result: Any, missed: np.ndarray) -> str:
    """How many items have missed the tolerance, which, and what would help the worst."""
    worst = int(missed[np.argmax(np.asarray(result.marginal_error).reshape(-1)[missed])])
    shape = result.shape
    names = [str(k if len(shape) < 2 else tuple(int(i) for i in np.unravel_index(k, shape))) for k in missed[:NAMED]]
    listed = ", ".join(names) + (", ..." if len(missed) > NAMED else "")
    item = result._item(worst)
    return (
        f"{len(missed)} of {result.status.size} problems have missed `tol`: {listed}; the worst, "
        f"{worst if len(shape) < 2 else tuple(int(i) for i in np.unravel_index(worst, shape))}, is "
        f"{item.status.name}: {item.message}"
    )


def _run(
    drive: Callable[[Instance, Options, Init], AnyResult], geometry: Geometry, joining: Joining, scales: Scales,
    init: Init, workers: Any, **options: Any,
) -> AnyResult:  # fmt: skip
    """Check what is left to check, set the problem up, and warn the caller where the tolerance was not reached."""
    comm, asked = joining.comm, as_options(scales.start, init=init, **options)
    check_workers(workers)
    instance = pose(
        geometry, *joining.weights, eps=scales.eps, rho=scales.rho, rho_name=scales.name,
        workers=comm.workers(workers), here=joining.here,
    )  # fmt: skip
    if not scales.fixed and instance.core is not instance.geometry:  # annealing starts at the scale of what has weight
        asked = replace(asked, start=min(asked.start, instance.core.scale()))
    init, watched = as_start(init, instance), comm.observing(asked.callback)
    with until_the_end(asked.callback):
        result = drive(instance, asked if watched is asked.callback else replace(asked, callback=watched), init)
    comm.prepare(result.prepare)
    if Status.MAX_ITER <= result.status <= Status.DIVERGED:
        warn(f"{result.status.name}: {result.message}", ConvergenceWarning)
    return result
