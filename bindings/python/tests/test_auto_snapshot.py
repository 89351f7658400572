"""`cached(snapshot=...)`, `cache_save` and `cache_load`: results that outlive the process."""

import asyncio
import gc
import os
import subprocess
import sys
import warnings
import weakref

import pytest

import hotset
from hotset import _auto_snapshot


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.snapshot"


@pytest.fixture(autouse=True)
def forget():
    """No function of one test is saved when another's ends, or when pytest exits."""
    yield
    _auto_snapshot._auto_snapshotters.clear()


def run(program, *args, status=0):
    """Returns the output of a process of its own, stdout before stderr."""
    program = "import sys, os, hotset\npath = sys.argv[1]\n" + program
    done = subprocess.run([sys.executable, "-c", program, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.split(), done.stderr


SQUARE = """
calls = []
@hotset.cached(snapshot=path)
def square(n):
    calls.append(n)
    return n * n
"""


def test_the_next_process_begins_warm(path):
    program = SQUARE + "print([square(n) for n in range(5)][-1], len(calls), square.cache_info().hits)"
    assert run(program, path) == (["16", "5", "0"], "")
    saved = path.stat().st_mtime_ns
    assert run(program, path) == (["16", "0", "5"], "")
    # Nothing came or went, so nothing was written.
    assert path.stat().st_mtime_ns == saved


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("1 / 0", 1), ("os._exit(4)", 4), ("os.kill(os.getpid(), 15)", -15)])
def test_how_a_process_ends(path, end, status):
    run(SQUARE + "square(1)\n" + end, path, status=status)
    assert path.exists() == (status in (1, 3))


def test_invalidated_value_is_not_restored(path):
    run(SQUARE + "square(1), square(2)", path)
    run(SQUARE + "square.cache_invalidate(1)", path)
    assert run(SQUARE + "square(1), square(2); print(calls)", path)[0] == ["[1]"]
    run(SQUARE + "square.cache_clear()", path)
    assert run(SQUARE + "square(2); print(calls)", path)[0] == ["[2]"]


def test_arguments_of_every_shape(path):
    def make(**settings):
        @hotset.cached(snapshot=path, **settings)
        def function(*args, **kwargs):
            return [*args, kwargs]

        return function

    calls = [((), {}), ((1,), {}), ((1.0,), {}), (((),), {}), (((1, 2),), {}), ((1, 2), {}), (("a", b"b"), {"c": None}), ((), {"d": 1, "c": (2,)})]
    for typed in (False, True):
        _auto_snapshot._auto_snapshotters.clear()
        function = make(typed=typed)
        for args, kwargs in calls:
            function(*args, **kwargs)
        kept = function.cache_info().currsize
        assert function.cache_save() == kept
        function.cache_clear()
        assert function.cache_load() == kept
        for args, kwargs in calls:
            assert function.cache_contains(*args, **kwargs)
            assert function(*args, **kwargs) == [*args, kwargs]
        if typed:
            assert not function.cache_contains(True)
        assert function.cache_info()[:2] == (len(calls), 0)
        path.unlink()


def test_listener_is_notified_of_results_with_cycles(path):
    told = []
    function = hotset.cached(on_removal=lambda *told_of: told.append(told_of))(lambda *args, **kwargs: 1)
    function(1, (2,), a=3)
    function.cache_save(path)
    function.cache_clear()
    function.cache_load(path)
    function.cache_clear()
    assert told == [((1, (2,)), {"a": 3}, 1, "explicit")] * 2


def test_a_key_function(path):
    class Item:
        def __init__(self, number):
            self.number = number

    for key in (lambda item: item.number, lambda item: (item.number, "x")):
        function = hotset.cached(key=key)(lambda item: [item.number])
        function(Item(3))
        assert function.cache_save(path) == 1
        function.cache_clear()
        assert function.cache_load(path) == 1
        assert function.cache_contains(Item(3)) and not function.cache_contains(Item(4))


def test_arguments_that_only_pickle_can_write(path):
    function = hotset.cached(lambda x: [x])
    function(range(3)), function(2)
    with pytest.warns(hotset.SnapshotWarning, match=r"1 of 2 entries .*range\(0, 3\)"):
        assert function.cache_save(path) == 1
    pickled = hotset.cached(codec="pickle")(lambda x: [x])
    pickled(range(3)), pickled(2)
    assert pickled.cache_save(path) == 2
    pickled.cache_clear()
    assert pickled.cache_load(path) == 2 and pickled.cache_contains(range(3))


