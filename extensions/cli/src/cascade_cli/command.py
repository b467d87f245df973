"""What a command of `cascade` is, whichever package brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import click

__all__ = ["Command"]


class Command(Protocol):
    """Groups `cascade.commands`, and `cascade.plugin_commands` below `cascade plugins`, by name: a command of click.

    The first sentence of its function's docstring is its line in `cascade --help`.
    """

    params: list[click.Parameter]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None
    ) -> click.Context:
        """Parse the arguments."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
