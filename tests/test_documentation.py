"""What the pages promise: every status, warning and method has its place, and nothing internal is shown."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import epsot
import epsot.geometry

ROOT = Path(__file__).parent.parent
DOCS, SOURCE = ROOT / "docs", Path(epsot.__file__).parent
METHODS = {
    epsot.Plan: {
        "sum", "argmax", "barycentric_map", "rows", "to_dense", "to_sparse", "sample", "as_linear_operator",
    },
    epsot.SinkhornResult: {"potential", "transport", "hessian", "save"},
    epsot.DivergenceResult: {"potential", "transport", "hessian", "save"},
    epsot.BatchResult: {"potential", "transport", "hessian", "save"},
    epsot.BatchDivergence: {"potential", "transport", "hessian", "save"},
    epsot.BarycenterResult: {"save"},
    epsot.FreeBarycenterResult: {"save"},
    epsot.PairwiseResult: {"save"},
    epsot.PermutationTestResult: {"save"},
    epsot.Objective: {"variable", "hessp"},
}  # fmt: skip


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def headings(text: str) -> list[str]:
    return [line for line, below in re.findall(r"^(.+)\n([-=^~])\2{2,}$", text, re.MULTILINE) if below]


# Troubleshooting


@pytest.mark.parametrize("status", epsot.Status)
def test_every_status_has_an_entry(status: epsot.Status) -> None:
    assert status.name in headings(page("troubleshooting.rst"))
    assert f"``{status.name}``" in page("choosing_parameters.rst")


def warnings_raised() -> list[tuple[str, str, str]]:
    """Where, the category, and the constant parts of the message of every warning of the package."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warn":
                parts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
                message = "".join(part for part in parts if isinstance(part, str))
                found.append((path.name, ast.unparse(node.args[1]), message))
    return found


def test_warnings_point_at_the_user() -> None:
    """One function knows where that is: `warn` of `status.py`."""
    other = [path.name for path in SOURCE.rglob("*.py") if "warnings.warn(" in path.read_text(encoding="utf-8")]
    assert other == ["status.py"]
    assert len(warnings_raised()) > 8


@pytest.mark.parametrize(("where", "category", "message"), warnings_raised())
def test_every_warning_has_an_entry(where: str, category: str, message: str) -> None:
    entries = headings(page("troubleshooting.rst"))
    if category != "UserWarning":
        assert category in entries
        return
    quoted = [entry.partition('"')[2].rstrip('"') for entry in entries if entry.startswith("UserWarning")]
    assert any(re.sub(r"\W+", " ", part) in re.sub(r"\W+", " ", message) for part in quoted), (where, message)


def test_no_entry_is_out_of_date() -> None:
    """Every quoted error is one that the package raises."""
    errors = re.findall(r'^(".+")$', page("troubleshooting.rst"), re.MULTILINE)
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    plain = re.sub(r"\W+", " ", re.sub(r"\{[^}]*\}", "row", sources))
    for error in (part for line in errors for part in re.findall(r'"(.+?)"', line)):
        assert re.sub(r"\W+", " ", error).strip() in plain, error


def test_words_to_search_for_are_in_headings() -> None:
    (title, *_) = headings(page("watching.rst"))
    assert title == "Verbose output and progress bars"


# Reference


def test_dir_is_what_is_public() -> None:
    assert dir(epsot) == sorted([*epsot.__all__, "__version__", "geometry"])
    assert all(hasattr(epsot, name) for name in dir(epsot) if name != "plot")


def test_dir_of_plot() -> None:
    pytest.importorskip("matplotlib")
    assert dir(epsot.plot) == ["convergence", "displacement", "potential", "samples", "sweep", "transport"]
    assert all(callable(getattr(epsot.plot, name)) for name in dir(epsot.plot))


def test_every_public_name_is_in_the_reference() -> None:
    listed = set(re.findall(r"^   ([\w.]+)$", page("api.rst"), re.MULTILINE))
    assert set(epsot.__all__) - {"plot"} <= listed
    assert "automodule:: epsot.plot" in page("api.rst") or {"plot.samples", "plot.sweep"} <= listed


def with_examples(kind: type) -> set[str]:
    """The methods that have a page: those whose docstring has an example."""
    members = inspect.getmembers(kind, inspect.isroutine)
    return {name for name, one in members if name[0] != "_" and "Examples\n" in (inspect.getdoc(one) or "")}


@pytest.mark.parametrize("kind", METHODS)
def test_methods_have_examples_and_no_others_a_page(kind: type) -> None:
    assert with_examples(kind) == METHODS[kind]


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind is not epsot.Objective])
def test_attributes_in_docstrings_exist(kind: type) -> None:
    section = (inspect.getdoc(kind) or "").partition("Attributes\n")[2].partition("\n\n")[0]
    listed = [name.strip() for line in section.splitlines() if re.match(r"\w.* : ", line) for name in
              line.partition(" : ")[0].split(",")]  # fmt: skip
    known = set(dir(kind)) | set(getattr(kind, "__dataclass_fields__", {}))
    assert listed and set(listed) <= known
    assert not {name for name in listed if name.endswith("64") or name in ("place", "source", "target", "instance")}


# References and releases


def test_works_are_cited_with_where_to_find_them() -> None:
    entries = page("references.bib").split("\n@")
    keys = [re.search(r"\{(\w+),", entry).group(1) for entry in entries]  # type: ignore[union-attr]
    assert len(keys) == len(set(keys)) >= 18
    without = [key for key, entry in zip(keys, entries, strict=True) if "doi" not in entry and "arxiv" not in entry]
    assert without == ["feydy2020geometric"]  # a thesis
    cited = {key for text in DOCS.glob("*.rst") for group in re.findall(r":cite:\w:`([^`]+)`", text.read_text("utf-8"))
             for key in group.split(",")}  # fmt: skip
    assert cited and cited <= set(keys)


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE).group(1) == version  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    files = re.findall(r"\]\((?!https?:)([^)#]+)\)", text) + re.findall(r"`(docs/[a-z\d_/.]+)`", text)
    assert all((ROOT / file).exists() for file in files), files
