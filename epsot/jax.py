"""JAX: transport losses under grad, jit and vmap, differentiable once and twice.

A call is a callback: epsot computes on the host, from views of the arrays where they lie in its memory. The first
derivatives are the gradients of the result, which come along with the value; the second are its Hessian products. There
is no third: what would need one raises. Where `jax.vmap` maps, the mapped axis becomes one of the batch.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError("`epsot.jax` needs JAX, which `pip install epsot[jax]` brings") from error
from jax.custom_derivatives import SymbolicZero

import epsot
from epsot.bridges import AXES, MEASURES, Names, residual

__all__ = ["sinkhorn", "sinkhorn_divergence"]

Array = Any

TRACED = "traced"  # in the place of an option that is an array
REMEMBERED = 8  # solves that wait for a product with their Hessian


def sinkhorn(x: Array, y: Array, a: Array = None, b: Array = None, **options: Any) -> Array:
    """`epsot.sinkhorn` for JAX: the value, with a derivative in the points and the weights.

    Parameters
    ----------
    x, y : (..., n, d) and (..., m, d) arrays
        Points; leading axes of all arguments broadcast.
    a, b : (..., n) and (..., m) arrays, optional
        Non-negative weights; by default uniform.
    **options
        Those of `epsot.sinkhorn` but `init` and `callback`. `blur`, `reach` and `diameter` may be traced, but have no
        derivative.

    Returns
    -------
    array of the shape of the batch
        ``epsot.sinkhorn(x, y, a, b, **options).value``.

    Raises
    ------
    TypeError
        Where a derivative in an option, or a third one, would be needed.
    ValueError
        As `epsot.sinkhorn`; within `jax.jit`, an error of JAX with its message.

    See Also
    --------
    sinkhorn_divergence : The debiased loss.

    Notes
    -----
    The gradient is that of the result, up to the tolerance of the solve, and the second derivative its
    `~epsot.SinkhornResult.hessian`. In the weights of a balanced problem both are known up to a constant, and hold for
    weights whose sum does not change: behind a softmax, for example.

    Examples
    --------
    >>> import jax
    >>> import epsot.jax
    >>> x = jax.numpy.asarray([[0.0, 0.0], [1.0, 0.0]])
    >>> jax.jit(jax.grad(epsot.jax.sinkhorn), static_argnames="blur")(x, x + 1, blur=0.1).round(3)
    Array([[-0.5, -0.5],
           [-0.5, -0.5]], dtype=float32)
    """
    return differentiable(epsot.sinkhorn, (x, y, a, b), options)


def sinkhorn_divergence(x: Array, y: Array, a: Array = None, b: Array = None, **options: Any) -> Array:
    """`epsot.sinkhorn_divergence` for JAX: the value, with a derivative in the points and the weights.

    Parameters
    ----------
    x, y, a, b, **options
        As in `sinkhorn`; the options are those of `epsot.sinkhorn_divergence`.

    Returns
    -------
    array of the shape of the batch
        ``epsot.sinkhorn_divergence(x, y, a, b, **options).value``.

    Raises
    ------
    TypeError, ValueError
        As in `sinkhorn`.

    Examples
    --------
    Three problems, one of which is already solved:

    >>> import jax
    >>> import epsot.jax
    >>> y = jax.random.uniform(jax.random.key(0), (50, 2))
    >>> loss = lambda shift: epsot.jax.sinkhorn_divergence(y + shift, y, blur=0.1)
    >>> jax.vmap(jax.value_and_grad(loss))(jax.numpy.arange(3.0))[1].round(2)
    Array([0., 2., 4.], dtype=float32)
    """
    return differentiable(epsot.sinkhorn_divergence, (x, y, a, b), options)


@dataclass(frozen=True)
class Loss:
    """What of a call is no array."""

    solve: Callable[..., Any]
    names: Names  # of the measures that are given
    structure: Any  # of the options
    fixed: tuple[Any, ...]  # the options in order, TRACED where they come as arrays

    def options(self, scales: Iterable[np.ndarray]) -> dict[str, Any]:
        """Those of the solve."""
        given = (z.item() if z.ndim == 0 else z for z in scales)
        leaves = [next(given) if leaf is TRACED else leaf for leaf in self.fixed]
        options: dict[str, Any] = jax.tree.unflatten(self.structure, leaves)
        return options

    def run(self, measures: Iterable[np.ndarray], scales: Iterable[np.ndarray]) -> Any:
        """The result."""
        return self.solve(**dict(zip(self.names, measures, strict=True)), **self.options(scales))

    def batch(self, measures: Iterable[Array], scales: Iterable[Array]) -> tuple[int, ...]:
        """The shape of the batch."""
        shapes = [z.shape[: -AXES[name]] for name, z in zip(self.names, measures, strict=True)]
        return np.broadcast_shapes(*shapes, *(z.shape for z in scales))

    def like(self, wrt: Names, measures: tuple[Array, ...], scales: tuple[Array, ...]) -> tuple[Any, ...]:
        """What belongs to the measures of these names, for each problem."""
        batch, found = self.batch(measures, scales), dict(zip(self.names, measures, strict=True))
        return tuple(
            jax.ShapeDtypeStruct((*batch, *found[name].shape[-AXES[name] :]), found[name].dtype) for name in wrt
        )


def differentiable(solve: Callable[..., Any], given: tuple[Any, ...], options: dict[str, Any]) -> Array:
    """The value of a solve as a function of the measures."""
    for name in ("init", "callback"):
        if options.get(name) is not None:
            raise TypeError(f"`{name}` must be None here: it belongs to one solve, and JAX decides how many there are")
    known = {name: z for name, z in zip(MEASURES, given, strict=True) if z is not None or name in "xy"}
    names, (structure, fixed, scales) = tuple(known), traced_apart(options)
    measures, scales = of_one_depth(names, as_arrays(known), scales)
    return evaluate(Loss(solve, names, structure, fixed), (), False, tuple(measures), tuple(scales))[0]


def traced_apart(options: dict[str, Any]) -> tuple[Any, tuple[Any, ...], list[Array]]:
    """The structure of the options, what of them is fixed, and those that are arrays."""
    leaves, structure = jax.tree.flatten(options)
    traced = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    fixed = tuple(TRACED if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True))
    return structure, fixed, [jnp.asarray(leaf) for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]


def of_one_depth(names: Names, measures: list[Array], scales: list[Array]) -> tuple[list[Array], list[Array]]:
    """All with as many axes of the batch: vmap puts its own in front of all alike."""
    own = [AXES[name] for name in names]
    depth = max([z.ndim - axes for z, axes in zip(measures, own, strict=True)] + [z.ndim for z in scales])
    if not depth:
        return measures, scales
    deep = [deepened(z, depth + axes) for z, axes in zip(measures, own, strict=True)]
    return deep, [deepened(z, depth) for z in scales]


def as_arrays(given: dict[str, Any]) -> list[Array]:
    """Points of one floating-point type, weights of any; half precision becomes float32."""
    measures: dict[str, Array] = {}
    for name, z in given.items():
        if isinstance(z, epsot.Grid):
            raise TypeError(f"`{name}` must be an array here, got a Grid; pass its `points`, and flat weights")
        measures[name] = z if isinstance(z, jax.Array) else jnp.asarray(z)
        if measures[name].ndim < AXES[name]:
            shape = "(..., n, d)" if name in "xy" else "(..., n)"
            raise ValueError(f"`{name}` must be an array of shape {shape}, got shape {measures[name].shape}")
    points = jnp.promote_types(jnp.result_type(measures["x"], measures["y"]), jnp.float32)
    return [as_dtype(z, points if name in "xy" else dtype_of_weights(z, points)) for name, z in measures.items()]


def dtype_of_weights(weights: Array, points: Any) -> Any:
    """Their own, at least float32; of whole numbers that of the points."""
    floating = jnp.issubdtype(weights.dtype, jnp.floating)
    return jnp.promote_types(weights.dtype, jnp.float32) if floating else points


def as_dtype(array: Array, dtype: Any) -> Array:
    """Without an operation where there is nothing to do."""
    return array if array.dtype == dtype else array.astype(dtype)


def deepened(array: Array, ndim: int) -> Array:
    """With axes of length 1 in front."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def call(function: Callable[..., Any], like: Any, *args: Any) -> Any:
    """A function of the host: at once where all arrays have numbers, else when they have."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        return jax.pure_callback(function, like, *args, vmap_method="expand_dims")
    return jax.tree.map(jnp.asarray, function(*args))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def evaluate(loss: Loss, wrt: Names, keep: bool, measures: Any, scales: Any) -> tuple[Array, tuple[Array, ...]]:
    """The value of each problem, and the slopes in the measures of these names, also in what problems share."""
    value = jax.ShapeDtypeStruct(loss.batch(measures, scales), measures[0].dtype)
    slopes = loss.like(wrt, measures, scales)
    found: tuple[Array, tuple[Array, ...]] = call(
        partial(solve_on_host, loss, wrt, keep), (value, slopes), measures, scales
    )
    return found


@partial(evaluate.defjvp, symbolic_zeros=True)
def evaluate_jvp(loss: Loss, wrt: Names, keep: bool, primals: Any, tangents: Any) -> Any:
    """The value moves by <slope, direction>, slopes by Hessian products."""
    (measures, scales), (moves, moves_of_scales) = primals, tangents
    refuse(moves_of_scales, "a transport loss has no derivative in its options here")
    along = tuple(name for name, z in zip(loss.names, moves, strict=True) if not isinstance(z, SymbolicZero))
    every = tuple(name for name in loss.names if name in (*wrt, *along))
    value, found = evaluate(loss, every, keep or bool(wrt), measures, scales)
    slopes, moved = dict(zip(every, found, strict=True)), dict(zip(loss.names, moves, strict=True))
    parts = [as_dtype(jnp.sum(slopes[n] * moved[n], axis=tuple(range(-AXES[n], 0))), value.dtype) for n in along]
    moved_value = reduce(operator.add, parts) if parts else jnp.zeros_like(value)
    directions = tuple(jnp.broadcast_to(moved[name], slopes[name].shape) for name in along) if wrt else ()
    moved_slopes = multiply(loss, wrt, along, measures, scales, directions) if wrt else ()
    return (value, tuple(slopes[name] for name in wrt)), (moved_value, moved_slopes)


def multiply(loss: Loss, of: Names, along: Names, measures: Any, scales: Any, directions: Any) -> tuple[Array, ...]:
    """H[of, along] directions, summed over `along`, of each problem.

    `custom_linear_solve` is what JAX has for a linear function with a transpose of its own that can be mapped. The
    system is the identity; what it is guarded by stays with all that JAX makes of the function. Numbers of all measures
    lie in one vector.
    """
    every = tuple(name for name in loss.names if name in (*of, *along))
    like = dict(zip(every, loss.like(every, measures, scales), strict=True))
    ends = np.cumsum([math.prod(like[name].shape[-AXES[name] :]) for name in every])[:-1].tolist()
    batch, dtype = loss.batch(measures, scales), jnp.result_type(*(z.dtype for z in like.values()))

    def joined(names: Names, tensors: Iterable[Array]) -> Array:
        found = dict(zip(names, tensors, strict=True))
        parts = (found[n] if n in found else jnp.zeros(z.shape, z.dtype) for n, z in like.items())
        return jnp.concat([as_dtype(z, dtype).reshape(*batch, -1) for z in parts], axis=-1)

    def split(names: Names, vector: Array) -> tuple[Array, ...]:
        parts = dict(zip(every, jnp.split(vector, ends, axis=-1), strict=True))
        return tuple(as_dtype(parts[name].reshape(like[name].shape), like[name].dtype) for name in names)

    def block(of: Names, along: Names) -> Callable[..., Array]:
        def product(_: Any, vector: Array) -> Array:
            shapes = tuple(like[name] for name in of)
            host = partial(multiply_on_host, loss, of, along)
            return joined(of, call(host, shapes, measures, scales, split(along, vector)))

        return product

    identity = partial(guarded, (measures, scales))
    vector = jax.lax.custom_linear_solve(
        identity, joined(along, directions), block(of, along), transpose_solve=block(along, of), symmetric=True
    )
    return split(of, vector)


@jax.custom_jvp
def guarded(measures: Any, vector: Array) -> Array:
    """The vector as it is: products are linear in it, and what changes with the measures is not known."""
    return vector


@partial(guarded.defjvp, symbolic_zeros=True)
def guarded_jvp(primals: Any, tangents: Any) -> Any:
    """The vector's; the measures have none."""
    refuse(tangents[0], "a transport loss has no third derivative here")
    move = tangents[1]
    return primals[1], jnp.zeros(move.shape, move.dtype) if isinstance(move, SymbolicZero) else move


