"""Runs what is printed: docstrings, the Python of the README and of the pages, the examples."""

import ast
import doctest
import importlib
import pkgutil
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import hotset

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "python"
MODULES = [name for _, name, _ in pkgutil.iter_modules(hotset.__path__, "hotset.") if name != "hotset.__main__"]


def run(*command):
    # (A source distribution comes without this folder.)
    build = ROOT / "target"
    build.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=build)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def figures(pattern, text):
    return [tuple(map(float, found if isinstance(found, tuple) else (found,))) for found in re.findall(pattern, text)]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # An adapter, whose framework is not here: its tests are in bindings/python/adapters.
        assert not error.name.startswith("hotset")
        pytest.skip(f"{error.name} is not installed")
    assert doctest.testmod(module).failed == 0


def test_examples_of_the_stub_run():
    stub = Path(hotset.__file__).with_name("_hotset.pyi").read_text()
    examples = [
        text
        for node in ast.walk(ast.parse(stub))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ">>>" in (text := ast.get_docstring(node) or "")
    ]
    assert examples
    for text in examples:
        test = doctest.DocTestParser().get_doctest(text, {}, "stub", None, None)
        assert doctest.DocTestRunner().run(test).failed == 0


def test_docstrings_have_examples():
    finder = doctest.DocTestFinder()
    for public in (hotset.cached, hotset.lru_cache, hotset.cache, hotset.Cache, hotset.CacheInfo, hotset.Stats, hotset.caches):
        assert any(test.examples for test in finder.find(public)), public


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


README = ROOT / "README.md"
# (The pages of adapters, recipes, the second tier and metrics are tested with what they need.)
PAGES = [
    page
    for directory in ("tutorials", "how-to", "reference", "explanation")
    for page in sorted((ROOT / "docs" / directory).glob("*.md"))
    if python_blocks(page) and page.name != "grafana.md"
]


def test_readme_quickstart_is_short_and_near_the_top():
    [block] = python_blocks(README)
    assert len(block.splitlines()) <= 12
    assert block in README.read_text().split("\n## ")[0]


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_python_of_a_page_runs_as_printed(page, tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n".join(python_blocks(page)))
    run(program)


def test_public_names_exist_and_have_docstrings():
    for name in hotset.__all__:
        assert getattr(hotset, name).__doc__ or name == "__version__"


def test_the_module_as_a_program():
    versions = run("-m", "hotset", "--version")
    # What the form of an issue requests: hotset, interpreter, system, module, packages beside it.
    system, python = platform.machine(), platform.python_version()
    for found in (hotset.__version__, f"{platform.python_implementation()} {python}", "GIL o", system, "_hotset.", f"redis {metadata.version('redis')}"):
        assert found in versions, found
    assert len(versions.splitlines()) == 5
    printed = run("-m", "hotset", "--seconds", "0.1")
    assert "functools.lru_cache" in printed and "hit ratio" in printed


def test_example_memoize():
    printed = run(EXAMPLES / "memoize.py")
    assert "what callers no longer request." in printed
    ratios = dict(re.findall(r"(\S+) +([\d.]+)% hits", printed))
    assert ratios["hotset.lru_cache"] == ratios["functools.lru_cache"]
    assert float(ratios["hotset.cached"]) > float(ratios["functools.lru_cache"]) + 6


def test_example_service():
    printed = run(EXAMPLES / "service.py")
    assert "99 clients served with {'2.36'}, 1 hung up; 1 request(s) to the source" in printed
    assert "returned immediately (2.36" in printed
    assert "2 request(s) to the source" in printed
    assert "EUR 2.36, USD error: the source is down" in printed


def test_example_warm():
    printed = run(EXAMPLES / "warm.py")
    first, second, changed = figures(r"([\d.]+)% from the cache, (\d+) queries", printed.replace("  ", " "))
    assert first == changed and first[1] > 0
    assert second == (100, 0)


def test_example_web():
    pytest.importorskip("flask")
    pytest.importorskip("gunicorn")
    printed = run(EXAMPLES / "web.py")
    herd, repeated, expired = re.split(r"(?m)^(?:500|1\.2 s)", printed)
    # One query was made before the fork, and one per worker for the concurrent requests.
    assert {queries for queries, in figures(r"(\d+) database queries", herd)} <= {1, 2}
    assert sum(waits for waits, in figures(r"(\d+) waited", herd)) > 0
    assert all(expirations > 0 for expirations, in figures(r"(\d+) expired", expired))
    assert all(ratio > 50 for ratio, in figures(r"ratio ([\d.]+)%", repeated))
