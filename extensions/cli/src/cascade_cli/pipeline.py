"""`cascade run` and `cascade materialize`: Dagster assets in this process, and what came of them."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade.names import is_run_branch
from cascade_cli.consent import consent
from cascade_cli.output import (
    INTERRUPTED,
    always_texts,
    complain,
    json_option,
    print_json,
    progress,
    say,
    ui_port,
    unchanged_text,
)
from cascade_cli.plan import all_option, end_plan, full_refresh_option, partition_option
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.records import AssetResult, RunReport

__all__ = ["finish", "materialize", "moved", "run"]

_branch = partial(click.option, "--branch", "-b", metavar="NAME")


@click.command()
@click.option(
    "--select",
    "-s",
    multiple=True,
    metavar="SELECTION",
    help="Only these assets: `orders`, `gold`, `+name` with what it depends on, `name+` with what depends on it, "
    "`group:`, `kind:`, `tag:`, `path:`, `and`, `or`, `not`. Repeatable.",
)
@partition_option
@click.option("--no-promote", is_flag=True, help="Leave the result on the run's branch.")
@_branch(help="Work on this branch, which stays, and promote nothing; a new one begins as `main`.")
@full_refresh_option
@all_option
@click.option(
    "--resume", metavar="BRANCH", help="Go on with the branch of a run that failed: make what is missing, and promote."
)
@click.option("--dry-run", is_flag=True, help="Only show what the run would do, as `cascade plan` does.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before a full refresh.")
@json_option
def run(
    *,
    no_promote: bool,
    branch: str | None,
    resume: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    full_refresh: bool,
    **asked: Any,
) -> None:
    """Run the pipeline: ingest, validate, transform, check, promote, publish.

    Computes what can have changed: a model is left out when its SQL, macros, configuration, variables and the tables
    that it reads are as they were when its table on `main` was made. What `--select` names is always computed; what
    `+` adds to it, when it can have changed.

    Works on a branch of its own. When every blocking check has passed, all tables move to `main` at once;
    when one fails, `main` stays as it is and the branch is kept to be looked at.

    A full refresh works on that branch, too: readers see the old tables until the new ones are promoted. It asks before
    rows are loaded again from their sources, which may not give all of them any more.

    With --branch all of it happens on a branch of yours, which `cascade branch promote` moves to `main`. Partitions are
    loaded that it does not hold, and no model is left out.

    A failure stops what depends on it, and the promotion; the rest is computed all the same. `--resume` goes on with
    the branch that such a run has left, once its cause is mended: only what is missing is made.

    On a terminal it first shows in short what it will do and why; `cascade plan` shows all of it.
    """
    import cascade_operations as operations

    settings = load_settings()
    asked |= {"promote": not no_promote, "full_refresh": full_refresh}
    if resume and (dry_run or full_refresh or branch):
        fix = "leave out --dry-run, --full-refresh and --branch."
        raise UsageError("--resume goes on with what is there.", where="cascade run", fix=fix)
    if dry_run and branch:
        raise UsageError("--dry-run says what a run towards `main` would do.", fix="leave out --branch, or --dry-run.")
    if full_refresh and not yes and not dry_run and not branch:
        with progress("cascade run") as tell:
            refresh = operations.plan_refresh(settings, select=asked["select"], tell=tell)
        if refresh.tables:
            consent(refresh, yes=yes, as_json=as_json)
    with progress("cascade run") as tell:
        if dry_run:
            plan = operations.plan_run(settings, **asked, tell=tell)
        else:
            options: dict[str, Any] = {"branch": branch, "resume": resume, "show_plan": sys.stderr.isatty()}
            report = operations.run_pipeline(settings, **asked, **options, tell=tell)
    if dry_run:
        end_plan(plan, as_json)
    finish(report, as_json, success=_stays(report) if branch else moved(report, promote=not no_promote))


@click.command()
@click.argument("assets", nargs=-1, required=True)
@partition_option
@_branch(help="The branch, by default the setting `branch`; a new one begins as `main`.")
@full_refresh_option
@json_option
def materialize(*, assets: tuple[str, ...], as_json: bool, **asked: Any) -> None:
    """Materialize ASSETS on a branch, and run their checks; `main` is not touched.

    ASSETS are selections, as `cascade run --select` takes them. The branch stays until it is promoted or deleted;
    partitions are loaded that it does not hold.
    """
    import cascade_operations as operations

    with progress("cascade materialize") as tell:
        report = operations.materialize(load_settings(), assets, **asked, tell=tell)
    finish(report, as_json, success=_stays(report))


def _stays(report: RunReport) -> str:
    """Return what can be done with a branch that stays, in words."""
    table = report.assets[0].asset.replace("/", ".") if report.assets else "namespace.table"
    return f"""
