"""Jobs and schedules that do what `cascade run` does: for a whole pipeline, whatever partitions its assets have."""

import shlex
from collections.abc import Sequence

import dagster as dg

from cascade.config import Settings, current_settings
from cascade.errors import count
from cascade.names import RUNS_METADATA

__all__ = ["build_pipeline", "pipeline_job", "pipeline_schedule"]


def pipeline_job(name: str, selection: str | Sequence[str] = (), *, description: str | None = None) -> dg.JobDefinition:
    """Define a job that does what `cascade run` does.

    It loads what `main` misses, of assets with partitions of any kinds, computes what can have changed, runs the
    checks, promotes and publishes. A job of Dagster's own selects assets with partitions of one kind, runs all of
    them, and promotes only when it selects `cascade/promote`.

    Args:
        name: Name of the job.
        selection: What is run, as `cascade run --select` reads it: `"group:shop"`, or several; everything by default.
        description: What the UI says of the job.
    """
    return _job(current_settings(), name, selection, description)


def pipeline_schedule(
    name: str, cron: str, selection: str | Sequence[str] = (), *, description: str | None = None
) -> dg.ScheduleDefinition:
    """Define a job of `pipeline_job`, and the schedule `<name>_schedule` that starts it.

    Args:
        name: Name of the job.
        cron: When: five fields, in the setting `timezone`.
        selection: As for `pipeline_job`.
        description: What the UI says of the job.

    Raises:
        dagster.DagsterInvalidDefinitionError: The expression is none.
    """
    settings = current_settings()
    return _schedule(_job(settings, name, selection, description), cron, settings, settings.schedules)


def build_pipeline(settings: Settings) -> dg.ScheduleDefinition:
    """Make the job `cascade_pipeline`, which runs all of the project, and its schedule, which is off from the start."""
    return _schedule(_job(settings, "cascade_pipeline", (), None), "0 5 * * *", settings, "stopped")


def _job(settings: Settings, name: str, selection: str | Sequence[str], description: str | None) -> dg.JobDefinition:
    select = [selection] if isinstance(selection, str) else list(selection)
    said = " ".join(["cascade run", *(f"--select {shlex.quote(each)}" for each in select)])

    @dg.op(name=f"{name}_run", description=f"Does what `{said}` does; the runs that it starts tell the rest.")
    def run(context: dg.OpExecutionContext) -> None:
        from cascade_operations.run import run_pipeline  # to define jobs needs nothing of what runs need

        report = run_pipeline(settings, select=select)
        for done in report.assets:
            context.log.info(done.asset if done.rows is None else f"{done.asset}: {count(done.rows, 'row')}")
        runs = {RUNS_METADATA: list(report.run_ids)}
        if not report.success:
            why = "; ".join(report.failures) or "It was interrupted."
            raise dg.Failure(why, metadata=runs, allow_retries=False)
        context.log.info("Promoted to main." if report.promotion else "There is nothing new; main is unchanged.")
        context.add_output_metadata(runs)

    @dg.job(name=name, description=description or f"Does what `{said}` does.", executor_def=dg.in_process_executor)
    def pipeline() -> None:
        run()

    return pipeline


def _schedule(job: dg.JobDefinition, cron: str, settings: Settings, state: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus[state.upper()],
    )
