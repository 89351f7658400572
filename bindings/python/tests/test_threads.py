"""Threads, and forks."""

import os
import sys
import threading

import pytest

import hotset


def together(count, target):
    """Runs target(number) in `count` threads that start together; raises what one of them raised.
    """
    barrier = threading.Barrier(count)
    errors = []

    def run(number):
        try:
            barrier.wait()
            target(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def test_a_herd_makes_one_call():
    calls = []

    @hotset.cached
    def function(x):
        calls.append(x)
        while function.cache_info().waits < 15:
            pass
        return [x]

    results = []
    together(16, lambda _: results.append(function(1)))
    assert calls == [1]
    assert all(result is results[0] for result in results)


def test_a_failing_load_fails_for_all():
    calls = []

    @hotset.cached
    def function(x):
        calls.append(x)
        while function.cache_info().waits < 15:
            pass
        raise LookupError(x)

    failed = []

    def call(_):
        with pytest.raises(LookupError):
            function(1)
        failed.append(1)

    together(16, call)
    assert len(failed) == 16
    assert calls == [1]


def test_an_invalidation_beats_a_load():
    loading, go = threading.Event(), threading.Event()

    @hotset.cached
    def function(x):
        loading.set()
        assert go.wait(60)
        return x

    thread = threading.Thread(target=function, args=(1,))
    thread.start()
    assert loading.wait(60)
    function.cache_invalidate(1)
    go.set()
    thread.join()
    assert not function.cache_contains(1)


def test_unshared_load_is_invalidated():
    loads, go = [], threading.Event()
    begun = threading.Semaphore(0)

    @hotset.cached(single_flight=False)
    def function(x):
        loads.append(x)
        number = len(loads)
        if number <= 2:
            begun.release()
            go.wait()
        return number

    results = []
    threads = [threading.Thread(target=lambda: results.append(function("a"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()  # both are at it: neither waits for the other
    function.cache_invalidate("a")
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == [1, 2]
    assert not function.cache_contains("a")
    assert (function("a"), function("a")) == (3, 3)


def test_unshared_function_may_call_itself():
    depth = []

    @hotset.cached(single_flight=False)
    def function(x):
        depth.append(x)
        return function(x) if len(depth) < 3 else x

    assert (function("a"), function("a"), depth) == ("a", "a", ["a"] * 3)


@pytest.mark.parametrize("settings", [{}, {"ttl": 0.01}, {"policy": "lru"}, {"single_flight": False}])
def test_no_wrong_value(settings):
    @hotset.cached(maxsize=50, **settings)
    def function(x, y=0):
        return x, y

    def work(number):
        for n in range(5000):
            key = (n * 7 + number) % 200
            assert function(key) == (key, 0)
            assert function(key, y=number) == (key, number)
            if n % 50 == 0:
                function.cache_invalidate(key)
            if n % 1000 == 0:
                function.cache_clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        together(4, work)
    finally:
        sys.setswitchinterval(interval)
    assert function.cache_info().currsize <= 50


def test_a_mapping_under_threads():
    cache = hotset.Cache(maxsize=100)

    def work(number):
        for n in range(5000):
            key = (n * 7 + number) % 300
            assert cache.setdefault(key, key) == key
            assert cache.get_or_load(key, int) == key
            assert cache.get(key, key) == key
            if n % 100 == 0:
                assert all(key == value for key, value in cache.items())
            cache.pop(key, None)

    together(4, work)
    assert len(cache) <= 100


def in_child(check):
    """Runs check() in a forked child; whether it returned true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_caches_work_in_a_forked_child():
    function = hotset.cached(maxsize=100, ttl=3600)(lambda x: [x])
    cache = hotset.Cache(maxsize=100)
    lru = hotset.lru_cache(maxsize=100)(lambda x: [x])
    for n in range(1000):
        function(n), lru(n)
        cache[n] = n
    cache["kept"] = 1
    cache["kept"], cache["kept"]
    last = lru(999)

    def check():
        for n in range(1000):
            assert function(n) == [n]
            cache[n] = n + 1
        assert lru(999) is last
        assert len(cache) <= 100
        assert cache.get_or_load("new", str) == "new"
        return function.cache_info().currsize <= 100

    assert in_child(check)
    assert cache.get("new") is None
    assert function(1) == [1]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parents_loads():
    loading, go = threading.Event(), threading.Event()
    parent = os.getpid()

    @hotset.cached
    def function(x):
        if os.getpid() == parent:
            loading.set()
            assert go.wait(60)
        return x, os.getpid()

    thread = threading.Thread(target=function, args=(1,))
    thread.start()
    assert loading.wait(60)
    try:
        assert in_child(lambda: function(1) == (1, os.getpid()))
    finally:
        go.set()
        thread.join()
    assert function(1) == (1, parent)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_others_are_at_a_cache():
    function = hotset.cached(maxsize=50)(lambda x: [x])
    lru = hotset.lru_cache(maxsize=50)(lambda x: [x])
    cache = hotset.Cache(maxsize=50, on_removal=lambda *_: None)
    ended = threading.Event()

    def use():
        for n in range(200):
            assert function(n) == lru(n) == [n]
            cache[n] = n
            cache.pop(n - 10, None)

    def work():
        while not ended.is_set():
            use()

    def check():
        use()
        function.cache_clear()
        return function(1) == [1]

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(in_child(check) for _ in range(10))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
