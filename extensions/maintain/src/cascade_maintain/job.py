"""The job `cascade_maintenance` and its schedule: what `cascade maintain` does, for a lakehouse that runs by itself."""

import dagster as dg

from cascade.config import Settings
from cascade.errors import count
from cascade_maintain import parse_age
from cascade_maintain.maintenance import maintain_all
from cascade_maintain.settings import of

__all__ = ["build_maintenance"]


class Ages(dg.Config):
    """How long things stay, such as `7d`; what is empty is as the settings of `maintain` say.

    Attributes:
        branches: Branches of runs that ended.
        files: Files that nothing needs.
        history: What the log can restore.
    """

    branches: str = ""
    files: str = ""
    history: str = ""


def build_maintenance(settings: Settings) -> dg.ScheduleDefinition:
    """Make the job that takes all steps of maintenance, and its nightly schedule.

    Args:
        settings: The project's settings; `maintain.nightly` says whether the schedule is on from the start.
    """
    own = of(settings)

    @dg.op(
        name="maintain",
        required_resource_keys={"lakehouse"},
        description="Drops branches of runs that ended long ago, compacts tables, lets old snapshots leave, removes "
        "files that nothing needs.",
    )
    def maintain(context: dg.OpExecutionContext, config: Ages) -> None:
        done = maintain_all(
            settings,
            branches_older_than=parse_age(config.branches or own.branches_older_than),
            files_older_than=parse_age(config.files or own.files_older_than),
            keep_history=parse_age(config.history or own.keep_history),
            instance=context.instance,
            run_id=context.run_id,
        )
        for name, why in done.branches.removed.items():
            context.log.info(f"Deleted branch {name}: {why}")
        for table in done.compaction.compacted:
            context.log.info(f"Compacted {table.table}: {count(table.files, 'file')} to {table.new_files:,}")
        for expired in done.expiry.expired:
            context.log.info(f"Let {count(expired.snapshots, 'snapshot')} of {expired.table} leave")
        files = done.files
        context.log.info(
            f"Removed {count(len(files.removed), 'file')}, {files.bytes / 1e6:,.1f} MB; {files.needed:,} are needed"
        )
        problems = [*done.branches.problems]
        problems += [
            f"{what}: {why}" for part in (done.compaction.problems, files.failed) for what, why in part.items()
        ]
        if problems:
            raise dg.Failure(f"{count(len(problems), 'problem')}, such as {problems[0]}", allow_retries=False)

    @dg.job(name="cascade_maintenance", description="Keeps the lakehouse from growing for ever.")
    def cascade_maintenance() -> None:
        maintain()

    return dg.ScheduleDefinition(
        name="cascade_maintenance_schedule",
        job=cascade_maintenance,
        cron_schedule="17 3 * * *",
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if own.nightly else dg.DefaultScheduleStatus.STOPPED,
    )
