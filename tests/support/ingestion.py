"""What the tests of ingestion share: a lakehouse to run assets in, and what they left there."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from cascade.ingestion import load_plan
from cascade.ingestion.load import LoadResult, load, loaded_partitions
from cascade.lakehouse import Lakehouse
from cascade.testing import RunResult, TemporaryLakehouse
from cascade_operations.failures import failure_text
from support.lakes import Rows, settings_in

DAY, NEXT, THIRD = "2013-07-01", "2013-07-02", "2013-07-03"


def _by_all(row: dict[str, Any]) -> list[tuple[bool, Any]]:
    """Sort by all columns, nulls last; not every engine knows ORDER BY ALL."""
    return [(value is None, str(value) if isinstance(value, dict | list) else value) for value in row.values()]


class Lake(TemporaryLakehouse):
    """A lakehouse of a test, with a look behind the scenes; on servers when the test runs on servers."""

    def __init__(self, folder: Path, *, project_dir: Path) -> None:
        super().__init__(folder, project_dir=project_dir)
        self.settings = settings_in(project_dir, data_dir=folder / "lake", branch="test")
        self.lakehouse = Lakehouse(self.settings, "test")

    def succeed(self, asset: dg.AssetsDefinition, *partitions: str, **options: Any) -> dict[str, Any]:
        """Materialize an asset, which must succeed, and return the metadata as plain values."""
        result = self.run(asset, partitions=partitions, **options)
        assert result.success, result.errors
        return self.metadata(asset)

    def fail(self, asset: dg.AssetsDefinition, *partitions: str, **options: Any) -> str:
        """Materialize an asset, which must fail, and return why."""
        result: RunResult = self.run(asset, partitions=partitions, **options)
        assert not result.success
        (error,) = result.errors
        return error

    def run_all(self, assets: Sequence[dg.AssetsDefinition], partitions: Sequence[str]) -> dict[str, str]:
        """Materialize assets in one run, and return the errors by asset."""
        self.run(*assets, partitions=partitions)
        (run,) = self._instance.get_run_records(limit=1)
        failures = self._instance.all_logs(run.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        events = [entry.dagster_event for entry in failures if entry.dagster_event]
        keys = {asset.op.name: asset.key.to_user_string() for asset in assets}
        return {keys[str(event.step_key)]: failure_text(event, self.settings.project_dir) for event in events}

    def metadata(self, asset: dg.AssetsDefinition) -> dict[str, Any]:
        """Return what the newest materialization says."""
        (record,) = self._instance.fetch_materializations(asset.key, limit=1).records
        assert record.asset_materialization is not None
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    def check(self, asset: dg.AssetsDefinition, name: str) -> dg.AssetCheckEvaluation:
        """Return what the newest evaluation of a check of an asset says, also when its step failed."""
        key = dg.AssetCheckKey(asset.key, name)
        (found,) = self._instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert found.event is not None
        assert found.event.dagster_event is not None
        return found.event.dagster_event.asset_check_evaluation_data

    def rows(self, table: str, *, order: str = "", ours: bool = False) -> Rows:
        """Return the rows of a table, sorted, without the columns that Cascade adds unless they are asked for."""
        rows = self.query(f"SELECT * FROM {table}" + (f" ORDER BY {order}" if order else ""))
        if not order:
            rows.sort(key=_by_all)
        return [{k: v for k, v in row.items() if ours or not k.startswith("_cascade_")} for row in rows]

    def snapshots(self, table: str) -> int:
        """Return how many snapshots a table has."""
        return len(self.lakehouse.table(table).snapshots())

    def loaded(self, asset: dg.AssetsDefinition, ref: str = "test") -> list[str]:
        """Return the partitions that a reference holds."""
        table = ".".join(asset.key.path)
        assert asset.partitions_def is not None
        return sorted(loaded_partitions(self.lakehouse.catalog, ref, table, asset.partitions_def))

    def load(self, asset: dg.AssetsDefinition, *keys: str, missing_only: bool = False) -> LoadResult:
        """Load without Dagster."""
        return load(load_plan(asset), self.lakehouse, keys, missing_only=missing_only, run_id="r")


class Laptop(Lake):
    """A lakehouse on this machine alone, whatever the test runs on."""

    def __init__(self, folder: Path) -> None:
        TemporaryLakehouse.__init__(self, folder, project_dir=folder)


def hours(day: str, *numbers: int) -> Rows:
    """Return rows of hours of a day."""
    start = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
    return [{"id": f"{day} {n}", "at": start + dt.timedelta(hours=n), "n": n} for n in numbers]