def test_codec_and_schema_must_match(path):
    def make(name="function", **settings):
        def function(x):
            return b"%d" % x

        function.__qualname__ = name
        return hotset.cached(**settings)(function)

    function = make(codec="bytes", schema=1)
    function(1)
    function.cache_save(path)
    for other in (make(), make(codec="bytes"), make(codec="bytes", schema=2), make(codec="pickle", schema=1), make("other", codec="bytes", schema=1)):
        with pytest.raises(hotset.SnapshotError, match="another codec than .*, another schema, or by another function") as raised:
            other.cache_load(path)
        assert raised.value.reason == "schema"
    assert make(codec="bytes", schema=1).cache_load(path) == 1


def test_an_async_function(path):
    def make():
        @hotset.cached(snapshot=path, ttl=60)
        async def function(x):
            calls.append(x)
            return [x]

        return function

    calls = []
    function = make()
    asyncio.run(function(1))
    assert function.cache_save() == 1
    del function
    again = make()
    assert asyncio.run(again(1)) == [1] and calls == [1]
    again.cache_clear()
    assert again.cache_load() == 1


def test_failures_and_stale_values(path, clock):
    @hotset.cached(ttl=10, negative_ttl=100, stale_if_error=100, timer=clock)
    def function(x):
        if down:
            raise ConnectionError
        return [x, clock.now]

    down = True
    with pytest.raises(ConnectionError):
        function(1)
    down = False
    function(2)
    clock.advance(8)
    assert function.cache_save(path) == 1
    function.cache_clear()
    assert function.cache_load(path) == 1
    # It is as old as it was.
    assert function(2) == [2, 1000]
    clock.advance(3)
    assert function(2) == [2, 1011]
    down = True
    function.cache_load(path)
    assert function(2) == [2, 1011]


def test_methods_have_no_snapshot(path):
    with pytest.raises(TypeError, match="cache a function that"):

        class A:
            @hotset.cached(snapshot=path)
            def method(self):
                pass

    # (3.11 wraps what __set_name__ raises.)
    with pytest.raises((TypeError, RuntimeError)) as raised:

        class B:
            method = hotset.cached(snapshot=path)(lambda this: 1)

    error = raised.value.__cause__ if isinstance(raised.value, RuntimeError) else raised.value
    assert "cache a function that it calls" in str(error)
    for decorate in (property, classmethod):
        with pytest.raises(TypeError, match="snapshot is not possible"):
            hotset.cached(snapshot=path)(decorate(lambda this: 1))
    with pytest.raises(TypeError, match="cache a function that"):
        hotset.cached(snapshot=path, method=True)(lambda this: 1)

    class C:
        @hotset.cached
        def method(self):
            return 1

        @hotset.cached(snapshot=path)
        @staticmethod
        def static(x):
            return x

    C().method()
    for call in (C.method.cache_save, C().method.cache_load):
        with pytest.raises(TypeError, match="cache a function that"):
            call(path)
    assert C.static(3) == 3 and C.static.cache_save() == 1


def test_a_path_is_needed(path):
    function = hotset.cached(lambda x: x)
    for call in (function.cache_save, function.cache_load):
        with pytest.raises(TypeError, match="give a path"):
            call()
        with pytest.raises(TypeError, match="path must be"):
            call(3)
    with pytest.raises(FileNotFoundError):
        function.cache_load(path)


def test_parameters(path):
    function = hotset.cached(snapshot=path, codec="json", schema=3)(lambda x: x)
    told = {"snapshot": str(path), "codec": "json", "schema": 3}
    assert told.items() <= function.cache_parameters().items()
    # Under another cache, each has its own.
    outer = hotset.cached(maxsize=7)(function)
    assert outer.cache_parameters()["snapshot"] is None and outer.cache_parameters()["maxsize"] == 7
    outer(1)
    with pytest.raises(TypeError, match="give a path"):
        outer.cache_save()
    assert function.cache_save() == 1


