"""Write Arrow tables into an Iceberg table: stage Parquet files, then move the table by one snapshot."""

from __future__ import annotations

import contextlib
import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import IcebergType, NestedField

from cascade.catalog import BranchingCatalog, check_table_name
from cascade.catalog.files import storage_errors
from cascade.errors import BranchNotFoundError, CatalogError, ContractError, SchemaMismatchError
from cascade.iceberg.files import FileWriter, Staged, discard
from cascade.iceberg.filters import between
from cascade.iceberg.read import connect, files_sql, quote

if TYPE_CHECKING:
    import duckdb

__all__ = ["Staged", "WriteResult", "stage", "write"]

Mode = Literal["append", "merge", "replace"]

_READ_ROWS = 100_000
_ATTEMPTS = 5


@dataclass(frozen=True)
class WriteResult:
    """What one write did.

    Attributes:
        snapshot_id: The table's new snapshot.
        rows: Rows that came in, duplicates left out.
        duplicates: Rows left out because a later one has the same key.
        replaced: Rows that were in the table and are no longer.
        total: Rows in the table now.
    """

    snapshot_id: int
    rows: int
    duplicates: int
    replaced: int
    total: int


def stage(
    lake: BranchingCatalog,
    branch: str,
    table: str,
    batches: Iterable[pa.Table],
    *,
    schema: Schema,
    spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
    exact: bool = False,
    in_order: bool = False,
) -> Staged:
    """Write batches as data files of a table, without touching the table.

    Args:
        lake: The catalog.
        branch: The branch that will be written.
        table: `namespace.table`; it is made on the first write.
        batches: Arrow tables whose columns fit the schema by name; columns they lack are null, columns
            that the schema lacks are added to the table.
        schema: The columns that the table has at least.
        spec: Partitioning of a new table; an existing one keeps its own.
        exact: Whether the table loses columns that the schema lacks, and takes over changed types.
        in_order: Whether the files keep the order of all rows, which files of partitions would lose; they are
            then not yet those of a partitioned table.

    Returns:
        The files.

    Raises:
        SchemaMismatchError: A column's type cannot become the other's.
    """

    transaction, metadata = _begin(lake, branch, table, schema=schema, spec=spec, exact=exact)
    staged = Staged(table, metadata, transaction._table.io)
    known = {f.name for f in staged.schema.fields}
    writer = FileWriter(staged, partitioned=not in_order)
    try:
        for batch in batches:
            if any(name not in known for name in batch.column_names):
                from cascade.iceberg.schema import schema_from_arrow

                writer.close()
                _evolve(transaction, table, staged.schema, schema_from_arrow(batch.schema))
                staged.metadata = transaction.table_metadata
                known = {f.name for f in staged.schema.fields}
                writer = FileWriter(staged, partitioned=not in_order)
            writer.write(batch)
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):
            writer.close()
        discard(staged)
        raise
    return staged


