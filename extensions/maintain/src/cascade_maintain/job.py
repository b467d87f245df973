"""The job `cascade_maintenance` and its schedule: what `cascade maintain` does, for a lakehouse that runs by itself."""

import dagster as dg

from cascade.config import Settings
from cascade.errors import count
from cascade_maintain import BRANCHES_OLDER_THAN, FILES_OLDER_THAN, KEEP_HISTORY, parse_age
from cascade_maintain.maintenance import drop_branches, remove_files

__all__ = ["build_maintenance"]


class Ages(dg.Config):
    """How long things stay; see `cascade maintain`.

    Attributes:
        branches: Branches of runs that ended.
        files: Files that nothing needs.
        history: What the log can restore.
    """

    branches: str = BRANCHES_OLDER_THAN
    files: str = FILES_OLDER_THAN
    history: str = KEEP_HISTORY


def build_maintenance(settings: Settings) -> dg.ScheduleDefinition:
    """Make the job that drops old branches and then removes old files, and its nightly schedule.

    Args:
        settings: The project's settings; `nightly_maintenance` says whether the schedule is on from the start.
    """

    @dg.op(
        name="maintain",
        required_resource_keys={"lakehouse"},
        description="Drops branches of runs that ended long ago, then removes files that nothing needs.",
    )
    def maintain(context: dg.OpExecutionContext, config: Ages) -> None:
        cleaned = drop_branches(settings, older_than=parse_age(config.branches), instance=context.instance)
        for name, why in cleaned.removed.items():
            context.log.info(f"Deleted branch {name}: {why}")
        done = remove_files(
            settings,
            older_than=parse_age(config.files),
            keep_history=parse_age(config.history),
            instance=context.instance,
            run_id=context.run_id,
        )
        context.log.info(
            f"Removed {count(len(done.removed), 'file')}, {done.bytes / 1e6:,.1f} MB; {done.needed:,} are needed"
        )
        failed = [f"{path}: {problem}" for path, problem in done.failed.items()]
        if problems := [*cleaned.problems, *failed]:
            raise dg.Failure(f"{count(len(problems), 'problem')}, such as {problems[0]}", allow_retries=False)

    @dg.job(name="cascade_maintenance", description="Keeps the lakehouse from growing for ever.")
    def cascade_maintenance() -> None:
        maintain()

    return dg.ScheduleDefinition(
        name="cascade_maintenance_schedule",
        job=cascade_maintenance,
        cron_schedule="17 3 * * *",
        execution_timezone=settings.timezone,
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if settings.nightly_maintenance else dg.DefaultScheduleStatus.STOPPED
        ),
    )
