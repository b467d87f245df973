"""Fixtures for the tests of users: run a workflow in a temporary lakehouse; no server, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from cascade.config import Settings, export_dotenv, find_project_dir
from cascade.framework.failures import failure_text
from cascade.lakehouse import Lakehouse
from cascade.names import BRANCH_TAG, RANGE_END_TAG, RANGE_START_TAG

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RunResult", "TemporaryLakehouse"]

_BRANCH = "test"


class TemporaryLakehouse:
    """A lakehouse in a temporary folder, and runs on it.

    Args:
        folder: Folder for its files; a test passes `tmp_path`.
        project_dir: Root of the project. By default it is found from the working folder upward.
    """

    def __init__(self, folder: Path, *, project_dir: Path | None = None) -> None:
        # Defaults, whatever the project runs on: a test must not write to servers that others use.
        self.settings = Settings(
            project_dir=project_dir or find_project_dir(), data_dir=folder / "lake", branch=_BRANCH
        )
        export_dotenv(self.settings.project_dir)
        self.lakehouse = Lakehouse(self.settings, _BRANCH)
        files = folder / "dagster"
        files.mkdir(parents=True, exist_ok=True)
        self._instance = dg.DagsterInstance.ephemeral(tempdir=str(files))

    def run(
        self,
        *assets: dg.AssetsDefinition | dg.AssetChecksDefinition,
        partitions: str | Sequence[str] | None = None,
        resources: dict[str, Any] | None = None,
    ) -> RunResult:
        """Materialize assets and run checks on the branch `test`.

        Args:
            assets: What to run.
            partitions: One partition, or the first and the last of a range.
            resources: Dagster resources that the assets need beside the lakehouse, by key.

        Returns:
            What happened; a failed run does not raise.
        """
        self.lakehouse.forget_branch()  # the branch may have been dropped since the last run
        keys = [partitions] if isinstance(partitions, str) else list(partitions or ())
        tags = {BRANCH_TAG: _BRANCH}
        if keys:
            tags |= {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}
        result = dg.materialize(
            list(assets),
            instance=self._instance,
            resources={"lakehouse": self.lakehouse, **(resources or {})},
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return RunResult(result, self._instance, self.settings.project_dir)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run one SELECT on the branch and return its rows, each as column to value."""
        rows: pa.Table = self.lakehouse.query(sql)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found


class RunResult:
    """What a run did.

    Attributes:
        success: Whether all steps and blocking checks succeeded.
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
