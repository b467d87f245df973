"""The decorator `@cascade_quality`: built-in checks, or a function, become asset checks of Dagster."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FunctionType
from typing import Any, TypeAlias

import dagster as dg

from cascade._dagster import disable_dagster_warnings
from cascade.errors import CascadeError, DefinitionError, QueryError, ServiceError
from cascade.evidence import snapshot_evidence
from cascade.names import SQL_METADATA
from cascade.options import known_options
from cascade.plugins import get_quality_check, installed, load
from cascade.quality import CHECKS, Check, Outcome, Scope, require, table_name

__all__ = ["cascade_quality"]

_Function: TypeAlias = Callable[..., object]
_Decorator: TypeAlias = Callable[[_Function], dg.AssetChecksDefinition]

# What a function that is a check may ask for.
_PARAMETERS = ("context", "lakehouse")
_CELL_CHARACTERS = 200
# The check that a function is which returns SQL.
_OF_SQL = "custom_sql"


@known_options
def cascade_quality(
    *, asset: str | dg.AssetKey, checks: Sequence[Check | str] | None = None, blocking: bool = True
) -> _Decorator:
    """Define asset checks on a table of the lakehouse.

    With `checks`, each of them becomes one asset check; the decorated function is never called, it gives
    the group its name and, by its docstring, its description. Without `checks`, the function itself is the
    check, named after it. It may take `lakehouse` and Dagster's `context`, and returns SQL that
    selects failing rows, or a bool, or a `dg.AssetCheckResult`.

    A check reads the run's branch. If it raises, this check alone fails.

    Args:
        asset: The table, as `namespace/table` or its asset key.
        checks: Built-in checks of this module, and names of installed plugins; one with options is
            `get_quality_check("<name>").check(…)`, of `cascade.plugins`.
        blocking: Whether a failure stops the assets downstream and blocks the promotion; otherwise it is a
            warning. A check's own `blocking=` takes precedence.

    Raises:
        DefinitionError: An option does not exist, has an invalid value, or contradicts another.
    """
    name = ".".join(asset.path) if isinstance(asset, dg.AssetKey) else asset
    table = table_name(name)
    where = f"checks of {table}"
    require(isinstance(blocking, bool), f"blocking={blocking!r} is neither True nor False.", where, "give one of them.")
    made = None if checks is None else _required(table, checks, where)
    return partial(_build, table=table, checks=made, blocking=blocking)


def _required(table: str, listed: Sequence[Check | str], where: str) -> Sequence[Check]:
    """Return the checks that were listed, those of plugins made; refuse what is wrong with them."""
    known = ", ".join(record.name for record in installed(CHECKS))
    require(
        isinstance(listed, list | tuple) and bool(listed),
        f"checks={listed!r} is not a list of checks.",
        where,
        f"list at least one of {known}; or leave `checks` out, then the function is the check.",
    )
    plugins = [record.name for record in installed("cascade.plugins.quality")]
    checks: Any = [get_quality_check(one).check() if isinstance(one, str) and one in plugins else one for one in listed]
    wrong = [repr(check) for check in checks if not isinstance(check, Check)]
    fix = f"call one of {known}; or name an installed plugin: {', '.join(plugins) or 'there is none'}."
    require(not wrong, f"{', '.join(wrong)} is not a check.", where, fix)
    names = [check.name for check in checks]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"Two checks are called {', '.join(twice)}.", where, "give one of them another `name=`.")
    own = [check.name for check in checks if table in check.others]
    require(not own, f"{', '.join(own)} compares {table} with itself.", where, "name another table.")
    return list(checks)


def _require_function(function: _Function, table: str, *, allowed: Sequence[str]) -> None:
    valid = inspect.isfunction(function) and function.__name__ != "<lambda>"
    fix = "write @cascade_quality(…) above a `def`."
    require(valid, f"{function!r} is not a function.", f"checks of {table}", fix)
    where = f"function {function.__name__}, checks of {table}"
    returns = not inspect.iscoroutinefunction(function) and not inspect.isgeneratorfunction(function)
    fix = "write a plain function that returns."
    require(returns, "A check cannot be a coroutine or a generator.", where, fix)
    asks = ", ".join(f"`{name}`" for name in inspect.signature(function).parameters if name not in allowed)
    if allowed:
        what = f"The check asks for {asks}."
        fix = f"ask for {' and '.join(allowed)} only; a check that needs more is a plain Dagster asset check."
    else:
        what = f"With `checks=` the function is never called, but it asks for {asks}."
        fix = "leave the parameters out; or leave `checks` out, then the function is the check."
    require(not asks, what, where, fix)


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


def _evaluate(check: Check, spec: dg.AssetCheckSpec, scope: Scope) -> dg.AssetCheckResult:
    """Run one check; if it raises, it fails, and the others keep their results.

    A server that does not answer says nothing about the rows: the step fails instead.
    """
    evidence: dict[str, str] = {}
    found: Outcome | dg.AssetCheckResult
    try:
        # Read before the data: if another process writes during the check, the result is about the older snapshot
        # and does not count for the newer one.
        head = scope.lakehouse.head(scope.table)
        evidence = snapshot_evidence(head, scope.lakehouse.branch)
        if head is None and scope.table not in (tables := scope.lakehouse.tables()):  # one without rows does exist
            what = f"it does not exist on branch {scope.lakehouse.branch}, whose tables are"
            raise QueryError(f"{what} {', '.join(tables) or 'none'}.", fix="materialize it first, or correct the name.")
        found = check.evaluate(scope)
    except ServiceError:
        raise
    except CascadeError as error:
        what = " ".join(error.what.split("\nLINE ")[0].split())
        fix = error.fix.replace("correct the SQL.", "correct the check.")  # a built-in check's SQL is not the user's
        found = Outcome(False, f"`{check.name}` could not run on {scope.table}: {what}\nfix: {fix}")
    except Exception as error:  # a user's function may raise anything
        scope.context.log.warning("The check %s on %s raised.", check.name, scope.table, exc_info=True)
        what = " ".join(str(error).split())
        found = Outcome(False, f"`{check.name}` could not run on {scope.table}: {type(error).__name__}: {what}")
    shown = _metadata(found) if isinstance(found, Outcome) else found.metadata
    return dg.AssetCheckResult(
        passed=found.passed,
        asset_key=spec.asset_key,
        check_name=spec.name,
        metadata={**shown, **evidence},
        severity=found.severity or (dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN),
        description=found.description,
    )


def _call(function: _Function, scope: Scope) -> Outcome | dg.AssetCheckResult:
    """Call a user's function, and turn what it returns into a result."""
    given = {"context": scope.context, "lakehouse": scope.lakehouse}
    answer = function(**{name: given[name] for name in inspect.signature(function).parameters})
    if isinstance(answer, str):
        custom_sql: Any = load(CHECKS, _OF_SQL, FunctionType, where="a check that returns SQL")
        return custom_sql(function.__name__, answer).evaluate(scope)  # type: ignore[no-any-return]
    if isinstance(answer, dg.AssetCheckResult):
        return answer
    if type(answer).__name__ in ("bool", "bool_"):  # numpy's too
        verdict = "holds" if answer else "does not hold"
        return Outcome(bool(answer), f"`{function.__name__}` {verdict} for {scope.table}")
    raise DefinitionError(
        f"the function returned a value of type {type(answer).__name__}.",
        fix="return SQL that selects failing rows, a bool, or a dg.AssetCheckResult.",
    )


def _metadata(outcome: Outcome) -> dict[str, Any]:
    """Return what a check found as the UI shows it."""
    metadata: dict[str, Any] = dict(outcome.metadata)
    if "sql" in metadata:
        metadata["sql"] = dg.MetadataValue.md(f"```sql\n{metadata['sql']}\n```")
    if outcome.sample:
        metadata["sample"] = dg.MetadataValue.table(
            [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in outcome.sample],
            schema=dg.TableSchema([dg.TableColumn(name) for name in outcome.sample[0]]),
        )
    return metadata


def _cell(value: object) -> str:
    shown = "null" if value is None else str(value)
    return shown if len(shown) <= _CELL_CHARACTERS else f"{shown[:_CELL_CHARACTERS]}…"
