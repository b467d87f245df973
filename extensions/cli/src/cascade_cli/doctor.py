"""`cascade doctor`: what is wrong with the project on this machine."""

from __future__ import annotations

import sys

from cascade_cli.output import complain, json_option, print_json, progress, say
from cascade_cli.style import click

__all__ = ["doctor"]


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look for what keeps the project from working on this machine, and say what to do about it.

    Looks at the environment (moved, wrong versions), settings, folders (not writable, full disk), servers, the
    catalog (deleted, damaged, moved, files that are gone), and Dagster's history. It changes nothing. What is wrong
    with workflows and models is for `cascade validate`. Exit code 1 when something does not work.
    """
    import cascade_operations as operations

    with progress("cascade doctor") as tell:
        found = operations.diagnose(tell=tell)
    grave = [finding for finding in found.findings if finding.grave]
    if as_json:
        print_json(found)
        sys.exit(1 if grave else 0)
    for about in found.examined:
        ours = [finding for finding in found.findings if finding.about == about]
        for finding in ours:
            where = [f"where: {finding.where}"] if finding.where else []
            line = f"{about}: {finding.what}"
            if finding.grave:
                complain("wrong   ", line, [*where, f"fix: {finding.fix}"])
            else:
                say("\n  ".join([f"note    {line}", *where, f"fix: {finding.fix}"]))
        if not ours:
            say(f"well    {about}")
    for about in found.left_out:
        say(f"?       {about}: not looked at, for the same reason")
    sys.exit(1 if grave else 0)
