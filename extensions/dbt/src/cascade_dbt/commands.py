"""`cascade dbt -- …`: dbt as people know it, on a branch."""

from __future__ import annotations

import sys

from cascade.config import load_settings
from cascade_cli.style import click

__all__ = ["dbt"]


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--branch", "-b", metavar="NAME", help="Branch to write or read. Default: the setting `branch`, which is `dev`."
)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- DBT_COMMAND [OPTIONS]...")
def dbt(branch: str | None, arguments: tuple[str, ...]) -> None:
    """Run any command of dbt with the profile, the macros and a branch of the project.

    For example `cascade dbt -- build -s my_model`, `cascade dbt -- show --inline "select 1"`, `cascade dbt -- deps`.
    Paths are relative to the dbt project, where dbt also writes its folders `target` and `logs`.

    What writes (build, run, seed, snapshot, test, run-operation, retry) works on the branch and leaves it, as
    `cascade materialize` does; `main` is never written. Everything else reads the branch, or `main` as long as there is
    no such branch. The exit code is that of dbt.
    """
    from cascade_dbt.direct import run_dbt

    ran = run_dbt(load_settings(), arguments, branch=branch)
    if ran.branch is not None:
        # Not on standard output, which is all dbt's.
        next_steps = f"`cascade query … --branch {ran.branch}` shows it, `cascade run` makes and checks it for main."
        click.echo(f"On branch {ran.branch}; main is unchanged. {next_steps}", err=True)
    sys.exit(ran.code)
