"""`@cascade_ingestion`: a fetch function becomes an asset that loads its rows into an Iceberg table."""

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import dagster as dg
from dagster_shared.utils.warnings import disable_dagster_warnings

from cascade.config import current_settings
from cascade.errors import ContractError, DefinitionError, count
from cascade.evidence import snapshot_evidence
from cascade.ingestion.limits import failure_reason, is_transient, time_limit
from cascade.ingestion.options import OnInvalid, Options, Policy, Write
from cascade.ingestion.partitions import Partitions, daily, hourly, monthly, none, static, weekly
from cascade.lakehouse import Lakehouse
from cascade.names import MISSING_ONLY_TAG

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema

    from cascade.ingestion.load import LoadPlan, LoadResult

__all__ = [
    "CONTRACT_CHECK",
    "CRON_METADATA",
    "TABLE_METADATA",
    "cascade_ingestion",
    "daily",
    "hourly",
    "load_plan",
    "monthly",
    "none",
    "static",
    "weekly",
]

#: Metadata of an ingestion asset: its table, and its schedule, which the definitions are built from.
TABLE_METADATA = "cascade/table"
CRON_METADATA = "cascade/cron"
#: Name of the asset check that says whether the loaded rows fulfil the contract.
CONTRACT_CHECK = "contract"
_FRESHNESS_CHECK = "freshness"

Fetch = Callable[..., object]

# Parameters of a fetch function that say what to load; all others but `context` are resources.
_PER_RUN = ("partition_date", "partition_dates")

_plans: dict[dg.AssetKey, Callable[[dict[str, Any]], "LoadPlan"]] = {}


@overload
def cascade_ingestion(fetch: Fetch, /) -> dg.AssetsDefinition: ...
@overload
def cascade_ingestion(
    *,
    table_name: str | None = ...,
    unique_key: str | Sequence[str] | None = ...,
    group: str | None = ...,
    validation_schema: Any = ...,
    iceberg_schema: "Schema | None" = ...,
    partition_spec: "PartitionSpec | None" = ...,
    partitions: Partitions | str | None = ...,
    partition_column: str | None = ...,
    namespace: str = ...,
    write: Write = ...,
    schema_policy: Policy | None = ...,
    on_invalid: OnInvalid = ...,
    quarantine_limit: int = ...,
    order_by: str | None = ...,
    cron: str | None = ...,
    freshness_hours: tuple[float, float] | None = ...,
    max_runtime_seconds: float = ...,
    max_retries: int = ...,
    retry_delay_seconds: float = ...,
    validate: bool = ...,
) -> Callable[[Fetch], dg.AssetsDefinition]: ...
def cascade_ingestion(
    fetch: Fetch | None = None,
    /,
    *,
    table_name: str | None = None,
    unique_key: str | Sequence[str] | None = None,
    group: str | None = None,
    validation_schema: Any = None,
    iceberg_schema: "Schema | None" = None,
    partition_spec: "PartitionSpec | None" = None,
    partitions: Partitions | str | None = "daily",
    partition_column: str | None = None,
    namespace: str = "raw",
    write: Write | None = None,
    schema_policy: Policy | None = None,
    on_invalid: OnInvalid = "fail",
    quarantine_limit: int = 1000,
    order_by: str | None = None,
    cron: str | None = None,
    freshness_hours: tuple[float, float] | None = None,
    max_runtime_seconds: float = 300,
    max_retries: int = 3,
    retry_delay_seconds: float = 30,
    validate: bool = True,
    **unknown: object,
) -> dg.AssetsDefinition | Callable[[Fetch], dg.AssetsDefinition]:
    """Define an asset that loads the rows its function returns, as one commit on the run's branch.

    The function takes `partition_date: str`, and is called once for each partition of the run, or
    `partition_dates: list[str]`, and is called once with all of them, or neither when the asset has no
    partitions. Any other parameter is the name of a Dagster resource; `context` is the run's context.
    It returns a dlt source or resource, dicts (a list or generator of them, or of lists of them), Arrow
    tables or batches, pandas or polars frames, or `None` for nothing.

    Args:
        fetch: The function, when the decorator is used without options.
        table_name: Table name without namespace; the function's name by default.
        unique_key: Column or columns that name a row. Of rows with one key the last one stays.
        group: Group of the asset in Dagster.
        validation_schema: Pandera model, of the pandas or the polars API: the contract that every row
            must fulfil. The table's columns derive from it.
        iceberg_schema: The table's columns, when they shall not derive from the model. With neither,
            the first load infers them.
        partition_spec: Iceberg partitioning of the table's files, for large tables.
        partitions: What one run fills: `daily()`, `hourly()`, `weekly()`, `monthly()`, `static([...])`,
            `none()`, or their names. Daily by default.
        partition_column: Column that says which partition a row belongs to. Rows outside the run's
            partitions are an error.
        namespace: Namespace of the table.
        write: `merge` replaces rows by key, `replace_partition` the run's partitions, so that what the
            source deleted goes too, `append` adds, and running a partition again replaces what it added.
            `merge` with a key, else `append`.
        schema_policy: Columns that the source has and the table has not: `strict` refuses, `additive` adds,
            `drop_extra` leaves them out. By default what the model's `strict` says, `additive` where it is
            silent.
        on_invalid: Rows that break the contract: `fail` writes nothing, `quarantine` sets them aside in a
            table of the namespace `quarantine` (`quarantine.raw__orders` for `raw.orders`), with the reasons.
        quarantine_limit: Most rows that one run may set aside; with more it fails.
        order_by: Column whose greatest value wins among rows with one key, instead of the last row; with `merge`
            also over the row that the table has. Null and NaN never win over a value; of equals the last row wins.
        cron: Schedule of a pipeline run that loads the latest partition and all that depends on it, and promotes.
            It is named `<namespace>__<table>_schedule` and does not run until it is switched on in the UI (Automation).
        freshness_hours: Warn, and fail, when the data is older than this many hours.
        max_runtime_seconds: A run of the asset that takes longer is stopped.
        max_retries: How often a failed load is repeated; errors that repeating cannot mend are not.
        retry_delay_seconds: Wait before each.
        validate: Whether rows are checked against the contract.

    Raises:
        DefinitionError: An option is unknown, or options contradict each other; all problems are named.
    """
    options = {name: value for name, value in locals().items() if name not in ("fetch", "unknown")}
    if unknown:
        raise DefinitionError(
            f"@cascade_ingestion has no option {', '.join(f'`{name}`' for name in unknown)}.",
            fix=f"the options are {', '.join(options)}.",
        )
    build = functools.partial(_build_asset, options=options)
    return build if fetch is None else build(fetch)


