"""A page with the named caches of this host's processes, as a WSGI or an ASGI application.

Mount it below your own application, behind your own authentication: it shows the names and figures
of all caches, and has no accounts of its own. It has no dependency, and loads nothing from
elsewhere.

`wsgi_app` and `asgi_app` show all processes that keep stats files in `HOTSET_STATS`. Below the
mounted path there are the page, and `data.json` with the same figures. `clear` exists only with
`allow_clear=True`.

Example:
    >>> import tempfile
    >>> from hotset.dashboard import wsgi_app
    >>> application = wsgi_app(tempfile.mkdtemp())
"""

from hotset._top._web import AsgiApp, Dashboard, WsgiApp


def wsgi_app(directory: str | None = None, *, allow_clear: bool = False) -> WsgiApp:
    """Returns the page as a WSGI application.

    Args:
        directory: The directory of the stats files; None for `HOTSET_STATS`.
        allow_clear: Whether the page can clear caches. Its forms are protected against requests
            from other sites, but not against your own users: authenticate them before.

    Raises:
        ValueError: `directory` is None, and HOTSET_STATS is not set.
    """
    return WsgiApp(Dashboard(directory, allow_clear))


def asgi_app(directory: str | None = None, *, allow_clear: bool = False) -> AsgiApp:
    """Returns the page as an ASGI application, which reads files in a thread.

    Args:
        directory: The directory of the stats files; None for `HOTSET_STATS`.
        allow_clear: Whether the page can clear caches, as with `wsgi_app`.

    Raises:
        ValueError: `directory` is None, and HOTSET_STATS is not set.
    """
    return AsgiApp(Dashboard(directory, allow_clear))


__all__ = ["asgi_app", "wsgi_app"]
