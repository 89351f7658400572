"""Checks of CACHES, for `manage.py check` and each start of a server: of what has no effect.

What is wrong is an error when the backend is made, which Django's own checks do first.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.utils.module_loading import import_string

from hotset._adapters import DEFAULT_MAX_ENTRIES
from hotset.django._backend import HotsetCache
from hotset.django._settings import errors, warnings


def hotset_aliases() -> dict[str, dict[str, Any]]:
    """Returns the settings of those aliases in CACHES whose backend is hotset's."""
    found: dict[str, dict[str, Any]] = {}
    for alias, params in settings.CACHES.items():
        try:
            backend: Any = import_string(params["BACKEND"])
        except (ImportError, KeyError):
            # Django says so by itself.
            continue
        if isinstance(backend, type) and issubclass(backend, HotsetCache):
            found[alias] = params
    return found


def check_caches(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Returns a warning for each setting of hotset's backends that has no effect."""
    messages: list[CheckMessage] = []
    bounds: dict[str, tuple[str, Any]] = {}
    for alias, params in hotset_aliases().items():
        location = params.get("LOCATION", "")
        others = {name: value for name, value in params.items() if name not in ("BACKEND", "LOCATION")}
        if errors(location, others):
            continue
        messages += [Warning(f"CACHES[{alias!r}]: {text}", id="hotset.W001") for text in warnings(others)]
        options: dict[str, Any] = others.get("OPTIONS") or {}
        bound = options.get("MAX_ENTRIES", DEFAULT_MAX_ENTRIES)
        first, first_bound = bounds.setdefault(location, (alias, bound))
        if bound != first_bound:
            text = f"MAX_ENTRIES is {bound}, but {first_bound} for {first!r}, which has the same LOCATION: the first one used decides"
            messages.append(Warning(f"CACHES[{alias!r}]: {text}", hint="Give each its own LOCATION.", id="hotset.W002"))
    return messages
