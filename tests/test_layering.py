"""Imports go down the layers only, without cycles, and `import epsot` loads nothing heavy."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import epsot

# From top to bottom. A package stands for all its modules, unless one of them is listed on its own. A module may import
# from its own layer and from those below; a line of its own separates what must not know of what is above.
LAYERS = [
    ["__main__"],
    ["ahead", "demo", "drawings", "info", "plot", "planar"],
    ["torch", "jax", "sklearn"],
    ["autograd"],
    ["bridges"],
    ["epsot"],  # the front door, __init__.py: only what is above may come in through it
    ["objective", "loading", "progress"],
    ["barycenter", "free_barycenter", "pairwise", "permutation"],
    ["transport"],
    ["arguments", "scales", "pictures", "joining", "variables"],
    ["drivers"],
    ["results"],
    ["solver"],
    ["problems"],
    ["geometry"],
    ["kernels"],
    ["archives"],
    ["costs", "status", "arrays", "lists", "libraries", "devices", "lazy"],
    ["communicator"],
]
HEAVY = ["numba", "cupy", "matplotlib", "scipy.sparse", "torch", "jax", "sklearn"]

SOURCE = Path(epsot.__file__).parent
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def module_name(path: Path) -> str:
    """epsot/solver/loop.py -> solver.loop, epsot/solver/__init__.py -> solver, epsot/__init__.py -> epsot"""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "epsot"


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def layer(module: str) -> int | None:
    """The depth of the longest listed prefix of a module's name."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((DEPTH[prefix] for prefix in prefixes if prefix in DEPTH), None)


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def runtime_part(tree: ast.Module) -> ast.Module:
    """The tree without its `if TYPE_CHECKING:` blocks."""
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))]
    return ast.Module(body, tree.type_ignores)


def imports(module: str, tree: ast.Module | None = None) -> Iterator[tuple[int, str]]:
    """The line and the name of every module of the package that a module imports, inside functions too."""
    package = ["epsot", *MODULES[module].relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree or parse(module)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if target.split(".")[0] == "epsot":
                yield node.lineno, owner(target)


def owner(target: str) -> str:
    """The module that a dotted name lies in: epsot.costs.Cost -> costs, epsot.solve -> epsot."""
    parts = target.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "epsot"


@cache
def all_imports(module: str) -> list[tuple[int, str]]:
    return list(imports(module))


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    depth = layer(module)
    assert depth is not None, f"{MODULES[module]} is in no layer: add `{module}` to LAYERS in {Path(__file__).name}"
    upwards = [
        f"{MODULES[module]}:{line} imports `{target}`, which is above `{module}`"
        for line, target in all_imports(module)
        if (layer(target) is None or layer(target) < depth)
    ]
    assert not upwards, "\n".join(upwards)


def test_no_import_cycle() -> None:
    graph = {
        module: {target for _, target in imports(module, runtime_part(parse(module))) if target != module}
        for module in MODULES
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import one another: {' <- '.join(error.args[1])}")


def test_layers_name_what_exists() -> None:
    missing = [name for name in DEPTH if name not in MODULES]
    assert not missing, f"LAYERS in {Path(__file__).name} names modules that do not exist: {', '.join(missing)}"


def test_the_walk_sees_imports() -> None:
    """A walk that finds nothing would pass every other test here."""
    found = {(module, target) for module in MODULES for _, target in imports(module)}
    assert {
        ("geometry.points", "costs"),
        ("solver.updates", "problems.problem"),
        ("problems.measure", "kernels.vectors"),
    } <= found


def test_import_is_light() -> None:
    code = f"import sys, epsot; print(*(name for name in {HEAVY} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stdout.split(), f"`import epsot` loads {run.stdout.strip()}; import it on first use"


def class_questions(module: str) -> Iterator[str]:
    """Where a module asks whether something is of a certain geometry."""
    for node in ast.walk(parse(module)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            names = {leaf.id for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Name)}
            names |= {leaf.attr for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Attribute)}
            for name in sorted(names & GEOMETRIES):
                yield f"{MODULES[module]}:{node.lineno} asks for a {name}"


GEOMETRIES = {"PointCloud", "CostMatrix", "Multiscale"}


def test_a_geometry_answers_for_itself() -> None:
    """Outside of `geometry`, nothing asks which one it has."""
    asked = [text for module in MODULES if not module.startswith("geometry") for text in class_questions(module)]
    assert not asked, "\n".join(asked)


def test_class_questions_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "asking.py"
    source.write_text("isinstance(x, Multiscale | list), isinstance(y, (str, geometry.PointCloud)), isinstance(z, int)")
    monkeypatch.setitem(MODULES, "asking", source)
    assert len(list(class_questions("asking"))) == 2
