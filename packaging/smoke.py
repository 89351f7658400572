"""Uses the installed hotset in a few lines: what every wheel must do on its interpreter.

Arguments: VERSION and TAG, the version that must be imported, and the interpreter's tag (cp313).
"""

import asyncio
import contextlib
import io
import runpy
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import hotset


def memoize() -> None:
    calls: list[int] = []

    @hotset.cached(maxsize=100, ttl=60)
    def square(n: int) -> int:
        calls.append(n)
        return n * n

    threads = [threading.Thread(target=square, args=(7,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert square(7) == 49 and calls == [7], calls
    assert square.cache_info().currsize == 1

    @hotset.lru_cache(maxsize=2)
    def same(n: int) -> int:
        return n

    assert [same(n) for n in (1, 2, 3, 1)] == [1, 2, 3, 1] and same.cache_info()[:2] == (0, 4)


def map_and_save(folder: str) -> None:
    cache = hotset.Cache(maxsize=1000, ttl=60)
    cache["tea"] = 3.20
    assert cache.get_or_load("rum", lambda key: 4.50) == 4.50
    assert cache["tea"] == 3.20 and "gin" not in cache and len(cache) == 2
    path = Path(folder, "snapshot")
    cache.save(path)
    warm = hotset.Cache(maxsize=1000)
    warm.load(path)
    assert warm["rum"] == 4.50
    try:
        hotset.Cache(maxsize=-1)
    except ValueError:
        pass
    else:
        raise AssertionError("a negative bound was accepted")


async def load_once() -> None:
    calls: list[str] = []

    @hotset.cached(maxsize=100)
    async def page(path: str) -> str:
        calls.append(path)
        await asyncio.sleep(0)
        return path.upper()

    assert await asyncio.gather(*(page("a") for _ in range(5))) == ["A"] * 5
    assert calls == ["a"], calls


def main() -> None:
    version, tag = sys.argv[1:]
    free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    here = f"cp{sys.version_info.major}{sys.version_info.minor}{free_threaded}"
    assert here == tag, f"the wheel of {tag} on {here}"
    assert hotset.__version__ == version, hotset.__version__
    memoize()
    with tempfile.TemporaryDirectory() as folder:
        map_and_save(folder)
    asyncio.run(load_once())
    # `python -m hotset --version`, in this process: an emulator does not emulate its children.
    sys.argv = ["hotset", "--version"]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_module("hotset", run_name="__main__")
    printed = output.getvalue()
    assert version in printed, printed
    if free_threaded:
        assert not sys._is_gil_enabled(), "hotset turned the GIL on"
    print(f"{printed.splitlines()[0]}: imports, memoizes, loads once, saves, on {sys.version.split()[0]}")


main()
