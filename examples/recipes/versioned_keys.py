"""Versioned keys: derived values are stored under their object's version.

So an update of the object invalidates all of them in one step.

    python examples/recipes/versioned_keys.py
"""

from dataclasses import dataclass

import hotset


@dataclass(frozen=True)
class Article:
    """A row of the database; each update of it increments its version."""

    id: int
    version: int
    text: str


database = {1: Article(1, 1, "hello *world*")}
rendered: list[str] = []
# Entries of old versions are not used any more: they are the coldest, and are evicted for others.
fragments: hotset.Cache[tuple[int, int, str], str] = hotset.Cache(10_000, name="fragments")


def fragment(article: Article, kind: str) -> str:
    """Returns the article as html, or as a summary."""

    def render(key: tuple[int, int, str]) -> str:
        rendered.append(f"{kind} of version {article.version}")
        return f"<p>{article.text}</p>" if kind == "html" else article.text[:5]

    return fragments.get_or_load((article.id, article.version, kind), render)


def update(id: int, text: str) -> None:
    """Changes an article. No entry of the cache need be known, or removed."""
    old = database[id]
    database[id] = Article(id, old.version + 1, text)


def main() -> None:
    for _ in range(3):
        fragment(database[1], "html")
        fragment(database[1], "summary")
    update(1, "goodbye *world*")
    for _ in range(3):
        fragment(database[1], "html")
        fragment(database[1], "summary")
    print(f"{fragment(database[1], 'html')}, {fragment(database[1], 'summary')}")
    print(f"rendered: {', '.join(rendered)}")
    assert rendered == ["html of version 1", "summary of version 1", "html of version 2", "summary of version 2"]


if __name__ == "__main__":
    main()
