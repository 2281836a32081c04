"""The compiled passes over lattices, beside the portable ones in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from epsot.arrays import common_place
from epsot.kernels.cpu import cuts
from epsot.kernels.cpu.lattice import LatticeKernel
from epsot.kernels.lattice import Axis, Lattice

PLACE = common_place(x=np.zeros(1))
FACTOR = 0.7
SINGLE = 3e-6  # of exponents in float32: the longest chains of roundings that these sums have
AXES = {
    "line": (Axis(70, 40, 0.3, -1.0, 0.2, 0.7, None),),
    "plane": (Axis(45, 37, 0.3, 1.0, 0.2, 0.11, None), Axis(13, 24, 0.0, 2.0, 1.0, 0.5, None)),
    "far": (Axis(20, 30, 1e6, 1e6, 0.3, 0.2, None), Axis(1, 4, 0.0, 1.0, 1.0, 0.5, None), Axis(5, 1, 0, 0, 1, 1, None)),
    "circle": (Axis(40, 40, 0.0, 0.0, 1.0, 1.0, 40.0), Axis(33, 33, 0.0, 0.0, 1.0, 1.0, 33.0)),
    "torus": (Axis(40, 30, 0.3, 7.0, 0.75, 1.0, 30.0), Axis(3, 31, 0.1, 0.0, 11.0, 1.0, 33.0)),
    "four": (*(Axis(n, 4, 0, 0, 1, 1, None) for n in (4, 3, 6)), Axis(5, 4, 0, 0, 1, 1, 5.0)),
}
KINDS = ["squares", "lengths"]
TYPES = [np.float32, np.float64]


def kernels(axes: tuple[Axis, ...], kind: str, real: Any, workers: int = 1) -> tuple[LatticeKernel, Lattice]:
    return LatticeKernel(axes, kind, FACTOR, PLACE, real, workers), Lattice(axes, kind, FACTOR, PLACE, np.float64)


def fields(size: int, spread: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Log-densities that have nothing to do with each other, as different as their windows can be."""
    steps, noise = np.cumsum(rng.normal(size=size)) * spread, rng.normal(size=size) * spread
    sparse, single, half = noise.copy(), np.full(size, -np.inf), steps.copy()
    sparse[rng.random(size) < 0.9] = -np.inf
    single[rng.integers(size)] = 3.0
    half[: size // 2] = -np.inf
    return [noise, steps, sparse, single, half]


def tolerance(real: Any, wanted: np.ndarray, eps: float) -> float:
    """Of exponents: those of float64 are as large as they are."""
    finite = wanted[np.isfinite(wanted)]
    largest = np.abs(finite).max() / eps if finite.size else 0.0
    return (SINGLE if real == np.float32 else 1e-13) + 1e-14 * largest


def same(found: np.ndarray, wanted: np.ndarray, eps: float, real: Any) -> None:
    finite = np.isfinite(wanted)
    assert (found[~finite] == wanted[~finite]).all()
    np.testing.assert_allclose(found[finite] / eps, wanted[finite] / eps, rtol=0, atol=tolerance(real, wanted, eps))


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", AXES)
def test_softmin_in_windows_of_another_field(name: str, kind: str, real: Any, rng: np.random.Generator) -> None:
    """Whatever the windows were, from the coldest to the hottest, nothing that counts is missing."""
    kernel, reference = kernels(AXES[name], kind, real)
    for eps in (30.0, 0.3, 0.003, 1e-5):
        for h in fields(kernel.shape[1], 100.0, rng):
            wanted = reference.softmin(h, eps)
            same(kernel.softmin(h, eps), wanted, eps, real)
            same(kernel.softmin(h, eps), wanted, eps, real)  # in the windows of its own


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", AXES)
def test_products_and_derivatives(name: str, kind: str, real: Any, rng: np.random.Generator) -> None:
    kernel, reference = kernels(AXES[name], kind, real)
    v = rng.normal(size=(kernel.shape[1], 5))
    for eps in (30.0, 0.3, 0.003):
        for h in fields(kernel.shape[1], 10.0, rng):
            k = reference.softmin(h, eps) / eps  # rows of mass 1
            k[~np.isfinite(k)] = 0.0
            k[0] = -np.inf
            near = tolerance(real, eps * k[1:], eps)
            for name_of, arguments in (("apply", (v,)), ("cost_gradient", ()), ("transported", ())):
                found = getattr(kernel, name_of)(k, h, eps, *arguments)
                wanted = getattr(reference, name_of)(k, h, eps, *arguments)
                np.testing.assert_allclose(found, wanted, rtol=0, atol=5 * near * max(1e-3, np.abs(wanted).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_long_lines(kind: str, rng: np.random.Generator) -> None:
    """More columns than any window has, in lines that are moved, spread and torn apart."""
    n = 2000
    kernel, reference = kernels(
        (Axis(n, n, 0.0, 0.0, 1.0, 1.0, None), Axis(2, 2, 0.0, 0.0, 1.0, 1.0, None)), kind, np.float32
    )
    place, eps = np.arange(n), 2.0
    bend = np.where(place < n // 3, 0.4, -0.3) * (place - n // 3) ** 2 + 50.0 * place
    for curve in (0.0 * bend, bend, -bend, 1e4 * np.sign(np.sin(place / 40.0)), 1e6 * rng.normal(size=n)):
        h = np.repeat(curve / eps, 2) + rng.normal(size=2 * n)
        same(kernel.softmin(h, eps), reference.softmin(h, eps), eps, np.float32)


@pytest.mark.parametrize("limit", [-8.0, -31.0])
def test_what_is_left_out_is_bounded(limit: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in float64, with windows as tight as others have them: no sum lacks more, and some do lack something."""
    monkeypatch.setitem(cuts.LIMIT, np.float64, limit)
    line = Axis(700, 650, 0.0, 0.0, 1.0, 1.1, None)
    for axes in ((line,), (line, Axis(3, 2, 0.0, 0.0, 1.0, 1.0, None)), (Axis(300, 300, 0.0, 0.0, 1.0, 1.0, 300.0),)):
        kernel, reference = kernels(axes, "squares", np.float64)
        missing = []
        for eps in (300.0, 3.0):
            for h in fields(kernel.shape[1], 30.0, rng):
                for _ in range(2):  # in windows of another field, and of its own
                    missing.append((kernel.softmin(h, eps) - reference.softmin(h, eps)) / eps)
        most = np.nanmax([np.where(np.isfinite(part), part, np.nan) for part in missing])
        assert 0 < most <= 2.0**limit + 1e-10


@pytest.mark.parametrize("real", TYPES)
def test_bits_do_not_depend_on_workers(real: Any, rng: np.random.Generator) -> None:
    axes = (Axis(90, 100, 0.0, 0.0, 1.0, 1.0, None), Axis(80, 90, 0.0, 0.0, 1.0, 1.0, 90.0))
    h, found = rng.normal(size=9000), []
    v = rng.normal(size=(9000, 2))
    for workers in (1, 2, 5):
        kernel, _ = kernels(axes, "squares", real, workers)
        found.append([kernel.softmin(h, 2.0), kernel.softmin(2 * h, 2.0), kernel.apply(np.zeros(7200), h, 2.0, v)])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert (one == other).all()


def test_calls_at_once(rng: np.random.Generator) -> None:
    """One kernel may be asked by several threads."""
    kernel, reference = kernels((Axis(60, 60, 0.0, 0.0, 1.0, 1.0, None),) * 2, "squares", np.float64)
    hs = [10 * rng.normal(size=3600) for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for h, found in zip(hs, pool.map(lambda h: kernel.softmin(h, 1.0), hs), strict=True):
            same(found, reference.softmin(h, 1.0), 1.0, np.float64)


def test_what_the_blocks_have_no_room_for(rng: np.random.Generator) -> None:
    """Lines that are not regular, and costs beyond the exponents: by the portable passes, or in longer numbers."""
    odd = (Axis(6, 5, 0.0, 0.0, 0.5, 0.7, 3.1),)
    for axes, eps in ((odd, 0.3), (AXES["line"], 1e-13), (AXES["line"], 3e-6)):
        kernel, reference = kernels(axes, "squares", np.float32)
        h = rng.normal(size=kernel.shape[1])
        same(kernel.softmin(h, eps), reference.softmin(h, eps), eps, np.float64)


def test_inputs_stay_as_they_are(rng: np.random.Generator) -> None:
    kernel, _ = kernels(AXES["plane"], "squares", np.float32)
    k, h, v = rng.normal(size=kernel.shape[0]), rng.normal(size=kernel.shape[1]), rng.normal(size=(kernel.shape[1], 1))
    for z in (k, h, v):
        z.flags.writeable = False
    kernel.softmin(h, 0.3)
    kernel.apply(k, h, 0.3, v)
    kernel.cost_gradient(k, h, 0.3)
