"""A leaderboard for several processes: scores in Redis, and the first page in each process.

    pip install "hotset[redis]"  # needs redis-server, too
    python examples/recipes/shared_leaderboard.py
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from typing import Any

import redis

import hotset
from hotset.tier2 import Redis

Page = list[tuple[str, int]]


class Leaderboard:
    """A board whose first page costs no network, until a score changes it.

    Args:
        url: The server's URL.
        size: Players on the first page.
    """

    def __init__(self, url: str, size: int = 10) -> None:
        # (redis-py's types leave much open.)
        connect: Any = redis.Redis
        self._server = connect.from_url(url, decode_responses=True)
        self._size = size
        self._tier2 = Redis(url, prefix="board")
        self._pages: hotset.TieredCache[str, Page] = hotset.TieredCache(self._tier2, "pages", maxsize=10, ttl=60)
        self.queries = 0

    def first(self) -> Page:
        """Returns the best players, the best one first."""
        return self._pages.get_or_load("first", lambda _: self.query(0))

    def query(self, number: int) -> Page:
        """Returns a page from the sorted set: what later pages are read by."""
        self.queries += 1
        begin = number * self._size
        found = self._server.zrevrange("scores", begin, begin + self._size - 1, withscores=True)
        return [(player, int(points)) for player, points in found]

    def score(self, player: str, points: int) -> None:
        """Adds points; invalidates the first page in all processes if the player may be on it."""
        if points < 0:
            raise ValueError(f"points must not be negative: {points}")
        total = self._server.zincrby("scores", points, player)
        # Totals only rise: a player below the last one of an old page is below the last one of the
        # current page. Without a page, another process may be reading the set as it was before.
        first = self._pages.get("first")
        if first is None or len(first) < self._size or total >= first[-1][1]:
            self._pages.delete("first")

    def close(self) -> None:
        """Closes the connections."""
        self._tier2.close()
        self._server.close()


def main() -> None:
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: apt-get install redis-server")
    generator = random.Random(5)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "redis.sock")
        settings = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        with subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL) as server:
            try:
                while not os.path.exists(path):
                    if server.poll() is not None:
                        raise SystemExit("redis-server did not start")
                    time.sleep(0.01)
                show(Leaderboard(f"unix://{path}"), Leaderboard(f"unix://{path}"), generator)
            finally:
                server.terminate()


def show(here: Leaderboard, there: Leaderboard, generator: random.Random) -> None:
    """Has two processes' boards, both of which are in this one here, show the same page."""
    for n in range(10_000):
        here.score(f"player {n}", generator.randrange(10_000))
    here.queries = 0
    for number in range(2000):
        here.score(f"player {generator.randrange(10_000)}", generator.randrange(20))
        for _ in range(4):
            here.first()
        page = here.first()
        if number % 100 == 0:
            queries = here.queries
            assert page == here.query(0)
            here.queries = queries
    print(f"10,000 requests and 2,000 scores: {here.queries} queries for the first page")
    assert here.queries < 200
    there.first()
    here.score("player 7", 100_000)
    assert here.first()[0][0] == "player 7"
    # (Usually within a millisecond.)
    while there.first()[0][0] != "player 7":
        time.sleep(0.001)
    print("the other process shows player 7, too")
    here.close()
    there.close()


if __name__ == "__main__":
    main()