def write(
    lake: BranchingCatalog,
    branch: str,
    table: str,
    batches: Iterable[pa.Table],
    *,
    schema: Schema,
    mode: Mode,
    key: Sequence[str] = (),
    order_by: str | None = None,
    unique: Sequence[Sequence[str]] = (),
    replace: BooleanExpression | None = None,
    replace_sql: str = "",
    spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
    exact: bool = False,
    properties: Mapping[str, str] | Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    snapshot_properties: Mapping[str, str] | None = None,
    spill_to: Path | None = None,
) -> WriteResult:
    """Stage batches and commit them as one snapshot.

    Args:
        lake: The catalog.
        branch: The branch to write.
        table: `namespace.table`; made on the first write, in the same commit.
        batches: Arrow tables; columns they lack are null, columns that the table lacks are added.
        schema: The columns that the table has at least.
        mode: `append`; `merge`: rows with the same key are replaced; `replace`: rows that `replace` selects
            make room, all of them when it is not given.
        key: Columns that name a row. Of several incoming rows with one key the last wins.
        order_by: Column whose greatest value wins instead.
        unique: Columns, or groups of them, whose values no two incoming rows may share.
        replace: What makes room, as a filter that selects files.
        replace_sql: The same as an SQL condition that selects rows.
        spec: Partitioning of a new table.
        exact: Whether the table loses columns that the schema lacks, and takes over changed types.
        properties: Table properties set in the same commit; a function is asked when all rows are
            staged, and is given those that the table has then.
        snapshot_properties: Entries of the snapshot's summary.
        spill_to: Folder for what does not fit into memory.

    Raises:
        SchemaMismatchError: Rows and table do not fit.
        ContractError: Values that must be unique are not.
    """
    with storage_errors(lake.settings.warehouse_location):
        in_order = bool(key) and order_by is None
        staged = stage(lake, branch, table, batches, schema=schema, spec=spec, exact=exact, in_order=in_order)
        kept = staged.anew()
        committing = False
        try:
            with connect(spill_to, staged.io) as connection:
                duplicates = _deduplicate(connection, staged, key, order_by)
                _require_unique(connection, staged, unique)
                incoming = _Incoming(connection, staged, mode, tuple(key), replace, replace_sql)
                for attempt in itertools.count(1):
                    # Planned and committed under one lock: writers of one table take turns instead of losing a race.
                    with lake.table_lock(table):
                        transaction, metadata = _again(lake, branch, staged, spec, exact)
                        _commit_once(transaction)
                        settings = properties(metadata.properties) if callable(properties) else properties
                        empty = metadata.current_snapshot() is None
                        replaced_files = [] if empty else incoming.make_room(transaction._table, kept)
                        if settings:
                            transaction.set_properties(dict(settings))
                        snapshot = transaction.update_snapshot(dict(snapshot_properties or {}))
                        # Where nothing makes room, what the table has need not be looked through.
                        with snapshot.overwrite() if replaced_files else snapshot.fast_append() as update:
                            for file in replaced_files:
                                update.delete_data_file(file)
                            for file in itertools.chain(kept.files, staged.files):
                                update.append_data_file(file)
                        committing = True
                        try:
                            committed = transaction.commit_transaction()
                            break
                        except (CommitFailedException, TableAlreadyExistsError):
                            # The turn was lost: the server that keeps the locks restarted.
                            committing = False
                            if attempt == _ATTEMPTS:
                                raise
                            discard(kept)
                            kept = staged.anew()
        except BaseException as error:
            # Once the commit has begun, only its refusal proves that no snapshot holds the files; a branch that is gone
            # by now may have been promoted.
            refused = isinstance(error, CatalogError) and not isinstance(error, BranchNotFoundError)
            if refused or not committing:
                discard(staged)
                discard(kept)
            raise
        head = committed.metadata.current_snapshot()
        assert head is not None
        assert head.summary is not None
        return WriteResult(
            snapshot_id=head.snapshot_id,
            rows=staged.rows,
            duplicates=duplicates,
            replaced=sum(file.record_count for file in replaced_files) - kept.rows,
            total=int(head.summary["total-records"] or 0),
        )


