"""`@cascade_ingestion`: a fetch function becomes an asset that loads its rows into an Iceberg table."""

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, overload

import dagster as dg

from cascade._dagster import disable_dagster_warnings
from cascade.config import current_settings
from cascade.deadline import deadline
from cascade.errors import CascadeError, ContractError, DefinitionError, SchemaMismatchError, ServiceError
from cascade.evidence import shown_columns
from cascade.ingestion.connector import connected
from cascade.ingestion.limits import TimeLimitError, failure_reason, is_transient
from cascade.ingestion.options import PER_RUN, Options
from cascade.ingestion.partitions import definition_of, of_time
from cascade.lakehouse import Lakehouse
from cascade.names import (
    COLUMN_SCHEMA,
    CONTRACT_CHECK,
    CRON_METADATA,
    FRESHNESS_CHECK,
    MISSING_ONLY_TAG,
    QUARANTINE_COLUMNS,
    QUARANTINE_TABLE,
    TABLE_METADATA,
    TABLE_NAME,
)
from cascade.options import known_options
from cascade.plugins.source import failing_line, place

if TYPE_CHECKING:
    from cascade.ingestion.plan import LoadPlan

__all__ = ["automation_of", "cascade_ingestion", "load_plan"]

Fetch = Callable[..., object]
_Build = Callable[[Fetch, Options], dg.AssetsDefinition]
_P = ParamSpec("_P")

# Attribute of the asset's op: Dagster hands on the same op when it copies an asset to change its attributes.
_PLAN, _AUTOMATION = "cascade_plan", "cascade_automation"


class _Decorator(Protocol[_P]):
    """A decorator that is used with options, or without any and without parentheses."""

    @overload
    def __call__(self, fetch: Fetch, /) -> dg.AssetsDefinition: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, *args: _P.args, **options: _P.kwargs) -> Callable[[Fetch], dg.AssetsDefinition]: ...


def _with(options: Callable[_P, Options]) -> Callable[[_Build], _Decorator[_P]]:
    """Turn a function of a fetch function and options into a decorator that takes each option by its name."""

    def turn(build: _Build) -> Any:
        @functools.wraps(build)
        def decorator(fetch: Fetch | None = None, /, *args: _P.args, **given: _P.kwargs) -> Any:
            chosen = options(*args, **given)
            return (lambda function: build(function, chosen)) if fetch is None else build(fetch, chosen)

        signature = inspect.signature(options)  # for `help`, editors, and the list of options in an error
        function = inspect.Parameter("fetch", inspect.Parameter.POSITIONAL_ONLY, default=None)
        every = [function, *signature.parameters.values()]
        vars(decorator)["__signature__"] = signature.replace(parameters=every, return_annotation=signature.empty)
        return known_options(decorator)

    return turn


