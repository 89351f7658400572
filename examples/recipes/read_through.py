"""Read-through: callers read from the cache, which loads from the source, one caller per key.

    python examples/recipes/read_through.py
"""

import sqlite3
import threading

import hotset

queries: list[int] = []
lock = threading.Lock()
database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT)")
database.executemany("INSERT INTO products VALUES (?, ?)", [(n, f"product {n}") for n in range(100)])

products: hotset.Cache[int, str | None] = hotset.Cache(1000, ttl=60, jitter=0.1, name="products")


def load(id: int) -> str | None:
    """Asks the database."""
    with lock:
        queries.append(id)
        row = database.execute("SELECT name FROM products WHERE id = ?", (id,)).fetchone()
    # A product that does not exist is remembered, too, but not for long.
    return row[0] if row else hotset.WithTtl(None, 5)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def product(id: int) -> str | None:
    """Returns a product's name, or None if there is no such product."""
    return products.get_or_load(id, load)


def main() -> None:
    threads = [threading.Thread(target=product, args=(7,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"20 threads requested a product: {product(7)}, {len(queries)} query")
    print(f"there is no product 1000: {product(1000)}, {product(1000)}, {queries.count(1000)} query")
    assert queries == [7, 1000]


if __name__ == "__main__":
    main()
