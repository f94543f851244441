"""Real receivers for notifications: a web server and a mail server on this machine that keep what they hear."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Door:
    """Where notifications arrive: `letters` in the order they came, `address` for the environment.

    `answer` gives the status for the n-th request (from 0); it may wait, to be a slow one.
    """

    address: str = ""
    letters: list[dict[str, Any]] = field(default_factory=list)
    knocks: int = 0
    answer: Callable[[int], int] = lambda _n: 200

    @property
    def subjects(self) -> list[str]:
        return [letter["title"] for letter in self.letters]


@contextmanager
def web_door() -> Iterator[Door]:
    """A web hook; its address has a token in its path and a password."""
    door = Door()
    lock = threading.Lock()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            letter = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number, door.knocks = door.knocks, door.knocks + 1
            status = door.answer(number)
            if status == 200:
                door.letters.append(letter)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: tests look at `letters`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.daemon_threads = True
    door.address = f"json://robot:hunter2-pass@127.0.0.1:{server.server_port}/hooks/T0K3N-of-ops"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mail_door() -> Iterator[Door]:
    """A mail server that takes every mail; `letters` have the raw text under `mail`."""
    door = Door()

    class Smtp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 here")
            for raw in self.rfile:
                word = raw.decode().split()[0].upper() if raw.strip() else ""
                if word == "DATA":
                    self.say("354 go on")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    door.letters.append({"mail": b"".join(lines).decode()})
                    self.say("250 taken")
                elif word == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 fine")

        def say(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    server.daemon_threads = True
    port = server.server_address[1]
    door.address = f"mailto://127.0.0.1:{port}?from=tailrace@example.org&to=ops@example.org&mode=insecure"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
