"""How a REST API hands out pages: what dlt detects in an answer, and what asking for a second page shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dlt.sources.helpers.rest_client import detector
from dlt.sources.helpers.rest_client.paginators import (
    HeaderLinkPaginator,
    JSONLinkPaginator,
    PageNumberPaginator,
)

from cascade.errors import UsageError

__all__ = ["Ask", "find_pages", "rows_in"]

#: Asks the API for a page: parameters in, the answer out; None when it refuses them.
Ask = Callable[[Mapping[str, Any]], Any]

# Parameters that APIs number pages with, and those that count rows.
_NUMBERS = ("page", "_page", "page_number", "pageNumber", "p")
_OFFSETS = ("offset", "skip", "_start", "start", "startAt")
_LIMITS = ("limit", "per_page", "page_size", "pageSize", "_limit", "size", "count", "maxResults")
_TOTALS = ("total", "total_count", "totalCount", "count", "total_results", "totalResults", "total_items", "totalItems")
_MORE = ("has_more", "hasMore", "has_next", "hasNext", "more", "next_page_exists")
# Keys whose value is null on the last page, and what they hold on others.
_NEXT_LINKS = (
    "next",
    "next_url",
    "nextUrl",
    "next_link",
    "nextLink",
    "next_page_url",
    "nextPageUrl",
    "@odata.nextLink",
)


def rows_in(document: Any, path: str) -> list[Any] | None:
    """Return what an answer has at a path such as `data.items`; None when there is nothing."""
    for name in [] if path == "$" else path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, list) else None if document is None else [document]


def find_pages(  # noqa: PLR0911  one line per way
    response: Any, path: str, params: Mapping[str, Any], ask: Ask
) -> dict[str, Any]:
    """Return the paginator of dlt that an API needs, as the configuration of `rest_api_source` writes it.

    Args:
        response: The answer to the first request.
        path: Where the rows are in it.
        params: The parameters of the first request.
        ask: Asks for another page.

    Raises:
        UsageError: There are more rows, and how to ask for them is not known.
    """
    document = response.json()
    rows = rows_in(document, path) or []
    with contextlib.suppress(AttributeError, TypeError):
        found, _ = detector.PaginatorFactory().create_paginator(response)
        if isinstance(found, HeaderLinkPaginator):
            return {"type": "header_link"}
        if isinstance(found, JSONLinkPaginator):
            steps, _ = detector.find_next_page_path(document)
            return {"type": "json_link", "next_url_path": _dotted(steps)}
        if isinstance(found, PageNumberPaginator):
            steps, _ = detector.find_total_pages_path(document)
            return {**_numbered(rows, path, params, ask), "total_path": _dotted(steps)}
    steps, value = _next_of(document)
    if isinstance(value, str) and value.startswith(("https://", "http://", "/", "?")):
        return {"type": "json_link", "next_url_path": _dotted(steps)}
    if steps and value is not None and (param := _cursor_param(steps[-1], value, rows, path, ask)):
        return {"type": "cursor", "cursor_path": _dotted(steps), "cursor_param": param}
    if found := _counted(rows, path, params, document, ask):
        return found
    if steps and value is None and steps[-1] in _NEXT_LINKS:
        return {"type": "json_link", "next_url_path": _dotted(steps)}
    _require_all(document, rows)
    return {"type": "single_page"}


def _numbered(rows: list[Any], path: str, params: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """Pages by number, where the answer says how many there are: which parameter, and whether the first one is 0."""
    given = [name for name in _NUMBERS if name in params]
    for param in [*given, *(name for name in _NUMBERS if name not in given)]:
        for first in (1, 0):
            if rows_in(ask({param: first}), path) == rows and rows_in(ask({param: first + 1}), path) != rows:
                return {"type": "page_number", "page_param": param, "base_page": first}
    return {"type": "page_number", "page_param": "page", "base_page": 1}


def _counted(rows: list[Any], path: str, params: Mapping[str, Any], document: Any, ask: Ask) -> dict[str, Any] | None:
    """Pages by number or by offset, where only asking tells: the second page is another one, or empty."""
    if not rows:
        return None
    for param in _NUMBERS:
        second = rows_in(ask({param: 2}), path)
        if second is not None and second != rows:
            first = 0 if rows_in(ask({param: 0}), path) == rows and rows_in(ask({param: 1}), path) == second else 1
            if first == 1 and rows_in(ask({param: 1}), path) != rows:
                first = 0
            more = _has_more(document)
            return {
                "type": "page_number",
                "page_param": param,
                "base_page": first,
                "total_path": None,
                **({"has_more_path": more} if more else {}),
            }
    for param in _OFFSETS:
        second = rows_in(ask({param: len(rows)}), path)
        if second is not None and second != rows:
            limit = next((name for name in _LIMITS if name in params), None) or _limit_param(rows, path, ask)
            return {
                "type": "offset",
                "limit": int(params.get(limit, len(rows))),
                "offset_param": param,
                "limit_param": limit,
                "total_path": None,
            }
    return None


def _limit_param(rows: list[Any], path: str, ask: Ask) -> str:
    """Return the parameter that says how many rows a page has: with 1 there is one."""
    if len(rows) > 1:
        for param in _LIMITS:
            page = rows_in(ask({param: 1}), path)
            if page is not None and len(page) == 1:
                return param
    return "limit"


def _next_of(document: Any, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], Any]:
    """Find what leads to the next page in an answer, null on the last one."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key.lower().startswith("next") or key in _NEXT_LINKS:
                if isinstance(value, dict) and (inner := next((k for k in ("href", "url") if k in value), None)):
                    return (*path, key, inner), value[inner]
                if value is None or isinstance(value, str | int):
                    return (*path, key), value
            if isinstance(value, dict):
                steps, found = _next_of(value, (*path, key))
                if steps:
                    return steps, found
    return (), None


def _cursor_param(key: str, value: Any, rows: list[Any], path: str, ask: Ask) -> str | None:
    """Return the parameter that takes the cursor of the next page: asked with it, the API gives other rows."""
    plain = key.removeprefix("next_").removeprefix("next")
    guesses = [plain[:1].lower() + plain[1:], "cursor", "after", "page_token", "pageToken", "token", "next", key]
    guesses += ["starting_after", "continuation", "page", "offset", "from"]
    for param in filter(None, dict.fromkeys(guesses)):
        page = rows_in(ask({param: value}), path)
        if page and page != rows:
            return param
    return None


def _has_more(document: Any) -> str:
    return next((p for p, v in _entries(document) if p.split(".")[-1] in _MORE and isinstance(v, bool)), "")


def _entries(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield f"{path}{key}", value
            if isinstance(value, dict):
                yield from _entries(value, f"{path}{key}.")


def _require_all(document: Any, rows: list[Any]) -> None:
    """Refuse to take the first page for the whole: rows would be missing without a word."""
    for path, value in _entries(document):
        name = path.split(".")[-1]
        more = (name in _MORE and value is True) or (
            name in _TOTALS and isinstance(value, int) and not isinstance(value, bool) and value > len(rows) > 0
        )
        if more or (name.lower().startswith("next") and isinstance(value, str) and value):
            raise UsageError(
                "The API has more rows than the first page, and how it wants to be asked for them is not known. "
                "Nothing was written.",
                where=f"{path}={value!r} in an answer with {len(rows)} rows",
                fix="""say it as dlt does: --paginator '{"type": "cursor", "cursor_path": "next", """
                """"cursor_param": "after"}'""",
            )


def _dotted(steps: Any) -> str:
    return ".".join(step if step.replace("_", "").isalnum() else f"['{step}']" for step in steps)
