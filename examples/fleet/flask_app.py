"""The shop in Flask."""

import os
from typing import Any

import caching
import source
import worker
from flask import Flask, abort, jsonify, render_template_string, request
from source import Product

app = Flask(__name__)

_PAGE = """<h1>{{ name }}</h1><p>Buyers also took:</p><ul>{% for other in bought_with %}<li>{{ other }}</li>{% endfor %}</ul>"""


@caching.pages
def page(number: int, version: int, name: str, bought_with: tuple[str, ...]) -> str:
    """Renders a product."""
    return render_template_string(_PAGE, name=name, bought_with=bought_with)


@app.before_request
def refuse() -> Any:
    """Answers 503 while the worker is out of service."""
    return ("out of service", 503) if worker.is_out() else None


@app.get("/product/<int:number>")
def show(number: int) -> Any:
    """Returns a product, and the worker that answers."""
    found = caching.tiers.product(number)
    if found is None:
        abort(404)
    product = Product._make(found)
    return jsonify(number=number, version=product.version, page=page(*product), worker=os.getpid())


@app.put("/product/<int:number>")
def update(number: int) -> Any:
    """Changes a product: writes, then invalidates."""
    version = source.update(number, int(request.args["version"]))
    if version is None:
        abort(404)
    return jsonify(version=version, confirmed=caching.tiers.invalidate(number), worker=os.getpid())


def begin() -> int:
    """Warms the worker; returns how many pages came from the snapshot."""
    restored = caching.restored(page)
    with app.app_context():
        caching.prewarm(lambda product: page(*product))
    return restored


def end() -> None:
    """Saves what the next worker begins with."""
    caching.save(page)
