"""What an ingestion asset does when it runs: its options, and what follows from them, its function and its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from pyiceberg.schema import Schema

from cascade.duck.sql import alike
from cascade.errors import CascadeError, DefinitionError
from cascade.ingestion.contract import Contract, contract_of
from cascade.ingestion.options import Options, Policy, Write
from cascade.ingestion.text import listed, snake_case
from cascade.names import COLUMN_PREFIX

__all__ = ["LoadPlan", "build_plan"]


@dataclass(frozen=True)
class LoadPlan:
    """How rows of one table are fetched, checked and written."""

    options: Options  # what the user asked for
    table: str  # `namespace.table`
    unique_key: tuple[str, ...]  # the columns of the option `unique_key`; empty without one
    partition_columns: tuple[str, ...]  # those of `partition_column`, one for each dimension; empty without one
    write: Write  # the option `write`, or what the key says
    source: str  # the function's module and name
    fetch: Callable[[Sequence[str]], Iterator[object]]  # calls the function for some partitions, yields what it returns
    definition: dg.PartitionsDefinition[Any] | None  # the asset's partitions
    contract: Contract | None  # what the option `validation_schema` states
    schema: Schema | None  # declared columns; None when the first load infers them
    policy: Policy  # what happens to undeclared columns
    per_key: bool  # whether the function is called for one partition at a time

    @property
    def tagged(self) -> bool:
        """Whether rows carry their partition in a column of Cascade: no other column says what a re-run replaces."""
        return self.write != "merge" and self.definition is not None and not self.partition_columns

    @property
    def keeps_state(self) -> bool:
        """Whether a source may go on where it ended: its cursor and partitions are two answers to one question."""
        return self.definition is None and self.write != "replace_partition"

    def require_columns(self, columns: Sequence[str], of: str, error: type[CascadeError]) -> None:
        """Raise the error when the columns of the schema, or of fetched rows, lack one that an option names."""
        needed = {*self.unique_key, *self.partition_columns, *filter(None, [self.options.order_by])}
        if missing := needed.difference(columns):
            raise error(
                f"{of} no column {listed(sorted(missing))}, or no value in it.",
                where=f"table {self.table}, columns {', '.join(columns)}",
                fix="add it, or name another column in unique_key, partition_column or order_by.",
            )


def build_plan(
    fetch: Callable[..., object],
    options: Options,
    definition: dg.PartitionsDefinition[Any] | None,
    per_run: Sequence[str],
    given: Mapping[str, Any],
) -> LoadPlan:
    """Derive the plan of an asset.

    Args:
        fetch: The decorated function.
        options: Options without problems.
        definition: The asset's partitions.
        per_run: Which of `partition_date`, `partition_key` and `partition_dates` the function takes.
        given: The function's other arguments: resources, and `context`.

    Raises:
        DefinitionError: The contract cannot become a table, or lacks a column that an option names.
    """

    def calls(keys: Sequence[str]) -> Iterator[object]:
        if not per_key:
            yield fetch(**{name: list(keys) for name in per_run}, **given)
        for key in keys if per_key else ():
            of_key = {"context": _OfPartition(given["context"], definition, key)} if "context" in given else {}
            yield fetch(**{**given, **of_key, **dict.fromkeys(per_run, key)})

    per_key = definition is not None and "partition_dates" not in per_run
    contract = None if options.validation_schema is None else contract_of(options.validation_schema)
    schema = options.iceberg_schema or (contract.schema if contract else None)
    columns = [f.name for f in schema.fields] if schema else []
    by_snake = {snake_case(name): name for name in columns}

    def column(name: str) -> str:
        """Options may name a column as the source does: `orderId`."""
        return name if name in columns else by_snake.get(snake_case(name), snake_case(name) or name)

    key = options.unique_key
    unique_key = tuple(map(column, (key,) if isinstance(key, str) else key or ()))
    of, by = options.partition_column or (), options.order_by
    # Dagster sorts dimensions by their names.
    columns_of = [of] if isinstance(of, str) else [of[name] for name in sorted(of)] if isinstance(of, Mapping) else []
    options = replace(options, order_by=by and column(by))
    plan = LoadPlan(
        options=options,
        table=options.table,
        unique_key=unique_key,
        partition_columns=tuple(map(column, columns_of)),
        write=options.write or ("merge" if unique_key else "append"),
        source=f"{fetch.__module__}.{fetch.__qualname__}",
        fetch=calls,
        definition=definition,
        contract=contract,
        schema=schema,
        policy=options.schema_policy or (contract.policy if contract else "additive"),
        per_key=per_key,
    )
    if same := alike(columns):
        raise DefinitionError(
            f"SQL ignores the case of names and cannot tell these columns apart: {same}.",
            where=f"table {plan.table}",
            fix="give one of them another name.",
        )
    if ours := [name for name in columns if name.startswith(COLUMN_PREFIX)]:
        raise DefinitionError(
            f"Columns that begin with `{COLUMN_PREFIX}` are Cascade's own: {listed(ours)}.",
            where=f"table {plan.table}",
            fix="give them other names.",
        )
    if plan.schema:
        plan.require_columns(columns, "The schema has", DefinitionError)
    return plan


class _OfPartition:
    """The run's context as the function's call for one partition sees it."""

    def __init__(self, context: dg.AssetExecutionContext, definition: Any, key: str) -> None:
        several = isinstance(definition, dg.MultiPartitionsDefinition)
        self._context, self._definition = context, definition
        self.partition_key = definition.get_partition_key_from_str(key) if several else key
        self.partition_keys = [self.partition_key]  # the run's would give each call the rows of all
        self.partition_key_range = dg.PartitionKeyRange(key, key)

    def __getattr__(self, name: str) -> Any:
        if name == "partition_time_window" and hasattr(self._definition, "time_window_for_partition_key"):
            return self._definition.time_window_for_partition_key(self.partition_key)
        return getattr(self._context, name)
