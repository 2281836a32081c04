"""Measures for the demonstration: two shapes drawn by formulas, pictures from files, and both as images on grids."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

import epsot

POINTS = 10_000
FLOOR = 1e-8  # of the largest weight, at pixels without mass of a grid


class DemoError(Exception):
    """What the person at the terminal can mend; the message says how."""


class Measures(NamedTuple):
    """The two weighted clouds to match, or two images."""

    x: np.ndarray | epsot.Grid  # (n, 2)
    y: np.ndarray | epsot.Grid  # (m, 2)
    a: np.ndarray  # (n,), or of the shape of the grid
    b: np.ndarray  # (m,), likewise


def densities(points: int = POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pair of elongated densities over the pixels of the unit square.

    Parameters
    ----------
    points : int
        About how many pixels; the lattice has ``round(sqrt(points))`` along each side.

    Returns
    -------
    x : (n, 2) array
        Pixel centres, the same for both densities.
    a, b : (n,) arrays
        Weights of sum one, exactly zero outside the shapes: a thick bow, and a wave with a clasp below it.

    Examples
    --------
    >>> from epsot.drawings import densities
    >>> x, a, b = densities(400)
    >>> x.shape, bool((a == 0).any())
    ((400, 2), True)
    """
    side = max(4, round(math.sqrt(points)))
    centres = (np.arange(side) + 0.5) / side
    x = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    t = np.linspace(0, 1, 200)
    angle = np.pi * (0.3 + 1.4 * t)
    bow = np.outer((1 - t) ** 2, [0.10, 0.52]) + np.outer(2 * t * (1 - t), [0.04, 0.02]) + np.outer(t**2, [0.62, 0.14])
    wave = np.stack([0.20 + 0.52 * t, 0.76 + 0.12 * t + 0.065 * np.sin(2.2 * np.pi * (t - 0.05))], axis=1)
    clasp = np.stack([0.80 + 0.10 * np.cos(angle), 0.40 + 0.13 * np.sin(angle)], axis=1)
    a = _stroke(x, bow, 0.03 + 0.055 * np.sin(np.pi * t), 1 / side)
    b = _stroke(x, wave, 0.045 - 0.03 * t, 1 / side) + _stroke(x, clasp, np.full(len(t), 0.03), 1 / side)
    return x, a / a.sum(), b / b.sum()


def read_density(path: str | Path, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A density from a picture in which dark is mass.

    Parameters
    ----------
    path : path
        A PNG file, or any other that Pillow reads. Transparent pixels are white.
    points : int
        About how many pixels to keep of a larger picture: one at the centre of each cell of a square lattice.

    Returns
    -------
    x : (n, 2) array
        Pixel centres; the longer side of the picture is one unit, and its last row is at the bottom.
    a : (n,) array
        Weights of sum one.

    Raises
    ------
    DemoError
        If the file cannot be read, or is blank.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DemoError(f"cannot read {path} as a picture: {error}") from None
    paper = Image.new("RGBA", picture.size, "white")
    grey = np.asarray(Image.alpha_composite(paper, picture).convert("RGB"), dtype=float).mean(axis=2)
    ink = 1 - grey[::-1] / 255  # row 0 of the picture is its top, y = 1
    height, width = ink.shape
    ratio = min(1.0, math.sqrt(points / (height * width)))
    rows, columns = max(1, round(ratio * height)), max(1, round(ratio * width))
    v, u = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    a = ink[np.ix_((v * height).astype(int), (u * width).astype(int))].ravel()
    if not a.sum() > 0:
        raise DemoError(f"{path} has no dark pixel; dark is mass, on a white ground")
    longer = max(height, width)
    x = np.stack(np.meshgrid(u * width / longer, v * height / longer), axis=-1).reshape(-1, 2)
    return x, a / a.sum()


def as_image(x: np.ndarray, a: np.ndarray) -> tuple[epsot.Grid, np.ndarray]:
    """Pixels in a lattice as a grid, of which axis 0 is that of the first coordinate, and their weights.

    All pixels take part, as in the GeomLoss example: those without mass get 1e-8 of the largest weight.
    """
    axes = [np.unique(x[:, k]) for k in range(2)]
    steps = [(line[-1] - line[0]) / (len(line) - 1) if len(line) > 1 else 1.0 for line in axes]
    grid = epsot.Grid([len(line) for line in axes], spacing=steps, origin=[line[0] for line in axes])
    image = np.where(a > 0, a, FLOOR * a.max()).reshape(grid.shape[::-1]).T
    return grid, image / image.sum()


def on_grids(measures: Measures) -> Measures:
    """The same densities as images."""
    (x, a), (y, b) = (as_image(np.asarray(z), w) for z, w in ((measures.x, measures.a), (measures.y, measures.b)))
    return Measures(x, y, a, b)


def _stroke(x: np.ndarray, centres: np.ndarray, radii: np.ndarray, pixel: float) -> np.ndarray:
    """A brush stroke: 1 within its discs, 0 outside, a pixel in between.  (n, 2), (k, 2), (k,) -> (n,)"""
    depth = np.full(len(x), -np.inf)
    for centre, radius in zip(centres, radii, strict=True):
        depth = np.maximum(depth, radius - np.sqrt(np.sum((x - centre) ** 2, axis=1)))
    return np.clip(0.5 + depth / pixel, 0.0, 1.0)
