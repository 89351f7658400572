"""The advice of a profiled cache."""

import threading

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
