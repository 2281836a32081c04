"""The problems that all solvers are given: two clouds of uniform weights, float32, about the size of the unit cube.

In more than three dimensions coordinates are scaled by sqrt(3 / d), so that the box keeps the diagonal of the unit cube
in 3-D and `blur` the same meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FAMILIES = ("uniform", "mixtures", "shells")


@dataclass(frozen=True)
class Task:
    """What a solver is asked for: value and gradient in x of one loss between two clouds."""

    family: str
    n: int  # points a side
    d: int
    blur: float  # eps = blur^2 for the cost |x - y|^2 / 2
    debiased: bool  # the divergence S, or OT alone

    def __str__(self) -> str:
        return f"{self.family} n={self.n} d={self.d} blur={self.blur:g} {'S' if self.debiased else 'OT'}"


def clouds(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The two clouds, (n, d) float32 each; the same for every blur and loss."""
    rng = np.random.default_rng([FAMILIES.index(task.family), task.n, task.d])
    make = {"uniform": uniform, "mixtures": mixtures, "shells": shells}[task.family]
    x, y = make(rng, task.n, task.d)
    return x.astype(np.float32), y.astype(np.float32)


def spread(d: int) -> float:
    return min(1.0, math.sqrt(3 / d))


def uniform(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of one cube: a small distance, so that relative errors are large."""
    return spread(d) * rng.random((n, d)), spread(d) * rng.random((n, d))


def mixtures(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Five Gaussians of deviation .05 a side, of unequal shares, with centres anywhere in the cube."""

    def cloud() -> np.ndarray:
        centres = rng.uniform(0.15, 0.85, (5, d))
        labels = rng.choice(5, n, p=[0.35, 0.25, 0.2, 0.15, 0.05])
        return spread(d) * (centres[labels] + 0.05 * rng.normal(size=(n, d)))

    return cloud(), cloud()


def shells(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two spheres of radius .4 and .25, centres .2 apart, with 2 % noise on the radius."""

    def cloud(radius: float) -> np.ndarray:
        directions = rng.normal(size=(n, d))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return radius * (1 + 0.02 * rng.normal(size=(n, 1))) * directions

    return cloud(0.4) + 0.4, cloud(0.25) + 0.4 + 0.2 / math.sqrt(d)
