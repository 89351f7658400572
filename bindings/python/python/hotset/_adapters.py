"""What the adapters to frameworks share."""

from typing import Any, cast

from hotset._mapping import Cache
from hotset._registry import shared

DEFAULT_MAX_ENTRIES = 10_000


def engine_of(framework: str, name: str | None, **settings: Any) -> Cache[Any, Any]:
    """Returns the shared cache "FRAMEWORK:NAME", or a cache of its own if `name` is None.

    Args:
        framework: The first part of the shared cache's name.
        name: The second part; None for a cache that is not shared.
        **settings: The settings of `hotset.Cache`.

    Returns:
        The cache.
    """
    return Cache(**settings) if name is None else shared(f"{framework}:{name}", **settings)


def native(engine: Cache[Any, Any]) -> Any:
    """Returns the native methods of a cache, which take what `hotset._settings.ttl_of` returns.

    Args:
        engine: The cache.

    Returns:
        An object with the native methods, bound to `engine`.
    """
    return cast(Any, super(Cache, engine))