def test_relative_path_is_resolved_immediately(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    program = "os.chdir(path); path = 'file'" + SQUARE + "square(1); os.chdir('elsewhere')"
    run(program, tmp_path)
    assert (tmp_path / "file").exists()


def test_two_functions_share_no_file(path):
    def make(name):
        def function(x):
            return x

        function.__qualname__ = name
        return hotset.cached(snapshot=path)(function)

    first = make("first")
    with pytest.raises(ValueError, match="already the snapshot of first: give second a path of its own"):
        make("second")
    del first
    gc.collect()
    second = make("second")
    # The same function anew, as in a notebook: that is the one, and saved.
    again = make("second")
    second(1), again(2), again(3)
    _auto_snapshot._save_all()
    again.cache_clear()
    assert again.cache_load() == 2
    # Whether these are the same function cannot be decided.
    for name in ("<lambda>", "make.<locals>.function"):
        path.unlink(missing_ok=True)
        _auto_snapshot._auto_snapshotters.clear()
        one = make(name)
        with pytest.raises(ValueError, match="already"):
            make(name)
        del one


def test_failed_save_at_exit_does_not_stop_others(tmp_path):
    program = """
a = hotset.cached(snapshot=os.path.join(path, "absent", "file"))(lambda x: x)
b = hotset.cached(snapshot=os.path.join(path, "b"))(lambda x: x)
c = hotset.cached(snapshot=os.path.join(path, "absent", "too"))(lambda x: x)
import warnings
warnings.simplefilter("error")
a(1), b(1), c(1)
"""
    told = run(program, tmp_path)[1]
    assert told.count("SnapshotWarning: the snapshot of <lambda> was not saved") == 2
    assert (tmp_path / "b").exists()


def test_a_callable_without_a_name(path):
    for _ in range(2):
        program = "import functools\nf = hotset.cached(snapshot=path)(functools.partial(pow, 2))\nprint(f.cache_contains(5)); f(5)"
        printed, told = run(program, path)
    assert printed == ["True"] and not told


def test_corrupt_snapshot_warns_and_is_replaced(path):
    run(SQUARE + "square(1)", path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    printed, told = run(SQUARE + "square(1); print(calls)", path)
    assert printed == ["[1]"]
    assert "SnapshotWarning: square starts without its snapshot, and the next save replaces it" in told
    assert "<string>:5" in told, "the warning is of where the function is decorated"
    assert run(SQUARE + "square(1); print(calls)", path) == (["[]"], "")


def test_a_file_that_is_no_snapshot_is_not_replaced(path):
    path.write_text("my only copy\n")
    printed, told = run(SQUARE + "square(1); print(calls)", path)
    assert "it will not be replaced" in told and "the file is not a snapshot" in told
    assert path.read_text() == "my only copy\n"
    # An explicit `cache_save()` replaces it.
    run(SQUARE + "square(1); square.cache_save(); square(2)", path)
    assert run(SQUARE + "square(1); square(2); print(calls)", path) == (["[]"], "")


def test_failed_save_at_exit_warns(path):
    program = SQUARE.replace("n * n", "object()") + "square(1)"
    told = run(program, path)[1]
    assert "SnapshotWarning: the snapshot of square was not saved" in told and "none of 1 entries" in told
    assert not path.exists()
    directory = path / "absent" / "file"
    told = run(SQUARE + "square(1)", directory)[1]
    assert "was not saved" in told and "No such file or directory" in told


FORKED = SQUARE + """
square(1)
{before}
child = os.fork()
if child == 0:
    square(2), square(3)
    {ends}
os.waitpid(child, 0)
{after}
"""


@pytest.mark.parametrize(
    ("before", "ends", "after", "kept"),
    [
        ("", "sys.exit()", "", {1, 2, 3}),  # a parent that did nothing since leaves it to its child
        ("", "sys.exit()", "square(4)", {1, 4}),
        ("", "os._exit(0)", "", {1}),  # its child saved nothing
        ("square.cache_save()", "sys.exit()", "", {1, 2, 3}),
        ("square.cache_save()", "os._exit(0)", "", {1}),
        ("os.waitpid(os.fork() or os._exit(0), 0)", "sys.exit()", "square.cache_invalidate(1)", set()),
    ],
)
def test_forks(path, before, ends, after, kept):
    run(FORKED.format(before=before, ends=ends, after=after), path)
    printed, _ = run(SQUARE + "print(*(n for n in range(5) if square.cache_contains(n)))", path)
    assert set(map(int, printed)) == kept


def test_idle_child_does_not_overwrite_the_snapshot(path):
    told, tell = "told, tell = os.pipe()", "os.write(tell, b'.')"
    program = FORKED.replace("square(2), square(3)", "os.read(told, 1)").replace("os.waitpid", f"square(2), square.cache_save(), {tell}\nos.waitpid")
    run(program.format(before=told, ends="sys.exit()", after=""), path)
    printed, _ = run(SQUARE + "print(*(n for n in range(5) if square.cache_contains(n)))", path)
    assert set(map(int, printed)) == {1, 2}


def test_function_is_not_kept_alive(path):
    def function(x):
        return x

    cached = hotset.cached(snapshot=path)(function)
    cached(1)
    reference = weakref.ref(function)
    del cached, function
    gc.collect()
    assert reference() is None
    assert len(_auto_snapshot._auto_snapshotters) == 0
    _auto_snapshot._save_all()
    assert not path.exists()


def test_warning_raises_where_warnings_are_errors(path):
    path.write_bytes(b"nothing of the kind")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(hotset.SnapshotWarning):
            hotset.cached(snapshot=path)(len)
    assert os.listdir(path.parent) == [path.name]
