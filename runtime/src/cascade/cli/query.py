"""`cascade query`: a SELECT on the lakehouse, printed."""

from __future__ import annotations

import math

from cascade.catalog import MAIN, open_catalog
from cascade.cli.output import json_option, print_json, print_table, say
from cascade.cli.style import click
from cascade.config import load_settings
from cascade.errors import count

__all__ = ["query"]

_SHOWN = 1000


@click.command()
@click.argument("sql")
@click.option("--branch", "-b", default=MAIN, show_default=True, metavar="NAME", help="Branch or tag to read.")
@click.option(
    "--at",
    metavar="SNAPSHOT_OR_TIMESTAMP",
    help="Read the past: a snapshot's id, or an ISO time, which is UTC without a zone.",
)
@json_option
def query(sql: str, branch: str, at: str | None, as_json: bool) -> None:
    """Run one SELECT; tables are named `namespace.table`, for example gold.weather_daily.

    With --json the rows are an array of objects.
    """
    from cascade.engine import parse_at
    from cascade.engine import query as run_query

    catalog = open_catalog(load_settings())
    rows = run_query(catalog, branch, sql, at=parse_at(at) if at else None)
    if as_json:
        print_json(_without_nan(rows.to_pylist()))
        return
    print_table(rows.column_names, [list(row.values()) for row in rows.slice(0, _SHOWN).to_pylist()])
    more = rows.num_rows - _SHOWN
    say(f"\n{count(rows.num_rows, 'row')}" + (f", the first {_SHOWN:,} are shown" if more > 0 else ""))


def _without_nan(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """JSON has no NaN and no infinity: they become null."""
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
