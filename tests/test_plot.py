"""Pictures, by what their artists hold: positions, areas, arrows, level lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import epsot

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import colors  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.contour import ContourSet  # noqa: E402
from matplotlib.quiver import Quiver  # noqa: E402

from epsot import plot  # noqa: E402


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Far from the origin, n and m differ, weights are not uniform and two are zero."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform([5.0, -2.0], [6.0, -1.0], (15, 2)), rng.uniform([6.0, -1.5], [7.0, -0.5], (11, 2))
    a, b = rng.random(15) + 0.1, rng.random(11) + 0.1
    a[[2, 7]] = b[4] = 0
    return x, y, a / a.sum(), b / b.sum()


def moved() -> epsot.SinkhornResult:
    x = np.asarray([[0.0, 0.0], [1.0, 0.5]])
    return epsot.sinkhorn(x, x + 1.0, blur=1.0)


def of_type(ax: Any, kind: type) -> list[Any]:
    return [artist for artist in ax.collections if isinstance(artist, kind)]


def discs(ax: Any) -> list[Any]:
    return [artist for artist in ax.collections if not isinstance(artist, ContourSet | Quiver)]


def lines(ax: Any, color: str) -> Any:
    return next(c for c in of_type(ax, ContourSet) if np.allclose(c.get_edgecolor()[0], colors.to_rgba(color)))


def vertices(contours: Any) -> Iterator[tuple[float, np.ndarray]]:
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        yield float(level), path.vertices


def test_samples_have_areas_by_weight(clouds: Any) -> None:
    x, _, a, _ = clouds
    ax = plot.samples(x, a, color="red", area=60.0)
    (scatter,) = discs(ax)
    np.testing.assert_array_equal(scatter.get_offsets(), x[a > 0])
    np.testing.assert_allclose(scatter.get_sizes(), 60.0 * a[a > 0])
    assert colors.same_color(scatter.get_facecolor(), "red")
    assert ax.get_aspect() == 1


def test_few_samples_do_not_fill_the_panel() -> None:
    (scatter,) = discs(plot.samples([[0.0, 0.0], [1.0, 0.0]], [1.0, 3.0]))
    np.testing.assert_allclose(scatter.get_sizes(), [plot.DISC / 2, plot.DISC * 3 / 2])


def test_given_axes_are_used_and_returned(clouds: Any) -> None:
    x, y, a, b = clouds
    ax = plt.figure().add_subplot()
    result = epsot.sinkhorn(x, y, a, b, blur=0.5)
    assert plot.samples(x, ax=ax) is ax
    assert plot.potential(x, x[:, 0], ax=ax) is ax
    assert plot.displacement(x, x, ax=ax) is ax
    assert plot.transport(result, ax=ax) is ax
    assert plot.convergence(result, ax=ax) is ax
    assert plt.get_fignums() == [1]


def test_displacement_has_arrows_in_data_units(clouds: Any) -> None:
    x, v = clouds[0], np.random.default_rng(1).normal(size=(15, 2))
    ax = plot.displacement(x, v)
    (arrows,) = of_type(ax, Quiver)
    np.testing.assert_array_equal(np.stack([arrows.X, arrows.Y], axis=1), x)
    np.testing.assert_array_equal(np.stack([arrows.U, arrows.V], axis=1), v)
    assert (arrows.angles, arrows.scale, arrows.scale_units) == ("xy", 1, "xy")
    ends = np.concatenate([x, x + v])
    limits = np.stack([ax.get_xlim(), ax.get_ylim()], axis=1)
    assert np.all(limits[0] <= ends.min(axis=0))
    assert np.all(limits[1] >= ends.max(axis=0))


def test_many_arrows_are_thinned_evenly() -> None:
    x = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    (arrows,) = of_type(plot.displacement(x, 2 * x, arrows=50), Quiver)
    chosen = np.stack([arrows.X, arrows.Y], axis=1)
    assert chosen.shape == (50, 2)
    np.testing.assert_array_equal(np.stack([arrows.U, arrows.V], axis=1), 2 * chosen)  # each has its own displacement
    distance = np.linalg.norm(x[:, None] - chosen[None], axis=-1)
    assert distance.min(axis=1).max() < 5  # 900 points, 50 arrows: a hole has a radius of about sqrt(900 / 50)
    between = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1) + 99 * np.eye(50)
    assert between.min() > 2


@pytest.mark.parametrize("scattered", [False, True])
def test_level_lines_of_a_linear_potential(scattered: bool) -> None:
    """u = 2 x - 3 y: on the line of level c every vertex has u = c; a lattice may come in any order."""
    rng = np.random.default_rng(0)
    points = np.stack(np.meshgrid(np.linspace(1, 2, 7), np.linspace(-1, 0, 5)), axis=-1).reshape(-1, 2)
    points = rng.random((40, 2)) if scattered else rng.permutation(points)
    values = points @ [2.0, -3.0]
    middle = float(np.median(values))
    (drawn,) = of_type(plot.potential(points, values, levels=[middle - 0.5, middle, 1e3]), ContourSet)
    np.testing.assert_array_equal(drawn.levels, [middle - 0.5, middle])  # no line at 1000, and no warning about it
    for level, path in vertices(drawn):
        assert len(path) > 2
        np.testing.assert_allclose(path @ [2.0, -3.0], level, atol=1e-12)


def test_default_levels_are_some_twenty() -> None:
    points = np.random.default_rng(0).random((60, 2))
    (drawn,) = of_type(plot.potential(points, 1e-3 * points[:, 0]), ContourSet)
    assert 8 <= len(drawn.levels) <= 25


def test_a_constant_potential_has_no_lines() -> None:
    points = np.random.default_rng(0).random((6, 2))
    assert not of_type(plot.potential(points, np.full(6, 0.3)), ContourSet)


@pytest.mark.parametrize("debias", [False, True])
def test_transport_draws_both_measures_both_potentials_and_the_displacement(clouds: Any, debias: bool) -> None:
    x, y, a, b = clouds
    loss = epsot.sinkhorn_divergence if debias else epsot.sinkhorn
    result, mirrored = (loss(*args, blur=0.5, tol=1e-9) for args in [(x, y, a, b), (y, x, b, a)])
    extent = (4.9, 7.2, -2.2, -0.3)
    ax = plot.transport(result, levels=np.linspace(-2, 2, 41), extent=extent)
    assert ax.get_title() == "blur = 0.5"
    assert (*ax.get_xlim(), *ax.get_ylim()) == extent
    target, source = discs(ax)
    np.testing.assert_array_equal(source.get_offsets(), x[a > 0])
    np.testing.assert_array_equal(target.get_offsets(), y[b > 0])
    assert colors.same_color(source.get_facecolor(), plot.SOURCE)
    (arrows,) = of_type(ax, Quiver)
    np.testing.assert_array_equal(np.stack([arrows.U, arrows.V], axis=1), result.displacement[a > 0])
    # lines are linear between lattice points 2.3 / 63 apart, where the potentials bend by at most 1 / blur^2 or so
    for color, solved in [(plot.SOURCE_LINE, result), (plot.TARGET_LINE, mirrored)]:
        contours = lines(ax, color)
        assert len(contours.levels) > 3
        for level, path in vertices(contours):
            np.testing.assert_allclose(solved.potential(path), level, atol=(2.3 / 63) ** 2)


def test_the_default_frame_holds_everything(clouds: Any) -> None:
    x, y, a, b = clouds
    ax = plot.transport(epsot.sinkhorn(x, y, a, b, blur=1.0))
    both = np.concatenate([x, y])
    limits = np.stack([ax.get_xlim(), ax.get_ylim()], axis=1)
    assert np.all(limits[0] < both.min(axis=0))
    assert np.all(limits[1] > both.max(axis=0))


def test_scales_in_titles(clouds: Any) -> None:
    x, y, a, b = clouds
    assert plot.scale_of(epsot.sinkhorn(x, y, a, b, blur=0.25, p=1)) == "blur = 0.25"
    assert plot.scale_of(epsot.sinkhorn(x, y, a, b, blur=1 / 8)) == "blur = 0.125"
    assert plot.scale_of(epsot.solve(epsot.PointCloud(x, y, cost="sqeuclidean"), a, b, eps=0.5)) == "eps = 0.5"


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_arrays_of_other_libraries(clouds: Any, library: str) -> None:
    xp = pytest.importorskip(library)
    there = [xp.asarray(array) for array in clouds]
    options: dict[str, Any] = {"blur": 0.5, "tol": None}
    own, other = (plot.transport(epsot.sinkhorn_divergence(*arrays, **options)) for arrays in (clouds, there))
    for one, two in zip(of_type(own, Quiver) + discs(own), of_type(other, Quiver) + discs(other), strict=True):
        np.testing.assert_allclose(one.get_offsets(), two.get_offsets(), rtol=1e-12)
    np.testing.assert_allclose(of_type(own, Quiver)[0].U, of_type(other, Quiver)[0].U, rtol=1e-9)
    (disc,) = discs(plot.samples(there[0], there[2]))
    np.testing.assert_array_equal(disc.get_offsets(), clouds[0][clouds[2] > 0])


def test_sweep_has_a_panel_a_result_in_one_frame(clouds: Any) -> None:
    x, y, a, b = clouds
    results = [epsot.sinkhorn(x, y, a, b, blur=blur, tol=None) for blur in (1, 0.5, 0.25, 0.125)]
    figure = plot.sweep(results, arrows=3)
    assert [ax.get_title() for ax in figure.axes] == ["blur = 1", "blur = 0.5", "blur = 0.25", "blur = 0.125"]
    places = [ax.get_subplotspec() for ax in figure.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert all(len(of_type(ax, Quiver)[0].U) == 3 for ax in figure.axes)
    for ax, result in zip(figure.axes, results, strict=True):
        (arrows,) = of_type(ax, Quiver)
        at = [int(np.argmin(np.linalg.norm(x - point, axis=1))) for point in arrows.get_offsets()]
        np.testing.assert_array_equal(np.stack([arrows.U, arrows.V], axis=1), result.displacement[at])
    titles = [ax.get_title() for ax in plot.sweep(results[:2], titles=["one", "two"]).axes]
    assert titles == ["one", "two"]


def test_convergence_draws_the_history(clouds: Any) -> None:
    x, y, a, b = clouds
    result = epsot.sinkhorn(x, y, a, b, blur=0.1, tol=1e-8)
    ax = plot.convergence(result, label="here", color="black")
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [check.nit for check in result.history])
    np.testing.assert_array_equal(line.get_ydata(), [check.marginal_error for check in result.history])
    assert ax.get_yscale() == "log"
    assert line.get_label() == "here"


def test_convergence_draws_errors_of_zero() -> None:
    """A logarithmic axis has no place for them, and Matplotlib warns where there is nothing else."""
    x = np.zeros((3, 2))
    ax = plot.convergence(epsot.sinkhorn(x, x, blur=0.1))
    ax.figure.draw_without_rendering()
    mixed = plot.convergence([(1, 1.0, 0.5), (2, 1.0, 1e-18), (3, 1.0, 0.0)])
    np.testing.assert_array_equal(mixed.lines[0].get_ydata(), [0.5, 1e-18, 1e-18])


def test_convergence_marks_where_a_temperature_begins() -> None:
    ax = plot.convergence([(1, 4.0, 0.5), (2, 4.0, 0.2), (3, 1.0, 0.4), (4, 1.0, 0.1), (5, 1.0, 0.05)])
    (line,) = ax.lines
    assert line.get_markevery() == [0, 2]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.samples(np.zeros((4, 3))), r"`x` must have shape \(n, 2\).*project"),
        (lambda: plot.samples(np.zeros((4, 2)), np.ones(3)), r"`weights` must have shape \(4,\)"),
        (lambda: plot.samples(np.zeros((4, 2)), displacement=np.ones((3, 2))), r"`displacement`.*\(4, 2\)"),
        (lambda: plot.potential(np.zeros((4, 2)), np.ones((4, 1))), r"`values` must have shape \(4,\)"),
        (lambda: plot.displacement(np.zeros((4, 2)), np.ones(4)), r"`v` must have shape \(4, 2\)"),
        (lambda: plot.samples(np.zeros((4, 2)), [1, -1, 1, 1]), "`weights` must be non-negative"),
        (lambda: plot.samples(np.zeros((4, 2)), arrows=-1), "`arrows` must be at least 0"),
        (lambda: plot.samples(np.zeros((4, 2)), area=0), "`area` must be positive"),
        (lambda: plot.potential(np.zeros((4, 2)), np.ones(4), levels=20), "`levels` must be a sequence.*20"),
        (lambda: plot.transport(moved(), extent=(0, 1)), "`extent` must be .left, right, bottom, top.*(0, 1)"),
        (lambda: plot.transport(moved(), extent=(1, 0, 0, 1)), "`extent`.*left < right"),
        (lambda: plot.sweep([moved()], extent=(0, np.nan, 0, 1)), "`extent`.*nan"),
        (lambda: plot.sweep([moved()], arrows=-1), "`arrows` must be at least 0"),
        (lambda: plot.sweep([moved()], levels=20), "`levels` must be a sequence"),
        (lambda: plot.sweep([moved()], area=np.nan), "`area` must be positive"),
        (lambda: plot.sweep([moved()], columns=0), "`columns` must be at least 1"),
        (lambda: plot.sweep([moved()], panel=-1), "`panel` must be positive"),
        (lambda: plot.convergence([1, 2]), r"triples \(nit, eps, marginal_error\), got \[1, 2\]"),
        (lambda: plot.sweep([]), "`results` must hold at least one"),
        (lambda: plot.convergence([]), "`result` has no measurements.*set `tol`"),
        (lambda: plot.transport(epsot.sinkhorn(np.zeros((2, 3)), np.ones((3, 3)), blur=1.0)), r"`x`.*\(2, 3\)"),
    ],
)
def test_errors_name_the_argument(draw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()
    assert not plt.get_fignums()


def test_what_is_no_result_is_named() -> None:
    with pytest.raises(TypeError, match=r"one result; pass \[result\]"):
        plot.sweep(moved())
    with pytest.raises(TypeError, match="`result` must be a SinkhornResult or a DivergenceResult, got str"):
        plot.transport("result")
    with pytest.raises(TypeError, match=r"`results\[1\]` must be a SinkhornResult or a DivergenceResult, got str"):
        plot.sweep([moved(), "result"], extent=(0, 1, 0, 1))
    with pytest.raises(TypeError, match="`results` must be a sequence of results, got 3"):
        plot.sweep(3)
    with pytest.raises(TypeError, match=r"`result` must be a result, or triples.*got 3"):
        plot.convergence(3)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.samples(moved()), r"`x` must be an array, got a SinkhornResult; `plot.transport\(result\)`"),
        (lambda: plot.samples(np.zeros((4, 2)), moved()), "`weights` must be an array, got a SinkhornResult"),
        (lambda: plot.displacement(np.zeros((4, 2)), object()), "`v` must be an array of real numbers, got a object"),
        (lambda: plot.potential(np.zeros((4, 2)), "abcd"), "`values` must be an array of real numbers, got a str"),
        (lambda: plot.convergence("abc"), "`result` must be an array of real numbers"),
    ],
)
def test_what_is_no_array_is_named(draw: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        draw()
    assert not plt.get_fignums()


def test_no_points_no_discs() -> None:
    assert len(discs(plot.samples(np.zeros((0, 2))))[0].get_offsets()) == 0


def test_levels_in_any_order() -> None:
    points = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    ax = plot.potential(points, points[:, 0], levels=[0.7, 0.3, 0.7], color="red")
    assert sorted({level for level, _ in vertices(lines(ax, "red"))}) == [0.3, 0.7]


def test_one_title_a_result(clouds: Any) -> None:
    result = epsot.sinkhorn(*clouds, blur=1.0)
    with pytest.raises(ValueError, match="`titles` must hold one title a result, 2, got 1"):
        plot.sweep([result, result], titles=["one"])


def test_a_schedule_alone_has_no_history(clouds: Any) -> None:
    with pytest.raises(ValueError, match="tol=None"):
        plot.convergence(epsot.sinkhorn(*clouds, blur=1.0, tol=None))


def test_a_cost_matrix_has_no_picture() -> None:
    with pytest.raises(TypeError, match="between points"):
        plot.transport(epsot.solve(epsot.CostMatrix(np.eye(2)), eps=1.0))


def test_missing_matplotlib_is_named() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; import epsot; epsot.plot"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].endswith('install it with: pip install "epsot[plot]"')
