"""The recipes: each is a program that checks its own claims, and has a page."""

import importlib.util
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "examples" / "recipes"
PAGES = ROOT / "docs" / "recipes"
SAID = {
    "cold_source": ["100 loads, 5 at a time", "105 served, 895 refused immediately"],
    "full_page": ["304 Not Modified: 0 bytes", "rendered: /, /absent, /absent, /"],
    "leaderboard": ["10,000 requests and 2,000 scores"],
    "microservice": ["the service is down: user 1, from before", "2 more requests to the service", "it is up: user 2"],
    "prewarm": ["80 items from the snapshot, 0 loaded", "the snapshot was not loaded"],
    "rate_limiter": ["20 calls in a burst: 5 allowed", "3 allowed; another client: True"],
    "read_through": ["product 7, 1 query", "None, None, 1 query"],
    "sessions": ["after 31 idle minutes: None", "ended after 8 hours"],
    "shared_leaderboard": ["10,000 requests and 2,000 scores", "the other process shows player 7, too"],
    "shared_rate_limiter": ["1,600 calls of 4 processes: 100 allowed", "Redis is down: each process allows 5"],
    "tags": ["loaded: menu, wine list, contact, menu, menu, wine list"],
    "versioned_keys": ["html of version 2"],
    "write_back": ["would lose 10,000 views", "10,000 views, by 1 write"],
    "write_through": ["tea still costs 320 cents"],
}


NEEDS_REDIS = {"shared_leaderboard", "shared_rate_limiter"}


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


@pytest.fixture
def recipe(monkeypatch):
    """Imports a recipe as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def get(app, path="/", **headers):
    """Requests a page of a WSGI application; returns its status, headers and body."""
    answers = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "test", "wsgi.url_scheme": "http", **headers}
    body = b"".join(app(environ, lambda *arguments: answers.append(arguments)))
    return answers[-1][0], dict(answers[-1][1]), body


@pytest.mark.parametrize("header", [("Set-Cookie", "id=1"), ("Cache-Control", "private"), ("Cache-Control", "No-Store"), ("Vary", "Cookie")])
def test_full_page_for_one_client_is_given_to_no_other(recipe, header):
    """Two clients request it at the same time: each gets its own."""
    both = threading.Barrier(2)
    rendered = []

    def app(environ, start_response):
        rendered.append(environ["CLIENT"])
        if len(rendered) == 1:
            # The other client comes while this one's page is rendered.
            both.wait()
            wait_until_waiting(other)
        start_response("200 OK", [header])
        return [environ["CLIENT"].encode()]

    cached = recipe("full_page").PageCache(app, ttl=60)
    got = {}

    def second():
        both.wait()
        got["b"] = get(cached, CLIENT="b")

    other = threading.Thread(target=second)
    other.start()
    got["a"] = get(cached, CLIENT="a")
    other.join()
    assert {name: body for name, (_, _, body) in got.items()} == {"a": b"a", "b": b"b"}
    assert all(headers[header[0]] == header[1] and "ETag" not in headers for _, headers, _ in got.values())


def wait_until_waiting(thread):
    """Waits until a thread has begun to wait, as far as that shows: it is in the cache's call, or
    has ended.
    """
    while thread.is_alive():
        frame = sys._current_frames().get(thread.ident)
        names = set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if "__call__" in names:
            return


def test_full_page_closes_the_applications_iterable(recipe):
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"page"])

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        # An error page after the headers of another: the last call counts.
        start_response("200 OK", [])
        start_response("500 Internal Server Error", [], True)
        return Body()

    cached = recipe("full_page").PageCache(app, ttl=60)
    assert get(cached)[0] == get(cached)[0] == "500 Internal Server Error"
    assert closed == [True, True]


def test_full_page_any_tag_is_a_match(recipe):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"page"]

    cached = recipe("full_page").PageCache(app, ttl=60)
    tag = get(cached)[1]["ETag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        assert get(cached, HTTP_IF_NONE_MATCH=given)[0].startswith("304"), given
    assert get(cached, HTTP_IF_NONE_MATCH='"other"')[0] == "200 OK"


def test_write_back_outlives_a_source_that_fails(recipe, caplog, tmp_path):
    """A failed flush is logged, and repeated at the next interval; no call of a user raises."""
    # The table is made by another connection: of one that two threads use concurrently, either may
    # get the error of the other's statement.
    path = tmp_path / "pages"
    database = sqlite3.connect(path, check_same_thread=False)
    with recipe("write_back").PageViews(database, interval=0.001, limit=2) as views:
        for page in ("a", "b", "c"):
            views.add(page)
        wait_until(lambda: "no such table" in caplog.text)
        assert views.unflushed() == 3
        with sqlite3.connect(path) as administrator:
            administrator.execute("CREATE TABLE pages (name TEXT PRIMARY KEY, views INTEGER)")
        wait_until(lambda: views.unflushed() == 0)
    assert database.execute("SELECT sum(views) FROM pages").fetchone() == (3,)
    administrator.close()
    database.close()


def test_write_back_outlives_errors_of_any_kind(recipe, caplog):
    """The thread that flushes does not end by an error that is not the database's."""

    class Surprising(sqlite3.Connection):
        surprises = 0

        def executemany(self, *arguments):
            if self.surprises < 3:
                self.surprises += 1
                raise SystemError("a surprise")
            return super().executemany(*arguments)

    database = sqlite3.connect(":memory:", check_same_thread=False, factory=Surprising)
    database.execute("CREATE TABLE pages (name TEXT PRIMARY KEY, views INTEGER)")
    with recipe("write_back").PageViews(database, interval=0.001, limit=2) as views:
        views.add("a")
        wait_until(lambda: views.unflushed() == 0)
    assert caplog.text.count("a surprise") >= 3
    database.close()


def wait_until(condition):
    """Waits for what must happen; how long that takes decides only when the test gives up."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.001)
