"""The rows in quarantine of one table: read, chosen by a filter, matched with mended rows, taken out."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cascade.duck.session import connect
from cascade.errors import CascadeError, UsageError
from cascade.iceberg.read import view_sql
from cascade.iceberg.rows import Where, one_of
from cascade.iceberg.schema import arrow_schema
from cascade.ingestion.cast import cast_column
from cascade.ingestion.quarantine import SCHEMA
from cascade.ingestion.text import json_text, listed, snake_case
from cascade.names import COLUMN_PREFIX, INGESTED_AT_COLUMN
from cascade_operations.records import QuarantinedRow

if TYPE_CHECKING:
    from pyiceberg.table import Table

__all__ = [
    "ID_COLUMN",
    "Chosen",
    "choose",
    "match",
    "read_aside",
    "read_rows",
    "taken_out",
    "to_aside",
    "values_of",
    "write_rows",
]

#: Column of a file of mended rows: which row in quarantine each row stands for.
ID_COLUMN = f"{COLUMN_PREFIX}id"


@dataclass(frozen=True)
class Chosen:
    """A row in quarantine, and the values to load in its place.

    Attributes:
        row: The row as it is in quarantine.
        values: Its values, by the names that the source has.
        source: The file that the values come from; `None` for the values that were set aside.
    """

    row: QuarantinedRow
    values: dict[str, Any]
    source: str | None = None


def read_aside(table: Table | None) -> list[QuarantinedRow]:
    """Return all rows of a quarantine table, the oldest first.

    A row's id is made from its content, run and partition: it is the same in every place and at every time.
    """
    if table is None or table.current_snapshot() is None:
        return []
    with connect(io=table.io) as connection:
        # In the order of their content: which of two equal rows is the first must not depend on files.
        sql = f"SELECT * FROM ({view_sql(table)}) ORDER BY {INGESTED_AT_COLUMN}, partition, row"
        found = connection.sql(sql).to_arrow_table().to_pylist()
    copies: Counter[str] = Counter()
    rows = []
    for values in found:
        same = "\0".join(str(values.get(name)) for name in ("run", "partition", "row"))
        copies[same] += 1
        rows.append(
            QuarantinedRow(
                id=hashlib.sha256(f"{same}\0{copies[same]}".encode()).hexdigest()[:16],
                partition=values["partition"],
                row=values["row"],
                reasons=tuple(values["reasons"] or ()),
                key=values.get("key"),
                run=values.get("run"),
                source=values.get("source"),
                at=values[INGESTED_AT_COLUMN],
            )
        )
    return rows


def choose(
    rows: Iterable[QuarantinedRow], *, partition: str | None = None, run: str | None = None, reason: str | None = None
) -> list[QuarantinedRow]:
    """Return the rows of a partition, of a run (the start of its id is enough), with a text in one of the reasons."""
    return [
        row
        for row in rows
        if (partition is None or row.partition == partition)
        and (run is None or (row.run or "").startswith(run))
        and (reason is None or any(reason.lower() in why.lower() for why in row.reasons))
    ]


# JSON has no bytes: those that are no text are kept as Python escapes them.
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


def values_of(row: QuarantinedRow, columns: pa.Schema) -> dict[str, Any]:
    """Return the values of a row in quarantine, by column: rows that could not be cast have the names of the source."""
    values = _by_column(json.loads(row.row), columns)
    for name in values.keys() & {f.name for f in columns if pa.types.is_binary(f.type)}:
        if isinstance(values[name], str):
            values[name] = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), values[name].encode())
    return values


def _by_column(values: Mapping[str, Any], columns: pa.Schema) -> dict[str, Any]:
    known = {snake_case(name): name for name in columns.names}
    return {
        name if name in columns.names else known.get(snake_case(name), snake_case(name)): value
        for name, value in values.items()
        if not name.startswith(COLUMN_PREFIX)
    }


def to_aside(rows: Iterable[QuarantinedRow]) -> pa.Table:
    """Return rows as the quarantine table holds them."""
    documents = [
        {
            "partition": row.partition,
            "row": row.row,
            "reasons": list(row.reasons),
            INGESTED_AT_COLUMN: row.at,
            "key": row.key,
            "run": row.run,
            "source": row.source,
        }
        for row in rows
    ]
    return pa.Table.from_pylist(documents, arrow_schema(SCHEMA))


def taken_out(table: Table | None, gone: Iterable[QuarantinedRow]) -> tuple[Callable[[Table], Where], pa.Table]:
    """Return what a commit replaces in a quarantine table to take rows out, and the equal ones that it puts back.

    Raises, when the commit is made, an error if the table is not the one that was read.
    """
    gone = list(gone)
    texts, ids = {row.row for row in gone}, {row.id for row in gone}
    equal = [row for row in read_aside(table) if row.row in texts and row.id not in ids]
    head = table.current_snapshot() if table else None

    def where(now: Table) -> Where:
        if now.current_snapshot() != head:
            raise CascadeError(
                "Another run set rows aside, or took some out; nothing was written.",
                where=f"table {'.'.join(now.name())}",
                fix="run again.",
            )
        return one_of("row", texts)

    return where, to_aside(equal)


def match(
    rows: Sequence[QuarantinedRow], mended: Sequence[dict[str, Any]], key: Sequence[str], schema: pa.Schema, file: Path
) -> tuple[list[Chosen], int]:
    """Find the rows in quarantine that the rows of a file stand for: by `_cascade_id`, else by the unique key.

    Args:
        rows: The rows in quarantine.
        mended: The rows of the file.
        key: The unique key of the table.
        schema: The columns of the table.
        file: The file, for messages.

    Returns:
        The rows, and how many rows of the file belong to none.

    Raises:
        UsageError: The file has other columns than the rows, or a row twice, or nothing tells what its rows stand for.
    """
    given = {name for row in mended for name in _by_column(row, schema)}
    by_id = any(ID_COLUMN in row for row in mended)
    if not by_id and not (key and set(key) <= given):
        raise UsageError(
            "Nothing tells which rows in quarantine the rows of the file stand for.",
            where=str(file),
            fix=f"start from a file of `cascade quarantine show TABLE --to FILE`, and keep its column {ID_COLUMN}"
            + (f"; or give the file the key: {listed(key)}." if key else "."),
        )
    if by_id:
        names = [row.get(ID_COLUMN) for row in mended]
        waiting = {row.id: [row] for row in rows}
    else:
        columns = [
            cast_column([_by_column(row, schema).get(name) for row in mended], schema.field(name).type)[0].to_pylist()
            for name in key
        ]
        names = [None if None in values else json_text(list(values)) for values in zip(*columns, strict=True)]
        waiting = defaultdict(list)
        for row in rows:
            waiting[row.key or ""].append(row)
    if twice := [str(name) for name, times in Counter(names).items() if name is not None and times > 1]:
        raise UsageError(
            f"The file has rows twice: {', '.join(twice[:5])}.", where=str(file), fix="leave one of each in it."
        )
    # Of several rows with one key the last one is meant.
    found = [(waiting[name][-1], row) for name, row in zip(names, mended, strict=True) if name and waiting.get(name)]
    _require_columns([row for row, _ in found], given, schema, file)
    chosen = [Chosen(row, _by_column(values, schema), f"file {file.name}") for row, values in found]
    return chosen, len(mended) - len(found)


def _require_columns(rows: Iterable[QuarantinedRow], given: set[str], schema: pa.Schema, file: Path) -> None:
    """Refuse a file that lacks columns of its rows, whose values would be lost, or has others: a slip of the pen."""
    had = {name for row in rows for name in _by_column(json.loads(row.row), schema)}
    problems = [f"it lacks {listed(sorted(had - given))}"] if had - given else []
    if strange := given - had - set(schema.names):
        problems.append(f"neither the table nor its rows have {listed(sorted(strange))}")
    if problems:
        raise UsageError(
            f"The columns of the file are not those of the rows: {'; '.join(problems)}.",
            where=str(file),
            fix="give it the columns that the rows in quarantine have; an empty value is null.",
        )


def read_rows(file: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Read a file of mended rows: `.parquet`, `.jsonl` or `.csv`, whose empty cells are null and values texts.

    Args:
        file: The file.
        schema: The columns of the table: nested ones are JSON in a CSV.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        return _READERS[file.suffix.lower()](file, schema)
    except KeyError:
        raise UsageError(
            f"{file.name} is no file of rows.", where=str(file), fix="give a file .parquet, .jsonl or .csv."
        ) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"The file cannot be read: {said}.", where=str(file), fix="correct it.") from error


def _read_parquet(file: Path, _: pa.Schema) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def _read_jsonl(file: Path, _: pa.Schema) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line must be one object")
    return rows


def _read_csv(file: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    import pyarrow.csv as pa_csv

    with file.open(encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader(lines), [])
    if not names:
        return []
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    rows: list[dict[str, Any]] = pa_csv.read_csv(file, parse_options=parse, convert_options=convert).to_pylist()
    nested = {field.name for field in schema if pa.types.is_nested(field.type)}
    for row in rows:
        for name in row.keys() & nested:
            row[name] = None if row[name] is None else json.loads(row[name])
    return rows


_READERS: dict[str, Callable[[Path, pa.Schema], list[dict[str, Any]]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
}


def write_rows(file: Path, rows: Sequence[QuarantinedRow], columns: pa.Schema) -> None:
    """Write rows as a file to mend: `.jsonl` or `.csv`, with the column `_cascade_id` that `match` knows them by.

    Raises:
        UsageError: The file has another ending, or is there already.
    """
    lines = {".jsonl": _as_jsonl, ".csv": _as_csv}.get(file.suffix.lower())
    if lines is None or file.exists():
        what = "is there already" if lines else "is no file that rows can be mended in"
        raise UsageError(f"{file.name} {what}.", where=str(file), fix="name another one, .jsonl or .csv.")
    documents = [{ID_COLUMN: row.id, **_by_column(json.loads(row.row), columns)} for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines(documents)), "utf-8")


def _as_jsonl(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) for row in rows)


def _as_csv(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield ",".join(map(_cell, names))
    for row in rows:
        yield ",".join(_cell(row.get(name)) for name in names)


def _cell(value: Any) -> str:
    """Return a value as CSV: text in quotes, so that an empty one is not null."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    quoted = '"' + text.replace('"', '""') + '"'
    return quoted if isinstance(value, str | list | dict) else text
