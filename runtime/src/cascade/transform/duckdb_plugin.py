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

from cascade.catalog import MAIN
from cascade.config import load_settings
from cascade.engine import register_table, register_tables
from cascade.errors import TransformError
from cascade.iceberg.filters import Where, within
from cascade.iceberg.read import quote, spill, text
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import write
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
            target_config: `relation` is the table; `config` has `sql`, `mode`, `key`, `on_schema_change`,
                `event_time` with `begin` and `end` for a microbatch, and `description`.

        Raises:
            TransformError: The columns changed and the model's `on_schema_change` is `fail`.
        """
        relation, config = target_config.relation, dict(target_config.config)
        name = f"{relation.schema}.{relation.identifier}"
        lakehouse = self._lakehouse
        branch = lakehouse.ensure_branch()
        # A cursor of our own: the model's transaction stays out of it.
        with self._connection.cursor() as cursor:
            cursor.execute("SET TimeZone='UTC'")
            sql = config["sql"]
            if config["mode"] != "replace":
                sql = self._keep_columns(cursor, name, sql, config["on_schema_change"])
            rows = arrow_rows(cursor.sql(sql), name)
            replaced = _range(config)
            write(
                lakehouse.lake,
                branch,
                name,
                _tables(rows),
                schema=schema_from_arrow(rows.schema),
                mode="replace" if replaced else config["mode"],
                key=config["key"],
                replace=(lambda _: replaced) if replaced else None,
                exact=config["mode"] == "replace" or config["on_schema_change"] == "sync_all_columns",
                properties={"comment": config["description"]} if config["description"] else None,
                spill_to=self._spill,
            )
            register_table(cursor, name, lakehouse.table(name), database=_DATABASE)

    def _keep_columns(self, cursor: duckdb.DuckDBPyConnection, name: str, sql: str, policy: str) -> str:
        """Apply dbt's `on_schema_change` to the rows of an incremental run."""
        have = [f.name for f in self._lakehouse.table(name).schema().fields]
        new = cursor.sql(sql).columns
        extra = [c for c in new if c not in have]
        missing = [c for c in have if c not in new]
        if policy == "fail" and (extra or missing):
            raise TransformError(
                f"The columns of {name} changed: new {extra or 'none'}, gone {missing or 'none'}.",
                where=f"model {name}, on_schema_change: fail",
                fix="run it with --full-refresh, or choose another on_schema_change.",
            )
        if policy == "ignore" and extra:
            kept = ", ".join(quote(c) for c in new if c in have)
            return f"SELECT {kept} FROM ({sql}) AS model"
        return sql


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


def _range(config: dict[str, Any]) -> Where | None:
    """Return what a microbatch replaces: its own slice of the event time."""
    if not config.get("begin"):
        return None
    column, begin, end = config["event_time"], *(_moment(config[side]) for side in ("begin", "end"))
    condition = f"{quote(column)} >= TIMESTAMPTZ {text(begin)} AND {quote(column)} < TIMESTAMPTZ {text(end)}"
    return Where(within(column, begin, end), condition)


def _moment(value: str) -> str:
    moment = dt.datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).isoformat()


def _tables(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    for batch in reader:
        yield pa.Table.from_batches([batch])
