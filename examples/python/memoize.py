"""Memoizes a real function: line breaks as TeX chooses them.

It minimizes the sum of squared leftovers over all ways to break a text. Without a cache the
recursion takes exponential time; `functools.lru_cache` or `hotset.lru_cache` needs one more line.
The second part needs more than functools has: a bound that keeps the results used often, although
most requested results are requested only once.

    python examples/python/memoize.py
"""

import random
import time
from functools import lru_cache as functools_lru_cache
from typing import Any

import hotset

TEXT = """An embedded cache engine keeps the hot set of a program's data inside the program's own process, where a lookup costs
nanoseconds instead of a trip over the network, and evicts what callers no longer request.""".split()


def wrapped(words: tuple[str, ...], width: int) -> tuple[str, ...]:
    """The words in lines of at most this width, as even as can be."""

    @hotset.cache
    def best(first: int) -> tuple[int, tuple[str, ...]]:
        if first == len(words):
            return 0, ()
        choices: list[tuple[int, tuple[str, ...]]] = []
        for end in range(first + 1, len(words) + 1):
            line = " ".join(words[first:end])
            if len(line) > width and end > first + 1:
                break
            cost, lines = best(end)
            leftover = 0 if end == len(words) else max(width - len(line), 0)
            choices.append((cost + leftover**2, (line, *lines)))
        return min(choices)

    lines = best(0)[1]
    print(f"{len(words)} words in {width} columns: {best.cache_info()}")
    return lines


def requests(count: int) -> list[int]:
    """Returns requested widths: a few are popular, and a crawler requests all of them in turn."""
    chance = random.Random(1)
    popular = range(40, 100)
    weights = [1 / (rank + 1) for rank in range(len(popular))]
    stream: list[int] = []
    crawled = 1000
    while len(stream) < count:
        stream += chance.choices(popular, weights, k=50)
        stream += range(crawled, crawled + 50)
        crawled += 50
    return stream


def render(width: int) -> int:
    """Stands for what takes long."""
    return width * width


def main() -> None:
    for line in wrapped(tuple(TEXT), 46):
        print(f"    {line}")

    print("\nA page rendered for each width, 40 cached; half of all requests are a crawler's:")
    decorators: dict[str, Any] = {
        "functools.lru_cache": functools_lru_cache(maxsize=40),
        "hotset.lru_cache": hotset.lru_cache(maxsize=40),
        "hotset.cached": hotset.cached(maxsize=40, name="pages"),
    }
    stream = requests(20_000)
    for name, decorate in decorators.items():
        page = decorate(render)
        start = time.perf_counter()
        for width in stream:
            page(width)
        took = time.perf_counter() - start
        hits, misses = page.cache_info()[:2]
        print(f"    {name:20} {hits / (hits + misses):6.1%} hits, {took / len(stream) * 1e9:4.0f} ns a request")


if __name__ == "__main__":
    main()
