"""cachetools' caches and its `cached` decorator on hotset: a plugin for pytest that puts them in
the place of cachetools' own.

Replaced are the seven cache classes, each by one whose entries a `hotset.Cache` holds, and `cached`
where the cache is one of these: it loads through `Cache.get_or_load`. Kept are the key functions,
`cachedmethod`, `cachetools.func` (which is made of the replaced parts), and `cached` for a dict or
another cache. An adapter like this is what a program needs that has subclassed cachetools' caches;
others write `hotset.Cache` and `hotset.cached`.
"""

import math
import random
import time
from collections.abc import MutableMapping
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta

import cachetools
import cachetools._cached
from cachetools import keys

import hotset

_ABSENT = object()
_NO_BOUND = 2**62


class Cache(MutableMapping):
    """A cache that holds `maxsize` entries, or values of that size, and evicts the one that was set
    first.

    This is the policy "lru" without uses. With "fifo" an entry keeps its place when its value is
    replaced.
    """

    _policy = "lru"
    # A timed cache's clock stands still during an operation.
    _frozen = nullcontext()

    def __init__(self, maxsize, getsizeof=None):
        if maxsize < 0:
            raise ValueError("maxsize must be non-negative")
        if getsizeof is not None:
            self.getsizeof = getsizeof
        self._maxsize = maxsize
        self._held = self._empty()

    @staticmethod
    def getsizeof(value):
        return 1

    @property
    def _weighs(self):
        return self.getsizeof is not Cache.getsizeof

    def _empty(self):
        if not self._weighs:
            return hotset.Cache(None if self._maxsize == math.inf else self._maxsize, policy=self._policy, **self._times())
        bound = _NO_BOUND if self._maxsize == math.inf else self._maxsize
        return hotset.Cache(max_weight=bound, weigher=self.getsizeof, policy=self._policy, **self._times())

    def _times(self):
        return {}

    def _lifetime(self, key, value):
        """Returns the time to live of a new entry, None for no expiration."""
        return None

    def _check(self, value):
        size = self.getsizeof(value)
        if size > self._maxsize:
            raise ValueError("value too large")
        if size < 0:
            raise ValueError("value size must be non-negative")

    def _find(self, key, default):
        return self._held.peek(key, default)

    def __getitem__(self, key):
        with self._frozen:
            value = self._find(key, _ABSENT)
            return self.__missing__(key) if value is _ABSENT else value

    def __missing__(self, key):
        raise KeyError(key)

    def __setitem__(self, key, value):
        with self._frozen:
            self._check(value)
            ttl = self._lifetime(key, value)
            if ttl is None or ttl > 0:
                self._held.set(key, value, ttl=ttl)
            else:
                # To set it would evict another.
                self._held.delete(key)

    def __delitem__(self, key):
        with self._frozen:
            del self._held[key]

    def __contains__(self, key):
        with self._frozen:
            return key in self._held

    def __len__(self):
        with self._frozen:
            return len(self._held)

    def __iter__(self):
        with self._frozen:
            order = list(self._held)
        for key in reversed(order):
            if key in self:
                yield key

    def __repr__(self):
        with self._frozen:
            content = {key: self._held.peek(key) for key in self}
            return f"{type(self).__name__}({content!r}, maxsize={self.maxsize!r}, currsize={self.currsize!r})"

    def get(self, key, default=None):
        with self._frozen:
            return self._find(key, default)

    def pop(self, key, default=_ABSENT):
        with self._frozen:
            return self._held.pop(key) if default is _ABSENT else self._held.pop(key, default)

    def setdefault(self, key, default=None):
        with self._frozen:
            while True:
                value = self._find(key, _ABSENT)
                if value is not _ABSENT:
                    return value
                self._check(default)
                if self._held.add(key, default, ttl=self._lifetime(key, default)):
                    return default

    def popitem(self):
        with self._frozen:
            try:
                return self._held.popitem()
            except KeyError:
                raise KeyError(f"{type(self).__name__} is empty") from None

    def clear(self):
        self._held.clear()

    def load(self, key, loader):
        """Returns the key's value, or what `loader` returns for it, which is kept: for `cached`."""
        return self._held.get_or_load(key, lambda _: self._with_lifetime(key, loader()))

    def _with_lifetime(self, key, value):
        return hotset.WithTtl(value, self._lifetime(key, value))

    @property
    def maxsize(self):
        return self._maxsize

    @property
    def currsize(self):
        with self._frozen:
            return self._held.currsize

    # --- Copies, and pickles: what is held, coldest first, with what is left of its time.

    def _entries(self):
        entries = []
        with self._frozen:
            for key, value in reversed(list(self._held.items())):
                entries.append((key, value, self._held.remaining(key)))
        return entries

    def _fill(self, entries):
        self._held = self._empty()
        with self._frozen:
            for key, value, left in entries:
                self._held.set(key, value, ttl=left)

    def __copy__(self):
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._held = self._held.copy()
        return copy

    def __getstate__(self):
        return {**self.__dict__, "_held": self._entries()}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._fill(state["_held"])


