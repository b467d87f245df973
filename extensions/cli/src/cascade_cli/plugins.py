"""`cascade plugins`: what installed packages bring, and what is wrong with it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from cascade.errors import UsageError, count
from cascade.plugins import PluginRecord, find, installed
from cascade_cli.command import Command
from cascade_cli.output import complain, json_option, print_json, print_table, say
from cascade_cli.style import Group, click

__all__ = ["plugins"]


_MORE = "cascade.plugin_commands"


class _Extended(Group):
    """The commands below, and those that packages bring for this group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(record.name for record in installed(_MORE))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        more: Any = super().get_command(ctx, cmd_name) or find(_MORE, cmd_name, Command)
        found: click.Command | None = more
        return found


@click.group(cls=_Extended)
def plugins() -> None:
    """Show what installed packages bring, and what is wrong with it."""


@plugins.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show everything that installed packages bring: engines, commands, schedules, sources.

    What packages of others bring is tried: it works, or is broken. `cascade plugins check` tries everything.
    """
    records = _records(ours=False)
    if as_json:
        print_json(records)
    else:
        rows = [(r.group, r.name, r.package, _state(r)) for r in records]
        print_table(["group", "name", "package", "state"], rows)
        if any(record.cause for record in records):
            say("Next: `cascade plugins check` says what is broken, and why.")


@plugins.command()
@click.argument("name")
@json_option
def info(name: str, as_json: bool) -> None:
    """Show all that is known of NAME: package, place, and what it must be."""
    from cascade_operations import to_document

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
        said = getattr(record.object, "metadata", None)  # of a plugin for data people
        for label, value in asdict(said).items() if is_dataclass(said) and not isinstance(said, type) else ():
            if value and label != "name":
                say(f"  {label + ':':<13}{', '.join(value) if isinstance(value, tuple) else value}")
        options = getattr(getattr(record.object, "options", None), "model_fields", {})
        for label, option in options.items():
            needed = "required" if option.is_required() else f"default {option.default!r}"
            say(f"  option {label}: {getattr(option.annotation, '__name__', option.annotation)}, {needed}")


@plugins.command()
@click.argument("words", nargs=-1)
@click.option("--registry", type=click.Path(path_type=Path), help="A registry file of your own, as JSON.")
@json_option
def search(words: tuple[str, ...], registry: Path | None, as_json: bool) -> None:
    """Show packages that can be installed, those with all WORDS in their name, description or plugins."""
    from cascade_operations.offering import search_plugins

    offers = search_plugins(words, registry=registry)
    if as_json:
        print_json(offers)
    elif offers:
        rows = [(one.package, one.installed or "not installed", one.description) for one in offers]
        print_table(["package", "version", "description"], rows)
    else:
        say(f"No package has {' and '.join(words)}. `cascade plugins search` shows all.")


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


def _state(record: PluginRecord) -> str:
    return "broken" if record.cause else "works" if record.object is not None else "installed"


def _records(*, ours: bool = True) -> list[PluginRecord]:
    with contextlib.redirect_stdout(sys.stderr):  # whatever a package prints while it is imported
        from cascade_operations.plugins import inspect_plugins

        return inspect_plugins(ours=ours)
