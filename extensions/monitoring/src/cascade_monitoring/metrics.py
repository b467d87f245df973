"""Every metric: name, kind, unit, labels and meaning. `docs/how-to/watch-the-lake.md` has the same table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric", "Values"]

#: What was found: a metric's name to the values of its labels to a number.
Values = defaultdict[str, dict[tuple[str, ...], float]]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name in OpenTelemetry. In Prometheus the dots are underscores, and unit and `total` are added.
        kind: `counter` only grows; `gauge` is a state.
        unit: In the words of UCUM: `s`, `By`, `{row}`; empty for what is counted by itself.
        labels: What tells its series apart.
        meaning: What it says, one sentence.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        return self.name.replace(".", "_") + unit + ("_total" if self.kind == "counter" else "")


_JOB, _ENDED, _TABLE = ("job_name",), ("job_name", "status"), ("table",)
_MAIN = "Of main: "

METRICS = (
    Metric("cascade.runs", "counter", "{run}", _ENDED, "Runs that ended, by `success`, `failure`, `canceled`."),
    Metric("cascade.runs.active", "gauge", "{run}", _ENDED, "Runs that wait or work, by Dagster's status."),
    Metric("cascade.run.time", "counter", "s", _ENDED, "How long the runs that ended took, together."),
    Metric("cascade.run.duration", "gauge", "s", _JOB, "How long the last run that ended took."),
    Metric("cascade.run.ended.timestamp", "gauge", "s", _ENDED, "When the last run ended like this, since 1970."),
    Metric("cascade.loads", "counter", "{load}", _TABLE, "Runs that loaded or computed the table, on any branch."),
    Metric(
        "cascade.load.rows",
        "counter",
        "{row}",
        ("table", "outcome"),
        "Rows that sources returned, by `loaded`, `quarantined`, `duplicate`.",
    ),
    Metric("cascade.load.time", "counter", "s", _TABLE, "How long its loads took, together."),
    Metric("cascade.load.duration", "gauge", "s", _TABLE, "How long its last load took."),
    Metric("cascade.load.timestamp", "gauge", "s", _TABLE, "When it was last loaded for main, since 1970."),
    Metric("cascade.checks", "counter", "{check}", ("table", "result"), "Results: `passed`, `warned`, `failed`."),
    Metric("cascade.check.failing", "gauge", "", ("table", "check"), "1 if the last result for main failed, else 0."),
    Metric("cascade.promotions", "counter", "{promotion}", (), "Number of the newest move of main, restores included."),
    Metric("cascade.promotion.timestamp", "gauge", "s", (), "When main last moved, since 1970."),
    Metric(
        "cascade.promotions.refused",
        "counter",
        "{promotion}",
        ("reason",),
        "Runs whose branch was not promoted: `checks` failed or did not run, or a `conflict`.",
    ),
    Metric("cascade.promotion.refused.timestamp", "gauge", "s", (), "When a run's promotion was last refused."),
    Metric("cascade.table.rows", "gauge", "{row}", _TABLE, f"{_MAIN}rows of the table."),
    Metric("cascade.table.size", "gauge", "By", _TABLE, f"{_MAIN}size of its files."),
    Metric("cascade.table.files", "gauge", "{file}", _TABLE, f"{_MAIN}its data files."),
    Metric(
        "cascade.table.small_files",
        "gauge",
        "{file}",
        _TABLE,
        f"{_MAIN}files beyond those that its bytes would fill at 128 MB each; partitions need some of them.",
    ),
    Metric("cascade.table.updated.timestamp", "gauge", "s", _TABLE, f"{_MAIN}when its rows last changed, since 1970."),
    Metric("cascade.table.max_age", "gauge", "s", _TABLE, "How old its last load may be: `freshness_hours`."),
    Metric("cascade.tables.unreadable", "gauge", "{table}", (), f"{_MAIN}tables whose state cannot be read."),
    Metric("cascade.exporter.duration", "gauge", "s", (), "How long this answer took to collect."),
)