@dataclass(frozen=True)
class _Incoming:
    """Staged rows about to enter a table, and which rows of it make room for them."""

    connection: duckdb.DuckDBPyConnection
    staged: Staged
    mode: Mode
    key: tuple[str, ...]
    replace: BooleanExpression | None
    replace_sql: str

    def make_room(self, table: Table, kept: Staged) -> list[DataFile]:
        """Return the files that go; what of their rows stays is staged anew."""
        files, condition = self._affected(table)
        if files and condition:
            columns = ", ".join(quote(f.name) for f in kept.schema.fields)
            old = files_sql(kept.schema, (file.file_path for file in files))
            rows = self.connection.sql(f"SELECT {columns} FROM {old} AS old WHERE {condition}")
            writer = FileWriter(kept)
            for batch in _tables(rows):
                writer.write(batch)
            writer.close()
        return files

    def _affected(self, table: Table) -> tuple[list[DataFile], str]:
        """Return the files to rewrite, and the condition of the rows in them that stay ("" for none)."""
        if self.mode == "append":
            return [], ""
        if self.mode == "replace":
            files = _plan(table, self.replace or AlwaysTrue())
            return files, f"({self.replace_sql}) IS NOT TRUE" if self.replace_sql else ""
        if not self.staged.rows or not set(self.key) <= {f.name for f in table.schema().fields}:
            return [], ""
        new = files_sql(self.staged.schema, self.staged.paths, columns=self.key)
        same = " AND ".join(f"new.{quote(k)} = old.{quote(k)}" for k in self.key)
        candidates = {file.file_path: file for file in _plan(table, self._key_range(new))}
        if not candidates:
            return [], ""
        old = files_sql(self.staged.schema, candidates, columns=self.key, position=True)
        hit = self.connection.sql(
            f"SELECT DISTINCT filename FROM {old} AS old WHERE EXISTS (SELECT 1 FROM {new} AS new WHERE {same})"
        ).fetchall()
        return (
            [candidates[path] for (path,) in hit],
            f"NOT EXISTS (SELECT 1 FROM {new} AS new WHERE {same})",
        )

    def _key_range(self, new: str) -> BooleanExpression:
        """Return a filter that skips files whose statistics exclude every incoming key."""
        (bounds,) = self.connection.sql(
            "SELECT " + ", ".join(f"min({quote(k)}), max({quote(k)})" for k in self.key) + f" FROM {new}"
        ).fetchall()
        expression: BooleanExpression = AlwaysTrue()
        for name, low, high in zip(self.key, bounds[::2], bounds[1::2], strict=True):
            if (
                low is None
                or isinstance(low, bytes | bool | uuid.UUID)
                or (isinstance(high, float) and math.isnan(high))
            ):
                continue  # only nulls, NaN, or what no literal of PyIceberg compares with a file's bounds
            low, high = (v.isoformat() if hasattr(v, "isoformat") else v for v in (low, high))  # noqa: PLW2901
            expression = And(expression, between(name, low, high))
        return expression


def _begin(
    lake: BranchingCatalog, branch: str, table: str, *, schema: Schema, spec: PartitionSpec, exact: bool
) -> tuple[Transaction, TableMetadata]:
    """Open a transaction in which the table exists and has every column of the schema."""
    check_table_name(table)
    catalog = lake.catalog(branch)
    try:
        found = catalog.load_table(table)
    except NoSuchTableError:
        creation = catalog.create_table_transaction(table, schema, partition_spec=spec)
        return creation, creation.table_metadata
    transaction: Transaction = found.transaction()
    removed = exact and _remove(transaction, found.schema(), schema)
    current = transaction.table_metadata.schema() if removed else found.schema()
    evolved = _evolve(transaction, table, current, schema)
    return transaction, transaction.table_metadata if removed or evolved else found.metadata


def _again(
    lake: BranchingCatalog, branch: str, staged: Staged, spec: PartitionSpec, exact: bool
) -> tuple[Transaction, TableMetadata]:
    """Open a transaction on the table as it stands now, in which the staged files are still right."""
    transaction, metadata = _begin(lake, branch, staged.table, schema=staged.schema, spec=spec, exact=exact)
    now = {f.field_id: (f.name, f.field_type) for f in metadata.schema().fields}
    if any(now.get(f.field_id) != (f.name, f.field_type) for f in staged.schema.fields):
        raise SchemaMismatchError(
            "Another run changed the table's columns while this one was writing; nothing was committed.",
            where=f"table {staged.table}, branch {branch}",
            fix="run again.",
        )
    return transaction, metadata


