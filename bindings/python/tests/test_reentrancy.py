"""The native part under stress: keys that raise, re-enter and change the cache, threads and forks.
"""

import gc
import os
import random
import sys
import sysconfig
import threading
import weakref
from collections import OrderedDict
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotset
from hotset import _hotset
from hotset._hotset import MISSING, Cache, Memo

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class Weak:
    """Something that can be referred to weakly."""


class Key:
    """Equal by value, with a hash that many share; `on_eq` runs in comparisons."""

    on_eq: Any = None

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        if Key.on_eq is not None:
            Key.on_eq()
        return isinstance(other, Key) and self.value == other.value


@pytest.fixture(autouse=True)
def quiet_keys() -> Any:
    Key.on_eq = None
    yield
    Key.on_eq = None


def makers() -> list[Any]:
    return [
        lambda f: hotset.lru_cache(maxsize=8)(f),
        lambda f: hotset.lru_cache(maxsize=None)(f),
        lambda f: Memo(f, maxsize=8),
        lambda f: Memo(f, maxsize=8, policy="lru", single_flight=False),
        lambda f: Memo(f, maxsize=8, ttl=1000),
    ]


every = pytest.mark.parametrize("make", makers())


@every
def test_equal_keys_are_one(make: Any) -> None:
    calls: list[Any] = []
    f = make(lambda *args, **kwargs: calls.append((args, kwargs)) or len(calls))
    for _ in range(3):
        for n in range(3):
            assert f(Key(n)) == f(Key(n))
            assert f(Key(n), Key(n)) == f(Key(n), Key(n))
    assert len(calls) == 6


@every
def test_an_eq_that_raises_is_heard(make: Any) -> None:
    f = make(lambda key: key.value)
    f(Key(1))

    def fail() -> None:
        raise ZeroDivisionError

    Key.on_eq = fail
    with pytest.raises(ZeroDivisionError):
        f(Key(1))
    Key.on_eq = None
    assert f(Key(1)) == 1


@every
def test_an_eq_may_change_the_cache(make: Any) -> None:
    f = make(lambda key: key.value)
    rng = random.Random(1)

    def meddle() -> None:
        Key.on_eq = None
        for _ in range(rng.randrange(12)):
            try:
                f(Key(rng.randrange(6)))
            except RuntimeError as error:
                # It came from inside the load of the same key, which compares keys, too.
                assert "called itself" in str(error)
        if rng.random() < 0.2:
            clear = getattr(f, "cache_clear", None) or f.clear
            clear()
        Key.on_eq = meddle

    for _ in range(500):
        Key.on_eq = meddle
        n = rng.randrange(6)
        assert f(Key(n)) == n
    Key.on_eq = None
    for n in range(6):
        assert f(Key(n)) == n


@every
def test_a_hash_that_raises_is_heard(make: Any) -> None:
    f = make(lambda *args, **kwargs: None)
    for args, kwargs in [(([],), {}), ((1, []), {}), ((), {"a": []})]:
        with pytest.raises(TypeError, match="unhashable"):
            f(*args, **kwargs)


@every
def test_raising_call_is_not_cached(make: Any) -> None:
    calls: list[int] = []

    def function(x: int) -> None:
        calls.append(x)
        raise KeyError(x)

    f = make(function)
    for _ in range(3):
        with pytest.raises(KeyError):
            f(1)
    assert calls == [1, 1, 1]


@every
def test_nothing_leaks(make: Any) -> None:
    argument, result = Weak(), Weak()
    f = make(lambda *args, **kwargs: result)

    def use() -> None:
        for n in range(50):
            f(argument, n)
            f(argument, n, k=argument)
            f(argument)
            f((argument, n))
        (getattr(f, "cache_clear", None) or f.clear)()

    use()
    gc.collect()
    before = sys.getrefcount(argument), sys.getrefcount(result)
    for _ in range(20):
        use()
    gc.collect()
    assert (sys.getrefcount(argument), sys.getrefcount(result)) == before


@every
def test_cycles_are_collected(make: Any) -> None:
    def cycle(through: str) -> weakref.ref[Weak]:
        weak = Weak()
        if through == "function":
            f = make(lambda x, weak=weak: x)
        else:
            f = make(lambda x: weak if through == "value" else 1)
        weak.f = f  # type: ignore[attr-defined]
        f(weak if through == "key" else 1)
        return weakref.ref(weak)

    refs = [cycle(through) for through in ("function", "value", "key")]
    gc.collect()
    assert [ref() for ref in refs] == [None, None, None]


