"""`cascade create-workflow`, `create-model` and `create-check`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from cascade.config import load_settings
from cascade.errors import UsageError
from cascade_cli.output import answer, json_option, progress, say
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_create.changes import Created

__all__ = ["create_check", "create_model", "create_workflow"]

_KINDS = ("rest", "database", "file", "python")

yes_option = click.option("--yes", is_flag=True, help="Ask nothing; take guesses as they are.")
dry_option = click.option("--dry-run", is_flag=True, help="Show the files, and write none.")


@click.command("create-workflow")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--url", default="", help="Of a REST API, or a database; env:VARIABLE takes it from the environment.")
@click.option("--table", default="", help="Of a database: orders, or sales.orders.")
@click.option("--path", default="", help="Of files: 'data/drops/*.csv', s3://bucket/drops/**/*.parquet.")
@click.option("--key", multiple=True, help="Column that names a row, as the source calls it. Repeatable.")
@click.option("--cursor", default="", help="Column that says when a row changed: a run loads only what is new.")
@click.option("--partitions", default=None, help="hourly, daily, weekly or monthly, by --cursor. Without it: none.")
@click.option("--infer", is_flag=True, help="Look at the source: columns, key and cursor come from a sample.")
@click.option("--auth", default="", help="bearer:VARIABLE, header:NAME:VARIABLE, query:NAME:VARIABLE or basic:…:….")
@click.option("--cursor-param", default="", help="Parameter of a REST API that takes the newest cursor.")
@click.option("--paginator", default="", help="Of dlt, as JSON, for a REST API whose pages are not understood.")
@click.option("--rows-at", default="", help="Where the rows are in the answers of a REST API: data.items")
@click.option("--sheet", default="", help="Of Excel; the first one by default.")
@dry_option
@yes_option
@json_option
def create_workflow(
    kind: str | None, name: str | None, *, dry_run: bool, yes: bool, as_json: bool, **given: Any
) -> None:
    """Write a workflow that loads a source, with its contract, its bronze model and a test.

    KIND is rest, database, file or python; NAME becomes the asset raw/NAME and the model bronze.NAME. No file is
    overwritten, and all of them are written, or none. On a terminal the command asks for what is
    missing. Secrets are read from the environment or `.env`, and are never written anywhere else.
    """
    from cascade_create.dialog import complete_workflow, confirm, is_asked
    from cascade_create.sources import Request
    from cascade_create.workflow import create_workflow as create
    from cascade_create.workflow import look

    settings = load_settings()
    asks = is_asked(yes=yes, as_json=as_json)
    given["key"] = tuple(part.strip() for one in given["key"] for part in ([one] if "," not in one else one.split(",")))
    given["paginator"] = _paginator(given["paginator"])
    if asks:
        kind, name, given = complete_workflow(kind, name, given)
    if not kind or not name:
        raise UsageError("KIND and NAME have to be said.", fix="cascade create-workflow python tickets")
    if kind not in _KINDS:
        raise UsageError(f"{kind!r} is not a kind of source.", where="KIND", fix=f"choose one of {', '.join(_KINDS)}")
    given["partitions"] = None if given["partitions"] == "none" else given["partitions"]
    request = Request(kind=kind, name=name, **given)
    with progress("cascade create-workflow"):
        draft = look(settings, request)
    if asks:
        draft = confirm(draft)
    _tell(create(settings, draft, dry_run=dry_run), as_json=as_json)


def _paginator(text: str) -> Any:
    if not text:
        return None
    try:
        found = json.loads(text)
        if isinstance(found, dict) and isinstance(found.get("type"), str):
            return found
    except ValueError:
        pass
    raise UsageError(
        "--paginator is not a paginator of dlt as JSON.",
        where="--paginator",
        fix="""for example --paginator '{"type": "offset", "limit": 100, "total_path": null}'""",
    )


@click.command("create-model")
@click.argument("name")
@click.option("--from", "source", required=True, help="The table or model that it reads: bronze.orders, raw.orders.")
@click.option("--key", multiple=True, help="Column that names a row of it; it is tested. Repeatable.")
@dry_option
@json_option
def create_model(name: str, source: str, key: tuple[str, ...], *, dry_run: bool, as_json: bool) -> None:
    """Write a dbt model that reads another table, with its entry in YAML and tests of its key.

    NAME is a layer and a name, such as silver.orders_by_day; the layers are folders below transforms/dbt/models.
    """
    from cascade_create.model import create_model as create

    _tell(create(load_settings(), name, source=source, key=key, dry_run=dry_run), as_json=as_json)


@click.command("create-check")
@click.argument("name")
@click.option("--asset", required=True, help="The table that it checks: raw.orders.")
@click.option("--rule", required=True, help="not_null, unique, in_range, accepted_values, matches, row_count or sql.")
@click.option("--column", multiple=True, help="Column that it looks at. Repeatable.")
@click.option("--min", "least", default="", help="Of in_range and row_count: the smallest that is right.")
@click.option("--max", "most", default="", help="Of in_range and row_count: the greatest that is right.")
@click.option("--value", multiple=True, help="Of accepted_values: a value that is right. Repeatable.")
@click.option("--pattern", default="", help="Of matches: a regular expression of the whole value.")
@click.option("--sql", default="", help="Of sql: a SELECT of the rows that are wrong.")
@click.option("--warn", is_flag=True, help="A failure is a warning, and does not keep a table from being promoted.")
@dry_option
@json_option
def create_check(name: str, *, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Write a check of a table, and a test with rows that break it.

    A check that fails keeps the tables of a run from being promoted, unless --warn says that it only warns.
    """
    from cascade_create.check import create_check as create

    _tell(create(load_settings(), name, dry_run=dry_run, **given), as_json=as_json)


def _tell(created: Created, *, as_json: bool) -> None:
    lines = [f"{'Wrote' if created.written else 'Would write'} the {created.what} {created.asset}:"]
    lines += [f"  new      {path}" for path in created.new]
    lines += [f"  changed  {path}" for path in created.changed]
    if not created.written:
        for path, text in created.texts.items():
            if path in created.new and text and not path.startswith("tests/data/"):
                lines += ["", f"--- {path}", text.rstrip()]
    if created.guesses:
        lines += ["", *created.guesses]
    lines += ["", "Next:", *(f"  {command}" for command in created.next)]
    answer(as_json, created, *lines)
    if not as_json:
        say()
    sys.exit(0)
