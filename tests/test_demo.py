"""The commands: densities, pictures as input, the sweeps, the files they leave, and what goes wrong in one line."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import epsot
from epsot import ahead, demo
from epsot.__main__ import main
from epsot.info import info, report

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from PIL import Image  # noqa: E402


@pytest.fixture
def small() -> demo.Measures:
    x, a, b = demo.densities(64)
    return demo.Measures(x, x, a, b)


def save(path: Path, picture: Any, mode: str | None = None) -> Path:
    Image.fromarray(np.asarray(picture, dtype=np.uint8), mode=mode).save(path)
    return path


@pytest.mark.parametrize("points", [64, 400, 10_000])
def test_densities_are_probabilities_with_exact_zeros(points: int) -> None:
    x, a, b = demo.densities(points)
    side = round(math.sqrt(points))
    assert x.shape == (side**2, 2)
    np.testing.assert_allclose(np.unique(x), (np.arange(side) + 0.5) / side)
    for weights in (a, b):
        assert weights.min() == 0
        assert weights.sum() == pytest.approx(1)
        assert 0.5 < np.mean(weights == 0) < 0.95


def test_densities_are_a_bow_and_a_wave_with_a_clasp() -> None:
    x, a, b = demo.densities(10_000)
    pieces = [ndimage.label((weights > 0).reshape(100, 100))[1] for weights in (a, b)]
    assert pieces == [1, 2]
    start, end = a @ x, b @ x
    assert np.all(start < 0.35)  # at the bottom left
    assert np.all(end > 0.5)  # at the top right
    at = np.argmin(np.linalg.norm(x - 0.45, axis=1))
    assert a[at] == 0  # the concave side of the bow faces the target


def test_rows_of_a_picture_go_from_top_to_bottom(tmp_path: Path) -> None:
    """One dark pixel in the top row, third of four columns, of three rows: x = 2.5 / 4, y = 2.5 / 4."""
    picture = np.full((3, 4), 255)
    picture[0, 2] = 0
    x, a = demo.read_density(save(tmp_path / "p.png", picture), points=12)
    assert x.shape == (12, 2)
    np.testing.assert_allclose(x[a > 0], [[0.625, 0.625]])
    np.testing.assert_allclose([x.min(axis=0), x.max(axis=0)], [[0.125, 0.125], [0.875, 0.625]])


def test_dark_is_mass_and_transparent_is_white(tmp_path: Path) -> None:
    picture = np.zeros((1, 4, 4))
    picture[0, :, :3] = np.asarray([255, 0, 204, 0])[:, None]  # white, black, a fifth, black
    picture[0, :, 3] = [255, 255, 255, 0]  # the last is transparent
    _, a = demo.read_density(save(tmp_path / "p.png", picture, "RGBA"), points=4)
    np.testing.assert_allclose(a, np.asarray([0, 1, 0.2, 0]) / 1.2)


def test_large_pictures_are_thinned_to_the_centres_of_cells(tmp_path: Path) -> None:
    picture = np.full((40, 40), 255)
    picture[5::10, 5::10] = 0  # the pixels kept by a lattice of four by four, counted from the top
    picture[34::-10, 5::10] = 0  # and from the bottom
    x, a = demo.read_density(save(tmp_path / "p.png", picture), points=16)
    np.testing.assert_allclose(np.unique(x), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(a, 1 / 16)


def test_the_sweeps_are_36_solves(small: demo.Measures) -> None:
    assert [kind.count for kind in demo.SWEEPS] == [9, 9, 18]
    assert demo.SWEEPS[1].blurs == [0.5**i for i in range(9)]
    assert demo.SWEEPS[2].blurs[-1] == pytest.approx(0.7**17)
    for kind in demo.SWEEPS[:2]:
        solved = demo.sweep(kind, small, workers=1)
        assert [type(one.result) for one in solved] == 9 * [
            epsot.DivergenceResult if kind.unbiased else epsot.SinkhornResult
        ]
        for i, one in enumerate(solved):
            assert one.row.iterations == i + 1  # one at each temperature: sigma = 1, ..., 0.5^i
            assert one.row.blur**2 == pytest.approx(one.result.eps)
            assert one.row.value == float(one.result.value)
            assert one.row.marginal_error == one.result.marginal_error
            assert one.result.status is epsot.Status.SCHEDULE_ENDED
            assert one.row.seconds > 0


def test_the_divergence_starts_as_a_translation(small: demo.Measures) -> None:
    """At a blur of the diameter every displacement is that of the centre of mass, up to the next order, 1 / blur^2."""
    x, y, a, b = small
    first = demo.sweep(demo.SWEEPS[1], small)[0].result
    moved = first.displacement[a > 0]
    np.testing.assert_allclose(moved, np.broadcast_to(b @ y - a @ x, moved.shape), atol=0.05)


def test_biased_values_are_larger(small: demo.Measures) -> None:
    biased, unbiased = ([one.row.value for one in demo.sweep(kind, small)] for kind in demo.SWEEPS[:2])
    assert np.all(np.asarray(biased) > unbiased)
    gaps = np.subtract(biased, unbiased)
    assert gaps[-1] < 1e-3 < gaps[0]


def test_the_command_writes_a_table_and_three_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: demo.Measures
) -> None:
    drawn = {}
    monkeypatch.setattr(demo, "draw", lambda results, path, title: drawn.update({path.name: (len(results), title)}))
    out = tmp_path / "new" / "folder"
    assert main(["demo", "--points", "64", "--workers", "1", "--out", str(out)]) == 0
    assert drawn == {
        "biased.png": (9, "Transport OT, biased: the blur halves from panel to panel"),
        "unbiased.png": (9, "Divergence S, unbiased: the blur halves from panel to panel"),
        "unbiased-slow.png": (18, "Divergence S, unbiased: the blur shrinks to 0.7 of itself from panel to panel"),
    }
    with (out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sweep", "scaling", "blur", "value", "marginal_error", "iterations", "seconds"]
    names = [*9 * ["biased"], *9 * ["unbiased"], *18 * ["unbiased-slow"], "converged"]
    assert [row["sweep"] for row in rows] == names
    kinds = (*demo.SWEEPS, demo.CONVERGED)
    expected = [one.row for kind in kinds for one in demo.sweep(kind, small, workers=1)]
    for column in ("blur", "value", "marginal_error", "iterations"):
        found = [float(row[column]) for row in rows]
        np.testing.assert_allclose(found, [getattr(row, column) for row in expected], rtol=1e-12)
    printed = capsys.readouterr().out
    assert f"{expected[4].value:.6f}" in printed
    assert f"37 solves in {sum(float(row['seconds']) for row in rows):.2f} s" in printed
    once, last = expected[17], expected[-1]  # of the halving sweep, and of the same blur
    assert once.blur == last.blur and last.marginal_error < 1e-3 < once.marginal_error
    assert f"is {once.marginal_error:.2g} after 9 iterations; with `tol=0.001`" in printed
    assert f"ends at {last.marginal_error:.2g} after {last.iterations}." in printed
    assert str(out / "table.csv") in printed


def test_pictures_in_and_figures_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((12, 12), 255)
    picture[:3] = 0  # the top
    source = save(tmp_path / "top.png", picture)
    target = save(tmp_path / "bottom.png", picture[::-1])
    kinds = (demo.Sweep("one", 0.5, 2, unbiased=True), demo.Sweep("two", 0.5, 1, unbiased=False))
    monkeypatch.setattr(demo, "SWEEPS", kinds)
    arguments = ["--source", str(source), "--target", str(target), "--points", "144", "--out", str(tmp_path)]
    assert demo.main(arguments) == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        values = [float(row["value"]) for row in csv.DictReader(file)]
    assert values[0] == pytest.approx(0.75**2 / 2, rel=1e-3)  # the same shape, 9 of 12 rows further down
    with Image.open(tmp_path / "one.png") as figure:
        assert figure.width == pytest.approx(2 * figure.height, rel=0.1)  # two panels


def test_rows_are_printed_as_they_are_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: demo.Measures
) -> None:
    """Each line is there before the next solve begins, and what is compiled is named before."""
    seen: list[list[str]] = []
    solve = epsot.sinkhorn_divergence

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(capsys.readouterr().out.splitlines())
        if len(seen) == 1:
            compile_anew()
        return solve(*args, **kwargs)

    monkeypatch.setattr(epsot, "sinkhorn_divergence", watched)
    monkeypatch.setattr(
        demo, "SWEEPS", (demo.Sweep("a", 0.5, 2, unbiased=True), demo.Sweep("b", 0.5, 1, unbiased=True))
    )
    monkeypatch.setattr(demo, "draw", lambda *arguments: None)
    assert demo.main(["--points", "64", "--out", str(tmp_path)]) == 0
    assert seen[1] == [
        "compiling kernels, once per machine; this takes some seconds to a minute",
        "  compiling tripled, once per machine",
    ]
    assert [lines[-1].split()[0] for lines in seen[3:]] == ["sweep", "a", "a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"not a picture", "cannot identify"), ("white", "no dark pixel")],
)
def test_a_bad_picture_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    path = tmp_path / "p.png"
    if content == "white":
        save(path, np.full((3, 3), 255))
    elif content is not None:
        path.write_bytes(content)
    assert main(["demo", "--source", str(path), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(path) in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--points", "64", "--out", str(tmp_path / "file")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--out" in line


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["demo", "--points", "0"], ["demo", "--workers", "many"]])
def test_bad_arguments_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m epsot" in capsys.readouterr().err


def test_missing_matplotlib_is_one_line_before_any_work(tmp_path: Path) -> None:
    code = f"import sys; sys.modules['matplotlib'] = None; from epsot import demo; demo.main(['--out', r'{tmp_path}'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert 'pip install "epsot[plot]"' in line


def test_info_says_what_a_bug_report_needs() -> None:
    found = info()
    assert found["epsot"] == epsot.__version__
    assert found["numpy"] == np.__version__
    assert {"python", "scipy", "numba", "llvmlite", "cupy", "processor", "simd", "gpu"} <= set(found)
    assert found["cores"] >= 1
    assert (found["numpy_arrays"], found["other_arrays"]) == ("cpu", "tiled")
    assert (found["kernel_cache"] is None) <= (found["kernel_cache_writable"] is False)
    assert len(report(found).splitlines()) == len(found)


def test_info_from_the_command_line() -> None:
    run = subprocess.run([sys.executable, "-m", "epsot", "info"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = dict(line.split("  ", 1) for line in run.stdout.splitlines())
    assert lines["python"].strip() == sys.version.split()[0]
    assert lines["kernel cache"].strip()


# Kernels compiled ahead


# Not of this file, so that a process that makes it imports no more than people's do.
solve_something = partial(epsot.sinkhorn, np.ones((3, 1)), np.zeros((2, 1)), blur=0.5)


def compile_anew() -> None:
    """A kernel that no earlier run has kept."""
    from epsot.kernels.cpu.compiled import compiled

    def _tripled(x):  # type: ignore[no-untyped-def]
        return 3 * x

    kernel: Any = compiled(_tripled)
    kernel._cache.flush()
    assert kernel(2) == 6


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.every)])
def test_compile_says_what_it_does(
    processes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each problem; of several processes a last look finds what one has forgotten."""
    problems = {"something": solve_something, "something else": solve_something}
    if processes == 1:
        problems["what nobody has"] = compile_anew
    monkeypatch.setattr(ahead, "PROBLEMS", problems)
    assert main(["compile", "--processes", str(processes)]) == 0
    out = capsys.readouterr().out
    assert f"compiling the usual kernels in {('one process', '2 processes')[processes - 1]}" in out
    assert "something else" in out
    if processes == 1:
        assert "what nobody has                        1 compiled" in out
        assert "compiled: 1, in" in out
    else:
        assert "all were compiled already" in out


