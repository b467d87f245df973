"""`cascade validate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cascade.config import load_settings
from cascade.errors import count
from cascade_cli.output import complain, json_option, print_json, progress, say
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_project.portability import Finding
    from cascade_project.validate import Inspection

__all__ = ["validate"]


@click.command()
@click.option("--all-engines", is_flag=True, help="Fail also for SQL that only breaks on the engine that is not set.")
@json_option
def validate(all_engines: bool, as_json: bool) -> None:
    """Load everything that users write: workflows, contracts, dbt models. Names all problems.

    The SQL of models, tests and checks is read for both engines, DuckDB and Trino. What breaks
    on the engine that is set is a problem: exit code 1. What breaks on the other one, or means something else there, is
    listed apart, and the exit code stays 0; with --all-engines it is 1. A model that is for one engine on purpose says
    so in its config, or for a folder in dbt_project.yml: +meta: {cascade: {engines: [embedded]}}.
    """
    settings = load_settings()
    with progress("cascade validate") as tell:
        from cascade_project.validate import inspect_project

        found = inspect_project(settings, tell=tell)
    elsewhere = [finding for finding in found.sql if finding.engine != settings.engine]
    if as_json:
        print_json(found)
    else:
        say(f"{count(len(found.assets), 'asset')}: {', '.join(found.assets)}")
        say(f"{count(len(found.checks), 'check')}, {sum(check.blocking for check in found.checks)} of them blocking")
        _print_inspection(found, elsewhere, strict=all_engines)
    sys.exit(1 if found.problems or (all_engines and elsewhere) else 0)


def _print_inspection(found: Inspection, elsewhere: list[Finding], *, strict: bool) -> None:
    from cascade_project.portability import label_of
    from cascade_project.validate import problem_text

    if found.warnings:
        click.echo(click.style("\nWarnings:", fg="yellow"))
        for warning in found.warnings:
            say(f"  {warning}")
    if found.skipped:
        say("\nSQL that was not looked at:")
        for skipped in found.skipped:
            say(f"  {skipped}")
    if elsewhere:
        engine = label_of(elsewhere[0].engine)
        places = count(len(elsewhere), "place")
        click.echo(click.style(f"\n{places} not the same on {engine}:", fg="red" if strict else "yellow"), err=strict)
        for finding in elsewhere:
            click.echo(f"  {problem_text(finding)}", err=strict)
    if found.problems:
        complain(f"\n{count(len(found.problems), 'problem')}:", "", found.problems)
    elif not (elsewhere and strict):
        say("No problems.")
