"""A service for uvicorn, with results in two tiers: counts its loads in a file."""

import asyncio
import os

import hotset
from hotset.tier2 import Redis

shop = Redis(os.environ["TIER2_URL"], prefix="app")


@hotset.cached(ttl=300, tier2=shop, name="page")
async def page(key):
    with open(os.environ["TIER2_LOADS"], "a") as file:
        file.write(f"{os.getpid()} {key}\n")
    await asyncio.sleep(float(os.environ.get("TIER2_SLOW", "0.05")))
    return f"page {key}"


async def reply(path):
    match path.split("/")[1:]:
        case ["page", key]:
            return await page(key)
        case ["invalidate", key]:
            return str(await page.cache_ainvalidate(key))
        case ["state"]:
            return page.cache_tier2_stats()["server"]["nodes"][0]["bus"]
    return str(os.getpid())


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await shop.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = (await reply(scope["path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
