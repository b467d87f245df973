"""`cascade partitions …`: the partitions of an asset, and the keys of dynamic ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.config import load_settings
from cascade_cli.output import answer_table, json_option
from cascade_cli.style import click

if TYPE_CHECKING:
    from cascade_operations.partitions import PartitionRow

__all__ = ["partitions"]


@click.group()
def partitions() -> None:
    """List the partitions of an asset, and add and remove keys of dynamic ones.

    Dagster keeps the keys, and what `main` holds is added to them: a new machine learns them so.
    """


@partitions.command("list")
@click.argument("asset")
@json_option
def list_(asset: str, as_json: bool) -> None:
    """Show the partitions of ASSET, and whether `main` holds each."""
    import cascade_operations as operations

    _show(operations.list_partitions(load_settings(), asset), as_json)


@partitions.command()
@click.argument("asset")
@click.argument("keys", nargs=-1, required=True)
@json_option
def add(asset: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Add KEYS to the dynamic partitions of ASSET; `cascade run` loads what is new."""
    import cascade_operations as operations

    _show(operations.add_partitions(load_settings(), asset, keys), as_json)


@partitions.command()
@click.argument("asset")
@click.argument("keys", nargs=-1, required=True)
@json_option
def remove(asset: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Remove KEYS, which `main` must not hold, from the dynamic partitions of ASSET."""
    import cascade_operations as operations

    _show(operations.remove_partitions(load_settings(), asset, keys), as_json)


def _show(rows: tuple[PartitionRow, ...], as_json: bool) -> None:
    answer_table(
        as_json,
        rows,
        ("partition", "on main"),
        lambda row: (row.key, "loaded" if row.loaded else "missing"),
        empty="There is no partition yet.",
    )