class FIFOCache(Cache):
    """Evicts the entry that was set first."""


class LRUCache(Cache):
    """Evicts the entry that was not used for longest."""

    def _find(self, key, default):
        return self._held.get(key, default)


class LFUCache(LRUCache):
    """Evicts the entry that was used least."""

    _policy = "lfu"


class RRCache(Cache):
    """Evicts an entry at random, or the one whose key `choice` returns of all keys."""

    _policy = "random"

    def __init__(self, maxsize, choice=random.choice, getsizeof=None):
        super().__init__(maxsize, getsizeof)
        self._choice = choice

    @property
    def choice(self):
        return self._choice

    def __setitem__(self, key, value):
        self._check(value)
        if self._choice is not random.choice:
            held = self._held.peek(key, _ABSENT)
            more = self.getsizeof(value) - (0 if held is _ABSENT else self.getsizeof(held))
            while self and self.currsize + more > self.maxsize:
                self.popitem()
        super().__setitem__(key, value)

    def popitem(self):
        if self._choice is random.choice or not self:
            return super().popitem()
        key = self._choice(list(self))
        return key, self.pop(key)


class Clock:
    """A timer that stands still while it is entered."""

    def __init__(self, timer):
        self._timer = timer
        self._depth = 0
        self._now = None

    def __call__(self):
        return self._now if self._depth else self._timer()

    def __enter__(self):
        if not self._depth:
            self._now = self._timer()
        self._depth += 1
        return self._now

    def __exit__(self, *_):
        self._depth -= 1

    @contextmanager
    def at(self, now):
        """Sets another time for an operation."""
        before, self._now = self._now, now
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._now = before

    def seconds(self):
        """Returns the time as hotset takes it."""
        now = self()
        return now.timestamp() if isinstance(now, datetime) else now

    def __reduce__(self):
        return type(self), (self._timer,)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._timer, name)


class _TimedCache(LRUCache):
    def __init__(self, maxsize, timer, getsizeof=None):
        self._frozen = Clock(timer)
        super().__init__(maxsize, getsizeof)

    def _times(self):
        return {"timer": self._frozen.seconds}

    @property
    def timer(self):
        return self._frozen

    def _left(self, expires):
        left = expires - self._frozen()
        if isinstance(left, timedelta):
            left = left.total_seconds()
        return None if left == math.inf else left

    def expire(self, time=None):
        with self._frozen if time is None else self._frozen.at(time):
            return self._held.expire()

    def __copy__(self):
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._frozen = Clock(self._frozen._timer)
        copy._fill(self._entries())
        return copy


class TTLCache(_TimedCache):
    """LRU, and an entry expires `ttl` after it was inserted or replaced."""

    def __init__(self, maxsize, ttl, timer=time.monotonic, getsizeof=None):
        super().__init__(maxsize, timer, getsizeof)
        self._ttl = ttl

    @property
    def ttl(self):
        return self._ttl

    def _lifetime(self, key, value):
        return self._left(self._frozen() + self._ttl)


class TLRUCache(_TimedCache):
    """LRU, and an entry expires at the time that `ttu` returns for its key, its value and the time
    now.
    """

    def __init__(self, maxsize, ttu, timer=time.monotonic, getsizeof=None):
        super().__init__(maxsize, timer, getsizeof)
        self._ttu = ttu

    @property
    def ttu(self):
        return self._ttu

    def _lifetime(self, key, value):
        return self._left(self._ttu(key, value, self._frozen()))


class Function(cachetools._cached._WrapperBase):
    """A function under `cached`. One caller loads and all others wait for it, so no lock is needed,
    and none is taken.
    """

    def __init__(self, function, cache, key, lock, condition):
        super().__init__(function, cache, key, condition if lock is None else lock, condition)
        self._hits = self._misses = 0

    def __call__(self, /, *args, **kwargs):
        called = False

        def load():
            nonlocal called
            called = True
            return self.__wrapped__(*args, **kwargs)

        try:
            return self.cache.load(self.cache_key(*args, **kwargs), load)
        finally:
            self._misses += called
            self._hits += not called

    def cache_clear(self):
        self.cache.clear()
        self._hits = self._misses = 0


class CountingFunction(Function):
    def cache_info(self):
        return cachetools.CacheInfo(self._hits, self._misses, self.cache.maxsize, self.cache.currsize)


_cached = cachetools.cached


def cached(cache, key=keys.hashkey, lock=None, condition=None, info=False):
    if not isinstance(cache, Cache):
        return _cached(cache, key, lock, condition, info)
    wrapper = CountingFunction if info else Function
    return lambda function: wrapper(function, cache, key, lock, condition)


for _replaced in (Cache, FIFOCache, LRUCache, LFUCache, RRCache, TTLCache, TLRUCache, cached):
    setattr(cachetools, _replaced.__name__, _replaced)
