"""Say which columns the tables of models will have, without dbt: the engine is asked for the columns of their SQL.

In place of a table that will change, the SQL reads a stand-in without rows that has the columns of then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import replace
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pyarrow as pa

from cascade.catalog import MAIN, BranchingCatalog
from cascade.config import Settings
from cascade.errors import CascadeError, QueryError
from cascade_dbt.lineage import column_lineage, columns_from
from cascade_dbt.project import parse_project
from cascade_dbt.unchanged import judge, read_recipes
from cascade_operations.columns import Column, Columns, Foreseen, changes_between, is_wider
from cascade_operations.planned import ColumnChange
from cascade_project.asking import Ask, asking

__all__ = ["foresee", "reached"]

# What engines say of SQL that does not fit the tables that it reads; all else may be due to what only dbt knows.
_MISFIT = re.compile(r"Binder Error|\bcolumn\b|cannot be applied|Unexpected parameters", re.IGNORECASE)
# How often an engine is asked for what models become, and in all: a question takes DuckDB a millisecond, and 10 with
# what is done to ask it; a server 25.
_MOST = {"embedded": (200, 300), "trino": (60, 90)}
_DIALECTS = {"embedded": "duckdb", "trino": "trino"}


def foresee(
    settings: Settings,
    catalog: BranchingCatalog,
    loads: Mapping[str, Foreseen],
    asked: Set[str],
    *,
    full_refresh: bool,
) -> dict[str, Foreseen]:
    """Say which columns tables of models will have: a `ColumnSource`, which tells of the arguments."""
    manifest = parse_project(settings)
    if manifest is None or settings.engine not in _DIALECTS:
        return {}
    parsed = json.loads(manifest.read_text("utf-8"))
    rewritten = judge(read_recipes(settings, parsed), catalog, asked, ()).rewritten
    if not rewritten and not any(one.changes for one in loads.values()):
        return {}
    models = _Models(settings, catalog, parsed, full_refresh=full_refresh)
    with asking(settings, catalog, models.before) as ask:
        return models.foresee(loads, rewritten, ask)


def reached(
    settings: Settings, catalog: BranchingCatalog, columns: Collection[Column]
) -> dict[Column, tuple[str, ...]]:
    """Say which columns of models come from columns: a `LineageSource`, which tells of the arguments."""
    manifest = parse_project(settings)
    if manifest is None or settings.engine not in _DIALECTS:
        return {}
    models = _Models(settings, catalog, json.loads(manifest.read_text("utf-8")), full_refresh=False)
    reads, lineage = models.reads(), cache(models.lineage)
    return {(table, column): columns_from(table, column, reads, lineage) for table, column in columns}


class _Models:
    """The models of a dbt project, and the tables that they read."""

    def __init__(
        self, settings: Settings, catalog: BranchingCatalog, manifest: Mapping[str, Any], *, full_refresh: bool
    ) -> None:
        # sqlglot takes a third of a second, and is needed only when a table will be another one.
        from cascade_project.portability.render import Project

        self._catalog, self._refresh = catalog, full_refresh
        self._dialect, self._most = _DIALECTS[settings.engine], _MOST[settings.engine]
        self._pointers = catalog.pointers(MAIN)
        # Cascade's own macros are rendered too: no folder is named as theirs.
        self._project = Project(manifest, settings.dbt_path, settings.dbt_path / "\0")
        self._nodes = {
            key: node
            for key, node in manifest["nodes"].items()
            if node["resource_type"] in ("model", "seed", "snapshot")
        }
        graph = {key: set(node["depends_on"].get("nodes", ())) for key, node in self._nodes.items()}
        self._order = [key for key in TopologicalSorter(graph).static_order() if key in self._nodes]
        known = {**self._nodes, **manifest["sources"]}
        self._names = {
            key: f"{node['schema']}.{node.get('identifier') or node.get('alias') or node['name']}"
            for key, node in known.items()
        }
        self._reads = {self._names[key]: {self._names[p] for p in graph[key] if p in known} for key in self._order}
        self._by_table = {self._names[key]: self._nodes[key] for key in self._order}
        self._ephemeral = {
            table for table, node in self._by_table.items() if node["config"].get("materialized") == "ephemeral"
        }
        self._checks = {f"check {n['name']}": n for n in manifest["nodes"].values() if n["resource_type"] == "test"}
        for check, node in self._checks.items():
            self._reads[check] = {self._names[p] for p in node["depends_on"].get("nodes", ()) if p in known}
        # The columns of tables that will be others; and what the engine was asked, with its answer.
        self._later: dict[str, Columns] = {}
        self._asked: dict[str, pa.Schema | None] = {}
        # Tables that are not there yet, and whose columns are therefore not all known.
        self._open: set[str] = set()

    def foresee(self, loads: Mapping[str, Foreseen], asked: Set[str], ask: Ask) -> dict[str, Foreseen]:
        """Say what becomes of tables; arguments as for the function, and what answers."""
        self._ask = ask
        found = dict(loads)
        self._later.update({table: one.columns for table, one in loads.items()})
        # A first load may bring more columns than are declared.
        self._open.update(loads.keys() - self._pointers.keys())
        for table in self._by_table:
            moved = not self._upstream(table).isdisjoint(self._later)
            if table in self._ephemeral or not (table in asked or moved):
                continue
            found[table] = one = self._one(table)
            if table not in self._pointers and not self._upstream(table).isdisjoint(self._open):
                self._open.add(table)
            if one.known and (one.changes or table not in self._pointers):
                self._later[table] = one.columns
        return {table: replace(one, changes=tuple(self._with_consumers(table, one))) for table, one in found.items()}

    def _one(self, table: str) -> Foreseen:
        """Say what becomes of the table of one model."""
        node = self._by_table[table]
        before = self.before(table)
        try:
            after = self._columns(table, self._later, most=self._most[0])
        except ValueError as error:  # of the file of a seed
            return Foreseen(problem=str(error))
        except CascadeError as error:
            misfit = isinstance(error, QueryError) and bool(_MISFIT.search(error.what))
            misfit = misfit and self._upstream(table).isdisjoint(self._open)
            # Nobody reads a table that is not there yet: what its columns are breaks nothing.
            told = misfit or bool(before)
            return Foreseen(known=misfit, problem=" ".join(error.what.split("\n\n")[0].split()) if told else "")
        changes = tuple(changes_between(before, after)) if before else ()
        if node["resource_type"] == "snapshot":  # dbt adds columns of its own, and takes none away
            return Foreseen(tuple(change for change in changes if change.action == "add"), {**before, **after})
        return _by_policy(changes, before, after, self._policy(node) if before else "replace")

    def _policy(self, node: Mapping[str, Any]) -> str:
        """Return what an incremental model does to columns of its table; `replace` for all others."""
        config = node["config"]
        if config.get("materialized") != "incremental" or self._refresh:
            return "replace"
        said = "on_schema_change" in (node.get("unrendered_config") or {})
        return str(config.get("on_schema_change")) if said else "append_new_columns"

    def _columns(self, table: str, others: Mapping[str, Columns], *, most: int | None = None) -> Columns:
        """Ask the engine for the columns of a model's SQL, given what other tables will be.

        Raises:
            CascadeError: It cannot be told.
            QueryError: The engine refuses the SQL.
        """
        from cascade.iceberg.schema import schema_from_arrow
        from cascade_project.portability.standins import with_stand_ins

        sql = self._sql(table)
        inside = {one: self._sql(one) for one in self._order_of_ephemerals(table)}
        statement = with_stand_ins(sql, inside, others, self._dialect)
        if statement not in self._asked:
            if len(self._asked) >= (most or self._most[1]):
                raise CascadeError(f"many models have changed; `cascade schema plan {table}` tells")
            self._asked[statement] = None
            self._asked[statement] = self._ask(statement)
        if (schema := self._asked[statement]) is None:
            raise CascadeError("its SQL is refused")
        try:
            return {field.name: field.field_type for field in schema_from_arrow(schema).fields}
        except (CascadeError, ValueError, TypeError) as error:
            raise CascadeError(f"Iceberg has no type for a column: {error}") from error

    def _sql(self, table: str) -> str:
        from cascade_project.portability.render import PLACEHOLDER, RenderError

        node = self._by_table.get(table) or self._checks[table]
        if node["resource_type"] == "seed":
            return _sql_of_seed(node, self._dialect)
        try:
            texts = list(self._project.texts(node, self._dialect))
        except RenderError as error:
            raise CascadeError(f"its SQL cannot be rendered without dbt: {error}") from error
        sql = texts[-1 if table in self._pointers and self._policy(node) != "replace" else 0].sql
        if PLACEHOLDER in sql:
            raise CascadeError("its SQL depends on what only dbt knows")
        return sql.strip().rstrip(";")

    def _order_of_ephemerals(self, table: str) -> list[str]:
        """Return the ephemeral models that are part of a model's SQL, those that others read first."""
        direct = [one for one in self._reads.get(table, ()) if one in self._ephemeral]
        found = [deeper for one in direct for deeper in (*self._order_of_ephemerals(one), one)]
        return list(dict.fromkeys(found))

    def _upstream(self, table: str) -> set[str]:
        """Return the tables that a model reads, through ephemeral models too."""
        reads = set(self._reads.get(table, ()))
        return reads.union(*(self._upstream(one) for one in reads & self._ephemeral))

    def before(self, table: str) -> Columns:
        """Return the columns of a table on `main`; none without it."""
        if table not in self._pointers:
            return {}
        fields = self._catalog.load(table, self._pointers[table]).schema().fields
        return {field.name: field.field_type for field in fields}

    def reads(self) -> dict[str, set[str]]:
        """Return the tables that each model reads, those of models that others read first."""
        return {table: self._upstream(table) for table in self._by_table if table not in self._ephemeral}

    def lineage(self, table: str) -> Mapping[str, Collection[Column]]:
        """Return which columns each column of a model is computed from.

        Raises:
            CascadeError: It cannot be told.
        """
        from cascade_project.portability.standins import with_stand_ins

        inside = {one: self._sql(one) for one in self._order_of_ephemerals(table)}
        sql = with_stand_ins(self._sql(table), inside, {}, self._dialect)
        return column_lineage(sql, self._dialect, {one: [*self.before(one)] for one in self._upstream(table)})

    def _with_consumers(self, table: str, one: Foreseen) -> Iterator[ColumnChange]:
        """Add to breaking changes the models and tests that read the column."""
        readers = [other for other in (*self._by_table, *self._checks) if table in self._upstream(other) - {other}]
        before = self.before(table)
        for change in one.changes:
            if not change.breaking:
                yield change
                continue
            reading = [
                other for other in readers if self._is_read(table, {**one.columns, **before}, change.column, other)
            ]
            yield replace(change, consumers=tuple(reader.replace(".", "/") for reader in sorted(reading)))

    def _is_read(self, table: str, columns: Columns, column: str, reader: str) -> bool:
        """Say whether a model reads a column: without it the SQL is refused, or gives other columns."""
        if reader in self._ephemeral:
            return False  # it is part of those that read it
        if told := self._checks.get(reader, {}).get("test_metadata"):
            return bool(re.search(rf"\b{re.escape(column)}\b", json.dumps(told["kwargs"])))
        without = {name: kind for name, kind in columns.items() if name != column}
        try:
            given = self._columns(reader, {table: columns})
        except CascadeError:
            return self._may_name(column, reader)
        try:
            return given != self._columns(reader, {table: without})
        except CascadeError:
            return True

    def _may_name(self, column: str, reader: str) -> bool:
        """Say whether the word is in SQL that an engine refuses; true where nobody knows the SQL."""
        try:
            return bool(re.search(rf"\b{re.escape(column)}\b|\*", self._sql(reader), re.IGNORECASE))
        except CascadeError:
            return True


