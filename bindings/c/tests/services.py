"""Services in C, Rust and Python (examples) in front of one redis-server share their entries.

    python services.py C_PROGRAM RUST_PROGRAM

Run by `make test-tiered-c` with the interpreter that has the wheel, which builds both programs.
"""

import pathlib
import socket
import subprocess
import sys
import tempfile
import time

EXAMPLES = pathlib.Path(__file__).parents[3] / "examples"
KEYS = ("tea", "a{b}%\u00e9:;", "x" * 300)


class Service:
    """A process that answers a command per line."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.loads = 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def send(self, line: str) -> None:
        """Sends a command."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def receive(self) -> str:
        """Returns the answer to a command; counts its loads."""
        answer = self.process.stdout.readline().strip()
        while answer.startswith("(loading"):
            self.loads += 1
            answer = self.process.stdout.readline().strip()
        return answer

    def run(self, line: str) -> str:
        """Sends a command, and returns its answer."""
        self.send(line)
        return self.receive()

    def close(self) -> None:
        """Ends the process by the end of its input."""
        self.process.stdin.close()
        assert self.process.wait() == 0, self.name


class Server:
    """A redis-server on a free port."""

    def __init__(self, folder: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port)) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                assert self.process.poll() is None, "redis-server ended"
            time.sleep(0.01)

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()


def until(service: Service, line: str, answer: str) -> None:
    """Repeats a command until its answer is this."""
    while service.run(line) != answer:
        time.sleep(0.001)


def exchange(writer: Service, reader: Service) -> None:
    """Reads in one service what another one writes and removes."""
    for key in KEYS:
        assert writer.run(f"set {key} {writer.name}") == "done", (writer.name, key)
        until(reader, f"get {key}", writer.name)
        loads = reader.loads
        assert writer.run(f"set {key} again") == "done", (writer.name, key)
        until(reader, f"get {key}", "again")
        assert reader.loads == loads, (writer.name, reader.name, key)
        assert writer.run(f"remove {key}") == "done", (writer.name, key)
        until(reader, f"get {key}", str(len(key.encode()) if reader.name == "c" or reader.name == "rust" else len(key)))


def herd(services: list[Service], round_number: int) -> None:
    """Requests a cold key in all services: one of them loads it."""
    key = f"cold{round_number}"
    for service in services:
        service.loads = 0
        service.send(f"get {key}")
    answers = {service.receive() for service in services}
    assert answers == {str(len(key))}, answers
    loads = [(service.name, service.loads) for service in services]
    assert sum(count for _, count in loads) == 1, loads


def outage(server: Server, services: list[Service]) -> None:
    """Kills the server, changes a key, and starts the server."""
    first, *others = services
    assert first.run("set menu old") == "done"
    for service in others:
        until(service, "get menu", "old")
    server.kill()
    assert first.run("remove menu").startswith("done here"), first.name
    assert first.run("get menu") == "4", first.name
    server.start()
    for service in services:
        until(service, "get menu", "4")
        until(service, f"set {service.name} back", "done")
    for service in services:
        for other in services:
            until(other, f"get {service.name}", "back")


def main() -> None:
    """Runs all checks."""
    c_program, rust_program = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        commands = {
            "c": [c_program, server.url],
            "rust": [rust_program, server.url],
            "python": [sys.executable, str(EXAMPLES / "python" / "tiered.py"), server.url],
        }
        services = [Service(name, command) for name, command in commands.items()]
        more = [Service(name, command) for name, command in commands.items() for _ in range(2)][:5]
        try:
            for writer in services:
                for reader in services:
                    if reader is not writer:
                        exchange(writer, reader)
            print("exchange of three languages: ok")
            for number in range(5):
                herd(services + more, number)
            print(f"one load over {len(services + more)} processes: ok")
            for turn in range(3):
                outage(server, services[turn:] + services[:turn])
            print("server killed and started: ok")
            for service in services + more:
                service.close()
        finally:
            for service in services + more:
                if service.process.poll() is None:
                    service.process.kill()
                service.process.wait()
            server.kill()


if __name__ == "__main__":
    main()
