"""Sphinx configuration. Build with ``sphinx-build -W -n -b html docs docs/_build/html``."""

import sys
from importlib.metadata import distribution
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.ext import autosummary
from sphinx_gallery.sorting import ExplicitOrder

sys.path.insert(0, str(Path(__file__).parent))

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
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "directives",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "autolink"

pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1d4f91",
        "color-brand-content": "#1d4f91",
        "color-brand-visited": "#5d3f8f",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8ab8f2",
        "color-brand-content": "#8ab8f2",
        "color-brand-visited": "#c3a6f0",
    },
}

# Formulas must be readable without a network, and from file:// too: the one script that has its
# glyphs inside comes along.
mathjax = distribution("sphinx-mathjax-offline").locate_file(
    "sphinx-mathjax-offline/static/mathjax"
)
html_static_path = ["_static", str(mathjax / "tex-svg.js")]
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": "",  # all of them are run
    "within_subsection_order": ExplicitOrder(
        [
            f"{name}.py"
            for name in (
                "recursion_row_by_row",
                "truncation_error",
                "landscape_arrows",
                "hypercleaning",
                "own_transition",
                "biased_limit",
                "momentum",
                "adaptive_depth",
                "implicit_or_unrolled",
                "memory_and_time",
                "learned_optimizer",
                "learned_schedule",
                "feature_penalties",
                "lasso",
                "network_penalties",
                "task_interaction",
            )
        ]
    ),
    "reset_modules": ("matplotlib", "directives.house_style"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "capture_repr": (),
    "min_reported_time": 60,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# A summary must not end there: "Full reverse mode, eq. (6): …".
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)

# Shapes and types stand in the docstrings; signatures are for reading.
autodoc_typehints = "none"
autodoc_member_order = "bysource"

# What a docstring says must be right; a one-line docstring need not say everything.
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL06", "GL07", "PR02", "PR03", "PR10", "RT02", "YD01"}

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Single backticks link to a public name where there is one. Lower-case names and single letters are
# mostly arguments, some of them called like a module; the dotted ones lie outside this site.
nitpick_ignore_regex = [
    ("py:obj", r"[a-z_]\w*|[A-Z](_\w+)?"),
    ("py:.*", r"(builtins|collections|concurrent|numpy|np|scipy|sklearn|typing)\..*"),
]
