"""`cascade run` and `cascade materialize`: Dagster assets in this process, and what came of them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from cascade.cli.output import INTERRUPTED, complain, json_option, print_json, progress, say
from cascade.cli.style import click
from cascade.config import Settings, load_settings
from cascade.names import DUPLICATE_ROWS, EXTRACTED_ROWS, LOADED_ROWS, QUARANTINED_ROWS

if TYPE_CHECKING:
    from cascade.operations.report import Outcome

__all__ = ["materialize", "run"]

_partition = partial(click.option, "--partition", "-p", metavar="KEY[..KEY]")
_PARTITION_HELP = "A partition such as 2013-07-01, or a range such as 2013-07-01..2013-07-31."
_full_refresh = click.option("--full-refresh", is_flag=True, help="Make the tables of incremental models anew.")


@click.command()
@click.option(
    "--select",
    "-s",
    multiple=True,
    metavar="ASSET",
    help="Only these assets; `+name` adds what it depends on, `name+` what depends on it. Repeatable.",
)
@_partition(help=_PARTITION_HELP + " By default every partition that `main` does not hold yet.")
@click.option("--no-promote", is_flag=True, help="Leave the result on the run's branch.")
@_full_refresh
@json_option
def run(select: tuple[str, ...], partition: str | None, no_promote: bool, full_refresh: bool, as_json: bool) -> None:
    """Run the pipeline: ingest, validate, transform, check, promote, publish.

    Works on a branch of its own. When every blocking check has passed, all tables move to `main` at once;
    when one fails, `main` stays as it is and the branch is kept to be looked at.
    """
    settings = load_settings()
    with progress("cascade run") as tell:
        tell("loading", "workflows and models")
        from cascade.operations.run import run_pipeline

        outcome = run_pipeline(
            settings,
            select=select,
            partition=partition,
            promote=not no_promote,
            full_refresh=full_refresh,
            tell=tell,
        )
    _finish(outcome, as_json, success=_moved(outcome, settings, promote=not no_promote))


@click.command()
@click.argument("assets", nargs=-1, required=True)
@_partition(help=_PARTITION_HELP + " By default every partition that the branch does not hold yet.")
@_full_refresh
@json_option
def materialize(assets: tuple[str, ...], partition: str | None, full_refresh: bool, as_json: bool) -> None:
    """Materialize ASSETS on a branch, and run their checks; `main` is not touched.

    An asset is named `namespace/table`, or by its table alone. The branch is the setting `branch`, `dev` by
    default; another one is chosen by `CASCADE_BRANCH`.
    """
    settings = load_settings()
    with progress("cascade materialize") as tell:
        tell("loading", "workflows and models")
        from cascade.operations.run import materialize as materialize_assets

        outcome = materialize_assets(settings, assets, partition=partition, full_refresh=full_refresh, tell=tell)
    table = outcome.assets[0].asset.replace("/", ".") if outcome.assets else "namespace.table"
    text = f"""
On branch {outcome.branch}; main is unchanged. Next:
  cascade query "select * from {table} limit 10" --branch {outcome.branch}
  cascade branch promote {outcome.branch}"""
    _finish(outcome, as_json, success=text)


def _finish(outcome: Outcome, as_json: bool, *, success: str) -> NoReturn:
    """Print what a run did, and if all went well what that means; exit with its code."""
    if as_json:
        print_json(_document(outcome))
    else:
        _print(outcome)
        if outcome.success:
            say(success)
        else:
            _print_failure(outcome)
    sys.exit(0 if outcome.success else INTERRUPTED if outcome.interrupted else 1)


def _print(outcome: Outcome) -> None:
    for asset, span in outcome.partitions.items():
        say(f"{asset}: partitions {span}")
    for asset in outcome.up_to_date:
        say(f"{asset}: nothing to ingest, every partition is there.")
    if outcome.assets:
        say("\nRows per step")
        width = max(len(done.asset) for done in outcome.assets)
        for done in outcome.assets:
            if done.rows is not None:
                say(f"  {done.asset.ljust(width)}  {done.rows:>12,}" + _loaded(done.metadata))
    passed = sum(check.passed for check in outcome.checks)
    if outcome.checks:
        say(f"\nChecks: {passed} of {len(outcome.checks)} passed")
    for check in outcome.checks:
        if not check.passed:
            word = "FAILED" if check.blocking else "warning"
            # A contract's text is why its step failed; that is told below.
            told = not check.description or any(check.description in failure for failure in outcome.failures)
            say(f"  {word}: {check.asset} {check.check}" + ("" if told else f": {check.description}"))


def _print_failure(outcome: Outcome) -> None:
    state, look = "main is unchanged and nothing was written", ""
    if outcome.promotion is not None:
        state = "after the promotion"
    elif outcome.branch_kept is None:
        state = "whether main has moved is unknown, since the catalog does not answer; it moves as a whole or not"
    elif outcome.branch_kept:
        branch = outcome.branch
        state = f"main is unchanged, branch {branch} is kept"
        look = f'look at it with `cascade query "…" --branch {branch}` or `cascade branch diff {branch}`, '
    complain("\nInterrupted" if outcome.interrupted else "\nThe run failed", f": {state}.", outcome.failures)
    step = "run again." if outcome.interrupted else f"{look}correct the cause, and run again."
    click.echo(f"Next: {step}", err=True)
    if outcome.run_ids:
        click.echo(f"Log: run {outcome.run_ids[-1]} in the UI (`cascade dev`).", err=True)


def _moved(outcome: Outcome, settings: Settings, *, promote: bool) -> str:
    """Return what became of `main`, in words."""
    if outcome.promotion is not None:
        from cascade.publish.marts import marts_location

        tables = ", ".join(change.table for change in outcome.promotion.changes)
        text = f"\nBranch {outcome.branch} was promoted to main (entry {outcome.promotion.id} of the log): {tables}"
        return f"{text}\nMarts: {marts_location(settings)}"
    if promote:
        return "\nThere is nothing new; main is unchanged."
    return f"\nOn branch {outcome.branch}, not promoted. Next: cascade branch promote {outcome.branch}"


def _loaded(metadata: dict[str, Any]) -> str:
    """Return the equation of a load, where the asset is an ingestion."""
    if EXTRACTED_ROWS not in metadata:
        return ""
    extracted, loaded, quarantined, duplicates = (
        metadata[name] for name in (EXTRACTED_ROWS, LOADED_ROWS, QUARANTINED_ROWS, DUPLICATE_ROWS)
    )
    return f"  ({extracted:,} extracted = {loaded:,} loaded + {quarantined:,} quarantined + {duplicates:,} duplicates)"


def _document(outcome: Outcome) -> dict[str, Any]:
    document = asdict(outcome)
    document["assets"] = [
        {"name": done.asset, "rows": done.rows, **{k: v for k, v in done.metadata.items() if k.endswith("_rows")}}
        for done in outcome.assets
    ]
    if promotion := outcome.promotion:
        document["promotion"] = {"id": promotion.id, "tables": [change.table for change in promotion.changes]}
    return document
