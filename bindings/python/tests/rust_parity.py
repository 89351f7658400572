"""Checks that a cache in Rust (examples/tiered.rs) and one in Python share their entries.

    python rust_parity.py PROGRAM

Run by `make test-tiered-python`, which builds the program.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import hotset
from hotset.tier2 import Redis

KEYS = ("tea", "a{b}%\u00e9:;", "x" * 300)


def until(holds: Callable[[], bool]) -> None:
    """Waits until a change has arrived."""
    while not holds():
        time.sleep(0.001)


def check(program: str, url: str) -> None:
    """Reads in each language what the other one wrote, and removes it."""
    server = Redis(url, prefix="demo")
    prices = hotset.TieredCache(server, "prices", maxsize=100, ttl=300, codec="bytes")
    # The server has just started.
    until(lambda: prices.set("ready", b"1") is not False and prices.get("ready") == b"1")
    with subprocess.Popen([program, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as rust:
        stdin, stdout = rust.stdin, rust.stdout
        assert stdin is not None
        assert stdout is not None

        def run(line: str) -> str:
            stdin.write(line + "\n")
            stdin.flush()
            return stdout.readline().strip()

        for key in KEYS:
            prices.set(key, b"python")
            assert run(f"get {key}") == "python", key
            assert run(f"set {key} rust") == "done", key
            until(lambda key=key: prices.get(key) == b"rust")
            assert run(f"remove {key}") == "done", key
            until(lambda key=key: prices.get(key) is None)
        stdin.close()
    server.close()


def main() -> None:
    """Starts a server, and checks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                check(sys.argv[1], f"redis://127.0.0.1:{port}/0")
            finally:
                server.terminate()
    print("Rust and Python share their entries")


if __name__ == "__main__":
    main()
