"""Render SQL with the runtime's macros, by dbt itself, and run it on one engine."""

import datetime as dt
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import trino

from cascade_dbt import project as parse
from cascade_servers.dbt import TARGET
from cascade_servers.names import TRINO_CATALOG_VARIABLE

__all__ = ["DuckDB", "Trino", "assert_rows", "render"]

_PROJECT = """\
name: portable
version: "1.0.0"
profile: portable
model-paths: [models]
macro-paths: {macros}
flags: {{ send_anonymous_usage_stats: false, require_certificate_validation: true }}
"""
_PROFILES = """\
portable:
  target: duckdb
  outputs:
    duckdb: {{ type: duckdb, path: ":memory:", schema: main, settings: {{ TimeZone: UTC }} }}
    trino: {{ type: trino, method: none, user: tests, host: "{host}", port: {port}, database: system, schema: main }}
"""


def render(folder: Path, dialect: str, statements: Mapping[str, str], trino_url: str = "") -> dict[str, str]:
    """Let dbt compile statements for an engine.

    Args:
        folder: Empty; becomes a dbt project.
        dialect: `duckdb` or `trino`.
        statements: By name, with Jinja.
        trino_url: The server, for `trino`.
    """
    server = urlsplit(trino_url or "http://127.0.0.1:1")
    models = folder / "models"
    models.mkdir(parents=True)
    macros = [parse.MACROS, *TARGET.macros] if dialect == "trino" else [parse.MACROS]
    (folder / "dbt_project.yml").write_text(_PROJECT.format(macros=json.dumps([str(path) for path in macros])))
    (folder / "profiles.yml").write_text(_PROFILES.format(host=server.hostname, port=server.port))
    for name, statement in statements.items():
        (models / f"{name}.sql").write_text(statement)
    done = subprocess.run(
        [*parse.DBT, "--quiet", "--no-populate-cache", "compile", "--target", dialect],
        cwd=folder,
        env={**os.environ, "DBT_PROFILES_DIR": str(folder), "DO_NOT_TRACK": "1", TRINO_CATALOG_VARIABLE: "system"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    compiled = folder / "target" / "compiled" / "portable" / "models"
    return {name: (compiled / f"{name}.sql").read_text() for name in statements}


class DuckDB:
    """In this process, with the settings that the runtime gives it."""

    dialect = "duckdb"

    def __init__(self) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone='UTC'")

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        table = self._connection.sql(statement).to_arrow_table()
        return _plain(zip(*(column.to_pylist() for column in table.columns), strict=True))


class Trino:
    """A real server."""

    dialect = "trino"

    def __init__(self, url: str) -> None:
        self.url = url
        server = urlsplit(url)
        self._connection = trino.dbapi.connect(
            host=server.hostname, port=server.port, user="tests", catalog="system", schema="runtime", timezone="UTC"
        )

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        cursor = self._connection.cursor()
        cursor.execute(statement)
        return _plain(cursor.fetchall())


def _plain(rows: Any) -> list[tuple[Any, ...]]:
    return [tuple(_value(value) for value in row) for row in rows]


def _value(value: Any) -> Any:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC)
    return [_value(item) for item in value] if isinstance(value, list | tuple) else value


def assert_rows(found: Sequence[tuple[Any, ...]], expected: Sequence[tuple[Any, ...]]) -> None:
    """Compare rows, types included: 1 is not 1.0, and a date is no timestamp."""
    assert found == list(map(tuple, expected))
    assert [[type(v) for v in row] for row in found] == [[type(v) for v in row] for row in expected]
