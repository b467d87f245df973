"""The events of a run of Dagster in the words of OpenLineage: runs, steps and models, and what they read and wrote."""

from __future__ import annotations

import datetime as dt
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any

import dagster as dg
from openlineage.client import facet_v2 as facets
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from pydantic import SecretStr

from cascade.catalog import open_catalog
from cascade.config import Settings
from cascade.errors import CascadeError
from cascade.lakehouse import branch_of_run
from cascade.names import (
    BRANCH_METADATA,
    COLUMN_LINEAGE,
    COLUMN_PREFIX,
    COLUMN_SCHEMA,
    COMMAND_TAG,
    EXTRACTED_ROWS,
    MAIN,
    PARTITION_TAG,
    PROMOTE_ASSET,
    PUBLISH_ASSET,
    RANGE_END_TAG,
    RANGE_START_TAG,
    SNAPSHOT_METADATA,
)
from cascade_openlineage import datasets
from cascade_openlineage.datasets import said
from cascade_operations.failures import failure_text

__all__ = ["job_namespace", "run_events"]

_Tables = tuple[list[InputDataset], list[OutputDataset]]
_Event = dg.DagsterEventType
_READ = {
    _Event.ASSET_MATERIALIZATION_PLANNED,
    _Event.RUN_START,
    _Event.STEP_START,
    _Event.ASSET_MATERIALIZATION,
    _Event.ASSET_CHECK_EVALUATION,
    _Event.STEP_SUCCESS,
    _Event.STEP_FAILURE,
    _Event.RUN_SUCCESS,
    _Event.RUN_FAILURE,
    _Event.RUN_CANCELED,
}
_ENDS = {
    _Event.STEP_SUCCESS: RunState.COMPLETE,
    _Event.STEP_FAILURE: RunState.FAIL,
    _Event.RUN_SUCCESS: RunState.COMPLETE,
    _Event.RUN_FAILURE: RunState.FAIL,
    _Event.RUN_CANCELED: RunState.ABORT,
}
# How Dagster marks a materialization with each asset that it read, and with the event that had written it.
_READ_TAG = "dagster/input_event_pointer/"
_VERSION = version("cascade-openlineage")
_SECRET_NAMES = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|CREDENTIAL|HOOK", re.IGNORECASE)


def job_namespace(settings: Settings) -> str:
    """Return the namespace of the project's jobs: `OPENLINEAGE_NAMESPACE`, or the name of its folder."""
    return os.environ.get("OPENLINEAGE_NAMESPACE") or settings.project_dir.name


def run_events(run: dg.DagsterRun, instance: dg.DagsterInstance, settings: Settings) -> list[RunEvent]:
    """Return the events of a run so far. Asked again later, the list begins with the same ones.

    Args:
        run: The run.
        instance: Dagster's storage, with its events.
        settings: The project's settings.
    """
    facets.set_producer(f"urn:cascade-openlineage:{_VERSION}")
    return list(_Run(run, instance, settings).events())