def _commit_once(transaction: Transaction) -> None:
    """Let PyIceberg not repeat a commit that was refused: it would not look again at which rows make room."""
    metadata = transaction._table.metadata  # a copy in memory; what is committed starts from the catalog's
    properties = {**metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
    transaction._table.metadata = metadata.model_copy(update={"properties": properties})


def _evolve(transaction: Transaction, table: str, current: Schema, schema: Schema) -> bool:
    """Add the columns of a schema that the table lacks, and widen types where Iceberg allows it."""
    have = {f.name: f.field_type for f in current.fields}
    if all(f.name in have and _same(have[f.name], f.field_type) for f in schema.fields):
        return False
    try:
        with transaction.update_schema() as update:
            update.union_by_name(_without_narrower(current, schema))
    except Exception as error:
        raise SchemaMismatchError(
            f"The table's columns cannot become those that are declared: {error}",
            where=f"table {table}",
            fix="declare the type that the table has, or load into a new table.",
        ) from error
    return True


def _remove(transaction: Transaction, current: Schema, schema: Schema) -> bool:
    """Remove the columns that a schema lacks, and those whose type it changes: `_evolve` adds these anew."""
    wanted = {f.name: f.field_type for f in schema.fields}
    gone = [f.name for f in current.fields if f.name not in wanted or not _same(wanted[f.name], f.field_type)]
    if gone:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in gone:
                update.delete_column(name)
    return bool(gone)


def _same(one: IcebergType, other: IcebergType) -> bool:
    """Compare types without the ids that nested ones carry."""
    if one.is_primitive or other.is_primitive:
        return one == other
    first, second = (schema_to_pyarrow(Schema(NestedField(1, "x", t)), include_field_ids=False) for t in (one, other))
    return bool(first.equals(second))


def _without_narrower(current: Schema, wanted: Schema) -> Schema:
    """Leave out columns whose declared type the table's own type already holds, such as int in a long."""
    wider = {("int", "long"), ("float", "double")}
    have = {f.name: str(f.field_type) for f in current.fields}
    fields = [f for f in wanted.fields if (str(f.field_type), have.get(f.name)) not in wider]
    return Schema(*fields)


def _plan(table: Table, expression: BooleanExpression) -> list[DataFile]:
    """Return the live files that may hold rows of a filter."""
    tasks = list(table.scan(row_filter=expression).plan_files())
    if any(task.delete_files for task in tasks):
        raise SchemaMismatchError(
            "The table has delete files of another engine.",
            where=f"table {'.'.join(table.name())}",
            fix="compact it with the engine that wrote them (Trino: ALTER TABLE … EXECUTE optimize).",
        )
    return [task.file for task in tasks]


def _deduplicate(
    connection: duckdb.DuckDBPyConnection,
    staged: Staged,
    key: Sequence[str],
    order_by: str | None,
) -> int:
    """Keep one of the staged rows for every key; return how many were left out."""
    if not key or not staged.rows:
        return 0
    keys = ", ".join(quote(k) for k in key)
    only_keys = files_sql(staged.schema, staged.paths, columns=key)
    final = order_by is not None or staged.metadata.spec().is_unpartitioned()
    if (
        final
        and not connection.sql(f"SELECT 1 FROM {only_keys} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1").fetchall()
    ):
        return 0
    columns = ", ".join(quote(f.name) for f in staged.schema.fields)
    order = ", ".join(
        ([f"{quote(order_by)} DESC NULLS LAST"] if order_by else [])
        + [f"list_position({staged.paths!r}, filename) DESC", "file_row_number DESC"]
    )
    rows = files_sql(staged.schema, staged.paths, position=True)
    winners = connection.sql(
        f"SELECT {columns} FROM {rows} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
    )
    single = staged.anew()
    writer = FileWriter(single)
    try:
        for batch in _tables(winners):
            writer.write(batch)
        writer.close()
    except BaseException:
        discard(single)
        raise
    duplicates = staged.rows - single.rows
    discard(staged)
    staged.files, staged.rows = single.files, single.rows
    return duplicates


def _require_unique(connection: duckdb.DuckDBPyConnection, staged: Staged, unique: Sequence[Sequence[str]]) -> None:
    problems = []
    for columns in unique if staged.rows else ():
        names = ", ".join(quote(c) for c in columns)
        twice = connection.sql(
            f"SELECT {names}, count(*) FROM {files_sql(staged.schema, staged.paths, columns=columns)}"
            f" GROUP BY {names} HAVING count(*) > 1 LIMIT 3"
        ).fetchall()
        if twice:
            shown = ", ".join(f"{row[:-1] if len(row) > 2 else row[0]} ({row[-1]} times)" for row in twice)
            problems.append(f"{', '.join(f'`{c}`' for c in columns)} must be unique: {shown}")
    if problems:
        raise ContractError(
            "; ".join(problems) + "; nothing was written.",
            where=f"table {staged.table}",
            fix="correct the source, or name the column in unique_key: then the last row wins.",
        )


def _tables(rows: duckdb.DuckDBPyRelation) -> Iterator[pa.Table]:
    for batch in rows.to_arrow_reader(_READ_ROWS):
        yield pa.Table.from_batches([batch])
