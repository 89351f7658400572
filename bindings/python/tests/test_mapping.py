"""`hotset.Cache`, against a dict and by example."""

import copy
import pickle
import threading
import weakref
from collections.abc import Hashable, MutableMapping
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import hotset

KEYS = st.one_of(st.integers(0, 20), st.text(max_size=1), st.tuples(st.integers(0, 2)), st.sampled_from([None, 1.0, 1.5, True, 2**70]))
VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=3))


class AsADict(RuleBasedStateMachine):
    """A cache without a bound does what a dict does."""

    def __init__(self):
        super().__init__()
        self.cache = hotset.Cache(maxsize=None)
        self.model = {}

    def both(self, call):
        def outcome(of):
            try:
                return call(of)
            except KeyError as error:
                return "KeyError", error.args

        assert outcome(self.cache) == outcome(self.model)

    @rule(key=KEYS, value=VALUES)
    def set(self, key, value):
        self.cache[key] = self.model[key] = value

    @rule(key=KEYS)
    def get(self, key):
        self.both(lambda of: of[key])
        self.both(lambda of: of.get(key))
        self.both(lambda of: of.get(key, "absent"))
        self.both(lambda of: key in of)

    @rule(key=KEYS)
    def delete(self, key):
        self.both(lambda of: of.__delitem__(key))

    @rule(key=KEYS, value=VALUES)
    def pop(self, key, value):
        self.both(lambda of: of.pop(key, value))
        self.both(lambda of: of.pop(key))

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key, value):
        self.both(lambda of: of.setdefault(key, value))

    @rule(items=st.dictionaries(KEYS, VALUES, max_size=5))
    def update(self, items):
        self.both(lambda of: of.update(items))

    @rule(key=KEYS, value=VALUES)
    def load(self, key, value):
        expected = self.model.setdefault(key, value)
        assert self.cache.get_or_load(key, lambda key: value) == expected

    @rule(key=KEYS, value=st.sampled_from(["absent", 1, 2]))
    def compute(self, key, value):
        assert self.cache.compute(key, lambda old: value, "absent") == value
        self.model[key] = value

    @rule(key=KEYS)
    def compute_away(self, key):
        assert self.cache.compute(key, lambda old: hotset.MISSING, "absent") == "absent"
        self.model.pop(key, None)

    @rule(key=KEYS, value=VALUES)
    def add(self, key, value):
        assert self.cache.add(key, value) == (key not in self.model)
        self.model.setdefault(key, value)

    @rule(key=KEYS)
    def touch_peek_delete(self, key):
        assert self.cache.touch(key, ttl=100) == (key in self.model)
        assert self.cache.peek(key, "absent") == self.model.get(key, "absent")
        assert self.cache.delete(key) == (key in self.model)
        self.model.pop(key, None)

    @rule(items=st.dictionaries(KEYS, VALUES, max_size=5), keys=st.lists(KEYS, max_size=5))
    def many(self, items, keys):
        self.cache.set_many(items)
        self.model.update(items)
        assert self.cache.get_many(keys, as_dict=True) == {key: self.model[key] for key in keys if key in self.model}
        assert self.cache.delete_many(keys) == len({key for key in keys if key in self.model})
        for key in keys:
            self.model.pop(key, None)

    @rule(key=KEYS, value=VALUES)
    def set_that_has_expired(self, key, value):
        self.cache.set(key, value, ttl=0)
        self.model.pop(key, None)

    @rule(keys=st.lists(KEYS, max_size=70))
    def get_many(self, keys):
        assert self.cache.get_many(keys, "absent") == [self.model.get(key, "absent") for key in keys]

    @rule()
    def popitem(self):
        if self.model:
            key, value = self.cache.popitem()
            assert self.model.pop(key) == value
        else:
            with pytest.raises(KeyError):
                self.cache.popitem()

    @rule()
    def clear(self):
        self.cache.clear()
        self.model.clear()

    @invariant()
    def the_content_is_the_same(self):
        assert len(self.cache) == len(self.model)
        assert self.cache == self.model
        assert set(self.cache) == set(self.model)
        assert dict(self.cache.items()) == self.model
        assert len(list(self.cache.values())) == len(self.model)


TestAsADict = AsADict.TestCase
TestAsADict.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_cache_is_a_mutable_mapping():
    cache = hotset.Cache(10)
    assert isinstance(cache, MutableMapping)
    assert not isinstance(cache, Hashable)
    cache.update(a=1)
    match cache:
        case {"a": value}:
            assert value == 1
    assert cache == {"a": 1} and cache != {"a": 2} and cache != 1
    assert weakref.ref(cache)() is cache
    assert hotset.Cache[str, int](10).stats().capacity == 10


def test_the_bound():
    cache = hotset.Cache(maxsize=100)
    for n in range(1000):
        cache[n] = n
    assert 0 < len(cache) <= 100
    assert cache.stats().evictions + cache.stats().rejections == 1000 - len(cache)
    cache.resize(10)
    assert len(cache) <= 10
    assert cache.stats().capacity == 10


def test_the_order_is_hottest_first():
    cache = hotset.Cache(maxsize=10, policy="lru")
    cache.update(a=1, b=2, c=3)
    cache["a"]
    assert list(cache) == list(cache.keys()) == ["a", "c", "b"]
    assert list(cache.items()) == [("a", 1), ("c", 3), ("b", 2)]
    assert list(cache.values()) == [1, 3, 2]
    assert cache.stats().hits == 1
    assert 3 in cache.values() and 4 not in cache.values()
    assert cache.popitem() == ("b", 2)


