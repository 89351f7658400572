"""A Flask application whose slow backend is cached; `web.py` runs it under gunicorn.

    gunicorn --workers 2 --threads 8 --preload --chdir examples/python app:app
"""

import os
import threading
import time
from typing import Any

from flask import Flask, jsonify

import hotset

app = Flask(__name__)
queries = 0
_counting = threading.Lock()


@hotset.cached(maxsize=10_000, ttl=1, name="products")
def product(number: int) -> dict[str, Any]:
    """Returns a slow database's answer."""
    global queries
    with _counting:
        queries += 1
    time.sleep(0.1)
    return {"number": number, "price": number * 3 + 1}


# Loaded before gunicorn forks: every worker starts with this result, in a cache of its own.
product(1)


@app.get("/product/<int:number>")
def show(number: int) -> Any:
    return jsonify(product(number))


@app.get("/statistics")
def statistics() -> Any:
    """Of this worker."""
    caches = {name: {**stats._asdict(), "hit_ratio": stats.hit_ratio} for name, stats in hotset.stats().items()}
    return jsonify(worker=os.getpid(), queries=queries, caches=caches)
