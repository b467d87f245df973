"""`cascade config`: the settings."""

from __future__ import annotations

from cascade.config import load_settings
from cascade_cli.output import answer_table, json_option
from cascade_cli.style import click

__all__ = ["config"]


@click.group()
def config() -> None:
    """Show the settings and where they come from."""


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Show every setting: its value, where it comes from, what it means."""
    import cascade_operations as operations

    found = operations.list_settings(load_settings())
    answer_table(as_json, found, ["setting", "value", "from", "meaning"], lambda row: [*vars(row).values()])