@every
def test_the_collector_may_run_at_any_time(make: Any) -> None:
    class Node:
        def __del__(self) -> None:
            f(-1)

    f = make(lambda n: Node() if n % 3 == 0 else n)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for n in range(500):
            f(n % 20)
    finally:
        gc.set_threshold(*threshold)


def test_a_destructor_may_use_the_cache() -> None:
    class Value:
        def __init__(self, n: int) -> None:
            self.n = n

        def __del__(self) -> None:
            seen.append(self.n)
            f(self.n % 5 + 1000)
            f.invalidate((1001,), {})

    seen: list[int] = []
    f = Memo(lambda n: Value(n) if n < 1000 else n, maxsize=4)
    for n in range(200):
        f(n)
    f.clear()
    assert sorted(seen) == list(range(200))


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="without the GIL, after the epoch")
@pytest.mark.parametrize("policy", ["tinylfu", "lru", "lfu", "fifo", "random"])
def test_values_are_released_immediately(policy: str) -> None:
    c = Cache(maxsize=1000, policy=policy)
    refs = []
    for n in range(3000):
        value = Weak()
        refs.append(weakref.ref(value))
        c[n] = value
        del value
    alive = sum(ref() is not None for ref in refs)
    assert alive <= 1000 + 16
    c.run_pending()
    assert sum(ref() is not None for ref in refs) == len(c) <= 1000
    for n in list(c):
        del c[n]
        assert refs[n]() is None
    c["a"] = first = Weak()
    ref = weakref.ref(first)
    del first
    c["a"] = Weak()
    assert ref() is None


def test_listeners_are_notified_once() -> None:
    heard: list[tuple[Any, ...]] = []
    c = Cache(maxsize=2, policy="lru", on_removal=lambda *event: heard.append(event))
    c["a"], c["b"], c["c"] = 1, 2, 3
    c["b"] = 4
    del c["c"]
    c.clear()
    assert heard == [("a", 1, "size"), ("b", 2, "replaced"), ("c", 3, "explicit"), ("b", 4, "explicit")]


def test_exception_of_a_listener_is_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    c = Cache(maxsize=1, on_removal=lambda *_: 1 / 0)
    c["a"] = 1
    del c["a"]
    assert told == [ZeroDivisionError]
    assert len(c) == 0


as_method = partial(Memo, method=True)


def test_a_method_does_not_hold_its_instance() -> None:
    class Class:
        __hash__ = None  # type: ignore[assignment]

        @as_method
        def method(self, x: int) -> int:
            calls.append(x)
            return x

    calls: list[int] = []
    one, two = Class(), Class()
    assert [one.method(1), one.method(1), two.method(1)] == [1, 1, 1]
    assert calls == [1, 1]
    ref = weakref.ref(one)
    del one
    assert ref() is None


@pytest.mark.parametrize("alive", [0, 300])
@pytest.mark.parametrize("maxsize", [1024, None])
def test_results_of_dead_instances_are_removed(maxsize: int | None, alive: int) -> None:
    class Class:
        @partial(as_method, maxsize=maxsize)
        def method(self) -> Weak:
            return Weak()

    instances = [Class() for _ in range(alive)]
    kept = [weakref.ref(instance.method()) for instance in instances]
    refs = [weakref.ref(Class().method()) for _ in range(2000)]
    if FREE_THREADED:
        # A sweep removes them, after as many insertions as the last sweep kept entries, and at
        # least 64.
        Class.method.run_pending()  # type: ignore[attr-defined]
        assert sum(ref() is not None for ref in refs) <= max(alive, 64)
    else:
        assert not any(ref() for ref in refs)
    assert all(ref() for ref in kept)


