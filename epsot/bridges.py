"""What the bridges to frameworks with automatic differentiation have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MEASURES = ("x", "y", "a", "b")
AXES = {"x": 2, "y": 2, "a": 1, "b": 1}  # of one problem: an (n, d) cloud, (n,) weights
COARSEST = 1e-3
FINEST = {"float32": 1e-5, "float64": 1e-10}  # what products with a Hessian can reach

Names = tuple[str, ...]


class OnGrids:
    """A solve between a Grid and a cloud, or two, as one of flat weights, (..., n), for which there are no points.

    Parameters
    ----------
    solve : callable
        Of x, y, a, b.
    grids : (Grid or None, Grid or None)
        In the places of x and y.
    """

    def __init__(self, solve: Callable[..., Any], grids: tuple[Any, Any]) -> None:
        self.solve, self.grids = solve, grids

    def __call__(self, x: Any, y: Any, a: Any, b: Any, **options: Any) -> FlatResult:
        first, second = self.grids
        points = (x if first is None else first, y if second is None else second)
        weights = (
            z if z is None or grid is None else z.reshape(*z.shape[:-1], *grid.shape)
            for z, grid in zip((a, b), self.grids, strict=True)
        )
        return FlatResult(self.solve(*points, *weights, **options), self.grids)


class FlatResult:
    """What bridges ask of a result, or of those of a batch, with the axes of grids in one."""

    def __init__(self, result: Any, grids: tuple[Any, Any]) -> None:
        self.result, self.grids = result, grids

    def __getitem__(self, k: Any) -> FlatResult:
        return FlatResult(self.result[k], self.grids)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.result, name)
        grid = self.grids[name in ("grad_y", "grad_b", "g")]
        if grid is None or name not in ("grad_a", "grad_b", "f", "g"):
            return found
        return found.reshape(*found.shape[: found.ndim - grid.dimension], grid.size)


def residual(options: dict[str, Any], dtype: Any) -> float:
    """That of the linear systems behind second derivatives: as small as the error of the solve, where that can be."""
    tol = options.get("tol", COARSEST)
    asked = COARSEST if tol is None else min(float(tol), COARSEST)
    return max(asked, FINEST["float32" if "float32" in str(dtype) else "float64"])
