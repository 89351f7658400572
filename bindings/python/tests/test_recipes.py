"""The recipes: each is a program that fails if what it shows does not hold; here, that it says so, and has a page."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "examples" / "recipes"
PAGES = ROOT / "docs" / "recipes"
SAID = {
    "cold_source": ["100 loads, 5 at a time", "105 served, 895 refused at once"],
    "full_page": ["304 Not Modified: 0 bytes", "rendered: /, /absent, /absent, /"],
    "leaderboard": ["10,000 requests and 2,000 scores"],
    "microservice": ["the service is down: user 1, from before", "asked 2 times more", "it is up: user 2"],
    "prewarm": ["80 items from the snapshot, 0 loaded", "the snapshot was not loaded"],
    "rate_limiter": ["20 calls at once: 5 allowed", "3 allowed; another client: True"],
    "read_through": ["product 7, 1 query", "None, None, 1 query"],
    "sessions": ["after 31 idle minutes: None", "ended after 8 hours"],
    "shared_rate_limiter": ["1,600 calls of 4 processes: 100 allowed", "Redis is down: each process allows 5"],
    "tags": ["loaded: menu, wine list, contact, menu, menu, wine list"],
    "versioned_keys": ["html of version 2"],
    "write_back": ["would lose 10,000 views", "10,000 views, by 1 write"],
    "write_through": ["tea still costs 320 cents"],
}


NEEDS_REDIS = {"shared_rate_limiter"}


@pytest.mark.parametrize("name", SAID)
def test_recipe(name):
    if name in NEEDS_REDIS and (shutil.which("redis-server") is None or importlib.util.find_spec("redis") is None):
        pytest.skip("needs redis-server and redis-py: make tools-redis")
    done = subprocess.run([sys.executable, RECIPES / f"{name}.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in SAID[name]:
        assert text in done.stdout


def test_each_recipe_has_a_page_that_is_listed():
    programs = {path.stem for path in RECIPES.glob("*.py")}
    # (Those of frameworks are run by the adapters' tests.)
    assert programs - set(SAID) == {"django_cache_aside", "django_fleet"}
    listed = (PAGES / "README.md").read_text()
    for name in programs:
        page = (PAGES / f"{name.replace('_', '-')}.md").read_text()
        assert f"examples/recipes/{name}.py" in page and "## When not" in page
        assert f"({name.replace('_', '-')}.md)" in listed
