"""Write Arrow tables into an Iceberg table: stage Parquet files, then move the table by one snapshot."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CreateTableTransaction, Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AssertCreate, SetPropertiesUpdate
from pyiceberg.types import DoubleType, FloatType

from cascade.catalog import BranchingCatalog, check_table_name
from cascade.catalog.reference import TableCommit
from cascade.catalog.storage import storage_errors
from cascade.duck.session import connect
from cascade.duck.sql import identifier
from cascade.errors import BranchNotFoundError, CascadeError, CatalogError, SchemaMismatchError
from cascade.iceberg.damage import require_whole
from cascade.iceberg.evolve import evolve, require_distinct
from cascade.iceberg.head import Head
from cascade.iceberg.properties import long_values, pack
from cascade.iceberg.read import FILE, ROW, files_sql, row_count, unmarked
from cascade.iceberg.removal import Marks, copy
from cascade.iceberg.rows import Where, of_keys
from cascade.iceberg.schema import arrow_schema, grows, schema_from_arrow
from cascade.iceberg.staging import Staged, discard, writing
from cascade.names import ROW_BYTES_PROPERTY

if TYPE_CHECKING:
    import duckdb

__all__ = ["Replace", "Staging", "WriteResult", "commit", "stage", "write"]

Mode = Literal["append", "merge", "replace"]
# Opens a transaction in which the table exists and has the columns of `schema=`.
_Begin = Callable[..., tuple[Transaction, TableMetadata]]
#: Given a table, returns which of its rows are replaced.
Replace = Callable[[Table], Where]

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


def write(
    catalog: BranchingCatalog, branch: str, table: str, batches: Iterable[pa.Table], *, schema: Schema, **options: Any
) -> WriteResult:
    """Stage batches and commit them as one snapshot; arguments and errors as for `stage`."""
    with stage(catalog, branch, table, batches, schema=schema, **options) as staged:
        (result,) = commit([staged])
    return result


@contextlib.contextmanager
def stage(
    catalog: BranchingCatalog,
    branch: str,
    table: str,
    batches: Iterable[pa.Table],
    *,
    schema: Schema,
    mode: Mode,
    key: Sequence[str] = (),
    deduplicate: bool = True,
    order_by: str | None = None,
    replace: Replace | None = None,
    spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
    exact: bool = False,
    drop: bool = False,
    properties: Mapping[str, str] | Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    snapshot_properties: Mapping[str, str] | None = None,
    spill_to: Path | None = None,
) -> Iterator[Staging]:
    """Write batches as files that no snapshot holds yet; `commit` makes them the table's next snapshot.

    What is not committed is deleted at the end.

    Args:
        catalog: The catalog.
        branch: The branch to write.
        table: `namespace.table`; created on the first write, in the same commit.
        batches: Arrow tables; columns they lack are null, columns that the table lacks are added.
        schema: The columns that the table has at least.
        mode: `append`; `merge`: rows with the same key are replaced; `replace`: the rows that `replace` selects
            are replaced, all of them when it is not given.
        key: Columns that name a row. Of several incoming rows with one key the last wins.
        deduplicate: False writes all incoming rows of a key.
        order_by: Column whose greatest value wins instead.
        replace: Given the table as it is when the commit is made, returns the rows that are replaced.
        spec: Partitioning of a new table.
        exact: Whether the table loses columns that the schema lacks, and takes over changed types without their values.
        drop: Whether it loses those columns, and takes over only types that hold what it has.
        properties: Table properties set in the same commit; a function is called when all rows are
            staged, with the properties that the table has then.
        snapshot_properties: Entries of the snapshot's summary.
        spill_to: Folder for what does not fit into memory.

    Raises:
        SchemaMismatchError: Rows and table do not fit.
    """
    with storage_errors(catalog.settings.warehouse_location), contextlib.ExitStack() as undo:
        begin = partial(_begin, catalog, branch, table, spec=spec, exact=exact, drop=drop)
        single = key if deduplicate else ()
        fetched = _stage(begin, table, batches, schema, in_order=bool(single) and order_by is None)
        undo.push(partial(_abandon, fetched))
        with connect(spill_to, fetched.io) as connection:
            staged = _deduplicate(connection, fetched, single, order_by)
            undo.push(partial(_abandon, staged))
            yield Staging(
                catalog=catalog,
                branch=branch,
                files=staged,
                duplicates=fetched.rows - staged.rows,
                undo=undo,
                _begin=partial(begin, schema=schema),
                _incoming=_Incoming(connection, staged, mode, tuple(key), order_by, replace),
                _properties=properties,
                _summary=snapshot_properties or {},
            )


@dataclass
class Staging:
    """Rows of one table that are staged and not committed yet.

    Attributes:
        catalog: The catalog.
        branch: The branch to write.
        files: The staged files.
        duplicates: Rows left out because another one has the same key.
        undo: What deletes the files.
    """

    catalog: BranchingCatalog
    branch: str
    files: Staged
    duplicates: int
    undo: contextlib.ExitStack
    _begin: _Begin
    _incoming: _Incoming
    _properties: Mapping[str, str] | Callable[[Mapping[str, str]], Mapping[str, str]] | None
    _summary: Mapping[str, str]

    @property
    def table(self) -> str:
        """`namespace.table`."""
        return self.files.table

    def query(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Run a SELECT on the staged rows, which it names `{rows}`."""
        return self._incoming.connection.sql(sql.replace("{rows}", files_sql(self.files.schema, self.files.files)))

    def keep(self, condition: str) -> None:
        """Leave out the staged rows for which a condition with a window function is not true."""
        columns = ", ".join(identifier(f.name) for f in self.files.schema.fields)
        kept = self.files.without_files()
        self.undo.push(partial(_abandon, kept))
        _stage_query(self.query(f"SELECT {columns} FROM {{rows}} QUALIFY {condition}"), self.files, kept)
        discard(self.files)
        self.files, self._incoming = kept, dataclasses.replace(self._incoming, staged=kept)

    def plan(self) -> _Plan:
        """Plan the table's next snapshot on the state that it has now; its lock is held."""
        kept = self.files.without_files()
        self.undo.push(partial(_abandon, kept))
        transaction, metadata = _again(self._begin, self.files, self.branch)
        io, given = self.files.io, self._properties
        current = long_values(metadata, io)
        values = given(current) if callable(given) else given or {}
        settings = pack({name: value for name, value in values.items() if current.get(name) != value}, metadata, io)
        head = Head(transaction._table)
        incoming = self._incoming.without_outdated(head, self.undo)
        gone, replaced = incoming.remove(head, kept)
        new, updates, requirements = incoming.staged, transaction._updates, transaction._requirements
        if gone or new.files or kept.files or settings or head.is_empty:
            summary = dict(self._summary)
            if rows := kept.rows + new.rows:
                summary[ROW_BYTES_PROPERTY] = str(max(1, (kept.bytes + new.bytes) // rows))
            more, required = head.follow(metadata, gone, [*kept.files, *new.files], summary)
            updates = (*updates, SetPropertiesUpdate(updates=settings), *more)
            requirements = (*requirements, required)
        if isinstance(transaction, CreateTableTransaction):
            requirements = (AssertCreate(),)
        return _Plan((transaction._table, requirements, updates), new, kept, replaced)


class _Plan(NamedTuple):
    commit: TableCommit
    new: Staged
    kept: Staged
    replaced: int


def commit(stagings: Sequence[Staging]) -> list[WriteResult]:
    """Commit what is staged for one or more tables of a branch: all tables move at once, or none.

    Returns:
        What was done to each table.

    Raises:
        SchemaMismatchError: Another run changed a table's columns.
        DamagedFileError: Files are not what was written: staged ones, or those whose rows are copied.
        CommitFailedException: Other processes kept writing the tables.
    """
    catalog, branch = stagings[0].catalog, stagings[0].branch
    for attempt in itertools.count(1):
        with contextlib.ExitStack() as locks:
            # Planned and committed under one lock: writers of one table take turns instead of losing a race.
            for table in sorted(staging.table for staging in stagings):
                locks.enter_context(catalog.table_lock(table))
            plans = [staging.plan() for staging in stagings]
            for plan in plans:
                require_whole(plan.new.io, [*plan.new.files, *plan.kept.files], staged=True)
            try:
                tables = _commit(catalog.open(branch), plans, stagings)
                break
            except (CommitFailedException, TableAlreadyExistsError):
                # The turn was lost: the server that keeps the locks restarted.
                if attempt == _ATTEMPTS:
                    raise
                for plan in plans:
                    discard(plan.kept)
    return [_result(*each) for each in zip(stagings, plans, tables, strict=True)]


def _commit(reference: Any, plans: Sequence[_Plan], stagings: Sequence[Staging]) -> list[Table]:
    """Commit. From here on, staged files are deleted only if the commit was certainly refused."""
    undo = [staging.undo.pop_all() for staging in stagings]
    try:
        committed: list[Table] = reference.commit_tables([plan.commit for plan in plans])
    except (CommitFailedException, TableAlreadyExistsError, CatalogError) as refused:
        # Only these errors prove a refusal. A missing branch does not: it may just have been promoted with our commit.
        if not isinstance(refused, BranchNotFoundError):
            for staging, callbacks in zip(stagings, undo, strict=True):
                staging.undo.push(callbacks)
        raise
    return committed


def _result(staging: Staging, plan: _Plan, table: Table) -> WriteResult:
    head = table.current_snapshot()
    assert head is not None
    if plan.new is not staging.files:
        discard(staging.files)  # some of its rows were outdated, the others were staged again
    return WriteResult(
        snapshot_id=head.snapshot_id,
        rows=plan.new.rows,
        duplicates=staging.duplicates + staging.files.rows - plan.new.rows,
        replaced=plan.replaced,
        total=row_count(head) or 0,
    )


@dataclass(frozen=True)
class _Incoming:
    """Staged rows that are to be added to a table, and which of its rows they replace."""

    connection: duckdb.DuckDBPyConnection
    staged: Staged
    mode: Mode
    key: tuple[str, ...]
    order_by: str | None
    replace: Replace | None

    def without_outdated(self, head: Head, undo: contextlib.ExitStack) -> _Incoming:
        """Leave out the rows over which a row of the table wins, because its `order_by` value is greater."""
        if self.mode != "merge" or not self.order_by or not self.staged.rows or head.is_empty:
            return self
        if not {*self.key, self.order_by} <= {f.name for f in head.table.schema().fields}:
            return self
        schema, new = self.staged.schema, files_sql(self.staged.schema, self.staged.files)
        candidates = head.files(of_keys(self.connection, new, self.key))
        deletes = head.deletes({(file.spec_id, file.partition) for file in candidates})
        require_whole(self.staged.io, [*candidates, *deletes])
        old = files_sql(schema, candidates, columns=[*self.key, self.order_by], position=bool(deletes))
        same = " AND ".join(f"new.{identifier(k)} = old.{identifier(k)}" for k in self.key)
        rank = partial(_rank, schema, self.order_by)
        newer = f"SELECT 1 FROM {old} AS old WHERE {same} AND {rank('old.')} > {rank('new.')} AND {unmarked(deletes)}"
        outdated = f"EXISTS ({newer})"
        if not candidates or not self.connection.sql(f"SELECT 1 FROM {new} AS new WHERE {outdated} LIMIT 1").fetchall():
            return self
        current = self.staged.without_files()
        undo.push(partial(_abandon, current))
        columns = ", ".join(identifier(f.name) for f in schema.fields)
        kept = self.connection.sql(f"SELECT {columns} FROM {new} AS new WHERE NOT {outdated}")
        _stage_query(kept, self.staged, current)
        return dataclasses.replace(self, staged=current)

    def remove(self, head: Head, kept: Staged) -> tuple[list[DataFile], int]:
        """Return the files to remove, and how many rows of the table go.

        What stays of the rows of these files is staged again, and the marks of rows that go and whose files stay.
        """
        files, goes = ([], "") if head.is_empty else self._replaced(head)
        marks = Marks(head)
        stays = self._staying(files, goes, marks)
        rows = {file: int(marks.stays(file).sum() - stays[file.file_path].sum()) for file in files}
        files = [file for file in files if rows[file] or not goes]
        marked = marks.choose([file for file in files if stays[file.file_path].any()], stays)
        gone = [file for file in files if file not in marked]
        small = [file for file in head.small_files(gone) if file not in marked]
        require_whole(kept.io, small)
        copy([file for file in gone if stays[file.file_path].any()], kept, stays)
        copy(small, kept, {file.file_path: marks.stays(file) for file in small})
        gone += small
        return [*gone, *marks.change(gone, marked, stays, kept)], sum(rows.values())

    def _staying(self, files: list[DataFile], goes: str, marks: Marks) -> dict[str, np.ndarray]:
        """Return which rows of files stay, by the path of the file."""
        if not files or not goes:
            return {file.file_path: np.zeros(file.record_count, bool) for file in files}
        require_whole(self.staged.io, files)
        stays = [marks.stays(file) for file in files]
        old = files_sql(self.staged.schema, files, position=True)
        found = self.connection.sql(f"SELECT {FILE}, {ROW} FROM {old} AS old WHERE {goes}")
        for batch in found.to_arrow_reader(_READ_ROWS):
            numbers, rows = (column.to_numpy() for column in batch.columns)
            for number in np.unique(numbers):
                stays[number][rows[numbers == number]] = False
        return {file.file_path: each for file, each in zip(files, stays, strict=True)}

    def _replaced(self, head: Head) -> tuple[list[DataFile], str]:
        """Return the files that may hold rows which are replaced, and the condition of these rows ("" for all)."""
        if self.mode == "append":
            return [], ""
        if self.mode == "replace":
            where = self.replace(head.table) if self.replace else Where(AlwaysTrue(), "")
            return head.files(where.files), where.rows
        if not self.staged.rows or not set(self.key) <= {f.name for f in head.table.schema().fields}:
            return [], ""
        new = files_sql(self.staged.schema, self.staged.files, columns=self.key)
        same = " AND ".join(f"new.{identifier(k)} = old.{identifier(k)}" for k in self.key)
        return head.files(of_keys(self.connection, new, self.key)), f"EXISTS (SELECT 1 FROM {new} AS new WHERE {same})"


def _stage(begin: _Begin, table: str, batches: Iterable[pa.Table], schema: Schema, *, in_order: bool) -> Staged:
    """Write batches as data files of a table, without touching the table.

    Files in order keep the order of all rows, which those of partitions would lose.
    """
    transaction, metadata = begin(schema=schema)
    staged = Staged(table, metadata, transaction._table.io)
    with writing(staged, partitioned=not in_order) as writer:
        held: dict[str, pa.DataType] = {}
        for batch in batches:
            held = held or {f.name: f.type for f in arrow_schema(staged.schema)}
            more = pa.schema([f for f in batch.schema if f.name not in held or grows(f.type, held[f.name])])
            if more.names:
                staged.steps.append(schema_from_arrow(more))
                evolve(transaction, table, staged.schema, staged.steps[-1])
                writer.follow(transaction.table_metadata)
                held = {}
            writer.write(batch)
    return staged


def _stage_query(rows: duckdb.DuckDBPyRelation, source: Staged, into: Staged) -> None:
    """Stage the rows of a query on staged files again."""
    with writing(into) as writer:
        for batch in rows.to_arrow_reader(_READ_ROWS):
            writer.write(pa.Table.from_batches([batch]))
        require_whole(source.io, source.files, staged=True)


def _abandon(staged: Staged, _type: object, error: BaseException | None, _traceback: object) -> None:
    """Delete staged files that will not be used; a damaged one is why its rows could not be read."""
    try:
        if isinstance(error, Exception) and not isinstance(error, CascadeError):
            require_whole(staged.io, staged.files, staged=True)
    finally:
        discard(staged)


def _begin(
    catalog: BranchingCatalog, branch: str, table: str, *, schema: Schema, spec: PartitionSpec, exact: bool, drop: bool
) -> tuple[Transaction, TableMetadata]:
    """Open a transaction in which the table exists and has every column of the schema."""
    check_table_name(table)
    reference = catalog.open(branch)
    try:
        found = reference.load_table(table)
    except NoSuchTableError:
        require_distinct(table, schema.as_struct())
        creation = reference.create_table_transaction(table, schema, partition_spec=spec)
        return creation, creation.table_metadata
    transaction: Transaction = found.transaction()
    changed = evolve(transaction, table, found.schema(), schema, exact=exact, drop=drop)
    return transaction, transaction.table_metadata if changed else found.metadata


def _again(begin: _Begin, staged: Staged, branch: str) -> tuple[Transaction, TableMetadata]:
    """Open a transaction on the table as it is now, in which the staged files are still right."""
    # In the steps in which they were staged: a new table numbers its columns as they come, nested ones in between.
    transaction, metadata = begin()
    for step in staged.steps:
        if evolve(transaction, staged.table, metadata.schema(), step):
            metadata = transaction.table_metadata
    now = {f.field_id: (f.name, f.field_type) for f in metadata.schema().fields}
    if any(now.get(f.field_id) != (f.name, f.field_type) for f in staged.schema.fields):
        raise SchemaMismatchError(
            "Another run changed the table's columns while this one was writing; nothing was committed.",
            where=f"table {staged.table}, branch {branch}",
            fix="run again.",
        )
    return transaction, metadata


def _deduplicate(
    connection: duckdb.DuckDBPyConnection, staged: Staged, key: Sequence[str], order_by: str | None
) -> Staged:
    """Return one of the staged rows for every key."""
    if not key or not staged.rows:
        return staged
    keys = ", ".join(identifier(k) for k in key)
    # Files in the order of the rows are not yet those of the partitions.
    final = order_by is not None or staged.metadata.spec().is_unpartitioned()
    if final and _distinct(connection, staged, key):
        return staged
    columns = ", ".join(identifier(f.name) for f in staged.schema.fields)
    rows = files_sql(staged.schema, staged.files, position=True)
    order = f"{FILE} DESC, {ROW} DESC"
    if order_by:
        order = f"{_rank(staged.schema, order_by)} DESC NULLS LAST, {order}"
    winners = connection.sql(
        f"SELECT {columns} FROM {rows} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
    )
    single = staged.without_files()
    _stage_query(winners, staged, single)
    discard(staged)
    return single


def _distinct(connection: duckdb.DuckDBPyConnection, staged: Staged, key: Sequence[str]) -> bool:
    """Say whether all staged rows have another hash of their key: it takes 8 bytes a row, a set of keys 50."""
    keys = ", ".join(identifier(k) for k in key)
    rows = connection.sql(f"SELECT hash({keys}) FROM {files_sql(staged.schema, staged.files, columns=key)}")
    hashes, at = np.empty(staged.rows, np.uint64), 0
    for batch in rows.to_arrow_reader(_READ_ROWS):
        hashes[at : (at := at + len(batch))] = batch.column(0)
    hashes.sort()
    return not (hashes[1:] == hashes[:-1]).any()


def _rank(schema: Schema, column: str, of: str = "") -> str:
    """Return the SQL value that rows are ordered by: NaN, the greatest number to DuckDB, is none."""
    name = f"{of}{identifier(column)}"
    floating = isinstance(schema.find_type(column), FloatType | DoubleType)
    return f"CASE WHEN NOT isnan({name}) THEN {name} END" if floating else name
