"""The shop in FastAPI, and uvicorn with four workers, each with a socket of its own."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from html import escape
from typing import Any

import uvicorn
import worker
from uvicorn.supervisors import Multiprocess


def make_app() -> Any:
    """Makes the application: called in each worker, when it has claimed its place."""
    import asyncio

    import caching
    import source
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import JSONResponse, PlainTextResponse
    from source import Product

    @caching.pages
    def page(number: int, version: int, name: str, bought_with: tuple[str, ...]) -> str:
        others = "".join(f"<li>{escape(other)}</li>" for other in bought_with)
        return f"<h1>{escape(name)}</h1><p>Buyers also took:</p><ul>{others}</ul>"

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        restored = caching.restored(page)
        await caching.aprewarm(lambda product: page(*product))
        worker.publish(restored)
        yield
        # Here rather than at the interpreter's exit, which uvicorn does not reach: it dies of its
        # signal.
        caching.save(page)

    class RefuseWhenOut:
        """Answers 503 while the worker is out of service."""

        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            is_out = scope["type"] == "http" and worker.is_out()
            await (PlainTextResponse("out of service", 503) if is_out else self._app)(scope, receive, send)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(RefuseWhenOut)

    @app.get("/product/{number}")
    async def show(number: int) -> JSONResponse:
        found = await caching.tiers.aproduct(number)
        if found is None:
            raise HTTPException(404)
        product = Product._make(found)
        return JSONResponse({"number": number, "version": product.version, "page": page(*product), "worker": os.getpid()})

    @app.put("/product/{number}")
    async def update(number: int, version: int) -> JSONResponse:
        updated = await asyncio.to_thread(source.update, number, version)
        if updated is None:
            raise HTTPException(404)
        confirmed = await caching.tiers.ainvalidate(number)
        return JSONResponse({"version": updated, "confirmed": confirmed, "worker": os.getpid()})

    return app


class PlacedConfig(uvicorn.Config):
    """uvicorn's settings, with the socket of the worker's place."""

    def load(self) -> None:
        """Called in a new worker, before it makes the application."""
        worker.claim("fastapi")
        self.uds = worker.socket_path()
        super().load()


if __name__ == "__main__":
    # (By its name, since `__main__` is another module in the workers.)
    from fastapi_app import PlacedConfig, make_app

    config = PlacedConfig(make_app, factory=True, workers=worker.WORKERS, log_level="warning", access_log=False, lifespan="on")
    # (Without a socket that the workers would share.)
    Multiprocess(config, sockets=None).run()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
