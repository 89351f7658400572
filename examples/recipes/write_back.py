"""Write-back: writes go to memory, and from there to the source in batches.

Writes that were not flushed when the process dies are lost.

    python examples/recipes/write_back.py
"""

import logging
import sqlite3
import threading
from types import TracebackType
from typing import Self

import hotset


class PageViews:
    """Counts views in memory, and adds them to the database at each `flush`.

    That is at an interval, at `limit` pages, and at the end.

    What is not flushed is held in a dict, not in the cache: an entry that is evicted would be lost
    before it was written.
    """

    def __init__(self, database: sqlite3.Connection, interval: float, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._lock = threading.Lock()
        self._pending: dict[str, int] = {}
        self._totals: hotset.Cache[str, int] = hotset.Cache(10_000, name="page views")
        self._ended = threading.Event()
        self._flusher = threading.Thread(target=self._flush_at, args=(interval,))
        self._flusher.start()
        self.writes = 0

    def _flush_at(self, interval: float) -> None:
        while not self._ended.wait(interval):
            self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except Exception:
            # Whatever it is, the thread has to live on. (All of it is still pending.)
            logging.getLogger("page views").exception("not flushed; the next interval tries again")

    def add(self, page: str) -> None:
        """Counts a view."""
        with self._lock:
            self._pending[page] = self._pending.get(page, 0) + 1
            full = len(self._pending) >= self._limit
        if full:
            self._try_flush()

    def total(self, page: str) -> int:
        """Returns the views of a page, those included that are not yet in the database."""
        with self._lock:
            return self._totals.get_or_load(page, self._stored) + self._pending.get(page, 0)

    def _stored(self, page: str) -> int:
        found = self._database.execute("SELECT views FROM pages WHERE name = ?", (page,)).fetchone()
        return int(found[0]) if found else 0

    def unflushed(self) -> int:
        """Returns how many views are in memory only."""
        with self._lock:
            return sum(self._pending.values())

    def flush(self) -> None:
        """Adds all pending views to the database, in one transaction; keeps them if that raises."""
        with self._lock:
            with self._database:
                self._database.executemany(
                    "INSERT INTO pages VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET views = views + excluded.views",
                    self._pending.items(),
                )
            self.writes += 1
            self._totals.delete_many(self._pending)
            self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Flushes for the last time. A process that is killed does not come here."""
        self._ended.set()
        self._flusher.join()
        self.flush()


def main() -> None:
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE TABLE pages (name TEXT PRIMARY KEY, views INTEGER)")
    with PageViews(database, interval=3600, limit=100) as views:
        for n in range(10_000):
            views.add(f"/page/{n % 10}")
        print(f"/page/3 was viewed {views.total('/page/3'):,} times")
        print(f"killed now, the process would lose {views.unflushed():,} views")
    stored = database.execute("SELECT sum(views) FROM pages").fetchone()[0]
    print(f"after the end the database has {stored:,} views, by {views.writes} write")
    assert (stored, views.writes) == (10_000, 1)


if __name__ == "__main__":
    main()