@pytest.mark.skipif(not FREE_THREADED, reason="with the GIL, they are removed with their instance")
@pytest.mark.parametrize("insert", ["set", "call", "failure"])
def test_every_insertion_sweeps_results_of_dead_instances(insert: str) -> None:
    class Class:
        @partial(as_method, maxsize=None, negative_ttl=1000)
        def method(self, x: int) -> Weak:
            if x < 0:
                raise ValueError
            return Weak()

    memo: Any = Class.__dict__["method"]
    instance = Class()
    refs = [weakref.ref(Class().method(1)) for _ in range(60)]
    for n in range(100):
        match insert:
            case "set":
                memo.set((instance, n), {}, n)
            case "call":
                instance.method(n)
            case "failure":
                with pytest.raises(ValueError):
                    instance.method(-1 - n)
    memo.run_pending()
    assert not any(ref() for ref in refs)
    assert memo.stats()["entries"] == 100


def test_a_herd_calls_once() -> None:
    barrier, release, calls = threading.Barrier(16), threading.Event(), []

    def slow(x: int) -> object:
        calls.append(x)
        release.wait()
        return object()

    f = Memo(slow)
    got: list[object] = []

    def call() -> None:
        barrier.wait()
        got.append(f(1))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    while f.stats()["waits"] < 15:
        pass
    release.set()
    for thread in threads:
        thread.join()
    assert calls == [1] and len(set(map(id, got))) == 1 and len(got) == 16


def test_an_invalidation_beats_a_load() -> None:
    def function(x: int) -> str:
        f.invalidate((x,), {})
        return "old"

    f = Memo(function)
    assert f(1) == "old"
    assert not f.contains((1,), {})


