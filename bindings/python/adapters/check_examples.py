"""The recipes that need a framework, the Python of the adapters' pages, and the adapters'
docstrings, as they are printed.
"""

import doctest
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "docs" / "adapters").glob("*.md"))
MODULES = ["aiocache", "cachelib", "django", "dogpile", "hishel", "langchain", "requests_cache"]


def run(program):
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_django_cache_aside():
    printed = run(ROOT / "examples" / "recipes" / "django_cache_aside.py")
    for text in ("100 requests: 1 query", "others still see 320", "after the commit: 350", "after a rollback: 350"):
        assert text in printed


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server: make tools-redis")
def test_django_fleet():
    printed = run(ROOT / "examples" / "recipes" / "django_fleet.py")
    for text in (
        "200 requests of two workers: 1 query",
        "the other worker still sees 320",
        "after the commit: both see 350",
        "after a rollback: both see 350",
    ):
        assert text in printed


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    assert doctest.testmod(importlib.import_module(f"hotset.{module}")).failed == 0


def test_each_adapter_has_a_page_that_is_listed():
    index = (ROOT / "docs" / "adapters" / "README.md").read_text()
    for module in MODULES:
        name = f"{module.replace('_', '-')}.md"
        assert f"hotset.{module}" in (ROOT / "docs" / "adapters" / name).read_text()
        assert f"({name})" in index


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_python_of_a_page_runs(page, tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)))
    run(program)
