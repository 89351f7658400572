"""Tags: entries that depend on the same thing are invalidated together, without a list of them.

Each tag has a generation, a number. An entry stores the generations of its tags when its load
began, and is a miss once one of them is another.

    python examples/recipes/tags.py
"""

import threading
from collections.abc import Callable, Hashable, Iterable
from itertools import count
from typing import NamedTuple

import hotset


class Stamped(NamedTuple):
    """A value, and the generations of its tags."""

    value: object
    generations: dict[str, int]


class TaggedCache:
    """A cache whose entries have tags."""

    def __init__(self, maxsize: int, ttl: float) -> None:
        self._entries: hotset.Cache[Hashable, Stamped] = hotset.Cache(maxsize, ttl=ttl, name="tagged")
        # Not a cache: a tag's generation must not be forgotten while an entry has it.
        self._generations: dict[str, int] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def get_or_load(self, key: Hashable, tags: Iterable[str], load: Callable[[], object]) -> object:
        """Returns the value for `key`, or loads it if it is absent or a tag of it was invalidated.
        """
        loaded = False

        def stamped(_: Hashable) -> Stamped:
            nonlocal loaded
            loaded = True
            # Before the load: an invalidation while it is in progress makes its result a miss.
            generations = {tag: self._generations.get(tag, 0) for tag in tags}
            return Stamped(load(), generations)

        while True:
            entry = self._entries.get_or_load(key, stamped)
            if loaded or self._is_valid(entry):
                return entry.value
            # It was invalidated, as may be the load of another thread that this one has waited for.
            self._remove(key, entry)

    def _remove(self, key: Hashable, entry: Stamped) -> None:
        """Removes the entry, unless another has its place by now."""
        self._entries.compute(key, lambda held: None if held is entry else held)

    def _is_valid(self, entry: Stamped) -> bool:
        return all(self._generations.get(tag, 0) == generation for tag, generation in entry.generations.items())

    def invalidate_tag(self, tag: str) -> None:
        """Makes all entries with this tag misses; O(1)."""
        with self._lock:
            self._generations[tag] = next(self._numbers)


def main() -> None:
    loads: list[str] = []
    pages = TaggedCache(1000, ttl=300)

    def page(name: str, *tags: str) -> object:
        def load() -> str:
            loads.append(name)
            return f"the page {name}"

        return pages.get_or_load(name, tags, load)

    def visit() -> None:
        page("menu", "food", "drinks")
        page("wine list", "drinks")
        page("contact")

    for _ in range(3):
        visit()
    assert loads == ["menu", "wine list", "contact"]
    pages.invalidate_tag("food")
    visit()
    assert loads[3:] == ["menu"]
    pages.invalidate_tag("drinks")
    visit()
    assert loads[4:] == ["menu", "wine list"]
    print(f"loaded: {', '.join(loads)}")


if __name__ == "__main__":
    main()
