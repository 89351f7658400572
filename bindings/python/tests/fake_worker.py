"""A process that keeps a stats file, written after the reference of the format: for tests of what
reads such files.

`python fake_worker.py FILE` takes one JSON document per line of its standard input: the caches of
its next publication, after which it prints the requests it found. It ends with its input.
"""

import json
import os
import struct
import sys
import time
import zlib
from pathlib import Path

UNKNOWN = 2**64 - 1
SLOT = 128 + 256 * 2048
COUNTERS = (
    "hits", "misses", "stale_hits", "waits", "insertions", "evictions", "evicted_weight", "rejections", "expirations", "loads",
    "load_failures", "load_time",
)  # fmt: skip
TIER2 = ("hits", "misses", "failures", "writes", "invalidations")


def record(number, cache):
    name = os.fsencode(cache["name"]) if isinstance(cache["name"], str) else cache["name"]
    data = bytearray(2048)
    tier2 = cache.get("tier2")
    struct.pack_into("<QII", data, 0, number, bool(cache.get("weighted")) | (4 if tier2 else 0), len(name))
    data[16 : 16 + len(name)] = name
    counters = [cache.get(counter, 0) for counter in COUNTERS]
    figures = [
        time.time_ns(), cache.get("capacity", UNKNOWN), cache.get("weight", cache.get("entries", 0)), cache.get("entries", 0),
        cache.get("bytes", UNKNOWN), *counters, *(tier2[name] if tier2 else UNKNOWN for name in TIER2),
    ]  # fmt: skip
    struct.pack_into("<17Q8x5Q", data, 272, *figures)
    struct.pack_into("<3Q", data, 456, UNKNOWN, UNKNOWN, UNKNOWN)
    buckets = cache.get("buckets", [])
    struct.pack_into("<I", data, 480, len(buckets))
    for place, (upper, loads) in enumerate(buckets):
        struct.pack_into("<Q", data, 488 + 8 * place, UNKNOWN if upper is None else upper)
        struct.pack_into("<Q", data, 680 + 8 * place, loads)
    struct.pack_into("<I", data, 872, len(cache.get("curve", [])))
    for place, (capacity, ratio, size) in enumerate(cache.get("curve", [])):
        struct.pack_into("<QdQ", data, 880 + 24 * place, capacity, ratio, UNKNOWN if size is None else size)
    struct.pack_into("<I", data, 1072, len(cache.get("samples", [])))
    for place, sample in enumerate(cache.get("samples", [])):
        struct.pack_into("<3I", data, 1080 + 12 * place, *sample)
    return bytes(data)


class StatsFile:
    """A stats file of this process."""

    def __init__(self, path, program="worker", kind=3):
        self.sequence = self.answered = self.answer = 0
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        header = bytearray(4096)
        header[:8] = b"HOTSTAT\0"
        fields = [1, 4096, SLOT, 128, 2048, 256, kind, os.getpid(), 0, time.time_ns(), 0, self.file, os.getppid(), os.geteuid(), 0]
        struct.pack_into("<8I3Q4I", header, 8, *fields)
        program = program.encode("utf-8", "surrogateescape")
        header[128 : 128 + len(program)] = program
        struct.pack_into("<I", header, 508, zlib.crc32(header[:508]))
        os.pwrite(self.file, header, 0)
        os.ftruncate(self.file, 4096 + 2 * SLOT)

    def publish(self, caches, monotonic=None, omitted=0):
        """Publishes caches; returns the cache of a request that it has answered by that."""
        number, operation, _, cache = struct.unpack("<QIIQ", os.pread(self.file, 24, 512))
        found = None
        if number not in (0, self.answered):
            self.answered, self.answer, found = number, 1 if operation == 1 else 3, cache
        self.sequence += 1
        monotonic = time.monotonic() if monotonic is None else monotonic
        slot = bytearray(128) + b"".join(record(place + 1, each) for place, each in enumerate(caches))
        head = [0, len(slot), self.sequence, time.time_ns(), int(monotonic * 1e9), len(caches), omitted, self.answered, self.answer]
        struct.pack_into("<2I3Q2IQI", slot, 0, *head)
        struct.pack_into("<I", slot, 0, zlib.crc32(slot[4:]))
        os.pwrite(self.file, slot, 4096 + self.sequence % 2 * SLOT)
        return found


if __name__ == "__main__":
    stats = StatsFile(sys.argv[1].replace("PID", str(os.getpid())), *sys.argv[2:3])
    for line in sys.stdin:
        print(json.dumps(stats.publish(json.loads(line))), flush=True)
    Path(sys.argv[1].replace("PID", str(os.getpid()))).unlink(missing_ok=True)
