"""`cascade config`: the settings."""

from __future__ import annotations

from cascade.cli.output import json_option, print_json, print_table
from cascade.cli.style import click
from cascade.config import load_settings

__all__ = ["config"]


@click.group()
def config() -> None:
    """Show the settings and where they come from."""


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Show every setting: its value, where it comes from, what it means."""
    from cascade.operations import list_settings

    found = list_settings(load_settings())
    if as_json:
        print_json(found)
    else:
        rows = [[each.name, each.value, each.source, each.description] for each in found]
        print_table(["setting", "value", "from", "meaning"], rows)