def test_times(clock):
    cache = hotset.Cache(maxsize=10, ttl=timedelta(seconds=10), timer=clock)
    cache["a"] = 1
    cache.set_with_ttl("b", 2, 100)
    cache.set_with_ttl("c", 3, None)
    cache.get_or_load("d", len, 5)
    assert cache.remaining("a") == pytest.approx(10, abs=0.01)
    assert cache.remaining("c") is None
    with pytest.raises(KeyError):
        cache.remaining("x")
    clock.advance(6)
    assert "d" not in cache
    clock.advance(6)
    assert cache.get("a") is None
    with pytest.raises(KeyError):
        cache["a"]
    clock.advance(100)
    assert dict(cache) == {"c": 3}
    assert cache.stats().expirations == 3


def test_a_weigher():
    cache = hotset.Cache(weigher=lambda key, value: len(key) + len(value), max_weight=1000)
    for n in range(500):
        cache[str(n)] = "x" * (n % 50)
    stats = cache.stats()
    assert stats.capacity == 1000
    assert 0 < stats.weight <= 1125
    cache.resize(100)
    assert cache.stats().weight <= 113


def test_removals_are_notified(clock):
    seen = []
    cache = hotset.Cache(maxsize=2, policy="fifo", ttl=10, timer=clock, on_removal=lambda *args: seen.append(args))
    cache["a"] = 1
    cache["a"] = 2
    del cache["a"]
    cache["b"] = 3
    clock.advance(20)
    len(cache), cache.run_pending()
    assert seen == [("a", 1, "replaced"), ("a", 2, "explicit"), ("b", 3, "expired")]
    seen.clear()
    for n in range(10):
        cache[n] = n
    cache.run_pending()
    assert {cause for _, _, cause in seen} == {"size"}
    assert {key for key, _, _ in seen} | set(cache) == set(range(10))


def test_loads_that_fail(clock):
    cache = hotset.Cache(maxsize=10, negative_ttl=5, timer=clock)
    calls = []

    def loader(key):
        calls.append(key)
        raise LookupError(key)

    for _ in range(3):
        with pytest.raises(LookupError):
            cache.get_or_load(1, loader)
    assert calls == [1]
    assert 1 not in cache
    clock.advance(6)
    assert cache.get_or_load(1, str) == "1"


def test_loader_that_requests_its_own_key_is_an_error():
    cache = hotset.Cache(maxsize=10)
    with pytest.raises(RuntimeError):
        cache.get_or_load(1, lambda key: cache.get_or_load(key, str))
    assert cache.get_or_load(1, str) == "1"


def test_compute_is_atomic():
    cache = hotset.Cache(maxsize=10)

    def count():
        for _ in range(1000):
            cache.compute("n", lambda n: n + 1, 0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache["n"] == 4000


def test_names_and_repr():
    cache = hotset.Cache(maxsize=10, name="prices")
    cache["tea"] = 3
    assert repr(cache) == "<hotset.Cache 'prices', entries=1, capacity=10>"
    assert repr(hotset.Cache(maxsize=None)) == "<hotset.Cache entries=0, capacity=None>"
    assert hotset.stats()["prices"].entries == 1


def test_subclasses():
    class Upper(hotset.Cache):
        def __new__(cls, suffix):
            return super().__new__(cls, 10)

        def __init__(self, suffix):
            self.suffix = suffix

        def __setitem__(self, key, value):
            super().__setitem__(key.upper() + self.suffix, value)

    cache = Upper("!")
    cache["a"] = 1
    cache.update(b=2)
    assert dict(cache) == {"A!": 1, "B!": 2}
    assert cache.stats().capacity == 10
    with pytest.raises(TypeError, match="__new__"):
        type("Wrong", (hotset.Cache,), {"__init__": lambda self: None})


def test_neither_pickled_nor_copied_deeply():
    cache = hotset.Cache(maxsize=10)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied deeply"):
            attempt(cache)


def test_copy_keeps_attributes_of_subclass():
    class Tagged(hotset.Cache):
        pass

    cache = Tagged(10)
    cache.tag = "a"
    cache["a"] = value = object()
    other = copy.copy(cache)
    assert type(other) is Tagged and other.tag == "a" and other["a"] is value
    other["b"] = 2
    assert "b" not in cache


def test_reversed_iterates_coldest_first():
    cache = hotset.Cache(10, policy="lru")
    cache.update(a=1, b=2, c=3)
    assert cache["a"] == 1
    assert list(reversed(cache)) == ["b", "c", "a"] == list(cache)[::-1]
    assert list(reversed(cache.keys())) == ["b", "c", "a"] == list(cache.keys())[::-1]
    assert list(reversed(cache.items())) == [("b", 2), ("c", 3), ("a", 1)] == list(cache.items())[::-1]
    assert list(reversed(cache.values())) == [2, 3, 1] == list(cache.values())[::-1]
    assert cache.keys() & {"a", "x"} == {"a"} and repr(cache.keys()).startswith("_Keys(")
    assert cache.stats().hits == 1


@pytest.mark.parametrize("policy", ["tinylfu", "lru", "lfu", "fifo", "random"])
def test_set_heavier_value_that_fits_stays(policy):
    removed = []
    cache = hotset.Cache(policy=policy, max_weight=100, weigher=len, on_removal=lambda *entry: removed.append(entry))
    for n in range(10):
        cache[n] = "a" * 10
    for n in range(10):
        if n in cache:
            cache[n] = "b" * 40
            assert cache.get(n) == "b" * 40, n
    last = next(iter(cache))
    cache[last] = "c" * 100
    assert dict(cache) == {last: "c" * 100} and cache.currsize == 100
    cache[last] = "d" * 101
    assert dict(cache) == {}
    assert len(removed) > 2 and {cause for _, _, cause in removed} == {"size", "replaced"}
