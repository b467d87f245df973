"""`@cascade_quality`: rules on a table become asset checks, which the engine computes on the run's branch."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import dagster as dg
from dagster_shared.utils.warnings import disable_dagster_warnings

from cascade.errors import CascadeError, DefinitionError
from cascade.lakehouse import BRANCH_METADATA, SNAPSHOT_METADATA, Lakehouse
from cascade.quality.checks import accepted_values, custom_sql, in_range, matches, not_null, unique
from cascade.quality.model import (
    SQL_METADATA,
    Check,
    Outcome,
    Partition,
    Scope,
    known_options,
    table_name,
    wrong_option,
)
from cascade.quality.table_checks import freshness, reconciles, row_count

__all__ = [
    "Check",
    "accepted_values",
    "cascade_quality",
    "custom_sql",
    "freshness",
    "in_range",
    "matches",
    "not_null",
    "reconciles",
    "row_count",
    "unique",
]

_Function: TypeAlias = Callable[..., object]
_Decorator: TypeAlias = Callable[[_Function], dg.AssetChecksDefinition]

# What a function that is a check may ask for.
_PARAMETERS = ("context", "lakehouse")
_CELL_CHARACTERS = 200


@known_options
def cascade_quality(
    *, asset: str | dg.AssetKey, checks: Sequence[Check] | None = None, blocking: bool = True
) -> _Decorator:
    """Define asset checks on a table of the lakehouse.

    With `checks`, each of them becomes one asset check; the decorated function is never called, it gives
    the group its name and, by its docstring, its description. Without `checks`, the function itself is the
    check, named after it. It may ask for `lakehouse` and for Dagster's `context`, and returns SQL that
    selects failing rows, or whether the table is right, or a `dg.AssetCheckResult`.

    A check looks at the run's branch. Whatever goes wrong while it runs fails this check alone.

    Args:
        asset: The table, as `namespace/table` or its asset key.
        checks: Built-in checks of this module.
        blocking: Whether a failure stops what is downstream and blocks the promotion; otherwise it is a
            warning. A check's own `blocking=` goes first.

    Raises:
        DefinitionError: An option does not exist, is no value for its purpose, or contradicts another.
    """
    name = ".".join(asset.path) if isinstance(asset, dg.AssetKey) else asset
    table = table_name(name)
    if not isinstance(blocking, bool):
        raise wrong_option(
            f"blocking={blocking!r} is neither True nor False.", f"checks of {table}", "give one of them."
        )
    if checks is not None:
        _require_checks(table, checks)
    return partial(_build, table=table, checks=None if checks is None else tuple(checks), blocking=blocking)


def _require_checks(table: str, checks: Sequence[Check]) -> None:
    where = f"checks of {table}"
    valid = ", ".join(name for name in __all__ if name not in ("Check", "cascade_quality"))
    if isinstance(checks, str | Check) or not isinstance(checks, Sequence) or not checks:
        raise wrong_option(
            f"checks={checks!r} is no list of checks.",
            where,
            f"list at least one of {valid}; or leave `checks` out, then the function is the check.",
        )
    if wrong := [check for check in checks if not isinstance(check, Check)]:
        raise wrong_option(f"{', '.join(map(repr, wrong))} is no check.", where, f"call one of {valid}.")
    names = [check.name for check in checks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise wrong_option(f"Two checks are called {', '.join(twice)}.", where, "give one of them another `name=`.")
    if own := [check.name for check in checks if table in check.others]:
        raise wrong_option(f"{', '.join(own)} compares {table} with itself.", where, "name another table.")


def _build(
    function: _Function, *, table: str, checks: tuple[Check, ...] | None, blocking: bool
) -> dg.AssetChecksDefinition:
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or name == "<lambda>":
        raise wrong_option(
            f"{function!r} is no function.", f"checks of {table}", "write @cascade_quality(…) above a `def`."
        )
    _require_parameters(function, table, allowed=_PARAMETERS if checks is None else ())
    key = dg.AssetKey(table.split("."))
    description = inspect.getdoc(function)
    group = checks or (Check(name, description or "", partial(_call, function)),)
    with disable_dagster_warnings():
        specs = [
            dg.AssetCheckSpec(
                check.name,
                asset=key,
                description=check.description or None,
                blocking=blocking if check.blocking is None else check.blocking,
                additional_deps=[dg.AssetKey(other.split(".")) for other in check.others],
                metadata={SQL_METADATA: check.sql} if check.sql else None,
            )
            for check in group
        ]

        # Functions of one name may check different tables; the name of an op is unique in a project.
        @dg.multi_asset_check(
            name="__".join([*key.path, name]),
            description=description,
            specs=specs,
            can_subset=True,
            required_resource_keys={"lakehouse"},
        )
        def run(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            lakehouse: Lakehouse = context.resources.lakehouse
            scope = Scope(table, lakehouse, partial(_partitions, context, key), context)
            for check, spec in zip(group, specs, strict=True):
                if spec.key in context.selected_asset_check_keys:
                    yield _evaluate(check, spec, scope, context)

    return run


def _require_parameters(function: _Function, table: str, *, allowed: Sequence[str]) -> None:
    where = f"function {function.__name__}, checks of {table}"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise wrong_option(
            "A check cannot be a coroutine or a generator.", where, "write a plain function that returns."
        )
    unknown = [f"`{name}`" for name in inspect.signature(function).parameters if name not in allowed]
    if unknown and allowed:
        raise wrong_option(
            f"The check asks for {', '.join(unknown)}.",
            where,
            f"ask for {' and '.join(allowed)} only; a check that needs more is a plain Dagster asset check.",
        )
    if unknown:
        raise wrong_option(
            f"With `checks=` the function is never called, but it asks for {', '.join(unknown)}.",
            where,
            "leave the parameters out; or leave `checks` out, then the function is the check.",
        )


def _evaluate(
    check: Check, spec: dg.AssetCheckSpec, scope: Scope, context: dg.AssetCheckExecutionContext
) -> dg.AssetCheckResult:
    """Run one check; whatever it raises becomes its failed result, so that the others keep theirs."""
    evidence: dict[str, Any] = {BRANCH_METADATA: scope.lakehouse.branch}
    found: Any
    try:
        # Read before the data: if somebody writes meanwhile, the result belongs to the older snapshot and
        # cannot pass for a check of the newer one.
        head = scope.lakehouse.head(scope.table)
        evidence[SNAPSHOT_METADATA] = str(head)
        missing = _missing(scope) if head is None else None
        found = missing or check.evaluate(scope)
    except CascadeError as error:
        what = " ".join(error.what.split("\nLINE ")[0].split())
        fix = error.fix.replace("correct the SQL.", "correct the check.")  # a built-in check's SQL is ours
        found = Outcome(False, f"`{check.name}` could not run on {scope.table}: {what}\nfix: {fix}")
    except Exception as error:  # a user's function may raise anything
        context.log.warning("The check %s on %s raised.", check.name, scope.table, exc_info=True)
        what = " ".join(str(error).split())
        found = Outcome(False, f"`{check.name}` could not run on {scope.table}: {type(error).__name__}: {what}")
    if isinstance(found, dg.AssetCheckResult):
        return dg.AssetCheckResult(
            passed=found.passed,
            asset_key=spec.asset_key,
            check_name=spec.name,
            metadata={**found.metadata, **evidence},
            severity=found.severity,
            description=found.description,
        )
    assert isinstance(found, Outcome)
    return _result(found, spec, evidence)


def _missing(scope: Scope) -> Outcome | None:
    tables = scope.lakehouse.tables()
    if scope.table in tables:
        return None  # made, and without rows so far
    return Outcome(
        False,
        f"{scope.table} does not exist on branch {scope.lakehouse.branch}, whose tables are "
        f"{', '.join(tables) or 'none yet'}.\nfix: materialize it first, or correct the name.",
    )


def _call(function: _Function, scope: Scope) -> Any:
    """Ask a user's function, and understand its answer."""
    given = {"context": scope.context, "lakehouse": scope.lakehouse}
    answer = function(**{name: given[name] for name in inspect.signature(function).parameters})
    if isinstance(answer, str):
        return custom_sql(function.__name__, answer).evaluate(scope)
    if isinstance(answer, dg.AssetCheckResult):
        return answer
    if type(answer).__name__ in ("bool", "bool_"):  # numpy's too
        verdict = "holds" if answer else "does not hold"
        return Outcome(bool(answer), f"`{function.__name__}` {verdict} for {scope.table}")
    raise DefinitionError(
        f"the function returned a value of type {type(answer).__name__}.",
        fix="return SQL that selects failing rows, a bool, or a dg.AssetCheckResult.",
    )


