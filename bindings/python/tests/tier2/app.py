"""A service for gunicorn, with a cache in two tiers: counts its loads in a file."""

import os
import time

import flask

import hotset
from hotset.tier2 import Redis

app = flask.Flask(__name__)
shop = Redis(os.environ["TIER2_URL"], prefix="app")
prices = hotset.TieredCache(shop, "prices", ttl=300)
LOADS = os.environ["TIER2_LOADS"]


@hotset.cached(ttl=300, tier2=shop, name="page")
def page(key):
    note(key)
    time.sleep(float(os.environ.get("TIER2_SLOW", "0.05")))
    return f"page {key}"


def note(key):
    with open(LOADS, "a") as file:
        file.write(f"{os.getpid()} {key}\n")


if os.environ.get("TIER2_EARLY"):
    # Used before the fork, by the parent.
    prices.set("early", 1)
    prices.get("early")


@app.get("/page/<key>")
def get_page(key):
    return page(key)


@app.get("/invalidate/<key>")
def invalidate(key):
    return str(page.cache_invalidate(key))


@app.get("/set/<key>/<value>")
def set_price(key, value):
    return str(prices.set(key, value))


@app.get("/get/<key>")
def get_price(key):
    return f"{prices.get(key)}"


@app.get("/pid")
def pid():
    return str(os.getpid())


@app.get("/state")
def state():
    return prices.stats()["server"]["nodes"][0]["bus"]
