"""The benchmark of the GPU runs from end to end, at sizes at which it says nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.cuda import emulation, fake_cupy, fake_nccl

pytestmark = pytest.mark.skipif(emulation.MISSING is not None, reason=str(emulation.MISSING))

SCRIPT = Path(__file__).parents[2] / "asv_benchmarks" / "benchmarks" / "gpu.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.BLUR = 0.3  # type: ignore[attr-defined]  # fewer iterations
    return module


@pytest.mark.guard
def test_the_tables_are_printed(script: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "peers", dict)
    monkeypatch.setattr(script, "SMALL_BLUR", 0.3)
    with fake_cupy.installed(), fake_nccl.installed():
        sizes = ["--sizes", "40", "--solves", "30", "--small", "20", "--many", "50", "--sides", "3", "--ranks", "60"]
        script.main(["--no-tests", *sizes, "--dimensions", "1", "3", "16"])
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.startswith("float")]
    assert [row[:3] for row in table] == [[t, d, "40"] for t in ("float32", "float64") for d in ("1", "3", "16")]
    assert all(float(cell) > 0 for row in table for cell in row[3:-1])
    (row,) = (line.split() for line in lines if line.split()[:1] == ["30"])
    assert int(row[3]) > 0
    assert float(row[2]) > float(row[4]) > 0
    assert all(float(cell) > 0 for cell in row[5:7])
    small = [line for line in lines if line.startswith(tuple(script.COSTS))]
    assert len(small) == len(script.COSTS)
    assert all(line.endswith("in bursts") for line in small)
    many = [line.split() for line in lines if line.startswith(tuple(script.GEOMETRIES))]
    assert [row[:2] for row in many] == [[name, "50"] for name in script.GEOMETRIES]
    assert all(float(row[2]) > 0 < int(row[3]) for row in many)
    (images,) = (line.split() for line in lines if line.startswith("3 x 3"))
    assert all(float(cell) > 0 for cell in images[3:])
    assert len(images) == 3 + 6
    (ranks,) = (line.split() for line in lines if line.split()[:1] == ["60"])
    assert all(float(cell) > 0 for cell in ranks) and sum(fake_nccl.calls.values()) > 0
    assert "no peer can be imported: geomloss, or flash_sinkhorn" in lines


@pytest.mark.guard
def test_tables_can_be_chosen(script: Any, capsys: Any) -> None:
    with fake_cupy.installed():
        script.main(["--no-tests", "--tables", "solves", "--solves", "20", "30"])
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows[-2:] == ["20", "30"]
    assert not {"dtype", "geometry", "peer"} & set(rows)


def test_a_peer_is_put_beside(script: Any, capsys: Any) -> None:
    """A peer that returns our own potentials has our error."""
    torch = pytest.importorskip("torch")

    def loss(scaling: float, debias: bool, potentials: bool = False) -> Any:
        def call(x: Any, y: Any) -> Any:
            import epsot

            if potentials:
                result = epsot.sinkhorn(np.asarray(x), np.asarray(y), blur=script.BLUR, tol=1e-4)
                return torch.asarray(result.f), torch.asarray(result.g)
            return ((x - y) ** 2).sum()

        return call

    with fake_cupy.installed() as cupy:
        script.peer_rows(cupy, "ours", loss, 40, 0.5)
    row = capsys.readouterr().out.split()
    assert row[:3] == ["ours", "40", "0.5"]
    assert 0 < float(row[3]) < 2e-4
    assert all(float(cell) > 0 for cell in row[4:])


def test_the_bound(script: Any) -> None:
    """Exponentials bind at d = 3, multiply-adds at d = 64; 2 multiprocessors at 1 GHz."""
    with fake_cupy.installed() as cupy:
        assert script.bound(cupy, "float32", 3) == 2e9 * 16
        assert script.bound(cupy, "float32", 64) == 2e9 * 128 / 67
        assert script.bound(cupy, "float64", 3) == 2e9 * 64 / 30


def test_no_device_is_said(script: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "device", lambda: None)
    with pytest.raises(SystemExit, match="no CUDA device answers"):
        script.main([])
    with pytest.raises(NotImplementedError):
        script.Pairs().setup()
