"""The advice of a profiled cache."""

import asyncio
import threading
from random import Random
from typing import Any

import pytest

import hotset


def filled(capacity: int, keys: int, **settings: object) -> "hotset.Cache[int, int]":
    cache: hotset.Cache[int, int] = hotset.Cache(capacity, profile=True, **settings)  # type: ignore[arg-type]
    for n in range(20_000):
        cache.get_or_load(n % keys, lambda key: key)
    return cache


def test_estimate_of_a_loop_is_that_of_a_larger_cache():
    advice = filled(500, 800).advise()
    larger: hotset.Cache[int, int] = hotset.Cache(1_000)
    for n in range(20_000):
        larger.get_or_load(n % 800, lambda key: key)
    assert advice.doubt is None and advice.sample == 1
    assert [point.factor for point in advice.points] == [0.25, 0.5, 1, 2, 4, 8]
    assert abs(advice.points[3].hit_ratio - larger.stats().hit_ratio) < 0.01
    assert advice.enough is not None and 500 < advice.enough <= 1_000
    assert advice.optimum is not None and advice.optimum >= advice.hit_ratio
    assert str(advice) == advice.text and str(advice).startswith("Make it larger: ")


def test_lookups_of_every_kind_are_sampled():
    cache: hotset.Cache[int, int] = hotset.Cache(1_000, profile=True)
    for n in range(250):
        cache[n] = n
    for _ in range(20):
        for n in range(250):
            assert cache[n] == cache.get(n) == n
            assert cache.get(n + 1_000) is None
            with pytest.raises(KeyError):
                cache[n + 2_000]
    advice = cache.advise()
    assert advice.doubt is None and advice.lookups == 20_000
    assert abs(advice.points[-1].hit_ratio - 0.5) < 0.01


def test_few_lookups_are_a_doubt():
    advice = hotset.Cache(100, profile=True).advise()
    assert advice.doubt is not None and str(advice).startswith("No advice yet: too few lookups")


def test_function_over_a_profiled_cache_is_advised():
    cache: hotset.Cache[object, object] = hotset.Cache(100, profile=True)

    @hotset.cached(cache=cache)
    def square(n: int) -> int:
        return n * n

    for n in range(10_000):
        square(n % 150)
    assert str(cache.advise()).startswith("Make it larger: ")