def test_compile_needs_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ahead, "cache_folder", lambda: None)
    assert main(["compile"]) == 1
    assert "NUMBA_CACHE_DIR" in capsys.readouterr().err


def test_the_problems_of_compile_are_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, of fewer points; the kernels of the others are compiled under `every`."""
    monkeypatch.setattr(ahead, "SMALL", 5)
    monkeypatch.setattr(ahead, "MANY_COORDINATES", 8)
    for name in ("small clouds and batches, float64", "cost matrices"):
        assert ahead.prepare(name, ahead.PROBLEMS[name])[0] == name
    assert ahead.cuda_problems(np)


def test_the_sweeps_on_grids_are_those_on_points(small: demo.Measures) -> None:
    """With mass on every pixel, as images and as points."""
    images = demo.on_grids(small)
    assert images.a.shape == images.x.shape == (8, 8)
    assert (images.a > 0).all()
    x = np.asarray(images.x.points)
    kind = demo.Sweep("short", 0.5, 3, unbiased=True)
    ours = demo.sweep(kind, images)
    theirs = demo.sweep(kind, demo.Measures(x, x, images.a.ravel(), images.b.ravel()))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.row.value == pytest.approx(other.row.value, abs=1e-9)
        assert mine.row.marginal_error == pytest.approx(other.row.marginal_error, abs=1e-9)
        np.testing.assert_allclose(mine.result.f.ravel(), other.result.f, atol=1e-9)
    (corner,) = np.flatnonzero((small.x == images.x.points[8]).all(axis=1))  # the second column of the picture
    assert images.a.ravel()[8] * small.a.max() == pytest.approx(
        images.a.max() * max(small.a[corner], 1e-8 * small.a.max())
    )


def test_the_command_on_grids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--grid", "--points", "36", "--out", str(tmp_path)]) == 0
    assert "37 solves" in capsys.readouterr().out
    assert (tmp_path / "unbiased.png").stat().st_size > 1000
