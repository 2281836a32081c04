"""Sphinx configuration. Build with: sphinx-build -W docs docs/_build"""

import logging
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import epsot

logging.getLogger("epsot").setLevel(logging.WARNING)  # Sphinx listens to every logger

project = "epsot"
author = "the epsot developers"
copyright = "2026, the epsot developers"
release = version = epsot.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "examples", "auto_examples/*.ipynb", "auto_examples/*.py"]

html_theme = "furo"
html_title = f"epsot {release}"

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc states types, shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the page of a class documents its members where they are defined

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


def setup(app):
    app.connect("autodoc-process-signature", signature_of)
