"""Ranks on real devices: pytest -m gpu. One rank by NCCL has the bits of none; two where there are two devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epsot
from epsot.communicator import ALONE, Communicator, Threads
from epsot.kernels.cuda import shapes
from tests.cuda.test_gpu import cupy  # noqa: F401
from tests.ranks import Sizes, check_same, checked, clouds, everything

pytestmark = pytest.mark.gpu

SIZES = Sizes((9000, 7000), (70_000, 65_000), 14_000, (120, 90))


@pytest.fixture(autouse=True)
def shared(cupy: Any, unproven: None, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """NCCL, and no problem so small that each rank does all of it."""
    from cupy.cuda import nccl

    if not nccl.available:
        pytest.skip("CuPy has found no NCCL: pip install nvidia-nccl-cu13")
    monkeypatch.setattr(shapes, "BURST_PAIRS", 0)
    return nccl


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", ["unbalanced", "schedule", "lengths", "coarse", "palette", "matrix", "grids"])
def test_ranks_find_what_one_gpu_finds(cupy: Any, case: str, size: int) -> None:  # noqa: F811
    """To the bit, as threads of this process; the second device is of the kind of the first."""
    if cupy.cuda.runtime.getDeviceCount() < size:
        pytest.skip("one device only")
    solve = checked(SIZES, cupy.asarray)[case]

    def work(comm: Any) -> dict[str, Any]:
        with cupy.cuda.Device(comm.rank):
            found = everything(solve(comm))
            return {name: value.get() if isinstance(value, cupy.ndarray) else value for name, value in found.items()}

    check_same(work(ALONE), Threads.run(size, work))


@pytest.mark.parametrize("d", [3, 16])
def test_rows_of_a_part_have_the_bits_of_all(cupy: Any, d: int) -> None:  # noqa: F811
    """Without a second device: what each of five ranks would launch, one after the other."""
    x, y, _, _ = (cupy.asarray(z) for z in clouds(5000, 3000, d))
    whole = epsot.PointCloud(x, y).kernel()
    h, eps = cupy.zeros(3000), 0.05 * d
    wanted, guess = whole.softmin(h, eps), whole.softmin(h, eps) + 0.1 * eps
    wanted_guessed, out = whole.softmin(h, eps, guess), [cupy.zeros(5000) for _ in range(2)]
    for rank in range(5):
        kernel = epsot.PointCloud(x, y).kernel(Apart(rank, 5).workers(1))
        rows = kernel.here.x_order
        for z, given in zip(out, (None, guess), strict=True):
            z[rows] = kernel.softmin(h, eps, given)[rows]
    assert bool((out[0] == wanted).all()) and bool((out[1] == wanted_guessed).all())


class Apart(Communicator):
    """One of several ranks that hears nothing of the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def meet(self, words: Any) -> Any:
        return np.stack([words] * self.size)

    def gather(self, mine: Any, counts: Any) -> Any:
        raise TypeError("there is nobody to ask")

    def exchange(self, mine: Any, sent: Any, received: Any) -> Any:
        raise TypeError("there is nobody to ask")

    def seen(self, vector: Any) -> Any:
        return vector

    def complete(self, vector: Any, out: Any, order: Any, edges: Any) -> Any:
        return out
