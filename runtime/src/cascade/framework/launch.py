"""Run assets in this process, against the same Dagster storage that the UI opens."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.utils import make_new_run_id

from cascade.catalog import MAIN, LogEntry
from cascade.config import Settings
from cascade.errors import UsageError
from cascade.framework.definitions import build_definitions
from cascade.ingestion import TABLE_METADATA
from cascade.lakehouse import BRANCH_TAG, MISSING_ONLY_TAG, Lakehouse
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY

__all__ = ["AssetDone", "CheckDone", "Outcome", "materialize", "open_instance", "run_pipeline", "select_assets"]

Definition = dg.PartitionsDefinition[Any]

_BUSY_SECONDS = 60


@dataclass(frozen=True)
class AssetDone:
    """One materialized asset: its key, rows now in its table, and what its step said beyond."""

    asset: str
    rows: int | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class CheckDone:
    """One evaluated check."""

    asset: str
    check: str
    passed: bool
    blocking: bool
    description: str


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        branch: The branch it wrote.
        run_ids: The Dagster runs; one, unless assets with different partitions take part.
        success: Whether everything succeeded.
        assets: What was materialized, in order.
        checks: What was checked.
        failures: Why steps failed, in words.
        partitions: First and last partition asked for, by asset; nothing where all are loaded.
        up_to_date: Ingestion assets that had nothing to load.
        promotion: The entry of the log, if `main` moved.
        seconds: Duration by step.
    """

    branch: str
    run_ids: list[str] = field(default_factory=list)
    success: bool = True
    assets: list[AssetDone] = field(default_factory=list)
    checks: list[CheckDone] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    partitions: dict[str, str] = field(default_factory=dict)
    up_to_date: list[str] = field(default_factory=list)
    promotion: LogEntry | None = None
    seconds: dict[str, float] = field(default_factory=dict)


#: Told of every step as it happens: what happened, and to what.
Listener = Callable[[str, str], None]


@contextlib.contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the project's Dagster storage: `DAGSTER_HOME`, else what `dagster.yaml` of the project names."""
    # Paths in `dagster.yaml` are relative to the project.
    os.chdir(settings.project_dir)
    if home := os.environ.get("DAGSTER_HOME"):
        ref = InstanceRef.from_dir(home)
    else:
        storage = settings.project_dir / ".dagster"
        storage.mkdir(exist_ok=True)
        ref = InstanceRef.from_dir(str(storage), config_dir=str(settings.project_dir))
    with dg.DagsterInstance.from_ref(ref) as instance:
        _keep_connections(instance.event_log_storage)
        yield instance


def _keep_connections(storage: EventLogStorage) -> None:
    """Let SQLite's event log keep its connections.

    Dagster makes a new engine for every event, and a run over a range of days writes thousands: 364 days of
    seven assets take 8.1 CPU-s that way, and 2.7 with connections that are kept.
    """
    if type(storage) is not SqliteEventLogStorage:
        return
    engines: dict[str, sa.Engine] = {}

    @contextlib.contextmanager
    def connect(shard: str) -> Iterator[sa.Connection]:
        with storage._db_lock:
            if shard not in engines:
                url = storage.conn_string_for_shard(shard)
                engines[shard] = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
            if shard not in storage._initialized_dbs:
                storage._initdb(engines[shard])
                storage._initialized_dbs.add(shard)
            with engines[shard].begin() as connection:
                yield connection

    storage._connect = connect  # type: ignore[method-assign]


