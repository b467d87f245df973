"""Where events are sent from: a sensor in Dagster's daemon, and the end of each command that runs or promotes."""

import time
from collections.abc import Callable

import dagster as dg

from cascade.config import Settings
from cascade.framework.instance import open_instance
from cascade_openlineage.receiver import is_asked_for, open_client
from cascade_operations.after import Ended

__all__ = ["build_sensor", "prepare"]

_SECONDS = 30


def build_sensor(settings: Settings) -> dg.SensorDefinition | None:
    """Make the sensor that sends what runs did; none without a receiver.

    Arguments and errors are those of `prepare`.
    """
    if prepare(settings) is None:
        return None

    @dg.sensor(
        name="cascade_openlineage",
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the receiver of OpenLineage what runs read and wrote, once.",
    )
    def cascade_openlineage(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from cascade_openlineage.delivery import catch_up

        said = catch_up(settings, context.instance, since=time.time())
        return dg.SkipReason(said or "Everything is sent.")

    return cascade_openlineage


def prepare(settings: Settings) -> Callable[[Ended], str] | None:
    """Check the configuration before a command begins; return what sends events at its end, `None` without a receiver.

    Args:
        settings: The project's settings.

    Raises:
        ConfigurationError: The configuration of OpenLineage cannot be used.
    """
    if not is_asked_for(settings):
        return None
    with open_client(settings):
        pass

    def ended(what: Ended) -> str:
        from cascade_openlineage.delivery import catch_up

        with open_instance(settings) as instance:
            return catch_up(settings, instance, since=what.since.timestamp())

    return ended
