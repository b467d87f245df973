"""The runs of one command in Dagster, in this process: several when partitions or a failure ask for it."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import dagster as dg

from cascade._dagster import compute_logs
from cascade.framework.definitions import downstream, note_problems
from cascade.lakehouse import Lakehouse
from cascade.names import FULL_REFRESH_TAG
from cascade.publish import PUBLISH_KEY
from cascade.publish.marts import publish_marts
from cascade_operations.events import AssetUpToDate, LeftOut, Planned, Waiting
from cascade_operations.plan import describe
from cascade_operations.resume import put_back, upstream_of
from cascade_operations.selection import PartitionGroup
from cascade_operations.timeline import on_timeline
from cascade_operations.watch import Watcher
from cascade_operations.work import ENDS, Work, after_first, find_work, runs_of

__all__ = ["Launch", "is_written"]


@contextlib.contextmanager
def _own_helpers() -> Iterator[None]:
    """Keep Ctrl+C of the terminal from the processes that Dagster copies logs with: they would print tracebacks."""
    detached = SimpleNamespace(Popen=partial(subprocess.Popen, start_new_session=True))
    setattr(compute_logs, "subprocess", detached)  # noqa: B010  # the module's own `import subprocess`
    try:
        yield
    finally:
        setattr(compute_logs, "subprocess", subprocess)  # noqa: B010


def is_written(lakehouse: Lakehouse) -> bool:
    """Say whether a run has written on its branch."""
    return lakehouse.ref == lakehouse.branch and bool(lakehouse.catalog.changes(lakehouse.branch))


@dataclass
class Launch:
    """Runs of one command: several when assets have partitions of several kinds, or one of them fails.

    Attributes:
        named: Assets that are computed in any case, while others are left out when nothing has changed; `None` computes
            all.
        show_plan: Whether the listener gets the plan first.
        resumed: Whether the branch is one that a failed run has left.
        stopped: Assets that failed, and those of which a blocking check has failed.
    """

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    lakehouse: Lakehouse
    watcher: Watcher
    named: set[dg.AssetKey] | None = None
    show_plan: bool = False
    resumed: bool = False
    stopped: set[dg.AssetKey] = field(default_factory=set)

    def execute(self, chosen: set[dg.AssetKey], partition: str | None, run_id: str, tags: Mapping[str, str]) -> None:
        """Find out what has to be done, tell it, and do it; what came of it is in the watcher.

        Args:
            chosen: The assets.
            partition: As for `run_pipeline`.
            run_id: Id of the first run in Dagster.
            tags: Tags of all of them.
        """
        watcher, graph = self.watcher, self.definitions.resolve_asset_graph()
        places: dict[str, Any] = {"instance": self.instance, "lakehouse": self.lakehouse}
        work = find_work(graph, chosen, partition, self.named, **places, resumed=self.resumed)
        if self.show_plan:
            refresh = FULL_REFRESH_TAG in tags
            plan = describe(self.definitions, work, self.named or (), full_refresh=refresh, **places)
            watcher.tell(Planned(plan))
        if self.resumed:
            put_back(graph, work.rest, catalog=self.lakehouse.catalog, branch=self.lakehouse.branch)
        watcher.up_to_date = sorted(key.to_user_string() for key in work.idle)
        for asset in watcher.up_to_date:
            watcher.tell(AssetUpToDate(asset))
        watcher.always = {key.to_user_string(): why for key, why in work.unchanged.always.items()}
        self._leave_out(work)
        if work.first:
            self._await_engine()
            self._compute(work.first, run_id, dict(tags))
            work = after_first(work, self.named or (), lakehouse=self.lakehouse)
            run_id = str(uuid.uuid4())
            self._leave_out(work)
        self._execute_rest(work, run_id, tags)
        if not watcher.success:
            note_problems(self.instance, self.definitions)

    def _leave_out(self, work: Work) -> None:
        """Tell of the assets that are left out and that nobody has told of."""
        since = {key.to_user_string(): since for key, since in work.unchanged.since.items()}
        further = {key: since[key] for key in since.keys() - self.watcher.left_out.keys()}
        self.watcher.left_out = since
        if further:
            self.watcher.tell(LeftOut(further))

    def _await_engine(self) -> None:
        self.lakehouse.engine.await_ready(self.lakehouse.settings, lambda what: self.watcher.tell(Waiting(what)))

    def _execute_rest(self, work: Work, run_id: str, tags: Mapping[str, str]) -> None:
        watcher, groups, rest = self.watcher, work.groups, work.rest
        if watcher.success and not groups and rest <= ENDS and not is_written(self.lakehouse):
            # There is nothing to promote: a run would only tell that nothing was done.
            if PUBLISH_KEY in rest:
                watcher.published = publish_marts(self.lakehouse.catalog, self.lakehouse.settings)
            return
        self._await_engine()
        for keys, group in runs_of(self.definitions.resolve_asset_graph(), work):
            self._compute(keys, run_id, {**tags, **(group.tags() if group else {})}, group)
            run_id = str(uuid.uuid4())

    def _compute(
        self, keys: set[dg.AssetKey], run_id: str, tags: dict[str, str], group: PartitionGroup | None = None
    ) -> None:
        """Run assets, and once more those that a failure has kept from beginning and that do not depend on it.

        A step of many assets, as dbt's, waits for all that any of them reads.
        """
        waiting, before = keys, set[dg.AssetKey]()
        while (possible := self._possible(waiting)) and possible != before:
            if group is not None:
                loaded = possible.intersection(group.assets)
                self.watcher.partitions.update({key.to_user_string(): group.span for key in loaded})
            waiting, before = self._run(possible, run_id, tags), possible
            run_id = str(uuid.uuid4())

    def _possible(self, keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
        """Return those that a failure leaves to be computed: it stops what depends on it, and the promotion."""
        if self.watcher.success:
            return keys
        return keys - ENDS - downstream(self.stopped, upstream_of(self.definitions.resolve_asset_graph()))

    def _run(self, keys: set[dg.AssetKey], run_id: str, tags: dict[str, str]) -> set[dg.AssetKey]:
        """Run assets, and return those whose step did not begin."""
        job = self.definitions.resolve_implicit_job_def_def_for_assets(keys)
        assert job is not None  # Dagster keeps one for all assets
        watcher = self.watcher
        watcher.run_ids.append(run_id)
        self.instance.add_event_listener(run_id, watcher.see)
        try:
            workspace = self.lakehouse.settings.project_dir / "workspace.yaml"
            place = on_timeline(self.instance, workspace, self.definitions.get_repository_def().name, job.name)
            with _own_helpers(), place, watcher.listening():
                result = job.execute_in_process(
                    instance=self.instance,
                    asset_selection=sorted(keys),
                    run_id=run_id,
                    tags=tags,
                    raise_on_error=False,
                    # The events themselves tell what happens; the console logger would say it all again.
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
        except BaseException:
            with contextlib.suppress(Exception):  # the storage may be what has failed
                run = self.instance.get_run_by_id(run_id)
                if run is not None and not run.is_finished:
                    self.instance.report_run_failed(run, "The process that executed this run could not go on.")
            raise
        if watcher.interrupted:
            raise KeyboardInterrupt
        watcher.success = watcher.success and result.success
        done = {done.asset for done in watcher.assets}
        missing = {key for key in keys if key.to_user_string() not in done}
        # Dagster calls a run whose steps were skipped a success; a caller who asked for them does not.
        if result.success and missing:
            watcher.success = False
            names = ", ".join(sorted(key.to_user_string() for key in missing))
            watcher.failures.append(f"skipped, because what they depend on gave no result: {names}")
        if not result.success and not watcher.failures:
            watcher.failures.append("The run failed; its log says why.")
        begun = {event.step_key for event in result.all_events if event.is_step_start}
        graph = self.definitions.resolve_asset_graph()
        waiting = {key for key in missing if graph.get(key).assets_def.node_def.name not in begun}
        refused = {check.asset for check in watcher.checks if check.blocking and not check.passed}
        self.stopped |= {key for key in keys - waiting if key in missing or key.to_user_string() in refused}
        return waiting
