"""The package on a system without forks, as Windows is: the names of Unix are taken away first."""

import subprocess
import sys

# What Windows does not have, of what the package uses, except for what Python itself needs here.
WITHOUT = """
import os, sys
for name in ("register_at_fork", "fork", "geteuid", "getuid", "O_NOFOLLOW", "O_NOCTTY"):
    delattr(os, name)
for name in ("fcntl", "termios", "tty", "resource", "pwd", "grp", "curses"):
    sys.modules[name] = None
"""
PROGRAM = """
import asyncio, pickle, tempfile
import hotset

@hotset.cached(maxsize=10, ttl=60)
def double(x):
    return 2 * x

@hotset.cached(maxsize=10)
async def triple(x):
    return 3 * x

async def twice():
    return await triple(2), await triple(2)

assert double(2) == 4 and double(2) == 4 and double.cache_info().hits == 1
assert asyncio.run(twice()) == (6, 6)
cache = hotset.Cache(maxsize=10, name="shop")
cache["tea"] = 3.2
with tempfile.TemporaryDirectory() as folder:
    cache.save(folder + "/shop", codec=pickle)
    other = hotset.Cache(maxsize=10)
    other.load(folder + "/shop", codec=pickle)
    assert other["tea"] == 3.2
import hotset.tier2
print("works")
"""


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_package_without_forks_works():
    done = run("-c", WITHOUT + PROGRAM)
    assert (done.returncode, done.stdout, done.stderr) == (0, "works\n", "")


def test_versions_without_forks_are_printed():
    main = "import runpy\nsys.argv = ['hotset', '--version']\nrunpy.run_module('hotset', run_name='__main__')"
    done = run("-c", WITHOUT + main)
    assert done.returncode == 0 and done.stdout.startswith("hotset "), done.stderr


def test_top_without_forks_ends_in_one_line():
    main = "import runpy\nsys.argv = ['hotset', 'top']\nrunpy.run_module('hotset', run_name='__main__')"
    done = run("-c", WITHOUT + main)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "hotset top: this platform has no stats files: Linux and macOS have them\n"
