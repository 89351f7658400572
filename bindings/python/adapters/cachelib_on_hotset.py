"""A plugin for pytest that puts hotset in the place of SimpleCache: cachelib's, and Flask-Caching's
where that is installed.
"""

from typing import Any

import cachelib
import cachelib.simple

from hotset.cachelib import HotsetCache


def _now() -> float:
    """Returns the time of the clock that Flask-Caching's tests put in the place of SimpleCache's.
    """
    return cachelib.simple.time()


class SimpleCache(HotsetCache):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, timer=_now, **kwargs)


_SimpleCache = cachelib.SimpleCache = cachelib.simple.SimpleCache = SimpleCache

try:
    from flask_caching import backends
except ImportError:
    pass
else:

    class SimpleCache(backends.BaseCache, _SimpleCache):  # type: ignore[no-redef]
        def __init__(self, threshold: int = 500, default_timeout: Any = 300, ignore_delete_many_errors: bool = False) -> None:
            _SimpleCache.__init__(self, threshold, default_timeout, ignore_delete_many_errors)

        @classmethod
        def factory(cls, app: Any, config: Any, args: Any, kwargs: Any) -> Any:
            return cls(*args, **{**kwargs, "threshold": config["CACHE_THRESHOLD"]})

    backends.SimpleCache = backends.simplecache.SimpleCache = SimpleCache
