"""How the pages in docs/ become a site: `make docs`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_extensions")]

project = "decant"
author = "decant contributors"
project_copyright = "decant contributors"
extensions = ["myst_parser", "click_commands", "house_docstrings", "public_names", "repository_links"]
exclude_patterns = ["_build", "_extensions"]

html_theme = "furo"
html_title = "decant"
html_show_sourcelink = False
html_show_sphinx = False

smartquotes = False  # would make one dash of the two of --recipe
default_role = "code"  # docstrings have `single` backticks for code
myst_heading_anchors = 4  # as on GitHub: `page.md#a-heading`

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
nitpicky = True
# Other projects' objects have no page here, nor have those of our own that nobody needs to name.
nitpick_ignore_regex = [
    ("py:.*", r"(?!preprocess|cache_store|loaders)[\w.]+"),
]
