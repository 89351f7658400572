"""Prewarming: a worker loads its snapshot, and missing hot keys, before it takes traffic.

    python examples/recipes/prewarm.py
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import hotset

queries: list[int] = []


def load(id: int) -> str:
    """The slow source."""
    queries.append(id)
    return f"item {id}"


def begin(path: str, hottest: list[int]) -> hotset.Cache[int, str]:
    """Returns the cache of a new worker, warm. The health check succeeds once this has returned."""
    items: hotset.Cache[int, str] = hotset.Cache(1000, ttl=3600)
    try:
        restored = items.load(path)
    except FileNotFoundError:
        restored = 0  # The first start.
    except hotset.SnapshotError as error:
        restored = 0  # As cold as the first; a real service logs the reason.
        print(f"the snapshot was not loaded: {error}")
    # Four at a time: a cold source must not get the loads of all keys of all workers together.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(items.get_or_load, loader=load), hottest))
    print(f"{restored} items from the snapshot, {len(queries)} loaded")
    return items


def end(items: hotset.Cache[int, str], path: str) -> None:
    """Saves the cache when the worker receives SIGTERM, after its last request."""
    items.save(path)


def main() -> None:
    hottest = list(range(50))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "items.snapshot")
        items = begin(path, hottest)
        assert len(queries) == 50
        for id in range(40, 80):
            items.get_or_load(id, load)
        end(items, path)
        queries.clear()
        items = begin(path, hottest)
        assert not queries and len(items) == 80
        with open(path, "r+b") as file:
            file.truncate(100)
        items = begin(path, hottest)
        assert len(queries) == 50


if __name__ == "__main__":
    main()
