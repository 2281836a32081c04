"""Random batches of transport problems, and each of their problems solved alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from epsot.arrays import Place
from epsot.costs import ground_cost
from epsot.drivers.choice import solve_self, solve_transport
from epsot.drivers.options import Options
from epsot.drivers.portable import Outcomes, solve
from epsot.geometry import CostMatrix, PointCloud
from epsot.kernels import batched
from epsot.problems.instance import Instance, pose
from epsot.problems.many import Measures, Problems
from epsot.results.result import SinkhornResult


@dataclass(frozen=True)
class Batch:
    """Problems as arrays with a batch axis; `C` (B, n, m) or None, of points x and y."""

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    rho: np.ndarray  # (B, 2)
    eps: np.ndarray
    start: np.ndarray  # of annealing
    p: int = 2
    C: np.ndarray | None = None
    own: bool = False

    def take(self, k: Any) -> Batch:
        """Some of the problems."""
        arrays = {name: getattr(self, name) for name in ("x", "y", "a", "b", "rho", "eps", "start", "C")}
        return replace(self, **{name: None if z is None else z[k] for name, z in arrays.items()})

    @property
    def degree(self) -> float:
        return 1.0 if self.C is not None else float(self.p)

    def instance(self, k: int, rows: Any = slice(None), columns: Any = slice(None)) -> Instance:
        """One problem, as the user of one poses it, its points in some order."""
        rho = tuple(None if math.isinf(z) else float(z) for z in self.rho[k])
        columns = rows if self.own else columns
        if self.C is None:
            geometry: Any = PointCloud(self.x[k][rows], self.y[k][columns], p=self.p)
        else:
            geometry = CostMatrix(self.C[k][rows][:, columns])
        a, b = self.a[k][rows], self.b[k][columns]
        posed = pose(geometry, a, b, eps=float(self.eps[k]), rho=rho, rho_name="rho", workers=1)
        return posed.source() if self.own else posed

    def alone(
        self, k: int, order: Any = (slice(None), slice(None)), init: SinkhornResult | None = None, **options: Any
    ) -> SinkhornResult:
        """The result of one problem, its points in some order."""
        chosen = {"start": float(self.start[k]), "scaling": 0.5, "tol": 1e-3, "max_iter": 1000, "callback": None}
        solve_one = solve_self if self.own else solve_transport
        return solve_one(self.instance(k, *order), Options(**(chosen | options)), init)

    def problems(self, instances: list[Instance], convert: Any = np.asarray) -> Problems:
        """All of them, in the library to which `convert` takes arrays."""
        x, y = convert(self.x), convert(self.x if self.own else self.y)
        place = Place(array_namespace(x), x.device)  # no tensor becomes a view of NumPy, as it would at the door
        kernel = batched.Points(x, y, ground_cost(self.p, None)) if self.C is None else batched.Matrix(convert(self.C))

        def side(which: list[Any], weights: list[np.ndarray]) -> Measures:
            masses, strengths = (np.asarray([getattr(z, name) for z in which]) for name in ("mass", "rho"))
            return Measures.of(convert(np.stack(weights)), masses, strengths, place)

        a = side([one.problem.a for one in instances], [one.a for one in instances])
        b = a if self.own else side([one.problem.b for one in instances], [one.T.a for one in instances])
        scale = np.asarray([one.problem.scale for one in instances])
        return Problems(kernel, a, b, self.eps, scale, own=self.own)

    def solve(self, convert: Any = np.asarray, start: Any = None, **options: Any) -> Outcomes:
        """All of them at once."""
        instances = [self.instance(k) for k in range(len(self.eps))]
        begin = self.start if start is None else start
        return solve(self.problems(instances, convert), begin, degree=self.degree, **options)


def possible(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs that carry mass where both sides are filled in their order: with these there is a plan.  -> (B, n, m)"""
    upper = [np.cumsum(w, axis=1) / w.sum(axis=1, keepdims=True) for w in (a, b)]
    lower = [top - w / w.sum(axis=1, keepdims=True) for top, w in zip(upper, (a, b), strict=True)]
    overlap = np.minimum(upper[0][:, :, None], upper[1][:, None]) - np.maximum(lower[0][:, :, None], lower[1][:, None])
    return overlap > 1e-9


def random_batch(rng: np.random.Generator) -> Batch:
    """Of one shape, otherwise different: strengths on none, one or both sides, weights of zero, all kinds of blurs."""
    count, n, m, d, p = (int(rng.integers(1, top)) for top in (9, 25, 25, 4, 3))
    own = rng.random() < 0.2
    matrix = not own and rng.random() < 0.3
    m = n if own else m
    x, y = rng.normal(size=(count, n, d)) / math.sqrt(d), 0.7 * rng.normal(size=(count, m, d)) / math.sqrt(d) + 0.4
    a, b = rng.random((count, n)) + 0.1, rng.random((count, m)) + 0.1
    if rng.random() < 0.5:
        for w in (a, b):
            w[:, 1:] *= rng.random((count, w.shape[1] - 1)) > 0.2
    kind, rho = rng.integers(0, 3, count) * (rng.random() < 0.6), np.full((count, 2), math.inf)
    rho = np.where(kind[:, None] > [0, 1 - own], rng.uniform(0.05, 3, (count, 2)), rho)
    rho = rho[:, [0, 0]] if own else rho
    a *= rng.uniform(0.5, 2)
    balanced = np.isinf(rho).all(axis=1)
    b[balanced] *= (a[balanced].sum(axis=1) / b[balanced].sum(axis=1))[:, None]
    y, b = (x, a) if own else (y, b)
    cost = ground_cost(p, None).value(x[:, :, None, :], y[:, None, :, :])
    C = np.where((rng.random(cost.shape) < rng.uniform(0, 0.4)) & ~possible(a, b), np.inf, cost) if matrix else None
    if C is not None:  # every row and column has a partner, also those of weight zero
        C[:, 0, :], C[:, :, 0] = cost[:, 0, :], cost[:, :, 0]
    eps = (2 * np.exp(rng.uniform(math.log(0.02), 0, count))) ** p
    start = cost.max(axis=(1, 2)) * np.where(rng.random(count) < 0.3, rng.uniform(0, 3, count), 1)
    return Batch(x, y, a, b, rho, eps, start, p, C, own)


def one_shape(seed: int, count: int = 6, n: int = 12, m: int = 15, d: int = 2, blur: float = 0.1) -> Batch:
    """Balanced problems with weights of zero, each with a temperature of its own."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, n, d)), rng.normal(size=(count, m, d)) + 0.5
    a, b = rng.random((count, n)) + 0.1, rng.random((count, m)) + 0.1
    a[:, 3] = b[:, 0] = 0
    a, b = (2.3 * w / w.sum(axis=1, keepdims=True) for w in (a, b))
    eps = blur**2 * rng.uniform(0.5, 20, count)
    return Batch(x, y, a, b, np.full((count, 2), math.inf), eps, np.full(count, 20.0))


def difference(ours: Outcomes, k: int, theirs: SinkhornResult, eps: float) -> float:
    """The largest difference of potentials, over all points, in units of the temperature."""
    pairs = (ours.f[k, :], theirs.source.potential), (ours.g[k, :], theirs.target.potential)
    return max(float(np.max(np.abs(np.asarray(u) - v))) for u, v in pairs) / eps