def run_pipeline(
    settings: Settings, *, select: Sequence[str] = (), partition: str | None = None, promote: bool = True, tell: Listener
) -> Outcome:
    """Run the pipeline on a branch of its own and promote it.

    Args:
        settings: The project's settings.
        select: Assets by name, `+name` with what it depends on, `name+` with what depends on it; all by default.
        partition: A partition, or a range `first..last`. By default those that `main` does not hold.
        promote: Whether the branch is promoted and the marts are published.
        tell: Told of progress.

    Raises:
        UsageError: An asset or a partition does not exist.
        LeaseHeldError: Another pipeline run is working towards `main`.
    """
    definitions = build_definitions(settings)
    graph = definitions.resolve_asset_graph()
    chosen = select_assets(definitions, select) if select else set(graph.executable_asset_keys)
    ends = {PROMOTE_KEY, PUBLISH_KEY}
    chosen = chosen | ends if promote else chosen - ends
    run_id = make_new_run_id()
    lakehouse = Lakehouse(settings, f"run-{run_id[:8]}")
    with lakehouse.lake.lease(MAIN, "`cascade run`"), open_instance(settings) as instance:
        outcome = _execute(definitions, instance, lakehouse, chosen, partition, run_id, {BRANCH_TAG: lakehouse.branch}, tell)
        log = lakehouse.lake.log(MAIN, limit=1)
        if log and log[0].source == lakehouse.branch:
            outcome.promotion = log[0]
    return outcome


def materialize(settings: Settings, assets: Sequence[str], *, partition: str | None = None, tell: Listener) -> Outcome:
    """Materialize assets on the branch for single materializations, and run their checks.

    Args:
        settings: The project's settings; `branch` is written.
        assets: Names, as for `run_pipeline`.
        partition: As for `run_pipeline`; by default what the branch does not hold.
        tell: Told of progress.

    Raises:
        UsageError: An asset or a partition does not exist.
    """
    definitions = build_definitions(settings)
    chosen = select_assets(definitions, assets)
    lakehouse = Lakehouse(settings, settings.branch)
    with open_instance(settings) as instance:
        return _execute(definitions, instance, lakehouse, chosen, partition, make_new_run_id(), {}, tell)


def select_assets(definitions: dg.Definitions, names: Sequence[str]) -> set[dg.AssetKey]:
    """Return the assets that names stand for.

    A name is `namespace/table` or `namespace.table`; `table` alone means the ingestion asset of that name if
    there is one, else it must be unique. `+` before it adds what it depends on, behind it what depends on it.

    Raises:
        UsageError: A name is unknown or ambiguous; all of them are named, with what they might mean.
    """
    graph = definitions.resolve_asset_graph()
    keys = set(graph.executable_asset_keys)
    chosen: set[dg.AssetKey] = set()
    problems = []
    for name in names:
        match = re.fullmatch(r"(\+?)([^+]+)(\+?)", name.strip())
        found = _named(match.group(2), keys, graph) if match else []
        if match is None or len(found) != 1:
            problems.append(_no_single_asset(name, found, keys))
            continue
        selection = dg.AssetSelection.assets(found[0])
        if match.group(1):
            selection = selection.upstream()
        if match.group(3):
            selection = selection | dg.AssetSelection.assets(found[0]).downstream()
        chosen |= selection.resolve(graph) & keys
    if problems:
        raise UsageError("; ".join(problems) + ".", fix="name an asset of this project; `cascade validate` lists them.")
    return chosen


def _named(name: str, keys: set[dg.AssetKey], graph: Any) -> list[dg.AssetKey]:
    parts = re.split(r"[/.]", name)
    if len(parts) > 1:
        return [key for key in keys if list(key.path) == parts]
    same = sorted(key for key in keys if key.path[-1] == name)
    ingested = [key for key in same if TABLE_METADATA in graph.get(key).metadata]
    return ingested if len(ingested) == 1 else same


def _no_single_asset(name: str, found: list[dg.AssetKey], keys: set[dg.AssetKey]) -> str:
    if found:
        return f"{name!r} may mean {' or '.join(key.to_user_string() for key in found)}"
    known = {key.to_user_string(): key for key in keys} | {key.path[-1]: key for key in keys}
    near = sorted({known[word].to_user_string() for word in get_close_matches(name, known)})
    everything = ", ".join(sorted(key.to_user_string() for key in keys))
    return f"there is no asset {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else f"there are {everything}")


@dataclass
class _Group:
    """Assets with the same partitions, and the range of them that one run covers."""

    definition: Definition
    assets: list[dg.AssetKey]
    first: str = ""
    last: str = ""
    missing_only: bool = False


