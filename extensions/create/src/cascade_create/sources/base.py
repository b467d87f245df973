"""What all kinds of sources share: what is asked for, what the code depends on, and what a kind has to say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from cascade.errors import UsageError
from cascade_create.partitions import Slices
from cascade_create.render import Code
from cascade_create.sample import Sample

__all__ = ["Request", "Shape", "Source", "StandIn", "json_path", "require", "without_password"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks for; each option of `cascade create-workflow`, by its name.

    Attributes:
        kind: `rest`, `database`, `file` or `python`.
        name: Name of workflow, asset and table.
        url: Of a REST API, or a database.
        table: Of a database, `table` or `schema.table`.
        path: Of files, with `*` and `**`; a local one, or a URL such as `s3://bucket/drops/*.csv`.
        key: Columns that name a row, as the source calls them.
        cursor: Column that says when a row changed, as the source calls it.
        partitions: `daily`, `hourly`, `weekly` or `monthly`; None for a table without partitions.
        infer: Whether the source is looked at.
        auth: How a REST API wants to be asked, such as `bearer:TICKETS_TOKEN`.
        cursor_param: Parameter of a REST API that takes the newest cursor.
        paginator: Of dlt, as JSON, when the pages of a REST API are not understood.
        rows_at: Where the rows are in the answers of a REST API, such as `data.items`.
        sheet: Of Excel; the first one by default.
        folder: The folder that relative paths are relative to.
        root: Root of the project.
    """

    kind: str
    name: str
    url: str = ""
    table: str = ""
    path: str = ""
    key: Sequence[str] = ()
    cursor: str = ""
    partitions: str | None = None
    infer: bool = False
    auth: str = ""
    cursor_param: str = ""
    paginator: Mapping[str, Any] | None = None
    rows_at: str = ""
    sheet: str = ""
    folder: Path = field(default_factory=Path.cwd)
    root: Path = field(default_factory=Path)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the code of a source depends on beside the source."""

    key: Sequence[str] = ()  # as the source calls its columns
    cursor: str = ""  # as the source calls it
    cursor_has_nulls: bool = False
    slices: Slices | None = None  # the partitions of the table
    names: Mapping[str, str] = field(default_factory=dict)  # what the source calls columns that have to be renamed


@dataclass(frozen=True)
class StandIn:
    """What a test has in place of the source.

    Attributes:
        files: What it reads, by path from the project's root.
        imports: Lines that import what the rest uses.
        top: What stands before the tests.
        patch: The line of a test that puts it in place; `{module}` stands for the workflow's module.
    """

    files: Mapping[str, bytes]
    imports: Sequence[str]
    top: str
    patch: str


class Source(Protocol):
    """A source that was looked at.

    Attributes:
        most: Rows that a sample has at most.
        texts: Whether all its values are text.
        known_key: The columns that the source itself says are its key.
        secrets: What belongs into `.env`, by name.
        notes: What a person should know, one sentence each.
    """

    most: int
    texts: bool
    known_key: Sequence[str]
    secrets: Mapping[str, str]
    notes: Sequence[str]

    def code(self, shape: Shape) -> Code:
        """Return the code that fetches the rows."""

    def stand_in(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> StandIn:
        """Return what stands for the source in a test: some of its rows, under the names of the source."""

    def explain(self, error: Exception) -> UsageError:
        """Return what a failed attempt to look at the source means."""


def require(value: str, option: str, kind: str, example: str) -> str:
    """Return the value of an option that a kind needs."""
    if not value:
        raise UsageError(
            f"A workflow of the kind {kind} needs {option}. Nothing was written.",
            fix=f"cascade create-workflow {kind} NAME {example}",
        )
    return value


def without_password(url: str) -> str:
    """Return a URL without user and password, for messages and comments."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if parts.scheme and host else re.sub(r"\?.*", "", url)


def json_path(cursor: str) -> str:
    """Return a name of the source as dlt writes a cursor: as a JSON path."""
    return cursor if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", cursor) else f"['{cursor}']"