@_with(Options)
def cascade_ingestion(fetch: Fetch, options: Options) -> dg.AssetsDefinition:
    """Define an asset that loads the rows its function returns, as one commit on the run's branch.

    The function takes `partition_date: str` (or `partition_key: str`, which is the same), and is called once for each
    partition of the run, or `partition_dates: list[str]`, and is called once with all of them, or neither when the
    asset has no partitions. Any other parameter is the name of a Dagster resource; `context` is the run's context, in
    which `partition_key`, `partition_keys` and `partition_time_window` are those of the call.
    It returns dicts (a list or generator of them, or of lists of them), dataclasses, named tuples or pydantic models in
    their place, Arrow tables or batches, or `None` for nothing. Packages bring further forms; those of a generated
    project are a dlt source or resource, pandas and polars frames, and `bytes` of JSON (pages, each a list of objects,
    or one object a line): the unparsed answer of a REST source costs less than dicts, and keeps all digits of a number
    whose column is a decimal.

    Args:
        table_name: Table name without namespace; the function's name by default.
        unique_key: Column or columns that name a row. Of rows with one key the last one stays. Here and below, a
            column may be named as the source does (`orderId`) or as the table does (`order_id`).
        group: Group of the asset in Dagster.
        owners: Who looks after the table: mail addresses, or `team:` and a name; by default the setting `owners`.
        source: Name of an installed source plugin that fetches the rows. The function then returns nothing, or options
            beside `options`, such as `{"since": partition_date}`.
        options: What the plugin is asked for, by the names of its options.
        deps: Tables `namespace.table` that the function reads, through the resource `lakehouse`: it runs after them.
        validation_schema: Pandera model, of the polars API, or of pandas where that is installed: the contract that
            every row must fulfil. The table's columns derive from it.
        iceberg_schema: The table's columns, a PyIceberg `Schema`, when they are not to derive from the model.
            With neither, the first load infers them.
        partition_spec: PyIceberg `PartitionSpec` of the files of a large table; all but `identity` need pyiceberg-core.
        partitions: What one run fills: `daily()`, `hourly()`, `weekly()`, `monthly()`, `static([...])`,
            `none()`, a word such as `"hourly"`, or a definition of Dagster: static, of time, dynamic (with a name), or
            of two dimensions.
        partition_column: Column that says which partition a row belongs to; for two dimensions one for each, by their
            names: `{"date": "day", "country": "land"}`. Rows outside the run's partitions are an error, or set aside.
        namespace: Namespace of the table.
        write: `merge` replaces rows by key; `replace_partition` replaces the run's partitions, so that rows
            which the source deleted are removed too; `append` adds rows, and a partition that runs again
            replaces the rows that it added. `merge` with a key, else `append`. Without `partition_column`
            a partition has the rows that its loads brought.
        schema_policy: Columns that the source has and the table has not: `strict` refuses, `additive` adds,
            `drop_extra` leaves them out. `strict` also refuses a load in which no row has a column that is not
            optional. By default what the model's `strict` says, `additive` where it is silent.
        on_invalid: Rows that cannot be cast, break the contract, lack their key or lie outside the run's partitions:
            `fail` writes nothing, `quarantine` sets them aside in a table of the namespace `quarantine`
            (`quarantine.raw__orders` for `raw.orders`), with the reasons.
        quarantine_limit: Rows that one run may set aside; with more it fails and writes nothing.
        quarantine_fraction: The share of its rows that one run may set aside, such as 0.01; the same with more.
        order_by: Column whose greatest value wins among rows with one key, instead of the last row; with `merge`
            also over the row that the table has. Null and NaN never win over a value; of equals the last row wins.
        cron: Schedule of a pipeline run that loads the latest partition and those that `main` misses, and all that
            depends on it, and promotes. It is named `<namespace>__<table>_schedule`; the setting `schedules` says
            whether it is on from the start.
        automation: A condition of Dagster in place of `cron`, such as `dg.AutomationCondition.eager()`: the same run
            begins when it holds. Its sensor is named `<namespace>__<table>_automation`.
        freshness_hours: `(warn, fail)` in hours: the ages of the newest partition at which the check `freshness` warns
            and fails; without partitions the time since the last load, one that found nothing new included.
        max_runtime_seconds: Seconds after which an attempt to load is stopped; it may be repeated. A call of C code
            that never returns is not stopped: give the source's own client a time limit, too.
        max_retries: How often a failed load is repeated; errors that a repetition cannot mend are not repeated.
        retry_delay_seconds: Seconds between attempts.
        validate: Whether rows are checked against the contract.

    Raises:
        DefinitionError: An option is unknown, or options contradict each other; all problems are named.
    """
    parameters = inspect.signature(fetch).parameters
    if options.source is not None:
        fetch, options = connected(fetch, options)
    per_run = [name for name in parameters if name in PER_RUN]
    resources = parameters.keys() - {*PER_RUN, "context"}
    options = replace(options, table_name=options.table_name or fetch.__name__)
    if problems := list(options.problems(parameters)):
        where = f"@cascade_ingestion on `{fetch.__name__}`"
        raise DefinitionError("; ".join(problems) + ".", where=where, fix="correct the options.")
    definition = definition_of(options.partitions, current_settings(), options.cron)

    def plan(given: dict[str, Any]) -> "LoadPlan":
        from cascade.ingestion.plan import build_plan

        return build_plan(fetch, options, definition, per_run, given)

    # Options of Dagster that it calls beta are our choice: users need not read of it at every start.
    with disable_dagster_warnings():

        @dg.asset(
            key=options.table.split("."),
            group_name=options.group,
            owners=list(options.owners or current_settings().owners),
            deps=[table.split(".") for table in options.deps],
            description=inspect.getdoc(fetch),
            partitions_def=definition,
            backfill_policy=dg.BackfillPolicy.single_run() if definition else None,
            check_specs=_check_specs(options, definition),
            required_resource_keys={"lakehouse"} | resources,
            retry_policy=dg.RetryPolicy(max_retries=options.max_retries, delay=options.retry_delay_seconds)
            if options.max_retries
            else None,
            freshness_policy=_freshness(options),
            kinds={"python", "iceberg"},
            metadata={
                **dict.fromkeys((TABLE_METADATA, TABLE_NAME), options.table),
                **({CRON_METADATA: options.cron} if options.cron else {}),
                **(_quarantine(options.table) if options.on_invalid == "quarantine" else {}),
                "dagster/code_references": _code(fetch),
            },
        )
        def ingest(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # Dagster reads the annotation
            given: dict[str, Any] = {name: getattr(context.resources, name) for name in resources}
            if "context" in parameters:
                given["context"] = context
            return _run(context, options, lambda: plan(given))

    setattr(ingest.op, _PLAN, plan)
    setattr(ingest.op, _AUTOMATION, options.automation)
    return ingest


def automation_of(asset: dg.AssetsDefinition) -> dg.AutomationCondition[dg.AssetKey] | None:
    """Return what an ingestion asset says for `automation`.

    Dagster's own attribute is empty: its sensor would materialize the asset alone, on the branch `dev`.
    """
    return getattr(asset.is_executable and asset.node_def, _AUTOMATION, None)


def load_plan(asset: dg.AssetsDefinition, resources: dict[str, Any] | None = None) -> "LoadPlan":
    """Return what an ingestion asset does when it runs.

    Args:
        asset: The asset, or a copy of it that Dagster made.
        resources: What its function asks for beside partitions: name to value.

    Raises:
        DefinitionError: The contract cannot become a table, or it is not an ingestion asset.
    """
    plan: Callable[[dict[str, Any]], LoadPlan] | None = getattr(asset.is_executable and asset.node_def, _PLAN, None)
    if plan is None:
        raise DefinitionError(f"{asset.key.to_user_string()} is not an asset of @cascade_ingestion.")
    return plan(resources or {})


def _code(fetch: Fetch) -> dg.CodeReferencesMetadataValue:
    file, _, line = place(fetch).rpartition(":")
    code = [dg.LocalFileCodeReference(file_path=file, line_number=int(line))] if file else []
    return dg.CodeReferencesMetadataValue(code_references=list(code))


def _quarantine(table: str) -> dict[str, Any]:
    from cascade.ingestion.quarantine import SCHEMA, quarantine_table  # half a second that others need not pay

    return {QUARANTINE_TABLE: quarantine_table(table), QUARANTINE_COLUMNS: shown_columns(SCHEMA)[COLUMN_SCHEMA]}


def _check_specs(options: Options, definition: dg.PartitionsDefinition[Any] | None) -> Sequence[dg.AssetCheckSpec]:
    key, checks = dg.AssetKey(options.table.split(".")), []
    if options.checked:
        model = options.validation_schema  # a class, or an object that may have no name
        name = getattr(model, "__name__", None) or getattr(model, "name", None) or "the contract"
        says = f"Every row fulfils {name}."
        checks.append(dg.AssetCheckSpec(CONTRACT_CHECK, asset=key, blocking=True, description=says))
    if options.freshness_hours and of_time(definition):
        says = f"The newest partition ended within {options.freshness_hours[1]:g} hours."
        checks.append(dg.AssetCheckSpec(FRESHNESS_CHECK, asset=key, description=says))
    return checks


def _freshness(options: Options) -> dg.FreshnessPolicy | None:
    if options.freshness_hours is None:
        return None
    warn, fail = (dt.timedelta(hours=hours) for hours in options.freshness_hours)
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn if warn < fail else None)


