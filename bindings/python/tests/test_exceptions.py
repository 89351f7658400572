"""Exceptions that several callers raise, or that are cached: each raise has a copy of its own."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import traceback
import weakref

import pytest

import hotset


class Request:
    """What a caller must not keep alive."""


def names(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def caught(call, *args):
    try:
        call(*args)
    except Exception as error:
        return error
    raise AssertionError("raised nothing")


class Plain(Exception):
    pass


class WithInit(Exception):
    """Its arguments are not those of `__init__`."""

    def __init__(self, code, *, reason):
        super().__init__(f"failed with {code}")
        self.code, self.reason = code, reason


class Slots(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__()
        self.code = code


class Immutable(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.__dict__["code"] = code

    def __setattr__(self, name, value):
        if name not in ("__traceback__", "__context__", "__cause__", "__suppress_context__"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Reduced(Exception):
    def __init__(self, code):
        super().__init__("text", code)
        self.code = code

    def __reduce__(self):
        return Reduced, (self.code,)


class Refusing(Exception):
    def __reduce__(self):
        raise TypeError("cannot be copied")


def decode_error():
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error


def json_error():
    try:
        json.loads("{")
    except ValueError as error:
        return error


ERRORS = {
    "plain": lambda: Plain(1, "two"),
    "init": lambda: WithInit(5, reason="rain"),
    "slots": lambda: Slots(7),
    "immutable": lambda: Immutable(8),
    "reduced": lambda: Reduced(9),
    "KeyError": lambda: KeyError("key"),
    "OSError": lambda: OSError(2, "no such file", "/nowhere", None, "/elsewhere"),
    "ImportError": lambda: ImportError("none", name="module", path="/there"),
    "UnicodeDecodeError": decode_error,
    "JSONDecodeError": json_error,
    "SyntaxError": lambda: SyntaxError("bad", ("file.py", 3, 4, "text")),
    "AttributeError": lambda: AttributeError("none", name="attribute"),
    "StopIteration": lambda: StopIteration(3),
    "group": lambda: ExceptionGroup("several", [ValueError(1), ExceptionGroup("nested", [KeyError(2)])]),
}


def shape(error):
    """Returns everything that distinguishes one exception from another, except its traceback."""
    attributes = {name: getattr(error, name, None) for name in dir(error) if not name.startswith("__") and name not in ("exceptions", "obj")}
    attributes = {name: value for name, value in attributes.items() if not callable(value)}
    members = [shape(member) for member in getattr(error, "exceptions", ())]
    args = [arg for arg in error.args if not isinstance(arg, list)]
    attributes.pop("args", None)
    return type(error), str(error), repr(args), repr(attributes), getattr(error, "__notes__", None), members


@pytest.mark.parametrize("kind", ERRORS)
def test_cached_exception_is_copied_for_each_raise(kind):
    @hotset.cached(negative_ttl=60)
    def function():
        raise ERRORS[kind]()

    errors = [caught(function) for _ in range(3)]
    assert len({id(error) for error in errors}) == 3
    assert function.cache_info().load_failures == 1
    assert [shape(error) for error in errors] == [shape(ERRORS[kind]())] * 3
    assert all("function" in names(error) for error in errors)


def test_cached_exception_keeps_no_frame_alive():
    @hotset.cached(negative_ttl=60)
    def function(x):
        local = Request()
        alive.append(weakref.ref(local))
        try:
            raise KeyError(1)
        except KeyError as error:
            inner = ValueError(error)
            inner.other = error
            raise inner from OSError()

    def view():
        request = Request()
        alive.append(weakref.ref(request))
        try:
            function(1)
        except ValueError as error:
            error.add_note("mine")
            raise TypeError from error

    alive = []
    for _ in range(3):
        assert isinstance(caught(view), TypeError)
    gc.collect()
    assert len(alive) == 4 and not any(reference() for reference in alive)
    error = caught(function, 1)
    assert isinstance(error.__cause__, OSError) and isinstance(error.__context__, KeyError)
    assert error.args[0] is error.other is error.__context__
    assert not hasattr(error, "__notes__") and function.cache_info().load_failures == 1


def test_context_of_one_caller_does_not_reach_the_next():
    @hotset.cached(negative_ttl=60)
    def function(x):
        try:
            raise KeyError("loader's")
        except KeyError:
            raise ValueError

    def call_while_handling(handled):
        try:
            raise handled
        except Exception:
            return caught(function, 1)

    def contexts(error):
        found = []
        while error := error.__context__:
            found.append(str(error))
        return found

    for n in range(3):
        assert contexts(call_while_handling(OSError(str(n)))) == ["\"loader's\"", str(n)]
    assert len(contexts(caught(function, 1))) == 1


def test_notes_of_one_caller_do_not_reach_the_next():
    @hotset.cached(negative_ttl=60)
    def function(x):
        error = ValueError()
        error.add_note("loader's")
        raise error

    for n in range(3):
        error = caught(function, 1)
        assert error.__notes__ == ["loader's"]
        error.add_note(f"caller {n}")


def test_exception_group_is_whole_for_the_next_caller():
    @hotset.cached(negative_ttl=60)
    def function(x):
        raise ExceptionGroup("several", [ValueError(1), KeyError(2)])

    for _ in range(3):
        try:
            function(1)
        except* ValueError as group:
            assert len(group.exceptions) == 1
            group.exceptions[0].add_note("mine")
            noted = group.exceptions[0]
        except* KeyError:
            pass
        assert noted.__notes__ == ["mine"]


def test_uncopyable_exception_is_not_cached():
    calls = []

    @hotset.cached(negative_ttl=60)
    def function(x):
        calls.append(x)
        raise Refusing(len(calls))

    assert [caught(function, 1).args for _ in range(3)] == [(1,), (2,), (3,)]


def test_long_chain_of_contexts_is_remembered_in_part():
    @hotset.cached(negative_ttl=60)
    def function(x):
        error = None
        for n in range(1000):
            following = ValueError(n)
            following.__context__ = error
            error = following
        raise error

    caught(function, 1)
    assert caught(function, 1).args == (999,)


def test_deep_traceback_is_remembered_in_part():
    @hotset.cached(negative_ttl=60)
    def function(n):
        deeper(n)

    def deeper(n):
        if n == 0:
            raise ValueError
        deeper(n - 1)

    caught(function, 500)
    frames = names(caught(function, 500))
    assert frames.count("function") == 1 and 10 < frames.count("deeper") < 100


def test_remembered_traceback_shows_the_lines():
    code = """
