"""Processes that read, load and invalidate the same keys while servers and networks fail; every
read is checked.

    race.py [--seconds 60] [--processes 4] [--quiet] [--sabotage deaf] [--memcached]

The source is an array in shared memory: a version per key, which its writer raises before it
invalidates the key. A read is judged by what was true when it began:

- in the process that invalidated a key, no read begun afterwards returns an older version (read
  your writes);
- in another process, a read returns a version older than the newest confirmed invalidation only
  within the bound: what the bus may lag (2.5 s), or `local_ttl` around an outage; on memcached
  always `local_ttl`.
"""

import argparse
import asyncio
import contextlib
import json
import mmap
import os
import random
import re
import signal
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from servers import MemcachedServer, Server  # noqa: E402

import hotset  # noqa: E402
from hotset.tier2 import Memcached, Redis, _bus, _cache_loads, _clock, _commands, _session  # noqa: E402

KEYS = 64
# Invalidations that are remembered for each key.
DEPTH = 4096
# Around outages it is the bound, otherwise it must not be what ends an old value.
LOCAL_TTL_WITH_FAULTS = 4.0
LOCAL_TTL = 60.0
LOCAL_TTL_ON_MEMCACHED = 1.0
MAX_LAG = 2.5
# How long a thread that is ready may have to wait for a processor.
SLACK = 1.5
_WORD = struct.Struct("=q")


class Registry:
    """What all processes know: versions, and when each was invalidated."""

    def __init__(self):
        self._memory = mmap.mmap(-1, 8 * KEYS * (1 + 2 * DEPTH) + 64)

    def _read(self, at):
        return _WORD.unpack_from(self._memory, 8 * at)[0]

    def _write(self, at, value):
        _WORD.pack_into(self._memory, 8 * at, value)

    def version(self, key):
        return self._read(key)

    def raise_version(self, key):
        version = self._read(key) + 1
        self._write(key, version)
        return version

    def note_invalidated(self, key, version):
        at = KEYS + 2 * (key * DEPTH + version % DEPTH)
        self._write(at + 1, time.monotonic_ns())
        self._write(at, version)

    def invalidated_at(self, key, version):
        """When the invalidation that made `version` the oldest allowed was confirmed; None if it
        was not, or is long forgotten.
        """
        at = KEYS + 2 * (key * DEPTH + version % DEPTH)
        return self._read(at + 1) if self._read(at) == version else None


