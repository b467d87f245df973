"""`@cascade_quality`: rules on a table become asset checks, which the engine computes on the run's branch."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import dagster as dg
from dagster_shared.utils.warnings import disable_dagster_warnings

from cascade.errors import CascadeError, DefinitionError, ServiceError
from cascade.evidence import snapshot_evidence
from cascade.options import known_options
from cascade.quality.model import (
    SQL_METADATA,
    Check,
    Outcome,
    Scope,
    table_name,
    wrong_option,
)
from cascade.quality.row_checks import accepted_values, custom_sql, in_range, matches, not_null, unique
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
    return partial(_build, table=table, checks=checks, blocking=blocking)


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
    function: _Function, *, table: str, checks: Sequence[Check] | None, blocking: bool
) -> dg.AssetChecksDefinition:
    _require_function(function, table, allowed=_PARAMETERS if checks is None else ())
    key = dg.AssetKey(table.split("."))
    name, description = function.__name__, inspect.getdoc(function)
    group = tuple(checks or [Check(name, description or "", partial(_call, function))])
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
            scope = Scope(table, context.resources.lakehouse, context)
            for check, spec in zip(group, specs, strict=True):
                if spec.key in context.selected_asset_check_keys:
                    yield _evaluate(check, spec, scope)

    return run


def _require_function(function: _Function, table: str, *, allowed: Sequence[str]) -> None:
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise wrong_option(
            f"{function!r} is no function.", f"checks of {table}", "write @cascade_quality(…) above a `def`."
        )
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


def _evaluate(check: Check, spec: dg.AssetCheckSpec, scope: Scope) -> dg.AssetCheckResult:
    """Run one check; what it raises becomes its failed result, so that the others keep theirs.

    A server that does not answer says nothing about the rows: the step fails instead.
    """
    evidence: dict[str, str] = {}
    found: Outcome | dg.AssetCheckResult
    try:
        # Read before the data: if somebody writes meanwhile, the result belongs to the older snapshot and
        # cannot pass for a check of the newer one.
        head = scope.lakehouse.head(scope.table)
        evidence = snapshot_evidence(head, scope.lakehouse.branch)
        missing = _missing(scope) if head is None else None
        found = missing or check.evaluate(scope)
    except ServiceError:
        raise
    except CascadeError as error:
        what = " ".join(error.what.split("\nLINE ")[0].split())
        fix = error.fix.replace("correct the SQL.", "correct the check.")  # a built-in check's SQL is ours
        found = Outcome(False, f"`{check.name}` could not run on {scope.table}: {what}\nfix: {fix}")
    except Exception as error:  # a user's function may raise anything
        scope.context.log.warning("The check %s on %s raised.", check.name, scope.table, exc_info=True)
        what = " ".join(str(error).split())
        found = Outcome(False, f"`{check.name}` could not run on {scope.table}: {type(error).__name__}: {what}")
    result = found if isinstance(found, dg.AssetCheckResult) else _result(found, blocking=spec.blocking)
    return dg.AssetCheckResult(
        passed=result.passed,
        asset_key=spec.asset_key,
        check_name=spec.name,
        metadata={**result.metadata, **evidence},
        severity=result.severity,
        description=result.description,
    )


def _missing(scope: Scope) -> Outcome | None:
    tables = scope.lakehouse.tables()
    if scope.table in tables:
        return None  # made, and without rows so far
    return Outcome(
        False,
        f"{scope.table} does not exist on branch {scope.lakehouse.branch}, whose tables are "
        f"{', '.join(tables) or 'none yet'}.\nfix: materialize it first, or correct the name.",
    )


def _call(function: _Function, scope: Scope) -> Outcome | dg.AssetCheckResult:
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


def _result(outcome: Outcome, *, blocking: bool) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = dict(outcome.metadata)
    if "sql" in metadata:
        metadata["sql"] = dg.MetadataValue.md(f"```sql\n{metadata['sql']}\n```")
    if outcome.sample:
        metadata["sample"] = dg.MetadataValue.table(
            [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in outcome.sample],
            schema=dg.TableSchema([dg.TableColumn(name) for name in outcome.sample[0]]),
        )
    severity = outcome.severity or (dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN)
    return dg.AssetCheckResult(
        passed=outcome.passed, metadata=metadata, severity=severity, description=outcome.description
    )


def _cell(value: object) -> str:
    shown = "null" if value is None else str(value)
    return shown if len(shown) <= _CELL_CHARACTERS else f"{shown[:_CELL_CHARACTERS]}…"
