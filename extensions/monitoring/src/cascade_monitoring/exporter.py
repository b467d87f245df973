"""Hand the metrics out, in the words of OpenTelemetry and in Prometheus' format."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from cascade.config import Settings
from cascade.framework.definitions import build_definitions
from cascade.framework.instance import open_instance
from cascade_monitoring.event_log import EventLog
from cascade_monitoring.metrics import METRICS, Metric, Values
from cascade_monitoring.tables import Tables

__all__ = ["exporting", "open_server"]

# OpenTelemetry leaves out what is beyond its limit of 2,000 series a metric: a lake may have that many checks.
_SERIES = 1_000_000


@contextlib.contextmanager
def exporting(settings: Settings) -> Iterator[Callable[[], bytes]]:
    """Open the lake and Dagster's storage; give the function that reads what is new and returns all metrics.

    The function may be called from several threads. Its first call reads the whole event log, and the state of each
    table; it raises `CascadeError` where the catalog or a storage cannot be used.

    Args:
        settings: The project's settings.

    Raises:
        CascadeError: The catalog or Dagster's storage cannot be used.
    """
    values: Values = defaultdict(dict)
    values["cascade.table.max_age"] = _max_ages(settings)
    registry, turn = CollectorRegistry(), threading.Lock()
    reader = PrometheusMetricReader(
        disable_target_info=True,
        scope_info_enabled=False,
        registry=registry,
        cardinality_limits={ObservableCounter: _SERIES, ObservableGauge: _SERIES},
    )
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("cascade")
    for metric in METRICS:
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        create(metric.name, [_observe(metric, values)], unit=metric.unit, description=metric.meaning)
    with open_instance(settings) as instance:
        tables, log = Tables(settings), EventLog(instance, values)

        def collect() -> bytes:
            with turn:
                began = time.perf_counter()
                tables.refresh(values)
                log.catch_up()
                values["cascade.exporter.duration"][()] = time.perf_counter() - began
                return generate_latest(registry)

        try:
            yield collect
        finally:
            provider.shutdown()


def open_server(collect: Callable[[], bytes], *, host: str, port: int) -> ThreadingHTTPServer:
    """Open the server of `/metrics`; whoever calls it serves and closes it.

    Args:
        collect: Returns the metrics. When it raises, the answer is 503 with the error's text.
        host: Where to listen.
        port: The port; 0 for any that is free.

    Raises:
        OSError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = 404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n"
            if self.path.partition("?")[0] == "/metrics":
                try:
                    status, kind, body = 200, CONTENT_TYPE_LATEST, collect()
                except Exception as error:  # noqa: BLE001 a database that is away now may be there at the next question
                    print(error, file=sys.stderr, flush=True)
                    status, body = 503, f"{error}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing of each request."""

    return ThreadingHTTPServer((host, port), Handler)


def _observe(metric: Metric, values: Values) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [
        Observation(value, dict(zip(metric.labels, labels, strict=True)))
        for labels, value in values[metric.name].items()
    ]


def _max_ages(settings: Settings) -> dict[tuple[str, ...], float]:
    """Return how old the last load of each table may be that says it, in seconds."""
    graph = build_definitions(settings).resolve_asset_graph()
    windows = {
        key: getattr(graph.get(key).freshness_policy, "fail_window", None) for key in graph.executable_asset_keys
    }
    return {(".".join(key.path),): w.to_timedelta().total_seconds() for key, w in windows.items() if w is not None}
