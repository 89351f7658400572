"""mypy and pyright, in strict mode, on the modules of metrics and on what their users write."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import hotset
import pytest

PACKAGE = Path(hotset.__file__).parent
# (Others need other packages: their own tests check them.)
CHECKED = ["hotset/_metrics.py", "hotset/prometheus.py", "hotset/opentelemetry.py", "hotset/django/prometheus.py", "uses"]
USES = """
from typing import Any, assert_type

import hotset.opentelemetry
import hotset.prometheus
from hotset.prometheus import ASGIMiddleware, Collector, child_exit, post_request, worker_exit
from opentelemetry.metrics import MeterProvider
from prometheus_client import CollectorRegistry


def use(registry: CollectorRegistry, provider: MeterProvider, app: Any, worker: Any) -> None:
    registry.register(Collector(names="micrometer", labels={"service": "shop"}))
    hotset.prometheus.configure(names="hotset", labels=None, every=1)
    assert_type(hotset.prometheus.push(), None)
    post_request(worker, None)
    worker_exit(None, worker)
    child_exit(None, worker)
    assert_type(ASGIMiddleware(app), ASGIMiddleware)
    hotset.opentelemetry.instrument()
    hotset.opentelemetry.instrument(provider)
    Collector(names="other")  # type: ignore[arg-type]  # pyright: ignore
"""


@pytest.fixture
def project(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "hotset", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    uses = tmp_path / "uses"
    uses.mkdir()
    (uses / "usage.py").write_text(USES)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\nallow_subclassing_any = True\nfollow_imports = silent\n")
    settings = {"include": CHECKED, "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


def check(*command, cwd):
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mypy(project):
    check("mypy", *CHECKED, cwd=project)


def test_pyright(project):
    assert "0 errors, 0 warnings" in check("pyright", "--pythonpath", sys.executable, cwd=project)
