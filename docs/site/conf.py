"""The settings of Sphinx for the site. Its sources are those that stage.py writes."""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

sys.path.insert(0, str(Path(__file__).parent))

import python_reference  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

project = "hotset"
author = "the authors of hotset"
copyright = author  # noqa: A001
release = re.search(r'(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text())[1]
version = release

extensions = ["myst_parser", "sphinx_design", "sphinx_copybutton", "sphinx.ext.napoleon", "autoapi.extension"]
myst_enable_extensions = ["colon_fence", "fieldlist"]
# Headings have the anchors that a forge gives them.
myst_heading_anchors = 6
exclude_patterns = ["**/.*"]
# Adapters have classes of the same name, so a type in a signature may be one of several. And
# autoapi does not follow names through two private modules, which no page shows.
suppress_warnings = ["ref.python", "autoapi.python_import_resolution"]
highlight_language = "none"

# The Python API is read from the sources of the package and its stubs: nothing is imported.
autoapi_dirs = [str(ROOT / "bindings/python/python/hotset")]
# The live view and most of the advisor have no public names.
autoapi_ignore = ["*/_top/*", "*/_advise/[b-z]*"]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
autoapi_python_class_content = "class"
autoapi_options = ["members", "show-inheritance", "imported-members", "inherited-members", "special-members"]
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
c_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"hotset {release}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "source_repository": "https://github.com/hotset/hotset/",
    "source_branch": "main",
    "top_of_page_buttons": [],
    "footer_icons": [],
}


# Names of private modules, from which the package takes its public ones, and of well-known ones.
SHORTENED = re.compile(
    r"\b(?:hotset\.(?:\w+\.)*_\w+\.(?:[a-z]\w*\.)*|collections\.abc\.|typing\.|types\.(?=EllipsisType))"
)


def shorten_signatures(_app, doctree):
    """Removes the modules from the names of types in signatures."""
    for signature in doctree.findall(addnodes.desc_signature):
        for text in signature.findall(nodes.Text):
            public = python_reference.PUBLIC_MODULES.get(str(text), "")
            short = SHORTENED.sub(public, str(text))
            if short != str(text):
                text.parent.replace(text, nodes.Text(short))


def mark_code(_app, _what, _name, _object, _options, lines):
    """Writes the code in a docstring, which is in single backticks, as reStructuredText does."""
    code = re.sub(r"(?<!`)`([^`]+)`(?!`)(\w?)", lambda found: f"``{found[1]}``" + ("\\ " + found[2] if found[2] else ""), "\n".join(lines))
    lines[:] = code.split("\n")


def skip_private(_app, _what, _name, member, skip, _options):
    """Leaves out what only other modules of the package use.

    And what has no docstring: fields that the docstring of their class lists, methods of tuples.
    """
    text = getattr(member, "docstring", "")
    return True if not text or re.search(r"Private to the package|by the package itself", text) else skip


def setup(app):
    """Registers what is done to docstrings and pages."""
    # Before napoleon, which has the priority 500.
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    app.connect("autodoc-skip-member", skip_private)
    app.connect("doctree-read", shorten_signatures)
