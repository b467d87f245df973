"""`cascade plugins`: what installed packages bring, and what is wrong with it."""

from __future__ import annotations

import contextlib
import sys

from cascade.errors import UsageError, count
from cascade.plugins import PluginRecord
from cascade_cli.output import complain, json_option, print_json, print_table, say
from cascade_cli.style import click
from cascade_operations import to_document

__all__ = ["plugins"]


@click.group()
def plugins() -> None:
    """Show what installed packages bring, and what is wrong with it."""


@plugins.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show everything that installed packages bring: engines, commands, schedules, sources."""
    records = _records()
    if as_json:
        print_json(records)
    else:
        rows = [(r.group, r.name, r.package, "broken" if r.cause else "works") for r in records]
        print_table(["group", "name", "package", "state"], rows)
        if any(record.cause for record in records):
            say("Next: `cascade plugins check` says what is broken, and why.")


@plugins.command()
@click.argument("name")
@json_option
def info(name: str, as_json: bool) -> None:
    """Show all that is known of NAME: package, place, and what it must be."""
    records = _records()
    found = [record for record in records if name in (record.name, record.package.partition(" ")[0])]
    if not found:
        known = ", ".join(sorted({record.name for record in records}))
        raise UsageError(f"No installed package brings `{name}`.", fix=f"name one of {known}; or a package.")
    if as_json:
        print_json(found)
        return
    for record in found:
        say(f"{record.name} of {record.group}")
        for label, value in to_document(record).items():
            if value and label not in ("name", "group"):
                say(f"  {label + ':':<9}{value}")


@plugins.command()
@json_option
def check(as_json: bool) -> None:
    """Load everything that installed packages bring, and name what is broken; exit code 1 if anything is."""
    records = _records()
    broken = [record for record in records if record.cause]
    if as_json:
        print_json(broken)
    elif broken:
        complain(f"{count(len(broken), 'problem')}:", "", [str(record) for record in broken])
    else:
        packages = count(len({record.package for record in records}), "package")
        say(f"{count(len(records), 'plugin')} of {packages}: no problems.")
    sys.exit(1 if broken else 0)


def _records() -> list[PluginRecord]:
    with contextlib.redirect_stdout(sys.stderr):  # whatever a package prints while it is imported
        from cascade_operations.plugins import inspect_plugins

        return inspect_plugins()
