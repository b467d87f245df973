"""A lakehouse for one test: given rows, run workflows and models, promote, look; no server, no network."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import functools
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg

from cascade.catalog import LogEntry
from cascade.config import Settings, export_dotenv, find_project_dir
from cascade.errors import DefinitionError, UsageError
from cascade.ingestion.partitions import dimensions_of, parts_of
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_TAG, COLUMN_PREFIX, EMPTY_TAG, RANGE_END_TAG, RANGE_START_TAG
from cascade_operations.failures import failure_text

if TYPE_CHECKING:
    import pyarrow as pa

    from cascade.ingestion.options import Options

__all__ = ["RunResult", "TemporaryLakehouse", "fresh_lakehouse"]

_BRANCH = "test"
_GIVEN = "given"


class TemporaryLakehouse:
    """A lakehouse in a temporary folder, and runs on it; the fixture `lakehouse` is one.

    Args:
        folder: Folder for its files; a test without the fixture passes `tmp_path`.
        project_dir: Root of the project. By default it is found from the working folder upward.
    """

    def __init__(self, folder: Path, *, project_dir: Path | None = None) -> None:
        # Defaults, whatever the project runs on: a test must not write to servers that others use.
        self.settings = _settings(project_dir or find_project_dir(), folder / "lake")
        export_dotenv(self.settings.project_dir)
        self.lakehouse = Lakehouse(self.settings, _BRANCH)
        files = folder / "dagster"
        files.mkdir(parents=True, exist_ok=True)
        self._instance = dg.DagsterInstance.ephemeral(tempdir=str(files))
        self._last: RunResult | None = None

    def given(self, table: str, rows: Any) -> None:
        """Put rows into a table, in place of those that it has, on `main` and on the branch of the runs.

        A table of a workflow gets the workflow's columns, and the rows must keep its contract. The columns of other
        tables, such as those of models, come from the rows.

        Args:
            table: `namespace.table`.
            rows: In any form that a function of `@cascade_ingestion` may return, such as a list of dicts. A table of a
                workflow with a contract may have none.

        Raises:
            AssertionError: The rows cannot be put there; it says why.
        """
        from cascade.ingestion import cascade_ingestion, none

        namespace, _, name = table.rpartition(".")
        workflow = self._workflows.get(table)
        options = _options(workflow) if workflow else None
        columns = ("validation_schema", "iceberg_schema", "partition_spec", "schema_policy")

        @cascade_ingestion(
            table_name=name,
            namespace=namespace,
            partitions=none(),
            write="append",
            max_retries=0,
            **{column: getattr(options, column) for column in columns if options},
        )
        def given_rows() -> Any:
            return rows

        catalog = self.lakehouse.catalog
        side = Lakehouse(self.settings, _GIVEN)
        side.ensure_branch()
        try:
            tables = catalog.open(_GIVEN)
            if tables.table_exists(table):
                tables.drop_table(table)
            result = self._materialize([given_rows], side)
            _require(result.success, f"{table} cannot be given these rows: {'; '.join(result.errors)}")
            fields = tables.load_table(table).schema().fields
            ours = [field.name for field in fields if field.name.startswith(COLUMN_PREFIX)]
            _require(len(fields) > len(ours), f"{table} needs rows: no workflow says which columns it has.")
            empty = _names(rows) - {field.name for field in fields}
            _require(
                workflow or not empty,
                f"No row has a value in {', '.join(sorted(empty))} of {table}, which says no type: give one, or Arrow.",
            )
            if not workflow:
                with tables.load_table(table).update_schema() as change:
                    for name in ours:
                        change.delete_column(name)
            location = catalog.pointers(_GIVEN)[table]
            catalog.merge(_GIVEN)
        finally:
            catalog.delete(_GIVEN)
        if catalog.exists(_BRANCH):
            tables = catalog.open(_BRANCH)
            tables.create_namespace_if_not_exists(namespace)
            if tables.table_exists(table):
                tables.drop_table(table)
            tables.register_table(table, location)

    def run(
        self,
        *assets: dg.AssetsDefinition | dg.AssetChecksDefinition | str,
        partitions: str | Sequence[str] | None = None,
        resources: dict[str, Any] | None = None,
        checks: bool = True,
    ) -> RunResult:
        """Materialize assets and run checks on the branch `test`, which begins as a copy of `main`.

        Args:
            assets: What to run: definitions, or names of assets of the project, which run with all their checks:
                `gold.weather_daily`, `+gold.weather_daily` with what it depends on, `silver.weather_hourly+` with
                what depends on it.
            partitions: One partition, or the first and the last of a range.
            resources: Dagster resources that the assets need beside the lakehouse, by key.
            checks: Whether the checks of assets that are given by name run, too; some read tables that a test of one
                model does not have.

        Returns:
            What happened; a failed run does not raise.

        Raises:
            UsageError: The project has no asset of a name.
            DefinitionError: Something of the project cannot be used.
        """
        names = [asset for asset in assets if isinstance(asset, str)]
        given = [asset for asset in assets if not isinstance(asset, str)]
        if names:
            from cascade_operations.selection import select_assets

            if given:
                raise UsageError(
                    "A run takes definitions, or names of assets, not both.", fix="run them one after the other."
                )
            chosen = dg.AssetSelection.assets(*select_assets(self.definitions, names))
            return self._run_project(chosen if checks else chosen.without_checks(), partitions, resources)
        checks_only = [one for one in given if isinstance(one, dg.AssetChecksDefinition)]
        only = dg.AssetSelection.checks(*checks_only) if len(checks_only) == len(given) else None  # of given rows
        return self._materialize(given, self.lakehouse, partitions=partitions, resources=resources, chosen=only)

    def run_pipeline(self, *, partitions: str | Sequence[str] | None = None) -> RunResult:
        """Run everything that the project has, with all checks, and promote it if they passed.

        Args:
            partitions: One partition, or the first and the last of a range, of what has partitions.

        Returns:
            What happened. A failed run and a refused promotion do not raise: `success` is false, and `errors` says why.

        Raises:
            DefinitionError: Something of the project cannot be used.
        """
        from cascade.errors import PromotionRefusedError
        from cascade.publish import PROMOTE_KEY, PUBLISH_KEY

        everything = set(self.definitions.resolve_asset_graph().executable_asset_keys)
        chosen = dg.AssetSelection.assets(*(everything - {PROMOTE_KEY, PUBLISH_KEY}))
        result = self._run_project(chosen, partitions)
        if result.success:
            try:
                self.promote()
            except PromotionRefusedError as error:
                result.success = False
                result.errors.append(str(error))
        return result

    def promote(self) -> LogEntry | None:
        """Move `main` to what the runs wrote, if all blocking checks passed on it, and publish the marts.

        Returns:
            The entry of the log; `None` when there was nothing to promote.

        Raises:
            PromotionRefusedError: A check has failed or has not run; all of them are named.
        """
        from cascade.framework.definitions import guards_of
        from cascade.publish import promote_branch
        from cascade.publish.marts import publish_marts

        catalog = self.lakehouse.catalog
        entry = promote_branch(catalog, _BRANCH, self._instance, guards_of(self.definitions))
        publish_marts(catalog, self.settings)
        if catalog.exists(_BRANCH):
            catalog.delete(_BRANCH)
        self.lakehouse.forget_branch()
        return entry

    def make_empty(self, tables: Collection[dg.AssetKey]) -> None:
        """Make tables without rows: those of workflows with a contract, and those of models.

        Args:
            tables: Of these, what the project can make.

        Raises:
            AssertionError: One of them cannot be made; it says why.
        """
        from cascade_operations.run import emptied

        for table, workflow in self._workflows.items():
            if workflow.key in tables and _options(workflow).validation_schema:
                self.given(table, [])
        models = emptied(self.definitions) & set(tables)
        if models:
            result = self._run_project(dg.AssetSelection.assets(*models), tags={EMPTY_TAG: "true"})
            _require(result.success, "\n".join(result.errors))

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run one SELECT on the branch, or on `main` after a promotion, and return its rows as column to value."""
        rows: pa.Table = self.lakehouse.query(sql)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def assert_table(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Compare all rows of a table with the expected ones, in any order, in the columns that these name.

        Args:
            table: `namespace.table`.
            rows: As column to value. `"2013-07-01"` is a date where the column is one; of floating-point numbers nine
                digits count.

        Raises:
            AssertionError: They differ; each row that is missing or not expected is named.
        """
        from cascade.duck.sql import identifier
        from cascade_testing.compare import difference

        __tracebackhide__ = True
        tables = self.lakehouse.tables()
        _require(table in tables, f"There is no table {table}; there are: {', '.join(tables) or 'none'}.")
        found = self.lakehouse.query(f"SELECT * FROM {'.'.join(map(identifier, table.split('.')))}")
        said = difference(found, rows)
        _require(not said, f"{table} has not the rows that are expected:\n{said}")

    def assert_check(self, table: str, check: str, *, passed: bool = True) -> None:
        """Look whether a check of the last run passed, or failed.

        Args:
            table: `namespace.table`.
            check: The name of the check.
            passed: Whether it is to have passed.

        Raises:
            AssertionError: The check has not run, or has another result.
        """
        __tracebackhide__ = True
        checks = self._last.checks if self._last else {}
        name = f"{table.replace('.', '/')} {check}"
        _require(name in checks, f"The last run had no check {name!r}; it had: {', '.join(sorted(checks)) or 'none'}.")
        _require(checks[name] == passed, f"The check {name!r} {'passed' if checks[name] else 'failed'}.")

    @contextlib.contextmanager
    def at(self, moment: str | dt.datetime) -> Iterator[None]:
        """Let time stand still in the block: which partitions there are, how old the data is, what is now.

        The clocks of SQL engines and of dbt go on.

        Args:
            moment: A date and a time; in UTC, unless it says another zone.
        """
        import time_machine

        now = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        with time_machine.travel(now if now.tzinfo else now.replace(tzinfo=dt.UTC), tick=False):
            yield

    @property
    def definitions(self) -> dg.Definitions:
        """The definitions of the project, made once for all tests.

        Raises:
            DefinitionError: Something of it cannot be used; all of it is named.
        """
        return _definitions(self.settings.project_dir, self.settings.data_path)

    @property
    def _workflows(self) -> dict[str, dg.AssetsDefinition]:
        return _workflows(self.settings.project_dir, self.settings.data_path)

    def _run_project(
        self,
        chosen: dg.AssetSelection,
        partitions: str | Sequence[str] | None = None,
        resources: Mapping[str, Any] | None = None,
        *,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> RunResult:
        everything = [*(self.definitions.assets or ()), *(self.definitions.asset_checks or ())]
        more = {**(self.definitions.resources or {}), **(resources or {})}
        return self._materialize(
            everything, self.lakehouse, partitions=partitions, resources=more, chosen=chosen, tags=tags
        )

    def _materialize(
        self,
        assets: Sequence[Any],
        lakehouse: Lakehouse,
        *,
        partitions: str | Sequence[str] | None = None,
        resources: Mapping[str, Any] | None = None,
        chosen: dg.AssetSelection | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> RunResult:
        self.lakehouse.forget_branch()  # the branch may have been dropped since the last run
        spans = [partitions] if isinstance(partitions, str) else list(partitions or ())
        tags = {**tags, BRANCH_TAG: lakehouse.branch}
        if spans:
            tags |= {RANGE_START_TAG: spans[0], RANGE_END_TAG: spans[-1]}
        self._know_keys(assets, spans)
        result = dg.materialize(
            list(assets),
            instance=self._instance,
            resources={**(resources or {}), "lakehouse": lakehouse},
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            selection=chosen,
        )
        self._last = RunResult(result, self._instance, self.settings.project_dir)
        return self._last

    def _know_keys(self, assets: Sequence[Any], keys: Sequence[str]) -> None:
        """Add the dynamic keys that a test names: its storage is a new one."""
        definitions = {spec.partitions_def for a in assets if isinstance(a, dg.AssetsDefinition) for spec in a.specs}
        for definition in filter(None, definitions):
            for key in keys:
                for dimension, part in zip(dimensions_of(definition), parts_of(definition, key), strict=False):
                    if isinstance(dimension, dg.DynamicPartitionsDefinition) and dimension.name:
                        self._instance.add_dynamic_partitions(dimension.name, [part])


class RunResult:
    """What a run did.

    Attributes:
        success: Whether all steps and blocking checks succeeded, and the promotion of a pipeline.
        checks: Whether each check passed, by `namespace/table check`.
        errors: One message for each step that failed.
    """

    def __init__(self, result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance, root: Path) -> None:
        self.success = result.success
        # From the log: it also has the checks of a step that failed afterwards.
        logged = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        evaluations = [e.dagster_event.asset_check_evaluation_data for e in logged if e.dagster_event is not None]
        self.checks = {f"{e.asset_key.to_user_string()} {e.check_name}": e.passed for e in evaluations}
        self.errors = [failure_text(event, root) for event in result.all_events if event.is_step_failure]


def fresh_lakehouse() -> TemporaryLakehouse:
    """Return an empty lakehouse in the one folder of this process: what dbt parsed there serves all tests."""
    folder = _folder()
    for path in (folder / "lake").glob("*"):
        if path.name != "dbt":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return TemporaryLakehouse(folder)


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="cascade-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _require(holds: object, otherwise: str) -> None:
    """Fail a test with a sentence, not with a line of this module."""
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(otherwise)


def _settings(project_dir: Path, data_dir: Path) -> Settings:
    return Settings(project_dir=project_dir, data_dir=data_dir, branch=_BRANCH)


@functools.cache
def _workflows(project_dir: Path, data_dir: Path) -> dict[str, dg.AssetsDefinition]:
    """Return the ingestion assets of the project's workflow files, by table; dbt is not asked for its models."""
    from cascade.config import use_settings
    from cascade.framework.discovery import collect, discover
    from cascade_operations.instead import ingestions_of

    settings = _settings(project_dir, data_dir)
    with use_settings(settings):
        return ingestions_of(collect(discover(settings.workflows_path).items))


def _names(rows: Any) -> set[str]:
    """Return the columns that rows name, where they are dicts."""
    from cascade.ingestion.text import snake_case

    given = rows if isinstance(rows, list) else []
    return {snake_case(name) for row in given if isinstance(row, Mapping) for name in row}


def _options(workflow: dg.AssetsDefinition) -> Options:
    from cascade.ingestion import load_plan

    return load_plan(workflow, dict.fromkeys(workflow.required_resource_keys)).options


@functools.cache
def _definitions(project_dir: Path, data_dir: Path) -> dg.Definitions:
    from cascade.framework.definitions import build_definitions, problems_of
    from cascade_testing.warm import warm_dbt

    warm_dbt()
    definitions = build_definitions(_settings(project_dir, data_dir))
    if broken := problems_of(definitions).broken:
        raise DefinitionError(
            "These cannot be used:\n" + "\n".join(f"    {what}" for what in broken), fix="correct them."
        )
    return definitions
