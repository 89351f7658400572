"""Tests of what refuses a site that is not whole: python -m unittest, in this folder."""

import contextlib
import io
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import c_reference
import check
import python_reference
import stage

HEADER = (check.ROOT / "include/hotset.h").read_text()
PACKAGE = check.ROOT / "bindings/python/python/hotset"


class CReference(unittest.TestCase):
    def test_page_of_the_header_has_every_name(self):
        page = c_reference.page(HEADER)
        for name in ("hotset_open", "hotset_options", "hotset_loader_fn", "HOTSET_OK", "HOTSET_TTL_KEEP"):
            self.assertRegex(page, rf"\{{c:\w+\}} [^\n]*{name}\b")

    def test_declarations_without_a_comment_are_refused(self):
        for added in ("hotset_status hotset_new(hotset_cache *cache);", "#define HOTSET_NEW 1", "typedef struct hotset_new hotset_new;"):
            # The macro is described without a comment of its own, by that of its group.
            with self.subTest(added):
                changed = HEADER.replace("#ifdef __cplusplus\n}", f"{added}\n#ifdef __cplusplus\n}}")
                self.assertNotEqual(changed, HEADER)
                with self.assertRaisesRegex(SystemExit, "not on the page: (hotset_new|HOTSET_NEW)"):
                    c_reference.page(changed)


class PythonReference(unittest.TestCase):
    def test_new_public_names_are_refused(self):
        names = python_reference.public_names(PACKAGE)
        with mock.patch.object(python_reference, "public_names", return_value=names | {"hotset.new"}):
            with self.assertRaisesRegex(SystemExit, "hotset.new"):
                python_reference.pages(PACKAGE)

    def test_settings_are_in_the_signatures(self):
        for name in ("hotset.cached", "hotset.Cache"):
            signature = python_reference.signature(PACKAGE, name)
            for setting in ("maxsize", "ttl", "weigher", "negative_ttl", "name"):
                self.assertIn(f"{setting}: ", signature)


class Stage(unittest.TestCase):
    def test_links_become_those_of_the_site(self):
        known = {"docs/how-to/expire.md", "ARCHITECTURE.md", "docs/recipes/README.md"}
        text = "[a](expire.md#x) [b](../../ARCHITECTURE.md) [c](../recipes/README.md) [d](../../Cargo.toml) [e](https://example.org)\n"
        found = stage.relinked("docs/how-to/expire.md", text, known, {})
        wanted = f"[a](expire.md#x) [b](../architecture.md) [c](../recipes/index.md) [d]({stage.REPOSITORY}/blob/main/Cargo.toml) [e](https://example.org)\n"
        self.assertEqual(found, wanted)
        with self.assertRaisesRegex(SystemExit, "no such file"):
            stage.relinked("docs/how-to/expire.md", "[a](missing.md)\n", known, {})

    def test_hidden_lines_of_rust_are_left_out(self):
        page = "```rust\n# use std::fs;\nlet a = 1;\n#\n#[test]\n```\n\n# Heading\n\n```sh\n# comment\n```\n"
        self.assertEqual(stage.without_hidden_lines(page), "```rust\nlet a = 1;\n#[test]\n```\n\n# Heading\n\n```sh\n# comment\n```\n")


class Check(unittest.TestCase):
    """Changes a small site in the ways that must be found."""

    def problems(self, body, css=""):
        site = Path(self.enterContext(tempfile.TemporaryDirectory())) / "html"
        (site / "rust/hotset").mkdir(parents=True)
        (site / "rust/hotset/index.html").write_text("<a id=there></a>")
        (site / "index.html").write_text(f"<title>site</title><p id=here>{body}")
        (site / "site.css").write_text(css)
        errors = io.StringIO()
        with mock.patch.object(check, "described_names", return_value=check.wanted_names()), contextlib.redirect_stderr(errors):
            with contextlib.redirect_stdout(io.StringIO()):
                failed = check.main(site)
        self.assertEqual(bool(failed), bool(errors.getvalue()))
        shutil.rmtree(site.parent)
        return errors.getvalue()

    def test_whole_site_passes(self):
        self.assertEqual(self.problems('<a href="#here"></a><a href="rust/hotset/#there"></a><a href="https://example.org/x"></a>'), "")

    def test_broken_links_are_found(self):
        self.assertIn("no such file", self.problems('<a href="missing.html"></a>'))
        self.assertIn("no such file", self.problems('<img src="missing.svg">'))
        self.assertIn("no such anchor", self.problems('<a href="#missing"></a>'))
        self.assertIn("no such anchor", self.problems('<a href="rust/hotset/index.html#missing"></a>'))

    def test_what_is_loaded_from_elsewhere_is_found(self):
        for body in ('<script src="https://example.org/a.js"></script>', '<link rel="stylesheet" href="//example.org/a.css">', '<img src="https://example.org/badge.svg">'):
            self.assertIn("loads", self.problems(body))
        self.assertIn("loads", self.problems("", "@import 'https://example.org/a.css';"))
        self.assertIn("loads", self.problems("", "@font-face { src: url(https://example.org/a.woff2) }"))

    def test_names_without_a_description_are_found(self):
        wanted = check.wanted_names()
        with mock.patch.object(check, "wanted_names", return_value=wanted | {"hotset_new"}):
            site = Path(self.enterContext(tempfile.TemporaryDirectory()))
            with mock.patch.object(check, "described_names", return_value=wanted), contextlib.redirect_stderr(io.StringIO()) as errors:
                with contextlib.redirect_stdout(io.StringIO()):
                    self.assertEqual(check.main(site / "html"), 1)
        self.assertIn("not described: hotset_new", errors.getvalue())


if __name__ == "__main__":
    unittest.main()
