"""`Cache.save` and `Cache.load`: what is restored, and which code may run concurrently."""

import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import types
import warnings
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotset


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.snapshot"


def filled(count=50, maxsize=100, **settings):
    cache = hotset.Cache(maxsize, **settings)
    for n in range(count):
        cache[n] = {"value": n}
    return cache


def loaded(path, *, codec="values", schema=None, **settings):
    cache = hotset.Cache(**settings)
    cache.load(path, codec=codec, schema=schema)
    return cache


ZIPPED = types.SimpleNamespace(dumps=lambda value: zlib.compress(pickle.dumps(value)), loads=lambda data: pickle.loads(zlib.decompress(data)))


@pytest.mark.parametrize(
    ("codec", "values"),
    [
        ("values", [None, (1, [2.5], {"x"}), {1: b"y"}]),
        ("bytes", [b"", b"\x00" * 100_000]),
        ("json", [[1, {"a": None}], "text"]),
        ("pickle", [Ellipsis, zlib, {1: (2,)}][::2]),
        (ZIPPED, [complex(1, 2), ...]),
    ],
)
def test_each_codec_restores_its_values(path, codec, values):
    cache = hotset.Cache(100)
    for n, value in enumerate(values):
        cache[n] = cache["key", n, None] = value
    count = 2 * len(values)
    assert cache.save(path, codec=codec, schema="x") == count
    again = hotset.Cache(100)
    assert again.load(path, codec=codec, schema="x") == count
    assert dict(again) == dict(cache) and list(again) == list(cache)
    assert [list(map(type, item)) for item in again.items()] == [list(map(type, item)) for item in cache.items()]


