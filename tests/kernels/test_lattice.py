"""The reductions between two lattices, beside the dense definition over the same costs."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

from epsot.arrays import Place, common_place
from epsot.kernels import lattice, reference
from epsot.kernels.lattice import Axis, Lattice
from tests.checks import close

EPS = 0.3
FAR, STEP = 1e6, 2.0**-20  # far away, the step is exact
AXES = {
    "line": (Axis(7, 4, 0.3, -1.0, 0.2, 0.7, None),),
    "plane": (Axis(5, 7, 0.3, 1.0, 0.2, 0.11, None), Axis(3, 4, 0.0, 2.0, 1.0, 0.5, None)),
    "periodic": (Axis(6, 4, 0.1, 0.0, 0.5, 0.75, 3.0), Axis(3, 2, 0.0, 2.0, 1.0, 0.5, None)),
    "volume": (Axis(2, 3, FAR, FAR, 0.3, 0.2, None), Axis(1, 4, 0.0, 1.0, 1.0, 0.5, None), Axis(4, 2, 0, 0, 1, 1, 4.0)),
}
KINDS = ["squares", "lengths"]


def kernel_of(name: str, kind: str, place: Place | None = None) -> Lattice:
    return Lattice(AXES[name], kind, 0.7, place or common_place(x=np.zeros(1)), np.float64)


def vectors(kernel: Lattice, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities, some of them of no weight."""
    k, h = (rng.normal(size=size) for size in kernel.shape)
    k[0], h[:2] = -np.inf, -np.inf
    return k, h


def nodes(axes: tuple[Axis, ...]) -> tuple[np.ndarray, np.ndarray]:
    def all_of(lines: list[np.ndarray]) -> np.ndarray:
        return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(axes))

    return all_of([z.x + z.dx * np.arange(z.n) for z in axes]), all_of([z.y + z.dy * np.arange(z.m) for z in axes])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", AXES)
def test_costs_are_those_of_the_nearest_images(name: str, kind: str) -> None:
    x, y = nodes(AXES[name])
    apart = np.abs(x[:, None] - y)
    for number, axis in enumerate(AXES[name]):
        if axis.period is not None:
            images = [np.abs(x[:, None, number] - y[:, number] + axis.period * turn) for turn in range(-2, 3)]
            apart[..., number] = np.min(images, axis=0)
    kernel = kernel_of(name, kind)
    wanted = 0.7 * (apart**2 if kind == "squares" else apart).sum(axis=-1)
    close(kernel.cost_rows(slice(None)), wanted, 1e-8)  # nodes far away are rounded where they are listed
    index = np.array([kernel.shape[0] - 1, 0])
    close(kernel.cost_rows(index), wanted[index], 1e-8)
    close(kernel.T.cost_rows(slice(1, 3)), wanted.T[1:3], 1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("elements", [2**20, 8])
def test_reductions(
    name: str, kind: str, elements: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the blocks are, those of the dense cost."""
    monkeypatch.setattr(lattice, "BLOCK_ELEMENTS", elements)
    kernel, dense = kernel_of(name, kind), reference.Dense
    k, h = vectors(kernel, rng)
    v = rng.normal(size=(kernel.shape[1], 3))
    v[:, 1] = np.abs(v[:, 1])
    close(kernel.softmin(h, EPS), dense.softmin(kernel, h, EPS), 1e-13)
    close(kernel.apply(k, h, EPS, v), dense.apply(kernel, k, h, EPS, v), 1e-12)
    close(kernel.cost_apply(v[:, 0]), dense.cost_apply(kernel, v[:, 0]), 1e-12)
    P = kernel.plan_rows(slice(None), k, h, EPS)
    close(kernel.transported(k, h, EPS), (P * kernel.cost).sum(), 1e-12)
    gradient = kernel.cost_gradient(k, h, EPS)
    for number in range(len(kernel.axes)):
        ahead, behind = (moved(kernel, number, step).cost for step in (STEP, -STEP))
        tied = np.abs(ahead + behind - 2 * kernel.cost) > 1e-7  # nodes coincide, or the nearest image changes
        slope = np.where(tied, 0.0, (ahead - behind) / (2 * STEP))
        close(gradient[:, number], (P * slope).sum(axis=1), 1e-6)


def moved(kernel: Lattice, number: int, step: float) -> Lattice:
    axes = list(kernel.axes)
    axes[number] = axes[number]._replace(x=axes[number].x + step)
    return kernel.between(tuple(axes))


def test_no_mass(rng: np.random.Generator) -> None:
    kernel = kernel_of("plane", "squares")
    k, h = rng.normal(size=kernel.shape[0]), np.full(kernel.shape[1], -np.inf)
    assert (kernel.softmin(h, EPS) == np.inf).all()
    for found in (kernel.apply(k, h, EPS, np.ones((len(h), 1))), kernel.cost_gradient(k, h, EPS)):
        assert (found == 0).all()


def test_other_first_nodes() -> None:
    plane, other = kernel_of("plane", "squares"), kernel_of("periodic", "squares").T
    mixed = plane.rows_of(other)
    assert mixed.shape == (other.shape[0], plane.shape[1])
    assert mixed.axes[0] == Axis(4, 7, 0.0, 1.0, 0.75, 0.11, None)


def test_strict_arrays(rng: np.random.Generator) -> None:
    xp: Any = array_api_strict
    ours = kernel_of("periodic", "squares")
    theirs = kernel_of("periodic", "squares", common_place(x=xp.zeros(1)))
    k, h = vectors(ours, rng)
    v = rng.normal(size=(len(h), 2))
    k_, h_, v_ = (xp.asarray(z) for z in (k, h, v))
    for name, mine, other in (
        ("softmin", (h, EPS), (h_, EPS)),
        ("apply", (k, h, EPS, v), (k_, h_, EPS, v_)),
        ("cost_gradient", (k, h, EPS), (k_, h_, EPS)),
        ("transported", (k, h, EPS), (k_, h_, EPS)),
        ("cost_apply", (v[:, 0],), (v_[:, 0],)),
    ):
        close(np.asarray(getattr(theirs, name)(*other)), getattr(ours, name)(*mine), 1e-13)
