"""What the adapters to frameworks share."""

from typing import Any, cast

from hotset._mapping import Cache
from hotset._registry import shared

DEFAULT_MAX_ENTRIES = 10_000


def engine_of(framework: str, name: str | None, **settings: Any) -> Cache[Any, Any]:
    """Returns the process's cache of this name for a framework, `hotset.shared("FRAMEWORK:NAME")`; one of its own without a name."""
    return Cache(**settings) if name is None else shared(f"{framework}:{name}", **settings)


def native(engine: Cache[Any, Any]) -> Any:
    """Returns the native methods of a cache, which take a time to live as `hotset._settings.ttl_of` returns it."""
    return cast(Any, super(Cache, engine))
