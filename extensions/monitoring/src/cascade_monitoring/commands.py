"""`cascade monitoring …`: the metrics of the lake, once or for Prometheus."""

from __future__ import annotations

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade_cli.output import say
from cascade_cli.style import click

__all__ = ["monitoring"]


@click.group()
def monitoring() -> None:
    """Watch the lake: metrics of runs, loads, checks, promotions and tables."""


@monitoring.command()
def metrics() -> None:
    """Print the metrics once, in the format of Prometheus."""
    from cascade_monitoring.exporter import exporting

    with exporting(load_settings()) as collect:
        click.echo(collect(), nl=False)


@monitoring.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9464, show_default=True, help="0 takes one that is free."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
def serve(port: int, host: str) -> None:
    """Serve the metrics for Prometheus, until Ctrl+C."""
    from cascade_monitoring.exporter import exporting, open_server

    with exporting(load_settings()) as collect:
        collect()  # all of the past, before anybody waits for it
        try:
            server = open_server(collect, host=host, port=port)
        except OSError as error:
            raise UsageError(
                f"The metrics cannot be served: {error.strerror}.",
                where=f"{host}:{port}",
                fix="give another port with `--port`; 0 takes one that is free.",
            ) from None
        with server:
            say(f"The metrics are at http://{host}:{server.server_port}/metrics until Ctrl+C.")
            server.serve_forever()