import hotset

@hotset.cached(negative_ttl=60)
def load(x):
    return deeper(x)

def deeper(x):
    raise ValueError("source is down")

try:
    load(1)
except ValueError:
    pass
load(1)
"""
    ended = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True)
    assert ended.returncode == 1 and "ValueError: source is down" in ended.stderr, ended
    assert "line 6, in load" in ended.stderr and "line 9, in deeper" in ended.stderr


def test_locals_of_a_cached_traceback_are_readable():
    value = 3

    @hotset.cached(negative_ttl=60)
    def function(x):
        raise ValueError(value)

    caught(function, 1)
    error = caught(function, 1)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert "function" in "".join(shown.format())


def test_waiting_threads_have_an_exception_each():
    inside = threading.Event()

    @hotset.cached
    def load(key):
        inside.set()
        while load.cache_info().waits < 7:
            pass
        raise ValueError("source is down")

    def wait(n):
        try:
            try:
                raise OSError(n)
            except OSError:
                load(1)
        except ValueError as error:
            error.add_note(str(n))
            errors.append(error)

    errors = []
    threads = [threading.Thread(target=wait, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(error) for error in errors}) == 8
    assert all(names(error) == ["wait", "load"] for error in errors)
    assert all(error.__notes__ == [str(error.__context__.args[0])] for error in errors)


def test_waiting_tasks_have_an_exception_each():
    @hotset.cached
    async def load(key):
        while load.cache_info().waits < 19:
            await asyncio.sleep(0)
        raise ValueError("source is down")

    async def wait():
        try:
            await load(1)
        except ValueError as error:
            return error

    async def main():
        return await asyncio.gather(*(wait() for _ in range(20)))

    errors = asyncio.run(main())
    assert len({id(error) for error in errors}) == 20
    assert all(names(error).count("wait") == 1 and names(error)[-1] == "load" for error in errors)
    assert max(len(names(error)) for error in errors) < 10


def test_waiters_of_an_uncopyable_exception_load():
    calls = []

    @hotset.cached
    async def load(key):
        calls.append(key)
        while not load.cache_info().waits:
            await asyncio.sleep(0)
        raise Refusing(len(calls))

    async def main():
        return await asyncio.gather(load(1), load(1), return_exceptions=True)

    assert sorted(error.args for error in asyncio.run(main())) == [(1,), (2,)]


def test_failed_loads_leave_nothing_behind():
    @hotset.cached
    async def load(key):
        raise ValueError

    async def main():
        request = Request()
        alive.append(weakref.ref(request))
        try:
            await load(1)
        except ValueError:
            pass

    alive = []
    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        assert not alive[0]()
    finally:
        gc.enable()
