"""Reports what a server can do as a second tier: `check()` of a `Redis` or `Memcached`, and
`python -m hotset tier2 URL`.
"""

import argparse
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from hotset.tier2._bus import Tracking
from hotset.tier2._clock import now
from hotset.tier2._commands import SWAP_SCRIPT
from hotset.tier2._errors import Failed, Unavailable
from hotset.tier2._memcached import fields
from hotset.tier2._resp import ServerError, encode

if TYPE_CHECKING:
    from hotset.tier2._server import SecondTier
    from hotset.tier2._session import Session

_ROUNDS: Final = 300
_USUAL_ITEM: Final = 1 << 20


def check(server: "SecondTier") -> dict[str, Any]:
    """Returns identity and abilities of the servers, by address.

    Args:
        server: The second tier.

    Raises:
        Unavailable: A server cannot be reached, or lacks a requirement.
    """
    session = server.session
    session.topology.node_of(b"")
    check_node = _check_node if session.memcached is None else _check_memcached
    found: dict[str, Any] = {}
    for number in session.topology.numbers:
        host, port = session.topology.address_of(number)
        try:
            found[f"{host}:{port}" if port else host] = check_node(session, number)
        except Failed as failed:
            raise Unavailable(str(failed)) from failed
    if not found:
        raise Unavailable(str(session.failure))
    _require(server, found)
    return found


def _require(server: "SecondTier", found: dict[str, Any]) -> None:
    lease = "scripts" if server.session.memcached is None else "cas"
    for name, can in (("bus", "tracking"), ("lease", lease)):
        if name in server.requirements:
            for where, about in found.items():
                if about[can] is not True:
                    raise Unavailable(f"require={name!r}: {where} refuses it: {about[can]}")


def _check_node(session: "Session", number: int) -> dict[str, Any]:
    session.probe(number)
    connection = session.take(number)
    greeting = connection.greeting

    def ask(*command: bytes | int) -> Any:
        return connection.exchange(encode(*command), 1)[0]

    scratch = session.prefix + b":check"
    begun = now()
    ask(b"GET", scratch)
    round_trip = now() - begun
    scripts = ask(*SWAP_SCRIPT.command(scratch, b"expected", b"", 1, whole=True))
    policy = ask(b"CONFIG", b"GET", b"maxmemory-policy")
    limit = ask(b"CONFIG", b"GET", b"maxmemory")
    session.give_back(number, connection)
    try:
        tracking = Tracking(session, number)
    except Failed as failed:
        tracks: bool | str = str(failed)
    else:
        tracks = True
        tracking.close()
    return {
        "server": ("Valkey " if greeting.is_valkey else "Redis ") + ".".join(map(str, greeting.version)),
        "tracking": tracks,
        "scripts": str(scripts) if isinstance(scripts, ServerError) else True,
        "fencing": greeting.can_kill,
        "maxmemory": _setting(limit),
        "maxmemory-policy": _setting(policy),
        "round trip, us": round(round_trip / 1e3, 1),
    }


def _check_memcached(session: "Session", number: int) -> dict[str, Any]:
    session.probe(number)
    connection = session.take(number)
    begun = now()
    connection.exchange(b"version\r\n", 1)
    round_trip = now() - begun
    settings, statistics = (fields(reply) for reply in connection.exchange(b"stats settings\r\nstats\r\n", 2))
    session.give_back(number, connection)
    greeting = connection.greeting
    has_cas = settings.get("cas_enabled", "yes") == "yes"
    return {
        "server": f"memcached {greeting.text}",
        "commands": "meta" if greeting.has_meta else "classic",
        "cas": True if has_cas else "it runs without CAS (-C)",
        "item size": int(settings.get("item_size_max", "0")),
        "memory": int(statistics.get("limit_maxbytes", "0")),
        "evictions": int(statistics.get("evictions", "0")),
        "round trip, us": round(round_trip / 1e3, 1),
    }


def _advise_on_memcached(about: dict[str, Any]) -> list[str]:
    advice: list[str] = []
    if about["cas"] is not True:
        advice.append("no CAS: nothing is stored, as a comparison would not be one (start memcached without -C)")
    if about["commands"] == "classic":
        advice.append("no meta commands (memcached 1.6.13 has them): a soft expiration removes the value, and more requests transfer it")
    if about["item size"] and about["item size"] < _USUAL_ITEM:
        advice.append(f"items of at most {about['item size']} bytes: max_value must be 2 KiB less")
    return advice


def _setting(reply: Any) -> str:
    if isinstance(reply, list) and len(cast("list[bytes]", reply)) == 2:
        return cast("list[bytes]", reply)[1].decode("utf-8", "replace")
    return "unknown"


