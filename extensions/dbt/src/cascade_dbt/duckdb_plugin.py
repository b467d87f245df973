"""The plugin inside the dbt process: Iceberg tables of a branch as DuckDB views, models written as Iceberg commits."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import TargetConfig
from pyiceberg.schema import Schema, index_by_id
from pyiceberg.types import DateType, IcebergType, NestedField, TimestampType, TimestamptzType

from cascade.catalog import MAIN
from cascade.config import load_settings
from cascade.duck.session import spill, use_utc
from cascade.duck.sql import identifier
from cascade.engine import register_table
from cascade.errors import SchemaMismatchError, TransformError
from cascade.iceberg.rows import Where, within
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import Staging, commit, stage
from cascade.lakehouse import Lakehouse
from cascade.names import PROJECT_DIR_VARIABLE, RUN_BRANCH_VARIABLE

__all__ = ["Plugin", "arrow_rows"]

_DATABASE = "iceberg"
_ROWS = 100_000
_CAST = "cast them in the model, for example to varchar."


class Plugin(BasePlugin):  # type: ignore[misc]  # dbt-duckdb ships no types
    """Loaded by dbt-duckdb by this name; one for the whole dbt process."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Find the project and the branch."""
        settings = load_settings(Path(os.environ[PROJECT_DIR_VARIABLE]) if PROJECT_DIR_VARIABLE in os.environ else None)
        run_branch = os.environ.get(RUN_BRANCH_VARIABLE)
        # A run has made its branch before it starts dbt.
        self._lakehouse = Lakehouse(settings, run_branch or settings.branch, made=bool(run_branch))
        if self._lakehouse.branch == MAIN:
            raise TransformError(
                "dbt never writes `main`.", fix=f"unset {RUN_BRANCH_VARIABLE}, or name another branch."
            )
        self._spill = settings.data_path / "tmp"

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Show every table of the branch, all in their states of one moment."""
        self._connection = conn
        use_utc(conn)
        self._spill.mkdir(parents=True, exist_ok=True)
        spill(conn, self._spill)
        conn.execute(f"ATTACH ':memory:' AS {_DATABASE}")
        # It stays open: DuckDB calls what was registered through a cursor, and would find other objects in its place.
        self._views, self._one_at_a_time = conn.cursor(), threading.Lock()
        catalog = self._lakehouse.catalog
        pointers = catalog.pointers(self._lakehouse.ref)
        for name, location in pointers.items():
            register_table(self._views, name, catalog.load(name, location), database=_DATABASE)

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
            use_utc(cursor)
            try:
                # As the model says it: a query around it would number columns of one name.
                _require_names(_select(cursor, config["model"], name).columns, name)
                rows = arrow_rows(cursor.sql(config["sql"]), name)
                schema = schema_from_arrow(rows.schema)
                if nested := [k for k in config["key"] if not schema.find_type(k).is_primitive]:
                    raise TransformError(
                        f"Its unique_key `{nested[0]}` is a {schema.find_type(nested[0])}, which cannot be a key.",
                        where=f"model {name}",
                        fix="name a column that is no list, map or struct.",
                    )
                if policy:
                    self._require_columns(name, schema, policy)
                replaced = _range(config, schema, name)
                with stage(
                    lakehouse.catalog,
                    branch,
                    name,
                    _tables(rows),
                    schema=schema,
                    mode="replace" if replaced else config["mode"],
                    key=config["key"],
                    deduplicate=False,
                    # The first batch of a refresh rebuilds the whole table.
                    replace=(lambda _: replaced) if replaced and policy else None,
                    exact=not policy,
                    drop=policy == "sync_all_columns",
                    properties={"comment": config["description"]} if config["description"] else None,
                    spill_to=self._spill,
                ) as staged:
                    outside = [_outside(config, replaced)] if replaced else []
                    _verify(staged, config["key"] if config["unique"] else [], [*config["guards"], *outside])
                    commit([staged])
            except SchemaMismatchError as error:
                cast = "cast to the type that the table has, or " + _anew(name) if policy else _CAST
                raise TransformError(error.what, where=f"model {name}", fix=cast) from error
            except (OverflowError, ValueError) as error:
                raise TransformError(
                    f"A value is more than Iceberg can keep: {error}.",
                    where=f"model {name}",
                    fix="leave it out or cast it: dates and times go from year 1 to 9999, decimals have 38 digits.",
                ) from error
            with self._one_at_a_time:
                register_table(self._views, name, lakehouse.table(name), database=_DATABASE)

    def _require_columns(self, name: str, schema: Schema, policy: str) -> None:
        """Refuse nested fields that the model gave up, and every change of a column if the policy is `fail`."""
        have = {f.name: _parts(f) for f in self._lakehouse.table(name).schema().fields}
        gone, changed = [], []
        for new, old in ((_parts(f), have[f.name]) for f in schema.fields if f.name in have):
            gone += [part for part in old if part not in new]
            changed += [f"{n} from {old.get(n, 'nothing')} to {kind}" for n, kind in new.items() if old.get(n) != kind]
        if gone:
            raise TransformError(
                f"Its table has {', '.join(gone)}, which the model no longer has; new rows would have no value there.",
                where=f"model {name}",
                fix="give it back to the model under its old name, or " + _anew(name),
            )
        if changed and policy == "fail":
            raise TransformError(
                f"The model changes the type of {', '.join(changed)}, and its on_schema_change is fail.",
                where=f"model {name}",
                fix="cast to the type that the table has, or choose another on_schema_change.",
            )


def _anew(name: str) -> str:
    return f"rebuild its table: cascade run --full-refresh --select {name.replace('.', '/')}"


def _parts(field: NestedField) -> dict[str, str]:
    """Return a column and the fields nested in it, with their types."""
    schema = Schema(field)
    return {
        schema.find_column_name(n) or "": str(f.field_type)
        if f.field_type.is_primitive
        else type(f.field_type).__name__
        for n, f in index_by_id(schema).items()
    }


def _select(cursor: duckdb.DuckDBPyConnection, sql: str, model: str) -> duckdb.DuckDBPyRelation:
    """Return the rows of a model, which is one statement: of several, only the last would be kept."""
    kinds = [str(statement.type).rpartition(".")[2] for statement in cursor.extract_statements(sql)]
    if kinds not in (["SELECT"], ["MULTI"]):  # MULTI is a PIVOT
        raise TransformError(
            f"The model is {' and '.join(kinds) or 'empty'}, and not one SELECT.",
            where=f"model {model}",
            fix="write one SELECT; what comes before it can be a common table expression or another model.",
        )
    return cursor.sql(sql)


def _require_names(names: list[str], model: str) -> None:
    if same := sorted(name for name in names if [n.lower() for n in names].count(name.lower()) > 1):
        raise TransformError(
            f"The model has several columns of one name: {', '.join(same)}.",
            where=f"model {model}",
            fix="give each a name of its own, with AS; capital letters make no difference.",
        )


def arrow_rows(rows: duckdb.DuckDBPyRelation, model: str) -> pa.RecordBatchReader:
    """Return the rows of a model as Arrow.

    Raises:
        TransformError: Columns whose values Arrow would change: the offset of a time, the bits of a BIT.
    """
    changed = [f"`{name}` ({kind})" for name, kind in zip(rows.columns, rows.types, strict=True) if _is_lost(kind)]
    if changed:
        raise TransformError(
            f"Iceberg has no type for these columns: {', '.join(changed)}.",
            where=f"model {model}",
            fix=_CAST,
        )
    return rows.to_arrow_reader(_ROWS)


def _is_lost(kind: Any) -> bool:
    """Return whether Arrow has only the storage of a type, or of one nested in it."""
    if str(kind) in ("TIME WITH TIME ZONE", "BIT", "VARIANT"):
        return True
    nested = kind.id in ("list", "array", "struct", "map", "union")
    return nested and any(_is_lost(inner) for name, inner in kind.children if name != "size")


def _verify(staged: Staging, unique: list[str], guards: list[dict[str, str]]) -> None:
    """Refuse rows that break a guard, or have the key of another row."""
    problems = []
    if guards:
        counts = ", ".join(f"count(*) FILTER (WHERE {guard['breaks']})" for guard in guards)
        (found,) = staged.query(f"SELECT {counts} FROM {{rows}}").fetchall()
        problems += [f"{n} rows {guard['says']}" for n, guard in zip(found, guards, strict=True) if n]
    if unique:
        names = ", ".join(identifier(c) for c in unique)
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


def _range(config: dict[str, Any], schema: Schema, model: str) -> Where | None:
    """Return what a microbatch replaces, its own slice of the event time: as a filter and as SQL."""
    if not config.get("begin"):
        return None
    field = next((f for f in schema.fields if f.name.lower() == config["event_time"].lower()), None)
    if field is None or not isinstance(field.field_type, DateType | TimestampType | TimestamptzType):
        raise TransformError(
            f"Its event_time `{config['event_time']}` is {field.field_type if field else 'none of its columns'}.",
            where=f"model {model}",
            fix="let event_time name a column of the model that is a date or a timestamp.",
        )
    begin, end = (_moment(config[side], field.field_type) for side in ("begin", "end"))
    if begin == end:
        raise TransformError(
            f"A date such as `{field.name}` has no hours, and batch_size is hour.",
            where=f"model {model}",
            fix="let batch_size be day, or event_time a timestamp.",
        )
    return within(field, begin, end)


def _outside(config: dict[str, Any], replaced: Where) -> dict[str, str]:
    """Return the guard against rows of a microbatch that its next run would not replace, but add again."""
    return {
        "breaks": f"({replaced.rows}) IS NOT TRUE",
        "says": f"whose {config['event_time']} is not in their batch, {config['begin']} to {config['end']}: each run"
        " would add them again; what the model reads needs an event_time, and the model must keep it",
    }


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
