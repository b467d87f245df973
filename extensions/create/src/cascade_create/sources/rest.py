"""A REST API: what its answers look like, and a workflow that asks for all pages by dlt."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cascade.errors import UsageError
from cascade.ingestion.text import json_text
from cascade_create.names import title
from cascade_create.render import Code, Raw, literal
from cascade_create.sample import Sample
from cascade_create.sources.base import Request, Shape, StandIn, json_path, require, without_password

__all__ = ["look_at_rest"]

# Parameters that hold secrets in URLs that people copy.
_SECRET = re.compile(r"(api[_-]?key|access[_-]?key|token|secret|password|passwd|pwd|signature|sig|auth)", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TIMEOUT = 30


def _environ(name: str) -> Raw:
    return Raw(f'os.environ["{name}"]')


#: How an API wants to be asked: what stands behind the word, and what dlt is told.
_AUTH: Mapping[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "bearer": ("VARIABLE", lambda token: {"type": "bearer", "token": _environ(token)}),
    "basic": (
        "USER_VARIABLE:PASSWORD_VARIABLE",
        lambda user, word: {"type": "http_basic", "username": _environ(user), "password": _environ(word)},
    ),
    "header": (
        "NAME:VARIABLE",
        lambda name, key: {"type": "api_key", "name": name, "api_key": _environ(key), "location": "header"},
    ),
    "query": (
        "NAME:VARIABLE",
        lambda name, key: {"type": "api_key", "name": name, "api_key": _environ(key), "location": "query"},
    ),
}


@dataclass(frozen=True)
class _Rest:
    name: str
    url: str  # without parameters
    params: Mapping[str, Any]
    auth: Mapping[str, Any]
    variables: Sequence[str]  # that `auth` reads
    rows_at: str  # empty: dlt looks for the rows
    paginator: Mapping[str, Any]  # empty: dlt detects it
    cursor_param: str
    most: int = 1_000
    texts: bool = False
    known_key: Sequence[str] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def code(self, shape: Shape) -> Code:
        """Return a call of `rest_api_source`."""
        base, _, path = self.url.rpartition("/")
        client: dict[str, Any] = {"base_url": f"{base}/"}
        client |= {"auth": self.auth} if self.auth else {}
        client |= {"paginator": self.paginator} if self.paginator else {}
        endpoint: dict[str, Any] = {"path": path}
        endpoint |= {"params": self.params} if self.params else {}
        endpoint |= {"data_selector": self.rows_at} if self.rows_at else {}
        says = f"Rows of {without_password(self.url)}, page by page."
        if shape.slices:
            begin, end = shape.slices.bounds
            window: dict[str, Any] = {"initial_value": Raw(begin), "end_value": Raw(end)}
            window |= {"start_param": self.cursor_param} if self.cursor_param else {}
            endpoint["incremental"] = {"cursor_path": json_path(shape.cursor), **window}
            says += f" A partition has those whose {shape.cursor} lies in it."
        elif shape.cursor:
            endpoint["incremental"] = self._incremental(shape)
            says += f" A run loads those whose {shape.cursor} is new."
        resource: dict[str, Any] = {"name": self.name, "endpoint": endpoint}
        top = ""
        if shape.names:
            resource["processing_steps"] = [{"map": Raw("rename")}]
            top = (
                "# Names of the source that cannot be columns, and what they are called here.\n"
                f"NAMES = {literal(dict(shape.names), 0, 8)}\n\n\n"
                'def rename(row: dict) -> dict:\n    """Give the columns names that SQL can say."""\n'
                "    return {NAMES.get(name, name): value for name, value in row.items()}"
            )
        before = shape.slices.lines if shape.slices else ""
        config = {"client": client, "resources": [resource]}
        imports = ["from dlt.sources.rest_api import rest_api_source"] + (["import os"] if self.auth else [])
        imports += ["import datetime as dt"] if shape.slices else []
        return Code(
            about=f"{title(self.name)}, from a REST API.",
            doc=_fitting(says),
            body=f"{before}    return rest_api_source(\n        {literal(config, 8, 0)}\n    )",
            imports=imports,
            top=top,
        )

    def _incremental(self, shape: Shape) -> dict[str, Any]:
        config: dict[str, Any] = {"cursor_path": json_path(shape.cursor)}
        config |= {"start_param": self.cursor_param} if self.cursor_param else {}
        config |= {"on_cursor_value_missing": "include"} if shape.cursor_has_nulls else {}
        return config

    def stand_in(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> StandIn:
        """Return rows as JSON."""
        renamed = {column.source: column.name for column in sample.columns if column.renamed}
        named = [{renamed.get(name, name): value for name, value in row.items()} for row in rows]
        lines = ",\n".join(f"  {json_text(row)}" for row in named)
        path = f"tests/data/{self.name}.json"
        return StandIn(
            {path: f"[\n{lines}\n]\n".encode()},
            ["import json", "from pathlib import Path"],
            "# Recorded from the source: a test needs no network.\n"
            f'ROWS = json.loads((Path(__file__).parent / "data/{self.name}.json").read_text("utf-8"))',
            'monkeypatch.setattr({module}, "rest_api_source", lambda _: ROWS)'
            + "".join(f'\n    monkeypatch.setenv("{name}", "not needed here")' for name in self.variables),
        )

    def explain(self, error: Exception) -> UsageError:
        """Return what a failed request means."""
        return _failed(self.url, error)


def look_at_rest(request: Request) -> _Rest:
    """Ask an API for its first page, and find out where the rows are and how the next page is asked for."""
    url = require(request.url, "--url", "rest", "--url https://api.example.com/v1/tickets")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"{without_password(url)!r} is not the URL of a REST API. Nothing was written.",
            where="--url",
            fix="give the whole address of the rows: --url https://api.example.com/v1/tickets",
        )
    params: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    secret = [name for name in params if _SECRET.search(name)] + (["user:password@"] if "@" in parts.netloc else [])
    if secret:
        raise UsageError(
            f"The URL has a secret in it ({', '.join(secret)}), which would be written to a file. Nothing was written.",
            where="--url",
            fix=f"take it out, write it to `.env` as {request.name.upper()}_TOKEN=…, and say how it is sent: "
            f"--auth query:{secret[0] if secret[0] in params else 'NAME'}:{request.name.upper()}_TOKEN",
        )
    auth, variables = _authentication(request)
    bare = parts._replace(query="", fragment="").geturl()
    found = _Rest(
        name=request.name,
        url=bare,
        params=params,
        auth=auth,
        variables=variables,
        rows_at=request.rows_at,
        paginator=request.paginator or {},
        cursor_param=request.cursor_param,
    )
    return _looked_at(found) if request.infer else found


def _authentication(request: Request) -> tuple[dict[str, Any], list[str]]:
    if not request.auth:
        return {}, []
    word, *rest = request.auth.split(":")
    expected, make = _AUTH.get(word, ("", None))
    if make is None or len(rest) != expected.count(":") + 1 or not _VARIABLE.fullmatch(rest[-1]):
        ways = ", ".join(f"{name}:{what}" for name, (what, _) in _AUTH.items())
        raise UsageError(
            "--auth does not say how the API wants to be asked. Nothing was written.",
            where="--auth",
            fix=f"give one of {ways}; a VARIABLE is one of the environment, or of `.env`, never the secret itself.",
        )
    variables = rest if word == "basic" else rest[-1:]
    if missing := [name for name in variables if request.infer and name not in os.environ]:
        raise UsageError(
            f"{', '.join(missing)} is not set, so the API cannot be asked. Nothing was written.",
            where="--auth",
            fix=f"write it to `.env` in the project's root: {missing[0]}=…",
        )
    return make(*rest), variables


def _looked_at(source: _Rest) -> _Rest:
    """Return the source with what its first answers say."""
    from dataclasses import replace

    from dlt.sources.helpers.rest_client import detector

    from cascade_create.sources.pages import find_pages, rows_in

    session = _session(source)

    def get(more: Mapping[str, Any]) -> Any:
        return session.get(source.url, params={**source.params, **more}, timeout=_TIMEOUT)

    def ask(more: Mapping[str, Any]) -> Any:
        try:
            answer = get(more)
            return answer.json() if answer.ok else None
        except Exception:  # noqa: BLE001  an API may answer anything to a question that it does not know
            return None

    try:
        response = get({})
        response.raise_for_status()
        document = response.json()
    except Exception as error:  # noqa: BLE001  of requests, of dlt, of JSON
        raise _failed(source.url, error) from None
    steps, _ = detector.find_response_page_data(document)
    path = source.rows_at or ".".join(steps)
    rows = rows_in(document, path)
    if rows is None or not all(isinstance(row, dict) for row in rows):
        raise UsageError(
            f"The answer has no rows at `{path}`. Nothing was written.",
            where=without_password(source.url),
            fix="say where the list of rows is: --rows-at data.items",
        )
    paginator = source.paginator or find_pages(response, path, source.params, ask)
    counted = (paginator.get("page_param"), paginator.get("offset_param"), paginator.get("limit_param"))
    params = {name: value for name, value in source.params.items() if name not in counted}
    return replace(source, rows_at=path, paginator=paginator, params=params)


def _session(source: _Rest) -> Any:
    """Return what asks: as dlt does, but it gives up sooner."""
    from dlt.sources.helpers.requests import Client
    from dlt.sources.rest_api.config_setup import create_auth

    client = Client(
        raise_for_status=False, request_max_attempts=4, request_backoff_factor=0.3, request_timeout=_TIMEOUT
    )
    session = client.session
    if source.auth:
        named = {
            key: os.environ[value[12:-2]] if isinstance(value, Raw) else value for key, value in source.auth.items()
        }
        session.auth = create_auth(named)
    return session


def _failed(url: str, error: Exception) -> UsageError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        what, fix = f"The API refuses the request ({status})", "say how it wants to be asked: --auth bearer:VARIABLE"
    elif status:
        what, fix = f"The API answers {status}", "look at the address in a browser, and correct --url"
    elif isinstance(error, ValueError) and "JSON" in type(error).__name__ + str(error):
        what, fix = "The answer is not JSON", "give the address of the rows, not that of a page for people"
    else:
        what, fix = "The API cannot be reached", "see whether it runs, and whether --url is right"
    reason = "" if status else f": {type(error).__name__}"
    return UsageError(f"{what}{reason}. Nothing was written.", where=without_password(url), fix=f"{fix}.")


def _fitting(text: str) -> str:
    """Return a docstring that fits in its line."""
    return text if len(text) < 100 else text[:96].rstrip() + " …"