def _advice(about: dict[str, Any]) -> list[str]:
    if "commands" in about:
        return _advise_on_memcached(about)
    advice: list[str] = []
    if about["tracking"] is not True:
        advice.append(f"no announcements of changes: local_ttl (5 s) bounds how old values may be ({about['tracking']})")
    if about["scripts"] is not True:
        advice.append(f"no scripts: loads cannot be shared, and are stored in each process alone ({about['scripts']})")
    if not about["fencing"]:
        advice.append("no CLIENT KILL: a set that timed out delays the next one of its key by up to 0.2 s")
    if about["maxmemory-policy"] == "volatile-ttl" and about["maxmemory"] not in ("0", "unknown"):
        advice.append("volatile-ttl evicts leases first, as they live for 1.5 s: allkeys-lru or allkeys-lfu suit a cache")
    if about["maxmemory-policy"] == "noeviction" and about["maxmemory"] not in ("0", "unknown"):
        advice.append("noeviction refuses writes when memory is full: allkeys-lru or allkeys-lfu suit a cache")
    return advice


# --- The command.


def _measure(call: Callable[[], object], rounds: int = _ROUNDS) -> list[float]:
    times: list[float] = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - begun) / 1e3)
    return times


def _line(label: str, times: list[float]) -> str:
    times = sorted(times)
    return f"  {label:34} p50 {statistics.median(times):9.1f} us   p99 {times[min(len(times) - 1, len(times) * 99 // 100)]:9.1f} us"


def main(arguments: list[str]) -> int:
    """Runs `python -m hotset tier2`.

    Args:
        arguments: The arguments of the command line.

    Returns:
        The exit status.
    """
    from hotset.tier2 import Memcached, Redis

    parser = argparse.ArgumentParser(prog="python -m hotset tier2", description="Reports what a server can do as a second tier, and how fast it is.")
    parser.add_argument("url", help="redis://host:6379/0, rediss://.., unix://.., memcached://host:11211,host:11211")
    parser.add_argument("--prefix", default="hotset-check", help="prefix of the written keys, which expire after a minute (%(default)s)")
    parser.add_argument("--timeout", type=float, default=0.5, help="seconds for one request (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        made: type[Memcached] | type[Redis] = Memcached if given.url.startswith("memcached://") else Redis
        servers = [made(given.url, prefix=given.prefix, timeout=given.timeout, connect_timeout=given.timeout) for _ in range(2)]
    except (ValueError, TypeError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return _report(*servers)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        for server in servers:
            server.close()


def _report(one: "SecondTier", other: "SecondTier") -> int:
    for where, about in one.check().items():
        print(where)
        for name, value in about.items():
            print(f"  {name:20} {('yes' if value else 'no') if isinstance(value, bool) else value}")
        for line in _advice(about):
            print(f"  ! {line}")
    from hotset.tier2 import TieredCache

    name = secrets.token_hex(4)
    caches: list[TieredCache[Any, Any]] = [TieredCache(server, name, ttl=60) for server in (one, other)]
    for each in caches:
        each.set("k", "x" * 100)
    end = time.monotonic() + 5
    while one.has_bus and not _is_armed(caches[0]) and time.monotonic() < end:
        time.sleep(0.01)
    print("bus: none, local_ttl bounds how old values may be" if not one.has_bus else f"bus: {'armed' if _is_armed(caches[0]) else 'not armed within 5 s: local_ttl bounds how old values may be'}")
    print("latencies:")
    first, second = caches
    number = iter(range(sys.maxsize))
    first.get("k")
    time.sleep(0.05)
    first.get("k")
    print(_line("hit in the first tier", _measure(lambda: first.get("k"))))
    keys = [f"h{n}" for n in range(_ROUNDS)]
    second.set_many({key: "x" * 100 for key in keys})
    unread = iter(keys)
    print(_line("hit in the second tier", _measure(lambda: first.get(next(unread)))))
    print(_line("miss, load and fill", _measure(lambda: first.get_or_load(next(number), lambda _: "x" * 100))))
    print(_line("set", _measure(lambda: first.set("k", "x" * 100))))
    print(_line("delete", _measure(lambda: first.delete("k"))))
    if _is_armed(second):
        print(_line("delete, until seen elsewhere", [_until_seen(first, second, at) for at in range(100)]))
    return 0


def _is_armed(cache: Any) -> bool:
    return any(node["bus"] == "armed" for node in cache.stats()["server"]["nodes"].values())


def _until_seen(writer: Any, reader: Any, turn: int) -> float:
    writer.set("seen", turn)
    while reader.get("seen") != turn:
        pass
    begun = time.perf_counter_ns()
    writer.delete("seen")
    while reader.get("seen") is not None:
        pass
    return (time.perf_counter_ns() - begun) / 1e3
