"""The advisor: what it finds in programs, and that programs behave as without it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import hotset

ADVISE = [sys.executable, "-m", "hotset", "advise"]
TREE = str(Path(hotset.__file__).parents[1])


@pytest.fixture
def program(tmp_path):
    """Writes a program, and returns its path."""

    def write(text, name="program.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def start(*command, **more):
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def run(*command, **more):
    process = start(*command, **more)
    out, err = process.communicate()
    return process.returncode, out, err


def advise(*arguments, **more):
    return run(*ADVISE, *arguments, **more)


def figures(path, *arguments, **more):
    """Returns the findings of a program by function, and what the command printed."""
    json_file = path.with_suffix(".json")
    code, out, err = advise("--json", json_file, *arguments, path, **more)
    found = json.loads(json_file.read_text())
    return {finding["function"]: finding for finding in found["findings"]}, (code, out, err)


SHOP = """
import time
def price(item, currency="EUR"):
    time.sleep(0.0005)
    return len(item), currency
class Shop:
    def total(self, month):
        time.sleep(0.0005)
        return month * 3
def different(n):
    time.sleep(0.0005)
    return time.perf_counter() + n
def items(n):
    time.sleep(0.0005)
    return [n]
def given(values):
    time.sleep(0.0005)
    return len(values)
def grow(values):
    time.sleep(0.0005)
    values.append(1)
    return len(values)
def log(text):
    time.sleep(0.0005)
def cheap(n):
    return n
def numbers(n):
    yield n
def once(n):
    time.sleep(0.0001)
    return n
def failing(n):
    if n % 2:
        raise ValueError(n)
    return n
def outer():
    def inner(n):
        time.sleep(0.0001)
        return n
    return [inner(n % 5) for n in range(200)]
async def load(n):
    import asyncio
    await asyncio.sleep(0.002)
    return n
def main():
    import asyncio
    shop, other = Shop(), Shop()
    for n in range(100):
        price("tea" * (n % 7), currency="USD")
        (shop if n % 2 else other).total(n % 4)
        different(n % 3)
        items(n % 5).append(n)
        given([n % 5])
        grow([])
        log("text")
        cheap(n % 2)
        list(numbers(n))
        once(n)
        try:
            failing(n % 6)
        except ValueError:
            pass
    for n in range(3000):
        cheap(n % 2)
    outer()
    async def all():
        await asyncio.gather(*(load(n % 4) for n in range(100)))
    asyncio.run(all())
main()
print("done")
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop") / "shop.py"
    path.write_text(SHOP)
    return figures(path, "--svg", path.with_suffix(".svg"), "--text", path.with_suffix(".txt")), path


def test_advice_names_candidates_with_their_lines(shop):
    (found, (code, out, err)), path = shop
    assert (code, out, err) == (0, "done\n", "")
    assert found["price"]["verdict"] == "cache"
    assert found["price"]["decorator"] == "@hotset.cached(maxsize=16)"
    assert (found["price"]["calls"], found["price"]["distinct"]) == (100, 7)
    # 93 calls were repeated, and each slept for half a millisecond or, on a busy machine, longer.
    assert 0.04 < found["price"]["saved"] < found["price"]["time"]
    text = path.with_suffix(".txt").read_text()
    assert "price (" in text and "@hotset.cached(maxsize=16)" in text


def test_method_advice_counts_instances(shop):
    (found, _), _ = shop
    total = found["Shop.total"]
    assert (total["kind"], total["instances"], total["alive"], total["distinct"]) == ("method", 2, 0, 4)
    assert total["decorator"] == "@hotset.cached"