def _sql_of_seed(node: Mapping[str, Any], dialect: str) -> str:
    """Return a SELECT with the columns of a seed's file.

    Raises:
        ValueError: The file cannot be read.
    """
    from cascade_dbt.seeds import read

    config, path = node["config"], Path(node["root_path"], node["original_file_path"])
    table = read(path, config.get("column_types") or {}, config.get("delimiter") or ",")
    names = [name.lower() if dialect == "trino" else name for name in table.column_names]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    kinds = [kind.sql for kind in table.column_types]
    return "select " + ", ".join(f"cast(null as {kind}) as {name}" for kind, name in zip(kinds, quoted, strict=True))


def _by_policy(changes: tuple[ColumnChange, ...], before: Columns, after: Columns, policy: str) -> Foreseen:
    """Return what an incremental run makes of changes: it keeps the table, and its `on_schema_change` decides."""
    if policy == "replace":
        return Foreseen(changes, after)
    kept, problems = [], []
    for change in changes:
        if change.action == "drop" and policy != "sync_all_columns":
            problems.append(f"its table has {change.column}, which the model no longer has")
            kept.append(replace(change, action="refuse"))
        elif change.action == "add" and policy == "fail":
            problems.append(f"the model has the new column {change.column}, and its on_schema_change is fail")
        elif change.action == "retype" and is_wider(after[change.column], before[change.column]):
            pass  # the table's type holds it
        elif change.action == "retype" and (change.breaking or policy == "fail"):
            kept.append(replace(change, action="refuse", breaking=True, note="its table keeps its type"))
        elif not (change.action == "add" and policy == "ignore"):
            kept.append(change)
    columns = {name: kind for name, kind in before.items() if name in after or policy != "sync_all_columns"}
    columns |= {change.column: after[change.column] for change in kept if change.action in ("add", "retype")}
    return Foreseen(tuple(kept), columns, problem="; ".join(problems))
