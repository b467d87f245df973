"""Write Parquet files for an Iceberg table, batch by batch, before any snapshot holds them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.io.fileformat import DataFileStatistics
from pyiceberg.io.pyarrow import (
    ParquetFormatWriter,
    _determine_partitions,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionKey
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Properties, Record

from cascade.errors import SchemaMismatchError
from cascade.iceberg.damage import UNSUMMED, SummedFile
from cascade.iceberg.read import float_ids
from cascade.names import SUMMED_FILE

__all__ = ["FILE_BYTES", "FileWriter", "ParquetWriter", "Staged", "described", "discard", "writing"]

#: One file holds about this much Arrow data: a merge rewrites whole files, so they must not be large.
FILE_BYTES = 32 << 20
_ROW_GROUP = 100_000
# Rows wait for their row group up to this many bytes, of all open files together.
_HELD_BYTES = 64 << 20
# So many rows of a file tell whether values of a column come again.
_SAMPLED, _DISTINCT = 4_000, 0.95
# A wider spread of partitions is written in several files each.
_OPEN_WRITERS = 64


@dataclass
class Staged:
    """Files that are written but that no snapshot holds yet.

    Attributes:
        table: `namespace.table`.
        metadata: The table's metadata that they were written for, field ids included. Kept, because PyIceberg
            copies all of it whenever a transaction is asked.
        io: Where the files are.
        files: The files.
        rows: How many rows they hold.
        bytes: How much Arrow data that is.
        steps: The columns, and fields of columns, by which the table grew while they were written, in order.
    """

    table: str
    metadata: TableMetadata
    io: FileIO
    files: list[DataFile] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    steps: list[Schema] = field(default_factory=list)

    @property
    def schema(self) -> Schema:
        """The columns that the files have."""
        return self.metadata.schema()

    def without_files(self) -> Staged:
        """Return the same without files."""
        return Staged(self.table, self.metadata, self.io, steps=self.steps)


def discard(staged: Staged) -> None:
    """Delete staged files that will not be used."""
    for file in staged.files:
        # What cannot be deleted now is an orphan that garbage collection finds.
        with contextlib.suppress(OSError):
            staged.io.delete(file.file_path)
    staged.files.clear()


@contextlib.contextmanager
def writing(staged: Staged, *, partitioned: bool = True, file_bytes: int = FILE_BYTES) -> Iterator[FileWriter]:
    """Write files of so much Arrow data each; when that fails, none are left."""
    writer = FileWriter(staged, partitioned, file_bytes)
    try:
        yield writer
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):
            writer.close()
        discard(staged)
        raise


class ParquetWriter(ParquetFormatWriter):
    """Gives files and pages checksums, and floating-point columns no statistics: who believes those misses NaN.

    A column whose values hardly ever come again gets no dictionary: that costs half of all writing, and larger files.
    """

    def __init__(self, output: OutputFile, schema: Schema, properties: Properties) -> None:
        floats = float_ids(schema)
        of_column = TableProperties.METRICS_MODE_COLUMN_CONF_PREFIX
        none = {f"{of_column}.{schema.find_column_name(field_id)}": "none" for field_id in floats}
        self._summed = SummedFile(output)
        super().__init__(cast(OutputFile, self._summed), schema, {**properties, **none})
        self._paths = parquet_path_to_id_mapping(schema)
        self._parquet_writer_kwargs |= {
            "write_statistics": [path for path in self._paths if self._paths[path] not in floats],
            "write_page_checksum": True,
        }

    def write(self, table: pa.Table) -> None:
        """Write rows; the first ones decide which columns get a dictionary."""
        if self._writer is None:
            distinct = _distinct(table)
            self._parquet_writer_kwargs["use_dictionary"] = [path for path in self._paths if path not in distinct]
        super().write(table)

    def close(self) -> DataFileStatistics:
        """Close the file. A text whose upper bound PyIceberg cannot make has none: U+D7FF has no next character."""
        self._summed.begin_footer()
        statistics = super().close()
        for column in statistics.column_aggregates.values():
            try:
                column.max_as_bytes()
            except UnicodeEncodeError:
                column.current_max = None
        return statistics


def _distinct(rows: pa.Table) -> set[str]:
    """Return the columns of which a sample from all over some rows has hardly a value twice."""
    counted = (f for f in rows.schema if not isinstance(f.type, pa.BaseExtensionType))  # Arrow counts no UUIDs
    flat = [f.name for f in counted if not pa.types.is_nested(f.type)]
    sample = rows.select(flat).take(pa.array(range(0, rows.num_rows, 1 + rows.num_rows // _SAMPLED)))
    return {name for name in flat if pc.count_distinct(sample[name]).as_py() > sample.num_rows * _DISTINCT}


@dataclass
class _OpenFile:
    writer: ParquetFormatWriter
    output: OutputFile
    size: int = 0
    held: list[pa.Table] = field(default_factory=list)
    held_rows: int = 0
    held_bytes: int = 0

    def flush(self) -> int:
        """Write the rows that wait; return how many bytes they were."""
        written = self.held_bytes
        if self.held:
            self.writer.write(pa.concat_tables(self.held))
            self.held, self.held_rows, self.held_bytes = [], 0, 0
        return written


class FileWriter:
    """Rolls Parquet files for a table, one at a time for each of its partitions."""

    def __init__(self, staged: Staged, partitioned: bool, file_bytes: int) -> None:
        self._staged = staged
        self._file_bytes = file_bytes
        self._partitioned = partitioned
        self._open: dict[Record, _OpenFile] = {}
        self._held = 0
        self.follow(staged.metadata)

    def follow(self, metadata: TableMetadata) -> None:
        """Write what comes from now on as the table is now."""
        self.close()
        self._staged.metadata = metadata
        self._spec = metadata.spec() if self._partitioned else UNPARTITIONED_PARTITION_SPEC
        self._locations = load_location_provider(metadata.location, metadata.properties)
        self._arrow_schema = schema_to_pyarrow(metadata.schema(), include_field_ids=True).with_metadata(UNSUMMED)

    def write(self, batch: pa.Table) -> None:
        """Write a batch whose columns fit the table by name."""
        rows = _fit(batch, self._arrow_schema, self._staged.table)
        if rows.num_rows == 0:
            return
        for start in range(0, rows.num_rows, _ROW_GROUP):
            part = rows.slice(start, _ROW_GROUP)
            if self._spec.is_unpartitioned():
                self._write_part(part, None)
                continue
            for of_partition in _determine_partitions(self._spec, self._staged.schema, part):
                self._write_part(of_partition.arrow_table_partition, of_partition.partition_key)

    def _write_part(self, rows: pa.Table, key: PartitionKey | None) -> None:
        staged = self._staged
        partition = key.partition if key else Record()
        if partition not in self._open:
            if len(self._open) >= _OPEN_WRITERS:
                self.close()
            output = staged.io.new_output(self._locations.new_data_location(f"{uuid.uuid4()}{SUMMED_FILE}", key))
            writer = ParquetWriter(output, staged.schema, staged.metadata.properties)
            self._open[partition] = _OpenFile(writer, output)
        file = self._open[partition]
        file.held.append(rows)
        size = rows.nbytes
        file.size += size
        file.held_rows += rows.num_rows
        file.held_bytes += size
        self._held += size
        staged.rows += rows.num_rows
        staged.bytes += size
        if file.size >= self._file_bytes:
            self._finish(partition)
        elif file.held_rows >= _ROW_GROUP or self._held >= _HELD_BYTES:
            for one in self._open.values() if self._held >= _HELD_BYTES else (file,):
                self._held -= one.flush()

    def close(self, *, least: int = 0) -> None:
        """Finish the open files that hold so many bytes of Arrow data; more batches may follow, in new ones."""
        for partition in [partition for partition, file in self._open.items() if file.size >= least]:
            self._finish(partition)

    def _finish(self, partition: Record) -> None:
        file = self._open.pop(partition)
        self._held -= file.flush()
        statistics = file.writer.close()
        spec_id, figures = self._staged.metadata.default_spec_id, statistics.to_serialized_dict()
        self._staged.files.append(described(file.output, DataFileContent.DATA, partition, spec_id, **figures))


def described(
    output: OutputFile, content: DataFileContent, partition: Record, spec_id: int, **figures: Any
) -> DataFile:
    """Return what Iceberg keeps of a Parquet file that was written; `record_count` at least is among the figures."""
    file = DataFile.from_args(
        content=content,
        file_path=output.location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=len(output),
        **figures,
    )
    file.spec_id = spec_id
    return file


def _fit(batch: pa.Table, schema: pa.Schema, table: str) -> pa.Table:
    """Give a batch the columns, order and types of a schema."""
    columns, names = [], set(batch.column_names)  # which Arrow makes anew each time it is asked
    for wanted in schema:
        if wanted.name not in names:
            columns.append(pa.nulls(batch.num_rows, wanted.type))
            continue
        column = batch[wanted.name]
        try:
            columns.append(column.cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaMismatchError(
                f"Column `{wanted.name}` does not fit: {error}",
                where=f"table {table}, column type {wanted.type}, rows have {column.type}",
                fix="return values of the declared type, or declare another one.",
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)
