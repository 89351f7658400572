"""A process with a TieredCache: evaluates each line of its input, and prints the result.

    python tiered_worker.py redis://localhost:6379/0 NAME
"""

import sys

from django.conf import settings

options = {"timeout": 5.0, "connect_timeout": 5.0, "name": sys.argv[2]}
settings.configure(
    CACHES={"default": {"BACKEND": "hotset.django.TieredCache", "LOCATION": sys.argv[1], "OPTIONS": options}},
    SECRET_KEY="a secret key for tests",
)

from django.core.cache import cache  # noqa: E402


def together(count, call):
    """Calls in `count` threads; returns the results."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def counted(path):
    """Appends a line to a file: a load, as all processes see it."""
    with open(path, "a") as file:
        file.write("load\n")
    return {"loaded": True}


cache.get("known")
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except Exception as error:
        print(f"raised {type(error).__name__}: {error}", flush=True)
