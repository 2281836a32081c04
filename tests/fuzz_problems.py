"""Problems to draw: everything that is allowed, most of it one extreme at a time, some of it all at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import epsot
from epsot.geometry import Multiscale
from tests import fuzz_oracle as oracle
from tests.fuzz_oracle import Posed

Generator = np.random.Generator
CALLS = {"sinkhorn": 0.3, "sinkhorn_divergence": 0.2, "solve": 0.3, "divergence": 0.12, "Objective": 0.08}
COSTS = [1, 2, "sqeuclidean", "euclidean", "cityblock", "cosine"]


class PseudoHuber(epsot.Cost):
    """A cost of the user's own: quadratic near zero, linear far away."""

    degree = 1.0

    def value(self, x: Any, y: Any) -> Any:
        square = np.sum((x - y) ** 2, axis=-1)
        return square / (np.sqrt(1 + square) + 1)

    def gradient(self, x: Any, y: Any) -> Any:
        return (x - y) / np.sqrt(1 + np.sum((x - y) ** 2, axis=-1))[..., None]


@dataclass(frozen=True)
class Problem:
    """One call of a public function."""

    call: str  # the function, or "Objective"
    cost: Any  # 1, 2, a name, a Cost, or "matrix"
    sides: tuple[Any, ...]  # x, y; for a matrix C, C_xx, C_yy
    weights: tuple[Any, Any]  # a, b or None
    scale: float  # blur or eps
    reach: Any  # reach or rho
    options: Mapping[str, Any]
    cells: bool = False  # whether points are solved from coarse to fine by the user's wish
    moves: tuple[np.ndarray, ...] = ()  # where an Objective is called ...
    wrt: str = "x"  # ... and what these are
    debias: bool = True
    warm: Problem | None = field(default=None, repr=False)  # whose result is the start

    @property
    def by_length(self) -> bool:
        return self.call in ("sinkhorn", "sinkhorn_divergence", "Objective")

    @property
    def handed(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The sides and the weights as the public function gets them."""
        return self.sides, self.weights

    @property
    def exact(self) -> tuple[Any, ...]:
        """The sides as the oracle sees them."""
        return self.sides

    @property
    def temperatures(self) -> tuple[float, tuple[float, float]]:
        """eps, and rho of both sides, inf where balanced."""
        p = float(self.cost) if self.by_length else 1.0
        pair = self.reach if isinstance(self.reach, tuple) else (self.reach, self.reach)
        rho_a, rho_b = (np.inf if reach is None else float(reach) ** p for reach in pair)
        return self.scale**p, (rho_a, rho_b)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that is handed over."""
        return [z for z in (*self.sides, *self.weights, *self.moves) if z is not None]

    @property
    def single(self) -> bool:
        return bool(self.sides[0].dtype == np.float32)

    @property
    def rounds(self) -> bool:
        """Whether float32 may be too coarse for the exponents."""
        if not self.single or self.cost == "matrix" or self.options["tol"] is None:
            return False
        largest = max(part.largest for part in self.posed().values())
        return bool(8 * 2.0**-24 * largest / self.temperatures[0] > self.options["tol"])

    def start(self) -> Any:
        """The result to start from, if there is one."""
        if self.warm is None:
            return None
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return self.warm.solve(None, None)
            except (ValueError, TypeError):
                return None

    def solve(self, init: Any, workers: int | None) -> Any:
        sides, (a, b) = self.handed
        options = {**self.options, "workers": workers}
        if self.call == "Objective":
            options |= {"wrt": self.wrt, "debias": self.debias, "p": self.cost, "reach": self.reach}
            fixed = {"a": a} if self.wrt == "x" else {"x": self.sides[0]}
            objective = epsot.Objective(self.sides[1], b, blur=self.scale, **fixed, **options)
            values = [objective(z)[0] for z in self.moves]
            last: Any = objective.last
            assert np.array_equal(values[-1], last.value64, equal_nan=True)
            return last
        if self.by_length:
            solver, scales = getattr(epsot, self.call), {"blur": self.scale, "p": self.cost, "reach": self.reach}
            return solver(*sides, a, b, **scales, **options, init=init)
        geometry: Any
        if self.cost == "matrix":
            C, C_xx, C_yy = self.sides
            geometry = epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy)
        else:
            kind = {"p": self.cost} if isinstance(self.cost, int) else {"cost": self.cost}
            geometry = (Multiscale if self.cells else epsot.PointCloud)(*sides, **kind)
        return getattr(epsot, self.call)(geometry, a, b, eps=self.scale, rho=self.reach, **options, init=init)

    @np.errstate(all="ignore")
    def posed(self) -> dict[str, Posed]:
        """What the oracle makes of it: the problem between x and y, and for a divergence those of each with itself."""
        sides, (eps, rho) = self.exact, self.temperatures
        if self.call == "Objective" and self.wrt == "x":
            sides = (self.moves[-1].astype(sides[1].dtype).reshape(-1, sides[1].shape[1]), sides[1])
        n, m = sides[0].shape if self.cost == "matrix" else (len(sides[0]), len(sides[1]))
        a, b = (np.full(k, 1 / k) if w is None else w.astype(float) for w, k in zip(self.weights, (n, m), strict=True))
        if self.wrt == "a":
            a = np.exp(self.moves[-1] - self.moves[-1].max())
            a *= b.sum() / a.sum()
        if rho == (np.inf, np.inf):
            b = b * (a.sum() / b.sum())  # equal up to the rounding of their dtype

        def between(i: int, j: int) -> tuple[np.ndarray, Any]:
            if self.cost == "matrix":
                return sides[{(0, 1): 0, (0, 0): 1, (1, 1): 2}[i, j]].astype(oracle.Real), None
            return oracle.cost_matrix(self.cost, sides[i], sides[j]), (self.cost, sides[i], sides[j])

        C, points = between(0, 1)
        parts = {"xy": Posed(C, a, b, eps, rho, points)}
        if "divergence" in self.call or (self.call == "Objective"):
            for name, i, w in (("xx", 0, a), ("yy", 1, b)):
                C, points = between(i, i)
                parts[name] = Posed(C, w, w, eps, (rho[i], rho[i]), points)
        size = 0.0 if self.cost == "matrix" else max(part.largest for part in parts.values())
        return {name: replace(part, size=size) for name, part in parts.items()}

    def may_be_refused(self) -> bool:
        """Where the documentation allows an error: forbidden pairs without a plan, and scales beyond float64."""
        eps, rho = self.temperatures
        numbers = [np.abs(z[np.isfinite(z)]).max(initial=0) for z in self.arrays]
        extreme = max(*numbers, self.scale) > 1e140 or min(eps, *rho) < 1e-290
        balanced = np.inf in rho
        forbidden = any(not np.isfinite(z).all() for z in self.sides if z is not None)
        none = any(w is not None and w.sum() == 0 for w in self.weights)
        zero = self.cost == "cosine" and any((z == 0).all(axis=1).any() for z in self.sides)
        return extreme or zero or (balanced and (forbidden or none))