def _result(outcome: Outcome, spec: dg.AssetCheckSpec, evidence: dict[str, Any]) -> dg.AssetCheckResult:
    severity = outcome.severity or ("error" if spec.blocking else "warning")
    metadata: dict[str, Any] = {**outcome.metadata, **evidence}
    if sql := metadata.get("sql"):
        metadata["sql"] = dg.MetadataValue.md(f"```sql\n{sql}\n```")
    if outcome.sample:
        metadata["sample"] = dg.MetadataValue.table(
            [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in outcome.sample],
            schema=dg.TableSchema([dg.TableColumn(name) for name in outcome.sample[0]]),
        )
    return dg.AssetCheckResult(
        passed=outcome.passed,
        asset_key=spec.asset_key,
        check_name=spec.name,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.ERROR if severity == "error" else dg.AssetCheckSeverity.WARN,
        description=outcome.description,
    )


def _cell(value: object) -> str:
    shown = "null" if value is None else str(value)
    return shown if len(shown) <= _CELL_CHARACTERS else f"{shown[:_CELL_CHARACTERS]}…"


def _partitions(context: dg.AssetCheckExecutionContext, asset: dg.AssetKey) -> list[Partition]:
    """Return the partitions that the run fills, by its tags; none for a run without partitions."""
    tags = context.run.tags
    first = tags.get("dagster/asset_partition_range_start", tags.get("dagster/partition"))
    last = tags.get("dagster/asset_partition_range_end", first)
    if first is None or last is None:
        return []
    layer = context.job_def.asset_layer
    definition = layer.get(asset).partitions_def if layer.has(asset) else None
    # A table without partitions of its own follows those of the run; a run of checks alone has days.
    definition = definition or context.job_def.partitions_def or dg.DailyPartitionsDefinition("0001-01-02")
    if isinstance(definition, dg.MultiPartitionsDefinition):
        raise DefinitionError(
            "`partition_column` is one column, but the partitions have several dimensions.",
            fix="leave `partition_column` out, or count with custom_sql.",
        )
    keys = [first] if first == last else definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return [Partition(key) for key in keys]
    windows = ((key, definition.time_window_for_partition_key(key)) for key in keys)
    return [Partition(key, w.start.replace(tzinfo=None), w.end.replace(tzinfo=None)) for key, w in windows]
