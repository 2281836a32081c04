"""What the bridges to frameworks with automatic differentiation have in common."""

from __future__ import annotations

from typing import Any

MEASURES = ("x", "y", "a", "b")
AXES = {"x": 2, "y": 2, "a": 1, "b": 1}  # of one problem: an (n, d) cloud, (n,) weights
COARSEST = 1e-3
FINEST = {"float32": 1e-5, "float64": 1e-10}  # what products with a Hessian can reach

Names = tuple[str, ...]


def residual(options: dict[str, Any], dtype: Any) -> float:
    """That of the linear systems behind second derivatives: as small as the error of the solve, where that can be."""
    tol = options.get("tol", COARSEST)
    asked = COARSEST if tol is None else min(float(tol), COARSEST)
    return max(asked, FINEST["float32" if "float32" in str(dtype) else "float64"])
