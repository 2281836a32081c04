"""A transport loss as what `scipy.optimize.minimize` expects: flat float64 in, value, gradient and products out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from epsot.arguments import check_options
from epsot.arrays import (
    Place,
    as_choice,
    as_flag,
    as_points,
    as_positive,
    as_real,
    common_place,
    rounding_of,
    to_numpy,
)
from epsot.communicator import Communicator, Share, as_communicator
from epsot.costs import Array
from epsot.devices import device_aware
from epsot.geometry.grid import Grid, support_of, without_grids
from epsot.joining import serving
from epsot.lists import rows_of
from epsot.problems.weights import balancing, check_mass, checked_weights, joined_weights, penalties
from epsot.results.debiased import DivergenceResult
from epsot.results.hessian import Products
from epsot.results.result import SinkhornResult
from epsot.status import ConvergenceWarning
from epsot.transport import sinkhorn, sinkhorn_divergence
from epsot.variables import FreeWeights, Points, ScaledWeights, Softmax, Variable

MOST_STEPS = 1000  # of conjugate gradients, for a product


def joined_clouds(comm: Communicator, y: Any, b: Any, a: Any, x: Any) -> tuple[Any, Any, Any, Any]:
    """Points and weights of all ranks, of those of one; of grids every rank has all."""
    place = common_place(**without_grids(y=y, x=x), a=a, b=b)
    comm.check_equal(arrays=place.xp.__name__, y=type(y).__name__, b=b is None, a=a is None, x=type(x).__name__)
    comm = serving(comm, place)
    found = []
    for name, points, weights in (("y", y, b), ("x", x, a)):
        share: Share | None = None
        if isinstance(points, Grid):
            share, support = points.share(comm, weights), points.shape
        elif points is not None:
            cloud = as_points(name, points, place, finite=False, some=False) if comm.size > 1 else points
            share = comm.share(rows_of(cloud))
            support, points = (share.total,), share.joined(cloud)
        elif weights is not None and comm.size > 1:
            share = comm.share(rows_of(weights))
            support = (share.total,)
        found += [points, weights if share is None else joined_weights("b" if name == "y" else "a", weights, share,
                                                                       support, place)]  # fmt: skip
    y, b, x, a = found
    return y, b, a, x


@device_aware
class Objective:
    """The loss between a measure that moves and a fixed target, for `scipy.optimize.minimize` with ``jac=True``.

    Every call solves one problem, in the library of `y`, on its device and in its dtype, starting from the potentials
    of the call before. Of two grids, library and device are those of `b`, and the dtype is float64. `hessp` are
    products with the second derivatives, for the methods "trust-ncg", "trust-krylov" and "Newton-CG".

    Parameters
    ----------
    y : (m, d) array or Grid
        Points of the target.
    b : (m,) array, or of the shape of the grid, optional
        Weights of the target; by default uniform.
    blur : float
        As in `sinkhorn_divergence`.
    wrt : {"x", "a"}
        What the optimiser moves: the points of the source, or its weights.
    a : (n,) array, optional
        Weights of the source, for ``wrt="x"``; by default uniform.
    x : (n, d) array or Grid, optional
        Points of the source; needed for ``wrt="a"``.
    parametrization : {"softmax", "bounds"}
        How weights stay non-negative for ``wrt="a"``. "softmax": the variable is any z in R^n, and the weights are
        ``mass * exp(z) / sum(exp(z))``. "bounds": the variable holds the weights themselves; pass ``bounds=obj.bounds``
        to the optimiser. Without `reach` they are rescaled to the mass of the target.
    debias : bool
        Whether the loss is the Sinkhorn divergence (default) or the biased transport cost.
    tol : float or None
        As in `sinkhorn_divergence`; tighter by default, since line searches compare close values.
    hessian_tol : float
        The residual of the linear system behind a product of `hessp`, as `tol` of `SinkhornResult.hessian`. At 1e-3 a
        product takes as long as a solve or less, which is good enough for "trust-ncg".
    p, reach, diameter, scaling, max_iter, workers
        As in `sinkhorn_divergence`.
    comm : mpi4py.MPI.Intracomm, optional
        Processes that share the pairs: `y`, `b`, `a` and `x` are blocks of this one. The vector that the optimiser
        moves is whole, the same on all of them, and so is the gradient: every process runs the same optimiser.

    Attributes
    ----------
    last : DivergenceResult or SinkhornResult or None
        The result of the last call.
    calls : int
        The number of calls so far.

    Raises
    ------
    ValueError, TypeError
        As in `sinkhorn_divergence`; for ``wrt="a"`` without `x`; on a call with a vector of the wrong size.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.optimize import minimize
    >>> import epsot
    >>> rng = np.random.default_rng(0)
    >>> y = rng.random((50, 2))
    >>> obj = epsot.Objective(y, blur=0.1)
    >>> x0 = rng.random((40, 2)) + [2.0, 0.0]
    >>> found = minimize(obj, x0.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 20})
    >>> bool(found.fun < 1e-3)
    True
    >>> obj.variable(found.x).shape
    (40, 2)

    With second derivatives, in fewer steps:

    >>> found = minimize(obj, x0.ravel(), jac=True, hessp=obj.hessp, method="trust-ncg", options={"maxiter": 8})
    >>> bool(found.fun < 1e-3)
    True
    """

    def __init__(
        self,
        y: Any,
        b: Any = None,
        *,
        blur: float,
        wrt: Literal["x", "a"] = "x",
        a: Any = None,
        x: Any = None,
        parametrization: Literal["softmax", "bounds"] = "softmax",
        debias: bool = True,
        p: float = 2,
        reach: Any = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        tol: float | None = 1e-5,
        hessian_tol: float = 1e-6,
        max_iter: int = 1000,
        workers: int | None = None,
        comm: Any = None,
    ) -> None:
        ranks = as_communicator(comm)
        options: dict[str, Any] = {
            "blur": blur, "p": p, "reach": reach, "diameter": diameter, "scaling": scaling, "tol": tol,
            "max_iter": max_iter, "workers": workers,
        }  # fmt: skip
        with ranks.together():
            check_moved(wrt, parametrization, x, a)
            self.wrt, self.parametrization, self.balanced = wrt, parametrization, reach is None
            self._pose(*joined_clouds(ranks, y, b, a, x), reach)
            self.hessian_tol = as_positive("hessian_tol", hessian_tol)
            self._loss: Callable[..., Any] = sinkhorn_divergence if as_flag("debias", debias) else sinkhorn
            same = {**options, "workers": 0}  # which ranks may choose for themselves
            ranks.check_equal(wrt=wrt, parametrization=parametrization, debias=debias, **same)
            check_options(self.y if isinstance(self.y, Grid) else self.y[:1, :], **options)
            self._options = {**options, "comm": ranks.whole()}
        self.last: SinkhornResult | DivergenceResult | None = None
        self.calls = 0
        self._known: list[tuple[np.ndarray, Any]] = []  # vectors and their results, the last first

    def _pose(self, y: Any, b: Any, a: Any, x: Any, reach: Any) -> None:
        """Check the measures, and keep copies of them."""
        self.place = common_place(**without_grids(y=y, b=b, a=a, x=x))
        own = self.place.handed_out  # a copy
        target: Any = y if isinstance(y, Grid) else as_points("y", y, self.place)
        weights = target_weights(b, a, self.wrt, reach, support_of(target), self.place)
        self.y: Any = y if isinstance(y, Grid) else own(target)
        self.b = own(self.place.xp.reshape(weights, support_of(target)), copy=False)
        self.x = x if x is None or isinstance(x, Grid) else own(as_points("x", x, self.place))
        self.a = None if a is None else own(as_real("a", a, self.place))
        dtype = self.place.xp.float64 if isinstance(y, Grid) else target.dtype
        self._variable = self._moved(float(self.place.xp.sum(weights)), dtype)

    def _moved(self, mass: float, dtype: Any) -> Variable:
        """What the optimiser moves; weights of a balanced loss, and of a softmax, have the mass of the target."""
        if self.x is None:
            return Points(self.place, self.y.dimension if isinstance(self.y, Grid) else self.y.shape[1], dtype)
        place, shape = self.place, support_of(self.x)
        if self.parametrization == "softmax":
            return Softmax(place, shape, mass)
        return ScaledWeights(place, shape, mass) if self.balanced else FreeWeights(place, shape)

    def __repr__(self) -> str:
        shown = {name: value for name, value in self._options.items() if name != "comm" and value is not None}
        told = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"Objective({tuple(self.y.shape)}, wrt={self.wrt!r}, {told}, calls={self.calls})"

    @property
    def bounds(self) -> Any:
        """`scipy.optimize.Bounds` that keep weights non-negative, or None where nothing needs them."""
        if self.wrt == "x" or self.parametrization == "softmax":
            return None
        from scipy.optimize import Bounds

        return Bounds(0, np.inf)

    def variable(self, z: Any) -> Array:
        """The points (n, d), or weights (n,) or of the shape of a grid, of a flat vector; in the library of `y`.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> rng = np.random.default_rng(0)
        >>> objective = epsot.Objective(rng.random((50, 2)), blur=0.1)
        >>> x = rng.random((40, 2))
        >>> bool((objective.variable(x.ravel()) == x).all())
        True
        """
        flat = self.place.xp.asarray(numbers("z", z), dtype=self.place.xp.float64, device=self.place.device)
        if flat.ndim != 1:
            raise ValueError(f"`z` must be a flat vector, got shape {tuple(flat.shape)}; pass `x0.ravel()`")
        return self._variable.at(flat)

    def __call__(self, z: Any) -> tuple[float, np.ndarray]:
        """The value and the flat gradient at a flat float64 vector.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> rng = np.random.default_rng(0)
        >>> objective = epsot.Objective(rng.random((50, 2)), blur=0.1)
        >>> x = rng.random((40, 2))
        >>> value, gradient = objective(x.ravel())
        >>> value > 0, gradient.shape
        (True, (80,))
        """
        variable, result = self._solved(z)
        self.last = result
        self.calls += 1
        gradient = self._variable.gradient(np.asarray(z, dtype=np.float64), flat_of(variable), self._slope(result))
        return float(result.value64), gradient

    def hessp(self, z: Any, p: Any) -> np.ndarray:
        """The product of the second derivatives at a flat vector with another.

        At one of the last two vectors that were called, or asked of here, it needs no solve: an optimiser that rejects
        a step comes back to the vector before.

        Parameters
        ----------
        z : (size,) array
            Where.
        p : (size,) array
            The direction, or (size, 1).

        Returns
        -------
        (size,) float64 array
            The change of the gradient along p.

        Raises
        ------
        ValueError
            If a vector has a wrong size.

        Warns
        -----
        ConvergenceWarning
            If the linear system is not solved to `hessian_tol`.

        Examples
        --------
        >>> import numpy as np
        >>> import epsot
        >>> rng = np.random.default_rng(0)
        >>> objective = epsot.Objective(rng.random((50, 2)), blur=0.1, tol=1e-10)
        >>> x = rng.random((40, 2))
        >>> z, p = x.ravel(), rng.normal(size=80)
        >>> ahead, behind = (objective(z + s * p)[1] for s in (1e-4, -1e-4))
        >>> bool(np.allclose(objective.hessp(z, p), (ahead - behind) / 2e-4, atol=1e-6))
        True
        """
        z, p = numbers("z", z), numbers("p", p).reshape(-1)
        if p.shape != z.shape:
            raise ValueError(f"`p` must have the size of `z`, {z.size}, got {p.size}")
        found = [result for known, result in self._known if known.shape == z.shape and np.array_equal(known, z)]
        variable, result = (self.variable(z), found[0]) if found else self._solved(z)
        slope, turn = partial(self._slope, result), partial(self._product, result)
        return self._variable.product(z, p, flat_of(variable), slope, turn)

    def _solved(self, z: Any) -> tuple[Array, Any]:
        """The points or weights at a vector, and the result there, which is kept beside the one before."""
        variable = self.variable(z)
        result = self._solve(*((variable, self.a) if self.wrt == "x" else (self.x, variable)))
        self._known = [(np.array(z, dtype=np.float64), result), *self._known[:1]]
        return variable, result

    def _slope(self, result: Any) -> np.ndarray:
        """The gradient in the points or the weights themselves, in float64."""
        return flat_of(getattr(result, f"grad_{self.wrt}"))

    def _product(self, result: Any, direction: np.ndarray) -> np.ndarray:
        """The change of the gradient in the points or the weights themselves, in float64."""
        place = self.place._replace(home=None)
        products = Products(result, self.wrt, self.wrt, self.hessian_tol, MOST_STEPS, place)
        column = place.xp.asarray(direction[:, None], dtype=place.xp.float64, device=place.device)
        change: np.ndarray = to_numpy(products.product(column))[:, 0]
        return change

    def _solve(self, x: Array, a: Any) -> Any:
        """Warm first; where that does not converge (the points moved far), cold, and then with a warning."""
        warm = self._options["tol"] is not None  # what a schedule ends with depends on where it begins
        if warm and self.last is not None and self.last.instance.geometry.supports[0] == support_of(x):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                result = self._loss(x, self.y, a, self.b, init=self.last, **self._options)
            if result.success:
                return result
        return self._loss(x, self.y, a, self.b, **self._options)


def check_moved(wrt: Any, parametrization: Any, x: Any, a: Any) -> None:
    """Raise where it is not said what the optimiser moves, and over which points."""
    as_choice("wrt", wrt, ("x", "a"))
    as_choice("parametrization", parametrization, ("softmax", "bounds"))
    if wrt == "a" and x is None:
        raise ValueError('`x` is needed with wrt="a": the points whose weights are sought')
    if (x if wrt == "x" else a) is not None:
        raise ValueError(f"`{wrt}` is what the optimiser moves with wrt={wrt!r}; pass it to the optimiser as x0")


def target_weights(b: Any, a: Any, wrt: str, reach: Any, shape: tuple[int, ...], place: Place) -> Array:
    """Those of the target, flat; balanced, of the mass of the source, up to the rounding of what is given."""
    weights = checked_weights("b", b, shape, place)
    # where nothing says what mass is worth, or all of it is that of the target
    bound = None if wrt == "a" else penalties("reach", reach)[0]
    check_mass("b", weights, bound, "reach", place)
    if reach is not None or wrt == "a" or b is None:
        return weights
    mass = 1.0 if a is None else float(place.xp.sum(checked_weights("a", a, (a.shape[0],), place)))
    return weights * balancing(mass, float(place.xp.sum(weights)), max(rounding_of(a), rounding_of(b)), "reach")


def flat_of(array: Array) -> np.ndarray:
    """Its numbers in float64, row by row."""
    return to_numpy(array).astype(np.float64).ravel()


def numbers(name: str, vector: Any) -> np.ndarray:
    """A vector of an optimiser, copied, in float64."""
    try:
        if np.iscomplexobj(vector):
            raise TypeError
        return np.array(vector, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be an array of real numbers, got a {type(vector).__name__}") from None
