"""A REST API as people run them: pages in several ways, errors that pass, nested data. Loopback only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: Rows of a page.
SIZE = 25
_Answer = tuple[Any, dict[str, str]]


def ticket(number: int, changed: str = "") -> dict[str, Any]:
    """A row: camelCase, a header nobody can write in SQL, nested data, numbers that are whole at first."""
    return {
        "id": number,
        "subject": f"Ticket {number} ☂",
        "updated_at": changed or f"2026-01-{1 + number // 10:02d}T{number % 10:02d}:00:00Z",
        "score": None if number % 7 == 0 else number if number < 60 else number + 0.5,
        "requester": {"name": "Ann", "languages": ["de", "en"]},
        "tags": ["a", "b"] if number % 2 else [],
        "customFields": [{"name": "plan", "value": number}],
        "Total (EUR)": number * 1.5,
        "class": "first",
    }


class Api:
    """What the server answers.

    Attributes:
        rows: The rows that it has.
        asked: Every request: path and parameters.
        token: What `Authorization: Bearer …` must say; empty for nothing.
        stumbles: Statuses that the next requests are answered with.
    """

    def __init__(self) -> None:
        self.rows = [ticket(number) for number in range(1, 81)]
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.token = ""
        self.stumbles: list[int] = []
        self.url = ""

    def answer(self, path: str, given: dict[str, str]) -> _Answer | None:
        """Return the document and the headers of an answer; None when there is no such path."""
        ways: dict[str, Callable[[str, dict[str, str]], _Answer]] = {
            "/link": self._link,
            "/next": self._next,
            "/halcyon": self._href,
            "/numbers": self._numbers,
            "/zero": self._zero,
            "/plain": self._plain,
            "/more": self._more,
            "/offset": self._offset,
            "/cursor": self._cursor,
            "/odata": self._odata,
            "/all": lambda *_: (self.rows, {}),
            "/one": lambda *_: (self.rows[0], {}),
            "/empty": lambda *_: ({"items": []}, {}),
            "/stuck": lambda *_: ({"items": self.rows[:SIZE], "total": len(self.rows)}, {}),
            "/words": lambda *_: (["a", "b"], {}),
        }
        return ways[path](path, given) if path in ways else None

    def _page(self, given: dict[str, str], first: int = 1, name: str = "page") -> tuple[int, list[Any], bool]:
        page = int(given.get(name, first))
        begin = (page - first) * SIZE
        return page, self.rows[max(begin, 0) : max(begin + SIZE, 0)], begin + SIZE < len(self.rows)

    def _link(self, path: str, given: dict[str, str]) -> _Answer:
        page, rows, more = self._page(given, name="seite")
        return rows, {"Link": f'<{self.url}{path}?seite={page + 1}>; rel="next"'} if more else {}

    def _next(self, path: str, given: dict[str, str]) -> _Answer:
        page, rows, more = self._page(given, name="seite")
        found = {"count": len(self.rows), "next": f"{self.url}{path}?seite={page + 1}" if more else None}
        return {**found, "previous": None, "results": rows}, {}

    def _href(self, path: str, given: dict[str, str]) -> _Answer:
        page, rows, more = self._page(given, name="seite")
        links = {"self": {"href": path}, **({"next": {"href": f"{path}?seite={page + 1}"}} if more else {})}
        return {"_links": links, "_embedded": {"tickets": rows}}, {}

    def _odata(self, path: str, given: dict[str, str]) -> _Answer:
        page, rows, more = self._page(given, name="$skiptoken")
        next_ = {"@odata.nextLink": f"{self.url}{path}?$skiptoken={page + 1}"} if more else {}
        return {"value": rows, **next_}, {}

    def _numbers(self, path: str, given: dict[str, str]) -> _Answer:
        page, rows, _ = self._page(given)
        return {"data": rows, "meta": {"page": page, "total_pages": -(-len(self.rows) // SIZE)}}, {}

    def _zero(self, path: str, given: dict[str, str]) -> _Answer:
        _, rows, _ = self._page(given, first=0, name="pageNumber")
        return {"content": rows}, {}

    def _plain(self, path: str, given: dict[str, str]) -> _Answer:
        return self._page(given)[1], {}

    def _more(self, path: str, given: dict[str, str]) -> _Answer:
        _, rows, more = self._page(given)
        return {"records": rows, "has_more": more}, {}

    def _offset(self, path: str, given: dict[str, str]) -> _Answer:
        begin, limit = int(given.get("offset", 0)), int(given.get("limit", SIZE))
        return {"items": self.rows[begin : begin + limit], "total": len(self.rows)}, {}

    def _cursor(self, path: str, given: dict[str, str]) -> _Answer:
        begin = int(given.get("page_token", "t0")[1:])
        more = begin + SIZE < len(self.rows)
        return {
            "items": self.rows[begin : begin + SIZE],
            "next_page_token": f"t{begin + SIZE}" if more else None,
        }, {}


@contextmanager
def serve() -> Iterator[Api]:
    """Run the server in a thread of this process."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            given = dict(parse_qsl(parts.query))
            api.asked.append((parts.path, given))
            if api.stumbles:
                return self._send(api.stumbles.pop(0), {"error": "try again"}, {"Retry-After": "0"})
            if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
                return self._send(401, {"error": "who are you?"}, {})
            found = api.answer(parts.path, given)
            return self._send(404, {}, {}) if found is None else self._send(200, *found)

        def _send(self, status: int, document: Any, headers: dict[str, str]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
