"""`hotset.cached(.., tier2=)`."""

import asyncio
import subprocess
import sys

import pytest
from servers import wait_until

import hotset


@pytest.fixture
def pair(server, tier2):
    """One function in two processes, as it were: each with caches of its own."""

    def make(function, **settings):
        return [hotset.cached(ttl=300, name="f", tier2=tier2(server), **settings)(function) for _ in range(2)]

    return make


def test_function_is_called_once_over_processes(pair):
    calls = []

    def product(id, size=1):
        calls.append((id, size))
        return {"id": id, "size": size}

    one, other = pair(product)
    assert one(7) == other(7) == other(id=7) == one(7, size=1) == {"id": 7, "size": 1}
    assert calls == [(7, 1)]
    assert one(7, 2) == {"id": 7, "size": 2}


def test_invalidate_removes_all_spellings_everywhere(pair):
    calls = []

    def product(id, size=1):
        calls.append(id)
        return len(calls)

    one, other = pair(product)
    assert [one(7), other(7), other(id=7), other(7, 1)] == [1, 1, 1, 1]
    assert one.cache_invalidate(id=7) is True
    assert one(7) == 2
    wait_until(lambda: [other(7), other(id=7), other(7, 1)] == [2, 2, 2], what="the invalidation")


def test_set_refresh_expire_clear(pair):
    calls = []

    def f(x):
        calls.append(x)
        return len(calls)

    one, other = pair(f)
    assert one(1) == 1
    one.cache_set("set", 1)
    assert one(1) == "set"
    wait_until(lambda: other(1) == "set", what="the value")
    assert one.cache_refresh(1) == 2
    wait_until(lambda: other(1) == 2, what="the value")
    one.cache_expire(1)
    assert one(1) == 3
    assert one.cache_clear() is True
    assert one(1) == 4
    wait_until(lambda: other(1) == 4, what="the clear")


def test_key_function_names_the_result(pair):
    class User:
        def __init__(self, pk):
            self.pk = pk

    calls = []

    def name(user):
        calls.append(user.pk)
        return f"user {user.pk} {len(calls)}"

    one, other = pair(name, key=lambda user: user.pk)
    assert one(User(1)) == other(User(1)) == "user 1 1"
    one.cache_invalidate(User(1))
    assert one(User(1)) == "user 1 2"
    wait_until(lambda: other(User(1)) == "user 1 2", what="the invalidation")


def test_methods_need_a_key(server, tier2):
    shop = tier2(server)
    with pytest.raises(TypeError, match="needs key"):

        class WithoutKey:
            @hotset.cached(tier2=shop)
            def total(self):
                return 1

    class Account:
        def __init__(self, pk):
            self.pk = pk

        @hotset.cached(ttl=60, tier2=shop, name="total", key=lambda self, month: (self.pk, month))
        def total(self, month):
            return [self.pk, month]

    assert Account(1).total(3) == [1, 3]
    assert Account(1).total(3) == [1, 3]
    assert Account.total.cache_invalidate(Account(1), 3)
    assert Account(1).total.cache_invalidate(3)


def test_async_function(pair):
    calls = []

    async def f(x, y=2):
        calls.append(x)
        await asyncio.sleep(0.01)
        return x, len(calls)

    one, other = pair(f)

    async def main():
        assert await asyncio.gather(*(each(1) for each in (one, other) * 10)) == [(1, 1)] * 20
        assert await one.cache_ainvalidate(1)
        assert await one(1) == (1, 2)
        assert await one.cache_refresh(1) == (1, 3)
        assert await one(x=1) == (1, 3)

    asyncio.run(main())
    assert asyncio.run(other(5)) == (5, 4)


def test_unhashable_or_nameless_arguments_are_errors(pair):
    one, _ = pair(lambda x: x)
    with pytest.raises(TypeError):
        one([1])
    with pytest.raises(TypeError, match="key of the second tier"):
        one(object())


