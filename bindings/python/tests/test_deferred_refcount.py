"""Deferred reference counting of module-level functions on a free-threaded interpreter.

References to the wrapper are not counted where those to the function are not.
"""

import subprocess
import sys

import pytest

# In a process of its own, where no thread has begun yet.
PROGRAM = """
import gc, sys, threading, weakref
import hotset

def plain(x):
    return x

@hotset.cached
def memo(x):
    return x

@hotset.lru_cache
def lru(x):
    return x

def is_immortal(thing):
    return sys.getrefcount(thing) == sys.getrefcount(None)

def is_freed(things):
    gone = weakref.ref(things.pop())
    gc.collect()
    return gone() is None

def check():
    cached = hotset.cached, hotset.cached(maxsize=10, ttl=5)
    for decorator in (*cached, hotset.lru_cache(maxsize=10), hotset.cache):
        made = [decorator(plain), decorator(lambda x: x)]
        assert [function(1) for function in made] == [1, 1]
        assert is_freed(made) and is_freed(made)

check()
assert not is_immortal(memo) and not is_immortal(lru)
thread = threading.Thread(target=int)
thread.start()
thread.join()
# CPython 3.13 has made its own immortal by now. What is made later is freed as before.
assert is_immortal(plain) and is_immortal(memo) and is_immortal(lru)
assert memo(1) == lru(1) == 1
check()
"""


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)() or sys.version_info >= (3, 14), reason="only CPython 3.13 without the GIL does this"
)
def test_functions_of_a_module_are_unchanged():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
