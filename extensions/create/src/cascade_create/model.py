"""Write a dbt model that reads another table: its SELECT, its entry in YAML, tests of its key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascade.config import Settings
from cascade.errors import UsageError
from cascade.ingestion.text import listed
from cascade.names import MAIN
from cascade_create import dbt_files, existing
from cascade_create.changes import Change, Created, create
from cascade_create.names import quoted, require_name, title

__all__ = ["create_model"]


def create_model(
    settings: Settings, name: str, *, source: str, key: Sequence[str] = (), dry_run: bool = False
) -> Created:
    """Write a model: all of its files, or none.

    Args:
        settings: The project's settings.
        name: Layer and name, such as `silver.orders_by_day`.
        source: The table or model that it reads, such as `bronze.orders`, or `raw.orders`.
        key: The columns that name a row of it; they are tested.
        dry_run: Whether nothing is written.

    Raises:
        UsageError: The name is taken or cannot be one, or there is no such table.
    """
    root = settings.project_dir
    dbt_files.require_dbt(root)
    layer, _, bare = name.partition(".")
    layers = _layers(root)
    if layer not in layers or not bare:
        raise UsageError(
            f"{name!r} is not a layer and a name. Nothing was written.",
            where="NAME",
            fix=f"write one of the layers {', '.join(layers)} before it: silver.{bare or layer}",
        )
    require_name(bare, "model")
    path = f"{dbt_files.PROJECT}/models/{layer}/{bare}.sql"
    existing.require_free(root, bare, "model", lambda name: [f"{dbt_files.PROJECT}/models/{layer}/{name}.sql"])
    relation, written = _read(root, source)
    columns = _loaded(settings, source) or written
    missing = [column for column in key if columns and column not in columns]
    if missing:
        raise UsageError(
            f"{source} has no column {listed(missing)}. Nothing was written.",
            where="--key",
            fix=f"its columns are {listed(columns)}.",
        )
    selected = ",\n".join(f"    {quoted(column)}" for column in columns) or "    *"
    sql = f"-- {title(bare)}, from {source}.\nselect\n{selected}\nfrom {relation}\n"
    names = columns or list(key)
    entry: dict[str, Any] = {"name": bare, "description": f"{title(bare)}, from {source}."}
    if names:
        entry |= {"columns": dbt_files.columns_of([(column, "") for column in names], key)}
    changes = [Change(path, sql.encode()), dbt_files.add_model(root, layer, entry)]
    return create(
        root,
        changes,
        what="model",
        name=bare,
        asset=f"{layer}/{bare}",
        next_commands=("cascade run", f'cascade query "select * from {name} limit 10"'),
        dry_run=dry_run,
    )


def _loaded(settings: Settings, source: str) -> list[str]:
    """Return the columns that a table has on `main`; empty when it is not there yet."""
    from cascade.lakehouse import Lakehouse

    lakehouse = Lakehouse(settings, MAIN)
    if source not in lakehouse.tables():
        return []
    return [field.name for field in lakehouse.table(source).schema().fields]


def _layers(root: Path) -> list[str]:
    folder = root / dbt_files.PROJECT / "models"
    return [found.name for found in sorted(folder.iterdir()) if found.is_dir() and found.name != "sources"]


def _read(root: Path, source: str) -> tuple[str, list[str]]:
    """Return how a model reads a table, and the columns of it that are written down."""
    namespace, _, table = source.rpartition(".")
    tables, models = dbt_files.source_tables(root), dbt_files.model_files(root)
    if source in tables:
        return f"{{{{ source('{namespace}', '{table}') }}}}", tables[source]
    if table in models and (not namespace or models[table].parent.name == namespace):
        return f"{{{{ ref('{table}') }}}}", dbt_files.model_columns(root, table)
    known = [*tables, *(f"{file.parent.name}.{name}" for name, file in models.items())]
    raise UsageError(
        f"There is no table {source!r} that a model could read. Nothing was written.",
        where="--from",
        fix=f"name one of {listed(known)}.",
    )
