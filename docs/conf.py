"""How Sphinx builds these pages: `make docs`."""

from importlib.metadata import version as installed

project = "bpqp_portfolio"
author = "the developers of bpqp_portfolio"
release = version = installed("bpqp-portfolio")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "bpqp_portfolio"
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
