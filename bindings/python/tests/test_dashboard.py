"""The page of `hotset.dashboard` under a WSGI server and an ASGI driver."""

import asyncio
import http.client
import json
import os
import re
import threading
from html.parser import HTMLParser
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest
from fake_worker import StatsFile

pytest.importorskip("hotset._statsfile")

from hotset import dashboard

HOSTILE = "<script>alert(1)</script>\"'&\x1b[2J\u202e"
PRODUCTS = {
    "name": "products", "capacity": 100, "entries": 80, "hits": 900, "misses": 100, "evictions": 20, "loads": 100, "load_time": 10**9,
    "samples": [(1000, 90, 10)] * 10, "curve": [(50, 0.5, 1000), (100, 0.9, 2000), (200, 0.95, None)], "buckets": [(10**7, 100)],
}  # fmt: skip


@pytest.fixture
def stats(tmp_path):
    stats = StatsFile(tmp_path / f"hotset-{os.getpid()}-0.stats", "web <b>")
    stats.publish([PRODUCTS, {**PRODUCTS, "name": HOSTILE}])
    yield stats
    os.close(stats.file)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class Wsgi:
    """An application under wsgiref's server, checked against the standard."""

    def __init__(self, application):
        self.server = make_server("127.0.0.1", 0, validator(application), handler_class=Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def request(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            names.setdefault("Content-Type", "application/x-www-form-urlencoded")
        connection.request(method, path, body, names)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, dict(response.getheaders()), text

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Asgi:
    """Calls an application as a server does."""

    def __init__(self, application):
        self.application = application

    def request(self, method, path, body=None, **headers):
        path, _, query = path.partition("?")
        names = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in {"Host": "example", **headers}.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
            "query_string": query.encode(), "root_path": "", "headers": names,
        }  # fmt: skip
        whole = (body or "").encode()
        parts = [
            {"type": "http.request", "body": whole[:10], "more_body": True},
            {"type": "http.request", "body": whole[10:], "more_body": False},
        ]
        sent = []

        async def receive():
            return parts.pop(0)

        async def send(message):
            sent.append(message)

        asyncio.run(self.application(scope, receive, send))
        start, rest = sent
        names = {name.decode().title(): value.decode() for name, value in start["headers"]}
        return start["status"], names, rest["body"].decode()

    def end(self):
        pass


@pytest.fixture(params=["wsgi", "asgi"])
def serve(request, tmp_path, stats):
    running = []

    def make(**settings):
        if request.param == "wsgi":
            running.append(Wsgi(dashboard.wsgi_app(str(tmp_path), **settings)))
        else:
            running.append(Asgi(dashboard.asgi_app(str(tmp_path), **settings)))
        return running[-1]

    yield make
    for each in running:
        each.end()


class Tags(HTMLParser):
    VOID = ("meta", "input", "rect", "line", "circle", "polyline")

    def __init__(self, text):
        super().__init__()
        self.open, self.all = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_shows_every_cache_and_escapes_names(serve):
    server = serve()
    status, headers, text = server.request("GET", "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert "90.0%" in text and "products" in text and "&lt;script&gt;alert(1)" in text
    assert "\\x1b[2J\\u202e" in text and "\x1b" not in text and "\u202e" not in text
    tags = Tags(text).all
    assert [tag for tag, _ in tags].count("script") == 1 and ("b", {}) not in tags
    nonce = re.search(r"script-src 'nonce-([^']+)'", headers["Content-Security-Policy"])[1]
    assert all(attributes.get("nonce") == nonce for tag, attributes in tags if tag in ("script", "style"))
    # The policy forbids inline styles and handlers, and nothing comes from elsewhere.
    for _, attributes in tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on") or name == "src"]
    assert "://" not in text
    assert "?clear=" not in text
    part = server.request("GET", "/?part=main")[2]
    assert "<html" not in part and "products" in part
    Tags(part)
    assert server.request("HEAD", "/")[2] == ""


def test_json_has_the_same_figures(serve):
    status, headers, text = serve().request("GET", "/data.json")
    assert status == 200 and headers["Content-Type"] == "application/json" and headers["X-Content-Type-Options"] == "nosniff"
    caches = {each["name"]: each for each in json.loads(text)["caches"]}
    assert caches["products"]["hits"] == 900 and caches[HOSTILE]["curve"][1]["hit_ratio"] == 0.9


def test_other_requests_are_refused(serve):
    server = serve()
    assert server.request("GET", "/other")[0] == 404
    assert server.request("POST", "/", "clear=1")[0] == 405
    assert server.request("DELETE", "/")[0] == 405
    assert "Clear products" not in server.request("GET", "/?clear=" + b"products".hex())[2]
    assert server.request("POST", "/", "x" * (70 << 10))[0] == 413


def clear_form(server, name="products"):
    text = server.request("GET", "/")[2]
    link = next(
        attributes["href"] for tag, attributes in Tags(text).all if tag == "a" and attributes["href"].startswith(f"?clear={name.encode().hex()}&")
    )
    status, headers, text = server.request("GET", "/" + link)
    assert status == 200 and str(os.getpid()) in text
    fields = {attributes["name"]: attributes["value"] for tag, attributes in Tags(text).all if tag == "input"}
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    return fields, cookie


@pytest.mark.parametrize("name", ["products", HOSTILE])
def test_clear_reaches_the_process(serve, stats, name):
    server = serve(allow_clear=True)
    fields, cookie = clear_form(server, name)
    status, _, text = server.request("POST", "/", urlencode(fields), Cookie=cookie, Sec_Fetch_Site="same-origin")
    assert status == 200 and "cleared in 0 of 1; pending in" in text
    assert stats.publish([PRODUCTS]) == (1 if name == "products" else 2)


def test_forms_of_other_sites_are_refused(serve, stats):
    server = serve(allow_clear=True)
    fields, cookie = clear_form(server)
    body = urlencode(fields)
    wrong = urlencode({**fields, "token": "x" * 32})
    refused = [
        (body, {"Cookie": cookie, "Sec_Fetch_Site": "cross-site"}),
        (body, {"Cookie": cookie, "Sec_Fetch_Site": "same-site"}),
        (body, {"Cookie": cookie, "Origin": "https://evil.example"}),
        (body, {"Cookie": cookie, "Origin": "null"}),
        (body, {"Sec_Fetch_Site": "same-origin"}),
        (wrong, {"Cookie": cookie, "Sec_Fetch_Site": "same-origin"}),
        (urlencode({**fields, "token": ""}), {"Cookie": "hotset_dashboard="}),
        (urlencode({**fields, "token": "é"}), {"Cookie": cookie}),
    ]
    for sent, headers in refused:
        assert server.request("POST", "/", sent, **headers)[0] == 403, headers
    assert server.request("POST", "/", urlencode({"token": fields["token"]}), Cookie=cookie)[0] == 400
    assert server.request("POST", "/", urlencode({**fields, "clear": "zz"}), Cookie=cookie)[0] == 400
    assert server.request("POST", "/", urlencode({**fields, "clear": "00"}), Cookie=cookie)[0] == 404
    # GET never clears.
    assert server.request("GET", "/?" + body, Cookie=cookie)[0] == 200
    assert stats.publish([PRODUCTS]) is None


def test_a_missing_directory_is_an_error_of_the_page(tmp_path):
    server = Wsgi(dashboard.wsgi_app(str(tmp_path / "missing")))
    status, _, text = server.request("GET", "/")
    server.end()
    assert status == 503 and "does not exist" in text


def test_no_directory_is_an_error_of_the_call(monkeypatch):
    monkeypatch.delenv("HOTSET_STATS", raising=False)
    with pytest.raises(ValueError, match="set HOTSET_STATS, or pass directory"):
        dashboard.wsgi_app()
    monkeypatch.setenv("HOTSET_STATS", "/somewhere")
    dashboard.asgi_app()


def test_a_mounted_page_redirects_to_its_slash(tmp_path):
    def start(status, headers):
        assert status.startswith("308") and ("Location", "/caches/") in headers

    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/caches", "PATH_INFO": "", "QUERY_STRING": ""}
    assert dashboard.wsgi_app(str(tmp_path))(environ, start)


def test_asgi_answers_lifespan_and_refuses_websockets(tmp_path):
    application = dashboard.asgi_app(str(tmp_path))
    sent = []

    async def run():
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message["type"])

        await application({"type": "lifespan"}, receive, send)
        with pytest.raises(ValueError, match="websocket"):
            await application({"type": "websocket"}, receive, send)

    asyncio.run(run())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_page_without_processes_explains(tmp_path):
    server = Wsgi(dashboard.wsgi_app(str(tmp_path)))
    assert "set HOTSET_STATS in its environment" in server.request("GET", "/")[2]
    server.end()
