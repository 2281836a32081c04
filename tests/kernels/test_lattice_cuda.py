"""The CUDA passes over lattices, run on the CPU, beside the portable ones in float64."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import epsot
from epsot import kernels
from epsot.arrays import common_place
from epsot.kernels.cuda import lattice, modules, shapes
from epsot.kernels.lattice import Axis, Lattice
from tests.cuda import emulation, fake_cupy
from tests.cuda.instantiations import groups
from tests.kernels.test_cuda import same_in_both_orders
from tests.kernels.test_windows import AXES, FACTOR, KINDS, PLACE, SINGLE, TYPES, fields, same

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))


@pytest.fixture(autouse=True)
def cupy(unproven: None) -> Iterator[Any]:
    with fake_cupy.installed() as module:
        fake_cupy.launches.clear()
        yield module


class Beside:
    """A kernel of fake CuPy arrays with NumPy arrays in and out, and the portable one in float64."""

    def __init__(self, axes: tuple[Axis, ...], kind: str, real: Any) -> None:
        place = common_place(x=fake_cupy.asarray(np.zeros(1)))
        self.kernel = kernels.separable(axes, kind, FACTOR, place, np.dtype(real))
        self.reference = Lattice(axes, kind, FACTOR, PLACE, np.float64)
        self.real = real
        assert isinstance(self.kernel, lattice.LatticeKernel)

    def softmin(self, h: np.ndarray, eps: float) -> np.ndarray:
        found: np.ndarray = self.kernel.softmin(fake_cupy.asarray(h), eps).data_
        return found

    def check(self, h: np.ndarray, eps: float) -> None:
        same(self.softmin(h, eps), self.reference.softmin(h, eps), eps, self.real)


def launched() -> set[str]:
    return {name for name, _, _ in fake_cupy.launches}


SOME = ("line", "torus")  # the others as guards


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SOME else pytest.mark.guard) for name in AXES])
def test_softmin_of_unrelated_fields(name: str, kind: str, real: Any, rng: np.random.Generator) -> None:
    """From the coldest to the hottest, whatever the potentials, nothing that counts is missing."""
    pair = Beside(AXES[name], kind, real)
    for eps in (30.0, 0.3, 0.003, 1e-5):
        for h in fields(pair.kernel.shape[1], 100.0, rng):
            pair.check(h, eps)


@pytest.mark.parametrize("real", [np.float32, pytest.param(np.float64, marks=pytest.mark.guard)])
def test_long_lines(real: Any, rng: np.random.Generator) -> None:
    """More places than shared memory has room for, in lines that are moved, spread and torn apart."""
    n = shapes.LATTICE_ROOM + 70
    place, eps = np.arange(n), 2.0
    bend = np.where(place < n // 3, 0.4, -0.3) * (place - n // 3) ** 2 + 50.0 * place
    curves = (bend, -bend, 1e4 * np.sign(np.sin(place / 40.0)), 1e6 * rng.normal(size=n))
    for kind, chosen in (("squares", curves), ("lengths", curves[-2:])):
        pair = Beside((Axis(n, n, 0.0, 0.0, 1.0, 1.0, None), Axis(2, 2, 0.0, 0.0, 1.0, 1.0, None)), kind, real)
        for curve in chosen:
            pair.check(np.repeat(curve / eps, 2) + rng.normal(size=2 * n), eps)
    assert lattice.LENGTHS in launched()
    assert fake_cupy.allocated["peak"] > 2 * n * 8  # of the sums of a line


@pytest.mark.parametrize("limit", [-8.0, -16.0])
def test_what_is_left_out_is_bounded(limit: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in float64, with windows that open as tight as can be: no sum lacks more, and some do lack something."""
    opened = lattice.AXIS
    monkeypatch.setattr(lattice, "AXIS", lambda **values: opened(**values | {"around": 0}))
    monkeypatch.setitem(lattice.LIMIT, "double", limit)
    line = Axis(350, 330, 0.0, 0.0, 1.0, 1.1, None)
    for axes in ((line,), (Axis(300, 300, 0.0, 0.0, 1.0, 1.0, 300.0),)):
        pair, missing = Beside(axes, "squares", np.float64), []
        for eps in (300.0, 30.0):
            for h in fields(pair.kernel.shape[1], 30.0, rng):
                missing.append((pair.softmin(h, eps) - pair.reference.softmin(h, eps)) / eps)
        most = np.nanmax([np.where(np.isfinite(part), part, np.nan) for part in missing])
        assert 1e-11 < most <= 2.0**limit


SUMMED = "for (Index J = a; J < z; ++J) {"  # pairs of strips


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[emulation.Kernels]:
    """Kernels for squares in float32 that count the pairs of strips they sum."""
    code, names = modules.source(), groups()["float, lattices"]
    assert code.count(SUMMED) == 1
    code = code.replace(SUMMED, f"{SUMMED} if (lane == 0) ++emulator::counters[0];")
    kernels = emulation.Kernels(code, names)
    for name in names:
        monkeypatch.setitem(fake_cupy.COMPILED, name, kernels)
    modules.function.cache_clear()
    yield kernels
    modules.function.cache_clear()


