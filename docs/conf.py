"""How Sphinx builds these pages: `make docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "bpqp_portfolio"
author = "the developers of bpqp_portfolio"
release = version = installed("bpqp-portfolio")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "formulas",
    "gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "bpqp_reference",
]
exclude_patterns = ["_build", "_ext"]
html_theme = "pydata_sphinx_theme"
html_title = "bpqp_portfolio"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathtext"
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False
