"""Random problems as items of a batch: each gets what it gets alone, whatever stands beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import array_api_strict
import numpy as np

import epsot
from epsot.arrays import to_numpy
from epsot.status import Status
from tests.fuzz_checks import Case, check_result, documented, kind_of, unexpected
from tests.fuzz_oracle import Truth
from tests.fuzz_problems import Generator, Problem, decades, draw, draw_matrix, draw_points

READ = "f", "g", "value", "marginal_error", "grad_x", "grad_y", "displacement", "grad_a", "grad_b"


@dataclass(frozen=True)
class Company:
    """Problems of one call, in one order, and two choices of what stands beside the one that counts."""

    problem: Problem
    others: tuple[Problem, ...]
    monsters: tuple[Problem, ...]
    at: int  # where it stands among them
    stacked: bool  # as arrays with a leading axis, or as lists
    strict: bool  # as arrays of array-api-strict, which no kernel is compiled for

    def items(self, others: tuple[Problem, ...]) -> tuple[Problem, ...]:
        return (*others[: self.at], self.problem, *others[self.at :])

    @property
    def compiled(self) -> bool:
        """Whether a batch and a single call take the same steps, to the last bit."""
        return not (self.strict or isinstance(self.problem.cost, epsot.Cost))

    @property
    def apart(self) -> bool:
        """Whether a batch has in float64 what a single call has in float32: points of a cost that embeds them, and in
        other libraries where that counts."""
        embedded = bool(self.problem.cost == "cosine") and self.problem.single
        return embedded or (self.strict and self.problem.rounds)

    def array(self, z: Any) -> Any:
        return array_api_strict.asarray(np.ascontiguousarray(z)) if self.strict and z is not None else z

    def joined(self, arrays: list[Any]) -> Any:
        """The arrays of all items as one argument; None where they have none."""
        if arrays[0] is None:
            return None
        return self.array(np.stack(arrays)) if self.stacked else [self.array(z) for z in arrays]

    def solve(self, others: tuple[Problem, ...], workers: int | None) -> Any:
        """All of them in one call."""
        items = self.items(others)
        sides = [self.joined([item.sides[k] for item in items]) for k in range(len(self.problem.sides))]
        weights = [self.joined([item.weights[k] for item in items]) for k in range(2)]
        scale, reach = np.array([item.scale for item in items]), strengths(items)
        options = {**self.problem.options, "workers": workers}
        if "diameter" in options:
            options["diameter"] = np.array([item.options["diameter"] for item in items])
        call = getattr(epsot, self.problem.call)
        if self.problem.by_length:
            return call(*sides, *weights, blur=scale, p=self.problem.cost, reach=reach, **options)
        if self.problem.cost == "matrix":
            geometry: Any = epsot.CostMatrix(sides[0], C_xx=sides[1], C_yy=sides[2])
        else:
            kind = {"p": self.problem.cost} if isinstance(self.problem.cost, int) else {"cost": self.problem.cost}
            geometry = epsot.PointCloud(*sides, **kind)
        return call(geometry, *weights, eps=scale, rho=reach, **options)

    def alone(self) -> Any:
        """The problem by itself, in the same library, with arrays that lie in memory as they do in a batch."""
        parts = self.problem.sides, self.problem.weights
        sides, weights = ([z if z is None else self.array(np.ascontiguousarray(z)) for z in part] for part in parts)
        return replace(self.problem, sides=tuple(sides), weights=(weights[0], weights[1])).solve(None, None)


def strengths(items: tuple[Problem, ...]) -> Any:
    """`reach` or `rho` of all of them; inf is balanced."""
    pairs = [item.reach if isinstance(item.reach, tuple) else (item.reach, item.reach) for item in items]
    if all(pair == (None, None) for pair in pairs):
        return None
    return tuple(np.array([np.inf if pair[k] is None else pair[k] for pair in pairs], float) for k in range(2))


def draw_company(seed: int, index: int) -> Company | None:
    """What stands beside the problem of that number; None where its call is not of many."""
    problem = replace(draw(seed, index), warm=None, cells=False)
    if problem.call == "Objective":
        return None
    rng = np.random.default_rng([seed, index, 1])
    given = tuple(bool(w is not None) or bool(rng.random() < 0.5) for w in problem.weights)
    if given != tuple(w is not None for w in problem.weights):
        problem = weighted(problem, given, (np.float64, np.float64))
    count, stacked = int(rng.integers(1, 4)), problem.cost == "matrix" or bool(rng.random() < 0.4)
    if problem.cost == "matrix" and rng.random() < 0.2:
        stacked = False
    others = tuple(beside(rng, problem, given, stacked) for _ in range(count))
    monsters = tuple(monstrous(rng, beside(rng, problem, given, stacked)) for _ in range(count))
    strict = bool(rng.random() < 0.15) and not isinstance(problem.cost, epsot.Cost)  # which are written for NumPy
    return Company(problem, others, monsters, int(rng.integers(count + 1)), stacked, strict)


def weighted(problem: Problem, given: tuple[bool, ...], dtypes: Sequence[Any]) -> Problem:
    """With weights where they are given, and none elsewhere; of equal masses where they have to be."""
    n, m = problem.sides[0].shape if problem.cost == "matrix" else (len(problem.sides[0]), len(problem.sides[1]))
    weights: list[Any] = [
        None if not there else (np.full(size, 1 / size) if w is None else w.astype(float))
        for there, w, size in zip(given, problem.weights, (n, m), strict=True)
    ]
    masses = [1.0 if w is None else float(w.sum(dtype=float)) for w in weights]
    if np.inf in problem.temperatures[1] and problem.temperatures[1][0] == problem.temperatures[1][1]:
        if not (0 < masses[0] < np.inf and 0 < masses[1] < np.inf):
            weights = [None if w is None else np.full(len(w), 1 / len(w)) for w in weights]
        else:
            mass = 1.0 if any(w is None for w in weights) else masses[0]
            weights = [None if w is None else w * (mass / z) for w, z in zip(weights, masses, strict=True)]
    a, b = (None if w is None else w.astype(dtype) for w, dtype in zip(weights, dtypes, strict=True))
    return replace(problem, weights=(a, b))


def beside(rng: Generator, problem: Problem, given: tuple[bool, ...], stacked: bool) -> Problem:
    """Another problem of the same call, options and dimension."""
    dtype, dtypes = problem.sides[0].dtype, dtypes_of(problem)
    if problem.cost == "matrix":
        other = draw_matrix(rng, problem.call, problem)
    else:
        sizes = (len(problem.sides[0]), len(problem.sides[1])) if stacked else None
        other = draw_points(rng, problem.call, problem, sizes)
        while sizes and len(other.sides[1]) != sizes[1]:  # one cloud for both sides
            other = draw_points(rng, problem.call, problem, sizes)
    options = dict(problem.options)
    if "diameter" in options:
        options["diameter"] *= decades(rng, -2, 2)
    sides = tuple(None if z is None else z.astype(dtype) for z in other.sides)
    other = replace(other, cost=problem.cost, sides=sides, options=options, cells=False)
    if rng.random() < 0.5:
        other = replace(other, reach=problem.reach)
    return weighted(other, given, dtypes)


def dtypes_of(problem: Problem) -> Sequence[Any]:
    """Those of the weights, which are of one kind in a batch."""
    return [np.float64 if w is None else w.dtype for w in problem.weights]


def monstrous(rng: Generator, other: Problem) -> Problem:
    """Of scales and masses that nobody has."""
    factor = decades(rng, -6, 6)
    sides = tuple(None if z is None else z * z.dtype.type(factor) for z in other.sides)
    weights = tuple(None if w is None else w * w.dtype.type(decades(rng, -12, 12)) for w in other.weights)
    other = replace(other, sides=sides, weights=(weights[0], weights[1]), scale=other.scale * decades(rng, -9, 9))
    return weighted(other, tuple(w is not None for w in weights), dtypes_of(other))


def attempt(company: Company, others: tuple[Problem, ...], workers: int | None) -> tuple[Any, list[Any], list[str]]:
    """The result of a batch, the warnings, and complaints; None where the documentation allows an error."""
    items = company.items(others)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            return company.solve(others, workers), said, []
        except Exception as error:
            refused = documented(error) and any(item.may_be_refused() for item in items)
            return None, said, [] if refused else [f"batch: {kind_of(error)}"]


def parts_of(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("xy", "xx", "yy")} if hasattr(result, "xy") else {"xy": result}


def plain(z: Any) -> np.ndarray:
    """On the host, in float64."""
    return np.asarray(to_numpy(z) if hasattr(z, "__dlpack__") else z, float)


def item_of(z: Any, at: int) -> Any:
    return z[at] if isinstance(z, list) or z.ndim == 1 else z[at, ...]


def numbers_of(part: Any) -> dict[str, np.ndarray]:
    found = {"f": part.source.potential, "g": part.target.potential, "value": part.value64}
    return {name: plain(z) for name, z in found.items()}


def check_same(problem: Problem, found: Any, expected: Any, exactly: bool) -> Iterator[str]:
    """The status, the iterations and the numbers of another solve; `exactly`: its bits."""
    for (name, part), other in zip(parts_of(found).items(), parts_of(expected).values(), strict=True):
        if (part.status, part.nit) != (other.status, other.nit):
            yield f"{name} {part.status.name} after {part.nit}, not {other.status.name} after {other.nit}"
            continue
        posed, eps = problem.posed()[name], problem.temperatures[0]
        numbers, others = numbers_of(part), numbers_of(other)
        mass = float(max(posed.a.sum(), posed.b.sum()))
        with np.errstate(all="ignore"):
            for key, z in numbers.items():
                if np.array_equal(z, others[key], equal_nan=True):
                    continue
                size = max(eps, float(np.abs(others[key][np.isfinite(others[key])]).max(initial=0)))
                noise = (2.0**-20 if problem.single else 2.0**-30) * (size if key != "value" else size + eps * mass**2)
                off = np.nanmax(np.abs(z - others[key])) if z.shape == others[key].shape else np.inf
                if exactly or not off <= noise:
                    yield f"{name} {part.status.name} {key} is off by {off:.2e}, noise {noise:.1e}"


def check_arrays(company: Company, batch: Any, item: Any) -> Iterator[str]:
    """What the batch says of an item is what the item says of itself."""
    at, problem = company.at, company.problem
    for name in ("status", "nit", "success"):
        if getattr(batch, name)[at] != getattr(item, name):
            yield f"{name} {getattr(batch, name)[at]}, of the item {getattr(item, name)}"
    for name in () if item.status is Status.DIVERGED else READ:
        if problem.cost == "matrix" and name in ("grad_x", "grad_y", "displacement"):
            continue
        z, other = plain(item_of(getattr(batch, name), at)), plain(getattr(item, name))
        if z.shape != other.shape:
            yield f"{name} of shape {z.shape}, not {other.shape}"
            continue
        size = float(np.abs(other[np.isfinite(other)]).max(initial=0))  # without weight, numbers may be of any size
        limit = rounding(company, item, name) + 1e-3 * (size if name == "displacement" else 0.0)
        if limit > np.finfo(np.float32).max and problem.single:
            continue
        if not (off := difference(z, other)) <= limit:
            yield f"{item.status.name}: {name} differs by {off:.2e}, limit {limit:.1e}"


def difference(z: np.ndarray, other: np.ndarray) -> float:
    """The largest, where not both are the same, but for a few digits, or beyond what numbers hold."""
    with np.errstate(all="ignore"):
        same = (
            (np.abs(z - other) <= 1e-9 * np.abs(other))
            | (z == other)
            | (np.isnan(z) & np.isnan(other))
            | (~np.isfinite(z) & ~np.isfinite(other))
        )
        return float(np.where(same, 0.0, np.abs(z - other)).max(initial=0.0))


def rounding(company: Company, item: Any, name: str) -> float:
    """By how much two ways to compute a number may differ."""
    problem = company.problem
    unit, eps = (2.0**-24 if problem.single else 2.0**-53), problem.temperatures[0]
    parts = [(part, problem.posed()[key]) for key, part in parts_of(item).items()]
    limit = 0.0
    for part, posed in parts:
        with np.errstate(all="ignore"):
            truth = Truth.of(posed, part.source.potential, part.target.potential)
            case = Case(problem, part, {}, [], truth)
            ends = [z[np.isfinite(z)].astype(float) for z in (truth.f, truth.g)]
            potentials = np.abs(np.concatenate(ends))
            exponents = 16 * unit * (1 + posed.largest / eps) + 2.0**11 * truth.noise  # relative error of the plan
            size = float(potentials.max(initial=0)) + eps
            if name in ("f", "g"):
                limit += exponents * eps + 64 * unit * size
            elif name in ("grad_a", "grad_b"):
                strengths = zip(ends, posed.rho, strict=True)  # a slope of (rho + eps) exp(-f / rho) / rho
                steep = max((1 + eps / rho) * np.exp(min(700, -z.min(initial=0) / rho)) for z, rho in strengths)
                limit += max(1e6, float(steep)) * (exponents * eps + 64 * unit * size)
            elif name == "value":
                limit += case.rounding + 64 * unit * abs(float(part.value64)) + exponents * eps * float(posed.a.sum())
            elif name == "marginal_error":
                limit += 4 * exponents if problem.options["tol"] is None else 0.0
            else:
                limit += gradient_rounding(truth, exponents, unit)
    return limit


def gradient_rounding(truth: Truth, exponents: float, unit: float) -> float:
    largest = float(np.nanmax(np.abs(truth.gradient[0]), initial=0)) + truth.gradient[1]
    return min(exponents, 1.0) * largest + 64 * unit * largest


def examine_company(company: Company | None) -> list[str]:
    """All complaints about a problem among others."""
    if company is None:
        return []
    batch, said, complaints = attempt(company, company.others, None)
    if batch is None:
        return complaints
    item, problem = batch[company.at], company.problem
    complaints = [f"batch: {text}" for text in unexpected(said, problem)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = company.alone()
        same = [] if company.apart else [*check_same(problem, item, alone, company.compiled)]
        complaints += [f"company: {text}" for text in same]
        if not company.strict:
            if same or company.apart:
                complaints += [f"company: {text}" for text in check_result(problem, item, said)]
            complaints += [f"arrays: {text}" for text in check_arrays(company, batch, item)]
            again, _, _ = attempt(company, company.others, 3)
            complaints += [f"workers: {text}" for text in check_same(problem, again[company.at], item, True)]
        beside, _, raised = attempt(company, company.monsters, 1)
        complaints += raised
        if beside is not None:
            moved = check_same(problem, beside[company.at], item, company.compiled)
            complaints += [f"monsters: {text}" for text in moved]
    return complaints