@pytest.mark.guard
def test_only_what_counts_is_summed(counting: emulation.Kernels, rng: np.random.Generator) -> None:
    """Windows follow a map that bends, and hold little more than the strips of which some row needs a column."""
    n, eps = 800, 4.0
    pair, place = Beside((Axis(n, n, 0.0, 0.0, 1.0, 1.0, None),), "squares", np.float32), np.arange(n)
    for curve in (0.4 * FACTOR * place**2, -FACTOR * place**2, 3000.0 * FACTOR * np.sin(place / 60.0)):
        h = curve / eps + 0.1 * rng.normal(size=n)
        counting.counted()
        wanted = pair.reference.softmin(h, eps)
        same(pair.softmin(h, eps), wanted, eps, np.float32)
        summed, _, _ = counting.counted()
        share = np.exp(wanted[:, None] / eps + h - pair.reference.costs(0) / eps).reshape(n // 32, 32, n // 32, 32)
        needed = int((share.max(axis=(1, 3)) > 2.0**-31).sum())
        print(summed, needed)
        assert needed <= summed <= 2 * needed + n // 32


@pytest.mark.parametrize("real", TYPES)
def test_blocks_of_every_size(real: Any, rng: np.random.Generator) -> None:
    """A pass has all digits where it goes from one size of blocks to the next, and the lanes no order.

    In float64 these are the digits of the tilts: of 2000 bits at most, where blocks are as large as they can be.
    """
    axes = (Axis(75, 70, 0.2, 0.0, 1.0, 1.1, None), Axis(33, 66, 0.1, 0.0, 2.0, 1.0, 66.0))
    pair = Beside(axes, "squares", real)
    h = 3.0 * rng.normal(size=pair.kernel.shape[1])
    for eps in 2.0 ** np.arange(5, -6, -1):
        found, wanted = pair.softmin(h, eps), pair.reference.softmin(h, eps)
        np.testing.assert_allclose(found / eps, wanted / eps, rtol=0, atol=SINGLE if real == np.float32 else 5e-13)
    names = (
        f"lattice_squares<{'float' if real == np.float32 else 'double'}, {side}>" for side in (*shapes.LATTICE_SIDES, 1)
    )
    assert launched() == set(names)
    same_in_both_orders(lambda: [pair.softmin(h, eps) for eps in (32.0, 1.0, 0.03)])
    lengths = Beside(axes[:1], "lengths", real)
    same_in_both_orders(lambda: [lengths.softmin(h[:70], 0.3)])


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_asked(kind: str, rng: np.random.Generator) -> None:
    """Products, slopes and costs go through the same passes, axes in the order that leaves less to do."""
    pair = Beside(AXES["plane"], kind, np.float64)
    assert pair.kernel.order == [1, 0]
    ours, theirs = pair.kernel, pair.reference
    h, v = rng.normal(size=ours.shape[1]), rng.normal(size=(ours.shape[1], 2))
    k = theirs.softmin(h, 0.3) / 0.3  # rows of mass 1
    mine = [fake_cupy.asarray(z) for z in (k, h, v)]
    for name, more in (("apply", True), ("cost_gradient", False), ("transported", False)):
        given, own = ((k, h, 0.3, v), (*mine[:2], 0.3, mine[2])) if more else ((k, h, 0.3), (*mine[:2], 0.3))
        found = getattr(ours, name)(*own)
        np.testing.assert_allclose(found.data_, getattr(theirs, name)(*given), rtol=1e-11, atol=1e-11)
    turned = fake_cupy.asarray(k)
    np.testing.assert_allclose(ours.T.softmin(turned, 0.3).data_, theirs.T.softmin(k, 0.3), rtol=1e-11, atol=1e-11)
    assert len(launched()) > 0


def test_what_the_blocks_have_no_room_for(rng: np.random.Generator) -> None:
    """Lines that are not regular, and costs beyond the exponents: by the portable passes, or in longer numbers."""
    odd = (Axis(6, 5, 0.0, 0.0, 0.5, 0.7, 3.1),)
    for axes, eps, real in ((odd, 0.3, None), (AXES["line"], 1e-13, None), (AXES["line"], 3e-6, "double")):
        pair = Beside(axes, "squares", np.float32)
        assert pair.kernel.real(0, eps) == real
        h = rng.normal(size=pair.kernel.shape[1])
        same(pair.softmin(h, eps), pair.reference.softmin(h, eps), eps, np.float64)
    assert Beside(AXES["circle"], "lengths", np.float64).kernel.real(0, 1.0) is None


@pytest.mark.parametrize("real", TYPES)
def test_numbers_that_are_none(real: Any, rng: np.random.Generator) -> None:
    """No mass gives inf, as in the portable passes, and what is not a number is not hidden."""
    for kind in KINDS:
        pair = Beside(AXES["line"], kind, real)
        assert (pair.softmin(np.full(40, -np.inf), 0.3) == np.inf).all()
        h = rng.normal(size=40)
        h[7] = np.nan
        assert np.isnan(pair.softmin(h, 100.0)).all()


def test_devices_run_it_only_if_asked(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """A problem on grids of CuPy arrays, by the kernels where they may run, and else by the portable passes."""
    weights = [z / z.sum() for z in rng.random((2, 5, 4)) + 0.1]
    grid = epsot.Grid((5, 4), spacing=0.2)

    def values() -> list[np.ndarray]:
        found = epsot.sinkhorn_divergence(grid, grid, *map(fake_cupy.asarray, weights), blur=0.3)
        return [found.value.data_, found.f.data_]

    fused = same_in_both_orders(values)
    assert any(name.startswith("lattice_squares<double") for name in launched())
    monkeypatch.delenv("EPSOT_UNPROVEN")
    modules.unproven.cache_clear()
    fake_cupy.launches.clear()
    for one, other in zip(fused, values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert not any("lattice" in name for name in launched())


@pytest.mark.parametrize("name", ["STRIP", "LATTICE_ROOM", "LATTICE_WARPS"])
def test_sizes_that_both_sources_have(name: str) -> None:
    (found,) = re.findall(rf"constexpr int {name} = (\d+);", modules.source())
    assert int(found) == getattr(shapes, name)
