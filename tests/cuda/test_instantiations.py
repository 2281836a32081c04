"""Every kernel that there is runs on the CPU, against the reference, with the lanes in both orders.

`tests/kernels/test_cuda.py` looks at a choice of them more closely.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import epsot
from epsot.costs import Cityblock, Euclidean, HalfSquare
from epsot.kernels import reference
from epsot.kernels.cuda import shapes
from tests.cuda import bridge, emulation, fake_cupy
from tests.cuda.instantiations import groups
from tests.kernels.test_cpu import CHECKS, Case, clouds, make_case
from tests.kernels.test_cuda import same_in_both_orders

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

DTYPES: dict[str, Any] = {"float": np.float32, "double": np.float64}
COSTS = {cost.kind: cost for cost in (HalfSquare(), Euclidean(), Cityblock())}
SEVERAL = ("bursts", "items", "lattices")  # of which there are tests of their own
ELSEWHERE = ("order", "vectors")  # test_driver.py, and test_vectors.py in tests/kernels


@pytest.fixture(autouse=True)
def cupy(unproven: None, portable: None) -> Iterator[Any]:
    with fake_cupy.installed() as module:
        fake_cupy.launches.clear()
        yield module


def prepared(label: str, rng: np.random.Generator) -> tuple[Case, str]:
    """A problem for the kernels of a group, and the methods that they serve. Any d: more values than go at once."""
    real, what, where = label.split(", ")
    if what == "matrix":
        C = rng.random((140, 75)).astype(DTYPES[real])
        ours = bridge.matrix(C if where.startswith("rows") else np.asfortranarray(C))
        return make_case(ours, reference.Matrix(C), np.float64, 0.3, rng), "softmin pair apply"
    x, y = clouds(140, 75, 9 if where == "any d" else int(where[-1]), DTYPES[real], rng)
    case = make_case(bridge.points(x, y, COSTS[what]), reference.Points(x, y, COSTS[what]), DTYPES[real], 0.3, rng)
    return case, "softmin pair self apply gradient cost_apply"


def of_sweeps(label: str) -> bool:
    return label not in ELSEWHERE and not any(what in label for what in SEVERAL)


@pytest.mark.parametrize("label", [label for label in groups() if of_sweeps(label)])
def test_every_kernel_runs(label: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    case, methods = prepared(label, rng)
    for name in methods.split():
        CHECKS[name](case)
    v = rng.normal(size=(75, 10))

    def results() -> list[np.ndarray]:
        ours, k, h = case.ours, case.k, case.h
        found = [
            ours.softmin(h, 0.3),
            *ours.softmin_pair(k, h, 0.3),
            ours.apply(k, h, 0.3, v),
            ours.cost_apply(v[:, 0]),
        ]
        return found if "matrix" in label else [*found, ours.cost_gradient(k, h, 0.3)]

    same_in_both_orders(results)
    np.testing.assert_allclose(case.ours.cost_apply(v[:, 0]), case.theirs.cost_apply(v[:, 0]), rtol=1e-3, atol=1e-3)
    if label.endswith(("1", "2", "3")):  # as with many points
        monkeypatch.setattr(shapes, "BOXES_FROM", 0)
        case, _ = prepared(label, rng)
        CHECKS["softmin"](case)
        same_in_both_orders(lambda: [case.ours.softmin(case.h, 0.3)])
    assert set(groups()[label]) <= {name for name, _, _ in fake_cupy.launches}


@pytest.mark.guard
@pytest.mark.parametrize("label", [label for label in groups() if "bursts" in label])
def test_every_burst_runs(label: str, rng: np.random.Generator) -> None:
    """`tests/kernels/test_bursts.py` looks at the steps one by one."""
    real, _, what, *where = label.split(", ")
    x, y = clouds(70, 65, {"d = 2": 2, "d = 3": 3}.get("".join(where), 5), DTYPES[real], rng)
    cost = COSTS.get(what, HalfSquare())
    costs = [cost.value(u[:, None], v[None]).astype(DTYPES[real]) for u, v in ((x, y), (x, x), (y, y))]

    def geometry(move: Any) -> Any:
        if what == "matrix":
            C, C_xx, C_yy = map(move, costs)
            return epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy)
        return epsot.PointCloud(move(x), move(y), cost=cost)

    def results() -> list[np.ndarray]:
        found = epsot.divergence(geometry(fake_cupy.asarray), eps=0.3, tol=1e-5)
        descended = epsot.divergence(geometry(fake_cupy.asarray), eps=0.3, tol=None)
        return [found.f.data_, found.g.data_, found.value.data_, descended.value.data_]

    ours = same_in_both_orders(results)
    theirs = epsot.divergence(geometry(lambda z: z), eps=0.3, tol=1e-5)
    descended = epsot.divergence(geometry(lambda z: z), eps=0.3, tol=None)
    for one, other in zip(ours, (theirs.f, theirs.g, theirs.value, descended.value), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert set(groups()[label]) <= {name for name, _, _ in fake_cupy.launches}


@pytest.mark.guard
@pytest.mark.parametrize("label", [label for label in groups() if label.startswith("items")])
def test_every_burst_of_items_runs(label: str, rng: np.random.Generator) -> None:
    """`tests/kernels/test_item_bursts.py` looks at their decisions."""
    what, d = re.fullmatch(r"items, (\w+)(?:|, d = (\d)|, any d)", label).groups()  # type: ignore[union-attr]
    x, y = rng.random((3, 40, int(d or 5))), rng.random((3, 35, int(d or 5)))
    cost = COSTS.get(what, HalfSquare())
    costs = [cost.value(u[:, :, None], v[:, None]) for u, v in ((x, y), (x, x), (y, y))]

    def solved(move: Any) -> Any:
        if what == "matrix":
            C, C_xx, C_yy = map(move, costs)
            return epsot.divergence(epsot.CostMatrix(C, C_xx=C_xx, C_yy=C_yy), eps=0.3, tol=1e-6)
        return epsot.divergence(epsot.PointCloud(move(x), move(y), cost=cost), eps=0.3, tol=1e-6)

    def results() -> list[np.ndarray]:
        found = solved(fake_cupy.asarray)
        return [found.f.data_, found.g.data_, found.value.data_]

    ours, theirs = same_in_both_orders(results), solved(lambda z: z)
    for one, other in zip(ours, (theirs.f, theirs.g, theirs.value), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    assert set(groups()[label]) <= {name for name, _, _ in fake_cupy.launches}
