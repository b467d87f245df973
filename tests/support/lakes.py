"""What the tests of the lakehouse share: rows in, rows out, and processes that use it at the same time."""

import contextlib
import multiprocessing
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import requests
import sqlalchemy as sa
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings, build_settings
from cascade.iceberg import removal
from cascade.iceberg.head import DeletesWriter
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import WriteResult, write
from cascade_embedded.catalog import EmbeddedCatalog

# A server that has imported everything once and forks: processes that start quickly and share nothing.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        *("cascade_embedded.catalog", "cascade.engine", "cascade.iceberg.write", "duckdb", "pytest"),
        *("cascade.ingestion.load", "cascade_dbt.assets", "cascade_maintain.branches", "cascade_operations.run"),
        *("dbt.cli.main", "dbt.adapters.duckdb.impl", "dlt.extract.incremental"),
    ]
)

Rows = list[dict[str, Any]]


def settings_in(folder: Path, **more: Any) -> Settings:
    """Return the settings of a project in a folder, on the servers that the environment names if it names any."""
    return build_settings(folder, {**as_settings(os.environ), **more})


def as_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in environment variables: `branch`, `trino.url`."""
    ours = {name.removeprefix("CASCADE_"): value for name, value in environment.items() if name.startswith("CASCADE_")}
    return {name.lower().replace("__", "."): value for name, value in ours.items()}


def open_with(settings: dict[str, str], folder: Path) -> BranchingCatalog:
    """Open the lakehouse that settings lead to, with its own files in a folder."""
    return open_catalog(build_settings(folder, {"data_dir": folder, **settings}))


def open_embedded(folder: Path) -> BranchingCatalog:
    """Open the embedded lakehouse in a folder, as any process may do."""
    return EmbeddedCatalog(Settings(project_dir=folder, data_dir=folder))


def before_each_step(lake: BranchingCatalog, tell: Callable[[], None]) -> None:
    """Call a function right before every statement, commit or request that a catalog sends to whatever keeps it."""
    if isinstance(lake, EmbeddedCatalog):
        for moment in ("before_cursor_execute", "commit"):
            sa.event.listen(lake.database.engine, moment, lambda *_: tell())
        return
    session = lake.client.session  # type: ignore[attr-defined]  # Nessie has it
    send = session.request

    def told(*arguments: Any, **options: Any) -> requests.Response:
        tell()
        return send(*arguments, **options)

    session.request = told


def put(
    lake: BranchingCatalog, branch: str, table: str, rows: Rows | pa.Table, mode: Any = "append", **options: Any
) -> WriteResult:
    """Write rows to a table of a branch; both are made when they do not exist."""
    data = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    lake.create_if_missing(branch)
    if "schema" not in options:
        options["schema"] = schema_from_arrow(data.schema)
    return write(lake, branch, table, [data], mode=mode, **options)


def numbers(first: int, last: int) -> Rows:
    """Return rows with an `id`, both ends included."""
    return [{"id": n} for n in range(first, last + 1)]


def read(lake: BranchingCatalog, ref: str, table: str) -> Rows:
    """Return the rows of a table by PyIceberg's own reader, sorted by their first column."""
    rows: Rows = lake.load(table, lake.pointers(ref)[table]).scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: str(next(iter(row.values()))).rjust(20))


def ids(lake: BranchingCatalog, ref: str, table: str) -> list[int]:
    """Return the sorted `id` column of a table."""
    return sorted(row["id"] for row in read(lake, ref, table))


def promoted(lake: BranchingCatalog, table: str, rows: Rows | pa.Table, **options: Any) -> None:
    """Put rows into a table of `main`; options as for `put`."""
    put(lake, "setup", table, rows, **options)
    lake.merge("setup", MAIN)
    lake.delete("setup")


def data_files(lake: BranchingCatalog) -> set[str]:
    """Return where the Parquet files of the warehouse are."""
    place = lake.open(MAIN).properties["warehouse"]
    if not place.startswith("s3://"):
        return {str(file) for file in Path(place).rglob("*.parquet")}
    from cascade_maintain.warehouse import open_warehouse

    warehouse = open_warehouse(lake)
    return {f"{warehouse.place}/{file.path}" for file in warehouse.files() if file.path.endswith(".parquet")}


def start(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Run a function in a process of its own."""
    process = _PROCESSES.Process(target=work, args=arguments)
    process.start()
    return process


def finish(processes: Sequence[BaseProcess], *, seconds: float = 120) -> list[int | None]:
    """Wait for processes and return how they ended."""
    for process in processes:
        process.join(seconds)
    return [process.exitcode for process in processes]


def barrier(parties: int) -> Any:
    """Return what lets several processes begin at one moment."""
    return _PROCESSES.Barrier(parties, timeout=60)


def event() -> Any:
    """Return what one process can tell another."""
    return _PROCESSES.Event()


def counter() -> Any:
    """Return what several processes count up and another counts down."""
    return _PROCESSES.Semaphore(0)


def marking() -> contextlib.AbstractContextManager[object]:
    """Let merges mark rows as deleted, in files that are as small as those of tests, up to half of a file."""
    return mock.patch.multiple(removal, COPIED_BYTES=0, MARKED_PART=0.5)


class _AddDeletes(_FastAppendFiles):
    def new_manifest_writer(self, spec: PartitionSpec) -> DeletesWriter:
        schema = self._transaction.table_metadata.schema()
        return DeletesWriter(spec, schema, self.new_manifest_output(), self._snapshot_id, self._compression)


def mark_deleted(
    table: Table,
    rows: list[tuple[str, int]],
    file_format: FileFormat = FileFormat.PARQUET,
    partition: Record = Record(),  # noqa: B008  it is not changed
) -> None:
    """Mark rows as deleted, as Trino does it.

    Args:
        table: The table.
        rows: Paths of files, with the number of a row.
        file_format: What the delete file claims to be.
        partition: That of the files.
    """
    names = [("file_path", pa.string(), 2147483546), ("pos", pa.int64(), 2147483545)]
    schema = pa.schema([pa.field(n, kind, False, {"PARQUET:field_id": str(number)}) for n, kind, number in names])
    location = f"{table.location()}/data/deletes-{uuid.uuid4()}.parquet"
    with table.io.new_output(location).create() as file:
        pq.write_table(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema), file)
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=location,
        file_format=file_format,
        partition=partition,
        record_count=len(rows),
        file_size_in_bytes=len(table.io.new_input(location)),
    )
    with table.transaction() as transaction, _AddDeletes(Operation.DELETE, transaction, table.io) as update:
        update.append_data_file(deletes)
