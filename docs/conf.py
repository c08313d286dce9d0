"""Sphinx configuration. Build with ``sphinx-build -W -n -b html docs docs/_build/html``."""

from importlib.metadata import version as installed_version

project = "tinybilevel"
author = "The tinybilevel developers"
copyright = f"2026, {author}"
release = version = installed_version(project)

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "myst_parser",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "autolink"

html_theme = "furo"
html_title = f"{project} {release}"

# Shapes and types stand in the docstrings; signatures are for reading.
autodoc_typehints = "none"
autodoc_member_order = "bysource"

# What a docstring says must be right; a one-line docstring need not say everything.
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL06", "GL07", "PR02", "PR03", "PR10", "RT02", "YD01"}

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

# Single backticks link to a public name where there is one. Lower-case names and single letters are
# mostly arguments, some of them called like a module; the dotted ones lie outside this site.
nitpick_ignore_regex = [
    ("py:obj", r"[a-z_]\w*|[A-Z](_\w+)?"),
    ("py:.*", r"(builtins|collections|concurrent|numpy|np|scipy|sklearn|typing)\..*"),
]
