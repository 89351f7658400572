"""An embedded cache engine: functools.lru_cache, faster, expiring and visible."""

from hotset._hotset import __version__
from hotset._lru import cache, lru_cache

__all__ = ["__version__", "cache", "lru_cache"]
