"""`cached` in the body of a class."""

import asyncio
import gc
import weakref
from functools import cached_property

import pytest

import hotset


class Shop:
    """Its instances are unhashable and equal to everything: only identity distinguishes them."""

    __hash__ = None

    def __init__(self, name):
        self.name = name
        self.calls = 0

    def __eq__(self, other):
        return True

    @hotset.cached
    def method(self, x):
        self.calls += 1
        return self.name, x

    @hotset.cached
    def another_name(this, x):
        this.calls += 1
        return this.name, x

    @hotset.cached(maxsize=10)
    async def coroutine(self, x):
        self.calls += 1
        return self.name, x

    @hotset.cached
    @property
    def above_property(self):
        """Documented."""
        self.calls += 1
        return self.name

    @property
    @hotset.cached
    def below_property(self):
        self.calls += 1
        return self.name


class Static:
    calls = 0

    @hotset.cached
    @classmethod
    def above_class(cls, x):
        cls.calls += 1
        return cls, x

    @classmethod
    @hotset.cached
    def below_class(cls, x):
        cls.calls += 1
        return cls, x

    @hotset.cached
    @staticmethod
    def above_static(x):
        Static.calls += 1
        return x

    @staticmethod
    @hotset.cached
    def below_static(x):
        Static.calls += 1
        return x


class Derived(Static):
    pass


@pytest.mark.parametrize("name", ["method", "another_name", "coroutine"])
def test_methods_per_instance(name):
    one, two = Shop("one"), Shop("two")
    cached = getattr(Shop, name)
    cached.cache_clear()

    def call(shop, x):
        result = getattr(shop, name)(x)
        return asyncio.run(result) if name == "coroutine" else result

    for _ in range(2):
        assert call(one, 1) == ("one", 1)
        assert call(two, 1) == ("two", 1)
    assert (one.calls, two.calls) == (1, 1)
    assert getattr(one, name).cache_info()[:2] == (2, 2)
    assert cached.cache_contains(one, 1)
    assert cached.cache_invalidate(one, 1)
    assert not cached.cache_contains(one, 1)
    assert cached.cache_contains(two, 1)
    call(one, 1)
    assert (one.calls, two.calls) == (2, 1)


@pytest.mark.parametrize("name", ["above_property", "below_property"])
def test_properties(name):
    one, two = Shop("one"), Shop("two")
    for _ in range(2):
        assert (getattr(one, name), getattr(two, name)) == ("one", "two")
    assert (one.calls, two.calls) == (1, 1)


def test_a_property_stays_one():
    assert isinstance(Shop.__dict__["above_property"], property)
    assert Shop.above_property.__doc__ == "Documented."


@pytest.mark.parametrize("name", ["above_class", "below_class"])
def test_class_methods(name):
    Static.calls = Derived.calls = 0
    for _ in range(2):
        assert getattr(Static, name)(1) == (Static, 1)
        assert getattr(Derived(), name)(1) == (Derived, 1)
    assert (Static.calls, Derived.calls) == (1, 1)


@pytest.mark.parametrize("name", ["above_static", "below_static"])
def test_static_methods(name):
    Static.calls = 0
    for _ in range(2):
        assert getattr(Static, name)(1) == 1
        assert getattr(Static(), name)(1) == 1
    assert Static.calls == 1
    assert getattr(Static, name).cache_info()[:2] == (3, 1)


@pytest.mark.parametrize("name", ["method", "coroutine", "above_property", "below_property"])
def test_instances_are_not_kept_alive(name):
    for _ in range(3):
        shop = Shop("gone")
        gone = weakref.ref(shop)
        result = getattr(shop, name)
        if name == "method":
            result(1)
        elif name == "coroutine":
            asyncio.run(result(1))
        del shop, result
        gc.collect()
        assert gone() is None


def test_a_function_that_is_put_into_a_class_later():
    def method(this, x):
        return [x]

    class Late:
        __hash__ = None

    Late.method = hotset.cached(method=True)(method)
    late = Late()
    assert late.method(1) is late.method(1)


def test_instances_that_cannot_be_held_weakly():
    class Slotted:
        __slots__ = ()

        @hotset.cached
        def method(self):
            return 1

    with pytest.raises(TypeError, match="weak"):
        Slotted().method()


def test_impossible_uses_are_errors():
    with pytest.raises(TypeError, match="cached_property"):
        hotset.cached(cached_property(len))
    with pytest.raises(TypeError, match="getter"):
        hotset.cached(property())
