"""The WSGI and ASGI applications of `hotset.dashboard`."""

import asyncio
import hmac
import json
import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from hotset._top import _page
from hotset._top._json import as_json
from hotset._top._model import Row, Snapshot, Tracker
from hotset._top._source import Clearing, Files, SourceError

_COOKIE: Final = "hotset_dashboard"
_MAX_BODY: Final = 64 << 10


class Request(NamedTuple):
    """What the page needs of a request.

    Attributes:
        method: The method.
        path: The path below the mounted one.
        query: The query string.
        headers: Headers by their lower-case names.
        body: The body of a POST.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Response(NamedTuple):
    """A response.

    Attributes:
        status: Number and reason.
        headers: Names and values.
        body: The body.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class _Refused(Exception):
    """A request that gets an error status."""


class Dashboard:
    """Answers requests; both kinds of applications use it.

    Args:
        directory: The directory of the stats files; None for HOTSET_STATS.
        allow_clear: Whether caches can be cleared.

    Raises:
        ValueError: There is no directory.
    """

    def __init__(self, directory: str | None, allow_clear: bool) -> None:
        directory = directory or os.environ.get("HOTSET_STATS")
        if not directory:
            raise ValueError("there is no directory of stats files: set HOTSET_STATS, or pass directory")
        self._files = Files(os.fspath(directory))
        self._allow_clear = bool(allow_clear)
        self._tracker = Tracker()
        # (No user code runs under it.)
        self._lock = threading.Lock()

    def _read(self) -> Snapshot:
        processes = self._files.read()
        with self._lock:
            return self._tracker.update(processes)

    def answer(self, request: Request) -> Response:
        """Returns the response to a request.

        Args:
            request: The request.
        """
        nonce = secrets.token_urlsafe(16)
        try:
            if request.path not in ("", "/", "/data.json"):
                return _plain("404 Not Found", "not found")
            if request.method == "POST" and self._allow_clear and request.path != "/data.json":
                return self._clear(request, nonce)
            if request.method not in ("GET", "HEAD"):
                return _plain("405 Method Not Allowed", "this page is read-only", ("Allow", "GET, HEAD"))
            if request.path == "":
                # Relative links would lead elsewhere: they need the slash at the end.
                return _plain("308 Permanent Redirect", "see below", ("Location", "./" if not request.headers.get(":mount") else request.headers[":mount"] + "/"))
            snapshot = self._read()
            if request.path == "/data.json":
                return _response("200 OK", "application/json", json.dumps(as_json(snapshot), allow_nan=False))
            query = parse_qs(request.query)
            if query.get("part") == ["main"]:
                return _response("200 OK", "text/html; charset=utf-8", _page.main(snapshot, allow_clear=self._allow_clear))
            if "clear" in query and self._allow_clear:
                token = _cookie(request) or secrets.token_urlsafe(24)
                secure = "; Secure" if request.headers.get(":scheme") == "https" else ""
                cookie = f"{_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"
                return _html(_page.question(_find(snapshot, query), token), nonce, ("Set-Cookie", cookie))
            return _html(_page.overview(snapshot, allow_clear=self._allow_clear), nonce, script=True)
        except SourceError as error:
            return _plain("503 Service Unavailable", str(error))
        except _Refused as refused:
            status, message = refused.args
            return _plain(status, message)

    def _clear(self, request: Request, nonce: str) -> Response:
        form = parse_qs(request.body.decode("utf-8", "replace"), max_num_fields=16)
        _check_origin(request)
        token = _cookie(request)
        sent = form.get("token", [""])[0]
        if not token or not hmac.compare_digest(token.encode(), sent.encode()):
            raise _Refused("403 Forbidden", "the form has expired, or came from another site: load the page again")
        row = _find(self._read(), form)
        notice = Clearing(row).outcome()
        return _html(_page.overview(self._read(), allow_clear=True, notice=notice), nonce, script=True)


def _find(snapshot: Snapshot, query: Mapping[str, list[str]]) -> Row:
    try:
        name, program = (bytes.fromhex(query[field][0]).decode("utf-8", "surrogatepass") for field in ("clear", "program"))
        kind = query["kind"][0]
    except (KeyError, ValueError):
        raise _Refused("400 Bad Request", "which cache? Follow a link of the page") from None
    for row in snapshot.rows:
        if row.key == (program, kind, name):
            return row
    raise _Refused("404 Not Found", "there is no such cache any more")


def _cookie(request: Request) -> str:
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == _COOKIE and 16 <= len(value) <= 64 and value.replace("-", "").replace("_", "").isalnum() and value.isascii():
            return value
    return ""


def _check_origin(request: Request) -> None:
    """Refuses forms of other sites: by Sec-Fetch-Site, or by Origin in a browser without it."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        allowed = site == "same-origin"
    elif origin is not None:
        allowed = urlsplit(origin).netloc == request.headers.get("host", "") != ""
    else:
        # No browser's form: the token decides.
        allowed = True
    if not allowed:
        raise _Refused("403 Forbidden", "this form was sent from another site")


def _html(body: str, nonce: str, *headers: tuple[str, str], script: bool = False) -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    page = _page.document(body, nonce, script=script)
    return _response("200 OK", "text/html; charset=utf-8", page, ("Content-Security-Policy", policy), *headers)


def _plain(status: str, message: str, *headers: tuple[str, str]) -> Response:
    return _response(status, "text/plain; charset=utf-8", message + "\n", *headers)


def _response(status: str, kind: str, text: str, *headers: tuple[str, str]) -> Response:
    body = text.encode("utf-8", "backslashreplace")
    common = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "same-origin"),
    ]
    return Response(status, [*common, *headers], body)


class WsgiApp:
    """A WSGI application, made by `hotset.dashboard.wsgi_app`."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")}
        headers[":scheme"] = str(environ.get("wsgi.url_scheme", ""))
        headers[":mount"] = str(environ.get("SCRIPT_NAME", ""))
        method = str(environ["REQUEST_METHOD"])
        body = b""
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= _MAX_BODY:
            response = _plain("413 Content Too Large", "the form is too large")
        else:
            if method == "POST":
                body = environ["wsgi.input"].read(length)
            request = Request(method, str(environ.get("PATH_INFO", "")), str(environ.get("QUERY_STRING", "")), headers, body)
            response = self._dashboard.answer(request)
        start_response(response.status, response.headers)
        return [] if method == "HEAD" else [response.body]


_Message = MutableMapping[str, Any]


class AsgiApp:
    """An ASGI application, made by `hotset.dashboard.asgi_app`."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"hotset.dashboard answers http, not {scope['type']}")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        root, path = str(scope.get("root_path", "")), str(scope["path"])
        headers[":scheme"], headers[":mount"] = str(scope.get("scheme", "")), root
        # Some servers pass the whole path here, others what follows the mounted one.
        if root and path.startswith(root):
            path = path[len(root) :]
        body, more, method = b"", True, str(scope["method"])
        while more and len(body) <= _MAX_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > _MAX_BODY:
            response = _plain("413 Content Too Large", "the form is too large")
        else:
            request = Request(method, path, scope.get("query_string", b"").decode("latin-1"), headers, body)
            response = await asyncio.to_thread(self._dashboard.answer, request)
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        await send({"type": "http.response.start", "status": int(response.status[:3]), "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})


async def _lifespan(receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
