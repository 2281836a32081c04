"""Many problems as they are given in one call, and each as it is given alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.testing import assert_array_equal

import epsot
from tests.checks import close

ARRAYS = ("f", "g", "grad_x", "grad_y", "grad_a", "grad_b", "displacement")
NUMBERS = ("value", "marginal_error", "transport_cost", "dual", "primal", "gap")
ENDS = ("status", "nit", "success")
FINE: dict[str, Any] = {"tol": 1e-9, "max_iter": 5000}


@dataclass(frozen=True)
class Given:
    """The arguments of one call, and those of its problems, in the order of their indices."""

    together: dict[str, Any]
    alone: list[dict[str, Any]]
    shape: tuple[int, ...]

    def but(self, **options: Any) -> Given:
        """With options that all have in common."""
        return replace(self, together=self.together | options, alone=[one | options for one in self.alone])


def weights(rng: np.random.Generator, n: int, mass: float = 2.3) -> np.ndarray:
    """Not uniform, one of them zero where there are others, of some mass."""
    a = rng.random(n) + 0.1
    if n > 2:
        a[n // 2] = 0
    return mass * a / a.sum()


def clouds(
    rng: np.random.Generator, sizes: list[tuple[int, int]], d: int = 2, offset: float = 5.0
) -> list[dict[str, Any]]:
    """Balanced pairs of weighted clouds, far from the origin, of masses that differ from pair to pair."""
    found = []
    for k, (n, m) in enumerate(sizes):
        x, y = rng.normal(size=(n, d)) + offset, 0.7 * rng.normal(size=(m, d)) + 0.4 + offset
        found.append({"x": x, "y": y, "a": weights(rng, n, 1.5 + k), "b": weights(rng, m, 1.5 + k)})
    return found


def stacked(rng: np.random.Generator, count: int = 4, n: int = 12, m: int = 9, d: int = 2) -> Given:
    """Clouds and weights with a leading axis."""
    alone = clouds(rng, [(n, m)] * count, d)
    return Given({name: np.stack([one[name] for one in alone]) for name in alone[0]}, alone, (count,))


def ragged(rng: np.random.Generator, d: int = 2) -> Given:
    """Lists of clouds and of their weights, one of them of one point."""
    alone = clouds(rng, [(12, 9), (5, 17), (1, 4), (30, 1)], d)
    return Given({name: [one[name] for one in alone] for name in alone[0]}, alone, (4,))


def shared(rng: np.random.Generator, count: int = 4, n: int = 12, m: int = 9) -> Given:
    """One support, and many weights of the sources."""
    one = clouds(rng, [(n, m)])[0]
    a = np.stack([weights(rng, n, 1.5) for _ in range(count)])
    return Given(one | {"a": a}, [one | {"a": a[k]} for k in range(count)], (count,))


def scaled(rng: np.random.Generator) -> Given:
    """One pair of clouds, and options of the shape of the batch."""
    one = clouds(rng, [(12, 9)])[0]
    blur, diameter = np.asarray([0.3, 0.5, 1.0]), np.asarray([3.0, 0.0, 9.0])
    alone = [one | {"blur": float(blur[k]), "diameter": float(diameter[k])} for k in range(3)]
    return Given(one | {"blur": blur, "diameter": diameter}, alone, (3,))


def reaching(rng: np.random.Generator) -> Given:
    """A strength of its own for each problem and each side, one of them balanced."""
    given = stacked(rng, 3)
    b = given.together["b"] * np.asarray([1.0, 0.6, 1.4])[:, None]
    left, right = np.asarray([np.inf, 0.7, 2.0]), np.asarray([np.inf, np.inf, 0.9])
    pairs = [None, (0.7, None), (2.0, 0.9)]
    alone = [one | {"b": b[k], "reach": pairs[k]} for k, one in enumerate(given.alone)]
    return Given(given.together | {"b": b, "reach": (left, right)}, alone, (3,))


def two_axes(rng: np.random.Generator) -> Given:
    """Sources along one axis, targets along the other, a blur along one of them."""
    xs, ys = rng.normal(size=(2, 1, 12, 2)), 0.7 * rng.normal(size=(3, 9, 2)) + 0.4
    a, blur = np.stack([weights(rng, 12, 1.0) for _ in range(2)])[:, None], np.asarray([[0.4], [0.8]])
    alone = [{"x": xs[i, 0], "y": ys[j], "a": a[i, 0], "blur": float(blur[i, 0])} for i in range(2) for j in range(3)]
    return Given({"x": xs, "y": ys, "a": a, "blur": blur}, alone, (2, 3))


KINDS = {
    "stacked": stacked, "ragged": ragged, "shared": shared, "scaled": scaled, "reaching": reaching,
    "two_axes": two_axes,
}  # fmt: skip


def called(entry: Any, arguments: dict[str, Any], **options: Any) -> Any:
    arguments = {"blur": 0.4} | options | arguments
    return entry(arguments.pop("x"), arguments.pop("y"), **arguments)


def item_of(arrays: Any, k: int, shape: tuple[int, ...]) -> Any:
    """What an array of the batch, or a list, holds of one problem."""
    return arrays[k] if isinstance(arrays, list) else arrays[np.unravel_index(k, shape)]


def same(together: Any, alone: Any, k: int, tolerance: float = 1e-10, but: tuple[str, ...] = ()) -> None:
    """All that a batch says of a problem is what the single call says, in its shape and dtype; its ends exactly."""
    for name in ENDS:
        assert_array_equal(item_of(getattr(together, name), k, together.shape), getattr(alone, name), err_msg=name)
    for name in ARRAYS + NUMBERS:
        if name in but:
            continue
        found, desired = item_of(getattr(together, name), k, together.shape), getattr(alone, name)
        assert np.shape(found) == np.shape(desired), name
        if hasattr(desired, "dtype"):
            assert found.dtype == desired.dtype, name
        np.testing.assert_allclose(np.asarray(found), np.asarray(desired), tolerance, tolerance, err_msg=name)
    close(item_of(together.eps, k, together.shape), alone.eps, 1e-15)


def check(given: Given, entry: Any, tolerance: float = 1e-10, but: tuple[str, ...] = (), **options: Any) -> Any:
    """A batch against its problems.  -> the result"""
    together = called(entry, given.together, **options)
    assert together.shape == given.shape
    for k, arguments in enumerate(given.alone):
        same(together, called(entry, arguments, **options), k, tolerance, but)
    return together


BOTH = [epsot.sinkhorn, epsot.sinkhorn_divergence]