def test_threads_leave_a_sound_estimate():
    cache = filled(500, 800)
    threads = [threading.Thread(target=lambda: [cache.get_or_load(n % 800, lambda key: key) for n in range(5_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.advise().points) == 6


def test_profile_says_what_to_do():
    with pytest.raises(ValueError, match="profile needs a bound: set a capacity"):
        hotset.Cache(None, profile=True)
    with pytest.raises(TypeError, match="profile must be a bool"):
        hotset.Cache(10, profile=1)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not profiled"):
        hotset.Cache(10).advise()


def test_shared_cache_may_be_profiled():
    cache = hotset.shared("test_advice", maxsize=100, profile=True)
    assert cache.advise().capacity == 100


def test_function_estimates_as_a_larger_one_would_do():
    @hotset.cached(maxsize=500, profile=True)
    def square(n: int) -> int:
        return n * n

    @hotset.cached(maxsize=1_000)
    def larger(n: int) -> int:
        return n * n

    for n in range(20_000):
        square(n % 800)
        larger(n % 800)
    advice, info = square.cache_advise(), larger.cache_info()
    assert advice.lookups == 20_000 and advice.doubt is None
    assert abs(advice.points[3].hit_ratio - info.hits / 20_000) < 0.01


@pytest.mark.parametrize("settings", [{}, {"typed": True}, {"ttl": 60}, {"policy": "lru"}, {"key": lambda n: n}], ids=str)
def test_function_samples_hits_of_every_kind(settings: dict[str, Any]):
    @hotset.cached(maxsize=400, profile=True, **settings)
    def f(n: int) -> int:
        return n

    for _ in range(20):
        for n in range(300):
            f(n)
    advice = f.cache_advise()
    assert advice.lookups == 6_000
    assert abs(advice.points[3].hit_ratio - 0.95) < 0.01


def test_method_with_a_profile_has_one_bound_for_all_instances():
    class Shop:
        @hotset.cached(profile=True)
        def total(self, month: int) -> int:
            return month

    shops = [Shop() for _ in range(4)]
    for n in range(20_000):
        shops[n % 4].total(n % 500)
    assert Shop.total.cache_info().maxsize == 1_024
    assert Shop.total.cache_advise().capacity == 1_024


def test_coroutine_function_is_profiled():
    @hotset.cached(maxsize=100, profile=True)
    async def f(n: int) -> int:
        return n

    async def calls() -> None:
        for n in range(5_000):
            await f(n % 150)

    asyncio.run(calls())
    assert f.cache_advise().lookups == 5_000


@pytest.mark.parametrize("kind", ["function", "mapping", "ttl"])
def test_autosize_follows_the_traffic(kind: str):
    autosize = (100, 5_000, 0.95)
    cache: Any = None
    if kind == "mapping":
        cache = hotset.Cache(200, autosize=autosize)

        def f(n: int) -> int:
            found: int = cache.get_or_load(n, lambda key: key)
            return found

        def size() -> int:
            return int(cache.stats().capacity)

    else:

        @hotset.cached(maxsize=200, autosize=autosize, ttl=None if kind == "function" else 1_000)
        def f(n: int) -> int:
            return n

        def size() -> int:
            return int(f.cache_info().maxsize)

    for n in range(150_000):
        f(n % 2_000)
    assert 1_900 <= size() <= 5_000
    for n in range(400_000):
        f(n % 50 if n % 4 else n)
    assert size() < 1_000


def test_autosized_cache_shows_and_copies_its_capacity():
    cache: hotset.Cache[int, int] = hotset.Cache(500, autosize=(100, 50_000, 0.95))
    for n in range(100_000):
        cache.get_or_load(n % 2_000, lambda key: key)
    size = cache.stats().capacity
    assert size is not None and size > 1_900
    assert cache.maxsize == size and f"capacity={size}>" in repr(cache)
    copied = cache.copy()
    assert copied == cache and copied.maxsize == size
    cache.resize(10)
    assert cache.maxsize == 10 and cache.copy().maxsize == 10


def test_removed_keys_do_not_count_as_possible_hits():
    cache: hotset.Cache[int, int] = hotset.Cache(1_000, autosize=(100, 50_000, 0.95))
    random = Random(3)
    for _ in range(150_000):
        cache.get_or_load(random.randrange(800), lambda key: key)
        if random.random() < 0.2:
            cache.pop(random.randrange(800), None)
    assert cache.maxsize is not None and cache.maxsize < 1_100
    advice = cache.advise()
    assert advice.unbounded is None or abs(advice.unbounded - advice.hit_ratio) < 0.02
    for n in range(150_000):
        if n % 1_000 == 0:
            cache.clear()
        cache.get_or_load(random.randrange(800), lambda key: key)
    assert cache.maxsize < 1_500


def test_autosize_begins_within_its_bounds():
    assert hotset.Cache(autosize=(1, 500, 0.9)).stats().capacity == 500
    assert hotset.Cache(autosize=(5_000, 50_000, 0.9)).stats().capacity == 5_000
    assert hotset.Cache(autosize=(5, 50_000, 1)).stats().capacity == 1_024
    cache = hotset.Cache(max_weight=500, weigher=len, autosize=(100, 1_000, 0.9))
    assert cache.stats().capacity == 500


@pytest.mark.parametrize(
    ("maxsize", "autosize", "error", "message"),
    [
        (10, 5, TypeError, "autosize must be .low, high, target."),
        (10, (1, 20), TypeError, "autosize must be .low, high, target."),
        (10, "abc", TypeError, "the lower bound of autosize must be an integer"),
        (10, (1.0, 20, 0.9), TypeError, "the lower bound of autosize must be an integer"),
        (10, (1, 20, "0.9"), TypeError, "the target of autosize must be a number"),
        (10, (0, 20, 0.9), ValueError, "the bounds of autosize must be at least 1"),
        (10, (20, 1, 0.9), ValueError, "the bounds of autosize must be at least 1, the lower one first, not 20 and 1"),
        (10, (1, 20, 0), ValueError, "above 0 and at most 1, not 0"),
        (10, (1, 20, float("nan")), ValueError, "above 0 and at most 1"),
        (10, (11, 20, 0.9), ValueError, "autosize starts with a capacity within its bounds, 11 and 20, not 10"),
        (None, (1, 20, 0.9), ValueError, "autosize starts with a capacity within its bounds, 1 and 20, not None"),
        (10, (1, 2**40, 0.9), ValueError, "2.28"),
    ],
)
def test_autosize_says_what_is_wrong(maxsize: Any, autosize: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        hotset.Cache(maxsize, autosize=autosize)
    with pytest.raises(error, match=message):
        hotset.cached(maxsize=maxsize, autosize=autosize)(lambda: 1)


def test_profile_and_cache_exclude_each_other():
    with pytest.raises(TypeError, match="profile and cache exclude each other"):
        hotset.cached(cache=hotset.Cache(10), profile=True)  # type: ignore[call-overload]