@settings(max_examples=25, deadline=None)
@given(entries=st.dictionaries(st.integers() | st.text() | st.tuples(st.integers(), st.binary()), st.lists(st.floats(allow_nan=False)) | st.none()))
def test_any_entries_are_restored(entries, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "file"
    cache = hotset.Cache(1000)
    cache.update(entries)
    assert cache.save(path) == len(entries)
    assert dict(loaded(path)) == entries


def test_hottest_entries_are_restored_first(path):
    cache = hotset.Cache(1000)
    for n in range(1500):
        cache[n] = n
        cache.get(n % 97)
    order = list(cache)
    cache.save(path)
    assert list(loaded(path, maxsize=1000)) == order
    small = hotset.Cache(100)
    small[order[3]] = "newer"
    assert small.load(path) == 99
    assert set(small) == set(order[:100])
    assert small[order[3]] == "newer"
    assert small.stats()[:2] == (1, 0)


def test_load_is_limited_by_the_capacity(path):
    filled(50).save(path)
    full = filled(100)
    before = full.items_hottest()
    assert full.load(path) == 0 and full.items_hottest() == before
    heavy = hotset.Cache(max_weight=30, weigher=lambda key, value: 40 if key % 2 else 10)
    assert heavy.load(path) == 3
    assert heavy.stats().weight == 30 and all(key % 2 == 0 for key in heavy)


def test_ttls_keep_counting_down(path, clock):
    cache = hotset.Cache(10, ttl=100, timer=clock)
    cache["usual"] = 1
    cache.set_with_ttl("short", 2, 20)
    cache.set_with_ttl("ever", 3, None)
    clock.advance(40)
    assert cache.save(path) == 2
    again = loaded(path, maxsize=10, ttl=100, timer=clock)
    assert set(again) == {"usual", "ever"}
    assert 0 < again.remaining("usual") <= 60 and again.remaining("ever") is None
    clock.advance(61)
    assert list(again) == ["ever"]


def test_entries_expired_between_processes_are_not_restored(path):
    cache = hotset.Cache(10)
    cache.set_with_ttl("short", 1, 0.02)
    cache["ever"] = 2
    cache.save(path)
    threading.Event().wait(0.05)
    assert dict(loaded(path)) == {"ever": 2}


def test_entries_that_expire_during_save_or_load(path, clock):
    class Late:
        @staticmethod
        def dumps(value):
            clock.advance(30)
            return b"%d" % value

        @staticmethod
        def loads(data):
            clock.advance(30)
            return int(data)

    cache = hotset.Cache(10, ttl=100, timer=clock)
    for n in range(6):
        cache[n] = n
    assert cache.save(path, codec=Late) == 6
    assert len(cache) == 0
    # Each had 100 seconds when the load began, and it took 180.
    again = hotset.Cache(10, ttl=100, timer=clock)
    assert again.load(path, codec=Late) == 0
    assert len(again) == 0


def test_remembered_failures_are_not_saved(path):
    cache = hotset.Cache(10, negative_ttl=60)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("bad", lambda key: 1 / 0)
    cache["good"] = 1
    assert cache.save(path) == 1
    assert dict(loaded(path)) == {"good": 1}


def test_other_files_are_errors(path, tmp_path):
    cache = filled(3)
    cache.save(path, codec="json", schema=1)
    whole = path.read_bytes()

    def reason(**how):
        with pytest.raises(hotset.SnapshotError) as raised:
            cache.load(path, **how)
        assert str(path) in str(raised.value)
        return raised.value.reason

    for how in ({"codec": "json"}, {"codec": "json", "schema": 2}, {"codec": "json", "schema": "1"}, {"codec": "pickle", "schema": 1}, {}):
        assert reason(**how) == "schema"
    for text in (b"", b"{}", b"PK" + whole, bytes(1000)):
        path.write_bytes(text)
        assert reason() in ("not a snapshot", "corrupt")
    path.write_bytes(b'{"some": "json"}')
    assert reason() == "not a snapshot"
    path.write_bytes(whole[:8] + b"\2" + whole[9:])
    assert reason(codec="json", schema=1) == "version"
    with pytest.raises(hotset.SnapshotError, match="is not a file"):
        cache.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent") as told:
        cache.load(tmp_path / "absent")
    assert type(told.value.filename) is str
    with pytest.raises(FileNotFoundError):
        cache.save(tmp_path / "absent" / "file")
    assert dict(cache) == dict(filled(3))


def test_pipe_or_device_is_neither_replaced_nor_awaited(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for call in (filled(3).save, filled(3).load):
        with pytest.raises(hotset.SnapshotError, match="is not a file") as raised:
            call(pipe)
        assert raised.value.reason == "not a file"
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_damage_is_found(path):
    cache = filled(3)
    cache.save(path)
    whole = path.read_bytes()
    empty = hotset.Cache(100)
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(hotset.SnapshotError):
            empty.load(path)
        path.write_bytes(whole[:at])
        with pytest.raises(hotset.SnapshotError):
            empty.load(path)
    assert len(empty) == 0
    path.write_bytes(whole)
    assert empty.load(path) == 3


def test_undecodable_entry_fails_the_load(path):
    class Fickle:
        bad = 7

        @staticmethod
        def dumps(value):
            return b"%d" % value

        @classmethod
        def loads(cls, data):
            if int(data) == cls.bad:
                raise OSError("no")
            return int(data)

    cache = hotset.Cache(100)
    cache.update({n: n for n in range(20)})
    cache.save(path, codec=Fickle)
    again = hotset.Cache(100)
    with pytest.raises(hotset.SnapshotError, match="cannot decode an entry: OSError: no") as raised:
        again.load(path, codec=Fickle)
    assert raised.value.reason == "codec" and isinstance(raised.value.__cause__, OSError)
    assert len(again) == 0
    Fickle.bad = None
    assert again.load(path, codec=Fickle) == 20


def test_unencodable_keys_are_left_out(path):
    """A file with the right checksums, but of other content."""
    native = hotset.Cache(10)
    schema = hotset._codecs.codec_of("values").number(None)
    value = hotset._hotset.dumps(1)
    for key in (hotset._hotset.dumps([1]), b"", b"\xff", hotset._hotset.dumps({})):
        cache = hotset.Cache(10)
        cache["x"] = 1
        saving = cache.save_session(str(path), schema)
        assert len(saving.batch()) == 1
        saving.add(0, key, value)
        assert saving.finish() == 1
        with pytest.raises(hotset.SnapshotError, match="cannot decode an entry"):
            native.load(path)
    assert len(native) == 0


def test_unencodable_entries_are_left_out(path):
    cache = filled(5)
    cache["odd"] = object()
    cache[frozenset, 1] = 2
    with pytest.warns(hotset.SnapshotWarning, match=r"2 of 7 entries were left out; the first: .* has no ") as told:
        assert cache.save(path) == 5
    assert told[0].filename == __file__
    assert set(loaded(path)) == set(range(5))
    # If it can encode none, the previous file stays.
    whole = path.read_bytes()
    with pytest.raises(hotset.SnapshotError, match="none of 7 entries") as raised:
        cache.save(path, codec="bytes")
    assert raised.value.reason == "codec" and isinstance(raised.value.__cause__, TypeError)
    assert path.read_bytes() == whole and os.listdir(path.parent) == [path.name]
    # Nothing to be written is no failure.
    assert hotset.Cache(10).save(path) == 0
    assert len(loaded(path)) == 0


def test_interrupted_save_leaves_the_previous_file(path):
    filled(3).save(path)
    whole = path.read_bytes()

    class Stopped:
        loads = bytes

        @staticmethod
        def dumps(value):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled(3).save(path, codec=Stopped)
    assert path.read_bytes() == whole and os.listdir(path.parent) == [path.name]


def test_pickle_writable_by_others_warns(path):
    filled(3).save(path, codec="pickle")
    assert path.stat().st_mode & 0o777 == 0o600
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(path, codec="pickle")
    path.chmod(0o620)
    with pytest.warns(hotset.SnapshotWarning, match="other users may write this pickle") as told:
        hotset.Cache(10).load(path, codec="pickle")
    assert told[0].filename == __file__


class Key:
    """One that uses the cache whenever it is hashed, compared or pickled."""

    cache = None
    fails = False

    def __init__(self, number):
        self.number = number

    def use(self):
        if Key.fails:
            raise RuntimeError("no")
        cache, Key.cache = Key.cache, None
        if cache is not None:
            cache[self.number + 1000] = 1
            cache.pop(self.number, None)
            cache.get(-1)
            cache.run_pending()
            Key.cache = cache

    def __hash__(self):
        self.use()
        return hash(self.number)

    def __eq__(self, other):
        self.use()
        return isinstance(other, Key) and self.number == other.number

    def __reduce__(self):
        self.use()
        return Key, (self.number,)


def test_keys_use_the_cache_during_save_and_load(path):
    cache = hotset.Cache(2000)
    for n in range(300):
        cache[Key(n)] = Key(n)
    Key.cache = cache
    try:
        assert cache.save(path, codec="pickle") > 0
        Key.cache = again = hotset.Cache(2000)
        again[Key(5)] = "newer"
        count = again.load(path, codec="pickle")
    finally:
        Key.cache = None
    assert 250 < count <= 300
    assert again[Key(5)] == "newer"
    assert again[Key(7)] == Key(7)


def test_keys_that_raise_while_they_are_loaded(path):
    cache = hotset.Cache(100)
    for n in range(10):
        cache[Key(n)] = n
    cache.save(path, codec="pickle")
    again = hotset.Cache(100)
    again[Key(3)] = 3
    Key.fails = True
    try:
        with pytest.raises(hotset.SnapshotError, match="RuntimeError: no"):
            again.load(path, codec="pickle")
    finally:
        Key.fails = False
    assert len(again) == 1
    assert again.load(path, codec="pickle") == 9


def test_a_codec_that_saves_and_loads(path):
    """In the middle of another save, and of another load."""
    cache = filled(300, maxsize=1000)

    class Nested:
        calls = 0

        @classmethod
        def dumps(cls, value):
            cls.calls += 1
            if cls.calls % 100 == 1:
                cache.save(path.with_name(f"inner-{cls.calls}"))
                cache.clear()
            return hotset._hotset.dumps(value)

        @classmethod
        def loads(cls, data):
            cache.load(path.with_name("inner-1"))
            return hotset._hotset.loads(data)

    assert cache.save(path, codec=Nested) >= 256
    assert cache.load(path, codec=Nested) == 0  # the inner load was faster
    assert len(cache) == 300


def test_threads_use_the_cache_during_save(path):
    cache = hotset.Cache(2000)
    cache.update({n: [n] for n in range(2000)})
    stop = threading.Event()
    errors = []

    def work(seed):
        try:
            for n in itertools.count(seed):
                if stop.is_set():
                    return
                cache[n % 3000] = [n % 3000]
                cache.pop((n * 7) % 3000, None)
                assert cache.get(n % 2000, [n % 2000]) == [n % 2000]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 1500)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert cache.save(path) > 500
            again = loaded(path, maxsize=3000)
            assert len(again) > 500 and all(value == [key] for key, value in again.items())
            again.load(path)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not errors


def test_two_threads_that_save_to_one_path(path):
    caches = [filled(200, maxsize=300), filled(100, maxsize=300)]
    threads = [threading.Thread(target=lambda cache=cache: [cache.save(path) for _ in range(5)]) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded(path)) in (100, 200)
    assert os.listdir(path.parent) == [path.name]


def test_steps_are_for_one_thread_and_in_order(path):
    cache = filled(3)
    saving = cache.save_session(str(path), 0)
    with pytest.raises(IndexError):
        saving.add(0, b"", b"")
    with pytest.raises(RuntimeError, match="has ended"):
        saving.batch()
    assert not path.exists() and os.listdir(path.parent) == []
    saving = cache.save_session(str(path), 0)
    saving.batch()
    saving.finish()
    with pytest.raises(RuntimeError, match="has ended"):
        saving.finish()
    saving = cache.save_session(str(path), 0)
    saving.batch()
    saving.add(1, b"key", b"value")
    with pytest.raises(IndexError, match="it was added"):
        saving.add(1, b"key", b"value")
    with pytest.raises(TypeError):
        hotset._hotset.SaveSession()
    with pytest.raises(TypeError):
        hotset._hotset.LoadSession()


def test_nothing_is_leaked(path):
    leaf = ("leaf",)
    cache = hotset.Cache(10)
    cache["a"] = cache[leaf] = leaf
    cache.save(path, codec="pickle")
    again = hotset.Cache(10)
    again[leaf] = leaf
    cache["never"] = Ellipsis

    def rounds():
        for _ in range(50):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cache.save(path.with_name("other"))
            again.load(path, codec="pickle")
            saving, loading = cache.save_session(str(path.with_name("other")), 0), None
            saving.batch()
            loading = hotset.Cache(10).load_session(str(path), hotset._codecs.PICKLE.number(None))
            for _ in loading:
                loading.stage(leaf + (1,), leaf)
            with pytest.raises(hotset.SnapshotError):
                again.load(path)
        del saving, loading
        gc.collect()

    rounds()
    before = sys.getrefcount(leaf), sys.getrefcount(cache), sys.getrefcount(again)
    rounds()
    assert (sys.getrefcount(leaf), sys.getrefcount(cache), sys.getrefcount(again)) == before


KILLED = """
import sys, hotset
cache = hotset.Cache(100_000)
cache.update({n: "x" * 20 for n in range(20_000)})
print("ready", flush=True)
while True:
    cache.save(sys.argv[1])
    print("saved", flush=True)
"""


def test_process_killed_during_save_leaves_a_whole_file(path):
    for delay in (0.0, 0.003, 0.01, 0.03):
        child = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        if path.exists() or child.stdout.readline() == "saved\n":
            threading.Event().wait(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert len(loaded(path, maxsize=100_000)) == 20_000
    # The next save removes the files that killed processes have left.
    filled(1).save(path)
    assert os.listdir(path.parent) == [path.name]
