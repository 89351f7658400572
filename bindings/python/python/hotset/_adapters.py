"""What the adapters to frameworks share."""

from typing import Any, cast

from hotset._mapping import Cache
from hotset._registry import shared

DEFAULT_MAX_ENTRIES = 10_000


def engine_of(framework: str, name: str | None, **settings: Any) -> Cache[Any, Any]:
    """Returns `hotset.shared("FRAMEWORK:NAME")`, or a cache that is not shared if `name` is None."""
    return Cache(**settings) if name is None else shared(f"{framework}:{name}", **settings)


def native(engine: Cache[Any, Any]) -> Any:
    """Returns the native methods of a cache, which take what `hotset._settings.ttl_of` returns."""
    return cast(Any, super(Cache, engine))
