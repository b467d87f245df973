"""The plugin inside the dbt process: Iceberg tables of a branch as DuckDB views, models written as Iceberg commits."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import TargetConfig
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, IcebergType, TimestamptzType

from cascade.catalog import MAIN
from cascade.config import load_settings
from cascade.engine import register_table, register_tables
from cascade.errors import SchemaMismatchError, TransformError
from cascade.iceberg.filters import Where, within
from cascade.iceberg.read import duckdb_type, quote, spill, text
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import Staging, commit, stage
from cascade.lakehouse import Lakehouse

__all__ = ["Plugin", "arrow_rows"]

_DATABASE = "iceberg"
_ROWS = 100_000


class Plugin(BasePlugin):  # type: ignore[misc]  # dbt-duckdb ships no types
    """Loaded by dbt-duckdb by this name; one for the whole dbt process."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Find the project and the branch."""
        settings = load_settings(
            Path(os.environ["CASCADE_PROJECT_DIR"]) if "CASCADE_PROJECT_DIR" in os.environ else None
        )
        run_branch = os.environ.get("CASCADE_RUN_BRANCH")
        # A run has made its branch before it starts dbt.
        self._lakehouse = Lakehouse(settings, run_branch or settings.branch, made=bool(run_branch))
        if self._lakehouse.branch == MAIN:
            raise TransformError("dbt never writes `main`.", fix="unset CASCADE_RUN_BRANCH, or name another branch.")
        self._spill = settings.data_path / "tmp"

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Show every table of the branch, all as they stand at one moment."""
        self._connection = conn
        conn.execute("SET TimeZone='UTC'")
        self._spill.mkdir(parents=True, exist_ok=True)
        spill(conn, self._spill)
        conn.execute(f"ATTACH ':memory:' AS {_DATABASE}")
        lake = self._lakehouse.lake
        pointers = lake.pointers(self._lakehouse.ref)
        register_tables(conn, {n: lake.load(n, at) for n, at in pointers.items()}, database=_DATABASE)

    def store(self, target_config: TargetConfig) -> None:
        """Run a model's SQL and commit its rows to the model's table.

        Args:
            target_config: `relation` is the table; `config` is what `duckdb__cascade_store` makes of the model.

        Raises:
            TransformError: The rows break a guard, have a key twice, or have types that the table cannot take.
        """
        relation, config = target_config.relation, dict(target_config.config)
        name = f"{relation.schema}.{relation.identifier}"
        lakehouse = self._lakehouse
        branch = lakehouse.ensure_branch()
        policy = "" if config["mode"] == "replace" else config["on_schema_change"]
        # A cursor of our own: the model's transaction stays out of it.
        with self._connection.cursor() as cursor:
            cursor.execute("SET TimeZone='UTC'")
            rows = arrow_rows(cursor.sql(config["sql"]), name)
            schema = schema_from_arrow(rows.schema)
            if policy == "fail":
                self._require_types(name, schema)
            replaced = _range(config, schema)
            try:
                with stage(
                    lakehouse.lake,
                    branch,
                    name,
                    _tables(rows),
                    schema=schema,
                    mode="replace" if replaced else config["mode"],
                    key=config["key"],
                    deduplicate=False,
                    replace=(lambda _: replaced) if replaced else None,
                    exact=not policy,
                    drop=policy == "sync_all_columns",
                    properties={"comment": config["description"]} if config["description"] else None,
                    spill_to=self._spill,
                ) as staged:
                    _verify(staged, config["key"] if config["unique"] else [], config["guards"])
                    commit([staged])
            except SchemaMismatchError as error:
                raise TransformError(
                    error.what,
                    where=f"model {name}",
                    fix="cast to the type that the table has, or make its table anew: cascade run --full-refresh"
                    f" --select {relation.schema}/{relation.identifier}",
                ) from error
            register_table(cursor, name, lakehouse.table(name), database=_DATABASE)

    def _require_types(self, name: str, schema: Schema) -> None:
        have = {f.name: f.field_type for f in self._lakehouse.table(name).schema().fields}
        changed = [
            f"{f.name} from {have[f.name]} to {f.field_type}"
            for f in schema.fields
            if f.field_type.is_primitive and f.field_type != have[f.name]
        ]
        if changed:
            raise TransformError(
                f"The model changes the type of {', '.join(changed)}, and its on_schema_change is fail.",
                where=f"model {name}",
                fix="cast to the type that the table has, or choose another on_schema_change.",
            )


def arrow_rows(rows: duckdb.DuckDBPyRelation, model: str) -> pa.RecordBatchReader:
    """Return the rows of a model as Arrow.

    Raises:
        TransformError: Columns whose values Arrow would change: the offset of a time, the bits of a BIT.
    """
    changed = [
        f"`{name}` ({kind})"
        for name, kind in zip(rows.columns, map(str, rows.types), strict=True)
        if kind in ("TIME WITH TIME ZONE", "BIT")
    ]
    if changed:
        raise TransformError(
            f"Iceberg has no type for these columns: {', '.join(changed)}.",
            where=f"model {model}",
            fix="cast them in the model, for example to varchar.",
        )
    return rows.to_arrow_reader(_ROWS)


def _verify(staged: Staging, unique: list[str], guards: list[dict[str, str]]) -> None:
    """Refuse rows that break a guard, or have the key of another row."""
    problems = []
    if guards:
        counts = ", ".join(f"count(*) FILTER (WHERE {guard['breaks']})" for guard in guards)
        (found,) = staged.query(f"SELECT {counts} FROM {{rows}}").fetchall()
        problems += [f"{n} rows {guard['says']}" for n, guard in zip(found, guards, strict=True) if n]
    if unique:
        names = ", ".join(quote(c) for c in unique)
        twice = f"SELECT {names}, count(*) FROM {{rows}} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 3"
        for *key, count in staged.query(twice).fetchall():
            shown = ", ".join(f"{name} = {value}" for name, value in zip(unique, key, strict=True))
            problems.append(f"{count} rows with the unique_key {shown}")
    if problems:
        fix = "leave one row of each key, or let incremental_strategy be 'delete+insert', which keeps all new ones."
        raise TransformError(
            f"The model has {'; '.join(problems)}. Nothing was written.",
            where=f"model {staged.table}",
            fix=fix if unique else "correct the model, or what it reads.",
        )


def _range(config: dict[str, Any], schema: Schema) -> Where | None:
    """Return what a microbatch replaces, its own slice of the event time: as a filter and as SQL."""
    if not config.get("begin"):
        return None
    field = schema.find_field(config["event_time"], case_sensitive=False)
    column, kind = field.name, field.field_type
    begin, end = (_moment(config[side], kind) for side in ("begin", "end"))
    if begin == end:
        raise TransformError(
            f"A date such as `{column}` has no hours, and batch_size is hour.",
            where="event_time of the model",
            fix="let batch_size be day, or event_time a timestamp.",
        )
    literal = duckdb_type(kind)
    condition = f"{quote(column)} >= {literal} {text(begin)} AND {quote(column)} < {literal} {text(end)}"
    return Where(within(column, begin, end), condition)


def _moment(value: str, kind: IcebergType) -> str:
    """Return an end of a microbatch as a value of the type of its event time; what has no time zone is UTC."""
    moment = dt.datetime.fromisoformat(value)
    moment = moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    if isinstance(kind, TimestamptzType):
        return moment.isoformat()
    return (moment.date() if isinstance(kind, DateType) else moment.replace(tzinfo=None)).isoformat()


def _tables(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    for batch in reader:
        yield pa.Table.from_batches([batch])
