"""Checks CACHES for settings without effect, in `manage.py check` and at each start of a server.

A wrong setting is an error when the backend is created, which Django's own checks do first.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.utils.module_loading import import_string

from hotset._adapters import DEFAULT_MAX_ENTRIES
from hotset.django._backend import HotsetCache
from hotset.django._base import Backend
from hotset.django._settings import SERVER_OPTIONS, locations_of


def hotset_aliases() -> dict[str, dict[str, Any]]:
    """Returns the settings of those aliases in CACHES whose backend is one of hotset's."""
    return {alias: params for alias, (_, params) in _aliases().items()}


def _aliases() -> dict[str, tuple[type[Backend], dict[str, Any]]]:
    found: dict[str, tuple[type[Backend], dict[str, Any]]] = {}
    for alias, params in settings.CACHES.items():
        try:
            backend: Any = import_string(params["BACKEND"])
        except (ImportError, KeyError):
            # Django reports this error itself.
            continue
        if isinstance(backend, type) and issubclass(backend, Backend):
            found[alias] = backend, params
    return found


def check_caches(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Returns a warning for each setting that has no effect, or not the one that it seems to have.

    Args:
        app_configs: The applications to check, which is ignored.
        **kwargs: Ignored.
    """
    messages: list[CheckMessage] = []
    bounds: dict[str, tuple[str, Any]] = {}
    servers: dict[Any, tuple[str, Any]] = {}
    for alias, (backend, params) in _aliases().items():
        location = params.get("LOCATION", "")
        others = {name: value for name, value in params.items() if name not in ("BACKEND", "LOCATION")}
        if backend.setting_errors(location, others):
            continue
        messages += [Warning(f"CACHES[{alias!r}]: {text}", id="hotset.W001") for text in backend.setting_warnings(others)]
        options: dict[str, Any] = others.get("OPTIONS") or {}
        if issubclass(backend, HotsetCache):
            bound = options.get("MAX_ENTRIES", DEFAULT_MAX_ENTRIES)
            first, first_bound = bounds.setdefault(location, (alias, bound))
            if bound != first_bound:
                text = f"MAX_ENTRIES is {bound}, but {first_bound} for {first!r}, which has the same LOCATION: the first one used decides"
                messages.append(Warning(f"CACHES[{alias!r}]: {text}", hint="Give each its own LOCATION.", id="hotset.W002"))
            continue
        about_server = {name: value for name, value in options.items() if name in SERVER_OPTIONS - {"prefix"}}
        first, first_about = servers.setdefault((locations_of(location), options.get("prefix")), (alias, about_server))
        if about_server != first_about:
            names = sorted(name for name in SERVER_OPTIONS if about_server.get(name, ...) != first_about.get(name, ...))
            text = (
                f"OPTIONS {', '.join(names)} differ from those of {first!r}, which has the same LOCATION and prefix: "
                "the two have connections of their own, and see each other's changes as other processes do"
            )
            messages.append(Warning(f"CACHES[{alias!r}]: {text}", hint="Give them the same options, or each its own prefix.", id="hotset.W003"))
    return messages
