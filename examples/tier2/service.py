"""A Flask service behind two tiers of cache: each worker's memory, and Redis, before SQLite.

`demo.py` runs it under gunicorn, with these environment variables:

    DEMO_DATABASE   path of the database
    DEMO_REDIS      URL of the server
    DEMO_LOCAL_TTL  seconds for which a worker stores a product without new confirmation
    DEMO_STATS      folder in which each worker publishes its counters
"""

import json
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from flask import Flask, abort, jsonify

import hotset
from hotset.tier2 import Redis

DATABASE = os.environ["DEMO_DATABASE"]
STATS = Path(os.environ["DEMO_STATS"])
QUERY_SECONDS = 0.01
STATS_INTERVAL = 0.2

app = Flask(__name__)
shop = Redis(os.environ["DEMO_REDIS"], prefix="demo")


def open_database() -> Any:
    """Returns a connection to the database, which closes at the end of a `with` statement."""
    return closing(sqlite3.connect(DATABASE, timeout=10, isolation_level=None))


@hotset.cached(maxsize=300, ttl=60, tier2=shop, local_ttl=float(os.environ["DEMO_LOCAL_TTL"]))
def product(number: int) -> dict[str, Any] | None:
    """Loads a product from the database; None if there is none of this number."""
    with open_database() as database:
        row = database.execute("SELECT name, version FROM product WHERE number = ?", (number,)).fetchone()
    # A query of a real shop takes longer. An update that commits during this sleep makes the row
    # out of date before it is cached.
    time.sleep(QUERY_SECONDS)
    return None if row is None else {"number": number, "name": row[0], "version": row[1]}


@app.get("/product/<int:number>")
def show(number: int) -> Any:
    """Returns a product, and the worker that answers."""
    found = product(number)
    if found is None:
        abort(404)
    return jsonify({**found, "worker": os.getpid()})


@app.post("/product/<int:number>")
def update(number: int) -> Any:
    """Changes a product: writes, then invalidates."""
    with open_database() as database:
        # All rows are fetched, which ends the statement and so commits: a product that is
        # invalidated before the commit may be loaded again unchanged.
        rows = database.execute("UPDATE product SET version = version + 1 WHERE number = ? RETURNING version", (number,)).fetchall()
    if not rows:
        abort(404)
    is_confirmed = product.cache_invalidate(number)
    return jsonify(version=rows[0][0], confirmed=is_confirmed, worker=os.getpid())


@app.get("/stats")
def stats() -> Any:
    """Returns the counters of all workers, by worker."""
    return jsonify({path.stem: json.loads(path.read_text()) for path in STATS.glob("*.json")})


def publish_stats() -> None:
    """Writes this worker's counters to a file periodically: nginx chooses the worker of `/stats`.
    """
    path = STATS / f"{os.getpid()}.json"
    while True:
        at = time.monotonic()
        counted = product.cache_tier2_stats()
        tier1, tier2, server = counted["tier1"], counted["tier2"], counted["server"]
        node = server["nodes"].get(0, {"link": "unknown", "bus": "unknown"})
        published = {
            "at": at,
            "tier1_hits": tier1["hits"],
            "tier1_misses": tier1["misses"],
            "tier2_hits": tier2["hits"],
            "tier2_misses": tier2["misses"],
            "loads": tier2["loads"],
            "losses": server["bus_lost"] + server["breaker_opened"] + server["journalled"],
            "journal": server["journal"],
            "link": node["link"],
            "bus": node["bus"],
        }
        path.with_suffix(".new").write_text(json.dumps(published))
        path.with_suffix(".new").replace(path)
        time.sleep(STATS_INTERVAL)


# Without `--preload`, gunicorn imports this module in each worker.
threading.Thread(target=publish_stats, name="stats", daemon=True).start()
