"""A memcached without meta commands: the classic ones in Python, as old servers have them."""

import itertools
import os
import socketserver
import sys
import threading
import time


class ClassicServer(socketserver.ThreadingTCPServer):
    """Answers ERROR to all that it does not know, as memcached does."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, version="1.4.39"):
        self.version = version
        self.items = {}
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.seen = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def item(self, key):
        item = self.items.get(key)
        if item is not None and item[2] is not None and item[2] <= time.time():
            del self.items[key]
            item = None
        return item

    def store(self, key, value, seconds):
        end = None if seconds == 0 else time.time() + seconds if seconds <= 30 * 24 * 3600 else seconds
        self.items[key] = (value, next(self.numbers), end)

    def answer(self, words, block):
        command = words[0]
        self.seen.append(command)
        if command == "version":
            return f"VERSION {self.version}\r\n".encode()
        if command == "stats":
            return f"STAT pid {os.getpid()}\r\nSTAT uptime 100\r\nSTAT time {int(time.time())}\r\nEND\r\n".encode()
        key = words[1] if len(words) > 1 else ""
        item = self.item(key)
        if command in ("get", "gets"):
            if item is None:
                return b"END\r\n"
            number = f" {item[1]}" if command == "gets" else ""
            return f"VALUE {key} 0 {len(item[0])}{number}\r\n".encode() + item[0] + b"\r\nEND\r\n"
        if command == "set" or (command == "add" and item is None):
            self.store(key, block, int(words[3]))
            return b"STORED\r\n"
        if command == "add":
            return b"NOT_STORED\r\n"
        if command == "cas":
            if item is None:
                return b"NOT_FOUND\r\n"
            if item[1] != int(words[5]):
                return b"EXISTS\r\n"
            self.store(key, block, int(words[3]))
            return b"STORED\r\n"
        if command == "delete":
            return b"DELETED\r\n" if self.items.pop(key, None) else b"NOT_FOUND\r\n"
        if command in ("incr", "decr"):
            if item is None:
                return b"NOT_FOUND\r\n"
            number = int(item[0]) + int(words[2]) * (1 if command == "incr" else -1)
            self.items[key] = (b"%d" % max(0, number), next(self.numbers), item[2])
            return b"%d\r\n" % max(0, number)
        return b"ERROR\r\n"


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while line := self.rfile.readline():
            words = line.decode().split()
            block = b""
            if words and words[0] in ("set", "add", "cas"):
                block = self.rfile.read(int(words[4]) + 2)[:-2]
            with self.server.lock:
                self.wfile.write(self.server.answer(words, block) if words else b"ERROR\r\n")


if __name__ == "__main__":
    with ClassicServer() as server:
        print(server.address, flush=True)
        sys.stdin.read()
