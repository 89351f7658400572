"""mypy and pyright, in strict mode, on the adapters and on what their users write: with the
frameworks at hand.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hotset

HERE = Path(__file__).parent
PACKAGE = Path(hotset.__file__).parent


@pytest.fixture
def project(tmp_path):
    """The package, its uses and the examples, side by side: what is installed, checkers take for
    granted.
    """
    only_sources = shutil.ignore_patterns("*.so", "__pycache__")
    # (Metrics need their packages: bindings/python/metrics/tests/test_types.py.)
    without_metrics = shutil.ignore_patterns("*.so", "__pycache__", "opentelemetry.py", "prometheus.py")
    shutil.copytree(PACKAGE, tmp_path / "hotset", ignore=without_metrics)
    shutil.copytree(HERE / "typing", tmp_path / "uses", ignore=only_sources)
    shutil.copytree(HERE.parents[2] / "examples" / "recipes", tmp_path / "examples", ignore=only_sources)
    settings = {"include": ["hotset", "uses", "examples"], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    (tmp_path / "mypy.ini").write_text(
        # (aiocache has no types.)
        "[mypy]\nstrict = True\nallow_subclassing_any = True\n\n[mypy-aiocache.*]\nignore_missing_imports = True\n"
    )
    return tmp_path


def check(*command, cwd):
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mypy(project):
    check("mypy", "hotset", "uses", "examples", cwd=project)


def test_pyright(project):
    assert "0 errors, 0 warnings" in check("pyright", "--pythonpath", sys.executable, cwd=project)
