"""Pictures of measures in the plane: samples, potentials, displacements, and whole results.

Needs Matplotlib: ``pip install "epsot[plot]"``. Arrays of any library are copied to the host to be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epsot import planar
from epsot.arrays import as_count, as_positive
from epsot.planar import Result
from epsot.results.debiased import DivergenceResult
from epsot.results.result import SinkhornResult

try:
    import matplotlib.axes
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba_array
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError('epsot.plot needs Matplotlib; install it with: pip install "epsot[plot]"') from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure

__all__ = ["convergence", "displacement", "potential", "samples", "sweep", "transport"]

SOURCE, TARGET, ARROW = "#F28C8C", "#8C8CF2", "#3F9A22"  # samples of x, samples of y, displacements
SOURCE_LINE, TARGET_LINE = "#C8DFF9", "#E9CDCD"  # level lines of f and g, paler: they are the background
FAINT = 1e-6  # of the largest weight: a disc that nobody sees is none, and has no arrow
AREA = 5000.0  # of all discs together, at most, in square points: about a tenth of a panel
DISC = 40.0  # of a disc, at most on average: a few samples need not fill the panel
ARROWS = 120  # at most: more would hide what they point at
LEVELS = 20  # level lines, about, where the caller names none
PANEL = 3.6  # inches


def samples(
    x: Any,
    weights: Any = None,
    *,
    ax: Axes | None = None,
    color: Any = SOURCE,
    area: float = AREA,
    displacement: Any = None,
    arrows: int = ARROWS,
) -> Axes:
    """Draw weighted points: discs whose area is proportional to the weight.

    Parameters
    ----------
    x : (n, 2) array
        The points.
    weights : (n,) array, optional
        Non-negative; by default all equal. Points of weight zero are not drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    color : color
        Of the discs.
    area : float
        Of all discs together, at most, in square points (1/72 inch, squared).
    displacement : (n, 2) array, optional
        Arrows to draw from the points of positive weight, in the units of the points.
    arrows : int
        The most arrows to draw; beyond that an evenly spread selection.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If an array has another shape, weights are negative, or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from epsot import plot
    >>> ax = plot.samples(np.asarray([[0.0, 0.0], [1.0, 2.0]]), np.asarray([0.25, 0.75]))
    >>> len(ax.collections[0].get_offsets())
    2
    """
    x = planar.plane("x", x)
    w = np.ones(len(x)) if weights is None else planar.masses("weights", weights, len(x))
    v = None if displacement is None else planar.plane("displacement", displacement, len(x))
    area, arrows = as_positive("area", area), as_count("arrows", arrows, 0)
    ax = _axes(ax, color)
    drawn = w > FAINT * w.max(initial=0.0)
    discs = min(area, DISC * np.count_nonzero(drawn)) * (w[drawn] / w.sum())
    ax.scatter(x[drawn, 0], x[drawn, 1], s=discs, color=color, edgecolors="none", zorder=2)
    if v is not None:
        _arrows(ax, x[drawn], v[drawn], ARROW, arrows)
    ax.set_aspect("equal", adjustable="box")
    return ax


def potential(
    points: Any, values: Any, *, ax: Axes | None = None, color: Any = SOURCE_LINE, levels: Any = None
) -> Axes:
    """Draw level lines of a potential.

    Parameters
    ----------
    points : (n, 2) array
        Where the potential is known: a rectangular lattice in any order, or at least three scattered points, which are
        triangulated.
    values : (n,) array
        The potential, in the units of the cost.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    color : color
        Of the lines.
    levels : sequence of float, optional
        The values to draw a line for; by default some 20 round ones.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If an array has another shape, or `levels` is no sequence.

    Examples
    --------
    >>> import numpy as np
    >>> from epsot import plot
    >>> points = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> ax = plot.potential(points, points[:, 0], levels=[0.5])
    """
    points = planar.plane("points", points)
    values = planar.vector("values", values, len(points))
    chosen = _levels_within(values, None if levels is None else planar.levels(levels))
    ax = _axes(ax, color)
    if chosen.size:  # a constant potential has no lines, and Matplotlib would warn
        style: dict[str, Any] = {"levels": chosen, "colors": [color], "linewidths": 1.5, "zorder": 1}
        lattice = planar.lattice(points)
        lines: ContourSet
        if lattice is None:
            lines = ax.tricontour(points[:, 0], points[:, 1], values, **style)
        else:
            columns, rows, index = lattice
            lines = ax.contour(columns, rows, values[index], **style)
        lines.set_linestyle("solid")  # of negative levels too: dashes would compete with the arrows
    ax.set_aspect("equal", adjustable="box")
    return ax


def displacement(x: Any, v: Any, *, ax: Axes | None = None, color: Any = ARROW, arrows: int = ARROWS) -> Axes:
    """Draw arrows from x to x + v, at the scale of the points.

    Parameters
    ----------
    x, v : (n, 2) arrays
        Points and their displacements, in the same units.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    color : color
        Of the arrows.
    arrows : int
        The most arrows to draw; beyond that an evenly spread selection.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If an array has another shape, or `arrows` is no number of arrows.

    Examples
    --------
    >>> import numpy as np
    >>> from epsot import plot
    >>> ax = plot.displacement(np.zeros((1, 2)), np.asarray([[1.0, 0.5]]))
    """
    x = planar.plane("x", x)
    v = planar.plane("v", v, len(x))
    arrows = as_count("arrows", arrows, 0)
    ax = _axes(ax, color)
    _arrows(ax, x, v, color, arrows)
    ax.update_datalim(np.concatenate([x, x + v]))  # arrows alone do not count for the limits
    ax.autoscale_view()
    ax.set_aspect("equal", adjustable="box")
    return ax


def transport(
    result: Result,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    levels: Any = None,
    extent: Sequence[float] | None = None,
    area: float = AREA,
    arrows: int = ARROWS,
) -> Axes:
    """Draw a result: level lines of both potentials, the samples of both measures, and the displacement.

    Parameters
    ----------
    result : SinkhornResult or DivergenceResult
        Between points in the plane.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    title : str, optional
        By default the scale that was solved, "blur = 0.125" or "eps = 0.1".
    levels : sequence of float, optional
        The values of the potentials to draw a line for, in the units of the cost; by default some 20 round ones.
    extent : (left, right, bottom, top), optional
        The frame, in the units of the points; by default what holds all points of both measures, with a margin.
    area : float
        Of all discs of one measure together, at most, in square points.
    arrows : int
        The most arrows to draw; beyond that an evenly spread selection.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If `result` is not one between points in the plane, or an option is out of range.

    Notes
    -----
    Potentials are drawn all over the frame, as the dual extends them: ``f(z) = -eps log sum_j b_j exp((g_j - C(z, y_j))
    / eps)``, less the same with the self potential if debiased. The source has red samples and blue lines (f), the
    target blue samples and red lines (g): the force of f on the red samples is along the arrows, ``-grad f``.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x = np.random.default_rng(0).random((50, 2))
    >>> ax = epsot.plot.transport(epsot.sinkhorn_divergence(x, x + [1.0, 0.5], blur=0.25))
    >>> ax.get_title()
    'blur = 0.25'
    """
    (x, a), (y, b) = planar.measures(result)
    extent = planar.frame(np.concatenate([x, y])) if extent is None else planar.bounds(extent)
    levels, area, arrows = _options(levels, area, arrows)
    title = planar.text("title", title)
    ax = _axes(ax)
    lattice = planar.lattice_over(extent)
    f, g = planar.potentials_at(result, lattice)
    potential(lattice, g, ax=ax, color=TARGET_LINE, levels=levels)
    potential(lattice, f, ax=ax, color=SOURCE_LINE, levels=levels)
    samples(y, b, ax=ax, color=TARGET, area=area)
    v = planar.on_host(result.displacement).reshape(x.shape)  # of a grid, too
    samples(x, a, ax=ax, color=SOURCE, area=area, displacement=v, arrows=arrows)
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(extent[2], extent[3])
    ax.set_title(scale_of(result) if title is None else title)
    return ax


def sweep(
    results: Sequence[Result],
    *,
    columns: int = 3,
    levels: Any = None,
    extent: Sequence[float] | None = None,
    area: float | None = None,
    arrows: int = ARROWS,
    titles: Sequence[str] | None = None,
    panel: float = PANEL,
) -> Figure:
    """Draw a list of results, a panel each, all in the same frame.

    Parameters
    ----------
    results : sequence of SinkhornResult or DivergenceResult
        Between points in the plane.
    columns : int
        Panels in a row.
    levels, extent, area, arrows
        As in `transport`, for all panels; by default the frame holds the points of all results, and `area` follows
        the size of a panel.
    titles : sequence of str, optional
        By default the scales that were solved.
    panel : float
        The side of a panel, in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If there is no result, one is not between points in the plane, or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x = np.random.default_rng(0).random((50, 2))
    >>> results = [epsot.sinkhorn(x, x + 1.0, blur=blur) for blur in (1.0, 0.5, 0.25, 0.125)]
    >>> figure = epsot.plot.sweep(results, columns=2)
    >>> len(figure.axes)
    4
    """
    if isinstance(results, Result):
        raise TypeError("`results` must be a sequence of results, got one result; pass [result]")
    if not isinstance(results, Iterable):
        raise TypeError(f"`results` must be a sequence of results, got {results!r}")
    results = list(results)
    if not results:
        raise ValueError("`results` must hold at least one result, got none")
    headings = planar.headings(titles, len(results))
    points = np.concatenate(
        [points for i, result in enumerate(results) for points, _ in planar.measures(result, f"results[{i}]")]
    )
    extent = planar.frame(points) if extent is None else planar.bounds(extent)
    panel = as_positive("panel", panel)
    levels, area, arrows = _options(levels, AREA * (panel / PANEL) ** 2 if area is None else area, arrows)
    columns = min(as_count("columns", columns, 1), len(results))
    rows = math.ceil(len(results) / columns)
    shape = (extent[3] - extent[2]) / (extent[1] - extent[0])
    figure = plt.figure(figsize=(panel * columns, (panel * shape + 0.3) * rows), layout="constrained")
    for i, result in enumerate(results):
        ax = figure.add_subplot(rows, columns, i + 1)
        transport(result, ax=ax, title=headings[i], levels=levels, extent=extent, area=area, arrows=arrows)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def convergence(result: Any, *, ax: Axes | None = None, label: str | None = None, color: Any = None) -> Axes:
    """Draw the marginal error against the iteration.

    Parameters
    ----------
    result : SinkhornResult, DivergenceResult, or sequence of triples
        What was measured: the `history` of a result, or triples (nit, eps, marginal_error) that a callback has kept.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    label : str, optional
        For a legend.
    color : color, optional
        Of the line; by default the next of Matplotlib's cycle.

    Returns
    -------
    matplotlib.axes.Axes
        With a logarithmic error axis, on which an error of zero stands where the rounding of float64 is. A dot marks
        the first measurement at each temperature.

    Raises
    ------
    ValueError
        If nothing was measured, with ``tol=None`` a result has no history, or the records are no triples.

    Examples
    --------
    >>> import numpy as np
    >>> import epsot
    >>> x = np.random.default_rng(0).random((50, 2))
    >>> ax = epsot.plot.convergence(epsot.sinkhorn(x, x + 1.0, blur=0.1))
    >>> ax.get_yscale()
    'log'
    """
    history = result.history if isinstance(result, SinkhornResult | DivergenceResult) else result
    if not isinstance(history, Iterable):
        raise TypeError(f"`result` must be a result, or triples (nit, eps, marginal_error), got {result!r}")
    history = list(history)
    if not history:
        raise ValueError("`result` has no measurements, as with tol=None; set `tol`, or pass records of a callback")
    records = planar.drawn("result", history)
    if records.ndim != 2 or records.shape[1] != 3:
        raise ValueError(f"`result` must be a result, or triples (nit, eps, marginal_error), got {result!r}")
    nit, eps, error = records.T
    label = planar.text("label", label)
    ax = _axes(ax, "black" if color is None else color)
    cooled = np.flatnonzero(np.diff(eps, prepend=np.inf) != 0)
    least = min(2.0**-53, error[error > 0].min(initial=1.0))
    ax.semilogy(
        nit,
        np.where(error == 0, least, error),
        label=label,
        color=color,
        marker="o",
        markersize=4,
        markevery=cooled.tolist(),
    )
    ax.set_xlabel("iteration")
    ax.set_ylabel("marginal error")
    ax.grid(True, which="major", color="0.9")
    return ax


def scale_of(result: Result) -> str:
    """The scale that a result was solved at, in words: "blur = 0.125", or "eps = 0.1" where the cost has no lengths."""
    blur = result.instance.geometry.blur(result.eps)
    return f"eps = {result.eps:.3g}" if blur is None else f"blur = {blur:.3g}"


def _options(levels: Any, area: Any, arrows: Any) -> tuple[np.ndarray | None, float, int]:
    """What pictures of results have in common, checked before there is a figure."""
    return None if levels is None else planar.levels(levels), as_positive("area", area), as_count("arrows", arrows, 0)


def _axes(ax: Axes | None, color: Any = "black") -> Axes:
    """Where to draw, once it is clear that it can be drawn."""
    try:
        to_rgba_array(color)
    except (TypeError, ValueError):
        raise ValueError(f"`color` must be a colour of Matplotlib, got {type(color).__name__} {color!r:.60}") from None
    if ax is None:
        return plt.subplots(figsize=(PANEL, PANEL), layout="constrained")[1]
    if not isinstance(ax, matplotlib.axes.Axes):
        raise TypeError(f"`ax` must be a matplotlib.axes.Axes, got a {type(ax).__name__}")
    return ax


def _levels_within(values: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
    """The levels that have a line: strictly between the extremes."""
    low, high = float(values.min()), float(values.max())
    if levels is None:
        if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):  # constant up to rounding
            return np.empty(0)
        levels = np.asarray(MaxNLocator(LEVELS).tick_values(low, high))
    return levels[(levels > low) & (levels < high)]


def _arrows(ax: Axes, x: np.ndarray, v: np.ndarray, color: Any, most: int) -> None:
    """At most so many arrows, in data units."""
    chosen = planar.spread(x, most)
    x, v = x[chosen], v[chosen]
    ax.quiver(
        x[:, 0], x[:, 1], v[:, 0], v[:, 1],
        angles="xy", scale_units="xy", scale=1, color=color, width=0.003, headwidth=4, headlength=5, zorder=3,
    )  # fmt: skip


def __dir__() -> list[str]:
    return __all__
