"""Sphinx configuration. Build with: sphinx-build -W docs docs/_build"""

import inspect
import logging
import sys
import tempfile
import zlib
from importlib.metadata import distribution
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import epsot
import epsot.geometry

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

logging.getLogger("epsot").setLevel(logging.WARNING)  # Sphinx listens to every logger

project = "epsot"
author = "the epsot developers"
copyright = "2026, the epsot developers"
release = version = epsot.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "example_role",
]
templates_path = ["_templates"]
default_role = "py:obj"  # names in docstrings are links
exclude_patterns = ["_build", "examples", "auto_examples/*.ipynb", "auto_examples/*.py"]

html_theme = "pydata_sphinx_theme"
html_title = f"epsot {release}"
html_static_path = ["_static"]
html_css_files = ["epsot.css"]
html_favicon = html_logo = "_static/favicon.svg"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "epsot"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "monokai",
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "start": [], "accuracy": []}

# Formulas are drawn by one file of MathJax, with its fonts, that is part of the site.
FORMULAS = "tex-svg.js"
mathjax_path = FORMULAS
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"
bibtex_reference_style = "author_year"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True


def empty_inventory() -> str:
    """A file without a name: where a library cannot be asked for its names, they are text and no links."""
    path = Path(tempfile.mkdtemp()) / "objects.inv"
    head = b"# Sphinx inventory version 2\n# Project: none\n# Version: 0\n# The remainder is compressed using zlib.\n"
    path.write_bytes(head + zlib.compress(b""))
    return str(path)


EMPTY = empty_inventory()
intersphinx_mapping = {
    name: (address, (None, EMPTY))
    for name, address in {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "scipy": "https://docs.scipy.org/doc/scipy/",
        "cupy": "https://docs.cupy.dev/en/stable/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "jax": "https://docs.jax.dev/en/latest/",
        "sklearn": "https://scikit-learn.org/stable/",
    }.items()
}
intersphinx_timeout = 5

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc states types, shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # templates list what is public

autodoc_mock_imports = [name for name in ("torch", "jax", "sklearn") if find_spec(name) is None]

# In the order of reading; what is not named comes last.
EXAMPLES = {
    "first_steps": ["two_clouds", "epsilon_scaling", "choosing", "certificates", "pictures"],
    "plans": ["sparse_plans", "out_of_sample", "gravity", "sphere"],
    "unbalanced": ["outliers", "partial", "cells"],
    "images": ["colours", "palette", "barycenters", "periodic", "volumes", "retina"],
    "moving": ["registration", "second_order", "flows", "shapes"],
    "samples": ["distance_matrix", "two_samples", "bootstrap", "labels", "mixture"],
    "libraries": ["libraries", "pipeline"],
}

sys.path.insert(0, str(Path(__file__).parent))  # for `small_figures`
logging.getLogger("jax").setLevel(logging.WARNING)  # which says what other devices are not there

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": ExplicitOrder([*(f"examples/{section}" for section in EXAMPLES), "*"]),
    "within_subsection_order": ExplicitOrder([*(f"plot_{name}.py" for name in chain(*EXAMPLES.values())), "*"]),
    "filename_pattern": r"/plot_" if find_spec("torch") is None else r"/(plot|torch)_",
    "image_scrapers": ("small_figures",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
}

# Records that a call returns: nobody constructs them, so their signature says nothing.
RETURNED = {
    "epsot.SinkhornResult",
    "epsot.DivergenceResult",
    "epsot.BatchResult",
    "epsot.BatchDivergence",
    "epsot.PairwiseResult",
    "epsot.PermutationTestResult",
    "epsot.BarycenterResult",
    "epsot.FreeBarycenterResult",
    "epsot.Plan",
    "epsot.Status",
}


def signature_of(app, what, name, obj, options, signature, return_annotation):
    """The signature to print, or None for the usual one."""
    return ("", None) if name in RETURNED else None


def methods_of(found):
    """The methods of a class that have a page: those whose docstring has an example; others are for the package."""
    members = inspect.getmembers(found, inspect.isroutine) if not issubclass(found, int | Exception) else []
    return [name for name, one in members if name[0] != "_" and "Examples\n" in (inspect.getdoc(one) or "")]


CLASSES = {f"epsot.{name}": found for name, found in vars(epsot).items() if isinstance(found, type)}
CLASSES |= {f"epsot.geometry.{found.__name__}": found for found in (epsot.geometry.Multiscale, epsot.geometry.Geometry)}
autosummary_context = {"methods_of": {name: methods_of(found) for name, found in CLASSES.items()}}


def ship_formulas(app):
    """Copy MathJax, one file of a package of the extra ``docs``, to where Sphinx takes static files from."""
    if app.builder.format != "html":
        return
    (source,) = [f for f in distribution("sphinx-mathjax-offline").files if f.name == FORMULAS]
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / FORMULAS).write_bytes(source.locate().read_bytes())


def setup(app):
    app.connect("builder-inited", ship_formulas)
    app.connect("autodoc-process-signature", signature_of)
