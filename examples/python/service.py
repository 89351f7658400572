"""An asyncio service before a slow source: rates by currency, over TCP, one line per request.

A hundred clients request a rate concurrently, and the source gets one request. One client hangs up,
without effect on the others. An expired rate is still returned while it is reloaded; and while the
source is down, the old rate is returned.

    python examples/python/service.py
"""

import asyncio

import hotset

asked: list[str] = []
answering: set[asyncio.Task[None] | None] = set()
down = False


@hotset.cached(maxsize=1000, ttl=0.2, stale_while_revalidate=0.2, stale_if_error=60, negative_ttl=0.05, name="rates")
async def rate(currency: str) -> str:
    """Returns the slow source's answer."""
    asked.append(currency)
    await asyncio.sleep(0.05)
    if down:
        raise ConnectionError("the source is down")
    return f"{sum(map(ord, currency)) / 100:.2f}"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One client."""
    answering.add(asyncio.current_task())
    try:
        while line := await reader.readline():
            try:
                text = await rate(line.decode(errors="replace").strip())
            except ConnectionError as error:
                text = f"error: {error}"
            writer.write(text.encode() + b"\n")
            await writer.drain()
    except ConnectionError:
        pass  # The client hung up.
    finally:
        writer.close()
        answering.discard(asyncio.current_task())


async def ask(port: int, currency: str) -> str:
    """What a client does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(currency.encode() + b"\n")
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()


async def main() -> None:
    global down
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async with server:
        clients = [asyncio.create_task(ask(port, "EUR")) for _ in range(100)]
        await asyncio.sleep(0.02)
        clients[0].cancel()
        answers = await asyncio.gather(*clients, return_exceptions=True)
        served = [text for text in answers if isinstance(text, str)]
        print(f"{len(served)} clients served with {set(served)}, 1 hung up; {len(asked)} request(s) to the source")

        await asyncio.sleep(0.25)
        start = asyncio.get_running_loop().time()
        text = await ask(port, "EUR")
        took = asyncio.get_running_loop().time() - start
        print(f"after its ttl it is returned immediately ({text} in {took * 1000:.0f} ms), and reloaded in the background")
        await asyncio.sleep(0.1)
        print(f"{len(asked)} request(s) to the source")

        down = True
        await asyncio.sleep(0.6)
        print(f"the source is down: EUR {await ask(port, 'EUR')}, USD {await ask(port, 'USD')}")

    while answering:  # until the last of them has seen that its client is gone
        await asyncio.sleep(0.01)
    print(rate.cache_info())


if __name__ == "__main__":
    asyncio.run(main())