def refuse(tangents: Any, what: str) -> None:
    """Raise where a derivative would be zero in silence."""
    leaves = jax.tree.leaves(tangents, is_leaf=lambda z: isinstance(z, SymbolicZero))
    if not all(isinstance(z, SymbolicZero) or z.dtype == jax.dtypes.float0 for z in leaves):
        raise TypeError(f"{what}; `jax.lax.stop_gradient` makes a constant")


class Solves:
    """The last solves, which products with their Hessian look up by what was solved."""

    def __init__(self) -> None:
        self.last: deque[tuple[Loss, list[np.ndarray], Any]] = deque(maxlen=REMEMBERED)

    def add(self, loss: Loss, arrays: list[np.ndarray], result: Any) -> None:
        self.last.append((loss, [z.copy() for z in arrays], result))  # JAX reuses its memory

    def find(self, loss: Loss, arrays: list[np.ndarray]) -> Any:
        """The result of a solve of the same numbers, or None."""
        for other, known, result in list(self.last):
            if other == loss and all(map(np.array_equal, known, arrays)):
                return result
        return None


solves = Solves()


def solve_on_host(loss: Loss, wrt: Names, keep: bool, measures: Any, scales: Any) -> Any:
    """What `evaluate` returns, of NumPy's views."""
    measures, scales = [np.asarray(z) for z in measures], [np.asarray(z) for z in scales]
    result = loss.run(measures, scales)
    if keep:
        solves.add(loss, measures + scales, result)
    dtypes = dict(zip(loss.names, (z.dtype for z in measures), strict=True))
    slopes = tuple(np.asarray(getattr(result, f"grad_{name}"), dtype=dtypes[name]) for name in wrt)
    return np.asarray(result.value), slopes


