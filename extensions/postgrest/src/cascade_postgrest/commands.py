"""`cascade postgrest …`: make the API's roles and views, and print its OpenAPI document."""

from __future__ import annotations

from cascade.config import load_settings
from cascade_cli.output import json_option, print_json, print_table, say
from cascade_cli.style import click

__all__ = ["postgrest"]


@click.group()
def postgrest() -> None:
    """Serve the marts in PostgreSQL as an HTTP API: its roles, its views, its OpenAPI document."""


@postgrest.command()
@json_option
def apply(as_json: bool) -> None:
    """Make the roles and views of the API; what exists stays. The container `postgrest-roles` does the same."""
    from cascade_postgrest.database import apply_api

    views = apply_api(load_settings())
    if as_json:
        print_json(views)
    elif views:
        print_table(["view", "columns"], [(f"api.{view.name}", str(len(view.columns))) for view in views])
    else:
        say("Nothing is published yet; each mart gets its view when it is.")


@postgrest.command()
def openapi() -> None:
    """Print the OpenAPI document of what the API serves, from the catalog of PostgreSQL."""
    from importlib.metadata import version

    from cascade_postgrest.database import read_views
    from cascade_postgrest.openapi import document
    from cascade_services.env import read_env

    settings = load_settings()
    port = read_env(settings.project_dir).get("POSTGREST_PORT", "3010")
    title, server = settings.project_dir.resolve().name, f"http://127.0.0.1:{port}"
    print_json(document(read_views(settings), title=title, version=version("cascade-postgrest"), server=server))
