"""`cascade run` and `cascade materialize`: Dagster assets in this process, and what came of them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cascade.cli.output import json_option, print_json, progress, say
from cascade.cli.style import click
from cascade.config import load_settings

if TYPE_CHECKING:
    from cascade.framework.progress import Outcome

__all__ = ["materialize", "run"]

_PARTITION_HELP = "A partition such as 2013-07-01, or a range such as 2013-07-01..2013-07-31."


@click.command()
@click.option(
    "--select",
    "-s",
    multiple=True,
    metavar="ASSET",
    help="Only these assets; `+name` adds what it depends on, `name+` what depends on it. Repeatable.",
)
@click.option(
    "--partition",
    "-p",
    metavar="KEY[..KEY]",
    help=_PARTITION_HELP + " By default every partition that `main` does not hold yet.",
)
@click.option("--no-promote", is_flag=True, help="Leave the result on the run's branch.")
@json_option
def run(select: tuple[str, ...], partition: str | None, no_promote: bool, as_json: bool) -> None:
    """Run the pipeline: ingest, validate, transform, check, promote, publish.

    Works on a branch of its own. When every blocking check has passed, all tables move to `main` at once;
    when one fails, `main` stays as it is and the branch is kept to be looked at.
    """
    settings = load_settings()
    with progress("cascade run") as tell:
        tell("loading", "workflows and models")
        from cascade.framework.launch import run_pipeline

        outcome = run_pipeline(settings, select=select, partition=partition, promote=not no_promote, tell=tell)
    if as_json:
        print_json(_document(outcome))
    else:
        _print(outcome)
        if outcome.success:
            from cascade.publish.marts import marts_location

            _print_end(outcome, promote=not no_promote, marts=marts_location(settings))
    _exit(outcome)


@click.command()
@click.argument("assets", nargs=-1, required=True)
@click.option(
    "--partition",
    "-p",
    metavar="KEY[..KEY]",
    help=_PARTITION_HELP + " By default every partition that the branch does not hold yet.",
)
@json_option
def materialize(assets: tuple[str, ...], partition: str | None, as_json: bool) -> None:
    """Materialize ASSETS on a branch, and run their checks; `main` is not touched.

    An asset is named `namespace/table`, or by its table alone. The branch is the setting `branch`, `dev` by
    default; another one is chosen by `CASCADE_BRANCH`.
    """
    settings = load_settings()
    with progress("cascade materialize") as tell:
        tell("loading", "workflows and models")
        from cascade.framework.launch import materialize as materialize_assets

        outcome = materialize_assets(settings, assets, partition=partition, tell=tell)
    if as_json:
        print_json(_document(outcome))
    else:
        _print(outcome)
        if outcome.success:
            table = outcome.assets[0].asset.replace("/", ".") if outcome.assets else "namespace.table"
            say(f"\nOn branch {outcome.branch}; main is unchanged. Next:")
            say(f'  cascade query "select * from {table} limit 10" --branch {outcome.branch}')
            say(f"  cascade branch promote {outcome.branch}")
    _exit(outcome)


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
            say(f"  {word}: {check.asset} {check.check}" + (f": {check.description}" if check.description else ""))
    if not outcome.success:
        state, look = "main is unchanged and nothing was written", ""
        if outcome.promotion is not None:
            state = "after the promotion"
        elif outcome.branch_kept:
            branch = outcome.branch
            state = f"main is unchanged, branch {branch} is kept"
            look = f'look at it with `cascade query "…" --branch {branch}` or `cascade branch diff {branch}`, '
        click.echo(click.style("\nThe run failed", fg="red", bold=True) + f": {state}.", err=True)
        for failure in outcome.failures:
            click.echo(f"  {failure}", err=True)
        click.echo(f"Next: {look}correct the cause, and run again.", err=True)


def _print_end(outcome: Outcome, *, promote: bool, marts: str) -> None:
    if outcome.promotion is not None:
        tables = ", ".join(change.table for change in outcome.promotion.changes)
        say(f"\nBranch {outcome.branch} was promoted to main (entry {outcome.promotion.id} of the log): {tables}")
        say(f"Marts: {marts}")
    elif promote:
        say("\nThere is nothing new; main is unchanged.")
    else:
        say(f"\nOn branch {outcome.branch}, not promoted. Next: cascade branch promote {outcome.branch}")


def _loaded(metadata: dict[str, Any]) -> str:
    """Return the equation of a load, where the asset is an ingestion."""
    if "extracted_rows" not in metadata:
        return ""
    names = {"loaded": "loaded_rows", "quarantined": "quarantined_rows", "duplicates": "duplicate_rows"}
    parts = " + ".join(f"{metadata[key]:,} {name}" for name, key in names.items())
    return f"  ({metadata['extracted_rows']:,} extracted = {parts})"


def _document(outcome: Outcome) -> dict[str, Any]:
    document = asdict(outcome)
    document["assets"] = [
        {"name": done.asset, "rows": done.rows, **{k: v for k, v in done.metadata.items() if k.endswith("_rows")}}
        for done in outcome.assets
    ]
    document["promotion"] = (
        {"id": outcome.promotion.id, "tables": [c.table for c in outcome.promotion.changes]}
        if outcome.promotion
        else None
    )
    return document


def _exit(outcome: Outcome) -> None:
    sys.exit(0 if outcome.success else 1)