def test_errors_of_settings(server, tier2):
    with pytest.raises(TypeError, match="needs tier2"):
        hotset.cached(local_ttl=5)(len)
    with pytest.raises(TypeError, match=r"hotset\.tier2\.Redis"):
        hotset.cached(tier2="redis://localhost")(lambda: 1)
    with pytest.raises(TypeError, match="snapshot"):
        hotset.cached(tier2=tier2(server), snapshot="/tmp/x")(lambda: 1)


def test_attributes_are_the_functions(pair):
    def documented(x):
        """Text."""
        return x

    one, _ = pair(documented, local_ttl=30)
    assert one.__doc__ == "Text." and one.__wrapped__ is documented
    assert one.cache_parameters()["local_ttl"] == 30 and one.cache_parameters()["ttl"] == 300
    one(1)
    assert one.cache_info().currsize <= 1
    assert set(one.cache_tier2_stats()) == {"tier1", "tier2", "server"}
    assert {"hits", "misses", "loads", "evictions", "currsize"} <= set(one.cache_tier2_stats()["tier1"])


def test_import_of_hotset_imports_nothing_of_it():
    program = "import sys, hotset; print([name for name in sys.modules if 'tier2' in name or name.startswith('redis')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_call_of_itself_with_equal_arguments_is_an_error(server, tier2):
    shop = tier2(server)

    @hotset.cached(ttl=60, tier2=shop, name="recursive")
    def recursive(n):
        return recursive(n)

    @hotset.cached(ttl=60, tier2=shop, name="recursive async")
    async def recursive_async(n):
        return await recursive_async(n)

    for _ in range(3):
        with pytest.raises(RuntimeError):
            recursive(1)
        with pytest.raises(RuntimeError):
            asyncio.run(recursive_async(1))
    prices = hotset.TieredCache(shop, "recursive prices")
    for _ in range(3):
        with pytest.raises(RuntimeError):
            prices.get_or_load("a", lambda key: prices.get_or_load(key, lambda key: 1))
        with pytest.raises(RuntimeError):
            prices.get_or_load("a", lambda key: prices.get_or_load_many([key], lambda keys: {}))


def test_call_of_itself_with_other_arguments_works(server, tier2):
    @hotset.cached(ttl=60, tier2=tier2(server), name="factorial")
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    assert factorial(30) == 265252859812191058636308480000000


def test_functions_that_may_be_confused_need_a_name(server, tier2):
    shop = tier2(server)
    with pytest.raises(ValueError, match="give name="):
        hotset.cached(tier2=shop)(lambda user: user)

    def local(user):
        return user

    with pytest.raises(ValueError, match="give name="):
        hotset.cached(tier2=shop)(local)
    first = hotset.cached(tier2=shop, name="one name")(local)
    again = hotset.cached(tier2=shop, name="one name")(local)
    with pytest.raises(ValueError, match="another function"):
        hotset.cached(tier2=shop, name="one name")(lambda user: -user)
    assert first(1) == again(1) == 1


def test_two_caches_of_one_name_hear_of_each_other(server, tier2):
    shop = tier2(server)
    one, two = (hotset.TieredCache(shop, "twice", ttl=60) for _ in range(2))
    for turn in range(100):
        one.set("k", turn)
        assert two.get("k") == turn
        two.set("k", -turn)
        assert one.get("k") == -turn
        two.delete("k")
        assert one.get("k") is None
        one.set("k", "again")
        two.clear()
        assert one.get("k") is None
    other = hotset.TieredCache(tier2(server), "twice", ttl=60)
    one.set("k", 5)
    two.get("k"), one.get("k")
    other.delete("k")
    wait_until(lambda: one.get("k") is None and two.get("k") is None, what="the removal")


@pytest.mark.parametrize("setting", [{"tti": 5}, {"jitter": 0.1}, {"negative_ttl": 5}, {"timer": lambda: 1.0}, {"single_flight": False}])
def test_conflicting_settings_are_errors(server, tier2, setting):
    with pytest.raises(TypeError, match="exclude each other"):
        hotset.cached(tier2=tier2(server), name="x", **setting)(lambda: 1)
