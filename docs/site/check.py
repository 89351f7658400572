"""Checks the built site: links, that nothing is loaded from elsewhere, and that the APIs are whole.

    python check.py SITE

Every link and every picture within the site must exist, with its anchor; no page may load anything
from another host; every name of hotset.h and of the package's public modules must be described.
Links to other sites are listed in SITE/../external-links.txt: they are not followed.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util.inventory import InventoryFile

import c_reference
import python_reference

ROOT = Path(__file__).resolve().parents[2]
# Attributes whose target a browser loads by itself, by element; a link is followed by its reader.
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data"), ("embed", "src")}
# A `link` that a browser does not load.
ONLY_NAMED = {"canonical", "index", "search", "next", "prev", "author", "copyright", "contents"}
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """The links, the loaded files and the anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        for name, value in attrs:
            if value is None:
                continue
            if tag == "link" and name == "href":
                (self.links if set(found.get("rel", "").split()) & ONLY_NAMED else self.loaded).append(value)
            elif (tag, name) in LOADED:
                self.loaded.append(value)
            elif name == "srcset":
                self.loaded += [each.split()[0] for each in value.split(",")]
            elif name == "style":
                self.loaded += loaded_by_css(value)
            elif tag in ("a", "area") and name == "href":
                self.links.append(value)


def loaded_by_css(text):
    """Returns the addresses that a style loads."""
    return [a or b for a, b in CSS_URL.findall(text)]


def is_external(address):
    """Returns whether an address is that of another host."""
    return bool(urlsplit(address).netloc)


def wanted_names():
    """Returns the names of the C and the Python API that the site must describe."""
    python = python_reference.public_names(ROOT / "bindings/python/python/hotset")
    return c_reference.names((ROOT / "include/hotset.h").read_text()) | {python_reference.LAZY.get(name, name) for name in python}


def described_names(site):
    """Returns the names that the site describes, of its inventory."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    return {name for kind, found in inventory.items() if kind.startswith(("c:", "py:")) for name in found}


def main(site):
    problems, external = [], {}
    # rustdoc checks its own links: here its pages are targets only.
    rustdoc = site / "rust"
    files = {path: Page(path.read_text()) for path in site.rglob("*.html") if rustdoc not in path.parents}
    all_pages = dict(files)

    def check(page, address):
        parts = urlsplit(address)
        if parts.scheme in ("data", "mailto", "javascript"):
            return
        target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
        if target.is_dir():
            target /= "index.html"
        if not target.exists():
            problems.append(f"{page.relative_to(site)}: {address}: there is no such file")
        elif parts.fragment and target.suffix == ".html":
            if target not in all_pages:
                all_pages[target] = Page(target.read_text())
            # (Empty in links that scripts handle.)
            if unquote(parts.fragment) not in all_pages[target].anchors:
                problems.append(f"{page.relative_to(site)}: {address}: there is no such anchor")

    for path, page in files.items():
        for address in page.loaded:
            if is_external(address):
                problems.append(f"{path.relative_to(site)}: loads {address}")
            else:
                check(path, address)
        for address in page.links:
            if is_external(address):
                external.setdefault(address, path.relative_to(site))
            else:
                check(path, address)
    for path in [*site.rglob("*.css"), *rustdoc.rglob("*.html")]:
        text = path.read_text()
        for address in loaded_by_css(text) if path.suffix == ".css" else Page(text).loaded:
            if is_external(address):
                problems.append(f"{path.relative_to(site)}: loads {address}")
    wanted = wanted_names()
    problems += [f"not described: {name}" for name in sorted(wanted - described_names(site))]
    if not (rustdoc / "hotset/index.html").exists():
        problems.append("rust/hotset/index.html is missing: make doc")
    (site.parent / "external-links.txt").write_text("".join(f"{address}  ({page})\n" for address, page in sorted(external.items())))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(files)} pages, {len(wanted)} names of the C and Python APIs, {len(external)} links to other sites (not followed)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
