"""Where alerts are told from: a sensor in Dagster's daemon, and the end of each command that runs or promotes."""

import time
from collections.abc import Callable

import dagster as dg

from cascade.config import Settings
from cascade.errors import LeaseHeldError, PromotionConflictError, PromotionRefusedError, UsageError
from cascade.framework.instance import open_instance
from cascade.names import is_run_branch
from cascade_alerts.findings import Problem, promotion_problem
from cascade_alerts.targets import open_receivers
from cascade_alerts.telling import catch_up
from cascade_operations.after import Ended

__all__ = ["build_sensor", "prepare"]

_SECONDS = 30
# The person who typed the command is told at once, and nothing is wrong with the project.
_NOBODYS = (UsageError, LeaseHeldError)


def build_sensor(settings: Settings) -> dg.SensorDefinition | None:
    """Make the sensor that tells of runs that ended and of stale tables; none without targets.

    Arguments and errors are those of `prepare`.
    """
    if not open_receivers(settings):
        return None

    @dg.sensor(
        name="cascade_alerts",
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the targets of the setting `alerts` what failed, once, and when it works again.",
    )
    def cascade_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        assert context.repository_def is not None  # the daemon gives it
        graph = context.repository_def.asset_graph
        said = catch_up(settings, context.instance, since=time.time(), graph=graph)
        for line in said:
            context.log.warning(line)
        return dg.SkipReason("; ".join(said) or "There is nothing to tell.")

    return cascade_alerts


def prepare(settings: Settings) -> Callable[[Ended], str] | None:
    """Check the targets before a command begins; return what tells of it once it has ended, `None` without targets.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: A target of the settings is wrong.
    """
    if not open_receivers(settings):
        return None

    def ended(what: Ended) -> str:
        with open_instance(settings) as instance:
            return "; ".join(catch_up(settings, instance, since=what.since.timestamp(), also=_proved(what)))

    return ended


def _proved(ended: Ended) -> dict[str, Problem | None]:
    """Return what a command proves beside its runs: it may fail before one begins, and a promotion needs none."""
    scope = "" if is_run_branch(ended.branch) else f" on {ended.branch}"
    if isinstance(ended.error, PromotionRefusedError | PromotionConflictError):
        return {f"promotion{scope}": promotion_problem(ended.branch, ended.error)}
    if isinstance(ended.error, _NOBODYS):
        return {}
    command = f"command {ended.command}"
    if ended.error is None:
        return dict.fromkeys([command, f"promotion{scope}"] if ended.promoted else [command])
    details = {"why": str(ended.error), "look": ended.command}
    return {command: Problem("run_failed", f"`{ended.command}` failed", details)}
