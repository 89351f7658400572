"""Write-through: a write goes to the source first, and then to the cache for the next read.

    python examples/recipes/write_through.py
"""

import sqlite3

import hotset

database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE prices (name TEXT PRIMARY KEY, cents INTEGER CHECK (cents > 0))")
queries: list[str] = []
prices: hotset.Cache[str, int] = hotset.Cache(1000, ttl=300, name="prices")


def load(name: str) -> int:
    """Asks the database."""
    queries.append(name)
    found: tuple[int] = database.execute("SELECT cents FROM prices WHERE name = ?", (name,)).fetchone()
    return found[0]


def price(name: str) -> int:
    """Returns a price."""
    return prices.get_or_load(name, load)


def set_price(name: str, cents: int) -> None:
    """Sets a price in the database, and then in the cache.

    If the database refuses it, the cache keeps the price that is still valid. A load of the price
    that is in progress does not overwrite the new one: a `set` invalidates it.
    """
    with database:
        database.execute("INSERT INTO prices VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET cents = excluded.cents", (name, cents))
    prices[name] = cents


def main() -> None:
    set_price("tea", 320)
    print(f"tea: {price('tea')} cents, {len(queries)} queries")
    try:
        set_price("tea", -1)
    except sqlite3.IntegrityError:
        print(f"refused: tea still costs {price('tea')} cents, {len(queries)} queries")
    assert price("tea") == 320 and not queries
    prices.clear()
    print(f"after the cache was lost: {price('tea')} cents, {len(queries)} query")
    assert queries == ["tea"]


if __name__ == "__main__":
    main()
