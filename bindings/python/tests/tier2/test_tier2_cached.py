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
    with pytest.raises(TypeError, match="give key="):

        class WithoutKey:
            @hotset.cached(tier2=shop)
            def total(self):
                return 1

    class Account:
        def __init__(self, pk):
            self.pk = pk

        @hotset.cached(ttl=60, tier2=shop, key=lambda self, month: (self.pk, month))
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
    with pytest.raises(TypeError, match="give tier2="):
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