def load_plan(key: dg.AssetKey, resources: dict[str, Any] | None = None) -> "LoadPlan":
    """Return what an ingestion asset does when it runs.

    Args:
        key: The asset.
        resources: What its function asks for beside partitions.

    Raises:
        DefinitionError: The contract cannot become a table.
        KeyError: It is no ingestion asset.
    """
    return _plans[key](resources or {})


def _build_asset(fetch: Fetch, *, options: dict[str, Any]) -> dg.AssetsDefinition:
    parameters = inspect.signature(fetch).parameters
    per_run = [name for name in parameters if name in _PER_RUN]
    resources = parameters.keys() - {*_PER_RUN, "context"}
    o = Options.of(fetch.__name__, **options)
    if problems := list(o.problems(per_run)):
        where = f"@cascade_ingestion on `{fetch.__name__}`"
        raise DefinitionError("; ".join(problems) + ".", where=where, fix="correct the options.")

    key = dg.AssetKey([o.namespace, o.table_name])
    definition = o.partitions.definition(current_settings(), o.cron)
    _plans[key] = functools.partial(_plan, fetch, per_run, definition, o)

    # Options of Dagster that it calls beta are our choice: users need not read of it at every start.
    with disable_dagster_warnings():
        checks, freshness = [], None
        if o.checked:
            model = o.validation_schema  # a class, or an object that may have no name
            name = getattr(model, "__name__", None) or getattr(model, "name", None) or "the contract"
            says = f"Every row fulfils {name}."
            checks.append(dg.AssetCheckSpec(CONTRACT_CHECK, asset=key, blocking=True, description=says))
        if o.freshness_hours:
            warn, fail = (dt.timedelta(hours=hours) for hours in o.freshness_hours)
            freshness = dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn if warn < fail else None)
            if isinstance(definition, dg.TimeWindowPartitionsDefinition):
                says = f"The newest partition ended within {o.freshness_hours[1]:g} hours."
                checks.append(dg.AssetCheckSpec(_FRESHNESS_CHECK, asset=key, description=says))
        retries = dg.RetryPolicy(max_retries=o.max_retries, delay=o.retry_delay_seconds) if o.max_retries else None

        @dg.asset(
            key=key,
            group_name=o.group,
            description=inspect.getdoc(fetch),
            partitions_def=definition,
            backfill_policy=dg.BackfillPolicy.single_run() if definition else None,
            check_specs=checks,
            required_resource_keys={"lakehouse"} | resources,
            retry_policy=retries,
            freshness_policy=freshness,
            kinds={"python", "iceberg"},
            metadata={TABLE_METADATA: o.table, **({CRON_METADATA: o.cron} if o.cron else {})},
        )
        def ingest(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # Dagster reads the annotation
            given: dict[str, Any] = {name: getattr(context.resources, name) for name in resources}
            if "context" in parameters:
                given["context"] = context
            return _run(context, key, given, o)

    return ingest


def _run(
    context: dg.AssetExecutionContext, key: dg.AssetKey, given: dict[str, Any], o: Options
) -> dg.MaterializeResult[Any]:
    from cascade.ingestion.load import load

    lakehouse: Lakehouse = context.resources.lakehouse
    try:
        with time_limit(o.max_runtime_seconds, f"asset {key.to_user_string()}"):
            plan = load_plan(key, given)
            result = load(
                plan,
                lakehouse,
                list(context.partition_keys) if plan.definition else [],
                missing_only=context.run.tags.get(MISSING_ONLY_TAG) == "true",
                run_id=context.run.root_run_id or context.run.run_id,
            )
    except Exception as error:
        if o.checked and isinstance(error, ContractError):
            # Logged, not yielded: what a step yields before it fails is lost.
            context.log_event(
                dg.AssetCheckEvaluation(
                    asset_key=key, check_name=CONTRACT_CHECK, passed=False, description=str(error), blocking=True
                )
            )
        if is_transient(error):
            raise
        raise dg.Failure(failure_reason(error), allow_retries=False) from error
    _tell(context, result, plan.table)
    evidence = snapshot_evidence(result.snapshot_id, lakehouse.branch)
    checks = []
    if o.checked:
        checks.append(_contract_check(result, evidence))
    if o.freshness_hours and isinstance(plan.definition, dg.TimeWindowPartitionsDefinition):
        checks.append(_freshness(o, plan.definition, lakehouse, evidence))
    told = _metadata(result, plan.table)
    if plan.definition and result.partitions:
        # What is true of the run is said once, with its last partition, and not once for each of a year.
        for partition in result.partitions:
            if partition in result.per_partition:
                rows = {"dagster/partition_row_count": result.per_partition[partition]}
                context.add_asset_metadata(rows, partition_key=partition)
        context.add_asset_metadata(told, partition_key=context.partition_keys[-1])
        told = {}
    return dg.MaterializeResult(metadata={**told, **evidence}, check_results=checks)


def _contract_check(result: "LoadResult", evidence: dict[str, str]) -> dg.AssetCheckResult:
    """Say that the loaded rows fulfil the contract, and warn of what the source did not keep to."""
    warnings = []
    if result.quarantined:
        warnings.append(
            f"{result.quarantined:,} of {count(result.extracted, 'row')} broke it; see {result.quarantine}."
        )
    if result.absent:
        names = ", ".join(f"`{name}`" for name in sorted(result.absent))
        warnings.append(f"No row brought {names}, which the contract requires; the column is null.")
    said = {"description": " ".join(warnings), "severity": dg.AssetCheckSeverity.WARN} if warnings else {}
    return dg.AssetCheckResult(
        check_name=CONTRACT_CHECK,
        passed=not warnings,
        metadata={**evidence, "quarantined_rows": result.quarantined},
        **said,  # type: ignore[arg-type]
    )


def _tell(context: dg.AssetExecutionContext, result: "LoadResult", table: str) -> None:
    """Say in the log what happened, what is special about it first."""
    if result.skipped:
        context.log.info(f"{table}: {result.skipped} partitions are loaded already.")
        if not result.partitions:
            context.log.info(f"{table}: nothing to ingest.")
            return
    if result.inferred:
        context.log.warning(f"{table}: no schema is declared; its columns come from the data alone.")
    if result.dropped:
        context.log.warning(f"{table}: columns left out: {', '.join(sorted(result.dropped))}.")
    if not result.extracted:
        context.log.info(f"{table}: the source returned no rows.")
    context.log.info(
        f"{table}: {result.extracted:,} extracted = {result.loaded:,} loaded + {result.quarantined:,} quarantined"
        f" + {result.duplicates:,} duplicates."
    )


def _metadata(result: "LoadResult", table: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dagster/row_count": result.total,
        "dagster/table_name": table,
        "extracted_rows": result.extracted,
        "loaded_rows": result.loaded,
        "quarantined_rows": result.quarantined,
        "duplicate_rows": result.duplicates,
        "replaced_rows": result.replaced,
        "partitions_loaded": len(result.partitions),
        "partitions_skipped": result.skipped,
        **{f"{step}_seconds": round(seconds, 3) for step, seconds in result.seconds.items()},
    }
    if result.quarantine:
        found["quarantine_table"] = result.quarantine
    if result.dropped:
        found["dropped_columns"] = sorted(result.dropped)
    if result.preview is not None:
        names = result.preview.column_names
        lines = [" | ".join(names), " | ".join("---" for _ in names)]
        lines += [" | ".join(str(v)[:60] for v in row.values()) for row in result.preview.to_pylist()]
        found["preview"] = dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))
    return found


