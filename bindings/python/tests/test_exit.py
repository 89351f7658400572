"""Interpreter exit while other threads are inside a cache: the process exits as with functools."""

import subprocess
import sys
import textwrap

import pytest

# A daemon thread that loops in `work` is inside a call at almost any instant, and has been there
# often when the process ends. The main thread polls, since `spin` must be reentrant, which
# `Event.set` is not: a free-threaded interpreter runs the destructor of an object that another
# thread released between any two instructions of the thread that created the object.
LOOP = """
import hotset, threading, time

calls = 0

def spin():
    global calls
    calls += 1
    for _ in range(2000):
        pass
    return 1

{setup}

def run():
    n = 0
    while True:
        work(n)
        n += 1

for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
while calls <= 100:
    time.sleep(0.001)
"""

WORK = {
    "cached": "f = hotset.cached(maxsize=10)(lambda x: spin())\nwork = f",
    "cached, two arguments": "f = hotset.cached(maxsize=10)(lambda x, y: spin())\ndef work(n): f(n, 1)",
    "cached, key": "f = hotset.cached(maxsize=10, key=lambda x: spin() + x)(lambda x: 1)\nwork = f",
    "cached, timer": "f = hotset.cached(maxsize=10, ttl=5, timer=lambda: spin())(lambda x: 1)\nwork = f",
    "cached, raising": """
        @hotset.cached(negative_ttl=60)
        def f(x):
            spin()
            raise ValueError
        def work(n):
            try: f(n), f(n)
            except ValueError: pass
        """,
    "cached method": """
        class Shop:
            @hotset.cached
            def total(self, n): return spin()
        shop = Shop()
        work = shop.total
        """,
    "lru_cache": "work = hotset.lru_cache(maxsize=10)(lambda x: spin())",
    "get_or_load": "c = hotset.Cache(10)\ndef work(n): c.get_or_load(n, lambda k: spin())",
    "compute": "c = hotset.Cache(10)\ndef work(n): c.compute(n, lambda v: spin())",
    "on_removal": "c = hotset.Cache(2, on_removal=lambda *a: spin())\ndef work(n): c[n] = n",
    "weigher": "c = hotset.Cache(weigher=lambda k, v: spin(), max_weight=3)\ndef work(n): c[n] = n",
    "__eq__": """
        class Key:
            def __hash__(self): return 1
            def __eq__(self, other): spin(); return self is other
        c = hotset.Cache(20)
        def work(n): c[Key()] = 1
        """,
    "__del__": """
        class Value:
            def __del__(self): spin()
        c = hotset.Cache(2)
        def work(n): c[n] = Value()
        """,
    "save": """
        import os, tempfile
        path = os.path.join(tempfile.mkdtemp(), "snapshot")
        c = hotset.Cache(9999)
        for n in range(999): c[n] = "x" * 999
        def work(n):
            c.save(path)
            for _ in range(101): spin()
        """,
    "reload threads": """
        @hotset.cached(ttl=1e-6, stale_while_revalidate=1e6)
        def work(n): return spin()
        one = work
        def work(n): one(n % 50)
        """,
    "async def": """
        import asyncio
        f = hotset.cached(maxsize=10)
        @f
        async def load(n):
            await asyncio.sleep(0)
            return spin()
        def work(n):
            asyncio.run(load(n))
        """,
}


def exits(code: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, (ended.returncode, ended.stderr[-2000:])
    return ended


@pytest.mark.parametrize("work", WORK)
def test_daemon_thread_in_a_call_does_not_abort_exit(work):
    for _ in range(3):
        exits(LOOP.format(setup=textwrap.dedent(WORK[work])))


def test_waiting_daemon_thread_does_not_abort_the_exit():
    exits("""
import hotset, threading, time

inside = threading.Event()
never = threading.Event()

@hotset.cached
def f(x):
    inside.set()
    never.wait()

for _ in range(3):
    threading.Thread(target=f, args=(1,), daemon=True).start()
inside.wait()
while f.cache_info().waits < 2:
    time.sleep(0.001)
""")


def test_exit_code_does_not_wait_for_a_dead_thread():
    ended = exits("""
import hotset, os, sys, threading

inside = threading.Event()
cache = hotset.Cache(10)
main = threading.main_thread()

@hotset.cached
def f(x, current=threading.current_thread):
    if current() is not main:
        inside.set()
        while True:
            pass
    return "loaded"

class Output:
    # (Python flushes it when other threads do not run any more.)
    def flush(self):
        if sys.is_finalizing():
            os.write(1, f"{f(1)} {cache.get_or_load(1, lambda key: 2)}".encode())

def leave():
    f(1)

threading.Thread(target=leave, daemon=True).start()
inside.wait()
inside = threading.Event()
threading.Thread(target=cache.get_or_load, args=(1, lambda key: f(2)), daemon=True).start()
inside.wait()
sys.stdout = Output()
""")
    assert ended.stdout.startswith("loaded 2")


def test_reload_threads_outlive_non_daemon_threads():
    ended = exits("""
import hotset, threading, time

now = [0.0]

@hotset.cached(ttl=10, stale_while_revalidate=1e9, timer=lambda: now[0])
def f(x):
    return now[0]

def late():
    threading.main_thread().join()
    f(1)
    now[0] = 20.0
    while f(1) != 20.0:
        time.sleep(0.001)
    print("reloaded")

threading.Thread(target=late).start()
""")
    assert ended.stdout == "reloaded\n"


def test_reload_that_hangs_does_not_keep_the_process():
    exits("""
import hotset, threading

now, inside = [0.0], threading.Event()

@hotset.cached(ttl=10, stale_while_revalidate=1e9, timer=lambda: now[0])
def f(x):
    if now[0]:
        inside.set()
        threading.Event().wait()

f(1)
now[0] = 20.0
f(1)
inside.wait()
""")


def test_flask_server_with_threads_exits_on_an_interrupt():
    pytest.importorskip("flask")
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            """
import _thread, flask, hotset, socket, threading
from werkzeug.serving import make_server

app = flask.Flask("app")
inside = threading.Event()

@hotset.cached(ttl=60)
def slow(x):
    inside.set()
    while True:
        pass

@app.get("/")
def index():
    return str(slow(1))

server = make_server("127.0.0.1", 0, app, threaded=True)
server.daemon_threads = True

def client():
    with socket.create_connection(server.server_address) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        inside.wait()
        _thread.interrupt_main()
        connection.recv(1)

threading.Thread(target=client, daemon=True).start()
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
""",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr[-2000:])
