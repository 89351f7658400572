"""The threads that reload for `stale_while_revalidate`."""

import asyncio
import logging
import threading

import pytest

import hotset
from hotset import _hotset
from hotset._refresh import Reloader, reloader


class Source:
    """A function to be cached, whose calls for some keys hang until they are released."""

    def __init__(self, clock, pool):
        self.clock, self.go, self.hung, self.calls = clock, threading.Event(), set(), []
        self.cached = _hotset.Memo(self.load, maxsize=None, ttl=10, stale_while_revalidate=10**9, refresher=pool, timer=clock)

    def load(self, key):
        self.calls.append((key, threading.current_thread()))
        if key in self.hung and self.clock.now > 1000:
            self.go.wait()
        return self.clock.now

    def until_fresh(self, *keys):
        while any(self.cached(key) != self.clock.now for key in keys):
            pass


@pytest.fixture
def source(clock):
    sources = []

    def make(pool):
        sources.append(Source(clock, pool))
        return sources[-1]

    yield make
    for source in sources:
        source.go.set()


def test_reloads_that_hang_do_not_stop_the_others(clock, source):
    pool = Reloader(size=2, patience=0.0)
    one = source(pool)
    one.hung = {0, 1}
    for key in range(20):
        one.cached(key)
    clock.advance(20)
    for key in range(20):
        one.cached(key)
    one.until_fresh(*range(2, 20))
    assert one.cached(0) == one.cached(1) == clock.now - 20
    one.go.set()
    one.until_fresh(0, 1)
    pool.stop()


def test_caller_reloads_when_all_threads_hang(clock, source):
    pool = Reloader(size=1, patience=0.0, most=2)
    one = source(pool)
    one.hung = {0, 1}
    for key in range(4):
        one.cached(key)
    clock.advance(20)
    one.cached(0)
    one.cached(1)
    while len(pool._running) < 2:
        pass
    assert one.cached(2) == clock.now and one.calls[-1] == (2, threading.current_thread())
    one.go.set()
    one.until_fresh(0, 1, 3)
    pool.stop()


def test_threads_that_were_added_end(clock, source):
    pool = Reloader(size=1, patience=0.0)
    one = source(pool)
    one.hung = {0, 1, 2}
    for key in range(5):
        one.cached(key)
    clock.advance(20)
    for key in range(5):
        one.cached(key)
    one.until_fresh(3, 4)
    assert len(pool._threads) >= 3
    one.go.set()
    one.until_fresh(0, 1, 2)
    while len(pool._threads) > 1:
        pass
    pool.stop()


def test_stopped_pool_returns_old_results(clock, source):
    pool = Reloader(size=1)
    one = source(pool)
    one.cached(1)
    clock.advance(20)
    pool.stop()
    assert [one.cached(1) for _ in range(3)] == [clock.now - 20] * 3
    assert not pool._threads and not pool._queue


def test_reload_that_is_dropped_is_due_again(clock, source):
    kept = []
    one = source(lambda reload: kept.append(reload) or True)
    one.cached(1)
    clock.advance(20)
    assert one.cached(1) == one.cached(1) == clock.now - 20 and len(kept) == 1
    kept.clear()
    one.cached(1)
    assert len(kept) == 1
    kept[0].abandon()
    one.cached(1)
    assert len(kept) == 2
    kept[1].run()
    assert one.cached(1) == clock.now
    with pytest.raises(RuntimeError):
        kept[1].run()


def test_reload_whose_timer_raises_is_due_again(clock):
    broken, kept = [], []

    def timer():
        if broken:
            raise OSError(broken.pop())
        return clock.now

    function = _hotset.Memo(
        lambda x: clock.now,
        ttl=10,
        stale_while_revalidate=10**9,
        refresher=lambda reload: kept.append(reload) or True,
        timer=timer,
    )
    function(1)
    clock.advance(20)
    function(1)
    broken.append("clock")
    with pytest.raises(OSError):
        kept.pop().run()
    clock.advance(20)
    function(1)
    kept.pop().run()
    assert function(1) == clock.now


def test_log_filter_that_raises_costs_a_log_record_only(clock, source, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    class Filter(logging.Filter):
        def filter(self, record):
            raise OSError("filter")

    pool = Reloader(size=2)
    one, failing = source(pool), [True]
    load = one.load

    def sometimes(key):
        if failing and clock.now > 1000:
            raise ValueError
        return load(key)

    one.cached = _hotset.Memo(sometimes, ttl=10, stale_while_revalidate=10**9, refresher=pool, timer=clock)
    log, raising = logging.getLogger("hotset"), Filter()
    for key in range(8):
        one.cached(key)
    clock.advance(20)
    log.addFilter(raising)
    try:
        for key in range(8):
            one.cached(key)
        while len(reported) < 8:
            pass
    finally:
        log.removeFilter(raising)
    assert {told.exc_type for told in reported} == {OSError}
    failing.clear()
    clock.advance(20)
    one.until_fresh(*range(8))
    pool.stop()


def test_interrupt_while_queueing_a_reload_propagates(clock):
    def refresher(reload):
        raise KeyboardInterrupt

    function = _hotset.Memo(lambda x: clock.now, ttl=10, stale_while_revalidate=10**9, refresher=refresher, timer=clock)
    function(1)
    clock.advance(20)
    with pytest.raises(KeyboardInterrupt):
        function(1)
    # It is due again.
    with pytest.raises(KeyboardInterrupt):
        function(1)


def test_number_of_threads_can_be_set():
    before = reloader.size
    try:
        hotset.set_reload_threads(7)
        assert reloader.size == 7
        for count, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("4", TypeError)):
            with pytest.raises(error):
                hotset.set_reload_threads(count)
        assert reloader.size == 7
    finally:
        hotset.set_reload_threads(before)


def test_more_threads_run_queued_reloads(clock, source):
    pool = Reloader(size=1, patience=10**6)
    one = source(pool)
    one.hung = {0}
    for key in range(3):
        one.cached(key)
    clock.advance(20)
    one.cached(0)
    while not pool._running:
        pass
    one.cached(1)
    pool.resize(2)
    one.until_fresh(1)
    one.go.set()
    one.until_fresh(0, 2)
    pool.stop()


def test_failed_async_reload_is_logged(clock, caplog):
    @hotset.cached(ttl=10, stale_while_revalidate=10**6, timer=clock)
    async def function(x):
        if clock.now > 1000:
            raise ValueError("source is down")
        return x

    async def main():
        await function(1)
        clock.advance(20)
        assert await function(1) == 1
        while not caplog.records:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert [record.name for record in caplog.records] == ["hotset"]
