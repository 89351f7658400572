"""A leaderboard: all scores in the database, and the first page in the cache.

    python examples/recipes/leaderboard.py
"""

import random
import sqlite3

import hotset

PAGE = 10
queries: list[int] = []
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE scores (player TEXT PRIMARY KEY, points INTEGER)")
database.execute("CREATE INDEX by_points ON scores (points DESC)")

Rows = tuple[tuple[str, int], ...]
# The first page is right at any time; later ones may be a second old.
pages: hotset.Cache[int, Rows] = hotset.Cache(1000, ttl=1.0, name="leaderboard")


def query(number: int) -> Rows:
    """Asks the database for a page."""
    queries.append(number)
    found = database.execute("SELECT player, points FROM scores ORDER BY points DESC, player LIMIT ? OFFSET ?", (PAGE, number * PAGE))
    return tuple((str(player), int(points)) for player, points in found)


def page(number: int) -> Rows:
    """Returns a page of the board."""
    return pages.get_or_load(number, query)


def score(player: str, points: int) -> None:
    """Adds points; invalidates the first page only if the player enters it, or moves on it."""
    with database:
        database.execute(
            "INSERT INTO scores VALUES (?, ?) ON CONFLICT (player) DO UPDATE SET points = points + excluded.points", (player, points)
        )
        total = int(database.execute("SELECT points FROM scores WHERE player = ?", (player,)).fetchone()[0])
    first = pages.peek(0)
    if first is None or len(first) < PAGE or total >= first[-1][1] or player in dict(first):
        pages.delete(0)


def main() -> None:
    generator = random.Random(5)
    with database:
        database.executemany("INSERT INTO scores VALUES (?, ?)", [(f"player {n}", generator.randrange(10_000)) for n in range(10_000)])
    queries.clear()
    for _ in range(2000):
        score(f"player {generator.randrange(10_000)}", generator.randrange(20))
        boards = [page(0) for _ in range(5)]
        asked = len(queries)
        assert boards == [query(0)] * 5
        del queries[asked:]
    print(f"10,000 requests and 2,000 scores: {len(queries)} queries for the first page")
    assert len(queries) < 100


if __name__ == "__main__":
    main()