def test_leaders_that_are_interrupted_hand_on() -> None:
    inside, calls = threading.Event(), []

    def function(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            inside.set()
            while f.stats()["waits"] == 0:
                pass
            raise KeyboardInterrupt
        return x

    f = Memo(function)
    raised: list[type] = []

    def lead() -> None:
        try:
            f(1)
        except KeyboardInterrupt:
            raised.append(KeyboardInterrupt)

    leader = threading.Thread(target=lead)
    leader.start()
    inside.wait()
    assert f(1) == 1
    leader.join()
    assert raised == [KeyboardInterrupt] and calls == [1, 1]


def test_flights() -> None:
    f = Memo(lambda x: x)
    state, leader = f.begin((1,), {})
    assert state == 1
    state, waiter = f.begin((1,), {})
    assert state == 2 and not waiter.done()
    landed: list[Any] = []
    waiter.add_done_callback(lambda: landed.append(waiter.result()))
    leader.finish("value")
    assert landed == ["value"] and f.begin((1,), {}) == (0, "value")
    with pytest.raises(RuntimeError):
        leader.finish("again")
    with pytest.raises(RuntimeError):
        waiter.finish("not the leader")
    _, leader = f.begin((2,), {})
    _, waiter = f.begin((2,), {})
    del leader
    assert waiter.result() is MISSING
    _, leader = f.begin((2,), {})
    _, waiter = f.begin((2,), {})
    leader.fail(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        waiter.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_a_working_cache() -> None:
    inside, release = threading.Event(), threading.Event()

    def function(x: int) -> int:
        if x == 1 and os.getpid() == parent:
            inside.set()
            release.wait()
        return x

    parent, f, c = os.getpid(), Memo(function), Cache(maxsize=10)
    f(0)
    c["a"] = 1
    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        # No thread of the child runs the load of 1: it must not be waited for.
        good = f(0) == 0 and f(1) == 1 and c["a"] == 1 and hotset.lru_cache(f)(2) == 2
        os._exit(0 if good else 1)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


keys = st.one_of(st.integers(-3, 3), st.sampled_from([True, 1.0, -1.0, 0.5, "a", "b", b"a", None, (), (1,), (1.0, "a"), 2**40, -(2**40)]))


@given(st.lists(st.tuples(st.sampled_from(["set", "get", "del", "in", "pop", "setdefault", "compute"]), keys)))
def test_a_mapping_is_a_dict(actions: list[tuple[str, Any]]) -> None:
    c, model = Cache(maxsize=None), {}
    for n, (action, key) in enumerate(actions):
        if action == "set":
            c[key] = model[key] = n
        elif action == "get":
            assert c.get(key, "none") == model.get(key, "none")
        elif action == "del":
            for mapping in (c, model):
                try:
                    del mapping[key]
                except KeyError:
                    assert key not in model
        elif action == "in":
            assert (key in c) == (key in model)
        elif action == "pop":
            assert c.pop(key, "none") == model.pop(key, "none")
        elif action == "setdefault":
            assert c.setdefault(key, n) == model.setdefault(key, n)
        else:
            assert c.compute(key, lambda value: (value or 0) + 1) == (model.get(key) or 0) + 1
            model[key] = (model.get(key) or 0) + 1
        assert len(c) == len(model)
    assert dict(c.items_hottest()) == model
    assert c.get_many(list(model)) == list(model.values())


@given(st.integers(1, 6), st.lists(st.one_of(st.integers(0, 9), st.sampled_from([1.0, True, "1", (1,)]))))
def test_lru_order_is_exact(size: int, calls: list[Any]) -> None:
    model: OrderedDict[Any, None] = OrderedDict()
    f = hotset.lru_cache(maxsize=size)(lambda x: x)
    for x in calls:
        # As functools: an int or str by itself is only equal to its like.
        key = (type(x) if type(x) in (int, str) else None, x)
        hits = f.cache_info().hits
        f(x)
        assert (f.cache_info().hits > hits) == (key in model)
        model[key] = None
        model.move_to_end(key)
        if len(model) > size:
            model.popitem(last=False)
    assert f.cache_info().currsize == len(model)


def test_times() -> None:
    now = [0.0]
    c = Cache(maxsize=10, ttl=10, timer=lambda: now[0])
    c["a"] = 1
    c.set_with_ttl("b", 2, 20)
    c.set_with_ttl("c", 3, None)
    assert c.remaining("a") == pytest.approx(10) and c.remaining("c") is None
    now[0] = 10.1
    assert (c.get("a"), c.get("b"), c.get("c")) == (None, 2, 3)
    now[0] = 21
    assert (c.get("b"), c.get("c"), len(c)) == (None, 3, 1)


def test_stale_result_is_logged_once_where_callers_reload(caplog: Any) -> None:
    fails = []

    def function():
        if fails:
            raise ConnectionError

    now = [1.0]
    memo = Memo(function, ttl=1, stale_while_revalidate=10, refresher=lambda reload: False, timer=lambda: now[0])
    memo()
    fails.append(True)
    for _ in range(3):
        now[0] += 2
        memo()
    assert len(caplog.records) == 1


def test_stale_values_are_served_while_one_reloads() -> None:
    now, todo, calls = [0.0], [], []
    f = Memo(
        lambda x: calls.append(x) or len(calls),
        ttl=10,
        stale_while_revalidate=20,
        refresher=lambda reload: todo.append(reload) or True,
        timer=lambda: now[0],
    )
    assert f(1) == 1
    now[0] = 11
    assert [f(1), f(1)] == [1, 1] and len(todo) == 1
    todo[0].run()
    assert f(1) == 2
    now[0] = 50
    assert f(1) == 3


def test_wrong_arguments() -> None:
    for options, error in [
        ({"ttl": -1}, ValueError),
        ({"ttl": float("nan")}, ValueError),
        ({"ttl": "1"}, TypeError),
        ({"maxsize": -1}, ValueError),
        ({"maxsize": 1.5}, TypeError),
        ({"maxsize": 2**200}, ValueError),
        ({"policy": "none"}, ValueError),
        ({"jitter": 1.0}, ValueError),
        ({"weigher": len}, ValueError),
        ({"max_weight": 3}, ValueError),
        ({"on_removal": 3}, TypeError),
        ({"nonsense": 3}, TypeError),
    ]:
        with pytest.raises(error):
            Cache(**options)
        with pytest.raises(error):
            Memo(len, **options)
    with pytest.raises(TypeError):
        Memo(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Memo()  # type: ignore[call-arg]
    c = Cache(maxsize=1)
    with pytest.raises(TypeError, match="expected 1 to 2 arguments, got 0"):
        c.get()  # type: ignore[call-arg]
    with pytest.raises(ValueError):
        c.resize(-1)
    weighed = Cache(max_weight=10, weigher=lambda key, value: value)
    with pytest.raises(TypeError):
        weighed["a"] = "x"
    with pytest.raises(ValueError):
        weighed["a"] = -1
    assert "a" not in weighed


def test_subinterpreters_are_refused() -> None:
    support = pytest.importorskip("test.support")
    code = "try:\n    import hotset\nexcept ImportError:\n    pass\nelse:\n    raise SystemExit('imported')"
    assert support.run_in_subinterp(f"import sys; sys.path[:] = {sys.path!r}\n{code}") == 0
    assert _hotset.__version__
