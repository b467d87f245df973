"""`cascade schedules …`: what starts runs by itself, and whether it is on."""

from __future__ import annotations

from cascade.config import load_settings
from cascade_cli.output import answer_table, json_option
from cascade_cli.style import click

__all__ = ["schedules"]

_COLUMNS = ("name", "kind", "state", "when", "job")


@click.group()
def schedules() -> None:
    """List the schedules and sensors of the project, and turn them on and off.

    They tick while Dagster's daemon runs, which `cascade dev` starts too. The setting `schedules` says which state
    those of `cron=` and `automation=` have from the start.
    """


@schedules.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show all schedules and sensors, and whether each is on."""
    _show((), as_json, running=None)


@schedules.command()
@click.argument("names", nargs=-1)
@json_option
def start(names: tuple[str, ...], as_json: bool) -> None:
    """Turn NAMES on; all without any."""
    _show(names, as_json, running=True)


@schedules.command()
@click.argument("names", nargs=-1)
@json_option
def stop(names: tuple[str, ...], as_json: bool) -> None:
    """Turn NAMES off; all without any."""
    _show(names, as_json, running=False)


def _show(names: tuple[str, ...], as_json: bool, *, running: bool | None) -> None:
    import cascade_operations as operations

    rows = operations.switch_schedules(load_settings(), names, running=running)
    answer_table(
        as_json,
        rows,
        _COLUMNS,
        lambda row: (row.name, row.kind, "running" if row.running else "stopped", row.when, row.job or None),
        empty="There is no schedule and no sensor.",
    )
