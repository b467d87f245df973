"""`cascade alerts …`: send a message to try the targets, and see what is open."""

from __future__ import annotations

import sys

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade_cli.output import complain, json_option, print_json, print_table, say
from cascade_cli.style import click

__all__ = ["alerts"]

_TITLE = "{project}: a test of Cascade's alerts"
_BODY = "This target is told when a run, a check or a promotion fails in {project}, and when it works again."


@click.group()
def alerts() -> None:
    """Tell people what fails: try the targets of the setting `alerts`, and see what is open."""


@alerts.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show who is told of what, without secrets, and the problems that are open."""
    from cascade_alerts.telling import list_alerts

    found = list_alerts(load_settings())
    if as_json:
        print_json(found)
        return
    if not found.targets:
        say("Nobody is told: the setting `alerts.targets` is empty.")
        return
    print_table(
        ["target", "address", "state", "events"],
        [(row.name, row.url, "answers" if row.answers else "is away", ", ".join(row.events)) for row in found.targets],
    )
    say("\nOpen problems" if found.open else "\nNo problem is open.")
    for problem in found.open:
        told = f"told {', '.join(problem.told)}" if problem.told else "nobody is told yet"
        say(f"  {problem.what}, since {problem.since:%Y-%m-%d %H:%M} UTC, {told}")
        if "look" in problem.details:
            say(f"    {problem.details['look']}")


@alerts.command()
@click.argument("targets", nargs=-1)
def test(targets: tuple[str, ...]) -> None:
    """Send a test message to TARGETS, by default to all; exit code 1 if one does not take it."""
    from cascade_alerts.targets import open_receivers

    settings = load_settings()
    receivers = {receiver.name: receiver for receiver in open_receivers(settings)}
    known = ", ".join(receivers) or "none"
    if not receivers or (unknown := [name for name in targets if name not in receivers]):
        raise UsageError(
            f"There is no target {', '.join(unknown)}." if receivers else "There is no target of alerts.",
            where="setting `alerts.targets`",
            fix=f"name one of {known}." if receivers else "set one in cascade.yaml; docs/how-to/be-told.md shows how.",
        )
    failed = []
    for name in dict.fromkeys(targets or receivers):
        project = settings.project_dir.name
        why = receivers[name].send(_TITLE.format(project=project), _BODY.format(project=project), "test")
        if why:
            failed.append(f"{name} ({receivers[name].shown}): {why}")
        else:
            say(f"{name} ({receivers[name].shown}): sent")
    if failed:
        complain("Not sent:", "", failed)
        sys.exit(1)
