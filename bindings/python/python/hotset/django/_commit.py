"""Invalidation by transactions: once the database has committed."""

from collections.abc import Callable, Iterable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import transaction


def invalidate_on_commit(
    cache: Any, *keys: Any, version: Any = None, tags: Iterable[str] = (), using: str | None = None, robust: bool = False
) -> None:
    """Removes keys from a cache once the current transaction is committed; immediately without one.

    Before the commit, another request would load the old row again, and store it. In nested
    `atomic` blocks the outermost commit counts; after a rollback, also to a savepoint, nothing is
    removed.

    Args:
        cache: A cache of any backend, or its alias in CACHES.
        *keys: The keys.
        version: Their version.
        tags: Tags whose values are invalidated, too. For `TieredCache` only.
        using: The database; None for the default one.
        robust: Whether an exception of the removal is logged, and the transaction's other callbacks
            run, as of `transaction.on_commit`. (Removing from hotset's backends does not raise.)

    Raises:
        TypeError: There is neither a key nor a tag, or the cache has no tags.

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
    """Behaves like `invalidate_on_commit`, from a coroutine.

    It acts on the connection that the asynchronous methods of models use there.
    """
    removal = _removal(cache, keys, version, tags)
    await sync_to_async(transaction.on_commit)(removal, using=using, robust=robust)


def _removal(cache: Any, keys: tuple[Any, ...], version: Any, tags: Iterable[str]) -> Callable[[], None]:
    if isinstance(cache, str):
        alias = cache
        # Looked up at the commit: each thread has a backend of its own.
        chosen: Callable[[], Any] = lambda: caches[alias]  # noqa: E731
    else:
        chosen = lambda: cache  # noqa: E731
    if isinstance(tags, str):
        raise TypeError("tags must be several strings, not one")
    given = tuple(tags)
    if not keys and not given:
        raise TypeError("invalidate_on_commit needs a key, or a tag")
    if given and not hasattr(chosen(), "invalidate_tag"):
        raise TypeError("tags need a cache with invalidate_tag: use hotset.django.TieredCache")

    def remove() -> None:
        backend = chosen()
        if len(keys) == 1:
            backend.delete(keys[0], version=version)
        elif keys:
            backend.delete_many(keys, version=version)
        for tag in given:
            backend.invalidate_tag(tag)

    return remove
