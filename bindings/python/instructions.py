"""Instructions per hit of the wheel (Ir of callgrind): exact, whatever else the machine does and
wherever the loader puts the libraries.

Each job runs twice, and the difference of the two counts leaves out start and exit; the
interpreter's own loop is subtracted.

    python bindings/python/instructions.py [job ..]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys

PROGRAM = """
import functools, gc, hotset, sys
gc.disable()
with_ttl = hotset.cached(ttl=3600)
decorators = {
    "functools": functools.lru_cache(None),
    "cached": hotset.cached,
    "cached, ttl": with_ttl,
}
decorator = decorators[sys.argv[1]]
@decorator
def f(x, y=0): return x
class C:
    @decorator
    def m(self, x): return x
c = C()
def run(n):
    for _ in range(n): %s
run(int(sys.argv[2]))
"""

JOBS = {"1 int": "f(5)", "1 str": "f('5')", "2 positional": "f(5, 6)", "1 positional, 1 keyword": "f(5, y=6)", "method": "c.m(5)"}

FEW, MANY = 20_000, 60_000


def count(call: str, decorator: str, calls: int) -> int:
    """Returns the instructions of a process that makes `calls` calls."""
    # (A fixed seed of the strings' hashes: without one the interpreter's start differs by more than
    # a hit takes.)
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-c", PROGRAM % call, decorator, str(calls)]
    run = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not collected:
        sys.exit(run.stderr)
    return int(collected[1])


def per_call(call: str, decorator: str) -> float:
    return (count(call, decorator, MANY) - count(call, decorator, FEW)) / (MANY - FEW)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="*", help=f"of {', '.join(JOBS)}")
    jobs = parser.parse_args().job or list(JOBS)
    if unknown := set(jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(sorted(unknown))}")
    if not shutil.which("valgrind"):
        sys.exit("instructions.py: valgrind is missing (make tools installs it)")
    loop = per_call("pass", "functools")
    for job in jobs:
        for decorator in ("functools", "cached", "cached, ttl"):
            print(f"{job:24} {decorator:12} {per_call(JOBS[job], decorator) - loop:6.1f}", flush=True)


main()