def multiply_on_host(loss: Loss, of: Names, along: Names, measures: Any, scales: Any, directions: Any) -> Any:
    """What `multiply` returns. Axes of the batch along which problems are the same hold more directions."""
    measures, scales = [np.asarray(z) for z in measures], [np.asarray(z) for z in scales]
    columns = dict(zip(along, map(np.asarray, directions), strict=True))
    result = solves.find(loss, measures + scales)
    if result is None:
        result = loss.run(measures, scales)
        solves.add(loss, measures + scales, result)
    own, tol = loss.batch(measures, scales), residual(loss.options(scales), measures[0].dtype)
    batch = columns[along[0]].shape[: -AXES[along[0]]]
    like = {name: (z.shape[-AXES[name] :], z.dtype) for name, z in zip(loss.names, measures, strict=True)}
    found = {name: np.empty((*batch, *like[name][0]), like[name][1]) for name in of}
    for k in np.ndindex(own):
        item = result[k] if own else result
        part = tuple(slice(None) if length == 1 else index for index, length in zip(k, own, strict=True))
        for name, out in found.items():
            parts = (product(item.hessian(name, other, tol=tol), z[part], AXES[other]) for other, z in columns.items())
            out[part] = reduce(operator.add, parts).reshape(out[part].shape)
    return tuple(found.values())


def product(hessian: Any, directions: np.ndarray, axes: int) -> np.ndarray:
    """A Hessian applied to each of some directions.  -> (k, size)"""
    rows = directions.reshape(-1, math.prod(directions.shape[-axes:]))
    found: np.ndarray = (hessian @ rows.T).T
    return found
