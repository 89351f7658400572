"""Django's cache framework on hotset: a cache in the process, also in front of Redis or memcached.

    CACHES = {"default": {"BACKEND": "hotset.django.HotsetCache"}}
    CACHES = {
        "default": {
            "BACKEND": "hotset.django.TieredCache",
            "LOCATION": "redis://localhost:6379/0",
        }
    }

Add "hotset.django" to INSTALLED_APPS for the checks of these settings, and for `manage.py hotset`.
"""

from typing import TYPE_CHECKING

from hotset.django._backend import HotsetCache
from hotset.django._commit import ainvalidate_on_commit, invalidate_on_commit

if TYPE_CHECKING:
    from hotset.django._tiered import TieredCache


def __getattr__(name: str) -> object:
    """Returns `TieredCache`, importing the second tier's package on first use."""
    if name == "TieredCache":
        from hotset.django._tiered import TieredCache

        return TieredCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["HotsetCache", "TieredCache", "ainvalidate_on_commit", "invalidate_on_commit"]
