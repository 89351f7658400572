"""An embedded cache engine: functools.lru_cache, faster, expiring and visible."""

from hotset._hotset import __version__

__all__ = ["__version__"]
