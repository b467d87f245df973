"""A proxy before a real server that misbehaves on demand: it wants a token, loses answers, is half up, speaks TLS."""

import base64
import contextlib
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

from cascade_services.native.processes import direct

__all__ = ["CLIENT", "Proxy", "proxy"]

#: The OAuth2 client that the proxy's token endpoint knows.
CLIENT = ("cascade", "s3cret-of-the-client")


class Proxy:
    """How a proxy behaves; change it while it runs.

    Attributes:
        url: Its address, without a path.
        token: The bearer token that it wants; none by default.
        issued: How many tokens its endpoint `/token` gave out; the last one is the one it wants.
        lose: Asked with method and path whether an answer gets lost after the server has done its work.
        unready: So many requests are answered with 503 first.
        seen: Method and path of every request.
        documents: Answers of its own, by path.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.token: str | None = None
        self.issued = 0
        self.lose: Callable[[str, str], bool] = lambda method, path: False
        self.unready = 0
        self.seen: list[tuple[str, str]] = []
        self.documents: dict[str, Any] = {}


@contextlib.contextmanager
def proxy(target: str, authority: trustme.CA | None = None) -> Iterator[Proxy]:
    """Run a proxy on loopback.

    Args:
        target: The server behind it, such as `http://127.0.0.1:19120`.
        authority: Who signs its certificate; it speaks plain HTTP without.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            behaviour.seen.append((self.command, self.path))
            if self.path == "/token":
                self._give_token(body)
            elif behaviour.unready > 0:
                behaviour.unready -= 1
                self._answer(503, b"starting")
            elif behaviour.token and self.headers.get("Authorization") != f"Bearer {behaviour.token}":
                self._answer(401, b"")
            elif self.path in behaviour.documents:
                self._answer(200, json.dumps(behaviour.documents[self.path]).encode())
            else:
                status, answer = self._forward(body)
                if behaviour.lose(self.command, self.path):
                    self.close_connection = True
                    self.connection.close()
                    return
                self._answer(status, answer)

        do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

        def _give_token(self, body: bytes) -> None:
            wanted = "Basic " + base64.b64encode(":".join(CLIENT).encode()).decode()
            if self.headers.get("Authorization") != wanted or body != b"grant_type=client_credentials":
                self._answer(401, b'{"error": "invalid_client"}')
                return
            behaviour.issued += 1
            behaviour.token = f"token-{behaviour.issued}"
            self._answer(200, json.dumps({"access_token": behaviour.token, "expires_in": 3600}).encode())

        def _forward(self, body: bytes) -> tuple[int, bytes]:
            headers = {n: v for n, v in self.headers.items() if n in ("Content-Type", "Nessie-Client-Spec")}
            request = urllib.request.Request(target + self.path, body or None, headers, method=self.command)
            try:
                with direct().open(request, timeout=60) as response:
                    return response.status, response.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that does not trust us hangs up

    with Server(("127.0.0.1", 0), Handler) as server:
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        behaviour = Proxy(f"{'https' if authority else 'http'}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield behaviour
        finally:
            server.shutdown()
            thread.join()