class Player:
    """One process: reads all keys, writes some of them."""

    def __init__(self, registry, url, number, processes, seed, has_faults):
        self.registry = registry
        self.chance = random.Random(seed)
        self.own = [key for key in range(KEYS) if key % processes == number]
        self.own_versions = dict.fromkeys(self.own, 0)
        if url.startswith("memcached://"):
            local_ttl = LOCAL_TTL_ON_MEMCACHED
            self.bound = local_ttl + SLACK
            shop = Memcached(url, prefix="race")
        else:
            local_ttl = LOCAL_TTL_WITH_FAULTS if has_faults else LOCAL_TTL
            self.bound = (max(MAX_LAG, local_ttl) if has_faults else MAX_LAG) + SLACK
            shop = Redis(url, prefix="race")
        self.cache = hotset.TieredCache(shop, "race", ttl=3600, local_ttl=local_ttl)
        self.reads = self.stale = self.loads = self.writes = 0
        self.oldest = 0.0
        self.wrong = []
        self.is_stopped = False
        self.locks = {key: threading.Lock() for key in self.own}

    def load(self, key):
        self.loads += 1
        version = self.registry.version(key)
        if self.chance.random() < 0.3:
            time.sleep(self.chance.random() * 0.004)
        return version

    async def load_async(self, key):
        self.loads += 1
        version = self.registry.version(key)
        if self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.random() * 0.004)
        return version

    def begin(self, key):
        return time.monotonic_ns(), self.own_versions.get(key, 0)

    def judge(self, key, begun, least, version):
        self.reads += 1
        if version is None:
            return
        if version < least:
            self.wrong.append(f"own write lost: key {key} version {version}, wrote {least}")
        confirmed = self.registry.invalidated_at(key, version + 1)
        if confirmed is not None and confirmed < begun:
            age = (begun - confirmed) / 1e9
            self.stale += 1
            self.oldest = max(self.oldest, age)
            if age > self.bound:
                self.wrong.append(f"too old: key {key} version {version}, {age:.3f} s after its invalidation")

    def read(self):
        key = self.chance.randrange(KEYS)
        begun, least = self.begin(key)
        kind = self.chance.random()
        if kind < 0.02:
            keys = self.chance.sample(range(KEYS), 5)
            notes = {key: self.begin(key) for key in keys}
            for key, version in self.cache.get_many(keys).items():
                self.judge(key, *notes[key], version)
            return
        self.judge(key, begun, least, self.cache.get(key) if kind < 0.1 else self.cache.get_or_load(key, self.load))

    def write(self):
        key = self.chance.choice(self.own)
        with self.locks[key]:
            version = self.registry.raise_version(key)
            kind = self.chance.random()
            if kind < 0.2:
                is_confirmed = self.cache.set(key, version)
            elif kind < 0.25:
                is_confirmed = self.cache.expire(key)
            else:
                is_confirmed = self.cache.delete(key)
            self.own_versions[key] = version
            if is_confirmed:
                self.registry.note_invalidated(key, version)
            self.writes += 1

    def run_reads(self):
        while not self.is_stopped:
            for _ in range(200):
                self.read()

    def run_writes(self):
        while not self.is_stopped:
            self.write()
            time.sleep(self.chance.random() * 0.02)

    async def run_tasks(self):
        async def read():
            while not self.is_stopped:
                for _ in range(20):
                    key = self.chance.randrange(KEYS)
                    begun, least = self.begin(key)
                    self.judge(key, begun, least, await self.cache.aget_or_load(key, self.load_async))
                await asyncio.sleep(0)

        async def write():
            while not self.is_stopped:
                key = self.chance.choice(self.own)
                version = self.registry.raise_version(key)
                is_confirmed = await (self.cache.aset(key, version) if self.chance.random() < 0.2 else self.cache.adelete(key))
                self.own_versions[key] = version
                if is_confirmed:
                    self.registry.note_invalidated(key, version)
                self.writes += 1
                await asyncio.sleep(self.chance.random() * 0.02)

        await asyncio.gather(*(read() for _ in range(4)), write())

    def play(self, seconds, is_async):
        timer = threading.Timer(seconds, self.stop)
        timer.start()
        if is_async:
            asyncio.run(self.run_tasks())
        else:
            threads = [threading.Thread(target=self._guarded, args=(target,)) for target in (self.run_reads, self.run_reads, self.run_writes)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        server = self.cache.stats()["server"]
        return {
            "reads": self.reads,
            "stale": self.stale,
            "oldest": self.oldest,
            "loads": self.loads,
            "writes": self.writes,
            "wrong": self.wrong[:5],
            "server": {name: server[name] for name in ("clears", "bus_lost", "breaker_opened", "journalled", "timeouts", "fences", "last_failure")},
        }

    def _guarded(self, target):
        try:
            target()
        except BaseException as error:
            self.wrong.append(repr(error))
            self.stop()

    def stop(self):
        self.is_stopped = True


def trouble_memcached(nodes, end, chance, faults):
    """Does harm to some of the servers until then; returns what it did."""
    done = []
    while time.monotonic() < end - 6:
        time.sleep(chance.uniform(0.2, 2))
        fault, server = chance.choice(faults), chance.choice(nodes)
        done.append(fault)
        if fault == "flush":
            server.ask("flush_all")
        elif fault == "stop":
            server.stop()
            time.sleep(chance.uniform(0.1, 2))
            server.resume()
        elif fault == "restart":
            server.kill()
            time.sleep(chance.uniform(0, 1))
            server.start()
    return done


def trouble(server, end, chance, faults):
    """Does harm to the server until then; returns what it did."""
    done = []
    while time.monotonic() < end - 6:
        time.sleep(chance.uniform(0.5, 3))
        fault = chance.choice(faults)
        done.append(fault)
        try:
            if fault == "kill connections":
                server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            elif fault == "kill bus":
                server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            elif fault == "flush":
                server.ask("FLUSHALL")
            elif fault == "pause":
                server.ask("CLIENT", "PAUSE", chance.randrange(50, 1000))
            elif fault == "stop":
                server.stop()
                time.sleep(chance.uniform(0.1, 2))
                server.resume()
            elif fault == "restart":
                server.kill()
                time.sleep(chance.uniform(0, 1))
                server.start()
        except (OSError, RuntimeError):
            # (It may be paused.)
            pass
    return done


FAULTS = ("kill connections", "kill bus", "flush", "pause", "stop", "restart")
FAULTS_OF_MEMCACHED = ("flush", "stop", "restart")


def sabotage(what):
    """Breaks a rule of the protocol in this process: the race must find that."""
    if what == "deaf":
        # Invalidations of other processes are not applied.
        _session.Session.apply = lambda self, key: None
    elif what == "keep":
        # What this process invalidates stays in its own first tier.
        _cache_loads.MappingTier.invalidate = lambda self, args, kwargs: None
    elif what == "stale fill":
        # A load fills whatever happened since it began.
        _commands.SWAP_SCRIPT = _commands.Script("redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1")
        begin = _session.Session.__init__

        def patched(self, options):
            begin(self, options)
            if self.memcached is not None:
                self.pack = _pack_without_comparison

        _session.Session.__init__ = patched
    elif what == "forget":
        # What was not confirmed is not repeated.
        _bus.BusThread._perform = _without_replays(_bus.BusThread._perform)
    elif what is not None:
        raise ValueError(what)


def _pack_without_comparison(commands):
    """Sends memcached's commands without their CAS numbers."""
    return re.sub(rb"^(ms \S+ \d+ T\d+) C\d+", rb"\1", b"".join(commands), flags=re.MULTILINE)


def _without_replays(turn):
    def replaced(self, action):
        if action == _bus._OPERATE:
            op = self._core.background_operation(self._number, _clock.now())
            while op is not None and op.action in _commands.NETWORK:
                op.reply(_clock.now(), self._core.epoch(self._number), True)
            return
        turn(self, action)

    return replaced


def race(seconds, processes=4, faults=FAULTS, seed=None, broken=None, memcached=False):
    """Runs the race; returns what each process reports. `broken`: what is sabotaged; `memcached`:
    whether to use three memcached servers instead of Redis.
    """
    seed = random.randrange(2**32) if seed is None else seed
    chance = random.Random(seed)
    registry = Registry()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if memcached:
            nodes = [stack.enter_context(MemcachedServer()) for _ in range(3)]
            url = "memcached://" + ",".join(node.address for node in nodes)
        else:
            server = stack.enter_context(Server(Path(folder)))
            url = server.url
        children = []
        try:
            for number in range(processes):
                reader, writer = os.pipe()
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        os.close(reader)
                        sabotage(broken)
                        player = Player(registry, url, number, processes, seed + number, bool(faults))
                        report = player.play(seconds, is_async=number == 1)
                        os.write(writer, json.dumps(report).encode())
                        status = 0
                    finally:
                        os._exit(status)
                os.close(writer)
                children.append((pid, reader))
            end = time.monotonic() + seconds
            done = []
            if faults:
                done = trouble_memcached(nodes, end, chance, faults) if memcached else trouble(server, end, chance, faults)
            reports = []
            for pid, reader in children:
                with os.fdopen(reader, "rb") as pipe:
                    text = pipe.read()
                os.waitpid(pid, 0)
                reports.append(json.loads(text) if text else {"wrong": ["the process died"], "reads": 0, "stale": 0, "oldest": 0.0})
            children = []
        finally:
            for pid, _ in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return {"seed": seed, "faults": done, "processes": reports}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--quiet", action="store_true", help="no faults")
    parser.add_argument("--memcached", action="store_true", help="three memcached servers instead of Redis")
    parser.add_argument("--sabotage", choices=("deaf", "keep", "stale fill", "forget"))
    arguments = parser.parse_args()
    faults = FAULTS_OF_MEMCACHED if arguments.memcached else FAULTS
    outcome = race(
        arguments.seconds, arguments.processes, () if arguments.quiet else faults, arguments.seed, arguments.sabotage, arguments.memcached
    )
    for report in outcome["processes"]:
        print(report)
    print("seed", outcome["seed"], "faults", outcome["faults"])
    reads = sum(report["reads"] for report in outcome["processes"])
    stale = sum(report["stale"] for report in outcome["processes"])
    oldest = max(report["oldest"] for report in outcome["processes"])
    print(f"{reads} reads, {stale} within the bound after an invalidation elsewhere, the oldest {oldest * 1e3:.1f} ms")
    wrong = [text for report in outcome["processes"] for text in report["wrong"]]
    if wrong:
        print(*wrong, sep="\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
