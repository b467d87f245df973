"""A table of a SQL database: a workflow that reads it by dlt, as Arrow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cascade.errors import UsageError
from cascade.ingestion.text import json_text, listed
from cascade_create.names import title
from cascade_create.render import Code, literal
from cascade_create.sample import Sample
from cascade_create.sources.base import Request, Shape, StandIn, json_path, require

__all__ = ["look_at_database"]


@dataclass(frozen=True)
class _Database:
    name: str
    url: str  # with its password; never written, and never shown
    address: str  # Python that gives the URL
    table: str
    schema: str
    imports: Sequence[str]
    top: str
    secrets: Mapping[str, str]
    known_key: Sequence[str] = ()
    primary_key: Sequence[str] = ()  # what dlt finds in the database
    notes: Sequence[str] = field(default_factory=tuple)
    whole_seconds: bool = False  # whether the cursor is a time of SQLite without fractions
    most: int = 10_000
    texts: bool = False

    def code(self, shape: Shape) -> Code:
        """Return a call of `sql_table`."""
        lines = [self.address, literal(self.table)]
        lines += [f"schema={literal(self.schema)}"] if self.schema else []
        lines += ['backend="pyarrow"', "chunk_size=100_000"]
        imports = [*self.imports, "from dlt.sources.sql_database import sql_table"]
        if shape.key and list(shape.key) != list(self.primary_key) and self.primary_key:
            lines.append(f"primary_key={literal(list(shape.key))}")
        cursor = literal(json_path(shape.cursor))
        says = f"Rows of {self.schema + '.' if self.schema else ''}{self.table}."
        if shape.slices:
            begin, end = shape.slices.bounds
            lines.append(f"incremental=dlt.sources.incremental({cursor}, initial_value={begin}, end_value={end})")
            imports += ["import datetime as dt", "import dlt"]
            says += f" A partition has those whose {shape.cursor} lies in it."
        elif shape.cursor:
            missing = ', on_cursor_value_missing="include"' if shape.cursor_has_nulls else ""
            lines.append(f"incremental=dlt.sources.incremental({cursor}{missing})")
            imports.append("import dlt")
            says += f" A run loads those whose {shape.cursor} is new."
        top = self.top
        if shape.cursor and self.whole_seconds:
            lines.append("table_adapter_callback=whole_seconds")
            imports += ["from sqlalchemy import Table", "from sqlalchemy.dialects.sqlite import DATETIME"]
            top += (
                "\n\n\ndef whole_seconds(table: Table) -> None:\n"
                '    """The file holds times without fractions of a second: they are compared like that."""\n'
                f"    table.c[{literal(shape.cursor)}].type = DATETIME(truncate_microseconds=True)"
            )
        call = "sql_table(\n" + "".join(f"        {line},\n" for line in lines) + "    )"
        if shape.names:
            imports.append("import pyarrow as pa")
            call = f"{call}.add_map(rename)"
            top += (
                "\n\n# Names of the source that cannot be columns, and what they are called here.\n"
                f"NAMES = {literal(dict(shape.names), 0, 8)}\n\n\n"
                'def rename(rows: pa.Table) -> pa.Table:\n    """Give the columns names that SQL can say."""\n'
                "    return rows.rename_columns([NAMES.get(name, name) for name in rows.column_names])"
            )
        return Code(
            about=f"{title(self.name)}, from a SQL database.",
            doc=says,
            body=f"{shape.slices.lines if shape.slices else ''}    return {call}",
            imports=imports,
            top=top,
            options={},
        )

    def stand_in(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> StandIn:
        """Return rows as JSON."""
        lines = ",\n".join(f"  {json_text(row)}" for row in rows)
        path = f"tests/data/{self.name}.json"
        frame = any(column.renamed for column in sample.columns)
        value = f'dlt.resource([pa.Table.from_pylist(ROWS)], name="{self.name}")' if frame else "ROWS"
        variables = "".join(f'\n    monkeypatch.setenv("{name}", "not needed here")' for name in self._variables())
        return StandIn(
            {path: f"[\n{lines}\n]\n".encode()},
            ["import json", "from pathlib import Path", *(["import dlt", "import pyarrow as pa"] if frame else [])],
            "# Recorded from the source: a test needs no database.\n"
            f'ROWS = json.loads((Path(__file__).parent / "data/{self.name}.json").read_text("utf-8"))',
            f'monkeypatch.setattr({{module}}, "sql_table", lambda *_, **__: {value})' + variables,
        )

    def _variables(self) -> list[str]:
        return re.findall(r'os\.environ\["(\w+)"\]', self.address)

    def explain(self, error: Exception) -> UsageError:
        """Return what a failed attempt to read means."""
        return _failed(self.url, error)


def look_at_database(request: Request) -> _Database:
    """Look at a table of a database: whether it is there, and what its primary key is."""
    import os

    url = require(request.url, "--url", "database", "--url sqlite:///shop.db --table orders")
    table = require(request.table, "--table", "database", "--url sqlite:///shop.db --table orders")
    variable = f"{request.name.upper()}_URL"
    address, imports, top, secrets = "", ["import os"], "", dict[str, str]()
    if url.startswith("env:"):
        variable = url.removeprefix("env:")
        if variable not in os.environ:
            raise UsageError(
                f"{variable} is not set. Nothing was written.",
                where="--url",
                fix=f"write it to `.env` in the project's root: {variable}=postgresql://…",
            )
        url, address = os.environ[variable], f'os.environ["{variable}"]'
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not address:
        url, address, imports, top = _sqlite(parsed, request.folder, request.root)
    elif not address and (parsed.password or _has_secret(parsed)):
        secrets, address = {variable: url}, f'os.environ["{variable}"]'
        if os.environ.get(variable, url) != url:
            raise UsageError(
                f"{variable} is set already, and says something else. Nothing was written.",
                where="the environment, or `.env`",
                fix=f"take the URL from there: --url env:{variable}; or write this one to `.env` under another name.",
            )
        secrets = {} if variable in os.environ else secrets
    elif not address:
        address, imports = literal(url, 8, 1), []
    schema, _, bare = table.rpartition(".")
    found = _Database(
        name=request.name,
        url=url,
        address=address,
        table=bare,
        schema=schema,
        imports=imports,
        top=top,
        secrets=secrets,
        notes=(f"The URL has a password: it goes to `.env` as {variable}, which git ignores.",) if secrets else (),
    )
    return _looked_at(found, request.cursor) if request.infer else found


def _parsed(url: str) -> Any:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except ArgumentError:
        raise UsageError(
            "--url is not the URL of a database. Nothing was written.",
            where="--url",
            fix="write it as SQLAlchemy does: sqlite:///shop.db or postgresql://user:password@host:5432/shop",
        ) from None


def _has_secret(parsed: Any) -> bool:
    return any(re.search(r"(?i)pass|secret|token|key", name) for name in parsed.query)


def _sqlite(parsed: Any, folder: Path, root: Path) -> tuple[str, str, list[str], str]:
    """Return the URL of a file wherever the workflow runs: from the root of the project."""
    file = (folder / parsed.database).resolve()
    if not file.is_file():
        raise UsageError(
            "There is no such SQLite file. Nothing was written.",
            where=str(file),
            fix="correct --url: sqlite:///shop.db",
        )
    url = f"sqlite:///{quote(str(file))}"
    if not file.is_relative_to(root):
        return url, literal(url, 8, 1), [], ""
    inside = file.relative_to(root).as_posix()
    top = (
        "# From this file, not from the current folder: the workflow runs from anywhere.\n"
        f"DATABASE = Path(__file__).resolve().parents[2] / {literal(inside)}"
    )
    return (
        url,
        'f"sqlite:///{quote(str(DATABASE))}"',
        ["from pathlib import Path", "from urllib.parse import quote"],
        top,
    )


def _looked_at(source: _Database, cursor: str) -> _Database:
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(source.url)
        try:
            inspector = inspect(engine)
            schema = source.schema or None
            names = [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]
            key = (
                inspector.get_pk_constraint(source.table, schema)["constrained_columns"]
                if source.table in names
                else []
            )
            whole = bool(names) and source.table in names and _has_whole_seconds(engine, source, cursor)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        raise _failed(source.url, error) from None
    if source.table not in names:
        close = difflib.get_close_matches(source.table, names, 3, 0.5)
        raise UsageError(
            f"The database has no table {source.table!r}. Nothing was written.",
            where="--table" + (f", schema {source.schema}" if source.schema else ""),
            fix=f"did you mean {listed(close)}?" if close else f"its tables are {listed(names[:20])}.",
        )
    return replace(source, known_key=tuple(key), primary_key=tuple(key), whole_seconds=whole)


def _has_whole_seconds(engine: Any, source: _Database, cursor: str) -> bool:
    """Say whether a cursor is a time that SQLite holds as text without fractions.

    SQLAlchemy compares with text that has them, which is greater: rows of the very second of the cursor would be
    missing.
    """
    from sqlalchemy import MetaData, String, Table, cast, func, select
    from sqlalchemy.types import DateTime

    if engine.dialect.name != "sqlite" or not cursor:
        return False
    table = Table(source.table, MetaData(), autoload_with=engine)
    if cursor not in table.c or not isinstance(table.c[cursor].type, DateTime):
        return False
    with engine.connect() as connection:
        longest = connection.execute(select(func.max(func.length(cast(table.c[cursor], String))))).scalar()
    return bool(longest == len("2026-01-01 10:00:00"))


def _failed(url: str, error: Exception) -> UsageError:
    """Say what an error of SQLAlchemy or of a driver means, without the password."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    shown = parsed.render_as_string(hide_password=True).partition("?")[0]
    if isinstance(error, ImportError):
        return UsageError(
            f"The driver of this database is not installed: {error.name or error}. Nothing was written.",
            where=shown,
            fix=f"add it to the project: uv add {error.name or 'DRIVER'}",
        )
    if type(error).__name__ == "NoSuchModuleError":
        return UsageError(
            f"SQLAlchemy knows no database {parsed.drivername!r}. Nothing was written.",
            where=shown,
            fix="correct the URL, or add the package that knows it to the project.",
        )
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    if parsed.password:
        reason = reason.replace(str(parsed.password), "***")
    return UsageError(
        f"The database cannot be read: {reason.rstrip('.')}. Nothing was written.",
        where=shown,
        fix="see whether it runs, and whether URL, user and password are right.",
    )
