"""The source of the fleet: products in SQLite, and the query whose results are cached.

A product's row has its version, which each update raises, and the products that its buyers bought
with it: a join of the purchases with themselves, some milliseconds of processor time.
"""

import os
import random
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

PRODUCTS = 2_000
_PURCHASES = 400_000
_BUYERS = 12_000


class Product(NamedTuple):
    """A product, as it is shown."""

    number: int
    version: int
    name: str
    bought_with: tuple[str, ...]


Row = tuple[int, int, str, tuple[str, ...]]
"""The fields of a `Product`, as they are cached: simple values."""

_lock = threading.Lock()
_queries = 0
_of_thread = threading.local()


def queries() -> int:
    """Returns how many queries this process has sent."""
    return _queries


def load(number: int) -> Row | None:
    """Returns a product's row from the database; None if there is no product of this number."""
    global _queries
    with _lock:
        _queries += 1
    with _transaction() as database:
        row = database.execute("SELECT version, name FROM product WHERE number = ?", (number,)).fetchone()
        if row is None:
            return None
        bought = database.execute(
            "SELECT product.name FROM purchase AS own JOIN purchase AS other USING (buyer) JOIN product ON product.number = other.product"
            " WHERE own.product = ?1 AND other.product != ?1 GROUP BY other.product ORDER BY count(*) DESC, other.product LIMIT 5",
            (number,),
        ).fetchall()
    return number, row[0], row[1], tuple(name for (name,) in bought)


def update(number: int, version: int) -> int | None:
    """Raises a product's version to this one, unless it is higher.

    Returns the version then, or None if there is no such product.

    The same update may be sent again, as nginx does if the worker dies that has it.
    """
    with _transaction() as database:
        # All rows are fetched, which ends the statement and so commits: a product that is
        # invalidated before the commit may be loaded again unchanged.
        statement = "UPDATE product SET version = max(version, ?) WHERE number = ? RETURNING version"
        rows = database.execute(statement, (version, number)).fetchall()
    return rows[0][0] if rows else None


@contextmanager
def _transaction() -> Generator[sqlite3.Connection]:
    """Gives this thread's connection, and commits."""
    database = getattr(_of_thread, "connection", None)
    if database is None:
        database = sqlite3.connect(os.environ["FLEET_DATABASE"], timeout=10)
        _of_thread.connection = database
    with database:
        yield database


def make_database(path: Path) -> None:
    """Makes the database: the same each time."""
    choice = random.Random(1)
    with closing(sqlite3.connect(path)) as database:
        # (Readers do not wait for writers; nothing here must survive a crash of the machine.)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE product (number INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL)")
        database.executemany("INSERT INTO product VALUES (?, ?, 1)", ((number, f"product {number}") for number in range(1, PRODUCTS + 1)))
        database.execute("CREATE TABLE purchase (buyer INTEGER NOT NULL, product INTEGER NOT NULL)")
        purchases = ((choice.randrange(_BUYERS), choice.randint(1, PRODUCTS)) for _ in range(_PURCHASES))
        database.executemany("INSERT INTO purchase VALUES (?, ?)", purchases)
        database.execute("CREATE INDEX by_product ON purchase (product, buyer)")
        database.execute("CREATE INDEX by_buyer ON purchase (buyer, product)")
        database.commit()
        database.execute("ANALYZE")
        database.commit()