def _execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lakehouse: Lakehouse,
    chosen: set[dg.AssetKey],
    partition: str | None,
    run_id: str,
    tags: dict[str, str],
    tell: Listener,
) -> Outcome:
    outcome = Outcome(branch=lakehouse.branch)
    groups, idle = _groups(definitions, instance, lakehouse, chosen, partition)
    outcome.up_to_date = sorted(key.to_user_string() for key in idle)
    for key in outcome.up_to_date:
        tell("up to date", key)
    rest = chosen - idle - {key for group in groups for key in group.assets}
    # One run when all partitions are of one kind; a run can hold a range of one kind only.
    runs: list[tuple[set[dg.AssetKey], _Group | None]] = [(set(group.assets), group) for group in groups]
    if len(runs) == 1:
        runs = [(runs[0][0] | rest, runs[0][1])]
    elif rest:
        runs.append((rest, None))
    for keys, group in runs:
        if not outcome.success:
            break
        run_tags = dict(tags)
        if group is not None:
            run_tags |= _partition_tags(group)
            span = group.first if group.first == group.last else f"{group.first}..{group.last}"
            outcome.partitions.update({key.to_user_string(): span for key in group.assets})
        _execute_run(definitions, instance, keys, run_id, run_tags, outcome, tell)
        run_id = make_new_run_id()
    return outcome


def _groups(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lakehouse: Lakehouse,
    chosen: set[dg.AssetKey],
    partition: str | None,
) -> tuple[list[_Group], set[dg.AssetKey]]:
    """Sort the partitioned assets by their partitions, and leave out those that have nothing to load."""
    graph = definitions.resolve_asset_graph()
    groups: list[_Group] = []
    for key in sorted(chosen):
        definition = graph.get(key).partitions_def
        if definition is None:
            continue
        group = next((g for g in groups if g.definition == definition), None)
        if group is None:
            groups.append(_Group(definition, [key]))
        else:
            group.assets.append(key)
    if partition is not None and not groups:
        raise UsageError(
            f"None of the chosen assets has partitions, so there is no {partition}.", fix="leave out --partition."
        )
    idle: set[dg.AssetKey] = set()
    busy = []
    for group in groups:
        all_keys = list(group.definition.get_partition_keys())
        if partition is not None:
            group.first, group.last = _parse_range(partition, all_keys, group)
            busy.append(group)
            continue
        missing = {key: _missing(key, graph, group.definition, all_keys, instance, lakehouse) for key in group.assets}
        wanted = [k for k in all_keys if any(k in found for found in missing.values())]
        done = [key for key, found in missing.items() if not found]
        idle.update(done)
        group.assets = [key for key in group.assets if key not in done]
        if wanted:
            group.first, group.last, group.missing_only = wanted[0], wanted[-1], True
            busy.append(group)
    return busy, idle


def _missing(
    key: dg.AssetKey, graph: Any, definition: Definition, all_keys: list[str], instance: dg.DagsterInstance, lakehouse: Lakehouse
) -> set[str]:
    """Return the partitions that are not there yet: an ingestion asset's table says it, else Dagster."""
    from cascade.ingestion.load import loaded_partitions

    table = graph.get(key).metadata.get(TABLE_METADATA)
    if table is not None:
        return set(all_keys) - loaded_partitions(lakehouse.lake, lakehouse.ref, str(getattr(table, "value", table)), definition)
    return set(all_keys) - set(instance.get_materialized_partitions(key))


def _parse_range(text: str, all_keys: list[str], group: _Group) -> tuple[str, str]:
    first, dots, last = text.partition("..")
    ends = (first, last if dots else first)
    known = set(all_keys)
    assets = ", ".join(key.to_user_string() for key in group.assets)
    span = f"{all_keys[0]} .. {all_keys[-1]}" if all_keys else "none yet"
    if unknown := [end for end in dict.fromkeys(ends) if end not in known]:
        raise UsageError(
            f"There is no partition {' and no partition '.join(repr(end) for end in unknown)}.",
            where=f"{assets}, whose partitions are {span}",
            fix="give one of them, such as --partition "
            + (f"{all_keys[-1]}, or a range first..last." if all_keys else "…"),
        )
    if all_keys.index(ends[0]) > all_keys.index(ends[1]):
        raise UsageError(f"The range {text} ends before it starts.", where=assets, fix=f"try {ends[1]}..{ends[0]}.")
    return ends