def _plan(
    fetch: Fetch, per_run: list[str], definition: dg.PartitionsDefinition[Any] | None, o: Options, given: dict[str, Any]
) -> "LoadPlan":
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC

    from cascade.iceberg.schema import alike
    from cascade.ingestion.contract import Contract
    from cascade.ingestion.load import LoadPlan

    def calls(keys: Sequence[str]) -> Iterator[object]:
        if "partition_date" in per_run:
            for key in keys:
                yield fetch(partition_date=key, **given)
        elif per_run:
            yield fetch(partition_dates=list(keys), **given)
        else:
            yield fetch(**given)

    contract = None if o.validation_schema is None else Contract(o.validation_schema)
    schema: Schema | None = o.iceberg_schema or (contract.schema if contract else None)
    columns = [f.name for f in schema.fields] if schema else []
    if same := alike(columns):
        raise DefinitionError(
            f"SQL, which knows no capital letters, cannot tell these columns apart: {same}.",
            where=f"table {o.table}",
            fix="give one of them another name.",
        )
    if schema and (missing := o.missing(columns)):
        raise DefinitionError(
            f"The schema has no column {missing}.",
            where=f"table {o.table}, columns {', '.join(columns)}",
            fix="declare it, or name another column in unique_key, partition_column or order_by.",
        )
    return LoadPlan(
        **vars(o),
        fetch=calls,
        definition=definition,
        contract=contract,
        schema=schema,
        spec=o.partition_spec or UNPARTITIONED_PARTITION_SPEC,
        policy=o.schema_policy or (contract.policy if contract else "additive"),
        per_key="partition_date" in per_run,
    )


def _freshness(
    o: Options, definition: dg.TimeWindowPartitionsDefinition, lakehouse: Lakehouse, evidence: dict[str, str]
) -> dg.AssetCheckResult:
    """Compare the end of the newest loaded partition with now: filling an old one proves nothing."""
    from cascade.ingestion.load import loaded_partitions

    assert o.freshness_hours is not None
    warn, fail = o.freshness_hours
    loaded = loaded_partitions(lakehouse.catalog, lakehouse.ref, o.table, definition)
    ends = [definition.time_window_for_partition_key(key).end for key in loaded]
    age = (dt.datetime.now(dt.UTC) - max(ends)).total_seconds() / 3600 if ends else float("inf")
    return dg.AssetCheckResult(
        check_name=_FRESHNESS_CHECK,
        passed=age <= warn,
        severity=dg.AssetCheckSeverity.ERROR if age > fail else dg.AssetCheckSeverity.WARN,
        description=f"The newest partition ended {max(age, 0):,.1f} hours ago; "
        f"warn after {warn:g}, fail after {fail:g}.",
        metadata=evidence,
    )
