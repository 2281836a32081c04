"""Every pair of calls in docs/coming_from_*.rst: theirs and ours are run, and what both name is compared.

A page has blocks of code in pairs, with the captions of the library and of epsot. A pair is skipped where the library
is not installed.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epsot

pytestmark = pytest.mark.filterwarnings("ignore")  # what peers deprecate is not ours to mend

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^\.\. code-block:: python\n   :caption: (.+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)
# What their schedules, tolerances and dtypes leave, beside the largest number; values are far better.
LEFT = {"geomloss": 2e-2, "pot": 5e-3, "ott": 2e-4}
CAPTION = {"geomloss": "GeomLoss", "pot": "POT", "ott": "OTT-JAX"}


def pairs(library: str) -> list[tuple[str, str]]:
    page = (DOCS / f"coming_from_{library}.rst").read_text(encoding="utf-8")
    found = [(name, textwrap.dedent(code)) for name, code in BLOCK.findall(page)]
    assert [name for name, _ in found] == [CAPTION[library], "epsot"] * (len(found) // 2)
    return [(theirs, ours) for (_, theirs), (_, ours) in zip(found[::2], found[1::2], strict=True)]


def params(library: str) -> list[Any]:
    return [pytest.param(library, *pair, id=f"{library}{i}") for i, pair in enumerate(pairs(library))]


def assigned(code: str) -> set[str]:
    """The names that statements of a block bind."""
    targets = [target for node in ast.parse(code).body if isinstance(node, ast.Assign) for target in node.targets]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def namespace(library: str) -> dict[str, Any]:
    """Clouds and weights in the arrays of the library."""
    rng = np.random.default_rng(0)
    x, y, z = rng.random((15, 2)), rng.random((12, 2)) + 0.4, rng.random((5, 2))
    a, b = rng.random(15) + 0.3, rng.random(12) + 0.3
    arrays = {"x": x, "y": y, "z": z, "a": a / a.sum(), "b": b / b.sum()}
    if library == "geomloss":
        torch = pytest.importorskip("torch")
        pytest.importorskip("geomloss")
        return {name: torch.asarray(array) for name, array in arrays.items()} | {"torch": torch}
    if library == "pot":
        ot = pytest.importorskip("ot")
        support = np.linspace(0, 1, 20)[:, None]
        bells = np.exp(-((support - [0.3, 0.7]) ** 2) / 0.02)
        costs = {"M": ot.dist(x, y), "S": ot.dist(support, support), "reg": 0.1}
        measures = {"support": support, "A": bells / bells.sum(axis=0), "shares": np.asarray([0.4, 0.6])}
        return arrays | costs | measures | {"ot": ot, "onehot": np.eye(3)[np.arange(15) % 3]}
    jax = pytest.importorskip("jax")
    pytest.importorskip("ott")
    arrays["C"] = np.sum((x[:, None] - y[None]) ** 2, axis=2)
    return {name: jax.numpy.asarray(array) for name, array in arrays.items()} | {
        "jax": jax,
        "jnp": jax.numpy,
        "eps": 0.1,
    }


def numbers(found: Any) -> np.ndarray:
    parts = found if isinstance(found, list) else [found]
    return np.stack([np.asarray(part.detach() if hasattr(part, "detach") else part, dtype=float) for part in parts])


@pytest.fixture
def float64() -> Any:
    """JAX in float64, so that tolerances can be met."""
    try:
        import jax
    except ImportError:
        yield
        return
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(("library", "theirs", "ours"), [p for library in LEFT for p in params(library)])
def test_calls_agree(library: str, theirs: str, ours: str, float64: Any) -> None:
    common = namespace(library) | {"epsot": epsot, "np": np}
    left, right = dict(common), dict(common)
    exec(theirs, left)
    exec(ours, right)
    shared = [n for n in assigned(theirs) & assigned(ours) if is_number(left[n]) and is_number(right[n])]
    assert shared
    for name in shared:
        expected, found = numbers(left[name]), numbers(right[name])
        assert expected.size == found.size
        np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=0, atol=LEFT[library] * abs(expected).max())


def is_number(found: Any) -> bool:
    """An array, a number, or a list of them; plans are compared as arrays where a page asks for that."""
    return isinstance(found, float | list) or (hasattr(found, "__array__") and not isinstance(found, epsot.Plan))


@pytest.mark.parametrize("library", LEFT)
def test_pages_have_pairs(library: str) -> None:
    assert len(pairs(library)) >= 7