def _partition_tags(group: _Group) -> dict[str, str]:
    tags = {MISSING_ONLY_TAG: "true"} if group.missing_only else {}
    if group.first == group.last:
        return {**tags, PARTITION_NAME_TAG: group.first}
    return {**tags, ASSET_PARTITION_RANGE_START_TAG: group.first, ASSET_PARTITION_RANGE_END_TAG: group.last}


def _execute_run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: set[dg.AssetKey],
    run_id: str,
    tags: dict[str, str],
    outcome: Outcome,
    tell: Listener,
) -> None:
    job = definitions.resolve_implicit_job_def_def_for_assets(keys)
    if job is None:
        raise UsageError("These assets cannot run together.", where=", ".join(k.to_user_string() for k in sorted(keys)))
    outcome.run_ids.append(run_id)
    watcher = _Watcher(outcome, tell)
    instance.add_event_listener(run_id, watcher.see)
    result = job.execute_in_process(
        instance=instance,
        asset_selection=sorted(keys),
        run_id=run_id,
        tags=tags,
        raise_on_error=False,
        # The events themselves tell what happens; the console logger would say it all again.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    outcome.success = outcome.success and result.success
    done = {asset.asset for asset in outcome.assets}
    # Dagster calls a run whose steps were skipped a success; whoever asked for them would not.
    if result.success and (skipped := [k for k in (k.to_user_string() for k in sorted(keys)) if k not in done]):
        outcome.success = False
        outcome.failures.append(f"skipped, because what they depend on gave no result: {', '.join(skipped)}")
    if not result.success and not outcome.failures:
        outcome.failures.append("The run failed; `cascade dev` shows its log.")


class _Watcher:
    """Turns Dagster's events into an outcome, and tells of them as they come."""

    def __init__(self, outcome: Outcome, tell: Listener) -> None:
        self._outcome = outcome
        self._tell = tell
        self._started: dict[str, float] = {}
        self._seen: set[str] = set()

    def see(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        step = event.step_key or ""
        kind = event.event_type
        if kind is dg.DagsterEventType.STEP_START:
            self._started[step] = time.monotonic()
            self._tell("started", _readable(step))
        elif kind in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
            seconds = time.monotonic() - self._started.get(step, time.monotonic())
            self._outcome.seconds[_readable(step)] = round(seconds, 2)
            if kind is dg.DagsterEventType.STEP_FAILURE:
                self._fail(_readable(step), event)
        elif kind is dg.DagsterEventType.STEP_UP_FOR_RETRY:
            self._tell("retrying", _readable(step))
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized(event)
        elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event)

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        asset = materialization.asset_key.to_user_string()
        if asset in self._seen:
            return  # one event for each partition of a range
        self._seen.add(asset)
        metadata = {name: value.value for name, value in materialization.metadata.items()}
        rows = metadata.get("dagster/row_count")
        self._outcome.assets.append(AssetDone(asset, rows if isinstance(rows, int) else None, metadata))
        self._tell("materialized", f"{asset}, {rows:,} rows" if isinstance(rows, int) else asset)

    def _checked(self, event: dg.DagsterEvent) -> None:
        found = event.asset_check_evaluation_data
        passed = bool(found.passed)
        check = CheckDone(
            asset=found.asset_key.to_user_string(),
            check=found.check_name,
            passed=passed,
            blocking=bool(found.blocking) and found.severity is dg.AssetCheckSeverity.ERROR,
            description=found.description or "",
        )
        self._outcome.checks.append(check)
        word = "passed" if passed else ("failed" if check.blocking else "warned")
        self._tell(f"check {word}", f"{check.asset} {check.check}")

    def _fail(self, step: str, event: dg.DagsterEvent) -> None:
        data = event.step_failure_data
        failure = data.user_failure_data
        if failure is not None and failure.description:
            text = failure.description
        elif data.error is None:
            text = "failed"
        else:
            # The innermost cause says what went wrong; the chain above it is Dagster's.
            error = data.error
            while error.cause is not None:
                error = error.cause
            text = error.message.strip()
        self._outcome.failures.append(f"{step}: {text}")
        self._tell("failed", step)


def _readable(step: str) -> str:
    return step.replace("__", "/")
