"""async-lru's decorator on hotset: a plugin for pytest that puts it into the place of async-lru's
own.

A function under `alru_cache` is one under `hotset.cached` with the policy "lru". The adapter adds
what async-lru has beyond that: `closed`, the number of running tasks and a jitter in seconds. It
counts calls in progress as entries, and callers that wait for them as hits.
"""

import functools
import inspect
import random
import sys
from functools import _CacheInfo, _make_key, partial, partialmethod
from types import GenericAlias

import async_lru

import hotset


class _LRUCacheWrapper:
    """A coroutine function under `hotset.cached`. (The name is the one that the tests import.)"""

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, function, maxsize, typed, ttl, jitter, key=None):
        functools.update_wrapper(self, function)
        self._maxsize, self._typed, self._ttl, self._jitter, self._key = maxsize, typed, ttl, jitter, key
        self.__closed = False
        # The keys of calls in progress.
        self._running = set()
        # Instances are arguments as any others: compared by equality, and kept.
        self._results = hotset.cached(maxsize=maxsize, policy="lru", ttl=ttl, typed=typed, key=key, method=False)(self._loader())
        if sys.version_info < (3, 14):
            from asyncio.coroutines import _is_coroutine

            self._is_coroutine = _is_coroutine
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    def _loader(self):
        async def load(*args, **kwargs):
            try:
                result = await self.__wrapped__(*args, **kwargs)
            finally:
                self._running.discard(self._call(args, kwargs))
            return result if self._jitter is None else hotset.WithTtl(result, self._ttl + random.uniform(0, self._jitter))

        return load

    def _call(self, args, kwargs):
        return _make_key(args, kwargs, self._typed) if self._key is None else self._key(*args, **kwargs)

    async def __call__(self, /, *args, **kwargs):
        if self.__closed:
            raise RuntimeError(f"alru_cache is closed for {self}")
        if not self.cache_contains(*args, **kwargs):
            self._running.add(self._call(args, kwargs))
        return await self._results(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else _Bound(self, instance)

    @property
    def __cache(self):
        """Returns the keys that are held, coldest first, in a dict: the tests look at their order.
        """
        return dict.fromkeys(self._call(*call) for call in reversed(self._results.cache_keys()))

    def cache_contains(self, /, *args, **kwargs):
        return self._call(args, kwargs) in self._running or self._results.cache_contains(*args, **kwargs)

    def cache_invalidate(self, /, *args, **kwargs):
        call = self._call(args, kwargs)
        running = call in self._running
        self._running.discard(call)
        return self._results.cache_invalidate(*args, **kwargs) or running

    def cache_clear(self):
        self._running.clear()
        self._results.cache_clear()
        self._results.cache_reset_stats()

    async def cache_close(self, *, wait=False):
        self.__closed = True
        await self._results.cache_aclose(cancel=not wait)

    def cache_info(self):
        info = self._results.cache_info()
        return _CacheInfo(info.hits + info.waits, info.misses, self._maxsize, info.currsize + len(self._running))

    def cache_parameters(self):
        return {"maxsize": self._maxsize, "typed": self._typed, "tasks": len(self._running), "closed": self.__closed}


class _Bound:
    """A coroutine function bound to an instance."""

    def __init__(self, wrapper, instance):
        functools.update_wrapper(self, wrapper)
        self._wrapper, self._instance = wrapper, instance
        self.cache_clear, self.cache_close = wrapper.cache_clear, wrapper.cache_close
        self.cache_info, self.cache_parameters = wrapper.cache_info, wrapper.cache_parameters

    async def __call__(self, /, *args, **kwargs):
        return await self._wrapper(self._instance, *args, **kwargs)

    def cache_contains(self, /, *args, **kwargs):
        return self._wrapper.cache_contains(self._instance, *args, **kwargs)

    def cache_invalidate(self, /, *args, **kwargs):
        return self._wrapper.cache_invalidate(self._instance, *args, **kwargs)


def alru_cache(maxsize=128, typed=False, *, ttl=None, jitter=None, key=None):
    if not (maxsize is None or isinstance(maxsize, int)):
        if not callable(maxsize) and not isinstance(maxsize, partialmethod):
            raise NotImplementedError(f"{maxsize!r} decorating is not supported")
        return alru_cache()(maxsize)
    if jitter is not None and ttl is None:
        raise ValueError("jitter requires ttl to be set")
    if jitter is not None and jitter < 0:
        raise ValueError("jitter must be non-negative")
    if key is not None and not callable(key):
        raise TypeError("key must be callable")
    if key is not None and typed:
        raise ValueError("typed is ignored when a custom key callable is provided")

    def decorate(function):
        origin = function
        while isinstance(origin, (partial, partialmethod)):
            origin = origin.func
        if not inspect.iscoroutinefunction(origin):
            raise RuntimeError(f"Coroutine function is required, got {function!r}")
        if isinstance(function, partialmethod):
            function = function._make_unbound_method()
        return _LRUCacheWrapper(function, maxsize, typed, ttl, jitter, key)

    return decorate


async_lru.alru_cache = alru_cache
async_lru._LRUCacheWrapper = _LRUCacheWrapper