def decades(rng: Generator, low: float, high: float) -> float:
    return float(10 ** rng.uniform(low, high))


def draw(seed: int, index: int) -> Problem:
    """The problem of that number, whatever others are drawn."""
    rng = np.random.default_rng([seed, index])
    call = str(rng.choice(list(CALLS), p=list(CALLS.values())))
    any_cost = call in ("solve", "divergence")
    problem = draw_matrix(rng, call) if any_cost and rng.random() < 0.5 else draw_points(rng, call)
    if call != "Objective" and rng.random() < 0.3:
        other = draw_matrix(rng, call, problem) if problem.cost == "matrix" else draw_points(rng, call, problem)
        problem = replace(problem, warm=other)
    return problem


def draw_size(rng: Generator) -> int:
    rare = rng.random()
    return 1500 if rare < 0.001 else 300 if rare < 0.015 else 1 if rare < 0.1 else int(rng.integers(1, 41))


def draw_points(
    rng: Generator, call: str, like: Problem | None = None, sizes: tuple[int, int] | None = None
) -> Problem:  # fmt: skip
    """Two clouds; `like`: of as many coordinates."""
    d = int(rng.choice([1, 2, 3, 5, 17, 64])) if like is None else like.sides[0].shape[1]
    dtype = rng.choice([np.float32, np.float64])
    x, y, spread = draw_clouds(rng, *(sizes or (draw_size(rng), draw_size(rng))), d)
    cost: Any = rng.choice([1, 2, 2]).item()
    if call in ("solve", "divergence"):
        cost = [*COSTS, PseudoHuber()][rng.integers(len(COSTS) + 1)]
    x, y = (layout(rng, z.astype(dtype)) for z in (x, y if y is not x else x))
    if rng.random() < 0.1:
        y = x if rng.random() < 0.5 else x.copy()
    spread = spread if cost != "cosine" else 1.0
    degree = 2 if cost in (2, "sqeuclidean", "cosine") and call in ("solve", "divergence") else 1
    problem = finished(rng, call, cost, (x, y), (len(x), len(y)), spread**degree)
    if call == "Objective":
        steps = rng.choice([0, 1e-2, 1, 5, 1e3], int(rng.integers(0, 3)))
        moves = tuple(x.ravel().astype(float) + s * spread for s in (*steps, 0))
        problem = replace(problem, moves=moves, debias=rng.random() < 0.8)
        if rng.random() < 0.25:
            moves = tuple(rng.choice([1, 30]) * rng.standard_normal(len(x)) for _ in moves)
            problem = replace(problem, moves=moves, wrt="a", weights=(None, problem.weights[1]))
        return problem
    return replace(problem, cells=d <= 3 and call in ("solve", "divergence") and rng.random() < 0.15)


