"""A server on loopback that keeps what it is sent as JSON, and can be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What was received.

    Attributes:
        url: Its address.
        bodies: What it was sent, the oldest first.
        status: What requests are answered with.
        takes: After how many more it answers 500; by default it never does.
    """

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.takes = float("inf")

    @property
    def address(self) -> str:
        """The address for apprise."""
        return self.url.replace("http:", "json:") + "/hook"

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Title and text of each message of apprise."""
        return [(body["title"], body["message"]) for body in self.bodies]

    def take(self) -> list[tuple[str, str]]:
        """Return the messages, and forget them."""
        taken, self.bodies = self.messages, []
        return taken


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive while the block runs."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = receiver.status if receiver.takes > 0 else 500
            if status == 200:
                receiver.bodies.append(body)
                receiver.takes -= 1
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()
