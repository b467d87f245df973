"""`@cascade_ingestion`: a fetch function becomes an asset that loads its rows into an Iceberg table."""

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import dagster as dg
from dagster_shared.utils.warnings import disable_dagster_warnings

from cascade.config import Settings, load_settings
from cascade.errors import ConfigurationError, DefinitionError
from cascade.ingestion.options import Options, more_often
from cascade.ingestion.partitions import Partitions, daily, hourly, monthly, none, static, weekly
from cascade.ingestion.runtime import is_transient, time_limit
from cascade.lakehouse import BRANCH_METADATA, MISSING_ONLY_TAG, SNAPSHOT_METADATA, Lakehouse

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
Write = Literal["merge", "replace_partition", "append"]
SchemaPolicy = Literal["strict", "additive", "drop_extra"]

# Parameters of a fetch function that say what to load; all others are resources.
_PER_RUN = {"partition_date": True, "partition_dates": False}

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
    schema_policy: SchemaPolicy | None = ...,
    on_invalid: Literal["fail", "quarantine"] = ...,
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
    schema_policy: SchemaPolicy | None = None,
    on_invalid: Literal["fail", "quarantine"] = "fail",
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
            table of the namespace `quarantine`, with the reasons.
        quarantine_limit: Most rows that one run may set aside; with more it fails.
        order_by: Column whose greatest value wins among rows with one key, instead of the last row.
        cron: Schedule of a pipeline run that loads the latest partition and all that depends on it.
        freshness_hours: Warn, and fail, when the data is older than this many hours.
        max_runtime_seconds: A run of the asset that takes longer is stopped.
        max_retries: How often a failed load is repeated; errors that repeating cannot mend are not.
        retry_delay_seconds: Wait before each.
        validate: Whether rows are checked against the contract.

    Raises:
        DefinitionError: An option is unknown, or options contradict each other; all problems are named.
    """
    if unknown:
        known = [name for name in inspect.signature(cascade_ingestion).parameters if name not in ("fetch", "unknown")]
        raise DefinitionError(
            f"@cascade_ingestion has no option {', '.join(f'`{name}`' for name in unknown)}.",
            fix=f"the options are {', '.join(known)}.",
        )
    options = {name: value for name, value in locals().items() if name not in ("fetch", "unknown")}
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
    per_run = [name for name in inspect.signature(fetch).parameters if name in _PER_RUN]
    resources = {name for name in inspect.signature(fetch).parameters if name not in (*_PER_RUN, "context")}
    o = Options.of(fetch.__name__, options)
    if problems := list(o.problems(per_run)):
        where = f"@cascade_ingestion on `{fetch.__name__}`"
        raise DefinitionError("; ".join(problems) + ".", where=where, fix="correct the options.")

    settings = _settings()
    definition = o.partitions.definition(settings, current=more_often(o.cron, o.partitions))
    table = f"{o.namespace}.{o.table_name}"
    key = dg.AssetKey([o.namespace, o.table_name])
    contract = o.validation_schema
    per_partition = _PER_RUN[per_run[0]] if per_run else None
    freshness = o.freshness_hours

    def plan(given: dict[str, Any]) -> "LoadPlan":
        return _plan(table, functools.partial(fetch, **given), per_partition, definition, o)

    _plans[key] = plan
    checks = []
    if contract is not None and o.validate:
        checks.append(
            dg.AssetCheckSpec(
                CONTRACT_CHECK, asset=key, blocking=True, description=f"Every row fulfils {_name(contract)}."
            )
        )
    if freshness and isinstance(definition, dg.TimeWindowPartitionsDefinition):
        checks.append(
            dg.AssetCheckSpec(
                _FRESHNESS_CHECK, asset=key, description=f"The newest partition ended within {freshness[1]:g} hours."
            )
        )

    # Options of Dagster that it calls beta are our choice: users need not read of it at every start.
    with disable_dagster_warnings():

        @dg.asset(
            key=key,
            group_name=o.group,
            description=inspect.getdoc(fetch),
            partitions_def=definition,
            backfill_policy=dg.BackfillPolicy.single_run() if definition else None,
            check_specs=checks or None,
            required_resource_keys={"lakehouse"} | resources,
            retry_policy=dg.RetryPolicy(max_retries=o.max_retries, delay=o.retry_delay_seconds)
            if o.max_retries
            else None,
            freshness_policy=_freshness_policy(freshness),
            kinds={"python", "iceberg"},
            metadata={TABLE_METADATA: table, **({CRON_METADATA: o.cron} if o.cron else {})},
        )
        def ingest(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # Dagster reads the annotation
            lakehouse: Lakehouse = context.resources.lakehouse
            given: dict[str, Any] = {name: getattr(context.resources, name) for name in resources}
            if "context" in inspect.signature(fetch).parameters:
                given["context"] = context
            return _run(context, lakehouse, key, given, o)

    return ingest


def _run(
    context: dg.AssetExecutionContext, lakehouse: Lakehouse, key: dg.AssetKey, given: dict[str, Any], o: Options
) -> dg.MaterializeResult[Any]:
    from cascade.errors import ContractError
    from cascade.ingestion.load import load

    names = {spec.name for spec in context.assets_def.check_specs}
    try:
        with time_limit(o.max_runtime_seconds, f"asset {key.to_user_string()}"):
            plan = load_plan(key, given)
            result = load(
                plan,
                lakehouse,
                list(context.partition_keys) if plan.partitions else [],
                missing_only=context.run.tags.get(MISSING_ONLY_TAG) == "true",
                run_id=context.run.root_run_id or context.run.run_id,
            )
    except Exception as error:
        if CONTRACT_CHECK in names and isinstance(error, ContractError):
            # Logged, not yielded: what a step yields before it fails is lost.
            context.log_event(
                dg.AssetCheckEvaluation(
                    asset_key=key, check_name=CONTRACT_CHECK, passed=False, description=str(error), blocking=True
                )
            )
        if is_transient(error):
            raise
        raise dg.Failure(str(error), allow_retries=False) from error
    _tell(context, result, plan.table)
    evidence = {SNAPSHOT_METADATA: str(result.snapshot_id), BRANCH_METADATA: lakehouse.branch}
    checks = []
    if CONTRACT_CHECK in names:
        checks.append(
            dg.AssetCheckResult(
                check_name=CONTRACT_CHECK, passed=True, metadata={**evidence, "quarantined_rows": result.quarantined}
            )
        )
    if _FRESHNESS_CHECK in names and o.freshness_hours:
        checks.append(_freshness_result(plan, lakehouse, o.freshness_hours, evidence))
    return dg.MaterializeResult(metadata={**_metadata(result, plan.table), **evidence}, check_results=checks)


def _tell(context: dg.AssetExecutionContext, result: "LoadResult", table: str) -> None:
    """Say in the log what happened, what is special about it first."""
    if result.skipped:
        context.log.info(f"{table}: {result.skipped} partitions are loaded already.")
    if not result.partitions and result.skipped:
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
    if result.dropped:
        found["dropped_columns"] = sorted(result.dropped)
    if result.preview is not None:
        names = result.preview.column_names
        lines = [" | ".join(names), " | ".join("---" for _ in names)]
        lines += [" | ".join(str(v)[:60] for v in row.values()) for row in result.preview.to_pylist()]
        found["preview"] = dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))
    return found


def _plan(
    table: str,
    fetch: Fetch,
    per_partition: bool | None,
    definition: dg.PartitionsDefinition[Any] | None,
    o: Options,
) -> "LoadPlan":
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC

    from cascade.ingestion.contract import Contract
    from cascade.ingestion.load import LoadPlan

    model = o.validation_schema
    contract = Contract(model) if model is not None else None
    schema = o.iceberg_schema or (contract.schema if contract else None)
    spec = o.partition_spec or UNPARTITIONED_PARTITION_SPEC
    if schema is not None:
        wanted = [*o.key, *filter(None, [o.partition_column, o.order_by])]
        missing = sorted({c for c in wanted if c not in {f.name for f in schema.fields}})
        if missing:
            raise DefinitionError(
                f"The schema has no column {', '.join(f'`{c}`' for c in missing)}.",
                where=f"table {table}, columns {', '.join(f.name for f in schema.fields)}",
                fix="declare it, or name another column in unique_key, partition_column or order_by.",
            )
    return LoadPlan(
        table=table,
        fetch=fetch,
        per_partition=per_partition,
        partitions=definition,
        partition_column=o.partition_column,
        key=o.key,
        contract=contract,
        schema=schema,
        spec=spec,
        mode=o.write,
        policy=o.schema_policy or (contract.policy if contract else "additive"),
        on_invalid=o.on_invalid,
        quarantine_limit=o.quarantine_limit,
        order_by=o.order_by,
        validate=o.validate,
    )


def _name(contract: Any) -> str:
    """Name a Pandera model, or a schema object, which may have no name."""
    return getattr(contract, "__name__", None) or getattr(contract, "name", None) or "the contract"


def _freshness_policy(hours: tuple[float, float] | None) -> dg.FreshnessPolicy | None:
    if hours is None:
        return None
    warn, fail = (dt.timedelta(hours=h) for h in hours)
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn if warn < fail else None)


def _freshness_result(
    plan: "LoadPlan", lakehouse: Lakehouse, hours: tuple[float, float], evidence: dict[str, Any]
) -> dg.AssetCheckResult:
    """Compare the end of the newest loaded partition with now: filling an old one proves nothing."""
    from cascade.ingestion.load import loaded_partitions

    assert isinstance(plan.partitions, dg.TimeWindowPartitionsDefinition)
    loaded = loaded_partitions(lakehouse.lake, lakehouse.ref, plan.table, plan.partitions)
    ends = [plan.partitions.time_window_for_partition_key(key).end for key in loaded]
    age = (dt.datetime.now(dt.UTC) - max(ends)).total_seconds() / 3600 if ends else float("inf")
    late = age > hours[1]
    return dg.AssetCheckResult(
        check_name=_FRESHNESS_CHECK,
        passed=age <= hours[0],
        severity=dg.AssetCheckSeverity.ERROR if late else dg.AssetCheckSeverity.WARN,
        description=f"The newest partition ended {max(age, 0):,.1f} hours ago; "
        f"warn after {hours[0]:g}, fail after {hours[1]:g}.",
        metadata=evidence,
    )


def _settings() -> Settings:
    """Return the project's settings, or the defaults where there is no project, such as in a notebook."""
    try:
        return load_settings()
    except ConfigurationError:
        from pathlib import Path

        return Settings(project_dir=Path.cwd())