def _run(
    context: dg.AssetExecutionContext, options: Options, plan_of: Callable[[], "LoadPlan"]
) -> dg.MaterializeResult[Any]:
    from cascade.ingestion.load import load
    from cascade.ingestion.report import materialization, say

    lakehouse: Lakehouse = context.resources.lakehouse
    key = context.asset_key
    stopped = TimeLimitError(
        f"Stopped after {options.max_runtime_seconds:g} seconds.",
        fix="raise max_runtime_seconds, or load fewer partitions at once.",
    )
    try:
        with deadline(options.max_runtime_seconds, stopped):
            plan = plan_of()
            run_id = context.run.root_run_id or context.run.run_id
            run = context.instance.get_run_record_by_id(run_id)
            result = load(
                plan,
                lakehouse,
                list(map(str, context.partition_keys)) if plan.definition else [],
                missing_only=context.run.tags.get(MISSING_ONLY_TAG) == "true",
                run_id=run_id,
                run_started=run.create_timestamp.timestamp() if run else 0.0,
            )
    except Exception as error:
        # A server that is away is no matter of one table: the same words for all are told once.
        elsewhere = isinstance(error, ServiceError)
        if isinstance(error, CascadeError) and not elsewhere and options.table not in str(error):
            error.where = ", ".join(filter(None, [f"table {options.table}", error.where]))
        if options.checked and isinstance(error, ContractError | SchemaMismatchError):
            # Logged, not yielded: what a step yields before it fails is lost.
            context.log_event(
                dg.AssetCheckEvaluation(
                    asset_key=key, check_name=CONTRACT_CHECK, passed=False, description=str(error), blocking=True
                )
            )
        if is_transient(error):
            raise
        found = failing_line(error, [lakehouse.settings.project_dir])
        where = {"where": f"{found[0]}:{found[1]}"} if found else {}
        raise dg.Failure(failure_reason(error), metadata=where, allow_retries=False) from error
    say(context.log, result, plan.table)
    return materialization(context, plan, result, lakehouse)
