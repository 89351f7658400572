"""Invalidation by transactions: when the database has committed what the cache's value was made of."""

from collections.abc import Callable, Iterable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import transaction


def invalidate_on_commit(
    cache: Any, *keys: Any, version: Any = None, tags: Iterable[str] = (), using: str | None = None, robust: bool = False
) -> None:
    """Removes keys from a cache when the current transaction has been committed; immediately if there is none.

    Before the commit, another request would load the old row again, and keep it. In nested `atomic` blocks the outermost commit
    counts; after a rollback, also to a savepoint, nothing is removed.

    Args:
        cache: A cache of any backend, or its alias in CACHES.
        *keys: The keys.
        version: Their version.
        tags: Tags whose values are invalidated, too. For `TieredCache` only.
        using: The database; the default one if None.
        robust: If removing raises, log it and run the transaction's other callbacks, as of `transaction.on_commit`.
            (Removing from hotset's backends does not raise.)

    Example:
        >>> from django.core.cache import cache
        >>> from hotset.django import invalidate_on_commit
        >>> def save(product: Any) -> None:
        ...     with transaction.atomic():
        ...         product.save()
        ...         invalidate_on_commit(cache, f"product:{product.pk}")
    """
    transaction.on_commit(_removal(cache, keys, version, tags), using=using, robust=robust)


async def ainvalidate_on_commit(
    cache: Any, *keys: Any, version: Any = None, tags: Iterable[str] = (), using: str | None = None, robust: bool = False
) -> None:
    """As `invalidate_on_commit`, from a coroutine: for the connection that the asynchronous methods of models use there."""
    removal = _removal(cache, keys, version, tags)
    await sync_to_async(transaction.on_commit)(removal, using=using, robust=robust)


def _removal(cache: Any, keys: tuple[Any, ...], version: Any, tags: Iterable[str]) -> Callable[[], None]:
    if isinstance(cache, str):
        alias = cache
        # (Each thread has a backend of its own: that of the one that commits.)
        chosen: Callable[[], Any] = lambda: caches[alias]  # noqa: E731
    else:
        chosen = lambda: cache  # noqa: E731
    if isinstance(tags, str):
        raise TypeError("tags must be several strings, not one")
    given = tuple(tags)
    if not keys and not given:
        raise TypeError("invalidate_on_commit needs a key, or a tag")
    if given and not hasattr(chosen(), "invalidate_tag"):
        raise TypeError("tags need a cache that has them: hotset.django.TieredCache")

    def remove() -> None:
        backend = chosen()
        if len(keys) == 1:
            backend.delete(keys[0], version=version)
        elif keys:
            backend.delete_many(keys, version=version)
        for tag in given:
            backend.invalidate_tag(tag)

    return remove
