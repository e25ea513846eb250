"""Sphinx configuration: `make docs`."""

project = "v3s"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # links to headings, as on GitHub: paper.md#parameters
napoleon_custom_sections = [("More options", "Attributes"), ("For ablations", "Attributes")]
