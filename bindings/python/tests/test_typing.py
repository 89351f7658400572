"""mypy and pyright, in strict mode, on the package and on what its users write."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hotset

TESTS = Path(__file__).parent
PACKAGE = Path(hotset.__file__).parent
ADAPTERS = ("aiocache.py", "cachelib.py", "django", "dogpile.py", "hishel.py", "langchain.py", "opentelemetry.py", "prometheus.py", "requests_cache.py")


@pytest.fixture
def project(tmp_path):
    """The package and what is written against it, side by side: what is installed, checkers take
    for granted.
    """
    only_sources = shutil.ignore_patterns("*.so", "__pycache__")
    # (The adapters need their frameworks: bindings/python/adapters/check_types.py; metrics their
    # packages: bindings/python/metrics.)
    shutil.copytree(PACKAGE, tmp_path / "hotset", ignore=shutil.ignore_patterns("*.so", "__pycache__", *ADAPTERS))
    shutil.copytree(TESTS / "typing", tmp_path / "uses", ignore=only_sources)
    shutil.copytree(TESTS.parents[2] / "examples" / "python", tmp_path / "examples", ignore=only_sources)
    recipes = shutil.ignore_patterns("*.so", "__pycache__", "django_*")
    shutil.copytree(TESTS.parents[2] / "examples" / "recipes", tmp_path / "recipes", ignore=recipes)
    settings = {"include": ["hotset", "uses", "examples", "recipes"], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


def check(*command, cwd):
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mypy(project):
    pytest.importorskip("mypy")
    check("mypy", "--strict", "hotset", "uses", "examples", "recipes", cwd=project)


def test_pyright(project):
    pytest.importorskip("pyright")
    assert "0 errors, 0 warnings" in check("pyright", "--pythonpath", sys.executable, cwd=project)


def test_checked_code_runs():
    subprocess.run([sys.executable, TESTS / "typing" / "usage.py"], check=True)


def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_hotset.pyi").exists()