class _Run:
    """One run: a job of its own, and one for each step; a step that makes several tables has one more for each."""

    def __init__(self, run: dg.DagsterRun, instance: dg.DagsterInstance, settings: Settings) -> None:
        self._run, self._instance, self._settings = run, instance, settings
        self._namespace, self._branch = job_namespace(settings), branch_of_run(run, settings)
        self._planned: dict[str, set[dg.AssetKey]] = {}
        self._open: dict[str, float] = {}  # steps without an end, and when they began
        self._made: dict[str, dict[dg.AssetKey, dg.AssetMaterialization]] = {}
        self._checked: dict[str, list[dg.AssetCheckEvaluation]] = {}
        self._why = ""

    def events(self) -> Iterator[RunEvent]:
        for entry in self._instance.all_logs(self._run.run_id, of_type=_READ):
            event = entry.dagster_event
            assert event is not None  # only events of these types were asked for
            step, at = event.step_key or "", entry.timestamp
            match event.event_type:
                case _Event.ASSET_MATERIALIZATION_PLANNED:
                    assert event.asset_key is not None
                    self._planned.setdefault(step, set()).add(event.asset_key)
                case _Event.ASSET_MATERIALIZATION:
                    self._add(step, event.step_materialization_data.materialization)
                case _Event.ASSET_CHECK_EVALUATION:
                    self._checked.setdefault(step, []).append(event.asset_check_evaluation_data)
                case _Event.RUN_START:
                    yield self._told(RunState.START, at)
                case _Event.STEP_START:
                    if step not in self._open:  # a repetition
                        self._open[step] = at
                        yield self._told(RunState.START, at, step)
                case _Event.STEP_SUCCESS | _Event.STEP_FAILURE:
                    why = ""
                    if event.event_type is _Event.STEP_FAILURE:
                        why = self._masked(failure_text(event, self._settings.project_dir))
                        self._why = self._why or why
                    yield from self._ended(step, _ENDS[event.event_type], at, why)
                case end:
                    assert end is not None
                    for left in list(self._open):  # its process has gone
                        yield from self._ended(left, RunState.ABORT, at, "")
                    why = self._why or self._masked(event.message or "")
                    yield self._told(_ENDS[end], at, why=why if end is _Event.RUN_FAILURE else "")

    def _add(self, step: str, made: dg.AssetMaterialization) -> None:
        """Keep what a step says of an asset; with partitions it says so in several events."""
        known = self._made.setdefault(step, {}).get(made.asset_key)
        if known is not None:
            made = made.with_metadata({**known.metadata, **made.metadata})
        self._made[step][made.asset_key] = made

    def _ended(self, step: str, state: RunState, at: float, why: str) -> Iterator[RunEvent]:
        began, made = self._open.pop(step, at), self._made.pop(step, {})
        inputs: list[InputDataset] = []
        outputs: list[OutputDataset] = []
        for key, one in made.items():
            read, wrote = self._tables(key, one)
            if len(self._planned.get(step, ())) > 1:
                yield self._told(RunState.START, began, step, key)
                yield self._told(RunState.COMPLETE, at, step, key, inputs=read, outputs=wrote)
            else:
                inputs, outputs = [*inputs, *read], [*outputs, *wrote]
        written = {one.name for one in outputs}  # what it wrote itself is no input, though it may be checked
        checked = [one for one in self._checks(step) if one.name not in written]
        yield self._told(state, at, step, inputs=[*inputs, *checked], outputs=outputs, why=why)

    def _tables(
        self, key: dg.AssetKey, made: dg.AssetMaterialization
    ) -> tuple[list[InputDataset], list[OutputDataset]]:
        """Return what a materialization read and wrote."""
        table, metadata, settings = ".".join(key.path), made.metadata, self._settings
        if key.path == [*PUBLISH_ASSET]:
            return self._published(metadata)
        if SNAPSHOT_METADATA not in metadata:
            return [], []
        read: dict[str, tuple[InputDataset, list[str]]] = {}
        for tag, pointer in (made.tags or {}).items():
            if tag.startswith(_READ_TAG):
                name = tag.removeprefix(_READ_TAG).replace("/", ".")
                read[name] = self._read(name, pointer)
        lineage: dict[str, list[tuple[InputDataset, str]]] = {}
        told = said(metadata, COLUMN_LINEAGE)
        for column, deps in told.deps_by_column.items() if told else ():
            for dep in deps:
                name = ".".join(dep.asset_key.path)
                read.setdefault(name, self._read(name))
            lineage[column] = [(read[".".join(dep.asset_key.path)][0], dep.column_name) for dep in deps]
        inputs = [dataset for dataset, _ in read.values()]
        if EXTRACTED_ROWS in metadata:
            source = datasets.source_input(self._namespace, table, metadata)
            own = [one for one in _columns(metadata) if not one.startswith(COLUMN_PREFIX)]
            lineage, inputs = {one: [(source, one)] for one in own}, [source, *inputs]
        return inputs, [datasets.table_output(settings, table, metadata, lineage)]

    def _published(self, metadata: datasets.Metadata) -> _Tables:
        found: _Tables = ([], [])
        for mart, rows in said(metadata, "rows").items():
            read, columns = self._read(mart)
            found[0].append(read)
            found[1].append(datasets.mart_output(said(metadata, "location"), mart, read, columns, rows))
        return found

    def _read(self, table: str, pointer: str = "") -> tuple[InputDataset, list[str]]:
        """Return a table that was read, and its columns: as said when it was written, by default the last time."""
        key = dg.AssetKey(table.split("."))
        chosen = dg.AssetRecordsFilter(key, storage_ids=[int(pointer)] if pointer else None)
        found = self._instance.fetch_materializations(chosen, limit=1).records
        made = found[0].asset_materialization if found else None
        metadata = made.metadata if made else {}
        snapshot = self._seen(table, metadata)
        return datasets.table_input(self._settings, table, metadata, snapshot=snapshot), _columns(metadata)

    def _seen(self, table: str, metadata: datasets.Metadata) -> str:
        """Return the snapshot that was written, if the run could read it: on its own branch, or once promoted."""
        if SNAPSHOT_METADATA not in metadata:
            return ""
        snapshot, own = said(metadata, SNAPSHOT_METADATA), said(metadata, BRANCH_METADATA) == self._branch
        return snapshot if own or snapshot in self._promoted(table) else ""

    def _promoted(self, table: str) -> set[str]:
        if table not in self._history:
            catalog, at = self._main
            snapshots = catalog.load(table, at[table]).snapshots() if table in at else []
            self._history[table] = {str(snapshot.snapshot_id) for snapshot in snapshots}
        return self._history[table]

    @cached_property
    def _history(self) -> dict[str, set[str]]:
        return {}

    @cached_property
    def _main(self) -> tuple[Any, Mapping[str, str]]:
        try:
            catalog = open_catalog(self._settings)
            return catalog, catalog.pointers(MAIN)
        except CascadeError:  # without the catalog the version of some inputs is not told
            return None, {}

    def _checks(self, step: str) -> list[InputDataset]:
        """Return the tables that a step checked, with the results."""
        results: dict[str, list[facets.data_quality_assertions_dataset.Assertion]] = {}
        for check in self._checked.pop(step, []):
            if check.asset_key.path[0] != PROMOTE_ASSET[0]:
                severity = "error" if check.severity is dg.AssetCheckSeverity.ERROR else "warn"
                one = facets.data_quality_assertions_dataset.Assertion(
                    check.check_name, bool(check.passed), severity=severity, name=check.check_name
                )
                results.setdefault(".".join(check.asset_key.path), []).append(one)
        facet = facets.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet
        return [
            InputDataset(
                *datasets.table_name(self._settings, table), inputFacets={"dataQualityAssertions": facet(assertions)}
            )
            for table, assertions in results.items()
        ]

    def _told(
        self,
        state: RunState,
        at: float,
        step: str = "",
        key: dg.AssetKey | None = None,
        *,
        inputs: list[InputDataset] | None = None,
        outputs: list[OutputDataset] | None = None,
        why: str = "",
    ) -> RunEvent:
        """Return one event: of the run, of a step, or of one of several assets of a step."""
        levels = [(self._run.job_name, "JOB"), *([(self._step_name(step), "TASK")] if step else [])]
        levels += [(".".join(key.path), "MODEL")] if key else []
        ids = [self._run.run_id, self._id(step), self._id(f"{step} {key.to_user_string()}" if key else "")]
        engine = facets.processing_engine_run.ProcessingEngineRunFacet(dg.__version__, "Dagster", _VERSION)
        about: dict[str, facets.RunFacet] = {"processing_engine": engine, "tags": self._tags()}
        if len(levels) > 1:
            parent = facets.parent_run
            root = parent.Root(parent.RootRun(ids[0]), parent.RootJob(self._namespace, levels[0][0]))
            above = parent.Job(self._namespace, levels[-2][0])
            about["parent"] = parent.ParentRunFacet(parent.Run(ids[len(levels) - 2]), above, root)
        if why:
            about["errorMessage"] = facets.error_message_run.ErrorMessageRunFacet(why, "PYTHON")
        kind = facets.job_type_job.JobTypeJobFacet("BATCH", "CASCADE", levels[-1][1])
        return RunEvent(
            eventTime=dt.datetime.fromtimestamp(at, dt.UTC).isoformat(),
            eventType=state,
            run=Run(ids[len(levels) - 1], facets=about),
            job=Job(self._namespace, levels[-1][0], facets={"jobType": kind}),
            inputs=inputs or [],
            outputs=outputs or [],
        )

    def _step_name(self, step: str) -> str:
        """Name the job of a step: as its table, whatever job of Dagster runs it, or else below that job."""
        keys = self._planned.get(step, set())
        return ".".join(next(iter(keys)).path) if len(keys) == 1 else f"{self._run.job_name}.{step}"

    def _id(self, name: str) -> str:
        return str(uuid.uuid5(uuid.UUID(self._run.run_id), name))

    def _tags(self) -> facets.tags_run.TagsRunFacet:
        tags = self._run.tags
        found = {
            "branch": self._branch,
            "command": tags.get(COMMAND_TAG),
            "partition": tags.get(PARTITION_TAG),
            "first_partition": tags.get(RANGE_START_TAG),
            "last_partition": tags.get(RANGE_END_TAG),
        }
        fields = [facets.tags_run.TagsRunFacetFields(key, value, "CASCADE") for key, value in found.items() if value]
        return facets.tags_run.TagsRunFacet(fields)

    def _masked(self, text: str) -> str:
        """Take out of an error what the settings and the environment hold as secrets, and passwords in addresses."""
        settings = [value for value in vars(self._settings).values() if isinstance(value, SecretStr)]
        known = {secret.get_secret_value() for secret in settings}
        known |= {value for name, value in os.environ.items() if _SECRET_NAMES.search(name)}
        for secret in sorted(known, key=len, reverse=True):
            if len(secret) > 5:
                text = text.replace(secret, "***")
        return re.sub(r"(?<=://)[^/\s@]+@", "***@", text)


def _columns(metadata: datasets.Metadata) -> list[str]:
    schema = said(metadata, COLUMN_SCHEMA)
    return [column.name for column in schema.columns] if schema else []
