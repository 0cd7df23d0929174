"""Sphinx: pages in Markdown, the reference drawn from the docstrings."""

import matheron

project = "matheron"
author = "The matheron developers"
copyright = "2026, The matheron developers"
version = release = matheron.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath"]
autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "matheron"