def test_coroutine_advice_is_positive(shop):
    (found, _), _ = shop
    assert found["load"]["kind"] == "coroutine"
    assert found["load"]["decorator"] == "@hotset.cached(maxsize=16)"
    assert found["load"]["own"] is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("different", "equal arguments gave different results"),
        ("items", "callers changed"),
        ("given", "class list cannot be hashed"),
        ("grow", "it changed an argument in 100 calls"),
        ("log", "always returned None"),
        # (Which one depends on how busy the machine is.)
        ("cheap", "too cheap: |little to save: "),
        ("numbers", "a generator can be iterated only once"),
        ("once", "no arguments were repeated"),
        ("outer.<locals>.inner", "defined within a function"),
        ("main", "no arguments were repeated"),
    ],
)
def test_reason_against_is_given(shop, name, reason):
    (found, _), _ = shop
    assert found[name]["verdict"] == "no"
    assert not found[name]["decorator"]
    reasons = found[name]["reasons"]
    assert any(each in given for given in reasons for each in reason.split("|")), reasons


def test_exceptions_are_counted(shop):
    (found, _), _ = shop
    assert (found["failing"]["calls"], found["failing"]["raised"]) == (100, 50)


def test_svg_is_self_contained(shop):
    _, path = shop
    text = path.with_suffix(".svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "price" in text and "<script" not in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_decorated_program_no_longer_has_the_candidate(program):
    path = program(SHOP.replace("def price", "import hotset\n@hotset.cached(maxsize=16)\ndef price"))
    found, _ = figures(path)
    assert found["price"]["calls"] == 7
    assert found["price"]["verdict"] == "no"


def test_results_that_change_slowly_get_a_ttl(program):
    path = program("""
import time
begin = time.monotonic()
def version(n):
    time.sleep(0.0005)
    return int((time.monotonic() - begin) / 0.4)
while time.monotonic() < begin + 0.9:
    version(1)
""")
    found, _ = figures(path)
    assert "ttl=" in found["version"]["decorator"]
    assert found["version"]["verdict"] == "maybe"


def test_recursion_counts_its_time_once(program):
    path = program("""
import time
def fib(n):
    time.sleep(0.0001)
    return n if n < 2 else fib(n - 1) + fib(n - 2)
start = time.perf_counter()
fib(11)
print(time.perf_counter() - start)
""")
    found, (_, out, _) = figures(path)
    # The sum of all calls, each with those within it, is ten times as much.
    assert found["fib"]["time"] < 4 * float(out)
    assert found["fib"]["distinct"] <= 12
    assert 0 < found["fib"]["saved"] <= found["fib"]["time"]


HASHES = """
class Key:
    def __init__(self, n):
        self.n = n
    def __hash__(self):
        print("hash")
        raise RuntimeError("hash was called")
    def __eq__(self, other):
        print("eq")
        raise RuntimeError("eq was called")
    def __sizeof__(self):
        raise RuntimeError("sizeof was called")
    def __repr__(self):
        raise RuntimeError("repr was called")
    def __getattr__(self, name):
        raise RuntimeError("getattr was called")
class Meta(type):
    def __hash__(self):
        raise RuntimeError("hash of a class was called")
    def __getattribute__(self, name):
        print("class attribute", name)
        return super().__getattribute__(name)
    def __eq__(self, other):
        raise RuntimeError("eq of a class was called")
class Odd(metaclass=Meta):
    pass
def use(key, odd):
    s = 0
    for n in range(3000):
        s += n
    return Key(s)
odd = Odd()
for n in range(200):
    use(Key(n % 5), odd)
print("end")
"""


def test_user_hash_and_eq_are_never_called(program):
    path = program(HASHES)
    expected = run(sys.executable, path)
    found, printed = figures(path)
    assert printed[:2] == expected[:2]
    assert found["use"]["distinct"] == 5
    assert any("hash of Key was not called" in reason for reason in found["use"]["reasons"])


def test_objects_die_when_they_do_without_advice(program):
    path = program("""
import weakref
class Thing:
    def __del__(self):
        print("deleted")
def use(thing, things):
    print("called")
    del thing
    things.clear()
    print("still here")
    return Thing()
def main():
    use(Thing(), [Thing()])
    print("after")
    thing = use(Thing(), [])
    del thing
    print("end")
main()
""")
    assert advise(path)[:2] == run(sys.executable, path)[:2]


BEHAVIOR = {
    "raises": "def f():\n    raise KeyError('gone')\ndef g():\n    f()\ng()\n",
    "raises from": "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise ValueError(1) from e\nf()\n",
    "syntax": "def f(:\n",
    "exit number": "import sys\nsys.exit(7)\n",
    "exit text": "import sys\nsys.exit('stop')\n",
    "exit in atexit order": "import atexit\natexit.register(print, 'one')\natexit.register(print, 'two')\n",
    "os._exit": "import os\ndef f(): return 1\nf()\nprint('x', flush=True)\nos._exit(5)\n",
    "exec": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(5); raise SystemExit(4)'])\n",
    "exit in thread": "import sys, threading\ndef f(): sys.exit(3)\nt = threading.Thread(target=f)\nt.start()\nt.join()\nprint('on')\n",
    "thread outlives main": "import threading, time\ndef f():\n    time.sleep(0.05)\n    print('late')\nthreading.Thread(target=f).start()\n",
    "main": "import sys, __main__\nprint(__name__, sys.argv, __file__, __spec__, __main__ is sys.modules['__main__'], __main__.__dict__ is globals(), sys.path[0])\n",
    "signal handler raises": "import signal\ndef h(*a): raise TimeoutError('alarm')\nsignal.signal(signal.SIGALRM, h)\ndef f(x): return [x]\n"
    "try:\n    signal.setitimer(signal.ITIMER_REAL, 0.05)\n    while True: f({1: 2})\nexcept TimeoutError as e: print(e)\n",
    "killed": "import os, signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\nraise ValueError\n",
    "fork": "import os, sys\ndef f(x): return x\nf(1)\npid = os.fork()\nif not pid:\n    f(2)\n    print('child', flush=True)\n    sys.exit(0)\n"
    "os.waitpid(pid, 0)\nprint('parent')\n",
    "pool": "import multiprocessing\ndef f(x): return x * x\nif __name__ == '__main__':\n"
    "    for kind in ('fork', 'spawn'):\n        with multiprocessing.get_context(kind).Pool(2) as pool:\n            print(pool.map(f, range(5)))\n",
    "generators": "def g():\n    try:\n        x = yield 1\n        print(x)\n        yield 2\n    finally:\n        print('closed')\n"
    "i = g()\nprint(next(i), i.send(5))\ni.close()\ni = g()\nnext(i)\ntry: i.throw(KeyError('k'))\nexcept KeyError: print('thrown')\n",
    "asyncio": "import asyncio\nasync def f(n):\n    await asyncio.sleep(0.001)\n    return n\nasync def main():\n"
    "    t = asyncio.create_task(f(9))\n    await asyncio.sleep(0)\n    t.cancel()\n    print(await asyncio.gather(*map(f, range(3)), t, return_exceptions=True))\n"
    "asyncio.run(main())\n",
    "recursion error": "def f(n): return f(n + 1)\ntry: f(0)\nexcept RecursionError: print('deep')\n",
    "deleted locals": "def f(a, b=2, *c, d=3, **e):\n    del a\n    x = locals()\n    return sorted(x)\nprint([f(1) for _ in range(3)])\n"
    "def g(a):\n    def h(): return a\n    return h\nprint(g(4)())\n",
    "own profiler": "import cProfile, io, pstats\ndef f(): return 1\np = cProfile.Profile()\np.enable()\nf()\np.disable()\ns = io.StringIO()\n"
    "pstats.Stats(p, stream=s).print_stats('[(]f[)]')\nprint('(f)' in s.getvalue())\n",
    "own profile function": "import sys\nseen = []\ndef f(): return 1\ndef g(): return f()\n"
    "def p(frame, event, value):\n    if frame.f_code is f.__code__: seen.append(event)\n"
    "f()\nsys.setprofile(p)\ng()\nprint(sys.getprofile() is p)\nsys.setprofile(None)\ng()\nprint(seen, sys.getprofile())\n",
    "deep recursion": "import sys, threading\ndef f(n): return 0 if not n else 1 + f(n - 1)\nsys.setrecursionlimit(60_000)\nprint(f(50_000), f(10))\n"
    "threading.stack_size(1 << 17)\nt = threading.Thread(target=lambda: print(f(20_000)))\nt.start()\nt.join()\nthreading.stack_size(0)\n"
    "sys.setrecursionlimit(1000)\n",
    "gc": "import gc, weakref\nclass A: pass\ndef f(a): return [a]\na = A()\nr = weakref.ref(a, lambda r: print('dead'))\n"
    "f(a)\ndel a\nprint(r() is None, f(1), gc.collect() >= 0)\n",
    "threads": "import threading\nlock = threading.Lock()\ndone = []\ndef f(x):\n    with lock: done.append(x)\n    return {x: [x]}\n"
    "def g():\n    for n in range(2000): f(n % 7)\nts = [threading.Thread(target=g) for _ in range(4)]\n"
    "for t in ts: t.start()\nfor t in ts: t.join()\nprint(len(done), threading.active_count())\n",
    "closed streams": "import sys\ndef f(): return 1\nf()\nsys.stdout.flush()\nsys.stderr.close()\n",
}


# Those that run on, in one program: each process takes a fraction of a second.
TOGETHER = ("main", "exit in thread", "generators", "asyncio", "recursion error", "deleted locals", "own profiler", "own profile function", "deep recursion", "gc", "threads", "signal handler raises")
PROGRAMS = {name: text for name, text in BEHAVIOR.items() if name not in TOGETHER} | {"together": "\n".join(BEHAVIOR[name] for name in TOGETHER)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_behaves_as_without_advice(program, name):
    path = program(PROGRAMS[name])
    process = start(sys.executable, path, "a", "--b")
    code, out, err = advise(path, "a", "--b")
    expected_out, expected_err = process.communicate()
    assert (code, out) == (process.returncode, expected_out)
    own, _, report = err.rpartition("\nhotset advise: ")
    if name not in ("killed", "closed streams"):
        assert report, err
        assert own == expected_err


def test_interrupt_is_the_program_s_and_the_table_follows(program):
    path = program("import time\ndef f(x):\n    time.sleep(0.001)\n    return x\nfor n in range(9): f(n)\nprint('on', flush=True)\nwhile True: f(1)\n")
    outcomes = []
    for command in ([sys.executable], ADVISE):
        process = start(*command, path)
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        own, _, report = err.partition("\nhotset advise: ")
        outcomes.append((process.returncode, out, own.splitlines()[-1]))
    assert outcomes[0] == outcomes[1] == (-signal.SIGINT, "", "KeyboardInterrupt")
    assert "hotset/_advise" not in err and "f" in report


def test_module_runs_as_with_m(tmp_path):
    package = tmp_path / "tool"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys\ndef f(x): return x\nf(1)\nprint(__name__, __spec__.name, sys.argv, __package__, repr(sys.path[0]))\n")
    environment = {**os.environ, "PYTHONPATH": TREE}
    expected = run(sys.executable, "-m", "tool", "1", cwd=tmp_path, env=environment)
    code, out, err = advise("-m", "tool", "1", cwd=tmp_path, env=environment)
    assert (code, out) == expected[:2]
    assert "__main__.py:2 f" in err
    code, out, _ = advise(package, "1", cwd=tmp_path, env=environment)
    assert (code, out) == run(sys.executable, package, "1", cwd=tmp_path, env=environment)[:2]


@pytest.mark.parametrize("module", ["no_such_module", "json"])
def test_module_that_cannot_run_fails_as_with_m(module, tmp_path):
    code, out, err = advise("-m", module, cwd=tmp_path, stdin=subprocess.DEVNULL)
    expected = run(sys.executable, "-m", module, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert (code, out) == expected[:2]
    assert expected[2] in err


def test_pytest_runs_with_advice(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import time\ndef slow(n):\n    time.sleep(0.01)\n    return n\ndef test_it():\n    assert sum(slow(n % 3) for n in range(60)) == 60\n"
    )
    code, out, err = advise("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", tmp_path, cwd=tmp_path)
    assert code == 0 and "1 passed" in out
    assert "test_it.py:2 slow" in err and "@hotset.cached(maxsize=16)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such.py"], "can't open file"),
        ([], "name a program"),
        (["-m"], "needs the name of a module"),
        (["--wrong", "x.py"], "unknown option --wrong"),
        (["--json"], "needs a value"),
        (["--json", "/no/such/folder/x.json", "x.py"], "there is no folder /no/such/folder"),
        (["--verify", "--json", "-", "conftest.py"], "name a file"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    code, out, err = advise(*arguments, cwd=Path(__file__).parent)
    assert (code, out) == (2, "")
    assert err.startswith("python -m hotset advise: ") and message in err


def test_program_without_functions_gets_an_explanation(program):
    code, out, err = advise(program("import json\nprint(json.dumps([1]))\n"))
    assert (code, out) == (0, "[1]\n")
    assert "No function of the program's own was called" in err and "--include" in err


def test_installed_package_is_recorded_if_included(program):
    path = program("import json.scanner, json\nfor n in range(50): json.dumps({'n': n % 2}, indent=1)\n")
    assert not figures(path)[0]
    assert "dumps" in figures(path, "--include", "json")[0]


def test_verify_compares_runs(program):
    path = program("""
import sys, time
def price(item):
    time.sleep(0.002)
    return len(item)
class Shop:
    @property
    def name(self):
        time.sleep(0.002)
        return "shop"
def main():
    shop = Shop()
    print(sum(price("tea" * (n % 3)) for n in range(60)), {shop.name for _ in range(60)})
main()
sys.exit(3)
""")
    json_file = path.with_suffix(".json")
    code, out, err = advise("--verify", "--json", json_file, path)
    assert (code, out) == (3, "180 {'shop'}\n")
    result = json.loads(json_file.read_text())["verification"]
    assert result["same_output"] and result["exit_code_with"] == result["exit_code_without"] == 3
    assert result["seconds_with"] < result["seconds_without"] / 2
    functions = {each["function"]: each for each in result["functions"]}
    assert functions["price"] == {"function": "price", "hits": 57, "misses": 3, "compared": 57, "different": 0, "unknown": 0}
    assert functions["Shop.name"]["hits"] == 59
    assert "times as fast" in err and "57 hits compared with a call, all equal" in err


def test_verify_reports_differences(program):
    path = program("""
import time
state = [0]
def count(n):
    time.sleep(0.002)
    return state[0] // 60
def main():
    for n in range(100):
        state[0] += 1
        print(count(n % 2))
main()
""")
    # Seen in the recording, too: so the proposal is replaced by one that ignores it.
    plan = path.with_suffix(".plan")
    plan.write_text(
        json.dumps({"check": True, "functions": [{"file": str(path), "line": 4, "function": "count", "method": False, "settings": {"maxsize": 16}}]})
    )
    code, out, _ = advise("--apply", plan, path)
    assert (code, out) == (0, "0\n" * 100)
    [outcome] = json.loads(Path(f"{plan}.outcome").read_text())["functions"]
    assert (outcome["hits"], outcome["different"]) == (98, 41)


def test_verify_survives_a_program_that_dies_with_caches(program):
    path = program("""
import os, signal, time
def price(item):
    time.sleep(0.002)
    return len(item)
def main():
    if hasattr(price, "cache_info"):
        os.kill(os.getpid(), signal.SIGKILL)
    print(sum(price("tea" * (n % 3)) for n in range(60)))
main()
""")
    code, out, err = advise("--verify", path)
    assert (code, out) == (0, "180\n")
    assert "exit code -9" in err and "THE EXIT CODE DIFFERS" in err and "STANDARD OUTPUT DIFFERS" in err


def test_context_manager_reports_its_calls():
    def square(n):
        return n * n

    with hotset.advise() as advice:
        with pytest.raises(RuntimeError, match="another recording"):
            with hotset.advise():
                pass
        with pytest.raises(RuntimeError, match="has not ended"):
            print(advice)
        for n in range(10):
            square(n % 2)
    found = {finding.function.rpartition(".")[2]: finding for finding in advice.findings}
    assert (found["square"].calls, found["square"].distinct) == (10, 2)
    assert json.loads(advice.to_json())["format"] == 1
    assert "hotset advise" in str(advice) and "<svg" in advice.to_svg()
    square(1)
    assert found["square"].calls == 10


def test_context_manager_records_threads(tmp_path):
    import threading

    def work(n):
        time.sleep(0.0001)
        return n

    with hotset.advise() as advice:
        threads = [threading.Thread(target=lambda: [work(n % 3) for n in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    [found] = [finding for finding in advice.findings if finding.function.endswith("work")]
    assert (found.calls, found.distinct, found.different) == (200, 3, 0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has a profile function for each thread")
def test_threads_that_run_already_are_recorded():
    import threading

    def work(n):
        return n

    starts = threading.Event()

    def wait():
        starts.wait()
        for n in range(50):
            work(n)

    thread = threading.Thread(target=wait)
    thread.start()
    with hotset.advise() as advice:
        starts.set()
        thread.join()
    assert [finding.calls for finding in advice.findings if finding.function.endswith("work")] == [50]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has a profile function for each thread")
def test_profile_function_of_the_program_leaves_the_recording_on():
    def work(n):
        return n

    previous = sys.getprofile()
    seen = []
    with hotset.advise() as advice:
        work(1)
        sys.setprofile(lambda frame, event, value: seen.append(event))
        work(2)
        sys.setprofile(None)
        work(3)
    sys.setprofile(previous)
    assert "call" in seen
    assert [finding.calls for finding in advice.findings if finding.function.endswith("work")] == [3]


def test_coroutine_arguments_in_cells_are_told_apart():
    import asyncio

    async def work(n, *more, key=None):
        await asyncio.sleep(0)
        return [x * n for x in more], (lambda: key)()

    async def main():
        for n in range(40):
            await work(n % 4, n % 2, key="k")

    with hotset.advise() as advice:
        asyncio.run(main())
    [found] = [finding for finding in advice.findings if finding.function.endswith("work")]
    assert (found.calls, found.distinct, found.raised, found.kind) == (40, 4, 0, "coroutine")


def test_sampled_functions_are_counted_exactly():
    def tiny(n):
        return n

    with hotset.advise() as advice:
        for n in range(200_000):
            tiny(n % 10)
    [found] = [finding for finding in advice.findings if finding.function.endswith("tiny")]
    assert found.calls == 200_000
    assert 100 <= found.observed < 200_000
    assert found.distinct == 10


PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "what-to-cache.md"


def without_numbers(text):
    """Returns a report without its figures, which differ from run to run, and without columns."""
    text = re.sub(r"≥?[\d,.]+ ?(ns|µs|ms|s|%|kB|MB|bytes)?(?![\w.])", "#", text)
    return re.sub(r"[- ]+", " ", text)


def test_page_shows_the_output_of_its_program(tmp_path):
    text = PAGE.read_text()
    program, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    printed, *_ = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    (tmp_path / "report.py").write_text(program)
    code, out, err = advise("--verify", "report.py", cwd=tmp_path)
    assert code == 0 and re.fullmatch(r"\d+\.\d\d\n", out)
    # (The order of functions with like times is not certain.)
    assert sorted(without_numbers(err.lstrip()).splitlines()) == sorted(without_numbers(printed).splitlines())
