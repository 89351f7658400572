"""A service in C, one in Rust and one in Python in front of one Redis: they stay coherent while the
server is killed, restarted, stopped and continued.

    python all.py C_PROGRAM RUST_PROGRAM

Run by `make demo-tier2-all`. Fails if the services differ where they must not.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PYTHON_PROGRAM = Path(__file__).parent.parent / "python" / "tiered.py"


class Service:
    """One of the services: a process that answers a line with a line."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.loads = 0
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def send(self, line: str) -> None:
        """Sends a command.

        Args:
            line: The command.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Returns the answer to the last command."""
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()).startswith("(loading"):
            self.loads += 1
        if not line:
            raise SystemExit(f"the service in {self.name} ended")
        return line.strip()

    def run(self, line: str) -> str:
        """Sends a command, and returns its answer.

        Args:
            line: The command.
        """
        self.send(line)
        return self.answer()

    def close(self) -> None:
        """Ends the service."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Server:
    """A redis-server on a free port, with a folder of its own."""

    def __init__(self, folder: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        """The address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it, and waits until it accepts connections."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self._process.poll() is not None:
                    raise SystemExit("redis-server ended") from None
                time.sleep(0.01)
            else:
                return

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal.

        Args:
            number: The signal.
        """
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kills it: what it had in memory is lost."""
        self._process.kill()
        self._process.wait()


def say(text: str = "") -> None:
    """Prints a line.

    Args:
        text: The line.
    """
    print(text, flush=True)


def check(holds: bool, what: str) -> None:
    """Ends the demonstration if a promise is broken.

    Args:
        holds: Whether it is kept.
        what: The promise.
    """
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def show(services: list[Service], line: str) -> list[str]:
    """Sends a command to all services at the same time, and prints their answers.

    Args:
        services: The services.
        line: The command.
    """
    before = [service.loads for service in services]
    began = time.perf_counter()
    for service in services:
        service.send(line)
    answers = [service.answer() for service in services]
    took = (time.perf_counter() - began) * 1000
    loads = sum(service.loads for service in services) - sum(before)
    parts = [f"{service.name}: {answer}" for service, answer in zip(services, answers, strict=True)]
    say(f"  {line:<12} -> {', '.join(parts)}   ({loads} loads, {took:.1f} ms for all three)")
    return answers


def change(service: Service, line: str) -> str:
    """Sends a command to one service, and prints its answer.

    Args:
        service: The service.
        line: The command.
    """
    began = time.perf_counter()
    answer = service.run(line)
    say(f"  {line:<12} -> {service.name}: {answer}   ({(time.perf_counter() - began) * 1000:.1f} ms)")
    return answer


def agree(services: list[Service], key: str, expected: str) -> None:
    """Waits until all services have a value, and prints how long that took.

    Args:
        services: The services.
        key: The key.
        expected: The value.
    """
    began = time.perf_counter()
    while any(service.run(f"get {key}") != expected for service in services):
        if time.perf_counter() - began > 60:
            raise SystemExit(f"FAILED: the services do not agree that {key} is {expected}")
    say(f"  all three have {key} = {expected} after {(time.perf_counter() - began) * 1000:.1f} ms")


def confirm(service: Service, line: str) -> None:
    """Repeats a command until the server confirms it, and prints how long that took.

    Args:
        service: The service.
        line: The command.
    """
    began = time.perf_counter()
    while service.run(line) != "done":
        time.sleep(0.01)
    say(f"  {line:<12} -> {service.name}: done, after {(time.perf_counter() - began) * 1000:.0f} ms")


def demonstrate(server: Server, services: list[Service]) -> None:
    """Shows what happens.

    Args:
        server: The server.
        services: The services.
    """
    c, rust, python = services
    for service in services:
        while service.run("set ready 1") != "done":
            time.sleep(0.01)
    # Each has proved once that the server's announcements arrive.
    time.sleep(1.5)

    say("1. All three read a key that is nowhere, at the same time. One loads it; the others wait for it.")
    for key in ("tea", "coffee", "lemonade"):
        before = sum(service.loads for service in services)
        answers = show(services, f"get {key}")
        check(answers == [str(len(key))] * 3, "all have the loaded value")
        check(sum(service.loads for service in services) - before == 1, "it is loaded once")

    say("\n2. One of them writes: the others drop what they have, and read the new value.")
    for price, service in enumerate(services, 10):
        check(change(service, f"set tea {price}") == "done", "the server confirms")
        agree(services, "tea", str(price))
    check(change(python, "remove tea") == "done", "the server confirms")
    agree(services, "tea", "3")
    # The announcement of a value may remove it once more where it has just been read.
    time.sleep(0.2)
    agree(services, "tea", "3")

    say("\n3. The server is killed. What they have stays; what is missing is loaded, by each for itself.")
    server.kill()
    check(show(services, "get tea") == ["3"] * 3, "reads go on")
    check(show(services, "get water") == ["5"] * 3, "loads go on")
    check(change(rust, "remove tea") != "done", "no server confirms")

    say("\n4. It is restarted, and has lost everything. The removal is repeated. They agree again.")
    server.start()
    confirm(rust, "remove tea")
    agree(services, "tea", "3")
    confirm(c, "set tea 20")
    agree(services, "tea", "20")
    check(change(python, "set tea 21") == "done", "the server confirms")
    agree(services, "tea", "21")

    say("\n5. The server is stopped: connections stay open, and nothing answers.")
    server.send_signal(signal.SIGSTOP)
    check(show(services, "get milk") == ["4"] * 3, "loads go on")
    show(services, "get juice")
    check(change(c, "remove tea") != "done", "no server confirms")

    say("\n6. It continues, with the old value of tea. What the service in C removed is removed there first.")
    server.send_signal(signal.SIGCONT)
    agree(services, "tea", "3")
    say("\nCoherent.")


def main() -> None:
    """Starts the server and the services."""
    c_program, rust_program = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        services: list[Service] = []
        try:
            services += [Service("C", [c_program, server.url]), Service("Rust", [rust_program, server.url])]
            services.append(Service("Python", [sys.executable, str(PYTHON_PROGRAM), server.url]))
            demonstrate(server, services)
            for service in services:
                service.close()
        finally:
            server.send_signal(signal.SIGCONT)
            server.kill()


if __name__ == "__main__":
    main()
