"""Wrong arguments: the right exception, with a text that names the remedy."""

import math
import subprocess
import sys

import pytest

import hotset

WRONG = [
    ({"maxsize": -1}, ValueError, "maxsize must not be negative"),
    ({"maxsize": True}, TypeError, "maxsize must be an integer or None, not bool"),
    ({"maxsize": "9"}, TypeError, "maxsize must be an integer or None, not str"),
    ({"maxsize": 9.0}, TypeError, "not float"),
    ({"ttl": 0}, ValueError, "ttl must be more than 0"),
    ({"ttl": -1}, ValueError, "ttl must be more than 0"),
    ({"ttl": math.nan}, ValueError, "ttl must be more than 0"),
    ({"ttl": math.inf}, ValueError, "None for no limit"),
    ({"ttl": 10**400}, ValueError, "finite"),
    ({"ttl": "1 h"}, TypeError, "number of seconds, a timedelta or None, not str"),
    ({"tti": 0}, ValueError, "tti"),
    ({"negative_ttl": 0}, ValueError, "negative_ttl"),
    ({"jitter": 1}, ValueError, "jitter"),
    ({"jitter": "much"}, TypeError, "jitter must be a number"),
    ({"policy": "arc"}, ValueError, "tinylfu, lru, lfu, fifo, random, not 'arc'"),
    ({"policy": []}, ValueError, "policy"),
    ({"weigher": len}, TypeError, "must be given together"),
    ({"max_weight": 5}, TypeError, "must be given together"),
    ({"weigher": 3, "max_weight": 5}, TypeError, "weigher must be callable, not int"),
    ({"weigher": len, "max_weight": "5"}, TypeError, "max_weight"),
    ({"weigher": len, "max_weight": 5, "maxsize": 5}, TypeError, "exclude each other"),
    ({"on_removal": 3}, TypeError, "on_removal must be callable"),
    ({"timer": 3}, TypeError, "timer must be callable"),
    ({"name": 3}, TypeError, "name must be a string"),
    ({"max_size": 3}, TypeError, "max_size"),
]


@pytest.mark.parametrize(("settings", "error", "text"), WRONG)
def test_of_both(settings, error, text):
    with pytest.raises(error, match=text):
        hotset.Cache(**settings)
    with pytest.raises(error, match=text):
        hotset.cached(**settings)(len)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"key": 3}, "key must be callable"),
        ({"stale_if_error": 5}, "needs a ttl"),
        ({"stale_while_revalidate": 5}, "needs a ttl"),
    ],
)
def test_of_the_decorator(settings, text):
    with pytest.raises(TypeError, match=text):
        hotset.cached(**settings)(len)


def test_huge_capacities_are_unbounded():
    cache = hotset.Cache(maxsize=10**30)
    cache[1] = 2
    assert cache[1] == 2
    function = hotset.cached(maxsize=10**30)(len)
    assert function("abc") == 3


def test_of_the_mapping():
    cache = hotset.Cache(maxsize=10)
    with pytest.raises(TypeError, match="unhashable"):
        cache[[]]
    with pytest.raises(TypeError, match="unhashable"):
        cache[[]] = 1
    with pytest.raises(TypeError, match="unhashable"):
        [] in cache
    with pytest.raises(KeyError, match="absent"):
        cache["absent"]
    with pytest.raises(KeyError, match="absent"):
        del cache["absent"]
    with pytest.raises(TypeError):
        cache.get_or_load(1, 2)
    with pytest.raises(TypeError):
        cache.get_many(3)
    with pytest.raises(TypeError):
        cache.compute(1, 2)
    with pytest.raises(ValueError, match="ttl"):
        cache.set(1, 2, ttl=float("nan"))
    for wrong in ("x", True, [], object()):
        for call in (cache.set, cache.add, cache.set_with_ttl):
            with pytest.raises(TypeError, match="ttl"):
                call(1, 2, wrong)
    with pytest.raises(TypeError, match="ttl"):
        cache.get_or_load(1, str, "x")
    with pytest.raises(ValueError, match="maxsize"):
        cache.resize(-1)
    with pytest.raises(TypeError, match="maxsize"):
        cache.resize(None)
    assert len(cache) == 0


@pytest.mark.parametrize("made", ["hotset.Cache(2**26)", "hotset.cached(maxsize=2**26)(len)"])
def test_cache_without_memory_is_memory_error(made):
    """In a process of its own, whose address space is limited: no setting is wrong, so it is no
    ValueError.
    """
    pytest.importorskip("resource")
    code = f"""
import resource
import hotset

resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
try:
    {made}
except MemoryError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.startswith("no memory for the table"), ended
