"""SQLAlchemy's example of caching with dogpile.cache, as it is, with hotset in the place of its
backend. Its folder is on the path.
"""

import subprocess
import sys

import pytest

RUN = """
import runpy, sys
from dogpile.cache import register_backend
register_backend("dogpile.cache.dbm", "hotset.dogpile", sys.argv[1])
runpy.run_module("examples.dogpile_caching." + sys.argv[2], run_name="__main__")
"""


def run(backend, module, folder):
    (folder / "dogpile_data").mkdir()
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, backend, module], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def selects(printed, *headings):
    """Returns how many queries follow each of these lines, up to the next of them."""
    counts = []
    for line in printed.splitlines():
        if line in headings:
            counts.append(0)
        elif counts:
            counts[-1] += "SELECT" in line
    return counts


# Its results are frozen before they are stored, so that both forms are right.
@pytest.mark.parametrize("backend", ["HotsetBackend", "HotsetPickleBackend"])
def test_hello_world(backend, tmp_path):
    printed = run(backend, "helloworld", tmp_path)
    headings = [
        "loading people....",
        "loading people....again!",
        "loading people two through twelve",
        "loading people five through fifteen",
        "loading people two through twelve...again!",
    ]
    assert selects(printed, *headings) == [1, 0, 1, 1, 0]


@pytest.mark.parametrize("backend", ["HotsetBackend", "HotsetPickleBackend"])
@pytest.mark.parametrize("module", ["relationship_caching", "advanced"])
def test_module_runs(backend, module, tmp_path):
    assert "SELECT" in run(backend, module, tmp_path)
