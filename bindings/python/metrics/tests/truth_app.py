"""A WSGI application that records each load in a file, for tests that compare the metrics with it.

GET /product/N: a product, of the cache "products"; every tenth has none. GET /clear: clears the
cache. GET /metrics: the sum of the workers. Every response has the pid of its worker.
"""

import os

import hotset
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_log = os.open(os.environ["LOADS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@hotset.cached(maxsize=50, name="products")
def product(number):
    os.write(_log, b"f" if number % 10 == 0 else b"s")
    if number % 10 == 0:
        raise LookupError(number)
    return number


# Before the fork.
product(1), product(1)
registry = CollectorRegistry()
MultiProcessCollector(registry)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    status, body = "200 OK", b""
    if path == "/metrics":
        body = generate_latest(registry)
    elif path == "/clear":
        product.cache_clear()
    elif path == "/pid":
        body = str(os.getpid()).encode()
    else:
        try:
            body = str(product(int(path.removeprefix("/product/")))).encode()
        except LookupError:
            status = "404 Not Found"
    start_response(status, [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
    return [body]