On branch {report.branch}; main is unchanged. Next:
  cascade query "select * from {table} limit 10" --branch {report.branch}
  cascade branch promote {report.branch}"""


def finish(report: RunReport, as_json: bool, *, success: str) -> NoReturn:
    """Print what a run did, and if all went well what that means; exit with its code."""
    if as_json:
        print_json(report)
    else:
        _print_report(report)
        if report.success:
            say(success)
        else:
            _print_failure(report)
    sys.exit(0 if report.success else INTERRUPTED if report.interrupted else 1)


def _print_report(report: RunReport) -> None:
    for asset, span in report.partitions.items():
        say(f"{asset}: partitions {span}")
    for asset in report.up_to_date:
        say(f"{asset}: nothing to ingest, every partition is loaded.")
    if report.left_out:
        say(f"Left out: {unchanged_text(report.left_out)}")
    for text in always_texts(report.always):
        say(f"Computed in every run: {text}")
    if report.assets:
        say("\nRows per step")
        width = max(len(done.asset) for done in report.assets)
        for done in report.assets:
            if done.rows is not None:
                say(f"  {done.asset.ljust(width)}  {done.rows:>12,}" + _load(done))
    passed = sum(check.passed for check in report.checks)
    if report.checks:
        say(f"\nChecks: {passed} of {len(report.checks)} passed")
    for check in report.checks:
        if not check.passed:
            word = "FAILED" if check.blocking else "warning"
            # A contract's text is why its step failed; that is told below.
            told = not check.description or any(check.description in failure for failure in report.failures)
            say(f"  {word}: {check.asset} {check.check}" + ("" if told else f": {check.description}"))


def _print_failure(report: RunReport) -> None:
    state, look = "main is unchanged and nothing was written", ""
    if report.promotion is not None:
        state = "after the promotion"
    elif report.branch_kept is None:
        state = "whether main has moved is unknown, since the catalog does not answer; it moves as a whole or not"
    elif report.branch_kept:
        branch = report.branch
        state = f"main is unchanged, branch {branch} is kept"
        look = f'look at it with `cascade query "…" --branch {branch}` or `cascade branch diff {branch}`, '
    complain("\nInterrupted" if report.interrupted else "\nThe run failed", f": {state}.", report.failures)
    step = "run again." if report.interrupted else f"{look}correct the cause, and run again."
    if look and is_run_branch(report.branch) and not report.interrupted:
        step = f"{step[:-1]}; `cascade run --resume {report.branch}` makes only what is missing."
    click.echo(f"Next: {step}", err=True)
    for run in report.run_ids:
        click.echo(f"Log: http://127.0.0.1:{ui_port()}/runs/{run} (the UI: `cascade dev`)", err=True)


def moved(report: RunReport, *, promote: bool) -> str:
    """Return what became of `main`, in words."""
    if move := report.promotion:
        text = f"\nBranch {report.branch} was promoted to main (entry {move.id} of the log): {', '.join(move.tables)}"
        after = "".join(f"\nAfterwards, {name}: {said}" for name, said in report.followed.items())
        return f"{text}\nMarts: {report.marts}{after}"
    if report.published:
        tables = ", ".join(report.published)
        return f"\nThere is nothing new; main is unchanged. The marts were behind it and are published: {tables}"
    if promote or not report.run_ids:
        return "\nThere is nothing new; main is unchanged."
    return f"\nOn branch {report.branch}, not promoted. Next: cascade branch promote {report.branch}"


def _load(result: AssetResult) -> str:
    """Return the equation of a load, where the asset is an ingestion."""
    if (load := result.load) is None:
        return ""
    if not load.extracted and not load.replaced:
        return "  (nothing new)"
    loaded = f"{load.loaded:,} loaded + {load.quarantined:,} quarantined + {load.duplicates:,} duplicates"
    aside = f"; see {load.quarantine}" if load.quarantine else ""
    return f"  ({load.extracted:,} extracted = {loaded}{aside})"
