"""A webhook on loopback that keeps what it is sent, and can be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What was received.

    Attributes:
        address: The address for apprise.
        messages: Title and text of each message, the oldest first.
        status: What requests are answered with.
    """

    def __init__(self) -> None:
        self.address = ""
        self.messages: list[tuple[str, str]] = []
        self.status = 200

    def take(self) -> list[tuple[str, str]]:
        """Return the messages, and forget them."""
        taken, self.messages = self.messages, []
        return taken


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive while the block runs."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if receiver.status == 200:
                receiver.messages.append((body["title"], body["message"]))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.address = f"json://127.0.0.1:{server.server_port}/hook"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()
