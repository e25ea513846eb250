"""Sphinx configuration: `make docs`."""

project = "v3s"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_show_copyright = False
html_title = "v3s"
html_extra_path = ["llms.txt"]
html_static_path = ["assets"]
html_css_files = ["site.css"]
smartquotes = False  # an option keeps both of its dashes
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # links to headings, as on GitHub: paper.md#parameters
napoleon_custom_sections = [("More options", "Attributes"), ("For ablations", "Attributes")]
copybutton_prompt_text = "$ "  # only commands are copied, not what they print
copybutton_only_copy_prompt_lines = True