def draw_clouds(rng: Generator, n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Clouds and a length of theirs: cubes, bells or lattices, far from each other, from the origin, with outliers."""
    spread = decades(rng, -12, 12) if rng.random() < 0.5 else 1.0
    make = [rng.random, rng.standard_normal, lambda size: rng.integers(0, 4, size).astype(float)][rng.integers(3)]
    x, y = make((n, d)), make((m, d)) * (decades(rng, -3, 3) if rng.random() < 0.1 else 1)
    if rng.random() < 0.3:
        y = y + decades(rng, -3, 6) * rng.standard_normal(d)
    if rng.random() < 0.2:
        offset = decades(rng, 0, 6) * rng.standard_normal(d)
        x, y = x + offset, y + offset
    if rng.random() < 0.2:
        x = x[rng.integers(0, n, n)]  # duplicates
    if rng.random() < 0.1:
        x[: int(rng.integers(1, 3))] += decades(rng, 1, 6) * rng.standard_normal(d)
    return x * spread, y * spread, spread


def draw_matrix(rng: Generator, call: str, like: Problem | None = None) -> Problem:
    """Costs pair by pair, with constants in rows and columns, large entries, forbidden pairs, of any sign."""
    n, m = (draw_size(rng), draw_size(rng)) if like is None else like.sides[0].shape
    dtype, spread = rng.choice([np.float32, np.float64]), decades(rng, -9, 9) if rng.random() < 0.3 else 1.0

    def within(k: int) -> np.ndarray:
        z = rng.random((k, 2))
        return np.sum((z[:, None, :] - z[None, :, :]) ** 2, axis=2)

    C = rng.uniform(-1 if rng.random() < 0.2 else 0, 1, (n, m))
    C_xx, C_yy = (within(n), within(m)) if call == "divergence" else (None, None)
    if rng.random() < 0.3:
        C = C + decades(rng, 0, 6) * rng.standard_normal((n, 1) if rng.random() < 0.5 else (1, m))
    if rng.random() < 0.15:
        C = C + decades(rng, 0, 7)
    if rng.random() < 0.3:
        large = np.inf if rng.random() < 0.6 else decades(rng, 2, 20)
        mask = rng.random((n, m)) < rng.random()
        if rng.random() < 0.8:
            mask[np.arange(max(n, m)) % n, np.arange(max(n, m)) % m] = False
        C = np.where(mask, large, C)
        C[0, 0] = 0.5  # something is allowed
    sides = tuple(None if z is None else layout(rng, (z * spread).astype(dtype)) for z in (C, C_xx, C_yy))
    return finished(rng, call, "matrix", sides, (n, m), spread)


def finished(rng: Generator, call: str, cost: Any, sides: Any, shape: tuple[int, int], spread: float) -> Problem:
    """With weights, scales and options. `spread` is a length of the clouds, or a cost."""
    kind = rng.random()
    scale = spread * decades(rng, *((-2.5, 0.5) if kind < 0.75 else (-7, 3) if kind < 0.95 else (-40, 40)))
    reach: Any = None
    if rng.random() < 0.5:
        one, other = (spread * decades(rng, *((-1, 2) if rng.random() < 0.7 else (-4, 4))) for _ in range(2))
        reach = [one, (one, other), (None, one), (one, None)][rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])]
    a, b = draw_weights(rng, shape[0]), draw_weights(rng, shape[1])
    if rng.random() < 0.1 and shape[0] == shape[1]:
        b = a
    if reach is None:
        a, b = balanced(rng, a, b)
    elif rng.random() < 0.02:
        a = np.zeros(shape[0])
    tol = [None, 1e-3, decades(rng, -9, -1)][rng.choice(3, p=[0.15, 0.5, 0.35])]
    options = {
        "tol": tol,
        "max_iter": int([1000, rng.integers(1, 30), 200][rng.choice(3, p=[0.5, 0.2, 0.3])]),
        "scaling": float(rng.choice([0.5, 0.5, 0.5, 0.3, 0.8, 0.95, 0.05])),
    }
    if max(shape) >= 300:
        options["max_iter"] = min(options["max_iter"], 100)
    if call in ("sinkhorn", "sinkhorn_divergence", "Objective") and rng.random() < 0.1:
        options["diameter"] = spread * decades(rng, -3, 9) if rng.random() < 0.8 else 0.0
    dtype = rng.choice([np.float32, np.float64])
    weights = tuple(None if w is None else layout(rng, w.astype(dtype)) for w in (a, b))
    return Problem(call, cost, sides, weights, scale, reach, options)


def draw_weights(rng: Generator, size: int) -> np.ndarray | None:
    """Weights of any mass: uniform, of many decades, with zeros, or nearly all on one point."""
    if rng.random() < 0.3:
        return None
    weights = 10 ** rng.uniform(-12, 0, size) if rng.random() < 0.3 else rng.uniform(0.1, 1, size)
    if rng.random() < 0.3:
        weights = weights * (rng.random(size) < rng.random())
        weights[rng.integers(size)] = 1.0
    if rng.random() < 0.1:
        weights[0] = weights.sum() + 1.0
    weights = weights / weights.sum()
    return np.asarray(weights * (decades(rng, -6, 6) if rng.random() < 0.3 else 1.0))


def balanced(rng: Generator, a: np.ndarray | None, b: np.ndarray | None) -> tuple[Any, Any]:
    """Of equal mass."""
    mass = 1.0 if a is None or b is None else float(a.sum())
    a, b = (None if w is None else w * (mass / w.sum()) for w in (a, b))
    return a, b


def layout(rng: Generator, z: np.ndarray) -> np.ndarray:
    """The same numbers in another place: contiguous, Fortran, strided, backwards, read-only."""
    kind = rng.random()
    if kind < 0.1:
        z = np.asfortranarray(z)
    elif kind < 0.2:
        z = np.repeat(z, 2, axis=0)[::2]
    elif kind < 0.3:
        z = np.ascontiguousarray(z[::-1])[::-1]
    z.flags.writeable = not 0.3 <= kind < 0.4
    return z
