"""A full-page cache as WSGI middleware, with ETag: a client that has the page gets a 304.

    python examples/recipes/full_page.py
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from wsgiref.util import request_uri

import hotset

Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]


class Page(NamedTuple):
    """A response.

    Attributes:
        tag: Its ETag; empty if it must not be kept.
        is_for_all: Whether all clients may get it: one that sets a cookie, or has a `Vary`, an
            `ETag` or a `Cache-Control` of its own, is for the client that requested it.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    tag: str = ""
    is_for_all: bool = True


class PageCache:
    """Caches pages that are the same for all clients: successful GETs without cookies.

    One request renders a page, and others wait for it.
    """

    def __init__(self, app: App, ttl: float, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._app = app
        self._max_age = int(ttl)
        self._pages: hotset.Cache[str, Page] = hotset.Cache(max_weight=max_bytes, weigher=lambda page: len(page.body) + 1000, ttl=ttl)

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Serves a request."""
        if environ["REQUEST_METHOD"] != "GET" or "HTTP_COOKIE" in environ or "HTTP_AUTHORIZATION" in environ:
            return self._app(environ, start_response)
        is_own = False

        def render(_: str) -> Page:
            nonlocal is_own
            is_own = True
            page = self._render(environ)
            # A page that is not to be kept has a time to live of 0.
            return page if page.tag else hotset.WithTtl(page, 0)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

        page = self._pages.get_or_load(request_uri(environ), render)
        if not page.is_for_all and not is_own:
            # This request waited for what turned out to be another client's page.
            page = self._render(environ)
        given = environ.get("HTTP_IF_NONE_MATCH", "")
        if page.tag and (page.tag in given or given.strip() == "*"):
            # A 304 repeats the headers that limit how long the client may store the page.
            start_response("304 Not Modified", [header for header in page.headers if header[0] in ("Cache-Control", "ETag")])
            return []
        start_response(page.status, list(page.headers))
        return [page.body]

    def _render(self, environ: Environ) -> Page:
        begun: list[Any] = []
        parts = self._app(environ, lambda *arguments: begun.append(arguments))
        try:
            body = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        # (The last call: an application may replace its answer by an error's.)
        status, headers = begun[-1][:2]
        names = {name.lower() for name, _ in headers}
        is_for_all = not names & {"cache-control", "etag", "set-cookie", "vary"}
        if not is_for_all or not status.startswith("200"):
            return Page(status, headers, body, is_for_all=is_for_all)
        # Of the content: the same in each worker, and after a restart.
        tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
        return Page(status, [*headers, ("ETag", tag), ("Cache-Control", f"public, max-age={self._max_age}")], body, tag)


def main() -> None:
    rendered: list[str] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        rendered.append(environ["PATH_INFO"])
        found = environ["PATH_INFO"] != "/absent"
        start_response("200 OK" if found else "404 Not Found", [("Content-Type", "text/plain")])
        return [b"a page" if found else b"no page"]

    cached = PageCache(app, ttl=60)

    def get(path: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
        answer: list[Any] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "test", "wsgi.url_scheme": "http", **headers}
        body = b"".join(cached(environ, lambda *arguments: answer.append(arguments)))
        return answer[0][0], dict(answer[0][1]), body

    status, headers, body = get("/")
    print(f"{status}: {body.decode()}, {headers['Cache-Control']}")
    status, headers, body = get("/", HTTP_IF_NONE_MATCH=headers["ETag"])
    print(f"{status}: {len(body)} bytes, {headers['Cache-Control']}")
    assert status.startswith("304") and headers["Cache-Control"] == "public, max-age=60"
    assert get("/absent")[0] == get("/absent")[0] == "404 Not Found"
    assert get("/", HTTP_COOKIE="session=1")[2] == b"a page"
    print(f"rendered: {', '.join(rendered)}")
    assert rendered == ["/", "/absent", "/absent", "/"]


if __name__ == "__main__":
    main()
